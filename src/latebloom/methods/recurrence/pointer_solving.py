"""A trained pointer network put to use: kept in a file, and answers to sets of points that always are answers.

What the network writes is checked. Where it is no tour or no simple polygon, a rule answers in its place, and it is said
which. Tours are compared with a length that none is below, hulls with the true one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from latebloom.core.checkpoint import DamagedFile, load_arrays, save_arrays
from latebloom.core.process import advanced
from latebloom.data.planar import Hulls, checked_points, hull, label_all
from latebloom.data.point_files import unit_square
from latebloom.data.tours import (
    Tours,
    distances,
    held_karp,
    nearest_neighbour,
    one_tree_bound,
    tour_length,
)
from latebloom.methods.recurrence.pointer import PointerNetwork
from latebloom.methods.recurrence.pointer_answers import hull_scores, task
from latebloom.methods.recurrence.pointer_decoding import write
from latebloom.methods.recurrence.pointer_learning import PointerLearner, clipped_adam

Solved = Literal["tour", "hull"]
MOST = 2000  # points of a set
EXACT = 12  # cities up to which the shortest tour is found
ROOM = 8_000_000  # numbers that the beam's memory may hold at once
POINTER = "pointer"


@dataclass(frozen=True)
class Solver:
    """A pointer network, and what it was trained on: `kind` of problem, sets of `low` to `high` points."""

    model: PointerNetwork
    kind: Solved
    low: int
    high: int
    size: int


@dataclass(frozen=True)
class Answer:
    """The answer to one set of n points.

    - `places`: indices from 0 on: a tour through all, or the corners of a polygon in order.
    - `by`: "pointer", or the rule that answered in its place: "nearest neighbour", "exact".
    - `value`: the tour's length, or the area; `bound`: a length that no tour is below, `exact` if it is that of the
      shortest one; or the area of the hull. `gap`: value over bound, less 1; of areas 1 less value over bound; not a
      number where the bound is 0.
    - `rule`: the length of the nearest neighbour's tour; the area of the polygon of the extremes of x and y.
    """

    places: Int[np.ndarray, " places"]
    by: str
    value: float
    bound: float
    exact: bool
    gap: float
    rule: float


def train_solver(
    kind: Solved, *, low: int = 5, high: int = 10, size: int = 64, steps: int = 6000, batch: int = 64, rate: float = 5e-3,
    seed: int = 0, say: Callable[[float], None] = lambda share: None,
) -> Solver:  # fmt: skip
    """A network trained on problems drawn evenly in the unit square, by Adam at a rate that falls along a cosine.

    Raises `ValueError` for another kind, fewer than 3 points, tours of more than 12, and settings below 1 (rate: 0).
    """
    if kind not in ("tour", "hull"):
        raise ValueError(f'kind must be "tour" or "hull", not {kind!r}')
    for name, value in {"size": size, "steps": steps, "batch": batch}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not 0 < rate < np.inf:
        raise ValueError(f"rate must be above 0 and finite, not {rate}")
    problems = Tours(low, high) if kind == "tour" else Hulls(low, high)
    process = PointerLearner(
        network=lambda key: PointerNetwork(size, key=key), problems=problems, kind=kind, batch=batch, bound=None,
        exams={"": problems.draw(jax.random.key(0), 1)}, hyper={"learning_rate": rate},
        optimiser=lambda learning_rate: clipped_adam(optax.cosine_decay_schedule(learning_rate, steps)),
    )  # fmt: skip
    state = eqx.filter_jit(process.init)(jax.random.key(seed))
    parts = min(10, steps)
    for part in range(parts):
        more = (part + 1) * steps // parts - part * steps // parts
        state = advanced(process, state, jnp.int32(more))
        jax.block_until_ready(state.step)
        say((part + 1) / parts)
    return Solver(state.model, kind, low, high, size)


def save_solver(solver: Solver, path: str | os.PathLike[str]) -> None:
    """Into one file, with a checksum, aside and renamed."""
    leaves = jax.tree.leaves(eqx.filter(solver.model, eqx.is_array))
    note = {"what": "pointer network", "kind": solver.kind, "low": solver.low, "high": solver.high, "size": solver.size}  # fmt: skip
    save_arrays(path, {str(i): leaf for i, leaf in enumerate(leaves)}, note)


def load_solver(path: str | os.PathLike[str]) -> Solver:
    """What `save_solver` wrote; raises `ValueError` for what is no such file, or damaged."""
    try:
        leaves, note = load_arrays(path)
    except OSError as error:
        raise ValueError(f"the network {path} cannot be read: {error.strerror}") from None
    except DamagedFile:
        raise ValueError(f"{path} is no network that was kept here, or it is damaged: train another one") from None  # fmt: skip
    if note.get("what") != "pointer network":
        raise ValueError(f"{path} holds no pointer network")
    like = eqx.filter_eval_shape(PointerNetwork, note["size"], key=jax.random.key(0))
    shapes, tree = jax.tree.flatten(like)
    model = jax.tree.unflatten(tree, [jnp.asarray(leaves[str(i)]) for i in range(len(shapes))])
    return Solver(model, note["kind"], note["low"], note["high"], note["size"])


def solve(
    solver: Solver, sets: Sequence[Float[Any, "n 2"]], between: Sequence[Float[Any, "n n"] | None] | None = None, *,
    width: int = 5,
) -> list[Answer]:  # fmt: skip
    """An answer to each set of points, which may be anywhere in the plane; the network sees them moved into the unit square.

    - `between`: distances by which tours are measured, symmetric; where left out (or None) Euclidean.
    - `width` of the beam; only tours are looked at, polygons are written freely.

    Raises `ValueError` for no sets, more than 2,000 points, a width below 1, distances of another size, and what are no
    points in the plane.
    """
    known = [checked_points(one) for one in sets]
    given = [None] * len(known) if between is None else list(between)
    if not known or len(given) != len(known):
        raise ValueError(f"there must be sets of points, and distances of each: there are {len(known)} and {len(given)}")  # fmt: skip
    for i, (one, d) in enumerate(zip(known, given, strict=True)):
        if len(one) > MOST:
            raise ValueError(f"set {i} has {len(one):,} points: at most {MOST:,} are taken")
        if d is not None and np.shape(d) != (len(one), len(one)):
            raise ValueError(f"distances of set {i} must be {[len(one)] * 2}, not {list(np.shape(d))}")  # fmt: skip
    tokens = _written(solver, known, width)
    if solver.kind == "hull":
        valid = _simple(known, tokens)
        return [_polygon(*three) for three in zip(known, tokens, valid, strict=True)]
    return [_tour(*three) for three in zip(known, given, tokens, strict=True)]


def pointed(solver: Solver, points: Float[Any, "n 2"], answer: Answer) -> Float[np.ndarray, "steps slots"]:  # fmt: skip
    """How the network's probability is spread over the end and the points, at each step of an answer."""
    end = [] if solver.kind == "tour" else [0]
    tokens = jnp.asarray([[*(answer.places + 1).tolist(), *end]], jnp.int32)
    x = jnp.asarray(unit_square(checked_points(points)), jnp.float32)[None]
    scores = solver.model(x, jnp.array([x.shape[1]]), tokens)
    return np.asarray(jax.nn.softmax(scores[0], axis=-1))


