"""How do latebloom's inverse-gap bandits compare with Vowpal Wabbit's SquareCB, in reward and speed?

Run: pip install vowpalwabbit; python benchmarks/neural_bandits_against_vw.py [DATA ...]
Every learner plays the same rows in the same order, row by row, and learns from its own reward.
VW runs `--cb_explore_adf --squarecb` on features crossed with actions; its step size and gamma are
the best of twelve pairs on the streams of seeds 100 and 101 (latebloom's settings, from the study,
of eight). Each VW example is parsed once, for prediction and learning. Reported over the streams of
seeds 0, 1, ...: mean reward, its paired difference to VW with a 95 % bootstrap interval, and rows a
second (median; latebloom without its compile time).
"""

import argparse
import itertools
import time

import jax.numpy as jnp
import numpy as np
from scipy.stats import bootstrap

from latebloom import unfold
from latebloom.core.interaction import Interaction
from latebloom.methods.bandits.neural import ClassificationBandit, load_contexts
from latebloom.studies.bandits.neural_bandits import make_policy, tuned

GRID = tuple(itertools.product((0.5, 2.0, 5.0), (10, 30, 100, 300)))
OURS = (("linear-square", "replay"), ("linear-fast", "replay"), ("neu-square", "online"),
        ("neu-fast", "online"), ("neu-fast", "replay"))  # fmt: skip


def stream(data: str, seed: int, rounds: int) -> tuple[np.ndarray, np.ndarray, int]:
    x, label, classes = load_contexts(data)
    order = np.random.default_rng(seed).permutation(len(x))[:rounds]
    return x[order], label[order], classes


def theirs(x, label, classes, rate, gamma, seed) -> tuple[float, float]:
    """Mean reward and rows a second of Vowpal Wabbit on a stream."""
    import vowpalwabbit

    learner = vowpalwabbit.Workspace(
        f"--cb_explore_adf --squarecb --gamma_scale {gamma} -l {rate} -q xa --ignore_linear x "
        f"--quiet --random_seed {seed}"
    )
    shared = ["shared |x " + " ".join(f"{i}:{v:.6f}" for i, v in enumerate(row)) for row in x]
    actions = [f"|a {k}" for k in range(classes)]
    draws, reward = np.random.default_rng(seed + 1000).random(len(x)), 0
    start = time.perf_counter()
    for text, y, point in zip(shared, label, draws, strict=True):
        example = learner.parse([text, *actions])
        p = learner.predict(example)
        k = min(int(np.searchsorted(np.cumsum(p), point)), classes - 1)
        hit = int(k == y)
        reward += hit
        example[k + 1].set_label_string(f"{k}:{1 - hit}:{p[k]}")
        learner.learn(example)
        learner.finish_example(example)
    seconds = time.perf_counter() - start
    learner.finish()
    return reward / len(x), len(x) / seconds


def ours(method, training, streams, data, hidden, limit) -> tuple[list[float], list[float]]:
    """Mean reward, and rows a second, of each stream."""
    rewards, rates = [], []
    for seed, (x, label, classes) in enumerate(streams):
        n = len(x)
        config = tuned(method, data, training, hidden=hidden, rounds=n, limit=limit)
        world = ClassificationBandit(
            classes, jnp.asarray(x), jnp.asarray(label), jnp.zeros(n, jnp.int32), shuffle=False
        )
        play = Interaction(world, make_policy(config))
        trace = unfold(play, seeds=[seed], steps=n, progress=False)
        rewards.append(float(trace.reward[0, -1]) / n)
        rates.append(n / trace.attrs["run_seconds"])
    return rewards, rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", default=["digits-8x8", "satellite", "letter"])
    parser.add_argument("--rounds", type=int, default=1200)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    print("| data | learner | mean reward | minus VW | rows a second |\n|---|---|---|---|---|")
    for data in args.data:
        trials = [(stream(data, seed, args.rounds), seed) for seed in (100, 101)]
        rate, gamma = max(GRID, key=lambda g: sum(theirs(*s, *g, seed)[0] for s, seed in trials))
        streams = [stream(data, seed, args.rounds) for seed in range(args.seeds)]
        found = [theirs(*s, rate, gamma, seed) for seed, s in enumerate(streams)]
        theirs_, speeds = (np.array(v) for v in zip(*found, strict=True))
        print(f"| {data} | VW SquareCB (-l {rate}, gamma {gamma}) | {theirs_.mean():.3f} | | "
              f"{np.median(speeds):,.0f} |", flush=True)  # fmt: skip
        for method, training in OURS:
            rewards, rates = ours(method, training, streams, data, args.hidden, args.limit)
            gain = np.array(rewards) - theirs_
            low, high = bootstrap((gain,), np.mean, rng=0).confidence_interval
            label = method if method.startswith("linear") else f"{method}, {training}"
            print(f"| {data} | {label} | {np.mean(rewards):.3f} | {gain.mean():+.3f} "
                  f"[{low:+.3f}, {high:+.3f}] | {np.median(rates):,.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
