"""How long does a seed take against PyTorch: a matrix-bound and an overhead-bound workload?

1. Addition mod 113, one-hot MLP 226-200-200-113 without biases, full batches of 5107 pairs,
   perpAdamW, 300 steps: the configuration of Prieto et al. 2025, Fig. 1.
2. A 16-64-64-4 MLP on batches of 64, Adam, 20,000 steps: overhead dominates.

PyTorch runs in the same process tree on the same cores, in turns with ours:

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    python benchmarks/grokking_against_pytorch.py [--reference CHECKOUT] [--json FILE]

With `--reference`, a checkout of the authors' repository, its own model and optimiser classes are
timed; without it, the same operations written plainly.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

cores = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")

import jax
import jax.numpy as jnp
import numpy as np
import optax

from latebloom import data, losses, nn, optim, unfold
from latebloom.core.training import Dataset, Supervised

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed here; see the head of this file")

P, WIDTH, STEPS, TINY_STEPS = 113, 200, 300, 20_000


def perp_adamw(learning_rate):
    return optax.chain(
        optim.perp_grad(), optax.adamw(learning_rate, b2=0.99, eps=1e-25, weight_decay=0.0)
    )


def mod_model(key):
    return nn.MLP(2 * P, (WIDTH, WIDTH), P, key=key, use_bias=False, one_hot=True)


def ours_mod(seeds, seeds_by):
    process = Supervised(
        model=mod_model, data=data.ModularArithmetic(P, "+", 0.4), optimiser=perp_adamw,
        hyper={"learning_rate": 0.01}, loss=losses.cross_entropy, seeds_by=seeds_by,
    )  # fmt: skip
    return unfold(process, seeds=seeds, steps=STEPS, every=STEPS)


def plain_orthograd(parameters):
    for p in parameters:
        w, g = p.detach().view(-1), p.grad.view(-1)
        along = torch.dot(w, g) / (torch.dot(w, w) + 1e-30)
        projected = g - along * w
        p.grad.copy_((projected * (g.norm() / (projected.norm() + 1e-30))).view_as(p))


def torch_mod(reference):
    """Seconds of 300 training steps of one seed, evaluation left out, and the test accuracy."""
    torch.manual_seed(0)
    a, b = torch.meshgrid(torch.arange(P), torch.arange(P), indexing="ij")
    a, b = a.reshape(-1), b.reshape(-1)
    x = torch.cat([torch.eye(P)[a], torch.eye(P)[b]], dim=1)
    y = (a + b) % P
    order = torch.randperm(P * P)
    count = int(0.4 * P * P)
    x_train, y_train = x[order[:count]], y[order[:count]]
    if reference:
        from models import MLP
        from orthograd import OrthoGrad

        model = MLP(2 * P, [WIDTH, WIDTH], P, bias=False)
        optimiser = OrthoGrad(model.parameters(), torch.optim.AdamW, lr=0.01, weight_decay=0.0)
    else:
        layers = [torch.nn.Linear(i, o, bias=False) for i, o in
                  ((2 * P, WIDTH), (WIDTH, WIDTH), (WIDTH, P))]  # fmt: skip
        model = torch.nn.Sequential(
            layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2]
        )
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    start = time.perf_counter()
    for _ in range(STEPS):
        shuffled = torch.randperm(count)
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x_train[shuffled]), y_train[shuffled])
        loss.backward()
        if not reference:
            plain_orthograd(model.parameters())
        optimiser.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        test = model(x[order[count:]]).argmax(1) == y[order[count:]]
    return seconds, float(test.float().mean())


def tiny_data(key):
    x = jax.random.normal(key, (4096, 16))
    y = jnp.argmax(x[:, :4], axis=1).astype(jnp.int32)
    return Dataset(x, y, x[:64], y[:64])


def tiny_model(key):
    return nn.MLP(16, (64, 64), 4, key=key)


def adam(learning_rate):
    return optax.adam(learning_rate)


def ours_tiny(seeds):
    process = Supervised(
        model=tiny_model, data=tiny_data(jax.random.key(0)), optimiser=adam,
        hyper={"learning_rate": 1e-3}, loss=losses.cross_entropy, batch_size=64,
    )  # fmt: skip
    return unfold(process, seeds=seeds, steps=TINY_STEPS, every=TINY_STEPS)


def torch_tiny():
    shared = tiny_data(jax.random.key(0))
    x, y = (torch.tensor(np.array(v)) for v in (shared.x_train, shared.y_train))
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64),
                                torch.nn.ReLU(), torch.nn.Linear(64, 4))  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = TINY_STEPS // 10  # eager steps cost the same each: a tenth is enough to time
    order, place = torch.randperm(4096), 0
    start = time.perf_counter()
    for _ in range(steps):
        if place + 64 > 4096:
            order, place = torch.randperm(4096), 0
        rows, place = order[place : place + 64], place + 64
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows].long()).backward()
        optimiser.step()
    return (time.perf_counter() - start) * TINY_STEPS / steps


def sgemm_peak():
    """Billion float32 operations a second of a 2048 x 2048 product, the best of five."""
    a = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--reference", type=Path, help="a checkout of the authors' repository")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.reference:
        sys.path.insert(0, str(options.reference))
    torch.set_num_threads(cores)
    seconds = {}

    def note(name, value):
        seconds.setdefault(name, []).append(value)

    accuracy = {}
    for _ in range(options.repeats):
        for seeds, how in ((1, "map"), (8, "map"), (8, "vmap")):
            trace = ours_mod(seeds, how)
            note(f"mod 113, ours, {seeds} seeds ({how})", trace.attrs["run_seconds"] / seeds)
            accuracy["ours"] = float(trace.test_accuracy[:, -1].mean())
        value, accuracy["PyTorch"] = torch_mod(options.reference)
        note("mod 113, PyTorch, 1 seed", value)
        for seeds in (1, 8):
            trace = ours_tiny(seeds)
            note(f"tiny, ours, {seeds} seeds", trace.attrs["run_seconds"] / seeds)
        note("tiny, PyTorch, 1 seed", torch_tiny())
    peak = sgemm_peak()
    # Forward, and backward for weights and inputs; the first layer only gathers and scatters.
    operations = STEPS * 2 * 3 * int(0.4 * P * P) * (WIDTH * WIDTH + WIDTH * P)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{cores} cores; median of {options.repeats}; seconds a seed")
    for name, values in seconds.items():
        print(f"{name:34} {medians[name]:8.3f}   [{min(values):.3f}, {max(values):.3f}]")
    rates = {n: operations / medians[n] / 1e9 for n in medians if n.startswith("mod 113")}
    print(
        f"sgemm peak {peak:.0f} GFLOP/s; "
        + "; ".join(f"{n}: {r / peak:.0%}" for n, r in rates.items())
    )
    print(f"test accuracy: {accuracy}")
    if options.json:
        options.json.write_text(
            json.dumps({"seconds": seconds, "medians": medians, "sgemm_gflops": peak})
        )


if __name__ == "__main__":
    main()
