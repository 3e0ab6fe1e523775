"""From a table of spends and outcomes to a system, what each channel returns, and an action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from latebloom.methods.bandits.dynamical_linear.identification import (
    Design,
    Identified,
    Method,
    design,
    identify,
    steady_gain,
)

MOST_LAGS = {"fir": 24, "arx": 12, "predictor": 12}
ROWS_PER_UNKNOWN = 3
MOST_ACTIONS = 20_000
MOST_INFLATION = 500  # of a response's variance, for what other channels explain of a channel


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What a record of spends and outcomes says.

    - `identified`: the system, its order and the Hankel singular values.
    - `channels`: per channel the reward of a unit in its own period (`at_once`), in the long run
      (`response`, with `low` and `high`, 95 %), and the share of it that comes `later`.
    - `impulse`: reward of one unit of each channel, `lag` periods later, by the identified system
      and straight from the regression.
    - `actions`: candidates, best first: steady reward beyond that of the mean spend (`gain`, with
      `low` and `high`), its reward in the first period (`gain_at_once`), and how often it came out
      best in the bootstrap.
    - `fit`: periods, observed reward, one-step fit, and what the spends alone explain.
    - `memory`: periods until a hundredth of an effect is left; infinite if the system is unstable.
    - `carried`: periods until the regression has forgotten a past outcome down to a hundredth; 0
      with "fir". What is of the record's own length is a drift of the outcomes, not a memory.
    - `replicates`: bootstrap draws of the response [draws, channels]; `unstable`: how many systems
      among them were.
    """

    identified: Identified
    channels: pd.DataFrame
    impulse: pd.DataFrame
    actions: pd.DataFrame
    fit: pd.DataFrame
    memory: float
    carried: float
    replicates: np.ndarray
    unstable: int

    @property
    def best(self) -> dict[str, float]:
        """The recommended action, by channel."""
        return {str(name): float(self.actions[name].iloc[0]) for name in self.channels["channel"]}


def budget_grid(
    budget: float, caps: Float[np.ndarray, " p"], parts: int
) -> Float[np.ndarray, "k p"]:
    """All ways to share a budget in steps of budget / `parts`, no channel above its cap.

    Raises `ValueError` where there is none, or where there are more than 20,000.
    """
    step = budget / parts
    most = np.floor(np.asarray(caps) / step + 1e-9).astype(int)
    splits = np.zeros((1, 0), int)
    for channel, cap in enumerate(most):
        room = int(most[channel + 1 :].sum())
        taken = np.repeat(np.arange(cap + 1), len(splits))
        splits = np.column_stack([np.tile(splits, (cap + 1, 1)), taken])
        left = parts - splits.sum(1)
        splits = splits[(left >= 0) & (left <= room)]
        if len(splits) > MOST_ACTIONS:
            raise ValueError(
                f"a budget in {parts} parts over {len(most)} channels makes more than"
                f" {MOST_ACTIONS:,} actions: give fewer parts, or a list of actions"
            )
    if not len(splits):
        raise ValueError(
            f"the caps ({', '.join(f'{c:g}' for c in caps)}) leave no way to spend {budget:g} in"
            f" {parts} parts: raise them, lower the budget or give more parts"
        )
    return splits * step


