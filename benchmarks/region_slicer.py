"""How do latebloom's exact 2-D regions compare with regioncam's, in count and in time?

Run: pip install regioncam; python benchmarks/region_slicer.py
Random ReLU networks on the square [-1, 1]^2 (regioncam works in float32, latebloom in float64).
Prints a Markdown table. Without regioncam its columns are empty.
"""

import time
from itertools import pairwise

import numpy as np

from latebloom.probes.regions import Plane, slice_regions

SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
REPEATS = 3


def random_layers(sizes: tuple[int, ...], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights [out, in] at the scale that keeps activations' variance, and small biases."""
    rng = np.random.default_rng(seed)
    return [
        (
            (rng.normal(size=(o, i)) * np.sqrt(2 / i)).astype(np.float32),
            (0.3 * rng.normal(size=o)).astype(np.float32),
        )
        for i, o in pairwise(sizes)
    ]


def ours(layers: list[tuple[np.ndarray, np.ndarray]]) -> int:
    return len(slice_regions(layers, Plane(np.zeros(2), np.eye(2)), SQUARE).sizes)


def theirs(layers: list[tuple[np.ndarray, np.ndarray]]) -> int:
    import regioncam

    regions = regioncam.Regioncam(size=1)
    for weight, bias in layers[:-1]:
        regions.linear(np.ascontiguousarray(weight.T), bias)
        regions.relu()
    regions.linear(np.ascontiguousarray(layers[-1][0].T), layers[-1][1])
    return regions.num_faces


def timed(count, layers) -> tuple[int, float]:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        regions = count(layers)
        seconds.append(time.perf_counter() - start)
    return regions, min(seconds)


def main() -> None:
    print("| hidden layers | regions (latebloom) | s | regions (regioncam) | s |")
    print("|---|---|---|---|---|")
    for widths in ((200,), (50, 50, 50), (100, 100, 100), (200, 200, 200), (100,) * 5):
        layers = random_layers((2, *widths, 10))
        count, seconds = timed(ours, layers)
        try:
            other, other_seconds = timed(theirs, layers)
            peer = f"{other:,} | {other_seconds:.3f}"
        except ImportError:
            peer = " | "
        print(f"| {' x '.join(map(str, widths))} | {count:,} | {seconds:.3f} | {peer} |")


if __name__ == "__main__":
    main()
