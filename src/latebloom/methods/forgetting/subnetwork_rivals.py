"""Rivals of `subnetworks`: separate networks, PackNet, gradual pruning; and what a sub-network can do on tasks to come.

Source: Yildirim et al. 2024 (CPAL; arXiv 2308.14831) and its code; PackNet: Mallya & Lazebnik 2018
(arXiv 1711.05769).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from latebloom.core.process import Quantity
from latebloom.core.stream import Stream
from latebloom.methods.forgetting.continual import ContinualState
from latebloom.methods.forgetting.subnetworks import Subnetworks, masked_leaves
from latebloom.nn.masks import masked
from latebloom.nn.rewiring import largest


class LookingAhead(Subnetworks):
    """Observed as well: `ahead` [task], what the sub-network that learns can do on tasks to come; NaN for others.

    It answers with the outputs of its own classes, the first of which stands for the first of the other
    task's, and so on, as in the authors' code for forward transfer. Only where tasks have the same classes do
    these belong to each other; elsewhere it is what an arbitrary naming gets.

    Raises `ValueError` where there is not one exam for each task.
    """

    def _check(self, stream: Stream) -> None:
        super()._check(stream)
        if self.exams != stream.tasks:
            raise ValueError(
                f"looking ahead needs one exam for each of the {stream.tasks} tasks, not {self.exams} in all"
            )

    def observe(self, state: ContinualState) -> dict[str, Array]:
        stream, exams = state.stream, state.stream.exams
        learning = stream.task[jnp.maximum(state.step - 1, 0)]
        network = self.network(state, learning)
        spare = self.outputs.shape[1] - stream.classes.shape[1]
        classes = jnp.pad(stream.classes, [(0, 0), (0, spare)])
        place = classes.cumsum(axis=1) - 1

        def hold(exam: Array) -> Array:
            rows, task = exams.rows[exam], exams.task[exam]
            x = stream.view(self.data.x_test[rows], jnp.full(len(rows), task))
            scores = self.apply(network, x, None, False)
            chosen = jnp.where(classes[learning], scores, -jnp.inf).argmax(axis=1)
            return (place[learning][chosen] == place[task][self.data.y_test[rows]]).mean()

        found = jax.lax.map(hold, jnp.arange(self.exams))
        ahead = jnp.full(self.exams, jnp.nan).at[exams.task].set(found)
        ahead = jnp.where(jnp.arange(self.exams) > learning, ahead, jnp.nan)
        return super().observe(state) | {"ahead": ahead}

    def quantities(self) -> dict[str, Quantity]:
        own, about = (
            super().quantities(),
            "accuracy on tasks to come, with outputs of the one learned",
        )
        return own | {"ahead": replace(own["accuracy"], about=about)}


class SeparateNetworks(Subnetworks):
    """Each task has a sparse network of its own, drawn anew: nothing is shared and nothing frozen."""

    separate: ClassVar[bool] = True


class PackNet(Subnetworks):
    """Each task trains all that is free, beside all that is frozen, then keeps an equal part of each layer.

    After half of its steps a task keeps the frozen weights and, of the others, as many of the largest as
    there are in a layer over the number of tasks; the rest is 0 and trained no more until the next task.

    Source: Mallya & Lazebnik 2018, Sec. 3, with equal parts.
    """

    def _update_steps(self) -> list[int]:
        return [(start + end) // 2 for start, end in self._spans]

    def _first_mask(self, used: Any, key: Any) -> Any:
        return jax.tree.map(lambda flag: jnp.ones(flag.shape, bool), used)

    def _rewired(self, state: ContinualState, key: Any) -> ContinualState:
        own, tasks = state.own, len(self.starts)
        flags, tree = jax.tree.flatten(own.used)
        weights = masked_leaves(state.model, own.used)
        keys = jax.random.split(key, len(flags))
        new = [
            used | largest(jnp.abs(weight), ~used, weight.size // tasks, k)
            for used, weight, k in zip(flags, weights, keys, strict=True)
        ]
        mask = jax.tree.unflatten(tree, new)
        return state._replace(model=masked(state.model, mask), own=own._replace(mask=mask))


class GradualPruning(Subnetworks):
    """Each task trains all that is free, beside all that is frozen, and gives up ever more of it (GMP).

    After a share s of its steps, from half of them to nine tenths, a task keeps in each layer the largest
    1 - (1 - density) (1 - (1 - (s - 0.5) / 0.4)^3) of the weights, frozen ones too; what went does not come back.

    Source: Zhu & Gupta 2018 (arXiv 1710.01878), over the span that the code of Yildirim et al. has for it.
    """

    def _update_steps(self) -> list[int]:
        n = self.topology.updates
        steps = [start + (end - start) * (5 * n + 4 * k) // (10 * n) for start, end in self._spans for k in range(1, n + 1)]  # fmt: skip
        return [step for step in steps if step not in self.starts]

    def _first_mask(self, used: Any, key: Any) -> Any:
        return jax.tree.map(lambda flag: jnp.ones(flag.shape, bool), used)

    def _rewired(self, state: ContinualState, key: Any) -> ContinualState:
        own, frozen = state.own, self._frozen(state.own)
        start, end = jnp.asarray(self._spans)[state.stream.task[state.step - 1]]
        done = ((state.step - start) / (end - start) - 0.5) / 0.4
        share = 1 - (1 - self.topology.density) * (1 - (1 - jnp.clip(done, 0, 1)) ** 3)
        flags, tree = jax.tree.flatten(own.mask)
        weights, keys = masked_leaves(state.model, own.mask), jax.random.split(key, len(flags))
        new = [
            largest(jnp.abs(weight), flag, jnp.round(share * flag.size).astype(jnp.int32), k)
            for flag, weight, k in zip(flags, weights, keys, strict=True)
        ]
        mask = jax.tree.unflatten(tree, new)
        stays = jax.tree.map(jnp.logical_or, mask, frozen)
        return state._replace(model=masked(state.model, stays), own=own._replace(mask=mask))
