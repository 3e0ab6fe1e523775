"""Payoff tables of arms whose pay depends on the time since their last switch.

The state of an arm is an integer that is never 0: tau >= 1, it has been idle for tau rounds;
tau <= -1, it has been played |tau| rounds in a row (Laforgue et al. 2022, arXiv:2110.11819). A table
row holds what a play brings in each state, along the axis tau = -M, ..., -1, 1, ..., N, with M the
longest streak and N the longest idle time that still make a difference. A place on this axis, 0 to
M + N - 1, is called a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

Family = Literal["random", "jump", "satiation", "tight"]


def position_of(tau: np.ndarray | int, idle: int, streak: int) -> np.ndarray:
    """The position of a state tau, which saturates at -`streak` and `idle`. Raises on tau = 0."""
    tau = np.clip(np.asarray(tau), -streak, idle)
    if (tau == 0).any():
        raise ValueError("no arm is ever in state 0: count idle rounds from 1, streaks from -1")
    return np.where(tau < 0, tau + streak, tau + streak - 1)


def state_of(position: np.ndarray | int, streak: int) -> np.ndarray:
    """The state tau that stands at a position."""
    position = np.asarray(position)
    return np.where(position < streak, position - streak, position - streak + 1)


def advance(
    position: Int[Array, "*b k"], action: Int[Array, "*b"], size: int, streak: int
) -> Int[Array, "*b k"]:
    """Positions one round later: the played arm's streak grows, all others idle.

    `action` = k (or any other number that is no arm) plays nothing; `size` is M + N.
    """
    after_play = jnp.where(position >= streak, streak - 1, jnp.maximum(position - 1, 0))
    after_rest = jnp.where(position < streak, streak, jnp.minimum(position + 1, size - 1))
    played = jnp.arange(position.shape[-1]) == action[..., None]
    return jnp.where(played, after_play, after_rest)


def check_payoffs(payoffs: np.ndarray, streak: int) -> np.ndarray:
    """The table as float64 [arms, positions].

    Raises `ValueError` unless it is finite, not negative, and has room for a streak and a rest.
    """
    table = np.asarray(payoffs, np.float64)
    if table.ndim != 2 or not 1 <= streak < table.shape[1] or not len(table):
        raise ValueError(
            f"payoffs must be [arms, streak + idle] with streak = {streak} and idle at least 1, "
            f"not of shape {table.shape}"
        )
    if not np.isfinite(table).all() or (table < 0).any():
        raise ValueError("payoffs must be finite and not negative")
    return table


def is_monotone(payoffs: np.ndarray, slack: float = 1e-6) -> bool:
    """Whether every arm pays no less the longer it has rested (and no more the longer it ran).

    Falls of `slack` do not count: tables computed in single precision have them by rounding.
    """
    return bool((np.diff(np.asarray(payoffs), axis=1) >= -slack).all())


def table(idle: Sequence[Sequence[float]], runs: Sequence[Sequence[float]]) -> np.ndarray:
    """A payoff table from curves: `idle[i]` = p(1), p(2), ...; `runs[i]` = p(-1), p(-2), ...

    Curves of different lengths are continued by their last value. Raises `ValueError` where a curve
    is empty or the two lists differ in length.
    """
    if len(idle) != len(runs) or not idle or any(not len(curve) for curve in [*idle, *runs]):
        raise ValueError("every arm needs an idle curve and a run curve, of one value at least")
    n, m = max(map(len, idle)), max(map(len, runs))
    rows = []
    for rested, ran in zip(idle, runs, strict=True):
        rested = [*rested, *[rested[-1]] * (n - len(rested))]
        ran = [*ran, *[ran[-1]] * (m - len(ran))]
        rows.append([*reversed(ran), *rested])
    return np.array(rows, np.float64)


class Instances(eqx.Module):
    """Draws the payoff table [arms, streak + idle] of an instance from a key.

    - "random": streak + idle sorted uniforms an arm. Being greedy is nearly best here.
    - "jump": a low base b, and a high payoff after d rounds of rest, d between idle/2 and idle:
      p(n) = b (1 + 0.02 n) for n < d, else hi; p(-j) = b 0.8^j / 2; b ~ U(0.1, 0.25),
      hi ~ U(0.7, 1). Being greedy plays the arms before they have recovered.
    - "satiation": p(n) = a (1 - exp(-n/s)), p(-j) = min(a rho^j, p(1)), rho ~ U(0.5, 0.95),
      a ~ U(0.3, 1), s ~ U(0.3, idle/2). Runs of several plays pay. (The minimum keeps it monotone.)
    - "tight": `arms` equal arms that pay 1 after arms - 1 rounds of rest, and else nothing: the
      interleaved planner gets 1 - (1 - 1/arms)^arms of the bound. Needs idle = arms - 1.
    """

    family: Family = eqx.field(static=True)
    arms: int = eqx.field(static=True)
    idle: int = eqx.field(static=True)
    streak: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if min(self.arms, self.idle, self.streak) < 1:
            raise ValueError("arms, idle and streak must be at least 1")
        if self.family == "tight" and self.idle != self.arms - 1:
            raise ValueError(f"the tight family needs idle = arms - 1 = {self.arms - 1}")

    def __call__(self, key: PRNGKeyArray) -> Float[Array, "arms positions"]:
        rested = jnp.arange(1, self.idle + 1, dtype=jnp.float32)
        ran = jnp.arange(self.streak, 0, -1, dtype=jnp.float32)
        if self.family == "random":
            drawn = jax.random.uniform(key, (self.arms, self.streak + self.idle))
            return jnp.sort(drawn, axis=1)
        if self.family == "tight":
            pays = jnp.concatenate([jnp.zeros_like(ran), (rested == self.idle) * 1.0])
            return jnp.broadcast_to(pays, (self.arms, self.streak + self.idle))
        first, second, third = jax.random.uniform(key, (3, self.arms, 1))
        if self.family == "jump":
            base, high = 0.1 + 0.15 * first, 0.7 + 0.3 * second
            least = (self.idle + 1) // 2
            recovered = least + jnp.floor(third * (self.idle - least + 1))
            idle = jnp.where(rested < recovered, base * (1 + 0.02 * rested), high)
            return jnp.concatenate([0.5 * base * 0.8**ran, idle], axis=1)
        scale, rho = 0.3 + 0.7 * first, 0.5 + 0.45 * second
        idle = scale * (1 - jnp.exp(-rested / (0.3 + (self.idle / 2 - 0.3) * third)))
        return jnp.concatenate([jnp.minimum(scale * rho**ran, idle[:, :1]), idle], axis=1)
