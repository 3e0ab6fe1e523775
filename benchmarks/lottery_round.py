"""Is a round of iterative magnitude pruning as fast here as in PyTorch, and are the masks the same?

Milliseconds per training step and seed of whole rounds (train with masks, prune globally, rewind; SGD
with momentum, batch 64) of `LotteryTicket`, one seed alone and four together, and of the same network and
batches in PyTorch, eager and compiled, whose seeds run one after another and whose masks multiply the
weights after every step. The contenders take turns and each figure is the median of the turns, so that a
busy machine slows all alike. Before that, three rounds of pruning the same weights are compared with
`torch.nn.utils.prune.global_unstructured`.

    python benchmarks/lottery_round.py --json lottery_round.json

PyTorch is not a dependency of latebloom: `pip install torch==2.13.0` puts it beside it.
"""

import copy
import math
import os
import sys
import time
from collections.abc import Callable

cores = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from turns import Run, compare, options, report

from latebloom import unfold
from latebloom.core.dataset import Dataset
from latebloom.methods.compression.lottery import LotteryTicket, MaskedTraining
from latebloom.nn import MLP, ResNet
from latebloom.nn.masks import dense_masks, prune_by_magnitude

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.utils import prune
except ImportError:
    sys.exit("this comparison needs PyTorch: run `pip install torch==2.13.0` in this environment")

N, BATCH, FRACTION, ROUNDS, WIDTH = 4000, 64, 0.2, 2, 8
NETWORKS = {"LeNet-300-100, 28 x 28": "lenet", f"ResNet-8 of width {WIDTH}, 14 x 14": "resnet"}


def sgd(rate):
    return optax.sgd(rate, momentum=0.9)


def network(kind: str):
    if kind == "lenet":
        return lambda key: MLP(784, (300, 100), 10, key=key)
    return lambda key: ResNet(1, key=key, width=WIDTH, blocks_per_stage=(1, 1, 1), norm="batch")


def examples(kind: str) -> tuple[jax.Array, jax.Array]:
    shape = (N, 784) if kind == "lenet" else (N, 14, 14, 1)
    x = jax.random.uniform(jax.random.key(0), shape)
    return x, jax.random.randint(jax.random.key(1), (N,), 0, 10)


class Unwatched(LotteryTicket):
    """Only the rounds are timed."""

    def observe(self, state):
        return {"level": state.level}


def ours(kind: str, seeds: int) -> Run:
    x, y = examples(kind)
    training = MaskedTraining(
        model=network(kind), data=Dataset(x, y, x[:1], y[:1]), optimiser=sgd, hyper={"rate": 0.02},
        loss=optax.softmax_cross_entropy_with_integer_labels, batch_size=BATCH, seeds_by="map",
    )  # fmt: skip

    def run(steps: int) -> float:
        process = Unwatched(training, steps=steps, rewind=0, fraction=FRACTION, controlled=False)
        trace = unfold(process, seeds=seeds, at=range(1, ROUNDS + 1), progress=False)
        return trace.attrs["run_seconds"]

    return run


class TorchBlock(torch.nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.BatchNorm2d(c_in), torch.nn.BatchNorm2d(c_out)
        self.conv1 = torch.nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv2 = torch.nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        same = stride == 1 and c_in == c_out
        self.shortcut = None if same else torch.nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x):
        h = F.relu(self.norm1(x))
        carried = x if self.shortcut is None else self.shortcut(h)
        return carried + self.conv2(F.relu(self.norm2(self.conv1(h))))


def torch_network(kind: str) -> torch.nn.Module:
    if kind == "lenet":
        return torch.nn.Sequential(
            torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 100), torch.nn.ReLU(),
            torch.nn.Linear(100, 10),
        )  # fmt: skip
    blocks = [TorchBlock(WIDTH, WIDTH, 1), TorchBlock(WIDTH, 2 * WIDTH, 2),
              TorchBlock(2 * WIDTH, 4 * WIDTH, 2)]  # fmt: skip
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, WIDTH, 3, 1, 1, bias=False), *blocks, torch.nn.BatchNorm2d(4 * WIDTH),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4 * WIDTH, 10),
    )  # fmt: skip


