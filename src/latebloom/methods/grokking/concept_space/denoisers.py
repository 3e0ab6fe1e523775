"""Denoisers whose every block has an own small MLP for the condition ("sep_mlp").

A denoiser predicts the noise in `z` from the time and from *embeddings* of the condition:
`model(z, t, model.embed(c))`. Embeddings are a tuple, one `[batch, width]` array for each block, so
that interventions are plain arithmetic on them, and `model.condition` is the embedding module that
can be patched from another checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.methods.grokking.concept_space.worlds import CONDITION_SIZE
from latebloom.nn.conv import Conv

Layer = TypeVar("Layer", bound=eqx.Module)
Embeddings = tuple[Float[Array, "batch _"], ...]


class Denoiser(Protocol):
    """What samplers and interventions need of a network."""

    @property
    def condition(self) -> tuple[eqx.Module, ...]: ...

    def embed(self, c: Float[Array, "batch 11"]) -> Embeddings: ...

    def __call__(
        self,
        z: Float[Array, "batch ..."],
        t: Float[Array, " times"],
        embeddings: Embeddings,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch ..."]: ...


class Linear(eqx.Module):
    """Affine map of the last axis."""

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return x @ self.weight.T + self.bias


def linears(key: PRNGKeyArray, sizes: Sequence[tuple[int, int]]) -> Iterator[Linear]:
    """Affine maps of the given (in, out) sizes, uniform in +-1/sqrt(in) as PyTorch's are.

    One draw for all of them: a draw for each would make up half of the compiled program.
    """
    drawn = jax.random.uniform(key, (sum((i + 1) * o for i, o in sizes),), minval=-1.0)
    start = 0
    for ins, outs in sizes:
        block = drawn[start : start + (ins + 1) * outs].reshape(outs, ins + 1) * ins**-0.5
        start += (ins + 1) * outs
        yield Linear(block[:, :-1], block[:, -1])


class Embedding(eqx.Module):
    """Two affine layers, a GELU after each."""

    first: Linear
    second: Linear

    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
        return jax.nn.gelu(self.second(jax.nn.gelu(self.first(x))))


def embeddings_of(
    key: PRNGKeyArray, widths: Sequence[int], time_size: int
) -> tuple[Embedding, tuple[Embedding, ...], tuple[Embedding, ...]]:
    """For blocks of the given widths: the time's embedding, and each block's of time and condition."""
    sizes = [
        (time_size, 4 * time_size),
        *((4 * time_size, width) for width in widths),
        *((CONDITION_SIZE, width) for width in widths),
    ]
    layers = linears(key, [pair for i, o in sizes for pair in ((i, o), (o, o))])
    made = [Embedding(next(layers), next(layers)) for _ in sizes]
    return made[0], tuple(made[1 : len(widths) + 1]), tuple(made[len(widths) + 1 :])


class GroupNorm(eqx.Module):
    """Normalises groups of channels of each sample, `[batch, height, width, channels]`."""

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int, groups: int):
        if channels % groups:
            raise ValueError(f"channels ({channels}) must be a multiple of groups ({groups})")
        self.scale, self.shift = jnp.ones(channels), jnp.zeros(channels)
        self.groups = groups

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        grouped = x.reshape(*x.shape[:3], self.groups, -1)
        mean = grouped.mean((1, 2, 4), keepdims=True)
        variance = ((grouped - mean) ** 2).mean((1, 2, 4), keepdims=True)
        normal = (grouped - mean) * jax.lax.rsqrt(variance + 1e-6)
        return normal.reshape(x.shape) * self.scale + self.shift


def time_features(t: Float[Array, " batch"], size: int) -> Float[Array, "batch size"]:
    """Sines and cosines of 1000 t at `size`/2 time scales from 1 to 10,000."""
    rates = jnp.asarray(np.logspace(0, -4, size // 2), jnp.float32)
    angle = 1000 * t[:, None] * rates
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


class ResidualBlock(eqx.Module):
    """Norm, GELU, convolution, plus conditions; norm, GELU, dropout, zero convolution; plus input."""

    norms: tuple[GroupNorm, GroupNorm]
    first: Conv
    second: Conv
    skip: Linear | None
    dropout: float = eqx.field(static=True)

    def __init__(self, ins: int, outs: int, groups: int, dropout: float, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.norms = GroupNorm(ins, groups), GroupNorm(outs, groups)
        self.first = Conv(ins, outs, 3, key=keys[0])
        self.second = zeros(Conv(outs, outs, 3, key=keys[1]))
        self.skip = None if ins == outs else next(linears(keys[2], [(ins, outs)]))
        self.dropout = dropout

    def __call__(
        self, x: Float[Array, "b h w i"], shift: Float[Array, "b o"], key: PRNGKeyArray | None
    ) -> Float[Array, "b h w o"]:
        h = self.first(jax.nn.gelu(self.norms[0](x))) + shift[:, None, None]
        h = jax.nn.gelu(self.norms[1](h))
        if key is not None:
            kept = jax.random.bernoulli(key, 1 - self.dropout, h.shape)
            h = jnp.where(kept, h / (1 - self.dropout), 0.0)
        return self.second(h) + (x if self.skip is None else self.skip(x))


class Attention(eqx.Module):
    """Multi-head self-attention over pixels, added to its input."""

    norm: GroupNorm
    mix: Linear
    out: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, channels: int, groups: int, heads: int, key: PRNGKeyArray):
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        self.norm, self.heads = GroupNorm(channels, groups), heads
        self.mix, self.out = linears(key, [(channels, 3 * channels), (channels, channels)])

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        q, k, v = jnp.moveaxis(
            self.mix(self.norm(x)).reshape(b, h * w, 3, self.heads, c // self.heads), 2, 0
        )
        attended = jax.nn.dot_product_attention(q, k, v)
        return x + self.out(attended.reshape(b, h, w, c))


def zeros(layer: Layer) -> Layer:
    """The same layer with all its arrays zero."""
    return jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_array(a) else a, layer)


class UNet(eqx.Module):
    """The paper's image denoiser; input and output `[batch, size, size, 3]`, times in [0, 1].

    Levels of `blocks` residual blocks with `channels[i]` channels each, a factor 2 in resolution
    between them, attention in the middle, a zero-initialised output added to the input. `patched`
    works on patches of 2x2 pixels from the start, which costs a quarter.
    """

    time: Embedding
    time_shifts: tuple[Embedding, ...]
    condition: tuple[Embedding, ...]
    conv_in: Conv
    residual: tuple[ResidualBlock, ...]
    attention: Attention
    down: tuple[Linear, ...]
    up: tuple[Linear, ...]
    norm_out: GroupNorm
    conv_out: Conv
    blocks: int = eqx.field(static=True)
    time_size: int = eqx.field(static=True)
    patched: bool = eqx.field(static=True)

    def __init__(
        self,
        channels: tuple[int, ...] = (64, 128, 256),
        blocks: int = 2,
        *,
        key: PRNGKeyArray,
        groups: int = 8,
        heads: int = 4,
        dropout: float = 0.1,
        time_size: int = 64,
        patched: bool = False,
    ):
        if len(channels) < 2 or blocks < 1:
            raise ValueError(f"a U-Net needs two levels and a block, not {channels} and {blocks}")
        sizes = unet_block_sizes(channels, blocks)
        keys = iter(jax.random.split(key, 5 + len(sizes)))
        self.time, self.time_shifts, self.condition = embeddings_of(
            next(keys), [out for _, out in sizes], time_size
        )
        colours = 12 if patched else 3
        self.conv_in = Conv(colours, channels[0], 3, key=next(keys))
        self.residual = tuple(
            ResidualBlock(ins, outs, groups, dropout, next(keys)) for ins, outs in sizes
        )
        self.attention = Attention(channels[-1], groups, heads, next(keys))
        pairs = list(pairwise(channels))
        resize = linears(
            next(keys),
            [*((4 * high, high) for high, _ in pairs), *((low, 4 * high) for high, low in pairs)],
        )
        self.down = tuple(next(resize) for _ in pairs)
        self.up = tuple(next(resize) for _ in pairs)
        self.norm_out = GroupNorm(channels[0], groups)
        self.conv_out = zeros(Conv(channels[0], colours, 3, key=next(keys)))
        self.blocks, self.time_size, self.patched = blocks, time_size, patched

    def embed(self, c: Float[Array, "batch 11"]) -> Embeddings:
        return tuple(embedding(c) for embedding in self.condition)

    def __call__(
        self,
        z: Float[Array, "batch size size 3"],
        t: Float[Array, " times"],
        embeddings: Embeddings,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch size size 3"]:
        """Predicted noise. `t` has the batch's length or 1; with a `key` dropout is on."""
        keys = (
            [None] * len(self.residual)
            if key is None
            else jax.random.split(key, len(self.residual))
        )
        time = self.time(time_features(t, self.time_size))
        shifts = [e + shift(time) for e, shift in zip(embeddings, self.time_shifts, strict=True)]
        stack = iter(zip(self.residual, shifts, keys, strict=True))

        def block(x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
            layer, shift, dropout_key = next(stack)
            return layer(x, shift, dropout_key)

        x, skips = self.conv_in(space_to_depth(z) if self.patched else z), []
        for level in range(len(self.down) + 1):
            for _ in range(self.blocks):
                x = block(x)
            if level < len(self.down):
                skips.append(x)
                x = self.down[level](space_to_depth(x))
        x = block(self.attention(block(x)))
        for level in reversed(range(len(self.up) + 1)):
            for _ in range(self.blocks):
                x = block(x)
            if level > 0:
                x = jnp.concatenate(
                    [depth_to_space(self.up[level - 1](x)), skips[level - 1]], axis=-1
                )
        x = self.conv_out(jax.nn.gelu(self.norm_out(x)))
        return z + (depth_to_space(x) if self.patched else x)


def unet_block_sizes(channels: tuple[int, ...], blocks: int) -> list[tuple[int, int]]:
    """(in, out) channels of every residual block, in the order of the forward pass."""
    down = [
        (channels[max(i - 1, 0)] if j == 0 else c, c)
        for i, c in enumerate(channels)
        for j in range(blocks)
    ]
    last = channels[-1]
    up = [
        ((c if i == len(channels) - 1 else 2 * c) if j == 0 else c, c)
        for i, c in reversed(list(enumerate(channels)))
        for j in range(blocks)
    ]
    return [*down, (last, last), (last, last), *up]


def space_to_depth(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c4"]:
    """2x2 pixels into channels: with an affine map after it, a convolution of stride 2."""
    b, h, w, c = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"every level halves the image: {h}x{w} pixels cannot be halved")
    blocks = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(x: Float[Array, "b h w c4"]) -> Float[Array, "b h2 w2 c"]:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, 2 * h, 2 * w, c // 4)


class MLPDenoiser(eqx.Module):
    """The denoiser of the vector twin: hidden layers, each shifted by time and condition."""

    time: Embedding
    time_shifts: tuple[Embedding, ...]
    condition: tuple[Embedding, ...]
    layers: tuple[Linear, ...]
    time_size: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        widths: tuple[int, ...] = (64, 64, 64),
        *,
        key: PRNGKeyArray,
        time_size: int = 64,
    ):
        keys = jax.random.split(key)
        self.time, self.time_shifts, self.condition = embeddings_of(keys[0], widths, time_size)
        sizes = (size, *widths, size)
        self.layers = tuple(linears(keys[1], list(pairwise(sizes))))
        self.time_size = time_size

    def embed(self, c: Float[Array, "batch 11"]) -> Embeddings:
        return tuple(embedding(c) for embedding in self.condition)

    def __call__(
        self,
        z: Float[Array, "batch size"],
        t: Float[Array, " times"],
        embeddings: Embeddings,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch size"]:
        """Predicted noise. `t` has the batch's length or 1; there is no dropout, `key` is unused."""
        time, x = self.time(time_features(t, self.time_size)), z
        for layer, shift, embedding in zip(self.layers, self.time_shifts, embeddings, strict=False):
            x = jax.nn.gelu(layer(x) + shift(time) + embedding)
        return z + self.layers[-1](x)
