"""How near and how fast are the information estimates, against their peers?

I(X; Z) of Gaussian channels with a known answer, by `information` (which knows the encoder) and by
ennemi's nearest neighbours (which does not); densities of diagonal plus low-rank Gaussians, by
`log_density` and by PyTorch's LowRankMultivariateNormal, against SciPy's dense ones in double precision.

    python benchmarks/information_estimators.py --ennemi PYTHON --torch PYTHON

takes Pythons that have ennemi 1.5 and PyTorch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from latebloom.methods.information import NATS_PER_BIT, binned_information, information, log_density

CHANNELS = ((1, 3.0), (1, 255.0), (4, 3.0), (16, 3.0))  # dimensions, signal to noise
ENNEMI = """
import json, sys, time
import numpy as np
from ennemi import estimate_mi
given = json.load(sys.stdin)
said, seconds = [], []
for x, z in given:
    x, z = np.array(x), np.array(z)
    start = time.perf_counter()
    value = estimate_mi(z, x, k=3, preprocess=False)
    seconds.append(time.perf_counter() - start)
    said.append(float(np.asarray(value).squeeze()))
print(json.dumps({"said": said, "seconds": seconds}))
"""
TORCH = """
import json, sys, time
import numpy as np, torch
given = json.load(sys.stdin)
data = np.load(given["file"])
theta, mean, diagonal, columns = (torch.from_numpy(data[n]) for n in ("theta", "mean", "diagonal", "columns"))
seconds = []
for _ in range(given["rounds"]):
    start = time.perf_counter()
    law = torch.distributions.LowRankMultivariateNormal(mean, columns.T, diagonal)
    said = law.log_prob(theta)
    seconds.append(time.perf_counter() - start)
print(json.dumps({"said": said.tolist(), "seconds": seconds, "version": torch.__version__}))
"""


def timed(way: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Median seconds after a first call that compiles, and the result."""
    found = jax.block_until_ready(way())
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        found = jax.block_until_ready(way())
        spent.append(time.perf_counter() - start)
    return statistics.median(spent), found


def ask(python: str, program: str, given: Any) -> Any:
    done = subprocess.run(
        [python, "-c", program], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def channels(n: int, rounds: int, ennemi: str | None) -> None:
    rng = np.random.default_rng(0)
    print(f"I(X; Z) in bits, {n} pairs, mean of {rounds} draws")
    print(f"{'':<22}{'truth':>8}{'mc':>9}{'jensen':>10}{'10 bins':>9}{'ennemi':>9}  ms: mc, ennemi")
    for dims, snr in CHANNELS:
        truth = 0.5 * dims * np.log2(1 + snr)
        rows, seconds, pairs = [], [], []
        for _ in range(rounds):
            mean = rng.normal(0, np.sqrt(snr), (n, dims)).astype(np.float32)
            z = mean + rng.normal(size=mean.shape).astype(np.float32)
            sigma = jnp.ones_like(mean)
            spent, mc = timed(lambda: information(z, mean, sigma), 1)  # noqa: B023
            seconds.append(spent)
            rows.append([mc, information(z, mean, sigma, "jensen"), binned_information(z)])
            pairs.append([mean[:, 0].tolist(), z[:, 0].tolist()])
        mc, jensen, bins = np.mean(np.array(rows, float), axis=0) / NATS_PER_BIT
        peer, peer_ms = "–", "–"
        if ennemi and dims == 1:  # it takes scalar pairs
            answer = ask(ennemi, ENNEMI, pairs)
            peer = f"{np.mean(answer['said']) / NATS_PER_BIT:.3f}"
            peer_ms = f"{1000 * statistics.median(answer['seconds']):.1f}"
        name = f"{dims} dim., snr {snr:g}"
        print(f"{name:<22}{truth:8.3f}{mc:9.3f}{jensen:10.2f}{bins:9.3f}{peer:>9}  "
              f"{1000 * statistics.median(seconds):.1f}, {peer_ms}")  # fmt: skip


def densities(rounds: int, torch: str | None, folder: str) -> None:
    rng = np.random.default_rng(1)
    print("\nlog density of 60 points, 10 columns")
    print(
        f"{'weights':>9}{'ours, ms':>10}{'torch, ms':>11}{'largest difference from SciPy, ours, torch':>46}"
    )
    for n in (1000, 50_000):
        mean, theta = rng.normal(size=n), rng.normal(size=(60, n))
        diagonal, columns = np.exp(rng.normal(size=n)), 0.3 * rng.normal(size=(10, n))
        given = {"theta": theta, "mean": mean, "diagonal": diagonal, "columns": columns}
        given = {name: value.astype(np.float32) for name, value in given.items()}
        ours = jax.jit(log_density)
        arrays = [jnp.asarray(given[name]) for name in ("theta", "mean", "diagonal", "columns")]
        spent, said = timed(lambda: ours(*arrays), rounds)  # noqa: B023
        theirs, peer_ms = None, "–"
        if torch:
            path = f"{folder}/low_rank_{n}.npz"
            np.savez(path, **given)
            answer = ask(torch, TORCH, {"file": path, "rounds": rounds})
            theirs, peer_ms = (
                np.array(answer["said"]),
                f"{1000 * statistics.median(answer['seconds']):.2f}",
            )
        off = "–"
        if n <= 1000:
            double = {name: value.astype(float) for name, value in given.items()}
            dense = np.diag(double["diagonal"]) + double["columns"].T @ double["columns"]
            truth = stats.multivariate_normal(double["mean"], dense).logpdf(double["theta"])
            off = f"{np.abs(said - truth).max():.4f}"
            off += f", {np.abs(theirs - truth).max():.4f}" if theirs is not None else ""
        elif theirs is not None:
            off = f"{np.abs(said - theirs).max():.3f} apart of {np.abs(theirs).mean():.0f}"
        print(f"{n:>9}{1000 * spent:>10.2f}{peer_ms:>11}{off:>46}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ennemi", help="a Python with ennemi")
    parser.add_argument("--torch", help="a Python with PyTorch")
    options = parser.parse_args()
    channels(options.pairs, options.rounds, options.ennemi)
    with tempfile.TemporaryDirectory() as folder:
        densities(options.rounds, options.torch, folder)


if __name__ == "__main__":
    main()