def weights_of(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    kinds = torch.nn.Linear, torch.nn.Conv2d
    return [module.weight for module in model.modules() if isinstance(module, kinds)]


def theirs(kind: str, compiled: bool) -> Callable[[int], None]:
    """Trains and prunes one seed for ROUNDS rounds of as many steps."""
    x, y = (torch.tensor(np.array(v)) for v in examples(kind))
    x, y = x.permute(0, 3, 1, 2).contiguous() if kind == "resnet" else x, y.long()
    model = torch_network(kind)
    weights, rewound = weights_of(model), copy.deepcopy(model.state_dict())

    def loss(x, y):
        return F.cross_entropy(model(x), y)

    loss = torch.compile(loss) if compiled else loss

    def run(steps: int) -> None:
        masks = [torch.ones_like(w) for w in weights]
        for number in range(ROUNDS):
            if number:
                with torch.no_grad():
                    left = torch.cat([w[m == 1].abs() for w, m in zip(weights, masks, strict=True)])
                    threshold = left.sort().values[math.ceil(FRACTION * len(left))]
                    masks = [m * (w.abs() > threshold) for w, m in zip(weights, masks, strict=True)]
            model.load_state_dict(rewound)
            with torch.no_grad():
                torch._foreach_mul_(weights, masks)
            optimiser = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
            for step in range(steps):
                if step % (N // BATCH) == 0:
                    order = torch.randperm(N)
                rows = order[(step % (N // BATCH)) * BATCH :][:BATCH]
                optimiser.zero_grad()
                loss(x[rows], y[rows]).backward()
                optimiser.step()
                with torch.no_grad():
                    torch._foreach_mul_(weights, masks)

    return run


def in_turn(one: Callable[[int], None], seeds: int) -> Run:
    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(seeds):
            one(steps)
        return time.perf_counter() - start

    return run


def same_masks(kind: str) -> tuple[int, int]:
    """Weights, and how many of them three rounds of pruning treat differently than PyTorch does."""
    model = network(kind)(jax.random.key(7))
    masks, rng = dense_masks(model), np.random.default_rng(0)
    layers = [torch.nn.Module() for _ in jax.tree.leaves(masks)]
    differing = 0
    for _ in range(3):
        drawn = [rng.normal(size=m.shape).astype(np.float32) for m in jax.tree.leaves(masks)]
        values = iter(drawn)
        model = jax.tree.map(
            lambda mask, leaf: leaf if mask is None else jnp.asarray(next(values)),  # noqa: B023
            masks, model, is_leaf=lambda node: node is None,
        )  # fmt: skip
        left = int(sum(m.sum() for m in jax.tree.leaves(masks)))
        masks = eqx.filter_jit(prune_by_magnitude)(model, masks, jnp.float32(FRACTION))
        for layer, value in zip(layers, drawn, strict=True):
            if hasattr(layer, "weight_orig"):
                layer.weight_orig.data = torch.tensor(value)
                layer.weight = layer.weight_orig * layer.weight_mask
            else:
                layer.weight = torch.nn.Parameter(torch.tensor(value))
        # The authors' threshold removes one weight more than ceil(fraction * left).
        count = math.ceil(round(FRACTION * left, 6)) + 1
        prune.global_unstructured(
            [(layer, "weight") for layer in layers], prune.L1Unstructured, amount=count
        )
        for mine, layer in zip(jax.tree.leaves(masks), layers, strict=True):
            differing += int((np.asarray(mine) != layer.weight_mask.numpy().astype(bool)).sum())
    return sum(m.size for m in jax.tree.leaves(masks)), differing


def main() -> None:
    given, rows, masks = options(__doc__), [], {}
    for label, kind in NETWORKS.items():
        size, differing = same_masks(kind)
        masks[label] = {"weights": size, "differing": differing}
        print(f"{label}: {differing} of {size:,} weights masked differently in three rounds")
    for label, kind in NETWORKS.items():
        peers = {"torch": theirs(kind, False)}
        if not given.eager_only:
            peers["torch.compile"] = theirs(kind, True)
        for seeds in (1, 4):
            contenders = {"ours": ours(kind, seeds)}
            contenders |= {name: in_turn(one, seeds) for name, one in peers.items()}
            found = compare(contenders, given.turns, given.seconds)
            times = {name: value / seeds / ROUNDS for name, value in found.items()}
            rows.append({"what": label, "seeds": seeds, **times})
    report(rows, f"per step and seed of a round, batch {BATCH}", given, masks=masks)


if __name__ == "__main__":
    main()
