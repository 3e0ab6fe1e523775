"""Phases of the local complexity during training: descent, ascent, second descent.

Humayun et al. (2024, arXiv:2402.15555, Figs. 1 and 3): local complexity at the data first falls,
then rises while the network interpolates, and falls again, much later, when regions leave the data
for the decision boundary; that last fall is when generalisation and robustness arrive late.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d


def observation_steps(steps: int) -> Int[np.ndarray, " observation"]:
    """The paper's observation schedule for its MLPs, denser the earlier.

    Every step below 30, every 10th below 150, every 100th below 1000, every 1000th below 10,000,
    then 150 evenly over the run; the last step is always observed.
    """
    spans = ((30, 1), (150, 10), (1000, 100), (10_000, 1000), (steps + 1, -(-steps // 150)))
    observed = {0, steps}
    for end, every in spans:
        observed.update(range(0, min(end, steps + 1), every))
    return np.array(sorted(observed))


@dataclass(frozen=True)
class Phases:
    """Where the ascent starts and ends on a curve, and the heights of the three phases.

    Attributes:
        minimum: index of the observation at which the ascent starts.
        maximum: index at which it ends.
        first_descent: fall from the first observation to the minimum.
        ascent: rise from the minimum to the maximum.
        second_descent: fall from the maximum to the last observation.
        range: highest minus lowest value.
    """

    minimum: int
    maximum: int
    first_descent: float
    ascent: float
    second_descent: float
    range: float

    @property
    def weakest(self) -> float:
        """The smaller of ascent and second descent: both must be there to speak of phases."""
        return min(self.ascent, self.second_descent)


def find_phases(curve: Float[np.ndarray, " observation"], smoothing: float = 1.0) -> Phases:
    """Find the largest rise of a curve, and what comes before and after it.

    Args:
        curve: values at log-spaced observation steps.
        smoothing: standard deviation of a Gaussian filter, in observations; 0 for none.

    Raises:
        ValueError: if the curve has fewer than three values, or some are not finite.
    """
    curve = np.asarray(curve, float)
    if curve.ndim != 1 or len(curve) < 3 or not np.isfinite(curve).all():
        raise ValueError("curve must be a vector of at least three finite values.")
    smooth = gaussian_filter1d(curve, smoothing, mode="nearest") if smoothing else curve
    rise = smooth - np.minimum.accumulate(smooth)
    maximum = int(np.argmax(rise))
    minimum = int(np.argmin(smooth[: maximum + 1]))
    return Phases(
        minimum=minimum,
        maximum=maximum,
        first_descent=float(smooth[0] - smooth[minimum]),
        ascent=float(rise[maximum]),
        second_descent=float(smooth[maximum] - smooth[-1]),
        range=float(np.ptp(smooth)),
    )


def first_step_reaching(
    steps: Int[np.ndarray, " observation"],
    curve: Float[np.ndarray, " observation"],
    share: float = 0.9,
) -> float:
    """First observed step at which a curve reaches a share of its own last value.

    Not before step 1, so that ratios of such times exist. NaN if the last value is not positive.
    """
    if not curve[-1] > 0:
        return float("nan")
    return float(max(1, steps[np.argmax(np.asarray(curve) >= share * curve[-1])]))