def recommend(
    table: pd.DataFrame, spend: Sequence[str], outcomes: Sequence[str], *,
    weights: Sequence[float] | None = None, candidates: pd.DataFrame | None = None,
    budget: float | None = None, caps: Sequence[float] | None = None, parts: int = 10,
    method: Method = "arx", lags: int | None = None, order: int | None = None,
    ridge: float = 0.0, season: int = 1, trend: bool = True, replicates: int = 300, seed: int = 0,
    say: Callable[[str, float | None], None] = lambda what, share: None,
) -> Recommendation:  # fmt: skip
    """Identify the system behind a record and recommend the action of the largest steady reward.

    **Arguments:**

    - `table`: one row a period, equally spaced, oldest first; `spend`, `outcomes`: its columns.
    - `weights`: what a unit of each outcome is worth; 1 unless given.
    - `candidates`: actions to choose from, columns as `spend`. Without it, `budget` (the mean of
      the past unless given) is shared out in `parts`, no channel above its cap (the largest spend
      of the past unless given).
    - `method`, `lags` (see `generous_lags`), `order` (where the Hankel singular values drop unless
      given), `ridge`, `season`, `trend`: see `identify`. Without a trend term, growth
      of any other cause is credited to the spends.
    - `replicates`: moving-block bootstrap draws behind all intervals.

    The response comes straight from the regression, so that no order has to be right for it; the
    identified system gives the impulse responses and the memory. Linear in spends: it knows no
    saturation, and is to be trusted within what was spent in the past.

    Raises `ValueError` for a channel or an outcome that never changes, channels or outcomes that are
    a sum of others (or nearly), values that are not finite, settings out of range, and records too
    short.
    """
    inputs, outputs = table[list(spend)].to_numpy(float), table[list(outcomes)].to_numpy(float)
    worth = np.ones(len(outcomes)) if weights is None else np.asarray(weights, float)
    _check(inputs, outputs, spend, outcomes, worth)
    if lags is None:
        size = len(inputs), len(spend), len(outcomes)
        lags = generous_lags(*size, method, season=season, trend=trend)
    say(f"fitting {lags} lags", None)
    found = identify(inputs, outputs, lags=lags, method=method, order=order, ridge=ridge, season=season, trend=trend)  # fmt: skip
    in_unit, out_unit = inputs.std(0), outputs.std(0)
    made = design(inputs / in_unit, outputs / out_unit, lags, method, season=season, trend=trend)
    own = _own_radius(made, made.coefficients(ridge))
    drawn, unstable = _bootstrap(made, ridge, replicates, seed, say)
    draws = out_unit[:, None] * drawn / in_unit
    responses = np.einsum("m,rmp->rp", worth, draws)
    actions = (
        candidates[list(spend)].to_numpy(float)
        if candidates is not None
        else budget_grid(
            float(inputs.sum(1).mean()) if budget is None else budget,
            inputs.max(0) if caps is None else np.asarray(caps, float),
            parts,
        )
    )
    response, at_once = worth @ found.gain, worth @ found.system.D
    low, high = np.percentile(responses, [2.5, 97.5], axis=0)
    channels = pd.DataFrame({
        "channel": list(spend), "at_once": at_once, "response": response, "low": low,
        "high": high, "later": 1 - at_once / response,
        "system_response": worth @ _steady(found.system),
    })  # fmt: skip
    length = int(np.clip(np.ceil(min(found.system.memory, 60)), 6, 60))
    impulse = pd.DataFrame({
        "lag": np.tile(np.arange(length + 1), len(spend)),
        "channel": np.repeat(list(spend), length + 1),
        "system": (worth @ found.system.markov_parameters(length)).T.ravel(),
        "regression": (worth @ found.impulse[: length + 1]).T.ravel(),
    })  # fmt: skip
    return Recommendation(
        identified=found,
        channels=channels,
        impulse=impulse,
        actions=_ranked(actions, inputs.mean(0), response, at_once, responses, spend),
        fit=_fit(inputs, outputs, found, worth, season, trend),
        memory=found.system.memory,
        carried=0.0 if own == 0 else np.inf if own >= 1 else float(np.log(1e-2) / np.log(own)),
        replicates=responses,
        unstable=unstable,
    )


def _steady(system: Any) -> np.ndarray:
    return system.D + system.C @ np.linalg.solve(np.eye(len(system.A)) - system.A, system.B)


def generous_lags(
    periods: int,
    channels: int,
    outcomes: int,
    method: Method = "arx",
    *,
    season: int = 1,
    trend: bool = False,
) -> int:
    """As many lags, up to 12 (24 with "fir"), as leave three rows for each unknown.

    Too few lags bias the long-run response, which no interval shows; too many only widen it. So the
    lags are not chosen by an information criterion, which would take too few.
    """
    for lags in range(MOST_LAGS[method], 1, -1):
        own = 0 if method == "fir" else outcomes * lags
        if periods - lags >= ROWS_PER_UNKNOWN * (channels * (lags + 1) + own + season + trend):
            return lags
    raise ValueError(
        f"{periods} periods are too few for {channels} channels and {outcomes} outcomes: give more"
        " periods, or add channels up"
    )


def _check(
    inputs: np.ndarray, outputs: np.ndarray, spend: Sequence[str], outcomes: Sequence[str],
    worth: np.ndarray,
) -> None:  # fmt: skip
    if not np.isfinite(worth).all():
        raise ValueError(f"weights must be finite, not {worth.tolist()}")
    if len(worth) != len(outcomes):
        raise ValueError(f"there are {len(outcomes)} outcomes but {len(worth)} weights")
    for values, names in ((inputs, spend), (outputs, outcomes)):
        for name, spread in zip(names, np.ptp(values, axis=0), strict=True):
            if not np.isfinite(spread):
                raise ValueError(f"column {name!r} holds a value that is not finite")
            if spread == 0:
                raise ValueError(
                    f"column {name!r} never changes: nothing can be learned from it; leave it out"
                )
    for values, names in ((inputs, spend), (outputs, outcomes)):
        _check_apart(values, names)


