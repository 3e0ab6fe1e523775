"""DynLin-UCB for a process that runs outside: it says what to do next and keeps itself as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from latebloom.core.checkpoint import write_atomically
from latebloom.core.interaction import Feedback, Sum, View
from latebloom.methods.bandits.dynamical_linear.optimistic import (
    Bounds,
    Held,
    Regression,
    dynlin_ucb,
)

_act = eqx.filter_jit(lambda policy, *seen: policy.act(*seen))
_learn = eqx.filter_jit(lambda policy, *seen: policy.learn(*seen))


class Advisor:
    """Says which action to hold next and for how many rounds, and learns from the last reward.

    `actions` [K, p] are those to choose from, `bounds` what is known of the system (see
    `exact_bounds`), `horizon` the rounds that will be played in all.

    Raises `ValueError` for actions that are not a table of finite numbers.
    """

    def __init__(
        self, actions: Float[np.ndarray, "k p"], bounds: Bounds, horizon: int, seed: int = 0
    ):
        self.actions = np.asarray(actions, float)
        if self.actions.ndim != 2 or not np.isfinite(self.actions).all():
            raise ValueError("actions must be a table of finite numbers, one row an action")
        self.bounds, self.horizon, self.seed = bounds, horizon, seed
        self.policy = dynlin_ucb(self.actions.shape, bounds, horizon)
        self.state: Held = self.policy.init(jax.random.key(seed))
        self.round = 0
        self.chosen: int | None = None

    def advise(self) -> tuple[np.ndarray, int]:
        """The action to take and the number of rounds to hold it.

        Asked again before `tell`, it says the same. Raises `ValueError` after the horizon.
        """
        if self.round >= self.horizon:
            raise ValueError(f"all {self.horizon} rounds are over: start again with a longer horizon")  # fmt: skip
        self.chosen, hold = self._decide()
        return self.actions[self.chosen], hold

    def _decide(self) -> tuple[int, int]:
        view = View(jnp.asarray(self.actions, float), jnp.ones(len(self.actions), bool))
        key = jax.random.key(self.seed)
        decision = _act(self.policy, self.state, view, jnp.int32(self.round), key)
        return int(decision.action), int(decision.hold)

    def tell(self, reward: float) -> None:
        """The reward of the last round that the advised action was held.

        Raises `ValueError` for a reward that is no finite number or for which no advice was asked.
        """
        if self.chosen is None:
            raise ValueError(
                "there is no action to which this reward belongs: ask for advice first"
            )
        if not np.isfinite(reward):
            raise ValueError(f"a reward must be a finite number, not {reward}")
        action, hold = self._decide()
        row = Feedback(
            jnp.asarray(self.actions[None], float), jnp.ones((1, len(self.actions)), bool), jnp.array([action], jnp.int32),
            jnp.ones(1), jnp.array([reward], float), jnp.array([self.round], jnp.int32),
            jnp.array([True]),
        )  # fmt: skip
        learned = _learn(self.policy, self.state, row)
        self.state = learned._replace(epoch=learned.epoch + 1)
        self.round, self.chosen = self.round + hold, None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that is needed to go on into a JSON file."""
        gram, moment = self.state.regression
        content = {
            "actions": self.actions.tolist(),
            "bounds": asdict(self.bounds),
            "horizon": self.horizon,
            "seed": self.seed,
            "round": self.round,
            "chosen": self.chosen,
            "epoch": int(self.state.epoch),
            "sums": [np.asarray(x).tolist() for x in (*gram, *moment)],
        }
        write_atomically(Path(path), (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Advisor:
        """Go on from a file that `save` wrote. Raises `ValueError` for any other."""
        try:
            content = json.loads(Path(path).read_text())
            bounds = Bounds(**content["bounds"])
            advisor = cls(content["actions"], bounds, content["horizon"], content["seed"])
            sums = [jnp.asarray(x, float) for x in content["sums"]]
            regression = Regression(Sum(*sums[:2]), Sum(*sums[2:]))
            advisor.state = Held(regression, advisor.state.first, jnp.int32(content["epoch"]))
            advisor.round, advisor.chosen = int(content["round"]), content["chosen"]
        except (KeyError, TypeError, OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a saved advisor ({error})") from None
        return advisor
