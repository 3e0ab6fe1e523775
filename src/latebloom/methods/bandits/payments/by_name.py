"""Rules and learners by name. Those that differ in numbers alone share a program."""

from __future__ import annotations

import jax.numpy as jnp

from latebloom.methods.bandits.exploration import unplayed
from latebloom.methods.bandits.payments import learners, resampling, rules
from latebloom.methods.bandits.payments.model import CrossedLogistic

RULES = ("uniform", "greedy", "epsilon", "softmax", "squarecb", "fastcb", "falcon", "floored")
BALANCES = ("none", "share", "count")


def rule(name: str, strength: float, floor: float = 0.1) -> rules.Rule:
    """A rule; `strength` is its ε, temperature, γ, complexity or, of "optimism", width.

    "floored" is SquareCB with `floor` of the traffic uniform. "optimism" and "draw" go with learners
    that tell widths or make draws.

    Raises `ValueError` for another name, and for a strength that the rule does not take.
    """
    if name == "optimism":
        return rules.UpperBound(strength)
    if name == "draw":
        return rules.OneDraw()
    if name not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, optimism, draw: {name}")
    kinds = (rules.EpsilonGreedy, rules.Softmax, rules.SquareCB, rules.FastCB, rules.Falcon)
    if RULES.index(name) >= 2:
        (*kinds, rules.SquareCB)[RULES.index(name) - 2](strength)
    choices = (
        rules.Uniform(), rules.Greedy(), *(unplayed(kind(), strength) for kind in kinds),
        rules.Floored(unplayed(rules.SquareCB(), strength), floor),
    )  # fmt: skip
    return rules.Picked(choices, jnp.int32(RULES.index(name)))


def learner(
    name: str, model: CrossedLogistic, *, strength: float = 0.0, members: int = 0,
    balance: str = "none", balance_level: float = 0.15,
) -> learners.Learner:  # fmt: skip
    """A learner of a model: "supervised", "calibrated", "bootstrapped" or "laplace".

    - `members`: of the bootstrap, or draws of the Laplace posterior, whose spread is `strength`.
    - `balance`: the supervised one trains on a "share" of negatives, or a "count" of them,
      `balance_level`.

    Raises `ValueError` for another name or balance.
    """
    if name == "calibrated":
        return learners.Calibrated(model)
    if name == "bootstrapped":
        return learners.Bootstrapped(model, members=members)
    if name == "laplace":
        return learners.Laplace(model, spread=strength, members=members)
    if name != "supervised" or balance not in BALANCES:
        raise ValueError(f"there is no learner {name!r} with balance {balance!r}")
    choices = (
        resampling.EveryRow(), resampling.NegativeShare(balance_level),
        resampling.NegativeCount(balance_level),
    )  # fmt: skip
    place = jnp.int32(BALANCES.index(balance))
    return learners.Supervised(model, resampling.PickedSelection(choices, place))
