"""Matrix completion by deep factorisation, first on a poor task and then on the true one.

A matrix is fitted to its observed entries by a product of D factors, by gradient descent from a small
start, which prefers low rank if D is 2 or more. A deficit is a first phase of T steps with another
matrix behind the same entries ("wrong task first"), or with fewer entries ("poor data first").
Kleinman, Achille, Soatto (arXiv 2308.12221), section 4; the model is that of Arora, Cohen, Hu, Luo
(NeurIPS 2019, arXiv 1905.13655).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from latebloom.core.process import Process, Quantity

Factors = tuple[Float[Array, "m n"], ...]
LEADING = 10  # singular values that are recorded


def product(factors: Factors) -> Array:
    """W_1 W_2 ... W_D."""
    out = factors[0]
    for factor in factors[1:]:
        out = out @ factor
    return out


def gaussian_factors(
    key: PRNGKeyArray, shape: tuple[int, int], depth: int, scale: float | Array
) -> Factors:
    """D factors with independent entries of standard deviation scale^(1/D) / sqrt(hidden).

    hidden = min(shape); the product of square ones has Frobenius norm of about scale sqrt(n).
    """
    hidden = min(shape)
    sizes = [shape[0], *[hidden] * (depth - 1), shape[1]]
    deviation = jnp.asarray(scale, jnp.float32) ** (1 / depth) * hidden**-0.5
    shapes = list(itertools.pairwise(sizes))
    draws = deviation * jax.random.normal(key, (sum(m * n for m, n in shapes),), jnp.float32)
    ends = np.cumsum([m * n for m, n in shapes])
    parts = jnp.split(draws, ends[:-1])
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))


class Task(NamedTuple):
    """A matrix and which of its entries (1 or 0) are observed."""

    target: Float[Array, "m n"]
    seen: Float[Array, "m n"]

    def loss(self, factors: Factors) -> Float[Array, ""]:
        """Half the mean squared error over the observed entries."""
        return 0.5 * mean_square(product(factors) - self.target, self.seen)


def mean_square(error: Float[Array, "m n"], weights: Float[Array, "m n"]) -> Float[Array, ""]:
    return jnp.sum(weights * error**2) / weights.sum()


class Curriculum(NamedTuple):
    """The poor task, the true task, and the entries that the true one is judged by."""

    first: Task
    second: Task
    judged: Float[Array, "m n"]


def low_rank_matrix(
    key: PRNGKeyArray, size: int, rank: int | Array, max_rank: int
) -> Float[Array, "n n"]:
    """U V^T with Gaussian U and V of `rank` columns, scaled to a mean square entry of 1.

    `rank` may be traced; `max_rank` bounds it.
    """
    u, v = jax.random.normal(key, (2, size, max_rank), jnp.float32)
    w = (u * (jnp.arange(max_rank) < rank)) @ v.T
    return w * size / jnp.linalg.norm(w)


class LowRankTasks(eqx.Module):
    """Draws two low-rank matrices and the observed entries for each seed.

    - `rank1`, `rank2`: of the first and the true matrix; `same` makes the first one the true one.
    - `n1`, `n2`: entries observed in the two phases; the smaller set lies within the larger one.

    Entries are drawn anew until the observed ones have a root mean square between 0.8 and 1.2 in both
    phases, up to 100 times. All numbers but `size` and `max_rank` are array leaves.
    """

    rank1: Array
    rank2: Array
    n1: Array
    n2: Array
    same: Bool[Array, ""]
    size: int = eqx.field(static=True)
    max_rank: int = eqx.field(static=True)

    def __init__(
        self, *, size: int = 100, rank1: int = 10, rank2: int = 5, n1: int = 2000, n2: int = 2000,
        same: bool = False, max_rank: int = 15,
    ):  # fmt: skip
        if not (1 <= rank1 <= max_rank and 1 <= rank2 <= max_rank):
            raise ValueError(f"ranks must be from 1 to {max_rank}, not {rank1} and {rank2}")
        if not (1 <= n1 <= size**2 and 1 <= n2 <= size**2):
            raise ValueError(
                f"a {size} x {size} matrix has from 1 to {size**2} observed entries, not {n1} and {n2}"
            )
        self.rank1, self.rank2, self.n1, self.n2 = map(jnp.int32, (rank1, rank2, n1, n2))
        self.same, self.size, self.max_rank = jnp.asarray(same), size, max_rank

    @property
    def shape(self) -> tuple[int, int]:
        return self.size, self.size

    def __call__(self, key: PRNGKeyArray) -> Curriculum:
        other_key, second_key, seen_key = jax.random.split(key, 3)
        second = low_rank_matrix(second_key, self.size, self.rank2, self.max_rank)
        other = low_rank_matrix(other_key, self.size, self.rank1, self.max_rank)
        first = jnp.where(self.same, second, other)
        places = jnp.arange(self.size**2)

        def draw(tried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            bits = jax.random.bits(jax.random.fold_in(seen_key, tried[0]), places.shape, jnp.uint32)
            rank = jnp.zeros_like(places).at[jnp.argsort(bits)].set(places).reshape(self.shape)
            seen1, seen2 = ((rank < n).astype(jnp.float32) for n in (self.n1, self.n2))
            return tried[0] + 1, seen1, seen2

        def unfit(tried: tuple[Array, Array, Array]) -> Array:
            attempt, *seen = tried
            rms = [mean_square(w, m) ** 0.5 for w, m in zip((first, second), seen, strict=True)]
            fits = jnp.all(jnp.abs(jnp.stack(rms) - 1) <= 0.2)  # no entries are not fit
            return (attempt < 100) & ~fits

        nothing = jnp.zeros(self.shape, jnp.float32)
        _, seen1, seen2 = jax.lax.while_loop(unfit, draw, (jnp.int32(0), nothing, nothing))
        return Curriculum(
            Task(first, seen1), Task(second, seen2), jnp.ones(self.shape, jnp.float32)
        )


class GivenTasks(eqx.Module):
    """The same two tasks for every seed: matrices of your own, with masks of what is observed.

    `judged` marks the entries on which the result is measured (not among those observed second).
    What is neither observed nor judged may be NaN, as gaps are.

    Raises `ValueError` for shapes that differ, a mask without an entry, and values that are needed and
    are not finite.
    """

    curriculum: Curriculum

    def __init__(
        self, first: ArrayLike, first_seen: ArrayLike, second: ArrayLike, second_seen: ArrayLike,
        judged: ArrayLike,
    ):  # fmt: skip
        names = ("first", "first_seen", "second", "second_seen", "judged")
        arrays = [
            np.asarray(a, np.float32) for a in (first, first_seen, second, second_seen, judged)
        ]
        for name, array in zip(names, arrays, strict=True):
            if array.ndim != 2 or array.shape != arrays[0].shape:
                raise ValueError(
                    f"{name} has the shape {list(array.shape)}: it must be a matrix of the same shape "
                    f"as first, {list(arrays[0].shape)}"
                )
            if name not in ("first", "second") and not (
                array.any() and np.isin(array, (0, 1)).all()
            ):
                raise ValueError(f"{name} must be 1 at some entries and 0 at the others")
        w1, m1, w2, m2, judged = arrays
        needed = {"first": (w1, m1), "second": (w2, np.maximum(m2, judged))}  # pyright: ignore
        for name, (target, where) in needed.items():
            gaps = np.argwhere((where > 0) & ~np.isfinite(target))
            if len(gaps):
                row, column = gaps[0]
                raise ValueError(
                    f"{name} is {target[row, column]} at row {row}, column {column}, which is marked as "
                    "observed or judged: only other entries may be gaps"
                )
        w1, w2 = (np.where(where > 0, target, 0) for target, where in needed.values())
        w1, m1, w2, m2, judged = map(jnp.asarray, (w1, m1, w2, m2, judged))
        self.curriculum = Curriculum(Task(w1, m1), Task(w2, m2), judged)

    @property
    def shape(self) -> tuple[int, int]:
        return self.curriculum.judged.shape  # pyright: ignore

    def __call__(self, key: PRNGKeyArray) -> Curriculum:
        return self.curriculum


class Sweep(NamedTuple):
    factors: Factors
    trunk: Factors  # the first phase, kept while a branch runs
    tasks: Curriculum
    final_error: Float[Array, " removal"]
    final_train: Float[Array, " removal"]
    final_spectrum: Float[Array, "removal leading"]
    step: Int[Array, ""]


class DeficitSweep(Process):
    """Completion after deficits of several lengths, all from one start, the first phase run once.

    The deficit is removed after T = `removals`[0], [1], ... steps; from each of these states the true
    task is learnt for `post` steps, always the same number. One step of the process is one step of
    gradient descent. The order is: first phase up to `removals[0]`, its branch, back to the first
    phase and on to `removals[1]`, its branch, and so on; `total_steps` is the whole.

    - `tasks(key)` gives the `Curriculum`; `depth` factors; `rate` of gradient descent; `init_scale`
      see `gaussian_factors`.

    Observed: `final_error` (mean squared error over the judged entries at the end of each branch, NaN
    until then), `final_train`, `final_spectrum`; and of the current factors `error`, `train_loss`,
    `spectrum`, with `branch` (the branch's number, or -1 in the first phase) and `age` (steps of the
    current factors since the start). `fill_error` is what zeros at the unobserved entries give, the
    solution of least norm.

    Raises `ValueError` for removals that do not increase, and numbers out of range.
    """

    tasks: Callable[[PRNGKeyArray], Curriculum]
    removals: Int[Array, " removal"]
    post: Array
    rate: Array
    init_scale: Array
    depth: int = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)

    seeds_by = "map"  # plain matrix products are faster than batched ones

    def __init__(
        self, tasks: LowRankTasks | GivenTasks, removals: Sequence[int], post: int, *, depth: int = 3,
        rate: float = 0.2, init_scale: float = 1e-3,
    ):  # fmt: skip
        at = np.asarray(removals)
        if at.ndim != 1 or not len(at) or at[0] < 0 or (np.diff(at) <= 0).any():
            raise ValueError(
                f"removals must be increasing numbers of steps from 0 on, not {removals!r}"
            )
        if depth < 1 or post < 1 or rate <= 0 or init_scale <= 0:
            raise ValueError(
                f"depth {depth} and post {post} must be at least 1, rate {rate} and init_scale "
                f"{init_scale} positive"
            )
        self.tasks, self.depth, self.shape = tasks, depth, tasks.shape
        self.removals, self.post = jnp.asarray(at, jnp.int32), jnp.int32(post)
        self.rate, self.init_scale = jnp.float32(rate), jnp.float32(init_scale)

    @property
    def total_steps(self) -> int:
        """Steps of the process until the last branch ends."""
        return int(self.removals[-1] + len(self.removals) * self.post)

    def starts(self) -> Int[Array, " removal"]:
        """Steps of the process at which the branches start; each lasts `post` steps."""
        return self.removals + jnp.arange(len(self.removals)) * self.post

    def init(self, key: PRNGKeyArray) -> Sweep:
        task_key, factor_key = jax.random.split(key)
        factors = gaussian_factors(factor_key, self.shape, self.depth, self.init_scale)
        empty = jnp.zeros(len(self.removals))
        spectra = jnp.zeros((len(self.removals), min(LEADING, *self.shape)))
        return Sweep(
            factors, factors, self.tasks(task_key), empty, empty, spectra, jnp.int32(0)
        )  # fmt: skip

    def step(self, state: Sweep) -> Sweep:
        starts, ends = self.starts(), self.starts() + self.post
        trunk = jax.lax.cond(
            jnp.any(state.step == starts), lambda: state.factors, lambda: state.trunk
        )
        in_branch = jnp.any((starts <= state.step) & (state.step < ends))
        first, second = state.tasks.first, state.tasks.second
        task = Task(
            jnp.where(in_branch, second.target, first.target),
            jnp.where(in_branch, second.seen, first.seen),
        )
        gradients = jax.grad(task.loss)(state.factors)
        factors = jax.tree.map(lambda w, g: w - self.rate * g, state.factors, gradients)
        moved = state._replace(factors=factors, trunk=trunk, step=state.step + 1)
        ended = moved.step == ends

        def finish() -> Sweep:
            w = product(factors)
            error = mean_square(w - second.target, state.tasks.judged)
            return moved._replace(
                factors=trunk,
                final_error=jnp.where(ended, error, state.final_error),
                final_train=jnp.where(ended, second.loss(factors), state.final_train),
                final_spectrum=jnp.where(ended[:, None], leading(w), state.final_spectrum),
            )

        return jax.lax.cond(ended.any(), finish, lambda: moved)

    def observe(self, state: Sweep) -> dict[str, Array]:
        starts = self.starts()
        place = state.step - starts
        running = (place >= 0) & (place < self.post)
        branch = jnp.where(running.any(), jnp.argmax(running), -1)
        over = place >= self.post
        tasks, w = state.tasks, product(state.factors)
        train = jnp.where(
            branch < 0, tasks.first.loss(state.factors), tasks.second.loss(state.factors)
        )
        return {
            "final_error": jnp.where(over, state.final_error, jnp.nan),
            "final_train": jnp.where(over, state.final_train, jnp.nan),
            "final_spectrum": jnp.where(over[:, None], state.final_spectrum, jnp.nan),
            "error": mean_square(w - tasks.second.target, tasks.judged),
            "train_loss": train,
            "spectrum": leading(w),
            "branch": branch.astype(jnp.int32),
            "age": (state.step - over.sum() * self.post).astype(jnp.int32),
            "fill_error": mean_square(
                tasks.second.target * (1 - tasks.second.seen), tasks.judged
            ),
        }  # fmt: skip

    def quantities(self) -> dict[str, Quantity]:
        removal = {"removal": self.removals.tolist()}
        rank = {"rank": list(range(1, min(LEADING, *self.shape) + 1))}
        return {
            "final_error": Quantity("1", ("removal",), removal, "reconstruction error", gaps=True),
            "final_train": Quantity("1", ("removal",), removal, "final training loss", gaps=True),
            "final_spectrum": Quantity(
                "1", ("removal", "rank"), removal | rank, "final singular values", gaps=True
            ),
            "error": Quantity("1", about="reconstruction error of the true matrix"),
            "train_loss": Quantity("1", about="loss on the observed entries"),
            "spectrum": Quantity("1", ("rank",), rank, "singular values of the product"),
            "age": Quantity("steps", about="steps since the start, deficit included"),
        }


def leading(w: Float[Array, "m n"]) -> Float[Array, " leading"]:
    return jnp.linalg.svd(w, compute_uv=False)[:LEADING]


def run_of(trace: xr.Dataset, branch: int) -> xr.Dataset:
    """One of the runs that a trace of `DeficitSweep` is made of, its first phase included.

    `step` is its age then: steps since the start, deficit included.
    """
    order = trace.isel(seed=0) if "seed" in trace.dims else trace
    before = (order.branch == -1) & (order.age <= trace.removal[branch])
    own = np.flatnonzero(((order.branch == branch) | before).values)
    ages, rows = np.unique(order.age.values[own], return_index=True)
    return trace.isel(step=own[rows]).assign_coords(step=ages)
