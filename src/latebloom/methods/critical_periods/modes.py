"""Two pathways compete for one feature: the exact flow of their weights, mode by mode.

In a deep linear network with balanced, aligned weights every singular mode of the task learns alone.
A pathway of depth D holds a mode with one weight p in each layer, and its strength in that mode is

    K = p (p^2 + c)^((D-1)/2),    dp/dt = (p^2 + c)^((D-1)/2) (s - K_a - K_b),

with s the singular value of the task and c the constant of motion: 0 for balanced layers, 1 for a
first layer that is small and others of size 1. Kleinman, Achille, Soatto (arXiv 2308.12221), eqs. 5
to 9; the competition of pathways is from Shi, Shea-Brown, Buice (NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike
from scipy import optimize, special

from latebloom.core.process import Process, Quantity

Number = float | Array
PATHS = ("a", "b")


def strength(p: Array, depth: Number, constant: Number = 0.0) -> Array:
    """K of a pathway whose layers hold the mode with weight `p`; same shape as `p`."""
    return p * _gain(p, depth, constant)


def _gain(p: Array, depth: Number, constant: Number) -> Array:
    return jnp.power(p**2 + constant, (depth - 1) / 2)


def drift(
    p: Float[Array, "*modes path"], s: Number, depth: Number, constant: Number = 0.0,
    free: Number = 1.0, expressed: Number = 1.0,
) -> Float[Array, "*modes path"]:  # fmt: skip
    """dp/dt of every pathway in every mode.

    `s`: singular values of the task, [*modes]. `free` is 0 where a pathway's weights are held,
    `expressed` is 0 where a pathway can never show a mode; both broadcast against `p`.
    """
    gap = s - (expressed * strength(p, depth, constant)).sum(axis=-1)
    return free * expressed * _gain(p, depth, constant) * gap[..., None]


def euler(field: Callable[[Array], Array], p: Array, dt: Number) -> Array:
    """One Euler step. With `dt` the learning rate this is gradient descent on balanced layers."""
    return p + dt * field(p)


def runge_kutta(field: Callable[[Array], Array], p: Array, dt: Number) -> Array:
    """One step of the classical fourth-order Runge-Kutta method."""
    first = field(p)
    second = field(p + dt / 2 * first)
    third = field(p + dt / 2 * second)
    fourth = field(p + dt * third)
    return p + dt / 6 * (first + 2 * second + 2 * third + fourth)


def dominance(strengths: Array) -> Array:
    """(K_a - K_b) / (K_a + K_b) over the last axis: 1 where a has the feature, -1 where b has it."""
    return (strengths[..., 0] - strengths[..., 1]) / strengths.sum(axis=-1)


def weight(k: ArrayLike, depth: int, constant: float = 0.0) -> np.ndarray:
    """The weight p >= 0 that gives a pathway the strength `k` >= 0: `strength` turned round."""
    k = np.asarray(k, float)
    p = k ** (1 / depth)
    if constant > 0:  # that was too large, and from there Newton's steps only fall
        for _ in range(60):
            gain = (p**2 + constant) ** ((depth - 1) / 2)
            slope = (p**2 + constant) ** ((depth - 3) / 2) * (depth * p**2 + constant)
            p = p - (p * gain - k) / slope
    return p


def strength_velocity(
    k: Float[np.ndarray, "*modes path"], s: ArrayLike, depth: int, constant: float = 0.0
) -> Float[np.ndarray, "*modes path"]:
    """dK/dt of pathways of strengths `k` >= 0 that all learn, a vector field to draw.

    dK/dt = (p^2 + c)^(D-2) (D p^2 + c) (s - sum K), with p the `weight` of K.
    """
    square = weight(k, depth, constant) ** 2
    speed = (square + constant) ** (depth - 2) * (depth * square + constant)
    return speed * (np.asarray(s) - np.sum(k, axis=-1))[..., None]


def age(p: ArrayLike, depth: int, constant: float = 0.0) -> np.ndarray:
    """How long a pathway has learnt: the integral of (s - K_a - K_b) dt that takes it to `p`.

    While both pathways learn, both ages grow alike, so that their difference is conserved; a deficit
    makes one age grow alone. That is the critical period in one line. Counted from p = 0 if
    `constant` is positive; else log p (depth 2), -p^(2-D) / (D-2) (deeper) or p (depth 1).
    """
    p = np.asarray(p, float)
    if constant > 0:
        u = p / np.sqrt(constant)
        scale = constant ** (1 - depth / 2)
        return scale * u * special.hyp2f1(0.5, (depth - 1) / 2, 1.5, -(u**2))
    if depth == 2:
        return np.log(p)
    return p ** (2 - depth) / (2 - depth)


def settle(p: ArrayLike, s: float, depth: int) -> np.ndarray:
    """Where two pathways of positive weights p = (p_a, p_b) end if nothing disturbs them any more.

    Returns (K_a, K_b), K_a + K_b = s, from the conserved difference of ages; balanced layers.

    Raises `ValueError` for weights that are not positive, or that have overshot the task.
    """
    start = np.asarray(p, float)
    if start.shape != (2,) or (start <= 0).any() or (start**depth).sum() > s:
        raise ValueError(f"p must be two positive weights with K_a + K_b <= s = {s}, not {p!r}")
    top = s ** (1 / depth)
    ages, latest = age(start, depth), age(top, depth)

    def later(wait: float) -> np.ndarray:
        grown = np.minimum(ages + wait, latest)
        if depth == 2:
            return np.exp(2 * grown)
        return ((2 - depth) * grown) ** (depth / (2 - depth))

    most = float(latest - ages.min())
    found = optimize.root_scalar(lambda w: later(w).sum() - s, bracket=(0.0, most), xtol=1e-14)
    return later(found.root)


class Competition(NamedTuple):
    p: Float[Array, "case trajectory path"]
    step: Int[Array, ""]


class ModeCompetition(Process):
    """The flow of one mode for many starts and many deficits of pathway b, by Euler steps.

    - `s`: singular value; `depth`, `constant`, `dt`: as in `drift`. All are array leaves, so that
      depths share one compiled program.
    - `start`, `length`: first step and steps of the deficit, one for each case.
    - `mean`, `spread`: starts are p = mean * (1 + spread N(0, 1)) if `shared`, the same for both
      pathways; else p = mean + spread N(0, 1) for each pathway. All cases have the same starts.
    """

    s: Array
    depth: Array
    constant: Array
    dt: Array
    start: Int[Array, " case"]
    length: Int[Array, " case"]
    mean: Array
    spread: Array
    shared: Bool[Array, ""]
    trajectories: int

    def __init__(
        self, s: float, depth: int, start: ArrayLike, length: ArrayLike, *, dt: float,
        mean: float, spread: float, constant: float = 0.0, shared: bool = False,
        trajectories: int = 1,
    ):  # fmt: skip
        if depth < 1 or s <= 0 or dt <= 0 or trajectories < 1:
            raise ValueError(
                f"depth {depth} and trajectories {trajectories} must be at least 1, "
                f"s {s} and dt {dt} positive"
            )
        numbers = (s, depth, constant, dt, mean, spread)
        self.s, self.depth, self.constant, self.dt, self.mean, self.spread = (
            jnp.float32(x) for x in numbers
        )
        self.start, self.length = jnp.broadcast_arrays(
            jnp.atleast_1d(jnp.asarray(start, jnp.int32)),
            jnp.atleast_1d(jnp.asarray(length, jnp.int32)),
        )
        self.shared = jnp.asarray(shared)
        self.trajectories = trajectories

    def init(self, key: PRNGKeyArray) -> Competition:
        noise = self.spread * jax.random.normal(key, (self.trajectories, 2))
        together = self.mean * (1 + noise[:, :1]) ** (1 / self.depth)
        p = jnp.where(self.shared, together, self.mean + noise)
        return Competition(jnp.broadcast_to(p, (len(self.start), *p.shape)), jnp.int32(0))

    def step(self, state: Competition) -> Competition:
        held = (state.step >= self.start) & (state.step < self.start + self.length)
        free = jnp.stack([jnp.ones_like(held), ~held], axis=-1)[:, None].astype(jnp.float32)
        slope = drift(state.p, self.s, self.depth, self.constant, free)
        return Competition(state.p + self.dt * slope, state.step + 1)

    def observe(self, state: Competition) -> dict[str, Array]:
        return {"strength": strength(state.p, self.depth, self.constant)}

    def quantities(self) -> dict[str, Quantity]:
        return {
            "strength": Quantity(
                "singular value", ("case", "trajectory", "path"), {"path": PATHS},
                "strength of each pathway in the mode",
            )
        }  # fmt: skip


def final_dominance(trace: xr.Dataset) -> Float[np.ndarray, "seed case"]:
    """`dominance` at the end of a trace of `ModeCompetition`, mean over its trajectories."""
    ends = trace.strength.isel(step=-1).transpose("seed", "case", "trajectory", "path")
    return np.asarray(dominance(ends.values)).mean(axis=2)
