"""Does the loop around a process copy its data to every seed?

A process reads one row a step of 60,000 images; seeds run side by side, observed often or seldom. A loop
that copied the data for each segment would take longer the more often it is observed, and with each seed.
Prints milliseconds a step a seed, and the bytes of temporaries that the compiled loop needs beside the
size of the data.

    python benchmarks/loop_copies_no_data.py
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from latebloom import Process
from latebloom.core.runs.compiled import CompiledRun


class Reader(Process):
    """Descent of a linear model, a batch of 64 rows a step."""

    images: jax.Array

    def init(self, key):
        return {"weights": jnp.zeros(784), "key": key}

    def step(self, state):
        key, draw = jax.random.split(state["key"])
        rows = self.images[jax.random.randint(draw, (64,), 0, len(self.images))]
        error = rows @ state["weights"] - 1.0
        return {"weights": state["weights"] - 1e-3 * error @ rows / 64, "key": key}

    def observe(self, state):
        return {"norm": jnp.linalg.norm(state["weights"])}


def main() -> None:
    images = jnp.asarray(np.random.default_rng(0).random((60_000, 784), np.float32))
    print(f"data: {images.nbytes / 2**20:.0f} MiB")
    print("seeds  every  ms a step a seed  temporaries (MiB)")
    for seeds in (1, 4):
        for every in (100, 5):
            at = np.arange(0, 601, every)
            best = np.inf
            for _ in range(3):
                run = CompiledRun(Reader(images), list(range(seeds)), at)
                memory = run.program.memory_analysis().temp_size_in_bytes / 2**20
                start = time.perf_counter()
                while not run.done:
                    run.advance()
                best = min(best, time.perf_counter() - start)
            print(
                f"{seeds:5d}  {every:5d}  {1e3 * best / 600 / seeds:16.3f}  {memory:17.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
