"""Is a step of self-distillation as fast here as in PyTorch, and do both take the same step?

Milliseconds per step and seed of `Distillation` (a small VGG and the l2-bottleneck head, Adam, batch 64,
8 x 8 images; teacher and student forward, student backward), one seed alone and four together, and of the
same network, batches and optimiser in PyTorch, eager and compiled, whose seeds run one after another. The
contenders take turns and each figure is the median of the turns, so that a busy machine slows all alike.
Before that, three steps of plain gradient descent from the same weights on the same batches are compared.

    python benchmarks/distillation_step.py --json distillation_step.json

PyTorch is not a dependency of latebloom: `pip install torch==2.13.0` puts it beside it.
"""

import copy
import os
import sys
import time

cores = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import equinox as eqx
import jax
import numpy as np
import optax
from turns import Run, compare, options, report

from latebloom import unfold
from latebloom.core.dataset import Dataset
from latebloom.methods.random_teachers import BottleneckHead, ConvEncoder, Distillation, Distilled

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("this comparison needs PyTorch: run `pip install torch==2.13.0` in this environment")

N, BATCH, WIDTHS, HIDDEN, BOTTLENECK, CLASSES = 1438, 64, (16, 32, 64), 256, 64, 1024


def network(key):
    encoder_key, head_key = jax.random.split(key)
    head = BottleneckHead(
        WIDTHS[-1], hidden=HIDDEN, bottleneck=BOTTLENECK, out_size=CLASSES, key=head_key
    )
    return Distilled(ConvEncoder(1, WIDTHS, key=encoder_key), head)


def images() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (N, 8, 8, 1))


class Unwatched(Distillation):
    """Only the steps are timed."""

    def observe(self, state):
        return {"step": state.step}


def process(**options) -> Distillation:
    labels = np.zeros(N, int)
    data = Dataset(images(), labels, images()[:1], labels[:1])
    return Unwatched(model=network, data=data, batch_size=BATCH, **options)


def ours(seeds: int) -> Run:
    this = process()

    def run(steps: int) -> float:
        return unfold(this, seeds=seeds, at=[steps], progress=False).attrs["run_seconds"]

    return run


class TorchNetwork(torch.nn.Module):
    def __init__(self):
        super().__init__()
        sizes = (1, *WIDTHS)
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes, WIDTHS, strict=False)
        )
        pairs = (WIDTHS[-1], HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, BOTTLENECK)
        self.linears = torch.nn.ModuleList(torch.nn.Linear(*pair) for pair in pairs)
        self.rows = torch.nn.Parameter(0.02 * torch.randn(CLASSES, BOTTLENECK))

    def forward(self, x):
        for conv in self.convs:
            x = F.max_pool2d(F.relu(conv(x)), 2)
        x = x.mean((2, 3))
        for layer in self.linears[:2]:
            x = F.gelu(layer(x))
        return F.normalize(self.linears[2](x)) @ F.normalize(self.rows).T

    def take(self, model: Distilled) -> "TorchNetwork":
        """The weights of one of ours."""
        with torch.no_grad():
            for conv, mine in zip(self.convs, model.encoder.layers, strict=True):
                conv.weight.copy_(torch.tensor(np.array(mine.weight)).permute(3, 2, 0, 1))
                conv.bias.copy_(torch.tensor(np.array(mine.bias)))
            layers = *model.head.hidden, model.head.narrow
            for linear, mine in zip(self.linears, layers, strict=True):
                linear.weight.copy_(torch.tensor(np.array(mine.weight)).T)
                linear.bias.copy_(torch.tensor(np.array(mine.bias)))
            self.rows.copy_(torch.tensor(np.array(model.head.rows)))
        return self


def distance(student, teacher, x):
    with torch.no_grad():
        wanted = F.softmax(teacher(x), -1)
    return -(wanted * F.log_softmax(student(x), -1)).sum(-1).mean()


def as_torch(x) -> torch.Tensor:
    return torch.tensor(np.array(x)).permute(0, 3, 1, 2).contiguous()


def theirs(seeds: int, compiled: bool) -> Run:
    x = as_torch(images())
    pairs = [(TorchNetwork(), TorchNetwork()) for _ in range(seeds)]
    losses = [torch.compile(distance) if compiled else distance for _ in pairs]

    def run(steps: int) -> float:
        start = time.perf_counter()
        for (student, teacher), loss in zip(pairs, losses, strict=True):
            optimiser = torch.optim.Adam(student.parameters(), 1e-3)
            for step in range(steps):
                if step % (N // BATCH) == 0:
                    order = torch.randperm(N)
                rows = order[(step % (N // BATCH)) * BATCH :][:BATCH]
                optimiser.zero_grad()
                loss(student, teacher, x[rows]).backward()
                optimiser.step()
        return time.perf_counter() - start

    return run


def disagreement() -> float:
    """Largest difference of any weight after three steps, over the largest change of a weight."""
    this = process(alpha=0.5, optimiser=optax.sgd, hyper={"learning_rate": 1.0})
    state = eqx.filter_jit(this.init)(jax.random.key(0))
    student, teacher = TorchNetwork().take(state.student), TorchNetwork().take(state.teacher)
    before = copy.deepcopy(student)
    optimiser = torch.optim.SGD(student.parameters(), 1.0)
    for _ in range(3):
        x = as_torch(this.batch(state))
        optimiser.zero_grad()
        distance(student, teacher, x).backward()
        optimiser.step()
        state = eqx.filter_jit(this.step)(state)
    mine = TorchNetwork().take(state.student)
    pairs = zip(mine.parameters(), student.parameters(), before.parameters(), strict=True)
    apart, moved = zip(*(((a - b).abs().max(), (b - c).abs().max()) for a, b, c in pairs), strict=True)  # fmt: skip
    return float(max(apart) / max(moved))


def main() -> None:
    given, rows, differing = options(__doc__), [], disagreement()
    print(f"three equal steps differ by {differing:.1e} of the largest change of a weight")
    for seeds in (1, 4):
        contenders = {"ours": ours(seeds), "torch": theirs(seeds, False)}
        if not given.eager_only:
            contenders["torch.compile"] = theirs(seeds, True)
        found = compare(contenders, given.turns, given.seconds)
        rows.append({"seeds": seeds, **{name: value / seeds for name, value in found.items()}})
    report(rows, f"per step and seed, batch {BATCH}", given, disagreement=differing)


if __name__ == "__main__":
    main()
