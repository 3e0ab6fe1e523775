"""How much faster do DynLin-UCB and LinUCB run than in their authors' code, with what outcome?

The published synthetic system (sigma 0.1), 10 trials, DynLin-UCB and LinUCB in their "log T" form,
by

- `reference`: the authors' agents, environment and noise (numpy), in a process of its own, because
  they need numpy below 2;
- `ours`: the same under `unfold`, ten seeds in one program; compile time is apart.

In turns, three of ours to one of theirs; seconds for all trials (medians), and final pseudo-regret,
mean over trials with its 95 % bootstrap interval.

    git clone https://github.com/marcomussi/DLB CHECKOUT && pip install "numpy<2"  # in a venv
    python benchmarks/dynamical_linear_bandits.py --reference CHECKOUT --python VENV/bin/python
"""

import argparse
import json
import os
import subprocess

cores = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")

import numpy as np

from latebloom import unfold
from latebloom.lab.verdict import interval
from latebloom.studies.bandits.dynamical_linear_bandits import Config, make_process, schedule

POLICIES = {"dynlinucb": "dynlin", "linucb": "linucb"}
REFERENCE = """
import json, sys, time, warnings
sys.path.insert(0, sys.argv[1]); warnings.filterwarnings("ignore")
import numpy as np
from dynlinucb.core.utils import spectr
from dynlinucb.experimental.agents import LinearAgent
from dynlinucb.experimental.environment import DynLinEnvironment
T, trials, policy = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
p = json.load(open(sys.argv[1] + "/config/testcase_synt_sigma0dot1.json"))
A, B, C, D = (np.array(p[k]) for k in "ABCD")
sigma, total = p["noise_sigma"], np.ones((1, 3))
actions = np.array([[0, .5, 1], [0, 1, .5], [.5, 0, 1], [.5, 1, 0], [1, 0, .5], [1, .5, 0]])
steady = (total @ (D + C @ np.linalg.inv(np.eye(3) - A) @ B)).ravel()
radius = max(np.abs(np.linalg.eigvals(A)))
agent = LinearAgent(
    6, 3, actions, T, np.log(T), radius, np.linalg.norm(total @ C, 2),
    np.linalg.norm(total @ D, 2), np.linalg.norm(actions, axis=1).max(), np.linalg.norm(B, 2),
    spectr(A), sigma**2, 1 / T, **{policy: True})
np.random.seed(1)
noise = np.random.normal(0, sigma, (2, trials, T, 3))
world = DynLinEnvironment(A, B, C, D, 3, 3, 3, T, noise[0], noise[1], trials, total)
regrets, start = [], time.perf_counter()
for trial in range(trials):
    world.reset(trial); agent.reset()
    taken = np.zeros((T, 3))
    for t in range(T):
        u = agent.pull_arm()
        agent.update(world.step(u.reshape(3, 1))[0, 0])
        taken[t] = u.ravel()
    regrets.append(float(((actions @ steady).max() - taken @ steady).sum()))
print(json.dumps([time.perf_counter() - start, regrets]))
"""


def reference(arguments: argparse.Namespace, policy: str) -> tuple[float, np.ndarray]:
    call = [arguments.python, "-c", REFERENCE, arguments.reference, arguments.rounds,
            arguments.trials, policy]  # fmt: skip
    done = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=True)
    seconds, regrets = json.loads(done.stdout.splitlines()[-1])
    return seconds, np.array(regrets)


def ours(arguments: argparse.Namespace, policy: str) -> tuple[float, np.ndarray, float]:
    config = Config(
        system="synthetic", noise=0.1, horizon=arguments.rounds, policy=POLICIES[policy]
    )  # fmt: skip
    trace = unfold(
        make_process(config), seeds=arguments.trials, at=schedule(config), progress=False
    )
    return trace.attrs["run_seconds"], trace.regret.values[:, -1], trace.attrs["compile_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", required=True, help="a checkout of marcomussi/DLB")
    parser.add_argument("--python", required=True, help="a Python with numpy below 2")
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--turns", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{arguments.trials} trials of {arguments.rounds:,} rounds, synthetic system, sigma 0.1")
    for policy in POLICIES:
        _, _, compiling = ours(arguments, policy)
        times: dict[str, list[float]] = {"ours": [], "reference": []}
        for _ in range(arguments.turns):
            for _ in range(3):
                seconds, regret, _ = ours(arguments, policy)
                times["ours"].append(seconds)
            seconds, their_regret = reference(arguments, policy)
            times["reference"].append(seconds)
        fast, slow = (float(np.median(times[who])) for who in ("ours", "reference"))
        print(f"{policy:10s} ours {fast:.2f} s (compiling {compiling:.1f}), reference {slow:.1f} s,"
              f" {slow / fast:.0f} times faster")  # fmt: skip
        for who, values in (("ours", regret), ("reference", their_regret)):
            low, high = interval(values)
            print(f"    regret, {who:9s} {values.mean():8.0f} [{low:.0f}, {high:.0f}]", flush=True)


if __name__ == "__main__":
    main()
