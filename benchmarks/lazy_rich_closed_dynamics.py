"""How much faster is the committee machine without its neurons?

Full-batch gradient descent at D = 50, P = 200, N = 250 (and the paper's 100, 550, 500 with
--paper), float32, seconds for 20,000 steps at 1 and 8 seeds, by

- `closed`: `ClosedDynamics` under `unfold` (exact test loss and kernel alignment included, at 76
  observation steps);
- `neurons`: the same task with explicit neurons, autodiff and SGD under `unfold`;
- `loop`: plain JAX, one jitted gradient step of the N neurons called from a Python loop, one seed
  after another, which is how such experiments are usually written;
- `torch`: the same loop in PyTorch, if it is installed.

The loops are timed over 1,000 steps (after a warm-up) and scaled. Compile time is apart.

    python benchmarks/lazy_rich_closed_dynamics.py [--paper]
"""

import argparse
import importlib.util
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from latebloom import log_steps, unfold
from latebloom.methods.grokking.lazy_rich import ClosedDynamics, committee_training

STEPS, LOOP_STEPS, EPSILON = 20_000, 1_000, 0.25


def closed(dim: int, samples: int, neurons: int, seeds: int) -> tuple[float, float]:
    process = ClosedDynamics(dim=dim, samples=samples, neurons=neurons, dtype="float32")
    trace = unfold(process, seeds=seeds, at=log_steps(STEPS), progress=False)
    return trace.attrs["run_seconds"], trace.attrs["compile_seconds"]


def explicit(dim: int, samples: int, neurons: int, seeds: int) -> tuple[float, float]:
    process = committee_training(dim=dim, samples=samples, neurons=neurons)
    steps = STEPS // 4
    trace = unfold(process, seeds=seeds, at=log_steps(steps), progress=False)
    return 4 * trace.attrs["run_seconds"], trace.attrs["compile_seconds"]


def data(dim: int, samples: int, neurons: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, dim), np.float32) / np.float32(dim**0.5)
    y = (x @ rng.standard_normal(dim, np.float32)) ** 2 / 2
    return x, y, rng.standard_normal((neurons, dim), np.float32)


def timed(step: Callable[[], object], wait: Callable[[object], object]) -> float:
    for _ in range(20):
        last = step()
    wait(last)
    start = time.perf_counter()
    for _ in range(LOOP_STEPS):
        last = step()
    wait(last)
    return (time.perf_counter() - start) * STEPS / LOOP_STEPS


def loop(dim: int, samples: int, neurons: int, seeds: int) -> tuple[float, float]:
    @jax.jit
    def descend(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        def loss(w: jax.Array) -> jax.Array:
            h = w @ x.T
            return jnp.mean((jnp.mean(h + EPSILON / 2 * h**2, axis=0) - y) ** 2)

        return w - 0.5 * neurons * jax.grad(loss)(w)

    seconds = 0.0
    for seed in range(seeds):
        x, y, w = map(jnp.asarray, data(dim, samples, neurons, seed))
        state = [w]

        def step() -> jax.Array:
            state[0] = descend(state[0], x, y)  # noqa: B023
            return state[0]  # noqa: B023

        seconds += timed(step, jax.block_until_ready)
    return seconds, 0.0


def torch_loop(dim: int, samples: int, neurons: int, seeds: int) -> tuple[float, float]:
    import torch

    seconds = 0.0
    for seed in range(seeds):
        x, y, w = map(torch.from_numpy, data(dim, samples, neurons, seed))
        w.requires_grad_(True)
        sgd = torch.optim.SGD([w], lr=0.5 * neurons)

        def step() -> None:
            sgd.zero_grad()  # noqa: B023
            h = w @ x.T  # noqa: B023
            ((h + EPSILON / 2 * h**2).mean(0) - y).square().mean().backward()  # noqa: B023
            sgd.step()  # noqa: B023

        seconds += timed(step, lambda _: None)
    return seconds, 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Closed dynamics against explicit neurons.")
    parser.add_argument("--paper", action="store_true", help="D = 100, P = 550, N = 500")
    size = (100, 550, 500) if parser.parse_args().paper else (50, 200, 250)
    ways = {"closed": closed, "neurons": explicit, "loop": loop}
    if importlib.util.find_spec("torch"):
        ways["torch"] = torch_loop
    print(f"D, P, N = {size}; seconds per {STEPS:,} steps (compiling apart)")
    for seeds in (1, 8):
        for name, way in ways.items():
            seconds, compiling = way(*size, seeds)
            print(f"{seeds} seeds  {name:8s} {seconds:8.2f}   ({compiling:.1f})", flush=True)


if __name__ == "__main__":
    main()
