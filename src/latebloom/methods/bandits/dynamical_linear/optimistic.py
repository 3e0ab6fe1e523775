"""Optimism on a ridge regression of rewards on actions: DynLin-UCB, LinUCB and D-LinUCB."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Feedback, Policy, Sum, View
from latebloom.methods.bandits.dynamical_linear.epochs import growing_epochs
from latebloom.methods.bandits.dynamical_linear.system import LinearSystem


@dataclass(frozen=True)
class Bounds:
    """What a learner is told of the system: upper bounds of its norms, and its noise.

    - `radius`: of the spectrum of A; `gain`: Phi, see `LinearSystem.transient_gain`.
    - `omega`, `theta`, `action`, `drive`: of ‖omega‖, ‖theta‖, ‖u‖ and ‖B‖.
    - `noise`: sigma, of state and reward.

    Raises `ValueError` for a radius outside [0, 1) and for negative bounds.
    """

    radius: float
    omega: float
    theta: float
    action: float
    drive: float
    gain: float
    noise: float

    def __post_init__(self) -> None:
        if not 0 <= self.radius < 1:
            raise ValueError(f"the spectral radius must be in [0, 1), not {self.radius:g}")
        for name, value in vars(self).items():
            if not 0 <= value < np.inf:
                raise ValueError(f"the bound {name} must be at least 0 and finite, not {value}")

    @property
    def ridge_bias(self) -> float:
        """c1: a bound of ‖h‖."""
        return self.theta + self.omega * self.drive * self.gain / (1 - self.radius)

    @property
    def transient_bias(self) -> float:
        """c2: how much of the past the rewards still hold."""
        state = self.action / (1 - self.radius)
        return self.action * self.omega * self.gain * (state * self.drive + state)

    @property
    def variance(self) -> float:
        """Sigma-bar squared: noise of a reward, what came through the state included."""
        through = self.omega**2 * self.gain**2 / (1 - self.radius**2)
        return self.noise**2 * (1 + through)


def exact_bounds(
    system: LinearSystem, actions: Float[np.ndarray, "k p"], noise: float
) -> Bounds:  # fmt: skip
    """Bounds that are the norms themselves, as in the paper's experiments."""
    return Bounds(
        radius=system.spectral_radius,
        omega=float(np.linalg.norm(system.omega)),
        theta=float(np.linalg.norm(system.theta)),
        action=float(np.linalg.norm(actions, axis=1).max()),
        drive=float(np.linalg.norm(system.B, 2)),
        gain=system.transient_gain(),
        noise=noise,
    )


class Radius(eqx.Module):
    """The width of a confidence set after t rounds:

    constant + drift log(e (t + 1)) + sqrt(variance (confidence + dims log(1 + growth n))),

    where n is t, or with a discount the effective number of rounds (1 - gamma^2t) / (1 - gamma^2);
    with `overcounted` it is t times that.
    """

    constant: float
    drift: float = 0.0
    variance: float = 0.0
    confidence: float = 0.0
    dims: float = 0.0
    growth: float = 0.0
    log_discount: float = 0.0
    overcounted: bool = eqx.field(static=True, default=False)
    discounted: bool = eqx.field(static=True, default=False)

    def __call__(self, t: Int[Array, ""]) -> Float[Array, ""]:
        t = t.astype(float)
        n = t
        if self.discounted:
            n = jnp.expm1(2 * t * self.log_discount) / jnp.expm1(2 * self.log_discount)
            n = n * t if self.overcounted else n
        spread = self.variance * (self.confidence + self.dims * jnp.log1p(self.growth * n))
        return self.constant + self.drift * (1 + jnp.log1p(t)) + jnp.sqrt(spread)


class Regression(NamedTuple):
    """Sums of u uᵀ and of u times reward, kept with their rounding errors."""

    gram: Sum
    moment: Sum

    def add(self, actions: Array, rewards: Array, weight: Array) -> Regression:
        weighted = weight[:, None] * actions
        return Regression(self.gram.add(weighted.T @ actions), self.moment.add(rewards @ weighted))


