"""Forgetting embeddings, so that a network learns what to do with a word it does not know.

- Active forgetting (Chen et al., NeurIPS 2023, arXiv 2307.01163): embeddings are drawn anew every so many updates,
  for ever; the rest of the network keeps learning.
- Temporary forgetting (Anand, Lepori, Merullo and Pavlick, ICLR 2025, arXiv 2406.00053): the same up to an update
  after which embeddings may learn.
- Probabilistic forgetting (the same, third version): for one update some embeddings are noise.

`forgetting` is the first two for any loop on Optax; `forgotten` is one such moment, and `noised` the third.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.training import trainable
from latebloom.optim.parts import PART, trained

Where = Callable[[Any], Any]


class Forgetting(NamedTuple):
    """When and how embeddings are forgotten: after updates `every`, 2 `every`, ... before `until` (None: for ever).

    They are drawn from a normal distribution of deviation `spread` around 0: 1 is `torch.nn.Embedding`'s, which the
    authors' resets have, although BERT starts from 0.02. With `moments` the optimiser's memory of them starts anew too,
    its count of updates included (Chen et al.).
    """

    every: int
    until: int | None = None
    spread: float = 1.0
    moments: bool = True

    def updates(self, last: int) -> range:
        """The updates, up to `last`, after which they are forgotten."""
        end = last + 1 if self.until is None else min(last + 1, self.until)
        return range(self.every, end, self.every)

    def now(self, update: Int[Array, ""] | int) -> Any:
        """Whether they are forgotten after this update, counted from 1 (0: before the first)."""
        found = (update > 0) & (update % self.every == 0)
        return found if self.until is None else found & (update < self.until)

    def check(self) -> None:
        """Raises `ValueError` for settings that say nothing."""
        if self.every < 1:
            raise ValueError(f"every must be at least 1 update, not {self.every}")
        if self.until is not None and self.until < 1:
            raise ValueError(f"until must be an update from 1 on, or None, not {self.until}")
        if not 0 <= self.spread < float("inf"):
            raise ValueError(f"spread must be a number from 0 on, not {self.spread}")


class ForgettingState(NamedTuple):
    moments: optax.OptState
    key: PRNGKeyArray
    update: Int[Array, ""]


def drawn(key: PRNGKeyArray, like: Any, spread: float) -> Any:
    """A tree like this one, of normal numbers of this deviation, in its precision."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, max(len(leaves), 1))
    new = [
        (spread * jax.random.normal(k, x.shape, jnp.float32)).astype(x.dtype)
        for k, x in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(tree, new)


def anew(rule: optax.GradientTransformation, moments: Any, params: Any) -> Any:
    """The state of a rule of `optim.trained` with the moments of its part as they are at first.

    `params`: all parameters, as `rule.init` takes them.
    """
    first: Any = rule.init(params)
    return moments._replace(inner_states=moments.inner_states | {PART: first.inner_states[PART]})


def forgotten(
    rule: optax.GradientTransformation, model: Any, moments: Any, where: Where, how: Forgetting, key: PRNGKeyArray
) -> tuple[Any, Any]:  # fmt: skip
    """The model with what is at `where` drawn anew, and the state of `rule`, which is one of `optim.trained`, after it."""
    model = eqx.tree_at(where, model, drawn(key, where(model), how.spread))
    return model, anew(rule, moments, trainable(model)) if how.moments else moments


def forgetting(
    rule: optax.GradientTransformation, where: Where, how: Forgetting, *, key: PRNGKeyArray,
    embeddings: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:  # fmt: skip
    """An Optax rule in place of `rule`, after whose updates the parameters at `where` are forgotten now and then.

    - `where(params)` returns the embeddings, a leaf or a tree of leaves: `lambda m: m.embedding`. A tied output is
      the same leaf, and forgets with them.
    - `key` fixes what is drawn.
    - `embeddings`: a rule of their own for what is at `where`; None: the same as for the rest.

    Moments of the embeddings, their count included, are apart from those of all others. With that count a schedule of their
    rate starts anew each time (`how.moments`), while that of the rest goes on: so it is in Chen et al., whose code
    goes through the whole schedule, warm-up and decay, between two times. A schedule of a whole run would stay in its warm-up:
    give `embeddings` one that is `how.every` updates long, and, with an end, one that does not decay to 0, because after the last
    time it is not begun again.

    Where embeddings are drawn
    anew, the update is the difference to their new values: *what is examined or saved right after such an update knows no
    word*, so do it before (`how.now(update)`), or give an end. Rules that look at all parameters at once, as clipping
    by the global norm does, belong before it in a chain.

    Raises `ValueError` for settings that say nothing, no parameter at `where`, and `update` without parameters.
    """
    how.check()
    split = trained(rule if embeddings is None else embeddings, where, others=rule)

    def init(params: Any) -> ForgettingState:
        return ForgettingState(split.init(params), key, jnp.int32(0))

    def update(
        grads: Any, state: ForgettingState, params: Any = None
    ) -> tuple[Any, ForgettingState]:
        if params is None:
            raise ValueError("the parameters are wanted too: update(grads, state, params)")
        updates, moments = split.update(grads, state.moments, params)
        step = state.update + 1

        def renewed(found: tuple[Any, Any]) -> tuple[Any, Any]:
            updates, moments = found
            new = drawn(jax.random.fold_in(state.key, step), where(params), how.spread)
            changes = jax.tree.map(
                lambda a, b, u: (a - b).astype(u.dtype), new, where(params), where(updates)
            )
            after = anew(split, moments, params) if how.moments else moments
            # A rate that is an array widens the moments of half precision.
            after = jax.tree.map(lambda new, old: new.astype(old.dtype) if eqx.is_inexact_array(old) else new, after, moments)  # fmt: skip
            return eqx.tree_at(where, updates, changes), after

        updates, moments = jax.lax.cond(
            how.now(step), renewed, lambda found: found, (updates, moments)
        )
        return updates, ForgettingState(moments, state.key, step)

    return optax.GradientTransformation(init, update)  # pyright: ignore


def new_after(
    update: int, how: Forgetting, shape: tuple[int, ...], *, seed: int
) -> np.ndarray | None:
    """For a training loop outside JAX: what embeddings of this shape are to be after an update, or None if they are kept.

    `update` counts from 1. The optimiser's memory of them is then to be emptied, too (`how.moments`).
    """
    how.check()
    if not how.now(update):
        return None
    rng = np.random.default_rng([seed, update])
    return (how.spread * rng.standard_normal(shape)).astype(np.float32)


def noised(
    key: PRNGKeyArray,
    model: Any,
    where: Where,
    chance: Float[Array, " rows"] | float,
    spread: float = 1.0,
) -> Any:
    """The model with some rows of the matrix at `where` replaced by noise: for one forward and backward pass.

    Each row is with probability `chance`. The loss has no gradient in a row that is noise; the
    others learn. `where(model)` is one matrix [rows, size]; a row is a token.
    """
    matrix = where(model)
    if getattr(matrix, "ndim", 0) != 2:
        raise ValueError("where must return one matrix of embeddings, [tokens, size]")
    which, noise = jax.random.split(key)
    hidden = jax.random.bernoulli(which, chance, (len(matrix),))
    new = jnp.where(hidden[:, None], drawn(noise, matrix, spread), matrix)
    return eqx.tree_at(where, model, new)


def chance_of_occurring(
    tokens: Int[Array, "*n"], vocabulary: int, chance: Float[Array, ""] | float
) -> Float[Array, " vocabulary"]:
    """With which probability a token is noise, if each of its occurrences makes it so with `chance`.

    That is how the authors' code draws: common words are noise more often.
    """
    counts = jnp.zeros(vocabulary, jnp.int32).at[tokens.reshape(-1)].add(1)
    return 1 - (1 - jnp.asarray(chance, jnp.float32)) ** counts
