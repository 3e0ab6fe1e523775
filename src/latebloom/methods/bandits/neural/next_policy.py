"""The next policy from a table: from a bandit log with propensities, or from labels, by simulation.

A `NextPolicy` gives action probabilities for contexts, learns from more rows, and can be saved.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.checkpoint import DamagedFile, is_key, load_arrays, save_arrays
from latebloom.core.interaction import Interaction
from latebloom.methods.bandits import off_policy
from latebloom.methods.bandits.neural.linear import LinearRegression
from latebloom.methods.bandits.neural.network import ArmNetwork
from latebloom.methods.bandits.neural.policy import OraclePolicy, Tally
from latebloom.methods.bandits.neural.regression import (
    Memory,
    NeuralRegression,
    Perturbation,
    Replay,
)
from latebloom.methods.bandits.neural.rules import InverseGap, SmallLossInverseGap
from latebloom.methods.bandits.neural.worlds import ClassificationBandit

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Settings:
    """What the next policy is made of.

    - `oracle`: "neural" or "linear" regression of the loss 1 - reward.
    - `explore`: "fastcb" (KL loss; explores little where losses are small) or "squarecb".
    - `gamma`, `growth`: γ_t = gamma t^growth after t rounds; larger explores less.
    - `rate`, `hidden`, `strength`, `draws`: of the network, its descent and its perturbation.
    - `steps`: of each training on what was seen. `ridge`: of the linear oracle.

    Raises `ValueError` for values that make no sense.
    """

    oracle: Literal["neural", "linear"] = "neural"
    explore: Literal["fastcb", "squarecb"] = "fastcb"
    gamma: float = 30.0
    growth: float = 0.5
    rate: float = 0.5
    hidden: int = 50
    strength: float = 0.001
    draws: int = 8
    steps: int = 500
    ridge: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.oracle not in ("neural", "linear"):
            raise ValueError(f"oracle must be 'neural' or 'linear', not {self.oracle!r}")
        if self.explore not in ("fastcb", "squarecb"):
            raise ValueError(f"explore must be 'fastcb' or 'squarecb', not {self.explore!r}")
        for name in ("gamma", "rate", "hidden", "draws", "steps", "ridge"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


class Scaling(NamedTuple):
    """How raw features become contexts of length one."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Scaling:
        spread = x.std(0)
        return cls(x.mean(0), np.where(spread > 0, spread, 1.0))

    def __call__(self, x: np.ndarray) -> Float[Array, "n d"]:
        x = np.concatenate([(x - self.mean) / self.spread, np.ones((len(x), 1))], axis=1)
        return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32)


def make_policy(settings: Settings, actions: int, inputs: int, capacity: int) -> OraclePolicy:
    """The policy that the settings describe; `capacity`: rounds that a network remembers."""
    fast = settings.explore == "fastcb"
    loss = "kl" if fast else "square"
    if settings.oracle == "linear":
        oracle = LinearRegression(actions, inputs, settings.ridge, loss)
    else:
        network = ArmNetwork(actions, inputs, (settings.hidden,), scale=0.2)
        perturbation = Perturbation(settings.draws, settings.strength)
        replay = Replay(capacity, settings.steps)
        oracle = NeuralRegression(network, loss, settings.rate, 0.0, perturbation, replay)
    rule = SmallLossInverseGap if fast else InverseGap
    return OraclePolicy(oracle, rule(settings.gamma, settings.growth))


