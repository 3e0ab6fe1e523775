"""From per-seed effects to verdicts with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from latebloom.lab.naming import said
from latebloom.lab.plain import plain
from latebloom.lab.study import Claim, Need, Traces, bound
from latebloom.measures import Effect

Outcome = Literal["holds", "contradicted", "undecided", "out of reach", "no evidence", "not run"]
OUTCOMES: tuple[Outcome, ...] = (
    "holds", "contradicted", "undecided", "out of reach", "no evidence",
)  # fmt: skip
SILENT = 0.25  # where a larger share of the seeds cannot say, nothing is shown


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
    came to: its mean over the seeds that can say, which may be infinite, and how many those are.
    `reason` says why where the claim is out of reach, no evidence, or too few seeds, or the null,
    can say.
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
        """The verdict as JSON-able values; an infinite need is "inf" or "-inf"."""
        return plain(asdict(self))


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
    known = listed[np.isfinite(listed)]
    kept = tuple(float(e) if np.isfinite(e) else None for e in listed)
    if not len(known):
        return Estimate(None, None, None, 0, len(listed), kept)
    low, high = (bound if np.isfinite(bound) else None for bound in interval(known))
    return Estimate(float(known.mean()), low, high, len(known), len(listed), kept)


def silent(seeds: int, of: int) -> bool:
    """Whether too few of the seeds can say anything."""
    return not seeds or seeds < (1 - SILENT) * of


def outcome(found: Estimate, holds: str) -> Outcome:
    """Wholly beyond the threshold it holds, wholly on the other side it is contradicted, else
    (or where too few seeds can say) it is undecided."""
    if found.low is None or found.high is None or silent(found.seeds, found.of):
        return "undecided"
    sign, limit = bound(holds)
    beyond = sorted([sign * (found.low - limit), sign * (found.high - limit)])
    return "holds" if beyond[0] > 0 else "contradicted" if beyond[1] < 0 else "undecided"


def judge(claim: Claim, traces: Traces) -> Verdict:
    """Check a claim, its null and its needs; "not run" where arms of it are missing.

    - A null that holds by the claim's own rule leaves no evidence for a claim that holds; where too
      few seeds of it can say, such a claim is undecided.
    - A need whose mean is not beyond its threshold, or of which too few seeds can say, puts the claim
      out of reach. An infinite need says something, a NaN does not.

    Raises `ValueError` that names the claim where an effect, a null or a need cannot be computed or
    is not one number a seed.
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
    effects = _values(claim.effect, f"claim {claim.id}: its effect", traces)
    if isinstance(claim.null, Effect):
        scored = _values(claim.null, f"claim {claim.id}: its null", traces)
        null = {"text": claim.null.text or "the null", "effects": scored}
    elif claim.null is not None:
        null = {"text": "", "effects": [float(claim.null)]}
    needs = [_reached(claim, need, traces) for need in claim.needs]
    return Verdict(**rejudged(fixed | {"effects": effects, "null": null, "needs": needs}))


def _values(effect: Effect, whose: str, traces: Traces) -> list[float]:
    try:
        return effect(traces).tolist()
    except Exception as error:
        raise ValueError(f"{whose} cannot be computed: {said(error)}") from error


def _reached(claim: Claim, need: Need, traces: Traces) -> dict[str, Any]:
    values = np.array(_values(need.effect, f"claim {claim.id}: its need {need.reason!r}", traces))
    known = values[~np.isnan(values)]
    with np.errstate(invalid="ignore"):  # infinities of both signs have no mean
        mean = float(known.mean()) if len(known) else np.nan
    return {
        "text": need.effect.text, "threshold": need.holds, "reason": need.reason,
        "estimate": None if np.isnan(mean) else mean, "seeds": len(known), "of": len(values),
    }  # fmt: skip


def rejudged(row: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict's row, judged again from the per-seed effects that it holds."""
    holds, found = row["threshold"], estimate(row["effects"])
    verdict, reason = outcome(found, holds), ""
    if silent(found.seeds, found.of):
        reason = f"only {found.seeds} of {found.of} seeds can say"
    null = row["null"]
    if null is not None:
        scored = _estimate_of_null(null)
        null = {"text": null["text"], **asdict(scored)}
        if verdict == "holds" and silent(scored.seeds, scored.of):
            verdict, reason = "undecided", "the null cannot say"
        elif verdict == "holds" and outcome(scored, holds) == "holds":
            verdict, reason = "no evidence", "the null passes too"
    needs = tuple({**need, "met": _met(need)} for need in row["needs"])
    if missed := [need["reason"] + _few(need) for need in needs if not need["met"]]:
        verdict, reason = "out of reach", "; ".join(missed)
    return {
        **row, **asdict(found), "verdict": verdict, "reason": reason, "null": null, "needs": needs,
    }  # fmt: skip


def _estimate_of_null(null: Mapping[str, Any]) -> Estimate:
    if null["text"]:
        return estimate(null["effects"])
    (value,) = null["effects"]  # a number, which is known exactly, or not at all
    if value is None or not np.isfinite(value):
        return Estimate(None, None, None, 0, 1, (None,))
    return Estimate(value, value, value, 1, 1, (value,))


def _met(need: Mapping[str, Any]) -> bool:
    sign, limit = bound(need["threshold"])
    if need["estimate"] is None or _few(need):
        return False
    return sign * (float(need["estimate"]) - limit) > 0


def _few(need: Mapping[str, Any]) -> str:
    """What to add where too few seeds say whether a need is met; earlier rows do not know."""
    if "seeds" not in need or not silent(need["seeds"], need["of"]):
        return ""
    return f" (only {need['seeds']} of {need['of']} seeds can say)"
