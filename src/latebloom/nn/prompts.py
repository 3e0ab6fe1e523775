"""Vision transformers that learn by prompts: the body stays, tokens or prefixes before the image's are learned.

Which prompts an image gets is told by the frozen body's own features of it: the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.nn.transformer import Prefix
from latebloom.nn.vit import ViT

Read = Literal["all", "prompts"]


class PromptPool(eqx.Module):
    """Learning to prompt (L2P): an image's tokens come after the `top` of `pool` prompts whose keys are most like it.

    - `vit`: the pre-trained body and its head.
    - `length` tokens a prompt; the head reads the mean of "all" tokens, or of those of the "prompts" (`read`).

    Each image has prompts of its own; the reference code may take the most frequent of a batch.

    Raises `ValueError` for sizes below 1, more prompts than there are, and a body that is no `ViT`.

    Source: Wang et al. 2022 (arXiv 2112.08654).
    """

    vit: ViT
    keys: Float[Array, "pool size"]
    prompts: Float[Array, "pool length size"]
    top: int = eqx.field(static=True)
    read: Read = eqx.field(static=True)

    def __init__(
        self, vit: ViT, *, key: PRNGKeyArray, pool: int = 10, length: int = 5, top: int = 5,
        read: Read = "all",
    ):  # fmt: skip
        _check(vit)
        if pool < 1 or length < 1 or not 1 <= top <= pool:
            raise ValueError(
                f"pool and length must be at least 1 and top from 1 to pool, not {pool}, {length}, {top}"
            )
        if read not in get_args(Read):
            raise ValueError(f"read must be 'all' or 'prompts', not {read!r}")
        one, two = jax.random.split(key)
        size = vit.embedding.weight.shape[1]
        self.vit, self.top, self.read = vit, top, read
        self.keys = _drawn(one, (pool, size))
        self.prompts = _drawn(two, (pool, length, size))

    def chosen(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch top"], Int[Array, "batch top"]]:
        """Cosines of the query and the keys that are most like it, and which keys these are."""
        near, which = jax.lax.top_k(cosines(query(self.vit, x), self.keys), self.top)
        return near, which

    def __call__(
        self, x: Float[Array, "batch height width channels"], *,
        key: PRNGKeyArray | None = None, train: bool = False,
    ) -> Float[Array, "batch out"]:  # fmt: skip
        which = self.chosen(x)[1]
        before = self.prompts[which].reshape(len(x), -1, self.prompts.shape[-1])
        h = self.vit.encoded(jnp.concatenate([before, self.vit.embedded(x)], axis=1))
        return self.vit.readout(
            self.vit.pooled(h if self.read == "all" else h[:, : before.shape[1]])
        )

    def of_task(self, task: Int[Array, ""]) -> PromptPool:
        """How it learns a task: as any other."""
        return self

    def matching(self, x: Float[Array, "batch height width channels"]) -> Float[Array, ""]:
        """Mean over the batch of the sum of 1 - cosine over the chosen keys."""
        return (1 - self.chosen(x)[0]).sum(axis=1).mean()


class DualPrompt(eqx.Module):
    """General prompts that all tasks share in some blocks, and expert prompts of each task in others.

    A prompt of a block is `length` more keys and values. In training a task has its own expert; otherwise an image
    gets the expert whose key is most like it, as in the reference code among all, those to come included.

    - `tasks`: how many experts there are.
    - `general`, `expert`: the numbers of the blocks that have either.

    Raises `ValueError` for sizes below 1, blocks that there are not or that are named twice, and a body that is no `ViT`.

    Source: Wang et al. 2022 (arXiv 2204.04799), with prefix tuning.
    """

    vit: ViT
    keys: Float[Array, "tasks size"]
    general: Float[Array, "blocks 2 general_length size"]
    expert: Float[Array, "tasks blocks 2 expert_length size"]
    task: Int[Array, ""]  # whose expert all images get; none: -1
    general_at: tuple[int, ...] = eqx.field(static=True)
    expert_at: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, vit: ViT, tasks: int, *, key: PRNGKeyArray, general_length: int = 5, expert_length: int = 5,
        general: Sequence[int] = (0,), expert: Sequence[int] = (1, 2),
    ):  # fmt: skip
        _check(vit)
        if min(tasks, general_length, expert_length) < 1:
            raise ValueError(
                f"tasks and lengths must be at least 1, not {tasks}, {general_length} and {expert_length}"
            )
        there = range(len(vit.blocks))
        if lost := [i for i in (*general, *expert) if i not in there]:
            raise ValueError(f"there is no block {lost[0]}: there are 0 to {len(there) - 1}")
        if twice := [i for of in (general, expert) for i in set(of) if list(of).count(i) > 1]:
            raise ValueError(f"block {twice[0]} is named twice: give it longer prompts instead")
        keys = jax.random.split(key, 3)
        size = vit.embedding.weight.shape[1]
        self.vit, self.task = vit, jnp.int32(-1)
        self.general_at, self.expert_at = tuple(general), tuple(expert)
        self.keys = _drawn(keys[0], (tasks, size))
        self.general = _drawn(keys[1], (len(general), 2, general_length, size))
        self.expert = _drawn(keys[2], (tasks, len(expert), 2, expert_length, size))

    def chosen(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, " batch"], Int[Array, " batch"]]:
        """Cosine of the query and the key of each image's expert, and which expert that is."""
        found = cosines(query(self.vit, x), self.keys)
        which = jnp.where(self.task >= 0, self.task, found.argmax(axis=1))
        return jnp.take_along_axis(found, which[:, None], axis=1)[:, 0], which

    def __call__(
        self, x: Float[Array, "batch height width channels"], *,
        key: PRNGKeyArray | None = None, train: bool = False,
    ) -> Float[Array, "batch out"]:  # fmt: skip
        of = self.expert[self.chosen(x)[1]]
        prefixes: dict[int, Prefix] = {}
        for place, block in enumerate(self.general_at):
            one, two = (jnp.broadcast_to(p, (len(x), *p.shape)) for p in self.general[place])
            prefixes[block] = one, two
        for place, block in enumerate(self.expert_at):
            one, two = of[:, place, 0], of[:, place, 1]
            if block in prefixes:
                before = prefixes[block]
                one, two = (jnp.concatenate(p, 1) for p in zip(before, (one, two), strict=True))
            prefixes[block] = one, two
        return self.vit.readout(self.vit.pooled(self.vit.encoded(self.vit.embedded(x), prefixes)))

    def of_task(self, task: Int[Array, ""]) -> DualPrompt:
        """How it learns a task: all images get the task's expert."""
        return eqx.tree_at(lambda m: m.task, self, jnp.asarray(task, jnp.int32))

    def matching(self, x: Float[Array, "batch height width channels"]) -> Float[Array, ""]:
        """Mean over the batch of 1 - cosine of the query and the expert's key."""
        return (1 - self.chosen(x)[0]).mean()


def _check(vit: Any) -> None:
    if not isinstance(vit, ViT):
        raise ValueError(
            f"prompts go before the tokens of a latebloom.nn.ViT: the body cannot be a {type(vit).__name__}"
        )


def query(vit: ViT, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch size"]:
    """What the body without prompts makes of images; no gradient goes through it."""
    return jax.lax.stop_gradient(vit.pooled(vit.encoded(vit.embedded(x))))


def cosines(
    a: Float[Array, "batch size"], b: Float[Array, "keys size"]
) -> Float[Array, "batch keys"]:
    """Cosines of all pairs of rows; 0 for a row of zeros."""
    a, b = (v * jax.lax.rsqrt(jnp.maximum(jnp.square(v).sum(axis=1, keepdims=True), 1e-12)) for v in (a, b))  # fmt: skip
    return a @ b.T


def _drawn(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
