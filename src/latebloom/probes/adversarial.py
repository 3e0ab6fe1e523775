"""Robust accuracy under projected gradient descent (Madry et al. 2018, arXiv:1706.06083)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

Classifier = Callable[[Float[Array, " batch *feature"]], Float[Array, "batch class"]]


def pgd(
    model: Classifier,
    x: Float[Array, " batch *feature"],
    labels: Int[Array, " batch"],
    key: Key[Array, ""],
    epsilon: float | Float[Array, ""],
    *,
    steps: int = 10,
    step_size: float | Float[Array, ""] | None = None,
    domain: tuple[float, float] = (0.0, 1.0),
) -> Float[Array, " batch *feature"]:
    """Untargeted L-infinity attack on the cross-entropy: a random start, then sign steps.

    Every iterate is projected to the ball of radius epsilon around x, then clamped to the domain.

    Args:
        model: maps a batch of inputs to logits.
        x: inputs inside the domain.
        labels: true classes.
        key: of the random start, uniform in the ball.
        epsilon: radius of the ball, in units of x.
        steps: gradient steps.
        step_size: defaults to 2.5 epsilon / steps, so that any corner of the ball is in reach.
        domain: smallest and largest value an input may have.
    """
    alpha = 2.5 * epsilon / steps if step_size is None else step_size

    def into_ball(point: Array) -> Array:
        return jnp.clip(jnp.clip(point, x - epsilon, x + epsilon), *domain)

    def total_loss(point: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(point), labels).sum()

    def ascend(point: Array, _: None) -> tuple[Array, None]:
        return into_ball(point + alpha * jnp.sign(jax.grad(total_loss)(point))), None

    start = into_ball(x + epsilon * jax.random.uniform(key, x.shape, x.dtype, -1.0, 1.0))
    return jax.lax.scan(ascend, start, None, length=steps)[0]


def survives_pgd(
    model: Classifier,
    x: Float[Array, " batch *feature"],
    labels: Int[Array, " batch"],
    key: Key[Array, ""],
    epsilon: float | Float[Array, ""],
    *,
    restarts: int = 1,
    steps: int = 10,
    step_size: float | Float[Array, ""] | None = None,
    domain: tuple[float, float] = (0.0, 1.0),
) -> Bool[Array, " batch"]:
    """Whether an input is classified correctly as it is and after each of the PGD restarts."""

    def correct(point: Array) -> Array:
        return jnp.argmax(model(point), axis=-1) == labels

    def attack(restart: Array) -> Array:
        return correct(
            pgd(model, x, labels, restart, epsilon, steps=steps, step_size=step_size, domain=domain)
        )

    attacked = jax.lax.map(attack, jax.random.split(key, restarts))
    return correct(x) & jnp.all(attacked, axis=0)


def robust_accuracy(
    model: Classifier,
    x: Float[Array, " batch *feature"],
    labels: Int[Array, " batch"],
    key: Key[Array, ""],
    epsilon: float | Float[Array, ""] | Float[Array, " epsilon"],
    *,
    restarts: int = 1,
    steps: int = 10,
    step_size: float | Float[Array, ""] | None = None,
    domain: tuple[float, float] = (0.0, 1.0),
) -> Float[Array, "*epsilon"]:
    """Share of inputs that survive PGD, for one epsilon or a vector of them.

    An upper bound on the true robust accuracy: a stronger attack (more steps and restarts) can
    only lower it, and one that lowers it much says that the gradients are masked.
    """
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
