"""From per-seed effects to verdicts with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from latebloom.lab.study import Claim, Traces, bound

Outcome = Literal["holds", "contradicted", "undecided", "out of reach", "no evidence", "not run"]
OUTCOMES: tuple[Outcome, ...] = (
    "holds", "contradicted", "undecided", "out of reach", "no evidence",
)  # fmt: skip
SILENT = 0.25  # where a larger share of the seeds cannot say, a claim is undecided


@dataclass(frozen=True)
class Estimate:
    """A mean over the seeds that can say, and its 95 % interval; None: unknown, or infinite."""

    estimate: float | None
    low: float | None
    high: float | None
    seeds: int  # that can say
    of: int  # that were asked
    effects: tuple[float | None, ...]


@dataclass(frozen=True)
class Verdict:
    """What a claim's check came to: the mean effect over seeds, its 95 % interval, the threshold.

    `null`: the same numbers of what scores without the thing claimed. `needs`: what each need
    came to. `reason` says why where the claim is out of reach, no evidence, or too few seeds say.
    """

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
    of: int
    effects: tuple[float | None, ...]
    null: dict[str, Any] | None = None
    needs: tuple[dict[str, Any], ...] = ()
    added: str = ""
    reason: str = ""

    def row(self) -> dict[str, Any]:
        """The verdict as JSON-able values."""
        return asdict(self)


def interval(effects: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean; a point where all agree, infinite with fewer than two."""
    if len(effects) < 2:
        return -np.inf, np.inf
    if np.ptp(effects) == 0:
        return float(effects[0]), float(effects[0])
    mean, error = np.mean(effects), np.std(effects, ddof=1) / np.sqrt(len(effects))
    reach = error * stats.t.ppf((1 + confidence) / 2, len(effects) - 1)
    return float(mean - reach), float(mean + reach)


def estimate(effects: Sequence[float | None] | np.ndarray) -> Estimate:
    """The mean of per-seed effects; those that are NaN, infinite or None cannot say."""
    listed = np.array([np.nan if e is None else e for e in effects], float)
    said = listed[np.isfinite(listed)]
    kept = tuple(float(e) if np.isfinite(e) else None for e in listed)
    if not len(said):
        return Estimate(None, None, None, 0, len(listed), kept)
    low, high = (bound if np.isfinite(bound) else None for bound in interval(said))
    return Estimate(float(said.mean()), low, high, len(said), len(listed), kept)


def outcome(found: Estimate, holds: str) -> Outcome:
    """Wholly beyond the threshold it holds, wholly on the other side it is contradicted, else
    (or where too few seeds can say) it is undecided."""
    if found.low is None or found.high is None or found.seeds < (1 - SILENT) * found.of:
        return "undecided"
    sign, limit = bound(holds)
    beyond = sorted([sign * (found.low - limit), sign * (found.high - limit)])
    return "holds" if beyond[0] > 0 else "contradicted" if beyond[1] < 0 else "undecided"


def judge(claim: Claim, traces: Traces) -> Verdict:
    """Check a claim, its null and its needs; "not run" where arms of it are missing.

    - A need whose mean is not beyond its threshold puts the claim out of reach.
    - A null that holds by the claim's own rule leaves no evidence.

    Raises `ValueError` where an effect is not one number a seed.
    """
    fixed: dict[str, Any] = {
        "claim": claim.id, "text": claim.text, "paper": claim.paper, "threshold": claim.holds,
        "unit": claim.unit, "added": claim.added,
    }  # fmt: skip
    if any(arm not in traces for arm in claim.arms):
        return Verdict(
            **fixed,
            verdict="not run",
            estimate=None,
            low=None,
            high=None,
            seeds=0,
            of=0,
            effects=(),
        )
    null: dict[str, Any] | None = None
    if callable(claim.null):
        null = {"text": claim.null.text, "effects": _values(claim, claim.null, traces)}
    elif claim.null is not None:
        null = {"text": "", "effects": [claim.null]}
    needs = [
        {"text": n.effect.text, "threshold": n.holds, "reason": n.reason,
         "estimate": estimate(_values(claim, n.effect, traces)).estimate}
        for n in claim.needs
    ]  # fmt: skip
    row = fixed | {"effects": _values(claim, claim.effect, traces), "null": null, "needs": needs}
    return Verdict(**rejudged(row))


def _values(claim: Claim, effect: Any, traces: Traces) -> list[float]:
    values = np.asarray(effect(traces), float)
    if values.ndim != 1:
        raise ValueError(
            f"claim {claim.id}: the effect must be one number a seed, not {values.shape}"
        )
    return values.tolist()


def rejudged(row: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict's row, judged again from the per-seed effects that it holds."""
    holds, found = row["threshold"], estimate(row["effects"])
    verdict, reason = outcome(found, holds), ""
    if verdict == "undecided" and found.seeds < (1 - SILENT) * found.of:
        reason = f"only {found.seeds} of {found.of} seeds can say"
    null = row["null"]
    if null is not None:
        scored = _estimate_of_null(null)
        null = {"text": null["text"], **asdict(scored)}
        if outcome(scored, holds) == "holds":
            verdict, reason = "no evidence", "the null passes too"
    needs = tuple({**need, "met": _met(need)} for need in row["needs"])
    if missed := [need["reason"] for need in needs if not need["met"]]:
        verdict, reason = "out of reach", "; ".join(missed)
    return {
        **row, **asdict(found), "verdict": verdict, "reason": reason, "null": null, "needs": needs,
    }  # fmt: skip


def _estimate_of_null(null: Mapping[str, Any]) -> Estimate:
    if null["text"]:
        return estimate(null["effects"])
    (value,) = null["effects"]  # a number, which is known exactly
    return Estimate(value, value, value, 1, 1, (value,))


def _met(need: Mapping[str, Any]) -> bool:
    sign, limit = bound(need["threshold"])
    return need["estimate"] is not None and sign * (need["estimate"] - limit) > 0
