"""How fast is a training step of our mini-VDM U-Net in a compiled loop, against PyTorch?

Both train the same layout (two levels, one residual block each, attention in the middle, an own
conditioning MLP for every block) with AdamW on the same shapes, in one process, taking turns; a figure
is the median of the turns.

    python benchmarks/concept_vdm_step.py [--size 16] [--batch 64] [--channels 16 32] [--turns 5]

PyTorch is not a dependency of latebloom: `pip install torch==2.13.0` puts it beside it.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import equinox as eqx
import jax
import optax

from latebloom.methods.grokking.concept_space import LinearSchedule, UNet, losses

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError:
    torch = None

STEPS = 20
Contender = tuple[Callable[[], object], int]


def ours(size: int, batch: int, channels: tuple[int, ...]) -> Contender:
    """A function that takes STEPS training steps, and the number of parameters."""
    model = UNet(channels, 1, key=jax.random.key(0))
    trained, static = eqx.partition((model, LinearSchedule()), eqx.is_array)
    optimiser = optax.flatten(optax.adamw(1e-3, weight_decay=0.01))
    x = jax.random.uniform(jax.random.key(1), (batch, size, size, 3))
    c = jax.random.uniform(jax.random.key(2), (batch, 11))

    def loss(trained, key):
        model, schedule = eqx.combine(trained, static)
        h = model.embed(c)
        terms = losses(key, lambda z, g: model(z, (g + 5) / 15, h, key=key), schedule, x)
        return sum(term.mean() for term in terms.values())

    @jax.jit
    def train(trained, state):
        def step(i, carry):
            trained, state = carry
            updates, state = optimiser.update(
                jax.grad(loss)(trained, jax.random.fold_in(jax.random.key(3), i)), state, trained
            )
            return optax.apply_updates(trained, updates), state

        return jax.lax.fori_loop(0, STEPS, step, (trained, state))

    state = optimiser.init(trained)
    count = sum(a.size for a in jax.tree.leaves(trained))
    return lambda: jax.block_until_ready(train(trained, state)), count


def theirs(size: int, batch: int, channels: tuple[int, ...]) -> Contender:
    """The same in eager PyTorch."""

    def embedding(ins: int, outs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(ins, outs), nn.GELU(), nn.Linear(outs, outs), nn.GELU())

    class Block(nn.Module):
        def __init__(self, ins: int, outs: int):
            super().__init__()
            self.norms = nn.ModuleList([nn.GroupNorm(8, ins), nn.GroupNorm(8, outs)])
            self.convs = nn.ModuleList(
                [nn.Conv2d(ins, outs, 3, padding=1), nn.Conv2d(outs, outs, 3, padding=1)]
            )
            self.time, self.condition = embedding(256, outs), embedding(11, outs)
            self.skip = nn.Identity() if ins == outs else nn.Conv2d(ins, outs, 1)

        def forward(self, x, t, c):
            h = self.convs[0](F.gelu(self.norms[0](x)))
            h = h + (self.time(t) + self.condition(c))[:, :, None, None]
            return self.convs[1](F.dropout(F.gelu(self.norms[1](h)), 0.1)) + self.skip(x)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            a, b = channels
            self.time = embedding(64, 256)
            self.first, self.last = nn.Conv2d(3, a, 3, padding=1), nn.Conv2d(a, 3, 3, padding=1)
            self.blocks = nn.ModuleList(
                [Block(a, a), Block(a, b), Block(b, b), Block(b, b), Block(b, b), Block(2 * a, a)]
            )
            self.down, self.up = nn.Conv2d(a, a, 2, 2), nn.ConvTranspose2d(b, a, 2, 2)
            self.norms = nn.ModuleList([nn.GroupNorm(8, b), nn.GroupNorm(8, a)])
            self.mix, self.out = nn.Linear(b, 3 * b), nn.Linear(b, b)

        def attend(self, x):
            n, c, h, w = x.shape
            mixed = self.mix(self.norms[0](x).flatten(2).transpose(1, 2))
            q, k, v = mixed.view(n, h * w, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
            made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
            return x + self.out(made).transpose(1, 2).reshape(n, c, h, w)

        def forward(self, z, t, c):
            angle = 1000 * t[:, None] * torch.logspace(0, -4, 32)
            t = self.time(torch.cat([angle.sin(), angle.cos()], 1))
            high = self.blocks[0](self.first(z), t, c)
            x = self.blocks[2](self.blocks[1](self.down(high), t, c), t, c)
            x = self.blocks[4](self.blocks[3](self.attend(x), t, c), t, c)
            x = self.blocks[5](torch.cat([self.up(x), high], 1), t, c)
            return z + self.last(F.gelu(self.norms[1](x)))

    model = UNet()
    schedule = nn.Parameter(torch.tensor([-5.0, 15.0]))
    optimiser = torch.optim.AdamW([*model.parameters(), schedule], lr=1e-3, weight_decay=0.01)
    x, c = torch.rand(batch, 3, size, size), torch.rand(batch, 11)

    def run() -> None:
        for _ in range(STEPS):
            t = (torch.rand(1) + torch.arange(batch)) / batch
            gamma = schedule[0] + schedule[1].abs() * t
            noise = torch.randn_like(x)
            alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
            z = alpha[:, None, None, None] * x + sigma[:, None, None, None] * noise
            squared = ((model(z, (gamma + 5) / 15, c) - noise) ** 2).flatten(1).sum(1)
            miss = torch.exp(schedule[0]) * torch.randn_like(x) ** 2 / 1e-6
            loss = (0.5 * schedule[1].abs() * squared).mean() + 0.5 * miss.flatten(1).sum(1).mean()
            optimiser.zero_grad()
            (loss / x[0].numel()).backward()
            optimiser.step()

    return run, sum(p.numel() for p in model.parameters()) + 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, nargs=2, default=[16, 32])
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    makers = {"latebloom": ours} if torch is None else {"latebloom": ours, "PyTorch": theirs}
    contenders = {
        name: make(asked.size, asked.batch, tuple(asked.channels)) for name, make in makers.items()
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(asked.turns + 1):
        for name, (run, _) in contenders.items():
            start = time.perf_counter()
            run()
            if turn:  # the first turn compiles
                milliseconds[name].append(1000 * (time.perf_counter() - start) / STEPS)
    print(f"{asked.size}x{asked.size}, channels {asked.channels}, batch {asked.batch}")
    for name, (_, parameters) in contenders.items():
        median = sorted(milliseconds[name])[asked.turns // 2]
        print(f"{name:10} {median:8.1f} ms a step, {parameters:,} parameters")
    if torch is None:
        print("PyTorch is not installed, so there is nothing to compare with")


if __name__ == "__main__":
    main()