def _written(solver: Solver, sets: Sequence[np.ndarray], width: int) -> list[np.ndarray]:
    """Tokens of each set, without their end; none where nothing was likely."""
    n = max(map(len, sets))
    at_once = int(np.clip(ROOM // (n * width * solver.size), 1, len(sets))) if width > 0 else 1
    known = task(solver.kind)
    ask = partial(write, steps=known.steps(n), width=width, tours=known.tours)
    found = []
    for first in range(0, len(sets), at_once):
        part = [sets[i % len(sets)] for i in range(first, first + at_once)]
        points = np.zeros((at_once, n, 2), np.float32)
        for row, one in zip(points, part, strict=True):
            row[: len(one)] = unit_square(one)
        told = ask(solver.model, jnp.asarray(points), jnp.asarray([len(one) for one in part]))
        for row, likely in zip(np.asarray(told.tokens[:, 0]), np.asarray(told.log_p[:, 0]), strict=True):  # fmt: skip
            ended = int((row == 0).argmax()) if (row == 0).any() else len(row)
            found.append(row[:ended] if np.isfinite(likely) else row[:0])
    return found[: len(sets)]


def _tour(points: np.ndarray, between: Any, tokens: np.ndarray) -> Answer:
    d = distances(points) if between is None else np.asarray(between, np.float64)
    n, near = len(points), nearest_neighbour(d)
    valid = sorted(tokens.tolist()) == list(range(1, n + 1))
    places, by = (tokens - 1, POINTER) if valid else (near.cities, "nearest neighbour")
    exact = n <= EXACT
    bound = float(held_karp(d).length) if exact else one_tree_bound(d)
    value = float(tour_length(d, places))
    gap = value / bound - 1 if bound > 0 else float("nan")
    return Answer(np.asarray(places, np.int64), by, value, bound, exact, gap, float(near.length))


def _simple(sets: Sequence[np.ndarray], tokens: Sequence[np.ndarray]) -> list[bool]:
    """Whether they are simple polygons."""
    ended = np.zeros((len(sets), max(map(len, tokens)) + 1), np.int32)
    for row, own in zip(ended, tokens, strict=True):
        row[: len(own)] = own
    problems = label_all([unit_square(one) for one in sets], hull)
    return [not fails for fails in np.asarray(_hull_scores(jnp.asarray(ended), problems)["failed"])]


_hull_scores = eqx.filter_jit(hull_scores)


def _polygon(points: np.ndarray, tokens: np.ndarray, valid: bool) -> Answer:
    true = hull(points)
    places, by = (tokens - 1, POINTER) if valid else (true, "exact")
    value, bound = area(points[places]), area(points[true])
    around = (points[:, 1].argmin(), points[:, 0].argmax(), points[:, 1].argmax(), points[:, 0].argmin())  # fmt: skip
    rule = area(points[list(dict.fromkeys(map(int, around)))])
    gap = 1 - value / bound if bound > 0 else float("nan")
    return Answer(np.asarray(places, np.int64), by, value, bound, True, gap, rule)


def area(corners: Float[np.ndarray, "corners 2"]) -> float:
    """Of a simple polygon."""
    seen = corners - corners[0]
    after = np.roll(seen, -1, axis=0)
    return float(abs((seen[:, 0] * after[:, 1] - seen[:, 1] * after[:, 0]).sum()) / 2)
