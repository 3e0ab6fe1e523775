"""The same chain with learners that are not traced: boosted trees, and linear bandits with their full
covariances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from sklearn.ensemble import HistGradientBoostingClassifier

from latebloom.core.process import HostProcess, Quantity
from latebloom.methods.bandits.payments.chain import judged, quantities
from latebloom.methods.bandits.payments.rules import Prediction, Rule, Uniform
from latebloom.methods.bandits.payments.serving import keys_of, look, play
from latebloom.methods.bandits.payments.world import Features, Instance, PaymentWorld


class HostLog(NamedTuple):
    """The rows of a log that have arrived."""

    features: Features
    action: np.ndarray
    reward: np.ndarray


@dataclass(frozen=True)
class Trees:
    """scikit-learn's histogram gradient boosting on the context and the action's code."""

    count: int = 100
    learning_rate: float = 0.1

    def fit(self, log: HostLog, world: PaymentWorld, rng: np.random.Generator) -> Any:
        x = _columns(log.features)
        settings: Any = {
            "early_stopping": False, "categorical_features": [0, 1, 2, 3, x.shape[1]],
        }  # fmt: skip
        trees = HistGradientBoostingClassifier(
            max_iter=self.count, learning_rate=self.learning_rate, random_state=0, **settings
        )
        return trees.fit(np.column_stack([x, log.action]), log.reward)

    def predict(self, fitted: Any, features: Features, world: PaymentWorld) -> Prediction:
        x, k = _columns(features), world.actions
        every = np.column_stack([np.repeat(x, k, axis=0), np.tile(np.arange(k), len(x))])
        return Prediction(_float(fitted.predict_proba(every)[:, 1].reshape(-1, k)))


class LinearFit(NamedTuple):
    table: Float[np.ndarray, "f k"]
    inverse: Float[np.ndarray, "f f k"]
    draws: Float[np.ndarray, "m f k"] | None


@dataclass(frozen=True)
class LinearBandit:
    """Ridge regression of the reward on one-hot contexts, for LinUCB and LinTS.

    A part shared by all actions is fitted first, then a disjoint model of each action to what is
    left (Li et al. 2010, algorithm 1; Agrawal and Goyal 2013). With `members` draws from the
    posterior N(θ_a, `spread`² A_a⁻¹) for Thompson sampling; without, widths sqrt(x' A_a⁻¹ x).
    """

    ridge: float = 2.0
    spread: float = 0.1
    members: int = 0

    def fit(self, log: HostLog, world: PaymentWorld, rng: np.random.Generator) -> LinearFit:
        x = _one_hot(log.features, world)
        f, k = x.shape[1], world.actions
        eye = self.ridge * np.eye(f, dtype=np.float32)
        shared = np.linalg.solve(x.T @ x + eye, x.T @ log.reward)
        left = log.reward - x @ shared
        table, inverse = np.zeros((f, k), np.float32), np.zeros((f, f, k), np.float32)
        draws = np.zeros((self.members, f, k), np.float32) if self.members else None
        for a in range(k):
            of = log.action == a
            gram = x[of].T @ x[of] + eye
            inverse[..., a] = np.linalg.inv(gram)
            table[:, a] = shared + inverse[..., a] @ (x[of].T @ left[of])
            if draws is not None:
                root = np.linalg.cholesky(inverse[..., a])
                noise = rng.standard_normal((self.members, f)).astype(np.float32)
                draws[..., a] = table[:, a] + self.spread * noise @ root.T
        return LinearFit(table, inverse, draws)

    def predict(self, fitted: LinearFit, features: Features, world: PaymentWorld) -> Prediction:
        x = _one_hot(features, world)
        mean = _float(x @ fitted.table)
        if fitted.draws is not None:
            return Prediction(mean, draws=_float(np.einsum("nf,mfk->nmk", x, fitted.draws)))
        squares = np.stack(
            [((x @ fitted.inverse[..., a]) * x).sum(1) for a in range(world.actions)], axis=1
        )
        return Prediction(mean, width=_float(np.sqrt(np.maximum(squares, 0))))


@dataclass
class HostState:
    """All in NumPy, so that it can be pickled."""

    seed: int
    instance: Instance
    contexts: Features
    allowed: np.ndarray
    generation: int = 0
    fitted: Any = None
    log: dict[str, Any] = field(default_factory=dict)


class HostChain(HostProcess):
    """Serve, wait, join, retrain on the last log, deploy; on the very transactions that `Chain` meets.

    Observed as there, except for what concerns off-policy estimates and the overlap of logs.
    """

    def __init__(
        self, world: PaymentWorld, learner: Trees | LinearBandit, rule: Rule, contexts: int = 4000
    ):
        self.world, self.learner, self.rule, self.contexts = world, learner, rule, contexts

    def init(self, seed: int) -> HostState:
        keys = keys_of(seed)
        instance = self.world.init(keys.instance)
        rounds = (jnp.arange(self.contexts) * self.world.batch) // self.contexts
        view = jax.vmap(lambda k, r: self.world.look(instance, k, r))(
            jax.random.split(keys.contexts, self.contexts), rounds
        )
        return HostState(seed, *jax.device_get((instance, view.features, view.allowed)))

    def step(self, state: HostState) -> HostState:
        keys, g = keys_of(state.seed), jnp.int32(state.generation)
        instance = jax.tree.map(jnp.asarray, state.instance)
        view = look(self.world, instance, keys.world, g)
        chosen = self._policy(state, self._predict(state, view.features), view.allowed)
        rows = jax.device_get(play(self.world, instance, keys, g, view, chosen).feedback)
        features = jax.tree.map(lambda x: x[rows.arrived], rows.features)
        log = HostLog(features, rows.action[rows.arrived], rows.reward[rows.arrived])
        rng = np.random.default_rng((state.seed, state.generation))
        negatives = float((1 - log.reward).sum())
        seen = {
            "negative_share": np.float32(negatives / len(log.reward)),
            "negatives": np.float32(negatives),
            "reward": np.float32(log.reward.mean()),
            "arrived": np.float32(rows.arrived.mean()),
        }
        return HostState(
            state.seed, state.instance, state.contexts, state.allowed, state.generation + 1,
            self.learner.fit(log, self.world, rng), seen,
        )  # fmt: skip

    def observe(self, state: HostState) -> dict[str, Any]:
        seen = self._predict(state, state.contexts)
        allowed = jnp.asarray(state.allowed)
        instance, contexts = jax.tree.map(jnp.asarray, (state.instance, state.contexts))
        generation = jnp.int32(state.generation)
        means = _means(self.world, instance, contexts, generation)
        none = dict.fromkeys(("negative_share", "negatives", "reward", "arrived"), np.float32(0))
        chosen = self._policy(state, seen, allowed)
        return _judged(seen, chosen, means, allowed) | (state.log or none)

    def quantities(self) -> dict[str, Quantity]:
        return quantities(self.world.actions)

    def _policy(self, state: HostState, seen: Prediction, allowed: Any) -> Any:
        rule = self.rule if state.generation else Uniform()
        return _apply(rule, seen, allowed, jnp.float32(self.world.batch))

    def _predict(self, state: HostState, features: Features) -> Prediction:
        if state.fitted is None:
            return Prediction(jnp.full((len(features.numbers), self.world.actions), 0.5))
        return self.learner.predict(state.fitted, features, self.world)


_judged = jax.jit(judged)


@jax.jit
def _means(world: PaymentWorld, instance: Instance, contexts: Features, generation: Any) -> Any:
    return jax.vmap(lambda f: world.means(instance, f, generation))(contexts)


@jax.jit
def _apply(rule: Rule, seen: Prediction, allowed: Any, examples: Any) -> Any:
    return rule(seen, allowed, examples)


def _columns(features: Features) -> np.ndarray:
    return np.column_stack([np.asarray(features.categories), np.asarray(features.numbers)])


def _one_hot(features: Features, world: PaymentWorld) -> Float[np.ndarray, "n f"]:
    codes, numbers = np.asarray(features.categories), np.asarray(features.numbers)
    blocks = [
        np.eye(size, dtype=np.float32)[c] for size, c in zip(world.sizes, codes.T, strict=True)
    ]
    return np.hstack([*blocks, numbers, np.ones((len(codes), 1), np.float32)])


def _float(values: np.ndarray) -> Any:
    return jnp.asarray(values, jnp.float32)
