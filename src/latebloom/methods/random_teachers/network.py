"""Encoders and the projection head of self-distillation, and starts near a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.calling import call
from latebloom.core.statistics import trainable_leaves
from latebloom.nn import BatchNorm, Conv, Linear, ResNet, ViT


class ConvEncoder(eqx.Module):
    """[batch, height, width, channels] -> [batch, widths[-1]]: a VGG in small.

    For each of `widths` a 3x3 convolution, batch normalisation (if `norm`), ReLU and a 2x2 maximum
    (left out once a side is 1), then the mean over what is left of the image. Kaiming-normal weights
    (fan-out), biases 0.
    """

    layers: tuple[Conv, ...]
    norms: tuple[BatchNorm, ...]

    def __init__(
        self, in_channels: int, widths: Sequence[int] = (16, 32, 64, 128), *, key: PRNGKeyArray,
        norm: bool = False,
    ):  # fmt: skip
        keys = jax.random.split(key, len(widths))
        sizes = (in_channels, *widths)
        self.layers = tuple(
            _kaiming(Conv(sizes[i], sizes[i + 1], 3, use_bias=not norm, key=k), k)
            for i, k in enumerate(keys)
        )
        self.norms = tuple(BatchNorm(width) for width in widths) if norm else ()

    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch features"]:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if self.norms:
                x = self.norms[i](x, train=train)
            x = jax.nn.relu(x)
            if min(x.shape[1:3]) > 1:
                b, h, w, c = x.shape
                even = x[:, : h // 2 * 2, : w // 2 * 2]
                x = even.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))
        return x.mean((1, 2))


def _kaiming(conv: Conv, key: PRNGKeyArray) -> Conv:
    kh, kw, _, out = conv.weight.shape
    weight = jax.random.normal(key, conv.weight.shape) * jnp.sqrt(2 / (kh * kw * out))
    conv = eqx.tree_at(lambda c: c.weight, conv, weight)
    if conv.bias is None:
        return conv
    return eqx.tree_at(lambda c: c.bias, conv, jnp.zeros_like(conv.bias))


class BottleneckHead(eqx.Module):
    """Features -> logits of many classes that mean nothing: two GELU layers, then the l2 bottleneck.

    The bottleneck is an affine map to `bottleneck` dimensions whose outcome is scaled to length 1,
    followed by a linear map whose rows are scaled to length 1, so that every logit is a cosine. The
    gradient flows through both. `unit_features` and `unit_rows` switch either off; `used` is how many
    of the dimensions there are (None: all), the rest is cut off. All three may be arrays, so that heads
    that differ in them share a compiled program. Weights start as normal numbers cut off at two
    standard deviations of 0.02, biases at 0.

    Source: Sarnthein et al. 2023 (arXiv 2302.12091), appendix E.1, after DINO's head (Caron et al.
    2021).
    """

    hidden: tuple[Linear, ...]
    narrow: Linear
    rows: Float[Array, "out bottleneck"]
    unit_features: Bool[Array, ""]
    unit_rows: Bool[Array, ""]
    used: Int[Array, ""]

    def __init__(
        self, in_size: int, *, key: PRNGKeyArray, hidden: int = 2048, bottleneck: int = 256,
        out_size: int = 2**16, unit_features: bool | Array = True, unit_rows: bool | Array = True,
        used: int | Array | None = None,
    ):  # fmt: skip
        keys = jax.random.split(key, 4)
        self.hidden = (
            _narrow_start(in_size, hidden, keys[0]),
            _narrow_start(hidden, hidden, keys[1]),
        )
        self.narrow = _narrow_start(hidden, bottleneck, keys[2])
        self.rows = 0.02 * jax.random.truncated_normal(keys[3], -2, 2, (out_size, bottleneck))
        self.unit_features, self.unit_rows = jnp.asarray(unit_features), jnp.asarray(unit_rows)
        self.used = jnp.asarray(bottleneck if used is None else used, jnp.int32)

    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch out"]:
        for layer in self.hidden:
            x = jax.nn.gelu(layer(x), approximate=False)
        there = jnp.arange(self.rows.shape[1]) < self.used
        z, rows = (jnp.where(there, value, 0) for value in (self.narrow(x), self.rows))
        z = jnp.where(self.unit_features, unit(z), z)
        return z @ jnp.where(self.unit_rows, unit(rows), rows).T


def _narrow_start(in_size: int, out_size: int, key: PRNGKeyArray) -> Linear:
    layer = Linear(in_size, out_size, key=key)
    weight = 0.02 * jax.random.truncated_normal(key, -2, 2, (in_size, out_size))
    return eqx.tree_at(lambda n: (n.weight, n.bias), layer, (weight, jnp.zeros(out_size)))


def unit(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Rows scaled to length 1; a row of zeros stays, with a finite gradient."""
    square = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


