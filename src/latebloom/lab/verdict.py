"""From per-seed effects to verdicts with intervals."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from latebloom.lab.study import Claim, Traces, bound

Outcome = Literal["holds", "contradicted", "undecided", "not run"]


@dataclass(frozen=True)
class Verdict:
    """What a claim's check came to: the mean effect over seeds, its 95 % interval, the threshold."""

    claim: str
    text: str
    paper: str
    verdict: Outcome
    estimate: float | None
    low: float | None
    high: float | None
    threshold: str
    unit: str
    seeds: int
    effects: tuple[float | None, ...]

    def row(self) -> dict[str, Any]:
        """The verdict as JSON-able values."""
        return asdict(self)


def interval(effects: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the mean: bias-corrected where the effects vary, a point otherwise."""
    if len(effects) < 2:
        return -np.inf, np.inf
    if np.ptp(effects) == 0:
        return float(effects[0]), float(effects[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (effects,), np.mean, confidence_level=confidence, n_resamples=9999,
            method="BCa", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    if not np.isfinite([found.low, found.high]).all():
        found = stats.bootstrap(
            (effects,), np.mean, confidence_level=confidence, n_resamples=9999,
            method="percentile", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def judge(claim: Claim, traces: Traces) -> Verdict:
    """Check a claim: wholly beyond the threshold it holds, wholly on the other side it is
    contradicted, otherwise undecided. A claim whose arms were not run is "not run".

    Fewer than two seeds that can say leave it undecided.
    """
    fixed = (claim.id, claim.text, claim.paper)
    if any(arm not in traces for arm in claim.arms):
        return Verdict(*fixed, "not run", None, None, None, claim.holds, claim.unit, 0, ())
    effects = np.asarray(claim.effect(traces), float)
    if effects.ndim != 1:
        raise ValueError(
            f"claim {claim.id}: the effect must be one number a seed, not {effects.shape}"
        )
    said = effects[np.isfinite(effects)]
    listed = tuple(float(e) if np.isfinite(e) else None for e in effects)
    if not len(said):
        return Verdict(
            *fixed, "undecided", None, None, None, claim.holds, claim.unit, 0, listed
        )  # fmt: skip
    low, high = interval(said)
    sign, limit = bound(claim.holds)
    beyond = sorted([sign * (low - limit), sign * (high - limit)])
    outcome: Outcome = (
        "holds" if beyond[0] > 0 else "contradicted" if beyond[1] < 0 else "undecided"
    )
    return Verdict(
        *fixed, outcome, float(said.mean()), low if np.isfinite(low) else None,
        high if np.isfinite(high) else None, claim.holds, claim.unit, len(said), listed,
    )  # fmt: skip