def no_data(dim: int) -> Regression:
    """The regression before the first reward."""
    gram, moment = jnp.zeros((dim, dim)), jnp.zeros(dim)
    return Regression(Sum(gram, gram), Sum(moment, moment))


def factor(gram: Float[Array, "d d"], ridge: Array | float) -> list[list[Array]]:
    """Cholesky factor L of gram + ridge I, row by row, with the inverses of its diagonal.

    Written out, because a call of LAPACK for each round costs more than the round.
    """
    rows: list[list[Array]] = []
    for i in range(len(gram)):
        row: list[Array] = []
        for j, above in enumerate(rows):
            row.append((gram[i, j] - _dot(row, above)) * above[j])
        row.append(jax.lax.rsqrt(gram[i, i] + ridge - _dot(row, row)))
        rows.append(row)
    return rows


def forward(rows: list[list[Array]], right: Iterable[Array]) -> list[Array]:
    """L⁻¹ right, by substitution."""
    found: list[Array] = []
    for i, (row, value) in enumerate(zip(rows, right, strict=True)):
        found.append((value - _dot(row, found)) * row[i])
    return found


def backward(rows: list[list[Array]], right: list[Array]) -> list[Array]:
    """L⁻ᵀ right, by substitution."""
    found: list[Array] = []  # from the last to the first
    for i in reversed(range(len(rows))):
        column = [rows[j][i] for j in reversed(range(i + 1, len(rows)))]
        found.append((right[i] - _dot(column, found)) * rows[i][i])
    return found[::-1]


def _dot(a: list[Array], b: list[Array]) -> Array | float:
    return sum((x * y for x, y in zip(a, b, strict=False)), 0.0)


def _chosen(feedback: Feedback) -> tuple[Array, Array]:
    """The actions that were taken [rows, d], and 1 for each whose reward is here."""
    rows = jnp.arange(len(feedback.action))
    chosen = feedback.features[rows, feedback.action]
    return chosen, feedback.arrived.astype(chosen.dtype)


class Held(NamedTuple):
    regression: Regression
    first: Int[Array, ""]
    epoch: Int[Array, ""]


