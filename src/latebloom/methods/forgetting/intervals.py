"""What may be said of the better of several, measured on the same splits or episodes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats


def resampled_interval(
    values: Float[np.ndarray, " k"], test_to_train: float = 0.0, level: float = 0.95
) -> tuple[float, float]:
    """Interval for the mean of what k random splits of the same examples gave (Nadeau & Bengio 2003).

    - `test_to_train`: test examples for each training example. The variance of the mean is (1 / k +
      test_to_train) times that of the values. 0: the splits share nothing, and it is Student's.
    """
    k = len(values)
    error = np.std(values, ddof=1) * np.sqrt(1 / k + test_to_train)
    reach = stats.t.ppf(0.5 + level / 2, k - 1) * error
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


def surely_leads(
    lead: Float[np.ndarray, " k"], others: int, test_to_train: float = 0.0, fewest: int = 2
) -> bool:
    """Whether the one that is best in k splits leads another one by `lead`, and not by chance.

    Two-sided at 95 %, with Bonferroni's bound for the `others` that chance may put first: of equals one is said
    to lead all others in at most 5 % of the cases. With fewer than `fewest` splits it is never sure: shares
    come in steps, and may lead by the same in all of them by chance.
    """
    if len(lead) < fewest:
        return False
    low, _ = resampled_interval(lead, test_to_train, 1 - 0.05 / max(others, 1))
    return low > 1e-9  # a lead of rounding errors is none


def not_behind(
    values: Float[np.ndarray, "ways k"], test_to_train: float = 0.0, fewest: int = 6
) -> Bool[np.ndarray, " ways"]:
    """Which ways are not surely behind the one of the highest mean, by differences over the same splits.

    Whichever is the best in truth is among them in at least 95 % of the cases. Raises `ValueError` for
    fewer than two splits.
    """
    ways, k = values.shape
    if k < 2:
        raise ValueError(f"values must be of two splits or more, not {k}")
    leads = values[values.mean(axis=1).argmax()] - values
    return np.array([not surely_leads(lead, ways - 1, test_to_train, fewest) for lead in leads])
