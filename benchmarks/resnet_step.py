"""Is a training step of a small ResNet or ViT as fast here as in PyTorch, on the CPU of this machine?

Seconds per step (AdamW, batch 64, cross-entropy, forward + backward + update) of
`latebloom.nn.ResNet` and `latebloom.nn.ViT` inside `lax.fori_loop`, and of the same network in eager
PyTorch, in one process and at the same shapes; and of single convolutions, forward and both
gradients, where a third column is what autodiff of `lax.conv_general_dilated` costs in the same loop. The contenders take
turns and each figure is the median of the turns, so that a busy machine slows all alike.

    python benchmarks/resnet_step.py --json resnet_step.json

PyTorch is not a dependency of latebloom: `pip install torch==2.13.0` puts it beside it.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import equinox as eqx
import jax
import optax
from jax import lax
from rich.console import Console
from rich.table import Table

from latebloom.core.statistics import batch_statistics, update_statistics
from latebloom.nn.conv import conv2d
from latebloom.nn.resnet import ResNet
from latebloom.nn.vit import ViT

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("this comparison needs PyTorch: run `pip install torch==2.13.0` in this environment")

BATCH = 64
# height = width, channels, first width, blocks per stage, norm
NETWORKS = [
    (32, 3, 16, (2, 2, 2, 2), None),
    (32, 3, 16, (2, 2, 2, 2), "batch"),
    (28, 1, 16, (2, 2, 2), None),
    (28, 1, 16, (2, 2, 2), "batch"),
]
# height = width, channels, patch: 48 features, 3 heads, 192 hidden units, 4 blocks
TRANSFORMERS = [(32, 3, 4), (28, 1, 4)]
# height = width, channels in, out, kernel, stride
CONVOLUTIONS = [
    (32, 3, 16, 3, 1),
    (32, 16, 16, 3, 1),
    (32, 16, 32, 3, 2),
    (16, 32, 32, 3, 1),
    (16, 32, 64, 3, 2),
    (16, 32, 64, 1, 2),
    (8, 64, 64, 3, 1),
    (4, 128, 128, 3, 1),
    (28, 1, 16, 3, 1),
    (28, 32, 64, 3, 1),
]

Run = Callable[[int], float]  # steps -> seconds per step


def timed(run: Callable[[int], object]) -> Run:
    """Seconds per call of `run(steps)`, which has done its work when it returns."""

    def measure(steps: int) -> float:
        start = time.perf_counter()
        run(steps)
        return (time.perf_counter() - start) / steps

    return measure


def ours(model: ResNet | ViT, size: int, channels: int) -> Run:
    optimiser = optax.adamw(1e-3)
    x = jax.random.normal(jax.random.key(1), (BATCH, size, size, channels))
    y = jax.random.randint(jax.random.key(2), (BATCH,), 0, 10)

    def loss(model):
        with batch_statistics(model) as seen:
            logits = model(x, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), seen

    def step(_, carry):
        model, state = carry
        grads, seen = eqx.filter_grad(loss, has_aux=True)(model)
        updates, state = optimiser.update(grads, state, model)
        return update_statistics(eqx.apply_updates(model, updates), seen), state

    start = model, optimiser.init(eqx.filter(model, eqx.is_inexact_array))
    program = jax.jit(lambda steps, carry: lax.fori_loop(0, steps, step, carry))
    return timed(lambda steps: jax.block_until_ready(program(steps, start)))


class TorchBlock(torch.nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, norm: bool):
        super().__init__()
        make = torch.nn.BatchNorm2d if norm else lambda _: torch.nn.Identity()
        self.norm1, self.norm2 = make(c_in), make(c_out)
        self.conv1 = torch.nn.Conv2d(c_in, c_out, 3, stride, 1, bias=not norm)
        self.conv2 = torch.nn.Conv2d(c_out, c_out, 3, 1, 1, bias=not norm)
        same = stride == 1 and c_in == c_out
        self.shortcut = None if same else torch.nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x):
        h = F.relu(self.norm1(x))
        carried = x if self.shortcut is None else self.shortcut(h)
        return carried + self.conv2(F.relu(self.norm2(self.conv1(h))))


def theirs(
    size: int, channels: int, width: int, blocks: tuple[int, ...], norm: str | None, layout: str
) -> Run:
    c, layers = width, [torch.nn.Conv2d(channels, width, 3, 1, 1, bias=norm is None)]
    for stage, count in enumerate(blocks):
        for i in range(count):
            c_out = width * 2**stage
            layers.append(TorchBlock(c, c_out, 2 if stage and i == 0 else 1, norm == "batch"))
            c = c_out
    layers += [torch.nn.BatchNorm2d(c)] if norm else []
    layers += [torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    memory = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    model = torch.nn.Sequential(*layers, torch.nn.Linear(c, 10)).to(memory_format=memory)
    return torch_step(model, size, channels, memory)


class TorchViT(torch.nn.Module):
    def __init__(self, size: int, channels: int, patch: int):
        super().__init__()
        self.embed = torch.nn.Conv2d(channels, 48, patch, patch)
        self.position = torch.nn.Parameter(torch.randn((size // patch) ** 2, 48), False)
        block = torch.nn.TransformerEncoderLayer(
            48, 3, 192, 0.0, "gelu", batch_first=True, norm_first=True
        )
        norm = torch.nn.LayerNorm(48)
        self.blocks = torch.nn.TransformerEncoder(block, 4, norm, enable_nested_tensor=False)
        self.readout = torch.nn.Linear(48, 10)

    def forward(self, x):
        h = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.readout(self.blocks(h).mean(1))


def torch_step(
    model: torch.nn.Module, size: int, channels: int, memory: torch.memory_format
) -> Run:
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    x = torch.randn(BATCH, channels, size, size).contiguous(memory_format=memory)
    y = torch.randint(0, 10, (BATCH,))

    def run(steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimiser.step()

    return timed(run)


def our_convolution(
    size: int, c_in: int, c_out: int, kernel: int, stride: int, by_hand: bool
) -> Run:
    """Value and both gradients, all carried through the loop so that none is left out."""
    x = jax.random.normal(jax.random.key(0), (BATCH, size, size, c_in))
    w = jax.random.normal(jax.random.key(1), (kernel, kernel, c_in, c_out))
    pads = ((kernel // 2, kernel // 2),) * 2

    def f(x, w):
        if by_hand:
            return conv2d(x, w, stride=stride, padding=pads)
        return lax.conv_general_dilated(
            x, w, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def step(_, carry):
        (x, w), _ = carry
        # Every figure of a turn depends on the one before, so that nothing is moved out of the loop.
        scale = 1 + 1e-9 * sum(g.ravel()[0] for g in carry[1])
        y, pull = jax.vjp(f, x, w * scale)
        return (x, w), pull(y)

    start = (x, w), (x, w)
    program = jax.jit(lambda steps, carry: lax.fori_loop(0, steps, step, carry))
    return timed(lambda steps: jax.block_until_ready(program(steps, start)))


def torch_convolution(
    size: int, c_in: int, c_out: int, kernel: int, stride: int, layout: str
) -> Run:
    memory = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    x = torch.randn(BATCH, c_in, size, size).contiguous(memory_format=memory).requires_grad_()
    w = torch.randn(c_out, c_in, kernel, kernel).contiguous(memory_format=memory).requires_grad_()

    def forward():
        return F.conv2d(x, w, stride=stride, padding=kernel // 2)

    def run(steps: int) -> None:
        for _ in range(steps):
            y = forward()
            torch.autograd.grad(y, (x, w), y.detach())

    return timed(run)


def compare(contenders: dict[str, Run], turns: int, seconds: float) -> dict[str, float]:
    """Median seconds per step of each contender; they take turns of about `seconds`."""
    steps = {}
    for name, run in contenders.items():
        run(1)  # compiles
        steps[name] = max(1, min(1000, round(seconds / run(1))))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, run in contenders.items():
            taken[name].append(run(steps[name]))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    parser.add_argument("--networks-only", action="store_true", help="leave convolutions out")
    options = parser.parse_args()

    rows = []
    for size, channels, width, blocks, norm in NETWORKS:
        shape = size, channels, width, blocks, norm
        model = ResNet(
            channels, width=width, blocks_per_stage=blocks, norm=norm, key=jax.random.key(0)
        )
        contenders = {
            "ours": ours(model, size, channels),
            "torch NCHW": theirs(*shape, "NCHW"),
            "torch NHWC": theirs(*shape, "NHWC"),
        }
        label = f"ResNet {size}x{size}x{channels}, {sum(blocks)} blocks, norm {norm}"
        rows.append({"what": label, **compare(contenders, options.turns, options.seconds)})
    for size, channels, patch in TRANSFORMERS:
        contenders = {
            "ours": ours(ViT(channels, patch=patch, key=jax.random.key(0)), size, channels),
            "torch NCHW": torch_step(
                TorchViT(size, channels, patch), size, channels, torch.contiguous_format
            ),
        }
        label = f"ViT {size}x{size}x{channels}, patch {patch}"
        rows.append({"what": label, **compare(contenders, options.turns, options.seconds)})
    for size, c_in, c_out, kernel, stride in [] if options.networks_only else CONVOLUTIONS:
        shape = size, c_in, c_out, kernel, stride
        contenders = {
            "ours": our_convolution(*shape, True),
            "autodiff": our_convolution(*shape, False),
            "torch NCHW": torch_convolution(*shape, "NCHW"),
            "torch NHWC": torch_convolution(*shape, "NHWC"),
        }
        label = f"conv {kernel}x{kernel}/{stride} {size}x{size}, {c_in} -> {c_out}"
        rows.append({"what": label, **compare(contenders, options.turns, options.seconds)})

    columns = ["ours", "autodiff", "torch NCHW", "torch NHWC"]
    table = Table(title=f"ms per step, batch {BATCH}, {os.cpu_count()} cores")
    table.add_column("what")
    for column in [*columns, "best torch / ours"]:
        table.add_column(column, justify="right")
    for row in rows:
        row["best torch / ours"] = min(row[c] for c in columns[2:] if c in row) / row["ours"]
        cells = [f"{1e3 * row[c]:.2f}" if c in row else "" for c in columns]
        table.add_row(row["what"], *cells, f"{row['best torch / ours']:.2f}")
    Console().print(table)
    if options.json:
        versions = {
            "jax": jax.__version__,
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        }
        with open(options.json, "w") as file:
            json.dump({"seconds_per_step": rows, **versions}, file, indent=1)


if __name__ == "__main__":
    main()