class OptimisticLinear(Policy):
    """Plays argmax <h, u> + radius ‖u‖ in V⁻¹, and learns h by ridge regression from each reward.

    The actions u are the features of the view, [K, d] = `shape`; the first is drawn uniformly.
    Epoch m lasts as many rounds as there are `starts` that are at most m (one round, if there is a
    single one), and ends with the `horizon` at the latest. Made for a few features: the solver is
    written out, and compiling it takes time in proportion to d cubed.
    """

    shape: tuple[int, int] = eqx.field(static=True)
    ridge: float
    radius: Radius
    starts: Int[Array, " lengths"]
    horizon: int | np.integer

    def padded(self, longest: int) -> OptimisticLinear:
        """The same with starts of epochs that never come, up to `longest` rounds an epoch: policies
        of one length share a program."""
        never = np.full(longest - len(self.starts), np.iinfo(np.int32).max)
        starts = jnp.concatenate([self.starts, jnp.asarray(never, jnp.int32)])
        return eqx.tree_at(lambda policy: policy.starts, self, starts)

    def init(self, key: PRNGKeyArray) -> Held:
        first = jax.random.randint(key, (), 0, self.shape[0], jnp.int32)
        return Held(no_data(self.shape[1]), first, jnp.int32(1))

    def scores(
        self, state: Held, actions: Float[Array, "k d"], round: Int[Array, ""]
    ) -> Float[Array, " k"]:
        """The optimistic reward of each action."""
        gram, moment = state.regression
        rows = factor(gram.value, self.ridge)
        across = forward(rows, list(actions.T))
        value = _dot(across, forward(rows, list(moment.value)))
        return value + self.radius(round) * jnp.sqrt(_dot(across, across))

    def act(self, state: Held, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        first = state.epoch == 1
        best = self.scores(state, view.features, round).argmax().astype(jnp.int32)
        hold = (self.starts <= state.epoch).sum(dtype=jnp.int32)
        return Decision(
            jnp.where(first, state.first, best),
            jnp.where(first, 1 / self.shape[0], jnp.float32(1)),
            jnp.minimum(hold, self.horizon - round),
        )

    def acted(self, state: Held, decision: Decision) -> Held:
        return state._replace(epoch=state.epoch + 1)

    def learn(self, state: Held, feedback: Feedback) -> Held:
        chosen, arrived = _chosen(feedback)
        return state._replace(regression=state.regression.add(chosen, feedback.reward, arrived))


class Discounted(NamedTuple):
    regression: Regression
    squared: Sum  # of u uᵀ, forgotten twice as fast
    first: Int[Array, ""]
    round: Int[Array, ""]


class DLinUCB(Policy):
    """LinUCB that forgets: V is a sum of gamma^age u uᵀ, and the bonus is ‖u‖ in V⁻¹ V~ V⁻¹.

    V~ is the same sum with gamma squared; `forgotten` is 1 - gamma. (Russac, Vernade, Cappé 2019,
    arXiv:1909.09146, algorithm 1.)
    """

    shape: tuple[int, int] = eqx.field(static=True)
    ridge: float
    radius: Radius
    forgotten: float

    def init(self, key: PRNGKeyArray) -> Discounted:
        first = jax.random.randint(key, (), 0, self.shape[0], jnp.int32)
        regression = no_data(self.shape[1])
        return Discounted(regression, regression.gram, first, jnp.int32(0))

    def scores(
        self, state: Discounted, actions: Float[Array, "k d"], round: Int[Array, ""]
    ) -> Float[Array, " k"]:
        """The optimistic reward of each action."""
        gram, moment = state.regression
        rows = factor(gram.value, self.ridge)
        weights = jnp.stack(backward(rows, forward(rows, list(actions.T))))
        wide = state.squared.value @ weights + self.ridge * weights
        return moment.value @ weights + self.radius(round) * jnp.sqrt((weights * wide).sum(0))

    def act(
        self, state: Discounted, view: View, round: Int[Array, ""], key: PRNGKeyArray
    ) -> Decision:
        first = state.round == 0
        best = self.scores(state, view.features, round).argmax().astype(jnp.int32)
        return Decision(
            jnp.where(first, state.first, best),
            jnp.where(first, 1 / self.shape[0], jnp.float32(1)),
        )

    def learn(self, state: Discounted, feedback: Feedback) -> Discounted:
        chosen, arrived = _chosen(feedback)
        gram, moment = state.regression
        faded = Regression(
            gram.add(-self.forgotten * gram.value), moment.add(-self.forgotten * moment.value)
        )
        twice = self.forgotten * (2 - self.forgotten)
        squared = state.squared.add(-twice * state.squared.value)
        squared = squared.add((arrived[:, None] * chosen).T @ chosen)
        return Discounted(
            faded.add(chosen, feedback.reward, arrived), squared, state.first, state.round + 1
        )


def dynlin_ucb(
    shape: tuple[int, int], bounds: Bounds, horizon: int, *,
    ridge: float | None = None, hold: bool = True,
) -> OptimisticLinear:  # fmt: skip
    """DynLin-UCB (Mussi, Metelli, Restelli 2023, arXiv:2211.08997, algorithm 1), delta = 1/horizon.

    `ridge` is log(horizon) unless given. With `hold=False` every round is an epoch, which is the
    method without its epochs. The radius is evaluated at the round, not at the epoch. Raises
    `ValueError` for a ridge that is not positive, as log(1) is, and a horizon below 1.
    """
    starts = growing_epochs(bounds.radius if hold else 0.0, horizon).starts
    return _optimistic(shape, bounds, horizon, ridge, bounds.transient_bias, starts)


def lin_ucb(
    shape: tuple[int, int], bounds: Bounds, horizon: int, *, ridge: float | None = None
) -> OptimisticLinear:
    """LinUCB with what DynLin-UCB knows of sizes and noise, but blind to what lingers of the past.

    `ridge` is log(horizon) unless given.
    """
    return _optimistic(shape, bounds, horizon, ridge, 0.0, np.ones(1, np.int32))


def _optimistic(
    shape: tuple[int, int], bounds: Bounds, horizon: int, ridge: float | None, drift: float,
    starts: np.ndarray,
) -> OptimisticLinear:  # fmt: skip
    d = shape[1]
    _check_horizon(horizon)
    ridge = float(np.log(horizon)) if ridge is None else ridge
    _check_ridge(ridge)
    radius = Radius(
        constant=bounds.ridge_bias * ridge**0.5,
        drift=drift / ridge**0.5,
        variance=2 * bounds.variance,
        confidence=float(np.log(horizon)),
        dims=d / 2,
        growth=bounds.action**2 / (d * ridge),
    )
    return OptimisticLinear(
        shape,
        ridge,
        radius,
        jnp.asarray(starts, jnp.int32),
        np.int32(horizon),
    )


def stateless_lin_ucb(
    shape: tuple[int, int], theta: float, size: float, horizon: int, *,
    ridge: float = 1.0,
) -> OptimisticLinear:  # fmt: skip
    """LinUCB as for rewards without memory (Abbasi-Yadkori, Pál, Szepesvári 2011), noise 1.

    `theta` bounds the parameter, `size` the actions.
    """
    d = shape[1]
    _check_horizon(horizon)
    _check_ridge(ridge)
    growth = np.log1p(horizon * size**2 / (d * ridge))
    radius = Radius(theta * ridge**0.5 + float(np.sqrt(2 * np.log(horizon) + d * growth)))
    first = jnp.ones(1, jnp.int32)
    return OptimisticLinear(shape, ridge, radius, first, np.int32(horizon))


def d_lin_ucb(
    shape: tuple[int, int], theta: float, size: float, noise: float, horizon: int, *,
    forgotten: float = 1e-9, ridge: float = 1.0,
) -> DLinUCB:  # fmt: skip
    """D-LinUCB with discount gamma = 1 - `forgotten`; sizes as in `stateless_lin_ucb`."""
    d = shape[1]
    _check_horizon(horizon)
    _check_ridge(ridge)
    _check_forgotten(forgotten)
    radius = Radius(
        constant=theta * ridge**0.5,
        variance=noise**2,
        confidence=float(2 * np.log(horizon)),
        dims=d,
        growth=size**2 / (d * ridge),
        log_discount=float(np.log1p(-forgotten)),
        discounted=True,
    )
    return DLinUCB(shape, ridge, radius, forgotten)


def undiscounted_d_lin_ucb(
    shape: tuple[int, int], bounds: Bounds, horizon: int, *, forgotten: float = 1e-6
) -> OptimisticLinear:
    """The "log T" D-LinUCB of the paper's authors: its data never fade, only its radius knows gamma.

    The radius takes t (1 - gamma^2t) / (1 - gamma^2) for the number of rounds, as their code does.
    """
    _check_forgotten(forgotten)
    policy = lin_ucb(shape, bounds, horizon)
    was = policy.radius
    radius = Radius(
        was.constant, was.drift, was.variance, was.confidence, was.dims, was.growth,
        float(np.log1p(-forgotten)), overcounted=True, discounted=True,
    )  # fmt: skip
    return OptimisticLinear(shape, policy.ridge, radius, policy.starts, policy.horizon)


def _check_horizon(horizon: int) -> None:
    if not 1 <= horizon < 2**31:
        raise ValueError(f"the horizon must be from 1 to {2**31 - 1}, not {horizon}")


def _check_ridge(ridge: float) -> None:
    if not 0 < ridge < np.inf:
        raise ValueError(f"ridge must be a positive number, not {ridge:g}: give one")


def _check_forgotten(forgotten: float) -> None:
    if not 0 < forgotten < 1:
        raise ValueError(f"forgotten must be in (0, 1), not {forgotten:g}; without it use lin_ucb")
