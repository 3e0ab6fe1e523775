"""A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929)."""

from __future__ import annotations

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.nn.mlp import Linear
from latebloom.nn.transformer import Block, LayerNorm, Prefix


class ViT(eqx.Module):
    """[batch, height, width, channels] -> [batch, out_size].

    The image is cut into squares of `patch` x `patch` pixels, each an affine map to `size` features;
    fixed sine and cosine positions are added; `layers` pre-LN blocks (attention with `heads`, then
    `hidden` GELU units) follow, then a norm, the mean over squares, an affine map. Images may have
    any size that `patch` divides.

    Mean and fixed positions in place of a class token and learned positions are the "simple ViT" of
    Beyer et al. 2022 (arXiv 2205.01580), which learns faster. The default has 0.1 M parameters; ViT-Ti
    is size 192, heads 3, hidden 768, layers 12.

    Raises `ValueError` for sizes below 1, if `size` is no multiple of `heads` and of 4, and for what are no images of so many
    channels, or of sides that are no multiples of `patch`.
    """

    embedding: Linear
    blocks: tuple[Block, ...]
    norm: LayerNorm
    readout: Linear
    patch: int = eqx.field(static=True)

    def __init__(
        self, in_channels: int, out_size: int = 10, *, key: PRNGKeyArray, patch: int = 4,
        size: int = 48, heads: int = 3, hidden: int = 192, layers: int = 4,
    ):  # fmt: skip
        if min(in_channels, out_size, patch, size, heads, hidden) < 1 or layers < 0:
            raise ValueError(
                "in_channels, out_size, patch, size, heads and hidden must be at least 1 and layers at least 0, not "
                f"{in_channels}, {out_size}, {patch}, {size}, {heads}, {hidden} and {layers}"
            )
        if size % heads or size % 4:
            raise ValueError(f"size must be a multiple of heads ({heads}) and of 4, not {size}")
        first, last, *keys = jax.random.split(key, layers + 2)
        self.embedding = Linear(patch**2 * in_channels, size, key=first)
        self.blocks = tuple(Block(size, heads, hidden, 0.0, True, k) for k in keys)
        self.norm = LayerNorm(size)
        self.readout = Linear(size, out_size, key=last)
        self.patch = patch

    def __call__(
        self, x: Float[Array, "batch height width channels"], *,
        key: PRNGKeyArray | None = None, train: bool = False,
    ) -> Float[Array, "batch out"]:  # fmt: skip
        return self.readout(self.pooled(self.encoded(self.embedded(x))))

    def embedded(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch squares size"]:
        """The squares of images, with their positions."""
        p, takes = self.patch, self.embedding.weight.shape[0] // self.patch**2
        if x.ndim != 4 or x.shape[-1] != takes:
            raise ValueError(
                f"images must be [batch, height, width, {takes} channel{'s' * (takes > 1)}], not {list(x.shape)}"
            )
        b, height, width, channels = x.shape
        if height % p or width % p:
            raise ValueError(f"patches of {p} pixels do not fill an image of {height} x {width}")
        rows, columns = height // p, width // p
        squares = x.reshape(b, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        h = self.embedding(squares.reshape(b, rows * columns, -1))
        return h + positions(rows, columns, h.shape[-1])

    def encoded(
        self, h: Float[Array, "batch tokens size"], prefixes: Mapping[int, Prefix] | None = None
    ) -> Float[Array, "batch tokens size"]:
        """Tokens through all blocks; `prefixes`: keys and values that the block of a number attends to, too."""
        for i, block in enumerate(self.blocks):
            first, second = block.norms
            h = h + block.attend(first(h), None if prefixes is None else prefixes.get(i))
            h = h + block.down(jax.nn.gelu(block.up(second(h)), approximate=False))
        return h

    def pooled(self, h: Float[Array, "batch tokens size"]) -> Float[Array, "batch size"]:
        """What the head reads: the mean over normalised tokens."""
        return self.norm(h).mean(1)


def positions(rows: int, columns: int, size: int) -> Float[Array, "squares size"]:
    """Sines and cosines of row and column at size / 4 frequencies from 1 to 1/10,000."""
    waves = 10_000.0 ** -jnp.linspace(0, 1, size // 4)
    row, column = (a.ravel() for a in jnp.mgrid[:rows, :columns])
    angles = [a[:, None] * waves for a in (column, row)]
    return jnp.concatenate([f(a) for a in angles for f in (jnp.sin, jnp.cos)], axis=1)
