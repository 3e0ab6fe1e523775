"""Is a step of early-learning regularisation as fast here as in PyTorch?

Seconds per step and seed (SGD with momentum, batch 64, the target table of 4,000 examples kept and
moved in every step) of `EarlyLearning` inside `lax.fori_loop`, one seed alone and four together, and of
the same network, loss and table in PyTorch, eager and compiled, whose seeds run one after another. The
contenders take turns and each figure is the median of the turns, so that a busy machine slows all alike.

    python benchmarks/early_learning_step.py --json early_learning_step.json

PyTorch is not a dependency of latebloom: `pip install torch==2.13.0` puts it beside it.
"""

import os
import sys
import time
from functools import partial

cores = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import optax
from turns import Run, compare, options, report

from latebloom import unfold
from latebloom.methods.noisy_labels import (
    EarlyLearning,
    EarlyLearningLoss,
    LabelNoise,
    NoisyData,
)
from latebloom.nn import MLP, SmallCNN

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("this comparison needs PyTorch: run `pip install torch==2.13.0` in this environment")

N, CLASSES, BATCH, BETA, LAMBDA = 4000, 10, 64, 0.7, 3.0
NETWORKS = {"MLP 784-256-10": "mlp", "CNN 28x28, 16 and 32 channels": "cnn"}


def sgd(rate):
    return optax.sgd(rate, momentum=0.9)


def examples(kind: str) -> tuple[jax.Array, jax.Array]:
    shape = (N, 784) if kind == "mlp" else (N, 28, 28, 1)
    x = jax.random.uniform(jax.random.key(0), shape)
    return x, jax.random.randint(jax.random.key(1), (N,), 0, CLASSES)


def network(kind: str, key: jax.Array):
    return MLP(784, (256,), CLASSES, key=key) if kind == "mlp" else SmallCNN((28, 28), key=key)


class Unwatched(EarlyLearning):
    """Only the steps are timed."""

    def observe(self, state):
        return {"target": state.targets[0, 0]}


def ours(kind: str, seeds: int) -> Run:
    x, y = examples(kind)
    data = NoisyData(x, y, x[:1], y[:1], x[:1], y[:1], LabelNoise(0.0))
    process = Unwatched(
        model=partial(network, kind), data=data, optimiser=sgd, hyper={"rate": 0.02}, beta=BETA,
        loss=EarlyLearningLoss(jnp.float32(LAMBDA)), batch_size=BATCH, seeds_by="map",
    )  # fmt: skip

    def run(steps: int) -> float:
        trace = unfold(process, seeds=seeds, steps=steps, progress=False)
        return trace.attrs["run_seconds"]

    return run


class TorchCNN(torch.nn.Sequential):
    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Flatten(), torch.nn.Linear(7 * 7 * 32, 128), torch.nn.ReLU(),
            torch.nn.Linear(128, CLASSES),
        )  # fmt: skip


def theirs(kind: str, seeds: int, compiled: bool) -> Run:
    x, y = (torch.tensor(jax.device_get(v).copy()) for v in examples(kind))
    x, y = x.permute(0, 3, 1, 2).contiguous() if kind == "cnn" else x, y.long()
    made = []
    for _ in range(seeds):
        model = TorchCNN() if kind == "cnn" else torch.nn.Sequential(
            torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, CLASSES))  # fmt: skip
        optimiser = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
        made.append((model, optimiser, torch.zeros(N, CLASSES)))

    def loss(model, x, y, targets):
        logits = model(x)
        p = F.softmax(logits, dim=1).clamp(1e-4, 1 - 1e-4)
        detached = p.detach()
        moved = BETA * targets + (1 - BETA) * detached / detached.sum(1, keepdim=True)
        term = (1 - (moved * p).sum(1)).log().mean()
        return F.cross_entropy(logits, y) + LAMBDA * term, moved

    losses = [torch.compile(loss) if compiled else loss for _ in made]

    def run(steps: int) -> float:
        start = time.perf_counter()
        for (model, optimiser, targets), loss in zip(made, losses, strict=True):
            for step in range(steps):
                if step % (N // BATCH) == 0:
                    order = torch.randperm(N)
                rows = order[(step % (N // BATCH)) * BATCH :][:BATCH]
                optimiser.zero_grad()
                value, targets[rows] = loss(model, x[rows], y[rows], targets[rows])
                value.backward()
                optimiser.step()
        return time.perf_counter() - start

    return run


def main() -> None:
    given, rows = options(__doc__), []
    for label, kind in NETWORKS.items():
        for seeds in (1, 4):
            contenders = {"ours": ours(kind, seeds), "torch": theirs(kind, seeds, False)}
            if not given.eager_only:
                contenders["torch.compile"] = theirs(kind, seeds, True)
            found = compare(contenders, given.turns, given.seconds)
            times = {name: value / seeds for name, value in found.items()}
            rows.append({"what": label, "seeds": seeds, **times})
    report(rows, f"per step and seed, batch {BATCH}", given)


if __name__ == "__main__":
    main()
