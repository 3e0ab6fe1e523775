"""A logged table in, the next policy and its off-policy value out; and an audit of past generations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from latebloom.methods.bandits import exploration
from latebloom.methods.bandits.encoding import Encoding, learn_encoding
from latebloom.methods.bandits.exploration import check_setting
from latebloom.methods.bandits.judging import Judgement, compared, leaking_columns
from latebloom.methods.bandits.next_policy import NextPolicy, action_sets, with_hour
from latebloom.methods.bandits.off_policy import Estimate, Evaluation, evaluate
from latebloom.methods.bandits.payments import diagnostics
from latebloom.methods.bandits.payments.calibration import (
    Curve,
    calibration_curve,
    expected_calibration_error,
)  # fmt: skip
from latebloom.methods.bandits.payments.model import CrossedLogistic, Rows, Weights
from latebloom.methods.bandits.payments.rules import exploration_cost, gamma_for_cost
from latebloom.methods.bandits.payments.world import Features

ROLES = ("timestamp", "allowed_actions", "action", "propensity", "reward", "reward_timestamp",
         "generation")  # fmt: skip
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)
POLICIES = ("logged", "uniform", "greedy", "next")
ESTIMATORS = ("direct", "ips", "snips", "dr")


@dataclass(frozen=True)
class LogisticScorer:
    """Inverse-gap weights (of `gamma`, with a uniform `floor`) on crossed logistic regression."""

    model: CrossedLogistic
    weights: Weights
    gamma: float
    floor: float
    kind: str = "logistic"

    def probabilities(self, features: Features, allowed: np.ndarray) -> np.ndarray:
        values = self.model.predict(self.weights, features)
        return np.asarray(_next(values, jnp.asarray(allowed), self.gamma, self.floor))

    def expected(self, features: Features) -> np.ndarray:
        return np.asarray(self.model.predict(self.weights, features))

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        note = {"gamma": self.gamma, "floor": self.floor, "ridge": float(self.model.ridge)}
        return self.weights._asdict(), note

    @classmethod
    def restored(
        cls, arrays: dict[str, Any], note: dict[str, Any], encoding: Encoding, actions: int
    ) -> LogisticScorer:
        model = _model(encoding, range(actions), note["ridge"])
        weights = Weights(jnp.asarray(arrays["shared"]), jnp.asarray(arrays["crossed"]))
        return cls(model, weights, note["gamma"], note["floor"])


@dataclass(frozen=True)
class Learned:
    """The next policy, trained on a log, and what the log says of it.

    - `policy`: to serve and to save.
    - `gamma`: of its inverse-gap weights; `cost`: reward a decision that exploring gives up, by the
      model's own predictions. `ridge`: chosen by held-out log-loss.
    - `estimates`: policy, estimator, value, error, low, high (normal), bootstrap_low,
      bootstrap_high. Cross-fitted: each row is judged by a policy trained on the other folds.
    - `effective_size`, `mean_weight`: of each policy's importance weights.
    - `log_loss`, `auc`, `curve`, `calibration_error`: of held-out predictions for logged actions.
    - `judgement`: of the next policy against the one that ran, see `judging.judge`.
    - `leaking`: context columns that alone tell high rewards from low ones.
    - `used`: rows with a reward.
    """

    policy: NextPolicy
    gamma: float
    floor: float
    cost: float
    ridge: float
    used: int
    estimates: pd.DataFrame
    effective_size: dict[str, float]
    mean_weight: dict[str, float]
    log_loss: float
    auc: float
    curve: Curve
    calibration_error: float
    judgement: Judgement
    leaking: tuple[str, ...]

    @property
    def actions(self) -> tuple[str, ...]:
        return self.policy.actions

    def predict(self, table: pd.DataFrame) -> np.ndarray:
        """Predicted reward of every action in every row, [n, K]."""
        return self.policy.predict(table)

    def score(self, table: pd.DataFrame) -> np.ndarray:
        """The policy's probabilities [n, K] for rows with context and `allowed_actions`."""
        return self.policy.score(table)