class NextPolicy:
    """A policy with what it has learned. `actions` are their names, in the order of probabilities."""

    def __init__(self, settings: Settings, actions: Sequence[Any], scaling: Scaling, capacity: int):
        self.settings, self.actions, self.scaling = settings, tuple(actions), scaling
        self.capacity, self.rounds = capacity, 0
        inputs = len(scaling.mean) + 1
        self.policy = make_policy(settings, len(self.actions), inputs, capacity)
        self.state = self.policy.oracle.init(jax.random.key(settings.seed))

    def predict_proba(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Action probabilities for raw features."""
        return np.asarray(self._decide(x)[0], np.float64)

    def predict(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Expected rewards for raw features, within [0, 1]."""
        return 1 - np.clip(np.asarray(self._decide(x)[1], np.float64), 0.0, 1.0)

    def _decide(self, x: np.ndarray) -> tuple[Array, Array]:
        allowed, round = jnp.ones(len(self.actions), bool), jnp.int32(self.rounds)
        return _decide(self.policy, self.state, self.scaling(x), allowed, round)

    def update(
        self, x: Float[np.ndarray, "n d"], action: Int[np.ndarray, " n"],
        reward: Float[np.ndarray, " n"],
    ) -> None:  # fmt: skip
        """Learn from more rows: `action` are positions in `actions`, rewards are in [0, 1].

        Raises `ValueError` for actions and rewards outside.
        """
        if len(action) and not (0 <= action.min() and action.max() < len(self.actions)):
            raise ValueError(f"actions must be positions 0 .. {len(self.actions) - 1}")
        if len(reward) and not (0 <= reward.min() and reward.max() <= 1):
            raise ValueError("rewards must be in [0, 1]: scale them")
        rows = Memory(
            self.scaling(x), jnp.asarray(action, jnp.int32), jnp.asarray(1 - reward, jnp.float32)
        )
        learn = _refit if self.settings.oracle == "neural" else _learn_each
        self.state = learn(self.policy.oracle, self.state, rows)
        self.rounds += len(action)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything needed to go on into one file."""
        leaves = {f"state/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(self.state))}
        note = {
            "settings": asdict(self.settings), "actions": [str(a) for a in self.actions],
            "capacity": self.capacity, "rounds": self.rounds,
            "mean": self.scaling.mean.tolist(), "spread": self.scaling.spread.tolist(),
        }  # fmt: skip
        save_arrays(Path(path), leaves, note)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NextPolicy:
        """The policy that was saved; names of actions come back as text.

        Raises `ValueError` for a file that is none.
        """
        try:
            leaves, note = load_arrays(Path(path))
            scaling = Scaling(np.array(note["mean"]), np.array(note["spread"]))
            found = cls(Settings(**note["settings"]), note["actions"], scaling, note["capacity"])
        except (DamagedFile, KeyError, TypeError, OSError) as error:
            raise ValueError(f"{path} is not a saved policy ({error})") from None
        tree = jax.tree.structure(found.state)
        like = jax.tree.leaves(found.state)
        parts = [leaves[f"state/{i}"] for i in range(tree.num_leaves)]
        found.state = jax.tree.unflatten(
            tree, [p if is_key(v) else jnp.asarray(p) for p, v in zip(parts, like, strict=True)]
        )
        found.rounds = note["rounds"]
        return found


@eqx.filter_jit
def _decide(policy: OraclePolicy, state: Any, x: Array, allowed: Array, round: Array) -> Any:
    return jax.lax.map(
        lambda row: policy.probabilities(state, row, allowed, round), x, batch_size=256
    )


@eqx.filter_jit
def _learn_each(oracle: Any, state: Any, rows: Memory) -> Any:
    return jax.lax.scan(lambda s, row: (oracle.learn(s, *row), None), state, rows)[0]


@eqx.filter_jit
def _refit(oracle: NeuralRegression, state: Any, rows: Memory) -> Any:
    state = jax.lax.scan(lambda s, row: (oracle.remember(s, *row), None), state, rows)[0]
    key, train = jax.random.split(state.key)
    weights, draws = oracle.refit(state, train)
    return state._replace(weights=weights, draws=draws, key=key)


@dataclass(frozen=True)
class Learned:
    """A policy learned from the first rows of a log, judged on the rest.

    - `probabilities` [n, k] of all rows, `expected` rewards [n, k].
    - `trained`: number of rows learned from.
    - `value`: off-policy estimates on the other rows; `logged`: the mean reward of the policy that
      wrote the log, on the same rows; `gain`: IPS value minus `logged`, row by row.
    """

    policy: NextPolicy
    probabilities: np.ndarray
    expected: np.ndarray
    trained: int
    value: off_policy.Evaluation
    logged: off_policy.Estimate
    gain: off_policy.Estimate


def learn_from_log(
    x: Float[np.ndarray, "n d"], action: Int[np.ndarray, " n"], reward: Float[np.ndarray, " n"],
    propensity: Float[np.ndarray, " n"], actions: Sequence[Any], settings: Settings | None = None,
    train_share: float = 0.5,
) -> Learned:  # fmt: skip
    """Learn the next policy from the first `train_share` of a log and estimate its value on the rest.

    `action` are positions in `actions`; rewards are in [0, 1]. A neural oracle makes at least 20
    passes over the rows.

    Raises `ValueError` where a part would be empty, or values are out of range.
    """
    n, settings = len(action), settings or Settings()
    trained = round(n * train_share)
    if not 0 < trained < n:
        raise ValueError(f"train_share {train_share:g} of {n} rows leaves a part empty")
    steps = max(settings.steps, 20 * trained)
    policy = NextPolicy(
        Settings(**{**asdict(settings), "steps": steps}), actions, Scaling.of(x[:trained]), n
    )
    policy.update(x[:trained], action[:trained], reward[:trained])
    p, expected = policy.predict_proba(x), policy.predict(x)
    test = np.arange(trained, n)
    target, predicted = p[test, action[test]], expected[test, action[test]]
    r, b = reward[test], propensity[test]
    value = off_policy.evaluate(
        r, b, target, predicted, (p * expected)[test].sum(1), key=jax.random.key(settings.seed)
    )
    ones = jnp.ones(len(test))
    logged = off_policy.ratio(jnp.asarray(r), ones)
    gain = off_policy.ratio(jnp.asarray(target / b * r - r), ones)
    return Learned(policy, p, expected, trained, value, logged, gain)


@dataclass(frozen=True)
class Simulated:
    """A labelled table played as a bandit.

    - `rounds` [t]; `mistakes`, `explored` [seed, t]: cumulative.
    - `counts`, `predicted`, `observed` [bin]: losses of played actions by bins of the prediction,
      summed over seeds.
    - `policy`: after the first seed's last round; `probabilities` [n, k] of it.
    """

    policy: NextPolicy
    probabilities: np.ndarray
    rounds: np.ndarray
    mistakes: np.ndarray
    explored: np.ndarray
    counts: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray


def simulate(
    x: Float[np.ndarray, "n d"], label: Int[np.ndarray, " n"], actions: Sequence[Any],
    settings: Settings | None = None, seeds: int = 3, shuffle: bool = True, looks: int = 40,
    progress: Progress = lambda what, share: None,
) -> Simulated:  # fmt: skip
    """Play each row of a labelled table once: naming the row's label earns 1, else 0.

    `label` are positions in `actions`. Every seed has its own order of the rows (with `shuffle`) and
    its own initial network; features are scaled by the whole table.

    Raises `ValueError` for no rows or seeds, and labels that are no action.
    """
    if len(x) < 1 or seeds < 1:
        raise ValueError(f"there must be rows and seeds, not {len(x)} and {seeds}")
    settings = settings or Settings()
    found = NextPolicy(settings, actions, Scaling.of(x), len(x))
    zeros = np.zeros(len(x), np.int32)
    world = ClassificationBandit(
        len(actions), found.scaling(x), jnp.asarray(label, jnp.int32), jnp.asarray(zeros),
        shuffle=shuffle,
    )  # fmt: skip
    play = Interaction(world, found.policy)
    rounds = np.unique(np.linspace(0, len(x), looks + 1).round().astype(int))
    tallies, mistakes, explored = [], np.zeros((seeds, len(rounds))), np.zeros((seeds, len(rounds)))
    for seed in range(seeds):
        state = _begin(play, jax.random.key(settings.seed + seed))
        for i in range(1, len(rounds)):
            state = _play(play, state, jnp.int32(rounds[i] - rounds[i - 1]))
            mistakes[seed, i], explored[seed, i] = state.regret.value, state.policy[1].explored
            progress(f"playing, seed {seed}", (seed + i / (len(rounds) - 1)) / seeds)
        if seed == 0:
            found.state, found.rounds = state.policy[0], len(x)
        tallies.append(state.policy[1])
    total: Tally = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *tallies)
    return Simulated(
        found, found.predict_proba(x), rounds, mistakes, explored, np.asarray(total.counts),
        np.asarray(total.predicted), np.asarray(total.observed),
    )  # fmt: skip


@eqx.filter_jit
def _begin(play: Interaction, key: PRNGKeyArray) -> Any:
    return play.init(key)


@eqx.filter_jit
def _play(play: Interaction, state: Any, rounds: Array) -> Any:
    return jax.lax.fori_loop(0, rounds, lambda _, s: play.step(s), state)
