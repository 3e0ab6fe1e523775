"""Learning-rate schedules as shapes over a run, and recorded ones stretched to any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

Shape = Callable[[Float[Array, " steps"]], Float[Array, " steps"]]  # progress -> multiplier


def flat() -> Shape:
    """1 throughout."""
    return jnp.ones_like


def inverse_decay(offset: float) -> Shape:
    """1 / (1 + s / offset) at progress s in (0, 1]; offset 1 / steps gives the textbook's 1/t.

    Raises `ValueError` unless the offset is positive.
    """
    _within("offset", offset, offset > 0, "positive")
    return lambda s: offset / (offset + s)


def inverse_sqrt_decay(offset: float) -> Shape:
    """1 / sqrt(1 + s / offset) at progress s in (0, 1]; offset 1 / steps gives 1/sqrt(t).

    Raises `ValueError` unless the offset is positive.
    """
    _within("offset", offset, offset > 0, "positive")
    return lambda s: jnp.sqrt(offset / (offset + s))


def step_decay(at: Sequence[float] = (0.3, 0.6, 0.9), factor: float = 0.1) -> Shape:
    """Multiplied by `factor` when the progress passes each of `at`.

    Raises `ValueError` for a factor outside [0, 1] and for places outside [0, 1].
    """
    _within("factor", factor, 0 <= factor <= 1, "from 0 to 1")
    for place in at:
        _within("each of at", place, 0 <= place <= 1, "a share of the run, from 0 to 1")
    return lambda s: factor ** jnp.sum(s > jnp.asarray(at)[:, None], axis=0)


def cosine_decay() -> Shape:
    """(1 + cos(pi s)) / 2, from 1 to 0."""
    return lambda s: (1 + jnp.cos(jnp.pi * s)) / 2


def polynomial_decay(power: float = 1.0) -> Shape:
    """(1 - s)^power; power 1 is linear decay. Raises `ValueError` for a power below 0."""
    _within("power", power, power >= 0, "0 or more")
    return lambda s: (1 - s) ** power


def stable_decay(share: float = 0.2) -> Shape:
    """1, then linear to 0 over the last `share` of the run (warm-up-stable-decay, with warm-up).

    Raises `ValueError` for a share outside (0, 1].
    """
    _within("share", share, 0 < share <= 1, "above 0 and at most 1 (`flat` does not decay)")
    return lambda s: jnp.minimum(1.0, (1 - s) / share)


def _within(name: str, value: float, fits: bool, what: str) -> None:
    if not (fits and np.isfinite(value)):
        raise ValueError(f"{name} must be {what}, not {value:g}")


def schedule_values(shape: Shape, steps: int, warmup: float = 0.0) -> Float[Array, " steps"]:
    """The multiplier of every step: linear warm-up over a share of the run, then the shape.

    Step t of T (counted from 1) is at progress t / T, so that decay to 0 makes the last step
    exactly 0, as the last-iterate theory wants: linear decay is 1 - t / T.

    Raises `ValueError` for fewer than 2 steps or a warm-up outside [0, 1).
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, not {steps}")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of the run in [0, 1), not {warmup}")
    rising = min(round(warmup * steps), steps - 1)
    rise = np.arange(1, rising + 1, dtype=np.float32) / max(rising, 1)
    progress = np.arange(1, steps - rising + 1, dtype=np.float32) / (steps - rising)
    return jnp.concatenate([jnp.asarray(rise), shape(jnp.asarray(progress))])


def tabulated(
    values: Float[Array | np.ndarray, " points"] | Sequence[float], steps: int, peak: float = 1.0
) -> optax.Schedule:
    """An Optax schedule that reads `peak * values`, stretched linearly over `steps` steps.

    The first step has the first value and step `steps - 1` the last, which is kept afterwards.

    Raises `ValueError` for fewer than 2 steps or values, and for values or a peak that are not finite
    and >= 0.
    """
    _within("peak", peak, peak >= 0, "0 or more")
    table = np.asarray(values, np.float32)
    if steps < 2 or table.ndim != 1 or len(table) < 2:
        raise ValueError(
            f"a schedule needs at least 2 steps and 2 values, not {steps} and {table.shape}"
        )
    if not np.isfinite(table).all() or (table < 0).any():
        raise ValueError("the values of a schedule must be finite and not negative")
    places = np.linspace(0, steps - 1, len(table), dtype=np.float32)
    table, places = jnp.asarray(peak * table), jnp.asarray(places)
    return lambda count: jnp.interp(jnp.asarray(count, jnp.float32), places, table)
