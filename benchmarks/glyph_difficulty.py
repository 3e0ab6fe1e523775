"""Are glyphs as hard as real characters, and how fast are they drawn?

Accuracy of the nearest neighbour in pixels, 20 classes from one drawing of each, and of logistic
regression on pixels over 100 classes (15 drawings of each to learn from, 5 to test on), by the hand that
draws them; for real ones the same on MNIST's digits (10 classes). Then images a second of one core.

    OMP_NUM_THREADS=1 python benchmarks/glyph_difficulty.py
"""

import argparse
import statistics
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

from latebloom import data
from latebloom.data.stroke_glyphs import Hand

HANDS = {
    "as it is": Hand(),
    "half the jitter": Hand(jitter=Hand().jitter / 2),
    "no jitter": Hand(jitter=0),
    "jitter alone": Hand(rotation=0, scale=0, shear=0, shift=0),
    "pen alone": Hand(rotation=0, scale=0, shear=0, shift=0, jitter=0),
}


def one_shot(images: np.ndarray, ways: int, episodes: int, seed: int) -> tuple[float, float]:
    """Accuracy of the nearest neighbour in pixels, and half its 95 % interval over episodes."""
    rng = np.random.default_rng(seed)
    x = images.reshape(*images.shape[:2], -1) / 255
    right = []
    for _ in range(episodes):
        chosen = rng.choice(len(x), ways, replace=False)
        pair = np.stack([rng.choice(x.shape[1], 2, replace=False) for _ in chosen])
        known, asked = x[chosen, pair[:, 0]], x[chosen, pair[:, 1]]
        distance = ((asked[:, None] - known) ** 2).sum(-1)
        right.append((distance.argmin(1) == np.arange(ways)).mean())
    return statistics.mean(right), 1.96 * statistics.stdev(right) / episodes**0.5


def linear(images: np.ndarray, train: int) -> tuple[float, float]:
    """Accuracy of logistic regression on pixels, for training and for testing."""
    x = images.reshape(*images.shape[:2], -1) / 255
    y = np.broadcast_to(np.arange(len(x))[:, None], x.shape[:2])
    parts = [(x[:, part].reshape(-1, x.shape[-1]), y[:, part].ravel())
             for part in (slice(train), slice(train, None))]  # fmt: skip
    probe = LogisticRegression(max_iter=300).fit(*parts[0])
    return float(probe.score(*parts[0])), float(probe.score(*parts[1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=400)
    options = parser.parse_args()
    print(f"{'hand':<22}{'seed':>5}{'1-shot 20-way %':>18}{'linear, train %':>17}{'test %':>8}")
    for name, hand in HANDS.items():
        for seed in range(options.seeds):
            images = data.glyphs(options.classes, 20, seed=seed, hand=hand)
            near, half = one_shot(images, 20, options.episodes, seed)
            fit, test = linear(images, 15)
            print(f"{name:<22}{seed:>5}{100 * near:>12.1f} ± {100 * half:.1f}"
                  f"{100 * fit:>17.1f}{100 * test:>8.1f}", flush=True)  # fmt: skip
    real = data.load("mnist-5k")
    digits = np.stack([real.x_train[real.y_train == c][:20] for c in range(10)])
    near, half = one_shot(digits, 10, options.episodes, 0)
    print(f"MNIST's digits, 10-way: {100 * near:.1f} ± {100 * half:.1f}; "
          f"10-way glyphs: {100 * one_shot(data.glyphs(options.classes, 20, seed=0), 10, options.episodes, 0)[0]:.1f}")  # fmt: skip

    for size in (28, 32):
        rates = []
        for seed in range(3):
            start = time.process_time()
            count = data.glyphs(100, 20, seed=seed, size=size).shape[:2]
            rates.append(np.prod(count) / (time.process_time() - start))
        print(f"{size} x {size} pixels: {statistics.median(rates):,.0f} images a second of a core")


if __name__ == "__main__":
    main()
