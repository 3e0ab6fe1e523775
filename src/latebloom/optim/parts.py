"""An optimiser for a part of the parameters: the others stay what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax


def trained(
    rule: optax.GradientTransformation, where: Callable[[Any], Any]
) -> optax.GradientTransformation:
    """`rule` on a part of the parameters; the others get no update.

    - `where(parameters)`: a node or several of them, as for `equinox.tree_at`: `lambda m: m.readout` is a linear
      probe, `lambda m: [m.readout, *(b.query_key_value for b in m.blocks)]` attention weights and the head.

    Gradients of what stays are not computed in a compiled program that has no other use of them.
    """

    def labels(parameters: Any) -> Any:
        stays = jax.tree.map(lambda _: "stays", parameters)
        learns = lambda part: jax.tree.map(lambda _: "learns", part)  # noqa: E731
        return eqx.tree_at(where, stays, replace_fn=learns)

    return optax.partition({"learns": rule, "stays": optax.set_to_zero()}, labels)