class Distilled(eqx.Module):
    """An encoder and the head that is only there for distillation."""

    encoder: Any
    head: BottleneckHead

    def __call__(
        self, x: Float[Array, "batch ..."], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "batch out"]:
        return self.head(call(self.encoder, x, key, train))


class Architecture(eqx.Module):
    """Builds the network of a key: `architecture(key)`, or its encoder alone.

    - `kind` "conv": a `ConvEncoder` of these `widths`, with batch normalisation if `norm`; "resnet": as
      many stages of one block, from `widths[0]` channels, with batch normalisation; "vit": as many
      blocks of four heads on patches of 2 x 2. All give `widths[-1]` features.
    - The rest describes a `BottleneckHead` of `classes` outputs. What is an array may differ between
      architectures that share a compiled program.
    """

    kind: Literal["conv", "resnet", "vit"] = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    widths: tuple[int, ...] = eqx.field(static=True)
    norm: bool = eqx.field(static=True)
    hidden: int = eqx.field(static=True)
    bottleneck: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    used: Int[Array, ""] = eqx.field(converter=partial(jnp.asarray, dtype=jnp.int32))
    unit_features: Bool[Array, ""] = eqx.field(converter=jnp.asarray)
    unit_rows: Bool[Array, ""] = eqx.field(converter=jnp.asarray)

    def encoder(self, key: PRNGKeyArray) -> ConvEncoder | ResNet | ViT:
        depth, size = len(self.widths), self.widths[-1]
        if self.kind == "resnet":
            return ResNet(
                self.channels, size, key=key, width=self.widths[0], blocks_per_stage=(1,) * depth,
                norm="batch",
            )  # fmt: skip
        if self.kind == "vit":
            return ViT(
                self.channels, size, key=key, patch=2, size=size, heads=4, hidden=2 * size,
                layers=depth,
            )  # fmt: skip
        return ConvEncoder(self.channels, self.widths, norm=self.norm, key=key)

    def __call__(self, key: PRNGKeyArray) -> Distilled:
        encoder_key, head_key = jax.random.split(key)
        head = BottleneckHead(
            self.widths[-1], key=head_key, hidden=self.hidden, bottleneck=self.bottleneck,
            out_size=self.classes, unit_features=self.unit_features, unit_rows=self.unit_rows,
            used=self.used,
        )  # fmt: skip
        return Distilled(self.encoder(encoder_key), head)


def start_near(teacher: Any, fresh: Any, alpha: float | Float[Array, ""]) -> Any:
    """((1 - alpha) teacher + alpha fresh) / sqrt(alpha^2 + (1 - alpha)^2), for all that is trained.

    The division keeps the variance of the weights, so that alpha = 0 is the teacher, alpha = 1 the
    other network, and all between are as large as both. Running statistics are the teacher's. Below
    about 1e-6 single precision no longer tells alpha from 0, where a network without batch
    normalisation has no gradient at all.

    Source: Sarnthein et al. 2023, Eq. 3.
    """
    learned = trainable_leaves(teacher)
    mine, rest = eqx.partition(teacher, learned)
    other = eqx.filter(fresh, learned)
    size = jnp.sqrt(alpha**2 + (1 - alpha) ** 2)
    between = jax.tree.map(lambda t, f: ((1 - alpha) * t + alpha * f) / size, mine, other)
    return eqx.combine(between, rest)
