"""What evaluation noise alone would make of the lowest of several accuracies."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def noise_floor(
    accuracy: ArrayLike, examples: ArrayLike, evaluations: ArrayLike, quantile: float | None = None
) -> np.ndarray:
    """The least of several evaluations of a learner that stays as good as it is, of the broadcast shape.

    - `accuracy`: what it truly is. `examples`: in each evaluation. `evaluations`: their number.
    - `quantile`: of the least one; None for its expectation.

    Each evaluation is a binomial share on examples of its own, in closed form: the expected least is the
    sum over j of P(at least j right)^evaluations, over the examples. Evaluations on the same examples
    after few updates move together, and fall less low.

    Raises `ValueError` for an accuracy outside of [0, 1], numbers below 1 and a quantile outside of (0, 1).
    """
    p, n, m = np.broadcast_arrays(
        *(np.asarray(v, float) for v in (accuracy, examples, evaluations))
    )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            "accuracy must lie in [0, 1]: the noise is that of a share of right answers"
        )
    for name, value in (("examples", n), ("evaluations", m)):
        if not ((value >= 1) & (np.mod(value, 1) == 0)).all():
            raise ValueError(f"{name} must be a whole number from 1 on, not {value.min():g}")
    if quantile is not None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile must lie between 0 and 1, not {quantile}")
        return stats.binom.ppf(-np.expm1(np.log1p(-quantile) / m), n, p) / n
    found = np.empty(p.shape)
    for place in np.ndindex(p.shape):
        at_least = stats.binom.sf(np.arange(int(n[place])), n[place], p[place])
        found[place] = (at_least ** m[place]).sum() / n[place]
    return found


def lowest_by_noise(
    before: ArrayLike, examples: int, evaluations: ArrayLike, risk: float = 0.05
) -> np.ndarray:
    """What noise takes the lowest of some evaluations below with a chance of at most `risk`, of the broadcast shape.

    - `before`: an accuracy on `examples`, itself with noise, before `evaluations` more of them.

    Half of the risk is that it was a lucky one (its lower bound by Clopper and Pearson is taken for what is
    true), half that one of those after it is an unlucky one.
    """
    right = np.asarray(before, float) * examples
    lower = np.nan_to_num(stats.beta.ppf(risk / 2, right, examples - right + 1))
    return noise_floor(lower, examples, evaluations, risk / 2)
