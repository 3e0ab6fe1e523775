"""The next policy from a table: from a bandit log with propensities, or from labels, by simulation.

An `OnlinePolicy` gives action probabilities for arrays of contexts, learns from more rows, and can be
saved; as the scorer of a `latebloom.methods.bandits.next_policy.NextPolicy` it takes tables.
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
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.checkpoint import DamagedFile, is_key, load_arrays, save_arrays
from latebloom.core.interaction import Interaction
from latebloom.methods.bandits.judging import Judgement, judge
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
from latebloom.methods.bandits.off_policy import Evaluation
from latebloom.methods.bandits.payments.world import Features

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
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be positive and finite, not {getattr(self, name)}")
        for name in ("growth", "strength", "seed"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be at least 0 and finite, not {getattr(self, name)}")


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


class OnlinePolicy:
    """A policy with what it has learned. `actions` are their names, in the order of probabilities.

    All methods raise `ValueError` for contexts of another width than it was made for, or not finite.
    """

    kind = "online"

    def __init__(
        self, settings: Settings, actions: Sequence[Any], scaling: Scaling, capacity: int,
        sizes: tuple[int, ...] = (),
    ):  # fmt: skip
        """`sizes`: levels of the categories of a table's features, if it is to take these."""
        self.sizes = sizes
        self.settings, self.actions, self.scaling = settings, tuple(actions), scaling
        self.capacity, self.rounds = capacity, 0
        inputs = len(scaling.mean) + 1
        self.policy = make_policy(settings, len(self.actions), inputs, capacity)
        self.state = self.policy.oracle.init(jax.random.key(settings.seed))

    def predict_proba(
        self, x: Float[np.ndarray, "n d"], allowed: Bool[np.ndarray, "n k"] | None = None
    ) -> Float[np.ndarray, "n k"]:
        """Action probabilities for raw features; all actions are allowed unless told."""
        return np.asarray(self._decide(x, allowed)[0], np.float64)

    def predict(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Expected rewards for raw features, within [0, 1]."""
        return 1 - np.clip(np.asarray(self._decide(x)[1], np.float64), 0.0, 1.0)

    def probabilities(self, features: Features, allowed: np.ndarray) -> np.ndarray:
        """Action probabilities for a table's features."""
        return self.predict_proba(one_hot(features, self.sizes), allowed)

    def expected(self, features: Features) -> np.ndarray:
        """Expected rewards for a table's features."""
        return self.predict(one_hot(features, self.sizes))

    def _decide(self, x: np.ndarray, allowed: np.ndarray | None = None) -> tuple[Array, Array]:
        x = self._contexts(x)
        every = (
            np.ones((len(x), len(self.actions)), bool) if allowed is None else np.asarray(allowed)
        )
        if every.shape != (len(x), len(self.actions)):
            raise ValueError(
                f"allowed must be [{len(x)}, {len(self.actions)}], one flag a row and action, not of "
                f"shape {every.shape}"
            )
        if not every.any(1).all():
            raise ValueError(f"row {int(np.flatnonzero(~every.any(1))[0])} allows no action")
        round = jnp.int32(self.rounds)
        return _decide(self.policy, self.state, self.scaling(x), jnp.asarray(every), round)

    def _contexts(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, float)
        if x.ndim != 2 or x.shape[1] != len(self.scaling.mean):
            raise ValueError(
                f"contexts must be [rows, {len(self.scaling.mean)}], as those that the policy was made "
                f"for, not of shape {x.shape}"
            )
        wrong = ~np.isfinite(x).all(1)
        if wrong.any():
            raise ValueError(
                f"the context of row {int(np.flatnonzero(wrong)[0])} holds a value that is not finite: "
                "fill it or drop the row"
            )
        return x

    def update(
        self, x: Float[np.ndarray, "n d"], action: Int[np.ndarray, " n"],
        reward: Float[np.ndarray, " n"],
    ) -> None:  # fmt: skip
        """Learn from more rows: `action` are positions in `actions`, rewards are in [0, 1].

        Raises `ValueError` for actions and rewards outside, and for lengths that differ.
        """
        x, action, reward = self._contexts(x), np.asarray(action), np.asarray(reward, float)
        if not len(x) == len(action) == len(reward):
            raise ValueError(
                f"there are {len(x)} contexts, {len(action)} actions and {len(reward)} rewards: give "
                "one of each a row"
            )
        if len(action) and not np.issubdtype(action.dtype, np.integer):
            raise ValueError(f"actions must be whole numbers, positions, not {action.dtype}")
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

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything needed to go on: arrays by name, and a note for JSON."""
        leaves = {f"state/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(self.state))}
        note = {
            "settings": asdict(self.settings), "actions": [str(a) for a in self.actions],
            "capacity": self.capacity, "rounds": self.rounds,
            "mean": self.scaling.mean.tolist(), "spread": self.scaling.spread.tolist(),
            "sizes": list(self.sizes),
        }  # fmt: skip
        return leaves, note

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything needed to go on into one file."""
        save_arrays(Path(path), *self.saved())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> OnlinePolicy:
        """The policy that was saved; names of actions come back as text.

        Raises `ValueError` for a file that is none.
        """
        try:
            return cls.restored(*load_arrays(Path(path)))
        except (DamagedFile, KeyError, TypeError, OSError) as error:
            raise ValueError(f"{path} is not a saved policy ({error})") from None

    @classmethod
    def restored(cls, leaves: dict[str, Any], note: dict[str, Any]) -> OnlinePolicy:
        """What `saved` gave, as a policy again."""
        scaling = Scaling(np.array(note["mean"]), np.array(note["spread"]))
        found = cls(
            Settings(**note["settings"]), note["actions"], scaling, note["capacity"],
            tuple(note["sizes"]),
        )  # fmt: skip
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
        lambda row: policy.probabilities(state, row[0], row[1], round), (x, allowed), batch_size=256
    )