def _check_apart(values: np.ndarray, names: Sequence[str]) -> None:
    """No column may be a linear combination of the others, such as their sum, or nearly one."""
    x = (values - values.mean(0)) / values.std(0)
    close = np.abs(np.corrcoef(x.T) - np.eye(len(names))) if len(names) > 1 else np.zeros((1, 1))
    a, b = divmod(int(close.argmax()), len(names))
    if close.max() > 0.999:
        raise ValueError(
            f"columns {names[a]!r} and {names[b]!r} move together (correlation"
            f" {close.max():.4f}): their effects cannot be told apart; add them up or leave one out"
        )
    for i, name in enumerate(names):
        others = np.delete(x, i, axis=1)
        made = np.linalg.lstsq(others, x[:, i], rcond=None)[0]
        if np.mean((x[:, i] - others @ made) ** 2) < 1 / MOST_INFLATION:
            parts = [repr(str(n)) for n, c in zip(np.delete(np.array(names, object), i), made, strict=True)
                     if abs(c) > 0.01]  # fmt: skip
            raise ValueError(
                f"column {name!r} is a combination of {', '.join(parts)}, like a sum of them: what it"
                " brings cannot be told from what they bring; leave one of them out"
            )


def _bootstrap(
    made: Design, ridge: float, replicates: int, seed: int,
    say: Callable[[str, float | None], None],
) -> tuple[np.ndarray, int]:  # fmt: skip
    """Steady gains [replicates, m, p] of regressions on moving blocks of rows, stable ones only."""
    rng, rows = np.random.default_rng(seed), len(made.columns)
    block = min(rows, max(2 * made.lags, int(np.ceil(rows ** (1 / 3)))))
    gains, unstable = [], 0
    for i in range(replicates):
        starts = rng.integers(0, rows - block + 1, -(-rows // block))
        chosen = (starts[:, None] + np.arange(block)).ravel()[:rows]
        coefficients = made.resampled(chosen, ridge)
        if _is_stable(made, coefficients):
            gains.append(steady_gain(made, coefficients))
        else:
            unstable += 1
        if i % 10 == 0:
            say("bootstrap", i / replicates)
    if not gains:
        raise ValueError(
            "the record looks unstable: every refit grows without bound; look for a trend in the"
            " outcomes and take it out, or use method fir"
        )
    return np.array(gains), unstable


def _is_stable(made: Design, coefficients: np.ndarray) -> bool:
    """Whether the regression, run forward on its own outputs, dies out."""
    return _own_radius(made, coefficients) < 1


def _own_radius(made: Design, coefficients: np.ndarray) -> float:
    """The largest |eigenvalue| of the regression run forward on its own outputs."""
    m = made.outputs.shape[1]
    if made.method == "fir":
        return 0.0
    own = coefficients[made.inputs * (made.lags + 1) : made.lagged]
    companion = np.eye(m * made.lags, k=-m)
    companion[:m] = own.T
    return float(np.abs(np.linalg.eigvals(companion)).max())


def _ranked(
    actions: np.ndarray, past: np.ndarray, response: np.ndarray, at_once: np.ndarray,
    responses: np.ndarray, spend: Sequence[str],
) -> pd.DataFrame:  # fmt: skip
    drawn = responses @ (actions - past).T
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    best = np.bincount(drawn.argmax(1), minlength=len(actions)) / len(drawn)
    table = pd.DataFrame(actions, columns=list(spend)).assign(
        gain=(actions - past) @ response, low=low, high=high,
        gain_at_once=(actions - past) @ at_once, best_in=best,
    )  # fmt: skip
    return table.sort_values("gain", ascending=False, kind="stable", ignore_index=True)


def _fit(
    inputs: np.ndarray,
    outputs: np.ndarray,
    found: Identified,
    worth: np.ndarray,
    season: int,
    trend: bool,
) -> pd.DataFrame:
    driven = np.full(len(inputs), np.nan)
    if found.system.spectral_radius < 1:
        driven = found.system.simulate(inputs - inputs.mean(0)) @ worth
        columns = np.eye(season)[np.arange(len(inputs)) % season]
        if trend:
            columns = np.column_stack([columns, np.linspace(-1, 1, len(inputs))])
        rest = outputs @ worth - driven
        driven = driven + columns @ np.linalg.lstsq(columns, rest, rcond=None)[0]
    fitted = np.full(len(inputs), np.nan)
    fitted[found.lags :] = found.fitted @ worth
    return pd.DataFrame({
        "period": np.arange(len(inputs)), "observed": outputs @ worth, "fitted": fitted,
        "from_spend": driven,
    })  # fmt: skip
