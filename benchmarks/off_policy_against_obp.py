"""Our off-policy estimates against the Open Bandit Pipeline's: the same numbers, and how fast?

    python benchmarks/off_policy_against_obp.py --python ENV/bin/python [--rows 100000]

ENV is an environment with the package sb-obp in it, which wants other versions of its dependencies
than latebloom does. Both get the same log, from the same file: IPS, SNIPS and DR of a policy over 24
actions. Medians of the seconds of a call, conversions of its own arrays included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from latebloom.methods.bandits.off_policy import evaluate

PEER = """
import json, sys, time
import numpy as np
from obp.ope import DoublyRobust, InverseProbabilityWeighting, SelfNormalizedInverseProbabilityWeighting
log = dict(np.load(sys.argv[1]))
common = dict(reward=log["reward"], action=log["action"], pscore=log["propensity"],
              action_dist=log["policy"][:, :, None], position=np.zeros(len(log["reward"]), int))
model = dict(estimated_rewards_by_reg_model=log["values"][:, :, None])
names = {"ips": InverseProbabilityWeighting(), "snips": SelfNormalizedInverseProbabilityWeighting(),
         "dr": DoublyRobust()}
seconds = []
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    found = {n: float(e.estimate_policy_value(**common, **(model if n == "dr" else {})))
             for n, e in names.items()}
    seconds.append(time.perf_counter() - begun)
print(json.dumps({"values": found, "seconds": float(np.median(seconds))}))
"""


def simulated_log(rows: int, actions: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    logging, policy = rng.dirichlet(np.ones(actions), (2, rows))
    means, values = rng.uniform(0, 1, (2, rows, actions))
    action = (logging.cumsum(1) > rng.uniform(size=(rows, 1))).argmax(1)
    played = np.arange(rows), action
    return {
        "reward": (rng.uniform(size=rows) < means[played]).astype(float), "action": action,
        "propensity": logging[played], "policy": policy, "values": values,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=9)
    chosen = parser.parse_args()
    log = simulated_log(chosen.rows)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "log.npz"
        np.savez(path, **log)  # pyright: ignore
        command = [chosen.python, "-c", PEER, str(path), str(chosen.repeats)]
        peer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    run = jax.jit(evaluate)
    seconds = []
    for _ in range(chosen.repeats + 1):
        begun = time.perf_counter()
        played = np.arange(chosen.rows), log["action"]
        columns = (log["reward"], log["propensity"], log["policy"][played], log["values"][played],
                   (log["policy"] * log["values"]).sum(1))  # fmt: skip
        found = jax.block_until_ready(run(*(jnp.asarray(c, jnp.float32) for c in columns)))
        seconds.append(time.perf_counter() - begun)
    ours = float(np.median(seconds[1:]))
    for name, theirs in peer["values"].items():
        own = float(getattr(found, name).value)
        print(f"{name:6s} ours {own:.6f}  obp {theirs:.6f}  gap {abs(own - theirs):.1e}")
    for name, each in (("latebloom", ours), ("obp", peer["seconds"])):
        print(f"{name:10s} {1e3 * each:8.2f} ms  {chosen.rows / each:12,.0f} rows/s")


if __name__ == "__main__":
    main()
