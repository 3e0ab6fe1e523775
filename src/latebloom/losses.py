"""Losses that say how, and in which precision, probabilities are formed.

All take logits [batch, classes] and integer labels [batch] and return one loss per example, like
`optax.losses`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def stablemax_logits(logits: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
    """g(z) = sign(z) log(1 + |z|), so that softmax(g(z)) is StableMax(z).

    Source: Prieto et al. 2025 (arXiv 2501.04697), Def. 4: s(z) = z + 1 for z >= 0, 1 / (1 - z)
    below, which equals exp(g(z)). Its slope at 0 is 1: both halves meet there with it.
    """
    above = logits >= 0
    up, down = jnp.where(above, logits, 0), jnp.where(above, 0, logits)
    return jnp.where(above, jnp.log1p(up), -jnp.log1p(-down))


def stablemax(logits: Float[Array, "*batch classes"]) -> Float[Array, "*batch classes"]:
    """StableMax probabilities: s(z_i) / sum_j s(z_j) (Prieto et al. 2025, Def. 4).

    Unlike softmax they change when a constant is added to all logits, and they never get near 1:
    recalibrate before reading them as probabilities.
    """
    return jax.nn.softmax(stablemax_logits(logits), axis=-1)


def stablemax_cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """Cross-entropy of the StableMax probabilities (Prieto et al. 2025, Eq. 6), in nats."""
    return cross_entropy(stablemax_logits(logits), labels)


def cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    precision: str | None = None,
) -> Float[Array, " batch"]:
    """Softmax cross-entropy in nats with the softmax computed in a chosen floating-point format.

    `precision=None` keeps the dtype of the logits. In "float16" every intermediate result is
    rounded to that format while sums accumulate in float32 and are rounded once, as in PyTorch;
    the gradient is rounded likewise. "float64" needs 64-bit types to be enabled (set `x64` on the
    process) and raises `ValueError` otherwise.
    """
    if precision is None:
        return _nll(logits, labels)
    if precision == "float16":
        return _half_cross_entropy(logits, labels)
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision must be float16, float32 or float64, not {precision!r}")
    _need_x64(precision)
    return _nll(logits.astype(precision), labels)


def masked_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    allowed: Bool[Array, "#batch classes"],
) -> Float[Array, " batch"]:
    """Softmax cross-entropy in nats among the allowed classes of each example.

    The logits of the others take no part and get no gradient. A label that is not allowed is taken
    for allowed.
    """
    here = jnp.arange(logits.shape[-1]) == labels[:, None]
    return _nll(jnp.where(allowed | here, logits, -jnp.inf), labels)


def masked_binary_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    allowed: Bool[Array, "#batch classes"],
) -> Float[Array, " batch"]:
    """Sum over the allowed classes of the sigmoid cross-entropy in nats: each class is a question of its own.

    The logits of the others take no part and get no gradient. A label that is not allowed is taken
    for allowed.
    """
    here = jnp.arange(logits.shape[-1]) == labels[:, None]
    apart = jax.nn.softplus(jnp.where(here, -logits, logits))
    return jnp.where(allowed | here, apart, 0).sum(axis=-1)


def _need_x64(precision: str) -> None:
    if precision == "float64" and not getattr(jax.config, "jax_enable_x64"):
        raise ValueError(
            "precision='float64' needs 64-bit types: use jax.enable_x64, or set x64=True on the process"
        )


def _nll(logits: Array, labels: Array) -> Array:
    return -pick(jax.nn.log_softmax(logits, axis=-1), labels)


def pick(
    values: Float[Array, "*batch classes"], labels: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Each row's value at its label."""
    return jnp.take_along_axis(values, labels[..., None], axis=-1)[..., 0]


def round_to_half(x: Float[Array, ...]) -> Float[Array, ...]:
    """The nearest float16 values, subnormal ones and infinities included, in the dtype of `x`.

    A cast there and back would do, but compilers may drop it to keep excess precision.
    """
    single = x.astype(jnp.float32)
    known = jnp.isfinite(single)  # infinities and NaN stay what they are
    finite = jnp.where(known, single, 0)
    bits = jax.lax.bitcast_convert_type(finite, jnp.uint32)
    power = jax.lax.bitcast_convert_type(bits & jnp.uint32(0x7F800000), jnp.float32)
    spacing = jnp.maximum(power * 2.0**-10, 2.0**-24)
    rounded = jnp.round(finite / spacing) * spacing
    rounded = jnp.where(jnp.abs(rounded) > 65504, jnp.sign(finite) * jnp.inf, rounded)
    return jnp.where(known, rounded, single).astype(x.dtype)


def _half_shifted(logits: Array) -> tuple[Array, Array]:
    """Rounded z - max z, and the rounded sum of its rounded exponentials."""
    z = round_to_half(logits.astype(jnp.float32))
    shifted = round_to_half(z - z.max(axis=-1, keepdims=True))
    total = round_to_half(round_to_half(jnp.exp(shifted)).sum(axis=-1, keepdims=True))
    return shifted, total


@jax.custom_vjp
def _half_cross_entropy(logits: Array, labels: Array) -> Array:
    return _half_forward(logits, labels)[0]


def _half_forward(logits: Array, labels: Array) -> tuple[Array, tuple]:
    shifted, total = _half_shifted(logits)
    log_probabilities = round_to_half(shifted - round_to_half(jnp.log(total)))
    loss = -pick(log_probabilities, labels)
    return loss, (log_probabilities, labels, jnp.zeros((), logits.dtype))


def _half_backward(saved: tuple, cotangent: Array) -> tuple[Array, None]:
    log_probabilities, labels, like = saved
    weight = round_to_half(cotangent)[..., None]
    probabilities = round_to_half(jnp.exp(log_probabilities))
    target = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=jnp.float32)
    gradient = round_to_half(round_to_half(probabilities * weight) - target * weight)
    return gradient.astype(like.dtype), None


_half_cross_entropy.defvjp(_half_forward, _half_backward)


def collapsed(logits: Float[Array, "batch classes"], precision: str | None = None) -> Array:
    """Which examples have a collapsed softmax: sum_k exp(z_k - max z) is exactly 1.

    bool [batch]. For a correctly classified example the loss and its gradient with respect to the
    true class's logit are then exactly zero (Prieto et al. 2025, Def. 3). `precision` as in
    `cross_entropy`.
    """
    if precision == "float16":
        return _half_shifted(logits)[1][..., 0] == 1
    if precision is not None:
        _need_x64(precision)
        logits = logits.astype(precision)
    return jnp.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1) == 1


def mean_squared_error(
    outputs: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """Mean over classes of the squared distance to the one-hot label, per example."""
    target = jax.nn.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    return jnp.square(outputs - target).mean(axis=-1)
