"""A toy model of the motion in concept space: every concept relaxes at the speed of its signal.

Park et al. (2024) give a linear model that reproduces their curves; this is our specification of
it. Each coordinate follows a' = s (target - a). The target of an unseen combination is at first the
nearest class that was seen, the one without the weakest concept (or concepts), and becomes the true corner once
the residual of the seen classes, exp(-s t) for the slowest concept, has fallen below a threshold.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def switch_time(signals: Float[np.ndarray, " concepts"], residual: float = 0.1) -> float:
    """When the slowest concept of the seen classes is learned up to `residual`."""
    signals = np.asarray(signals, float)
    if not (signals > 0).all() or not 0 < residual < 1:
        raise ValueError("signals must be positive and residual between 0 and 1")
    return float(np.log(1 / residual) / signals.min())


def landscape_trajectory(
    times: Float[np.ndarray, " times"],
    signals: Float[np.ndarray, " concepts"],
    *,
    start: float = 0.0,
    residual: float = 0.1,
) -> Float[np.ndarray, "times concepts"]:
    """Coordinates of the combination with every concept at 1, in closed form.

    - `times` in units of 1/signal, from 0 on; `signals` one speed a concept.
    - `start`: every coordinate at time 0.
    """
    times, signals = np.asarray(times, float), np.asarray(signals, float)
    switch = switch_time(signals, residual)
    memorised = np.where(np.isclose(signals, signals.min()), 0.0, 1.0)

    def relax(origin: np.ndarray, goal: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
        return goal + (origin - goal) * np.exp(-signals * elapsed[:, None])

    before = relax(np.full(len(signals), start), memorised, np.minimum(times, switch))
    after = relax(before, np.ones(len(signals)), np.maximum(times - switch, 0.0))
    return np.where(times[:, None] < switch, before, after)
