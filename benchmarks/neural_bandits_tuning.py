"""Which settings does each bandit method want on each data set?

Run: python benchmarks/neural_bandits_tuning.py [DATA ...] [--training replay|online] [--rounds N]
Every method has a grid of eight settings, played on seeds 100 and 101, which the study does not use.
Prints the regret of each, and puts the winners into the table that the study reads.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from latebloom.core.process import Process
from latebloom.studies.bandits import neural_bandits
from latebloom.studies.bandits.neural_bandits import SYNTHETIC, TUNED, Config, make_process

TABLE = Path(neural_bandits.__file__).with_suffix(".json")
SEEDS = (100, 101)

WIDE = (0.03, 0.1, 0.3, 1.0)
GAPS = (30.0, 100.0, 300.0, 1000.0)
EPSILONS = (0.001, 0.003, 0.01, 0.03)
RATES = {"replay": (1.0, 3.0), "online": (2.0, 4.0)}
NOISY = (0.3, 1.0)  # of the synthetic worlds, whose rewards are drawn
RIDGE = (0.03, 0.3)


def grids(data: str, training: str) -> dict[str, list[tuple[float, float]]]:
    """Eight pairs (rate or ridge, exploration) for each method."""
    low, high = rates = NOISY if data in SYNTHETIC else RATES[training]
    found = {
        "neu-fast": itertools.product(rates, GAPS),
        "neu-square": itertools.product(rates, GAPS),
        "neural-ucb": itertools.product(rates, WIDE),
        "neural-ts": itertools.product(rates, WIDE),
        "neural-epsilon": itertools.product(rates, EPSILONS),
        "neural-greedy": ((low * (high / low) ** (i / 2), 0.0) for i in range(-4, 4)),
    }
    if training == "replay":
        found |= {
            "ee-net": itertools.product(rates, WIDE),
            "linucb": itertools.product(RIDGE, WIDE),
            "kernel-ucb": itertools.product((0.1, 1.0), WIDE),
            "linear-square": itertools.product(RIDGE, GAPS),
            "linear-fast": itertools.product(RIDGE, GAPS),
        }
    return {method: [(float(a), float(b)) for a, b in pairs] for method, pairs in found.items()}


def regrets(processes: list[Process], rounds: int) -> np.ndarray:
    """Mean regret over the seeds of processes that differ in numbers alone, in one program."""
    numbers = (float, np.ndarray, np.generic)
    arrays = [jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, numbers) else v, p)
              for p in processes]  # fmt: skip
    parts = [eqx.partition(p, eqx.is_array) for p in arrays]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(a for a, _ in parts))
    keys = jax.vmap(jax.random.key)(np.array(SEEDS, np.uint32))

    def one(arrays, key):
        process = eqx.combine(arrays, parts[0][1])
        state = process.init(key)
        return jax.lax.fori_loop(0, rounds, lambda _, s: process.step(s), state).regret.value

    def run(arrays):
        return jax.lax.map(lambda key: one(arrays, key), keys).mean()

    return np.asarray(jax.jit(lambda a: jax.lax.map(run, a))(stacked))


def as_text(table: dict[str, dict[str, dict[str, tuple[float, float]]]]) -> str:
    """The table as JSON, a line for each method."""
    blocks = []
    for data, trainings in table.items():
        parts = [
            f'  "{training}": {{\n'
            + ",\n".join(f'   "{method}": {json.dumps(pair)}' for method, pair in methods.items())
            + "\n  }"
            for training, methods in trainings.items()
        ]
        blocks.append(f' "{data}": {{\n' + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", default=["digits-8x8", "satellite", "letter"])
    parser.add_argument("--training", choices=("replay", "online"), default="replay")
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--rounds", type=int, default=1200)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--memory", type=int, default=500)
    args = parser.parse_args()
    for data in args.data:
        best = TUNED.setdefault(data, {}).setdefault(args.training, {})
        for method, pairs in grids(data, args.training).items():
            if args.methods and method not in args.methods:
                continue
            start = time.perf_counter()
            found = regrets([
                make_process(Config(
                    method, data, args.training, rate, explore, hidden=args.hidden,
                    rounds=args.rounds, limit=args.limit, memory=args.memory,
                )) for rate, explore in pairs
            ], args.rounds)  # fmt: skip
            rate, explore = pairs[int(np.nanargmin(found))]
            best[method] = (float(f"{rate:.3g}"), explore)
            shown = "  ".join(f"({r:.3g}, {e:g}) {v:.0f}" for (r, e), v in zip(pairs, found, strict=True))  # fmt: skip
            seconds = time.perf_counter() - start
            print(f"{data} {args.training} {method} ({seconds:.0f} s): {shown}", flush=True)
            TABLE.write_text(as_text(TUNED))


if __name__ == "__main__":
    main()
