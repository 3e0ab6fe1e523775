"""Two-dimensional convolution whose gradient stays fast inside compiled loops on a CPU.

XLA's CPU compiler has fast code for a forward convolution and for a row-major matrix product, but
inside `lax.scan` the gradients that autodiff derives (reversed windows, dilated operands) fall back
to plain loops, 15 to 40 times slower. Here the gradient is written out in the two fast operations:

* the value is a product of patches when they are few, else a convolution of the batch laid out as
  one wide image, which XLA splits among threads (it convolves a batch of small images on one);
* with few channels, two neighbouring pixels are taken as one of twice the channels;
* the gradient of the input is a stride-1 forward convolution of the cotangent with flipped weights;
  a stride s becomes s*s phases in its output channels, instead of zeros between its inputs;
* the gradient of the weights is a matrix product of transposed patches with the cotangent, taken
  over slices of the batch whose patches fit in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = str | int | Sequence[Sequence[int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Measured on two cores with 32 MB of cache: a matrix product of patches beats the convolution while
# all patches stay in the cache, and a gradient's patches are best made a few megabytes at a time.
_PATCH_BYTES = 10 * 2**20
_CHUNK_BYTES = 4 * 2**20
# Up to here the vectors of a product are filled better by two pixels at once, zeros included.
_PAIR_CHANNELS = 16


class Conv(eqx.Module):
    """Convolution over [batch, height, width, channels], weights [kh, kw, in / groups, out].

    Weights and biases start uniform in +-1/sqrt(fan_in), fan_in = kh * kw * in / groups (PyTorch's
    default). Map several seeds with `lax.map`: `vmap` over weights makes grouped convolutions.
    """

    weight: Float[Array, "kh kw in_group out"]
    bias: Float[Array, " out"] | None
    stride: tuple[int, int] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        key: PRNGKeyArray,
        stride: int | tuple[int, int] = 1,
        padding: Padding = "SAME",
        groups: int = 1,
        use_bias: bool = True,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ):
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} must divide in_channels={in_channels} and "
                f"out_channels={out_channels}."
            )
        kh, kw = _pair("kernel_size", kernel_size)
        fan_in = kh * kw * in_channels // groups
        weight_key, bias_key = jax.random.split(key)
        shape = (kh, kw, in_channels // groups, out_channels)
        bound = 1 / math.sqrt(fan_in)
        self.weight = jax.random.uniform(weight_key, shape, dtype, -bound, bound)
        self.bias = (
            jax.random.uniform(bias_key, (out_channels,), dtype, -bound, bound)
            if use_bias
            else None
        )
        self.stride = _pair("stride", stride)
        self.padding = padding if isinstance(padding, (str, int)) else tuple(map(tuple, padding))
        self.groups = groups

    def __call__(
        self, x: Float[Array, "batch height width in"]
    ) -> Float[Array, "batch out_height out_width out"]:
        return conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )


def conv2d(
    x: Float[Array, "batch height width in"],
    w: Float[Array, "kh kw in_group out"],
    b: Float[Array, " out"] | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "SAME",
    groups: int = 1,
) -> Float[Array, "batch out_height out_width out"]:
    """Cross-correlate images with windows, as `lax.conv_general_dilated` in NHWC / HWIO layout.

    `padding` is "SAME", "VALID", one int for every side or ((top, bottom), (left, right)). On a CPU
    the gradient is the hand-written one of this module (reverse mode only; reverse over reverse
    works, `jax.jvp` does not); elsewhere autodiff's. Half precision is computed in float32 on a
    CPU. Raises ValueError when shapes do not fit.
    """
    strides, pads = _check(x, w, b, stride, padding, groups)
    narrow = x.dtype
    if jax.default_backend() == "cpu" and narrow.itemsize < 4:
        x, w = x.astype(jnp.float32), w.astype(jnp.float32)
    if jax.default_backend() != "cpu":
        y = lax.conv_general_dilated(
            x, w, strides, pads, dimension_numbers=_LAYOUT, feature_group_count=groups
        )
    elif groups == 1:
        y = _conv(x, w, strides, pads)
    elif groups == x.shape[-1]:
        y = _depthwise(x, w, strides, pads)
    else:
        parts = zip(jnp.split(x, groups, -1), jnp.split(w, groups, -1), strict=True)
        y = jnp.concatenate([_conv(xg, wg, strides, pads) for xg, wg in parts], -1)
    y = y.astype(narrow)
    return y if b is None else y + b


def _conv(x: Array, w: Array, strides: tuple[int, int], pads: Pads) -> Array:
    if strides == (1, 1) and w.shape[1] > 1 and x.shape[-1] <= _PAIR_CHANNELS:
        return _paired(x, w, pads)
    return _dense(x, w, strides, pads)


def _paired(x: Array, w: Array, pads: Pads) -> Array:
    """The same convolution on pairs of neighbouring pixels, each pair twice the channels."""
    batch, height, width, c_in = x.shape
    kh, kw, _, c_out = w.shape
    left, right = pads[1]
    wo = width + left + right - kw + 1
    taps, pairs = kw // 2 + 1, -(-wo // 2)
    edge = 2 * (pairs + taps - 1) - width - left
    x = _pad(x, ((0, 0), (left, edge))).reshape(batch, height, pairs + taps - 1, 2 * c_in)
    spread = [
        jnp.pad(w, ((0, 0), (pixel, 2 * taps - kw - pixel), (0, 0), (0, 0))) for pixel in (0, 1)
    ]
    both = jnp.stack(spread, 3).reshape(kh, taps, 2 * c_in, 2 * c_out)
    x, both = lax.optimization_barrier((x, both))
    y = _dense(x, both, (1, 1), (pads[0], (0, 0)))
    return y.reshape(batch, -1, 2 * pairs, c_out)[:, :, :wo]


def _dense_with_residuals(x: Array, w: Array, strides: tuple[int, int], pads: Pads):
    return _forward(x, w, strides, pads), (x, w)


def _dense_gradients(strides: tuple[int, int], pads: Pads, saved: tuple[Array, Array], dy: Array):
    x, w = saved
    dx = _input_gradient(dy, w, x.shape[1:3], strides, pads)
    return dx, _weight_gradient(x, dy, w.shape[:2], strides, pads)


_dense = jax.custom_vjp(lambda x, w, s, p: _forward(x, w, s, p), nondiff_argnums=(2, 3))
_dense.defvjp(_dense_with_residuals, _dense_gradients)


def _forward(x: Array, w: Array, strides: tuple[int, int], pads: Pads) -> Array:
    """Choose matrix product or convolution by the size of the patch matrix."""
    taps = math.prod(w.shape[:3])
    ho, wo = _out_size(x.shape[1:3], w.shape[:2], strides, pads)
    size = x.shape[0] * ho * wo * taps * x.dtype.itemsize
    if x.dtype == jnp.float32 and size > _PATCH_BYTES:
        return _forward_strip(x, w, strides, pads)
    patches = jnp.concatenate(_windows(_pad(x, pads), w.shape[:2], strides, (ho, wo)), -1)
    patches = lax.optimization_barrier(patches.reshape(-1, taps))
    return (patches @ w.reshape(taps, -1)).reshape(x.shape[0], ho, wo, -1)


def _forward_strip(x: Array, w: Array, strides: tuple[int, int], pads: Pads) -> Array:
    """Convolve the batch as one wide image: XLA then shares the work among threads."""
    batch, height, width, channels = x.shape
    ho, wo = _out_size((height, width), w.shape[:2], strides, pads)
    sw = strides[1]
    (top, bottom), (left, right) = pads
    steps = max(-(-(width + left + right) // sw), wo)
    image = _pad(x, ((top, bottom), (left, steps * sw - width - left)))
    strip = image.transpose(1, 0, 2, 3).reshape(1, image.shape[1], -1, channels)
    strip = lax.optimization_barrier(strip)
    tail = (0, 0), (0, max(w.shape[1] - sw, 0))
    y = lax.conv_general_dilated(strip, w, strides, tail, dimension_numbers=_LAYOUT)
    y = y[0, :, : batch * steps].reshape(ho, batch, steps, -1)[:, :, :wo]
    return y.transpose(1, 0, 2, 3)


def _input_gradient(
    dy: Array, w: Array, size: tuple[int, ...], strides: tuple[int, int], pads: Pads
) -> Array:
    batch, ho, wo, c_out = dy.shape
    kh, kw, c_in, _ = w.shape
    (sh, sw), ((top, _), (left, _)) = strides, pads
    if kh == kw == 1:
        dx = dy @ w[0, 0].T
        edge = (
            (-top, size[0] + top - (ho - 1) * sh - 1),
            (-left, size[1] + left - (wo - 1) * sw - 1),
        )
        return _pad(dx, edge, between=(sh - 1, sw - 1))
    # Row u = sh * q + r of the padded input meets tap i = r + sh * t at output row q - t.
    th, tw = -(-kh // sh), -(-kw // sw)
    taps = jnp.pad(w, ((0, th * sh - kh), (0, tw * sw - kw), (0, 0), (0, 0)))
    taps = taps.reshape(th, sh, tw, sw, c_in, c_out)[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    taps = lax.optimization_barrier(taps.reshape(th, tw, c_out, sh * sw * c_in))
    (qh, nh), (qw, nw) = (
        (lo // s, (n - 1 + lo) // s - lo // s + 1)
        for n, lo, s in zip(size, (top, left), strides, strict=True)
    )
    around = (th - 1 - qh, nh + qh - ho), (tw - 1 - qw, nw + qw - wo)
    dx = _forward(dy, taps, (1, 1), around)
    if strides != (1, 1):
        dx = dx.reshape(batch, nh, nw, sh, sw, c_in).transpose(0, 1, 3, 2, 4, 5)
        dx = dx.reshape(batch, nh * sh, nw * sw, c_in)
    row, column = top - qh * sh, left - qw * sw
    return dx[:, row : row + size[0], column : column + size[1]]


def _weight_gradient(
    x: Array, dy: Array, kernel: tuple[int, ...], strides: tuple[int, int], pads: Pads
) -> Array:
    batch, ho, wo, c_out = dy.shape
    taps = math.prod(kernel) * x.shape[-1]

    def product(x: Array, dy: Array) -> Array:
        planes = lax.optimization_barrier(_pad(x.transpose(3, 0, 1, 2), pads, axis=2))
        windows = _windows(planes, kernel, strides, (ho, wo), axis=2)
        patches = lax.optimization_barrier(jnp.stack(windows).reshape(taps, -1))
        return patches @ dy.reshape(-1, c_out)

    chunks = _chunks(batch, batch * ho * wo * taps * x.dtype.itemsize)
    if chunks == 1:
        dw = product(x, dy)
    else:
        dw, _ = lax.scan(
            lambda total, part: (total + product(*part), None),
            jnp.zeros((taps, c_out), dy.dtype),
            (_split(x, chunks), _split(dy, chunks)),
        )
    return dw.reshape(*kernel, x.shape[-1], c_out)


def _depthwise(x: Array, w: Array, strides: tuple[int, int], pads: Pads) -> Array:
    """One multiply-add per tap; the compiler fuses them, and autodiff's gradient is alike."""
    kh, kw, _, c_out = w.shape
    size = _out_size(x.shape[1:3], (kh, kw), strides, pads)
    taps = w.reshape(kh * kw, x.shape[-1], -1)
    windows = _windows(_pad(x, pads), (kh, kw), strides, size)
    y = sum(window[..., None] * tap for window, tap in zip(windows, taps, strict=True))
    return jnp.reshape(y, (x.shape[0], *size, c_out))