def learn_next_policy(
    log: pd.DataFrame, *, cost_share: float = 0.25, gamma: float | None = None,
    floor: float = 0.0, ridge: float | None = None, folds: int = 5, resamples: int = 1000,
    seed: int = 0, say: Callable[[str, float | None], None] = lambda text, share: None,
) -> Learned:  # fmt: skip
    """Train the next policy on a log and value it off-policy.

    `log` has columns timestamp, allowed_actions (lists), action, propensity, reward in [0, 1] (a
    gap where it has not arrived), perhaps reward_timestamp and generation; all others are context,
    and the hour of the timestamp is added to it.

    - `gamma`: 0 is uniform; None chooses it so that exploring gives up `cost_share` of what the greedy policy is
      predicted to win over the uniform one.
    - `floor`: share of the traffic that is served uniformly on top.
    - `ridge`: above 0; None chooses it by held-out log-loss.

    Raises `ValueError` for settings that make no sense, and for a log without both rewards, or with
    an action outside its set.
    """
    if not (0 <= floor < 1 and 0 < cost_share <= 1 and folds >= 2 and resamples >= 1):
        raise ValueError(
            "floor must be in [0, 1), cost_share in (0, 1], folds at least 2, resamples at least 1"
        )
    if gamma is not None:
        check_setting("gamma", gamma)
    if ridge is not None:
        check_setting("ridge", ridge, above=True)
    arrived = with_reward(log)
    if len(arrived) < folds or np.ptp(arrived["reward"].to_numpy(float)) == 0:
        raise ValueError("the log needs rows with high and with low rewards to learn from")
    actions = action_names(log)
    columns = context_columns(log)
    encoding = learn_encoding(with_hour(log), columns)
    rows = to_rows(arrived, encoding, actions)
    fold = np.random.default_rng(seed).permutation(len(arrived)) % folds
    tried = (ridge,) if ridge is not None else RIDGES
    losses = []
    for place, r in enumerate(tried):
        say(f"held-out predictions at ridge {r:g}", place / (len(tried) + 2))
        held = cross_fit(_model(encoding, actions, r), rows, fold)
        losses.append((float(_log_loss(held, rows)), r, held))
    best = min(losses, key=lambda found: found[0])
    model = _model(encoding, actions, best[1])
    say("training on all rows", len(tried) / (len(tried) + 2))
    weights = _fit(model, rows)
    values = model.predict(weights, rows.features)
    if gamma is None:
        even = exploration_cost(exploration.uniform(rows.allowed), values, rows.allowed)
        gamma = float(gamma_for_cost(values, rows.allowed, cost_share * even))
    final = _next(values, rows.allowed, gamma, floor)
    say("valuing policies off the log", (len(tried) + 1) / (len(tried) + 2))
    found = _evaluations(best[2], rows, gamma, floor, jax.random.key(seed), resamples)
    one = jnp.ones_like(rows.reward)
    played = best[2][jnp.arange(len(one)), rows.action]
    curve = calibration_curve(played, rows.reward, one, bins=min(15, max(2, len(arrived) // 50)))
    # The target on held-out predictions, as it was evaluated.
    target = _next(best[2], rows.allowed, gamma, floor)
    judgement = compared(
        rows.reward, rows.propensity, target[jnp.arange(len(one)), rows.action], played,
        (target * best[2]).sum(-1), found["next"],
    )  # fmt: skip
    return Learned(
        NextPolicy(actions, encoding, LogisticScorer(model, weights, gamma, floor)), gamma, floor,
        float(exploration_cost(final, values, rows.allowed)), best[1], len(arrived),
        _table(found), {p: float(e.effective_size) for p, e in found.items()},
        {p: float(e.mean_weight) for p, e in found.items()}, best[0],
        float(diagnostics.auc(played, rows.reward, one)), curve,
        float(expected_calibration_error(curve)), judgement,
        tuple(leaking_columns(with_hour(arrived), columns, np.asarray(rows.reward, float))),
    )  # fmt: skip


def audit(log: pd.DataFrame, *, ridge: float = 10.0) -> pd.DataFrame:
    """One row for each value of `generation`, in order: what its log looked like, what had changed.

    - reward (mean) with its 95 % interval; `negative_share`, `negatives`; `arrived`; `delay_hours`
      of high and of low rewards, where a reward_timestamp is given.
    - `entropy`: -mean log propensity over mean log K, 1 for uniform; `least_propensity`.
    - Against the generation before: `action_shift` and `context_shift` (total variation; of the
      column that moved most), `reward_shift`.
    - Of a model trained on the generation before alone: held-out `log_loss`, `auc`,
      `calibration_error`, `optimism` (predicted less observed reward), and its greedy policy's
      `greedy_dr` with interval and `overlap`, by the doubly robust estimator on this log.
    """
    actions = action_names(log)
    columns = context_columns(log)
    encoding = learn_encoding(with_hour(log), columns)
    most = int(np.max(log.groupby("generation").size().to_numpy()))
    before: tuple[pd.DataFrame, Rows] | None = None
    seen = []
    for name, part in log.groupby("generation", sort=True):
        arrived = with_reward(part)
        rows = to_rows(arrived, encoding, actions)
        line = {"generation": name, **_own_figures(part, arrived)}
        if before is not None and len(arrived) and len(before[0]):
            line |= _changes(before[0], arrived, columns)
            model = _model(encoding, actions, ridge)
            told = _of_previous_model(model, *(_padded(r, most) for r in (before[1], rows)))
            line |= {name: float(value) for name, value in told.items()}
        seen.append(line)
        before = arrived, rows
    return pd.DataFrame(seen)


def with_reward(log: pd.DataFrame) -> pd.DataFrame:
    """The rows whose reward has arrived, numbered anew."""
    return log.loc[log["reward"].notna().to_numpy()].reset_index(drop=True)


def context_columns(log: pd.DataFrame) -> list[str]:
    """All columns that have no other role, and the hour."""
    return [*(str(name) for name in log.columns if name not in ROLES), "hour"]


def action_names(log: pd.DataFrame) -> tuple[str, ...]:
    """All actions that were ever allowed, as text, sorted (numbers by value)."""
    names = {str(a) for allowed in log["allowed_actions"] for a in allowed}
    whole = all(name.lstrip("-").isdigit() for name in names)
    return tuple(sorted(names, key=(lambda n: (int(n), n)) if whole else None))  # pyright: ignore


def to_rows(log: pd.DataFrame, encoding: Encoding, actions: Sequence[str]) -> Rows:
    """The log as arrays. Raises `ValueError` for an action outside its row's set."""
    allowed = action_sets(log, actions)
    place = {name: k for k, name in enumerate(actions)}
    action = np.array([place.get(str(a), -1) for a in log["action"]], np.int32)
    outside = (action < 0) | ~allowed[np.arange(len(log)), action]
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"row {row}: action {log['action'].iloc[row]!r} is not among those allowed"
        )
    return Rows(
        encoding(with_hour(log)), jnp.asarray(allowed), jnp.asarray(action),
        jnp.asarray(log["propensity"].to_numpy(np.float32)),
        jnp.asarray(log["reward"].to_numpy(np.float32)), jnp.ones(len(log), jnp.float32),
    )  # fmt: skip


def cross_fit(model: CrossedLogistic, rows: Rows, fold: np.ndarray) -> Float[Array, "n k"]:
    """Predicted rewards of all actions, each row's from a model that did not see its fold."""
    held = np.zeros((len(fold), model.actions), np.float32)
    for f in np.unique(fold):
        out = fold == f
        weights = _fit(model, rows._replace(weight=jnp.where(jnp.asarray(out), 0.0, rows.weight)))
        held[out] = np.asarray(model.predict(weights, rows.features))[out]
    return jnp.asarray(held)


@jax.jit
def _fit(model: CrossedLogistic, rows: Rows) -> Weights:
    return model.fit(rows)


def _model(encoding: Encoding, actions: Sequence[Any], ridge: float) -> CrossedLogistic:
    return CrossedLogistic(
        encoding.sizes, len(encoding.scales), len(actions), jnp.float32(ridge), conjugate=30,
        tolerance=1e-7,
    )  # fmt: skip


def _next(values: Array, allowed: Array, gamma: float, floor: float) -> Array:
    return exploration.with_floor(exploration.inverse_gap(values, allowed, gamma), allowed, floor)


def _log_loss(values: Array, rows: Rows) -> Array:
    p = jnp.clip(values[jnp.arange(len(rows.action)), rows.action], 1e-6, 1 - 1e-6)
    loss = -(rows.reward * jnp.log(p) + (1 - rows.reward) * jnp.log1p(-p))
    return diagnostics.weighted_mean(loss, rows.weight)


def _evaluations(
    values: Array, rows: Rows, gamma: float, floor: float, key: Array, resamples: int
) -> dict[str, Evaluation]:
    n = jnp.arange(len(rows.action))
    targets = {
        "uniform": exploration.uniform(rows.allowed),
        "greedy": exploration.greedy(values, rows.allowed),
        "next": _next(values, rows.allowed, gamma, floor),
    }
    known = rows.reward, rows.propensity
    predicted = values[n, rows.action]
    run = jax.jit(
        lambda target, expected: evaluate(
            *known, target, predicted, expected, key=key, resamples=resamples
        )
    )
    # The logging policy's own rewards: every estimator is then the sample mean.
    found = {"logged": run(rows.propensity, predicted)}
    for name, p in targets.items():
        found[name] = run(p[n, rows.action], (p * values).sum(-1))
    return found


def _table(found: dict[str, Evaluation]) -> pd.DataFrame:
    lines = []
    for policy in POLICIES:
        # Of the policy that ran, the rewards themselves are the estimate.
        names = ("snips",) if policy == "logged" else ESTIMATORS
        for name in names:
            estimate: Estimate = getattr(found[policy], name)
            low, high = estimate.bootstrap or (np.nan, np.nan)
            numbers = (*estimate[:4], low, high)
            lines.append(
                (policy, "mean" if policy == "logged" else name, *(float(x) for x in numbers))
            )
    columns = ["policy", "estimator", "value", "error", "low", "high", "bootstrap_low",
               "bootstrap_high"]  # fmt: skip
    return pd.DataFrame(lines, columns=pd.Index(columns))


def _own_figures(part: pd.DataFrame, arrived: pd.DataFrame) -> dict[str, float]:
    reward = arrived["reward"].to_numpy(float)
    half = 1.96 * reward.std(ddof=1) / np.sqrt(len(reward)) if len(reward) > 1 else np.nan
    mean = float(reward.mean()) if len(reward) else np.nan
    low = reward < 0.5
    propensity = part["propensity"].to_numpy(float)
    sets = np.maximum(part["allowed_actions"].map(len).to_numpy(float), 2)
    line = {
        "rows": len(part), "arrived": len(arrived) / len(part), "reward": mean,
        "reward_low": mean - half, "reward_high": mean + half,
        "negative_share": float(low.mean()) if len(reward) else np.nan, "negatives": int(low.sum()),
        "entropy": float(-np.log(propensity).mean() / np.log(sets).mean()),
        "least_propensity": float(propensity.min()),
    }  # fmt: skip
    if "reward_timestamp" in arrived:
        waited = arrived["reward_timestamp"] - arrived["timestamp"]
        hours = waited.dt.total_seconds().to_numpy() / 3600
        for label, among in (("high", ~low), ("low", low)):
            line[f"delay_hours_{label}"] = float(hours[among].mean()) if among.any() else np.nan
    return line


def _changes(old: pd.DataFrame, new: pd.DataFrame, columns: Sequence[str]) -> dict[str, object]:
    old, new = with_hour(old), with_hour(new)
    shifts = {name: _variation(old[name], new[name]) for name in columns}
    most = max(shifts, key=lambda name: shifts[name])
    return {
        "reward_shift": float(np.mean(new["reward"]) - np.mean(old["reward"])),
        "action_shift": _variation(old["action"].map(str), new["action"].map(str)),
        "context_shift": shifts[most],
        "context_shift_in": most,
    }


def _variation(old: Any, new: Any) -> float:
    """Total variation of two samples; of numbers with many values, over the old one's deciles."""
    before, after = (np.asarray(pd.to_numeric(x, errors="coerce"), float) for x in (old, new))
    if np.isfinite(before).all() and len(np.unique(before)) > 30:
        edges = np.unique(np.quantile(before, np.linspace(0.1, 0.9, 9)))
        old, new = (pd.Series(np.searchsorted(edges, x)) for x in (before, after))
    shares = [x.value_counts(normalize=True) for x in (old, new)]
    return float(np.abs(shares[0].sub(shares[1], fill_value=0)).sum() / 2)


def _padded(rows: Rows, size: int) -> Rows:
    """The rows followed by void ones, so that logs of all lengths share one compiled program."""
    more = size - len(rows.action)

    def pad(x: Array, value: float = 0.0) -> Array:
        return jnp.pad(x, [(0, more), *[(0, 0)] * (x.ndim - 1)], constant_values=value)

    padded = jax.tree.map(pad, rows)
    return padded._replace(allowed=pad(rows.allowed, True), propensity=pad(rows.propensity, 1.0))


@jax.jit
def _of_previous_model(model: CrossedLogistic, old: Rows, new: Rows) -> dict[str, Array]:
    values = model.predict(model.fit(old), new.features)
    n, there = jnp.arange(len(new.action)), new.weight > 0
    played = values[n, new.action]
    greedy = exploration.greedy(values, new.allowed)
    found = evaluate(
        new.reward, new.propensity, greedy[n, new.action], played, (greedy * values).sum(-1),
        rows=there,
    )  # fmt: skip
    curve = calibration_curve(played, new.reward, new.weight, bins=10)
    return {
        "log_loss": _log_loss(values, new),
        "auc": diagnostics.auc(played, new.reward, new.weight),
        "calibration_error": expected_calibration_error(curve),
        "optimism": diagnostics.weighted_mean(played - new.reward, new.weight),
        "greedy_dr": found.dr.value,
        "greedy_dr_low": found.dr.low,
        "greedy_dr_high": found.dr.high,
        "overlap": found.effective_size / there.sum(),
    }
