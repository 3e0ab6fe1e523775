"""Off-policy estimates on the Open Bandit logs, next to what the policy in question really earned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from latebloom.core.process import HostProcess, Quantity
from latebloom.methods.bandits.off_policy import NORMAL, Evaluation, evaluate


class Comparison(NamedTuple):
    """Estimates of a policy from another's log, and its own mean reward with its standard error."""

    estimates: Evaluation
    on_policy: float
    on_policy_error: float

    def covered(self, estimator: str) -> bool:
        """Whether the 95 % interval of estimate less own mean holds 0."""
        estimate = getattr(self.estimates, estimator)
        gap = float(estimate.value) - self.on_policy
        return abs(gap) <= NORMAL * np.hypot(float(estimate.error), self.on_policy_error)


def compare(logged: pd.DataFrame, own: pd.DataFrame, *, prior: float = 50.0) -> Comparison:
    """Value the policy that wrote the log `own` from the log `logged` of another policy.

    Both have the columns action, position, reward, propensity. The policy in question sees no context
    but the position, and moves with time: it is taken as its own frequencies of actions at each
    position. The model of DR is the click rate of each action in the other half of `logged`, drawn
    to the mean by `prior` rows.
    """
    counts = pd.crosstab(own["position"], own["action"])
    actions = sorted(set(logged["action"]) | set(own["action"]))
    frequency = counts.div(counts.sum(axis=1), axis=0).reindex(columns=actions, fill_value=0.0)
    positions = frequency.index.get_indexer(pd.Index(logged["position"]))
    if (positions < 0).any():
        missing = logged["position"].to_numpy()[positions < 0][0]
        raise ValueError(f"position {missing} is in the one log but not in the other")
    policy = frequency.to_numpy()[positions]
    action = np.searchsorted(actions, logged["action"].to_numpy())
    reward = logged["reward"].to_numpy(float)
    values = _rates(action, reward, len(actions), prior)
    rows = np.arange(len(logged))
    estimates = evaluate(
        _float(reward), _float(logged["propensity"]), _float(policy[rows, action]),
        _float(values[rows, action]), _float((policy * values).sum(1)),
    )  # fmt: skip
    clicks = own["reward"].to_numpy(float)
    error = clicks.std(ddof=1) / np.sqrt(len(clicks))
    return Comparison(estimates, float(clicks.mean()), float(error))


def _rates(action: np.ndarray, reward: np.ndarray, actions: int, prior: float) -> np.ndarray:
    """Mean reward of each action in the other half (odd or even rows), shrunk to the mean, [n, K]."""
    half = np.arange(len(action)) % 2
    rates = np.zeros((2, actions))
    for h in (0, 1):
        other = half != h
        count = np.bincount(action[other], minlength=actions)
        total = np.bincount(action[other], reward[other], minlength=actions)
        rates[h] = (total + prior * reward[other].mean()) / (count + prior)
    return rates[half]


def _float(values: Any) -> Any:
    return jnp.asarray(np.asarray(values), jnp.float32)


class OpenBanditCheck(HostProcess):
    """One step is one campaign: a policy's value from the uniform log against its own click rate.

    - `logs`: for each campaign the uniform log and the policy's own.
    - `parts`: each seed takes every `parts`-th row, so that seeds are disjoint; a seed beyond them
      has nothing to say (NaN).
    """

    def __init__(self, logs: Mapping[str, Sequence[pd.DataFrame]], parts: int = 8):
        self.logs, self.parts = dict(logs), parts

    def init(self, seed: int) -> tuple[int, int]:
        return seed, 0

    def step(self, state: tuple[int, int]) -> tuple[int, int]:
        return state[0], state[1] + 1

    def observe(self, state: tuple[int, int]) -> dict[str, Any]:
        seed, step = state
        names = ("ips", "snips", "dr")
        if seed >= self.parts or not 1 <= step <= len(self.logs):
            return dict.fromkeys(self.quantities(), np.float32(np.nan))
        uniform, own = (log.iloc[seed :: self.parts] for log in list(self.logs.values())[step - 1])
        found = compare(uniform, own)
        seen = {f"{n}_value": np.float32(getattr(found.estimates, n).value) for n in names}
        seen |= {f"{n}_error": np.float32(getattr(found.estimates, n).error) for n in names}
        seen |= {f"{n}_covered": np.float32(found.covered(n)) for n in names}
        return seen | {
            "on_policy": np.float32(found.on_policy),
            "on_policy_error": np.float32(found.on_policy_error),
            "effective_size": np.float32(found.estimates.effective_size),
        }

    def quantities(self) -> dict[str, Quantity]:
        clicks = Quantity("clicks a recommendation", gaps=True)
        names = [f"{n}_{what}" for n in ("ips", "snips", "dr") for what in ("value", "error")]
        shown = {name: clicks for name in (*names, "on_policy", "on_policy_error")}
        covered = {f"{n}_covered": Quantity(gaps=True) for n in ("ips", "snips", "dr")}
        return shown | covered | {"effective_size": Quantity("rows", gaps=True)}
