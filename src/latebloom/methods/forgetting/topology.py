"""How the sub-network of each task is found: its density, its first mask, what goes and what comes.

Source: Yildirim et al. 2024 (CPAL; arXiv 2308.14831) and its code.
"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from latebloom.methods.forgetting.method import check
from latebloom.nn.rewiring import GROWTHS, PRUNES, Prune

# More than this share of the weights must be free for a task to start by ERK, else it does uniformly.
INITS = {"uniform": 1.0, "erk": -1.0, "adaptive": 0.5}
RULES = (*GROWTHS, "bandit")


class Topology(eqx.Module):
    """How each task's sub-network is found; numbers are traced, so that runs which differ in them share
    a program.

    - `density`: share of the weights that a task starts with and keeps.
    - `init`: "uniform", or by layers' shapes, "erk"; "adaptive": ERK while more than half of all weights
      are free, then uniform.
    - `growth`: one of `GROWTHS`, or "bandit": UCB1 over them, by the training accuracy at a task's end,
      with bonus `exploration` sqrt(2 log t / n).
    - `prune`: one of `PRUNES`. `updates` of the topology in each task, evenly spaced; they prune a share that
      falls by a half cosine from `drop` to 0.005. With `drop` 0 the masks are static.
    - `refill`: free weights start a task from new initial values, times this; 0 leaves them at 0.
    - `isolate`: weights of earlier tasks are frozen. `own_biases`: what has no mask, such as biases and
      normalisation, is kept for each task; else the last one's serve all, which forgets.
    - `keep`: of the last network of a task, or that with the "best" training accuracy between two updates.
    - `ignore`: layers without a mask, which each task keeps whole, as `nn.masks.dense_masks` takes them.
    """

    density: Float[Array, ""]
    erk_above: Float[Array, ""]
    growth: Int[Array, ""]
    drop: Float[Array, ""]
    refill: Float[Array, ""]
    isolate: Bool[Array, ""]
    own_biases: Bool[Array, ""]
    exploration: Float[Array, ""]
    updates: int = eqx.field(static=True)
    prune: Prune = eqx.field(static=True)
    keep: Literal["last", "best"] = eqx.field(static=True)
    ignore: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self, density: float | Array = 0.2, init: Literal["uniform", "erk", "adaptive"] = "uniform",
        growth: Literal["random", "unfired", "gradient", "momentum", "bandit"] = "random", *,
        drop: float | Array = 0.5, refill: float | Array = 0.0, isolate: bool = True, own_biases: bool = True,
        exploration: float | Array = 0.05, updates: int = 20, prune: Prune = "magnitude",
        keep: Literal["last", "best"] = "last", ignore: tuple[str, ...] = (),
    ):  # fmt: skip
        for name, value, known in (("init", init, tuple(INITS)), ("growth", growth, RULES),
                                   ("prune", prune, PRUNES), ("keep", keep, ("last", "best"))):  # fmt: skip
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        if int(updates) != updates or updates < 0:
            raise ValueError(f"updates must be a whole number from 0 on, not {updates}")
        self.density, self.drop = jnp.asarray(density, jnp.float32), jnp.asarray(drop, jnp.float32)
        self.refill = jnp.asarray(refill, jnp.float32)
        self.exploration = jnp.asarray(exploration, jnp.float32)
        self.erk_above = jnp.float32(INITS[init])
        self.growth = jnp.int32(RULES.index(growth))
        self.isolate, self.own_biases = jnp.asarray(isolate), jnp.asarray(own_biases)
        self.updates, self.prune, self.keep, self.ignore = int(updates), prune, keep, tuple(ignore)

    def __check_init__(self) -> None:
        check(self, "density", 0, 1, above=True)
        check(self, "drop", 0, 1)
        check(self, "refill")
        check(self, "exploration")


def stepped_adam(rate: float | Array, steps: int) -> optax.GradientTransformation:
    """Adam whose rate falls to a tenth after a half of the steps and again after three quarters.

    Source: the authors' code.
    """
    falls = {max(steps // 2, 1): 0.1, max(3 * steps // 4, 2): 0.1}
    return optax.adam(optax.piecewise_constant_schedule(rate, falls))  # pyright: ignore
