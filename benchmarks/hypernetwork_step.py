"""How long does a training step of a hypernetwork take, ours and hyperlight's (PyTorch)?

Run: python benchmarks/hypernetwork_step.py --python ENV/bin/python
where ENV has torch and hyperlight 0.0.5. The same networks, batch and Adam: the primary is an MLP
1-32-32-1, the hypernetwork 16-64-128 with the cos-sin encoding and independent weights; one vector of
settings a step. Ours runs in a compiled loop, theirs step by step as it is meant to be used. The two
take turns.
"""

import argparse
import json
import subprocess
import time
from functools import partial

import jax
import jax.numpy as jnp
import optax

from latebloom import unfold
from latebloom.methods.hypernetworks.conditional_tasks import Waves
from latebloom.methods.hypernetworks.conditional_training import ConditionalTraining
from latebloom.nn import MLP, Hypernetwork

PEER = r"""
import json, math, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
import hyperlight as hl

torch.manual_seed(0)
steps = int(sys.argv[1])
primary = torch.nn.Sequential(
    torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32), torch.nn.Tanh(),
    torch.nn.Linear(32, 1))
primary = hl.hypernetize(primary, parameters=list(primary.parameters()))
hyper = hl.HyperNet(input_shapes={"g": (1,)}, output_shapes=primary.external_shapes(),
                    hidden_sizes=[16, 64, 128])
optimiser = torch.optim.Adam(hyper.parameters(), 3e-3)

def step():
    g, x = torch.rand(1), torch.rand(64, 1) - 0.5
    with primary.using_externals(hyper(g=g)):
        found = primary(x)
    loss = ((found - torch.sin(2 * math.pi * (1 + 3 * g) * x)) ** 2).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()

for _ in range(50):
    step()
start = time.perf_counter()
for _ in range(steps):
    step()
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def ours(steps: int, seeds: int) -> float:
    def model(key):
        return Hypernetwork(
            MLP(1, (32, 32), 1, key=key, activation="tanh"), 1, (16, 64, 128), key=key
        )

    process = ConditionalTraining(
        Waves(64), model, partial(jax.random.uniform, shape=(1, 1)), optax.adam, [3e-3],
        jnp.linspace(0, 1, 11)[:, None], "map",
    )  # fmt: skip
    trace = unfold(process, seeds=seeds, steps=steps, progress=False)
    return trace.attrs["run_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="a Python with torch and hyperlight")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    seen = {"ours, 1 seed": [], "ours, 4 seeds": [], "hyperlight": []}
    for _ in range(args.turns):
        seen["ours, 1 seed"].append(ours(args.steps, 1))
        seen["ours, 4 seeds"].append(ours(args.steps, 4) / 4)
        told = subprocess.run(
            [args.python, "-c", PEER, str(args.steps)], capture_output=True, text=True, check=True
        )
        seen["hyperlight"].append(json.loads(told.stdout.splitlines()[-1])["seconds"])
    for name, seconds in seen.items():
        middle = sorted(seconds)[len(seconds) // 2]
        print(f"{name:14s} {1e6 * middle / args.steps:8.0f} us a step a seed")


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s in all")
