"""Are later tasks of the study learned faster by networks that are fresh for each?

Run: python benchmarks/power_law_fresh_networks.py [--rate RATE] [--seeds SEEDS]
The null of forward facilitation: each of the twenty permuted tasks of the power-law study is given to the
network that the first one was given to, with the study's own examples, batches and exams. Prints, with 95 %
intervals over seeds, the slope of the log number of updates to the criterion, what the last quarter of the tasks takes
more than the first, and what power-law rehearsal and sequential training take more than the fresh networks.
The criterion is the first task's own, so that the null of a comparison with the first task need not be 0.
"""

import argparse
import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from scipy import stats

from latebloom import unfold
from latebloom.core.stream import Stream, alone
from latebloom.methods.forgetting.continual import Continual
from latebloom.methods.forgetting.facilitation import (
    later_updates,
    slope_of_updates,
    updates_to_criterion,
)
from latebloom.studies.forgetting import power_law_rehearsal as study


class Alone(eqx.Module):
    tasks: study.Tasks
    task: Array

    def __call__(self, key: PRNGKeyArray) -> Stream:
        return alone(self.tasks(key), self.task)


def fresh_updates(config: study.Config, seeds: int) -> np.ndarray:
    """Updates to the criterion [seed, task], each task from the initial network."""
    of = study.make_process(config)
    at = study.schedule(dataclasses.replace(config, tasks=1, dense=True))
    found = []
    for task in range(config.tasks):
        process = Continual(
            model=of.model, data=of.data, stream=Alone(of.stream, jnp.int32(task)), method=of.method,
            optimiser=of.optimiser, hyper=of.hyper,
        )  # fmt: skip
        trace = unfold(process, seeds=seeds, at=at[at <= config.new_steps], progress=False)
        found.append(trace.accuracy.values[:, :, 0])
    together = xr.Dataset(
        {"accuracy": (("seed", "step", "task"), np.stack(found, axis=2))},
        {"step": at[at <= config.new_steps]},
    )
    return updates_to_criterion(together, [0] * config.tasks, config.new_steps)


def say(what: str, found: np.ndarray) -> None:
    half = stats.t.ppf(0.975, len(found) - 1) * stats.sem(found)
    print(f"{what} {found.mean():.3f} [{found.mean() - half:.3f}, {found.mean() + half:.3f}]", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--rate", type=float, default=study.TUNED["power"]["rate"])
    parser.add_argument("--seeds", type=int, default=8)
    args = parser.parse_args()
    fresh = fresh_updates(study.Config("none", rate=args.rate), args.seeds)
    say("fresh: slope", slope_of_updates(fresh))
    say("fresh: last quarter less first", later_updates(fresh))
    for name in ("power", "none"):
        config = study.Config(name, rate=args.rate, dense=True)
        trace = unfold(study.make_process(config), seeds=args.seeds, at=study.schedule(config), progress=False)  # fmt: skip
        starts = config.task_steps * np.arange(config.tasks)
        apart = np.log(updates_to_criterion(trace, starts, config.new_steps) / fresh)
        say(f"{name}, less fresh: tasks from the second on", apart[:, 1:].mean(axis=1))
        say(f"{name}, less fresh: last quarter", apart[:, -(config.tasks // 4) :].mean(axis=1))


if __name__ == "__main__":
    main()
