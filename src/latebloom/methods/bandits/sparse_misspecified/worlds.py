"""Kinds of instance by name, each drawn from a seed: the same one for every method that meets it."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from latebloom.data import load_table
from latebloom.methods.bandits.sparse_misspecified.design import Design, g_optimal_design
from latebloom.methods.bandits.sparse_misspecified.problem import (
    Decoys,
    Problem,
    adversarial_problem,
    compressible_problem,
    find_decoys,
    random_problem,
    sphere,
    table_problem,
)

TABLES = ("diabetes", "breast-cancer")


class Setting(NamedTuple):
    """One kind of instance: `d` features, `s` of which matter, off by `epsilon`.

    - `world`: features on the sphere with rewards that are off in an "adversarial" way, a "random" one
      or a "compressible" one; "gaussian" or "coherent" features; the table "diabetes" or
      "breast-cancer", whose epsilon is the linear fit's largest residual.
    """

    world: str
    d: int
    s: int
    epsilon: float


def grid(
    world: str, ds: tuple[int, ...], pairs: tuple[tuple[int, float], ...]
) -> tuple[Setting, ...]:
    """Settings of a world, for all numbers of features and all pairs (s, epsilon)."""
    return tuple(Setting(world, d, s, epsilon) for d in ds for s, epsilon in pairs)


def make_problem(seed: int, setting: Setting, actions: int) -> Problem:
    """The instance of a setting for a seed, of so many actions: "gaussian" and "coherent" worlds
    have twice as many, tables at most 300."""
    world, d, s, epsilon = setting
    if world == "adversarial":
        return _misleading(seed, setting, actions)
    rng = np.random.default_rng([seed, d, s, round(1000 * epsilon)])
    if world in TABLES:
        table = load_table(world)
        rows = rng.permutation(len(table.x))[: min(actions, 300)]
        return table_problem(table.x[rows].astype(float), table.y[rows].astype(float), s)
    if world in ("gaussian", "coherent"):
        features = gaussian_features(rng, 2 * actions, d, coherent=world == "coherent")
        return random_problem(rng, features, s, epsilon)
    features, _ = _sphere_and_design(seed, d, actions)
    make = compressible_problem if world == "compressible" else random_problem
    return make(rng, features, s, epsilon)


def design_of(instance: Problem, seed: int) -> Design:
    """The G-optimal design of an instance's features, kept for those that instances share."""
    n, d = instance.features.shape
    features, design = _sphere_and_design(seed, d, n)
    return design if features is instance.features else g_optimal_design(instance.features)


def gaussian_features(
    rng: np.random.Generator, n: int, d: int, *, coherent: bool = False
) -> Float[np.ndarray, "n d"]:
    """Gaussian features of norm at most 1; coherent ones share a common part that makes up 95 % of
    each column."""
    own, common = rng.normal(size=(n, d)), rng.normal(size=(n, 1))
    features = np.sqrt(0.95) * common + np.sqrt(0.05) * own if coherent else own
    return features / np.linalg.norm(features, axis=1).max()


@functools.lru_cache(maxsize=256)
def _sphere_and_design(seed: int, d: int, actions: int) -> tuple[np.ndarray, Design]:
    features = sphere(np.random.default_rng([seed, d]), actions, d)
    return features, g_optimal_design(features)


@functools.lru_cache(maxsize=8)
def _decoys(seed: int, d: int, actions: int) -> Decoys:
    return find_decoys(*_sphere_and_design(seed, d, actions))


@functools.lru_cache(maxsize=1024)
def _misleading(seed: int, setting: Setting, actions: int) -> Problem:
    rng = np.random.default_rng([seed, setting.d, setting.s, round(1000 * setting.epsilon)])
    features, _ = _sphere_and_design(seed, setting.d, actions)
    decoys = _decoys(seed, setting.d, actions)
    return adversarial_problem(rng, features, setting.s, setting.epsilon, decoys)
