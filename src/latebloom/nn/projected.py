"""A network of three parts that contrastive methods speak of: features, their projection, and logits."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from latebloom.core.calling import call
from latebloom.nn.mlp import Linear


class Projected(eqx.Module):
    """An `encoder` of features, with an affine `readout` to logits and an affine `projection` for comparisons.

    The encoder is any network that makes features [batch, d], of a batch or of an example; called, it gives
    the logits.
    """

    encoder: Any
    readout: Any
    projection: Any

    @staticmethod
    def around(
        encoder: Any, example: Any, classes: int, projected: int, *, key: PRNGKeyArray
    ) -> Projected:  # fmt: skip
        """New heads on an encoder, in its precision; `example`: inputs [batch, ...], or
        their shape and type alone.

        Raises `ValueError` for an encoder that does not make features [batch, d].
        """
        features = eqx.filter_eval_shape(call, encoder, example)
        if len(features.shape) != 2:
            raise ValueError(
                f"the encoder must make features [batch, d], not {list(features.shape)}"
            )
        d, one, other = features.shape[1], *jax.random.split(key)
        return Projected(
            encoder,
            Linear(d, classes, key=one, dtype=features.dtype),
            Linear(d, projected, key=other, dtype=features.dtype),
        )

    def __call__(
        self, x: Shaped[Array, "batch ..."], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "batch classes"]:
        return self.readout(call(self.encoder, x, key, train))
