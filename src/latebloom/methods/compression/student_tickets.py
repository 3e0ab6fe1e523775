"""Whether a student's encoder is a lottery ticket, and lies in a linear basin of the supervised loss."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.dataset import Dataset
from latebloom.core.process import Process, Quantity
from latebloom.methods.compression.lottery import LotteryState, LotteryTicket, MaskedTraining
from latebloom.nn import Linear
from latebloom.probes.paths import barrier, linear_path


class Classifier(eqx.Module):
    """An encoder and a linear readout."""

    encoder: Any
    readout: Linear

    def __call__(
        self, x: Float[Array, "batch ..."], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "batch classes"]:
        return self.readout(self.encoder(x, train=train))


class StudentTicket(LotteryTicket):
    """Iterative magnitude pruning of a student's encoder, rewound to the student.

    Before the first round the encoder is distilled from a random teacher for `distilled` steps without
    labels; 0 is the random start itself. `training` then trains a `Classifier` with labels, whose
    encoder alone is pruned; all else is as in `LotteryTicket`. At the levels in `controls_at` the
    network is trained in a second data order, and `barrier` is the test error at the worst of `points`
    evenly spaced networks on the line between the two results, minus the mean of its ends (NaN at other
    levels); `path` are the errors.

    Runs that differ in `distilled` share a program.

    Source: Sarnthein et al. 2023 (arXiv 2302.12091), section 5 and appendix E.5.
    """

    distillation: Process
    distilled: Int[Array, ""]
    points: int = eqx.field(static=True)

    def __init__(
        self, training: MaskedTraining, distillation: Process, *, distilled: int, points: int = 9,
        **more: Any,
    ):  # fmt: skip
        super().__init__(training, ignore=("readout",), **more)
        self.distillation, self.distilled = distillation, jnp.int32(distilled)
        self.points = points

    def step(self, state: LotteryState) -> LotteryState:
        arrays, rest = eqx.partition(state.rewound, eqx.is_array)

        def distilled(arrays: Any) -> Any:
            classifier = eqx.combine(arrays, rest)
            key = jax.random.fold_in(state.key, 0xD157)
            begun, parts = eqx.partition(self.distillation.init(key), eqx.is_array)

            def step(_: Array, arrays: Any) -> Any:
                return eqx.filter(self.distillation.step(eqx.combine(arrays, parts)), eqx.is_array)

            ended = eqx.combine(jax.lax.fori_loop(0, self.distilled, step, begun), parts)
            encoder = ended.student.encoder
            return eqx.filter(eqx.tree_at(lambda c: c.encoder, classifier, encoder), eqx.is_array)

        arrays = jax.lax.cond(state.level < 0, distilled, lambda same: same, arrays)
        return super().step(state._replace(rewound=eqx.combine(arrays, rest)))

    def observe(self, state: LotteryState) -> dict[str, Array]:
        data: Dataset = self.training.data  # pyright: ignore
        one, other = (
            jax.tree.map(lambda leaf: leaf[i] if eqx.is_array(leaf) else leaf, state.runs)  # noqa: B023
            for i in (0, 1)
        )
        errors = linear_path(one, other, data.x_test, data.y_test, points=self.points).errors
        errors = jnp.where(jnp.isin(state.level, self.controls_at), errors, jnp.nan)
        return super().observe(state) | {"path": errors, "barrier": barrier(errors)}

    def quantities(self) -> dict[str, Quantity]:
        places = {"place": [i / (self.points - 1) for i in range(self.points)]}
        return super().quantities() | {
            "path": Quantity("1", ("place",), places, "test error between two data orders", gaps=True),
            "barrier": Quantity("1", about="error barrier between two data orders", gaps=True),
        }  # fmt: skip
