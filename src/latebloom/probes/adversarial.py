"""Robust accuracy under projected gradient descent (Madry et al. 2018, arXiv:1706.06083)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from latebloom.core.calling import call

Classifier = Callable[[Float[Array, " batch *feature"]], Float[Array, "batch class"]]


def pgd(
    model: Classifier,
    x: Shaped[Array, " batch *feature"],
    labels: Int[Array, " batch"],
    key: Key[Array, ""],
    epsilon: float | Float[Array, ""],
    *,
    steps: int = 10,
    step_size: float | Float[Array, ""] | None = None,
    domain: tuple[float, float] | None,
) -> Float[Array, " batch *feature"]:
    """Untargeted L-infinity attack on the cross-entropy: a random start, then sign steps.

    Every iterate is projected to the ball of radius epsilon around x, then clamped to the domain.

    Args:
        model: maps a batch of inputs to logits, or one input to its logits.
        x: inputs inside the domain.
        labels: true classes.
        key: of the random start, uniform in the ball.
        epsilon: radius of the ball, in units of x.
        steps: gradient steps.
        step_size: defaults to 2.5 epsilon / steps, so that any corner of the ball is in reach.
        domain: smallest and largest value an input may have, as (0, 1) for pictures that were divided
            by 255; None where it may have any, as standardised features may.

    Raises:
        ValueError: if an input is outside the domain.
    """
    x = _inside(x, domain)
    alpha = 2.5 * epsilon / steps if step_size is None else step_size

    def into_ball(point: Array) -> Array:
        near = jnp.clip(point, x - epsilon, x + epsilon)
        return near if domain is None else jnp.clip(near, *domain)

    def total_loss(point: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(call(model, point), labels).sum()

    def ascend(point: Array, _: None) -> tuple[Array, None]:
        return into_ball(point + alpha * jnp.sign(jax.grad(total_loss)(point))), None

    start = into_ball(x + epsilon * jax.random.uniform(key, x.shape, x.dtype, -1.0, 1.0))
    return jax.lax.scan(ascend, start, None, length=steps)[0]


def survives_pgd(
    model: Classifier,
    x: Shaped[Array, " batch *feature"],
    labels: Int[Array, " batch"],
    key: Key[Array, ""],
    epsilon: float | Float[Array, ""],
    *,
    restarts: int = 1,
    steps: int = 10,
    step_size: float | Float[Array, ""] | None = None,
    domain: tuple[float, float] | None,
) -> Bool[Array, " batch"]:
    """Whether an input is classified correctly as it is and after each of the PGD restarts.

    Arguments and errors as of `pgd`.
    """
    x = _inside(x, domain)

    def correct(point: Array) -> Array:
        return jnp.argmax(call(model, point), axis=-1) == labels

    def attack(restart: Array) -> Array:
        return correct(
            pgd(model, x, labels, restart, epsilon, steps=steps, step_size=step_size, domain=domain)
        )

    attacked = jax.lax.map(attack, jax.random.split(key, restarts))
    return correct(x) & jnp.all(attacked, axis=0)


def robust_accuracy(
    model: Classifier,
    x: Shaped[Array, " batch *feature"],
    labels: Int[Array, " batch"],
    key: Key[Array, ""],
    epsilon: float | Float[Array, ""] | Float[Array, " epsilon"],
    *,
    restarts: int = 1,
    steps: int = 10,
    step_size: float | Float[Array, ""] | None = None,
    domain: tuple[float, float] | None,
) -> Float[Array, "*epsilon"]:
    """Share of inputs that survive PGD, for one epsilon or a vector of them.

    An upper bound on the true robust accuracy: a stronger attack (more steps and restarts) can
    only lower it, and one that lowers it much says that the gradients are masked. Arguments and errors
    as of `pgd`.
    """
    x = _inside(x, domain)
    epsilons = jnp.asarray(epsilon, x.dtype)

    def share(one: Array) -> Array:
        alive = survives_pgd(
            model,
            x,
            labels,
            key,
            one,
            restarts=restarts,
            steps=steps,
            step_size=step_size,
            domain=domain,
        )
        return jnp.mean(alive, dtype=x.dtype)

    shares = jax.lax.map(share, epsilons.reshape(-1))
    return shares.reshape(epsilons.shape)


def _inside(x: Array, domain: tuple[float, float] | None) -> Array:
    """Floating-point inputs; raises where they are known to be outside the domain."""
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
    if domain is None or isinstance(x, Tracer):
        return x
    known = np.asarray(x)
    low, high = float(known.min()), float(known.max())
    if low < domain[0] or high > domain[1]:
        raise ValueError(
            f"inputs go from {low:g} to {high:g}, outside the domain {domain}: say domain=(lowest, "
            "highest) of what an input may be, or None where it may be anything"
        )
    return x