def one_hot(features: Features, sizes: Sequence[int]) -> Float[np.ndarray, "n d"]:
    """A table's features as numbers: a column for each known level of each category, then the
    numbers. A level that was not known is 0 throughout."""
    codes = np.asarray(features.categories)
    blocks = [np.eye(size)[codes[:, i]][:, 1:] for i, size in enumerate(sizes)]
    return np.concatenate([*blocks, np.asarray(features.numbers, float)], axis=1)


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
    - `judgement`: of it against the policy that wrote the log, on the other rows; `value` are its
      off-policy estimates.
    """

    policy: OnlinePolicy
    probabilities: np.ndarray
    expected: np.ndarray
    trained: int
    judgement: Judgement

    @property
    def value(self) -> Evaluation:
        return self.judgement.evaluation


def learn_from_log(
    x: Float[np.ndarray, "n d"], action: Int[np.ndarray, " n"], reward: Float[np.ndarray, " n"],
    propensity: Float[np.ndarray, " n"], actions: Sequence[Any], settings: Settings | None = None,
    train_share: float = 0.5, sizes: tuple[int, ...] = (),
) -> Learned:  # fmt: skip
    """Learn the next policy from the first `train_share` of a log and estimate its value on the rest.

    `action` are positions in `actions`; rewards are in [0, 1]. A neural oracle makes at least 20
    passes over the rows. `sizes`: of the categories, where x is `one_hot` of a table's features.

    Raises `ValueError` where a part would be empty, or values are out of range.
    """
    n, settings = len(action), Settings() if settings is None else settings
    if not 0 < train_share < 1:
        raise ValueError(
            f"train_share must be in (0, 1), not {train_share:g}: it leaves a part empty"
        )
    trained = round(n * train_share)
    if not 0 < trained < n:
        raise ValueError(f"train_share {train_share:g} of {n} rows leaves a part empty")
    steps = max(settings.steps, 20 * trained)
    policy = OnlinePolicy(
        Settings(**{**asdict(settings), "steps": steps}), actions, Scaling.of(x[:trained]), n, sizes
    )
    policy.update(x[:trained], action[:trained], reward[:trained])
    p, expected = policy.predict_proba(x), policy.predict(x)
    test = np.arange(trained, n)
    target, predicted = p[test, action[test]], expected[test, action[test]]
    r, b = reward[test], propensity[test]
    key = jax.random.key(settings.seed)
    found = judge(r, b, target, predicted, (p * expected)[test].sum(1), key=key)
    return Learned(policy, p, expected, trained, found)


@dataclass(frozen=True)
class Simulated:
    """A labelled table played as a bandit.

    - `rounds` [t]; `mistakes`, `explored` [seed, t]: cumulative.
    - `counts`, `predicted`, `observed` [bin]: losses of played actions by bins of the prediction,
      summed over seeds.
    - `policy`: after the first seed's last round; `probabilities` [n, k] of it.
    """

    policy: OnlinePolicy
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
    progress: Progress = lambda what, share: None, sizes: tuple[int, ...] = (),
) -> Simulated:  # fmt: skip
    """Play each row of a labelled table once: naming the row's label earns 1, else 0.

    `label` are positions in `actions`. Every seed has its own order of the rows (with `shuffle`) and
    its own initial network; features are scaled by the whole table.

    Raises `ValueError` for no rows or seeds, and labels that are no action.
    """
    if len(x) < 1 or seeds < 1:
        raise ValueError(f"there must be rows and seeds, not {len(x)} and {seeds}")
    settings = Settings() if settings is None else settings
    found = OnlinePolicy(settings, actions, Scaling.of(x), len(x), sizes)
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