def _windows(
    x: Array,
    kernel: tuple[int, ...],
    strides: tuple[int, int],
    size: tuple[int, int],
    axis: int = 1,
) -> list[Array]:
    """What each tap of the kernel sees: kh * kw arrays with `size` along `axis` and the next."""

    (rows, columns), (sh, sw) = size, strides
    return [
        lax.slice_in_dim(band, left, left + (columns - 1) * sw + 1, sw, axis + 1)
        for top in range(kernel[0])
        for band in [lax.slice_in_dim(x, top, top + (rows - 1) * sh + 1, sh, axis)]
        for left in range(kernel[1])
    ]


def _pad(x: Array, pads: Pads, axis: int = 1, between: tuple[int, int] = (0, 0)) -> Array:
    edges = [(0, 0, 0)] * x.ndim
    for i in range(2):
        edges[axis + i] = (*pads[i], between[i])
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _out_size(
    size: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, int], pads: Pads
) -> tuple[int, int]:
    height, width = (
        (n + sum(pad) - k) // s + 1
        for n, k, s, pad in zip(size, kernel, strides, pads, strict=True)
    )
    return height, width


def _chunks(batch: int, size: int) -> int:
    """In how many equal parts to cut the batch so that each one's patches fit in the cache."""
    wanted = min(batch, -(-size // _CHUNK_BYTES))
    return next(n for n in range(max(wanted, 1), batch + 1) if batch % n == 0)


def _split(x: Array, chunks: int) -> Array:
    return x.reshape(chunks, -1, *x.shape[1:])


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(n, int) or n < 1 for n in pair):
        raise ValueError(f"{name} must be one or two ints of at least 1, not {value!r}.")
    return pair


def _check(
    x: Array,
    w: Array,
    b: Array | None,
    stride: int | Sequence[int],
    padding: Padding,
    groups: int,
) -> tuple[tuple[int, int], Pads]:
    """Raise ValueError for what does not fit; return strides and explicit padding."""
    if x.ndim != 4 or w.ndim != 4:
        raise ValueError(
            "x must be [batch, height, width, channels] and w [kh, kw, in / groups, out], "
            f"not of shapes {x.shape} and {w.shape}."
        )
    if groups < 1 or x.shape[-1] != w.shape[2] * groups or w.shape[3] % groups:
        raise ValueError(
            f"w has {w.shape[2]} input and {w.shape[3]} output channels, which does not fit x with "
            f"{x.shape[-1]} channels in groups={groups}."
        )
    if x.dtype != w.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x and w must share a float dtype, not {x.dtype} and {w.dtype}.")
    if b is not None and b.shape != w.shape[3:]:
        raise ValueError(f"b must have shape {w.shape[3:]}, not {b.shape}.")
    strides = _pair("stride", stride)
    if isinstance(padding, int):
        padding = ((padding, padding),) * 2
    elif isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f"padding must be 'SAME', 'VALID' or ints, not {padding!r}.")
        padding = lax.padtype_to_pads(x.shape[1:3], w.shape[:2], strides, padding)
    (top, bottom), (left, right) = padding
    pads = (int(top), int(bottom)), (int(left), int(right))
    if min(min(pad) for pad in pads) < 0:
        raise ValueError(f"padding must not be negative, but is {pads}.")
    if min(_out_size(x.shape[1:3], w.shape[:2], strides, pads)) < 1:
        raise ValueError(
            f"the {w.shape[0]}x{w.shape[1]} kernel is larger than the padded image of x, "
            f"{x.shape[1]}x{x.shape[2]} with padding {pads}."
        )
    return strides, pads
