"""A memory of examples, as row numbers: pure functions that add to it and draw from it.

Policies differ in what they share the places by (nothing, classes, tasks) and in whom they prefer.
All keep the best of what is there and what comes by one sort, so that shapes are fixed.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class Policy(NamedTuple):
    """Whom a memory keeps when it is full.

    - `by`: the places are shared evenly by the classes, or tasks, that are there, or not at all.
    - `prefer`: a random choice of all that came, those that came last or first, or, as long as a share
      is not used up, those that are in the memory already.
    - `share`: the most places that a class or task may have.
    """

    by: Literal["all", "class", "task"] = "all"
    prefer: Literal["random", "last", "first", "kept"] = "random"
    share: int | None = None


RESERVOIR = Policy()  # each example of the stream is kept with the same probability (Vitter 1985)
RING = Policy(prefer="last")
CLASS_BALANCED = Policy("class")
CLASS_RING = Policy("class", "last")
GREEDY = Policy("class", "kept")  # GDumb's sampler (Prabhu et al. 2020)


class Items(NamedTuple):
    """Examples: rows, labels and tasks, and what belongs to each, such as logits."""

    rows: Int[Array, " n"]
    labels: Int[Array, " n"]
    task: Int[Array, " n"]
    extra: Any = ()


class Memory(NamedTuple):
    """Places for examples; `filled` tells which are taken.

    `luck` is what each drew when it came, and `time` when that was.
    """

    items: Items
    luck: Float[Array, " size"]
    time: Int[Array, " size"]
    filled: Bool[Array, " size"]

    @property
    def size(self) -> int:
        return self.filled.shape[0]

    @property
    def count(self) -> Int[Array, ""]:
        return self.filled.sum()


def empty(size: int, extra: Any = ()) -> Memory:
    """A memory without examples; `extra`: shapes and types of what belongs to one, as a tree of arrays."""
    none = jnp.zeros(size, jnp.int32)
    more = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), extra)
    return Memory(Items(none, none, none, more), jnp.zeros(size), none, jnp.zeros(size, bool))


def add(
    memory: Memory, policy: Policy, items: Items, key: PRNGKeyArray,
    valid: Bool[Array, " n"] | None = None, once: bool = False,
) -> Memory:  # fmt: skip
    """The memory after some examples came in their order.

    - `valid`: which of them came. `once`: a row of a task that is there, or came before, does not come
      again; tasks may show one row in different views.
    """
    n = len(items.rows)
    valid = jnp.ones(n, bool) if valid is None else valid
    last = jnp.where(memory.filled, memory.time, -1).max()
    new = Memory(items, jax.random.uniform(key, (n,)), last + 1 + jnp.arange(n), valid)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b.astype(a.dtype)]), memory, new)
    total, fresh = memory.size + n, jnp.arange(memory.size + n) >= memory.size
    if once:
        order = jnp.lexsort((jnp.arange(total), both.items.task, both.items.rows, ~both.filled))
        rows, task = both.items.rows[order], both.items.task[order]
        same = (rows[1:] == rows[:-1]) & (task[1:] == task[:-1])
        again = jnp.concatenate([jnp.zeros(1, bool), same])
        both = both._replace(filled=both.filled & ~jnp.zeros(total, bool).at[order].set(again))
    wish = {
        "random": -both.luck,
        "last": -both.time,
        "first": both.time,
        "kept": fresh - both.luck,
    }[policy.prefer]
    if policy.by == "all":
        rank = jnp.zeros(total, int)
    else:
        group = both.items.labels if policy.by == "class" else both.items.task
        rank = _rank_within(jnp.where(both.filled, group, -1), wish)
    keep = both.filled if policy.share is None else both.filled & (rank < policy.share)
    best = jnp.lexsort((wish, rank, ~keep))[: memory.size]
    kept = jax.tree.map(lambda x: x[best], both)
    return kept._replace(filled=keep[best])


def draw(
    memory: Memory, key: PRNGKeyArray, n: int, by: Literal["all", "class"] = "all"
) -> tuple[Items, Bool[Array, " n"]]:
    """`n` different examples at random, and which of them there are where it holds fewer; these come first.

    `by="class"`: one after the other from a random class of those that have any left.

    Raises `ValueError` where the memory is too small.
    """
    if not 1 <= n <= memory.size:
        raise ValueError(f"{n} examples cannot be drawn from a memory of {memory.size}")
    luck = jax.random.uniform(key, (memory.size,))
    if by == "class":
        # Each class sends its examples at the times of a Poisson process: at any moment the next one
        # comes from each class that has some left with the same probability.
        group = jnp.where(memory.filled, memory.items.labels, -1)
        order = jnp.lexsort((luck, group))
        waits = -jnp.log1p(-jax.random.uniform(jax.random.fold_in(key, 1), (memory.size,)))
        since = jnp.cumsum(waits)
        first = jnp.searchsorted(group[order], group[order], side="left")
        luck = jnp.zeros(memory.size).at[order].set(since - since[first] + waits[first])
    chosen = jax.lax.top_k(jnp.where(memory.filled, -luck, -jnp.inf), n)[1]
    return jax.tree.map(lambda x: x[chosen], memory.items), memory.filled[chosen]


def _rank_within(group: Int[Array, " n"], wish: Float[Array, " n"]) -> Int[Array, " n"]:
    """The place of each in its group, by what is wished, from 0."""
    order = jnp.lexsort((wish, group))
    ordered = group[order]
    place = jnp.arange(len(group)) - jnp.searchsorted(ordered, ordered, side="left")
    return jnp.zeros(len(group), int).at[order].set(place)
