"""RigL on one task here and in rigl-torch: test accuracy and milliseconds a step, in turns.

MNIST-5k at 14 x 14, an MLP of 300 and 100 units, a tenth of each layer's weights, Adam at 0.001, 1,000 steps
of 64 examples, 19 updates of the topology by a cosine from 0.3. rigl-torch keeps the first layer that it finds dense, so it
is given one more that nothing uses; it takes no step of the optimiser where it updates.

    python -m venv peer && peer/bin/pip install torch torchvision && peer/bin/pip install --no-deps rigl-torch==0.5.2
    python benchmarks/rigl_against_rigl_torch.py --peer peer/bin/python
"""

import time
from functools import partial
from typing import Any

import numpy as np
from peers import in_turns

STEPS, BATCH, UPDATES, DENSITY, DROP, RATE, UNITS = 1000, 64, 19, 0.1, 0.3, 0.001, (300, 100)


def theirs(file: str, seed: int) -> dict[str, float]:
    """rigl-torch on the arrays of a file."""
    import torch
    from rigl_torch.RigL import RigLScheduler

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    part = {name: torch.as_tensor(values) for name, values in np.load(file).items()}
    x, y, pixels = part["x_train"], part["y_train"].long(), part["x_train"].shape[1]
    unused = torch.nn.Linear(1, 1)
    net = torch.nn.Sequential(
        torch.nn.Linear(pixels, UNITS[0]), torch.nn.ReLU(), torch.nn.Linear(*UNITS), torch.nn.ReLU(),
        torch.nn.Linear(UNITS[1], 10),
    )  # fmt: skip
    rule = torch.optim.Adam(net.parameters(), RATE)
    pruner = RigLScheduler(
        torch.nn.ModuleList([unused, net]), rule, dense_allocation=DENSITY, T_end=STEPS, delta=STEPS // (UPDATES + 1), alpha=DROP,
        ignore_linear_layers=False,
    )  # fmt: skip
    rng, order = np.random.default_rng(seed), np.zeros(0, int)
    start = time.perf_counter()
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = rng.permutation(len(x))
        rows, order = torch.as_tensor(order[:BATCH]), order[BATCH:]
        rule.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        if pruner():
            rule.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        right = (net(part["x_test"]).argmax(1) == part["y_test"]).float().mean().item()
    left = sum(int((w != 0).sum()) for w in pruner.W[1:]) / sum(w.numel() for w in pruner.W[1:])
    return {"accuracy": 100 * right, "milliseconds": 1e3 * seconds / STEPS, "density": left}


def ours(seeds: int) -> tuple[list[float], float, float]:
    """Test accuracies, milliseconds a step and seed, and seconds of compiling."""
    import optax

    from latebloom import nn, unfold
    from latebloom.data import load_scaled
    from latebloom.methods.forgetting.subnetworks import Subnetworks
    from latebloom.methods.forgetting.topology import Topology

    data = load_scaled("mnist-5k", side=14, flat=True)
    process = Subnetworks(
        model=lambda key: nn.MLP(196, UNITS, 10, key=key), data=data, optimiser=optax.adam,
        hyper={"learning_rate": RATE}, topology=Topology(DENSITY, growth="gradient", drop=DROP, updates=UPDATES),
        stream=partial(_stream, data),
    )  # fmt: skip
    times = []
    for first in (0, seeds, 2 * seeds):
        start = time.perf_counter()
        trace = unfold(process, seeds=range(first, first + seeds), at=[STEPS], progress=False)
        times.append(time.perf_counter() - start)
        found = (100 * trace.accuracy.values[:, -1, 0]).tolist()
    return found, 1e3 * min(times[1:]) / seeds / STEPS, times[0] - min(times[1:])


def _stream(data: Any, key: Any) -> Any:
    from latebloom.core.stream import domain_incremental

    return domain_incremental(
        data.y_train, data.y_test, key=key, tasks=1, steps=STEPS, batch_size=BATCH, exam_size=1000
    )


if __name__ == "__main__":
    in_turns(__file__, __doc__, "rigl-torch", theirs, ours, seeds=(1, 4), unit="ms a step")
