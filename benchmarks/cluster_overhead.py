"""What does a unit cost on a Ray cluster beyond what it computes?

    python benchmarks/cluster_overhead.py

Units that compute next to nothing, in this process and on a cluster of this machine's cores, in turns:
a unit's cost is the slope between few units and many; what a pass costs once is the rest. The large
units give back a trace of 8 MB.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass

import numpy as np

from latebloom import HostProcess
from latebloom.lab import Budget, Paper, Study

FEW, MANY = 10, 60


@dataclass(frozen=True)
class Config:
    arm: int
    values: int


class Noise(HostProcess):
    def __init__(self, config):
        self.values = config.values

    def init(self, seed):
        return np.random.default_rng(seed)

    def step(self, state):
        return state

    def observe(self, state):
        return {"noise": state.random(self.values)}


def make_process(config):
    return Noise(config)


def schedule(config):
    return np.arange(8)


study = Study(
    paper=Paper("noise", "Noise", "Nobody", "nowhere", 2026, "0000.00000"),
    family="benchmarks", question="What does a unit cost?", symptoms=("it is slow",),
    arms={f"{kind}-{i}": Config(i, values) for kind, values in (("small", 1), ("large", 125_000))
          for i in range(MANY)},
    process=make_process, schedule=schedule, budgets={"quick": Budget(1)}, claims=(), watch="noise",
    side_by_side=True,
)  # fmt: skip


def seconds(units: int, kind: str, cluster: str | None) -> float:
    from latebloom.lab.runner import run
    from latebloom.lab.store import Store

    with tempfile.TemporaryDirectory() as folder:
        arms = [f"{kind}-{i}" for i in range(units)]
        return run(this.study, arms=arms, store=Store(folder), cluster=cluster).waited


if __name__ == "__main__":
    import cluster_overhead as this  # a node imports the study: not from a script under way
    import ray

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    started = time.perf_counter()
    seconds(FEW, "small", "auto")
    first = time.perf_counter() - started
    taken: dict[str, list[float]] = {}
    for _ in range(turns):
        for kind in ("small", "large"):
            for where, cluster in (("here", None), ("cluster", "auto")):
                few, many = (seconds(units, kind, cluster) for units in (FEW, MANY))
                each = (many - few) / (MANY - FEW)
                taken.setdefault(f"ms a {kind} unit, {where}", []).append(1e3 * each)
                taken.setdefault(f"s a pass of {kind} units, {where}", []).append(few - FEW * each)
    found = {name: round(statistics.median(times), 2) for name, times in taken.items()}
    print(json.dumps({"s the first pass, with its processes": round(first, 1)} | found, indent=1))
