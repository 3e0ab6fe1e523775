"""Whether another policy is better than the one that ran, and whether the log allows to say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import ArrayLike, Float, PRNGKeyArray
from scipy.stats import rankdata

from latebloom.methods.bandits.off_policy import Estimate, Evaluation, evaluate, ratio

Verdict = Literal["better", "worse", "neither clearly better nor worse", "not covered"]
MOST_OFF = 0.2  # of the mean importance weight from 1
SURELY_OFF = 0.05  # the same, where its standard error shows that it is no accident
LEAST_ROWS = 30  # of the policy's own that the log must be worth
LEAK = 0.98  # AUC of a single column, above which it is taken to know the reward


class Judgement(NamedTuple):
    """A policy valued off the log of another.

    - `evaluation`: by all estimators; `logged`: the mean reward of the policy that ran, same rows.
    - `gain`: doubly robust value minus `logged`, row by row, so that what both share cancels.
    - `verdict`: what the interval of `gain` says, unless the log does not cover the policy: then its
      importance weights do not average to 1 (wrong propensities, or actions that were never played),
      or the log is worth too few rows, and no estimator can help.
    """

    evaluation: Evaluation
    logged: Estimate
    gain: Estimate
    verdict: Verdict

    def sentence(self) -> str:
        """The verdict and the numbers behind it."""
        value, logged, gain = self.evaluation.dr, self.logged, self.gain
        told = (
            f"the next policy earns {float(value.value):.4g} [{float(value.low):.4g}, "
            f"{float(value.high):.4g}] a decision (doubly robust, 95 %), the one that ran "
            f"{float(logged.value):.4g}"
        )
        if self.verdict == "not covered":
            return (
                f"the log does not cover the next policy (mean importance weight "
                f"{float(self.evaluation.mean_weight):.2f} where it should be 1, worth "
                f"{float(self.evaluation.effective_size):.0f} rows of its own): trust no estimate of "
                "it; check the propensities, explore more, or set a smaller gamma"
            )
        return (
            f"{told}: {self.verdict} (difference {float(gain.value):+.4g} [{float(gain.low):+.4g}, "
            f"{float(gain.high):+.4g}])"
        )


def judge(
    reward: Float[ArrayLike, " n"], propensity: Float[ArrayLike, " n"], target: Float[ArrayLike, " n"],
    predicted: Float[ArrayLike, " n"], expected: Float[ArrayLike, " n"], *,
    key: PRNGKeyArray | None = None, resamples: int = 1000,
) -> Judgement:  # fmt: skip
    """Value a policy that was not fitted to these rows; arguments as in `off_policy.evaluate`."""
    found = evaluate(reward, propensity, target, predicted, expected, key=key, resamples=resamples)
    return compared(reward, propensity, target, predicted, expected, found)


def compared(
    reward: Float[ArrayLike, " n"], propensity: Float[ArrayLike, " n"], target: Float[ArrayLike, " n"],
    predicted: Float[ArrayLike, " n"], expected: Float[ArrayLike, " n"], evaluation: Evaluation,
) -> Judgement:  # fmt: skip
    """The judgement that goes with an evaluation of the same rows."""
    r, b, p, f, m = (
        np.asarray(x, float) for x in (reward, propensity, target, predicted, expected)
    )
    ones = np.ones(len(r))
    gain = ratio(_array(m + p / b * (r - f) - r), _array(ones))
    logged = ratio(_array(r), _array(ones))
    weights = p / b
    off, error = abs(weights.mean() - 1), weights.std() / np.sqrt(len(weights))
    right = off <= MOST_OFF and (off <= SURELY_OFF or off <= 3 * error)
    covered = right and float(evaluation.effective_size) >= LEAST_ROWS
    verdict: Verdict = "neither clearly better nor worse"
    if not covered or not np.isfinite(float(gain.low)):
        verdict = "not covered"
    elif float(gain.low) > 0:
        verdict = "better"
    elif float(gain.high) < 0:
        verdict = "worse"
    return Judgement(evaluation, logged, gain, verdict)


def leaking_columns(table: pd.DataFrame, columns: Sequence[str], reward: np.ndarray) -> list[str]:
    """Columns that alone tell high rewards from low ones, whatever was played (AUC above 0.98).

    Numbers by their order; others by the mean reward of each value, learned on one half of the rows
    and judged on the other. Such a column was probably written after the reward was known.
    """
    high = reward > np.mean(reward)
    if high.sum() < 5 or (~high).sum() < 5:
        return []
    half = np.arange(len(reward)) % 2 == 0
    found = []
    for name in columns:
        column = pd.Series(table[name]).reset_index(drop=True)
        numbers: Any = pd.to_numeric(column, errors="coerce")
        scores = [numbers.fillna(numbers.mean()).to_numpy(float)] if numbers.notna().any() else []
        texts: pd.Series = column.astype(str)
        means: Any = pd.Series(reward[half]).groupby(np.asarray(texts[half])).mean()
        aucs = [max(a, 1 - a) for a in (_auc(s, high) for s in scores)]
        aucs.append(
            _auc(
                pd.Series(texts[~half]).map(means).fillna(np.mean(reward)).to_numpy(float),
                high[~half],
            )
        )
        if max(aucs) > LEAK:
            found.append(str(name))
    return found


def about_leaks(leaking: Sequence[str], auc: float) -> list[str]:
    """A warning of context that knows the reward."""
    if leaking:
        return [
            f"column {', '.join(map(repr, leaking))} alone tells high rewards from low ones (AUC above "
            f"{LEAK}): if it was written after the reward was known, leave it out, or every number here "
            "is too good"
        ]
    if auc > LEAK:
        return [
            f"held-out AUC {auc:.3f} is too good for most data: does the context hold what was written "
            "after the reward was known?"
        ]
    return []


def _auc(score: np.ndarray, high: np.ndarray) -> float:
    """Chance that a high reward's score is above a low one's; ties count half."""
    many, few = high.sum(), (~high).sum()
    if not many or not few:
        return 0.5
    return float((rankdata(score)[high].sum() - many * (many + 1) / 2) / (many * few))


def _array(x: np.ndarray) -> Any:
    return jnp.asarray(x, jnp.float32)
