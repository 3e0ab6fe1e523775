"""An optimiser for a part of the parameters: the others stay what they are, or have one of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax

PART, OTHERS = "named", "rest"  # the inner states of `trained`


def trained(
    rule: optax.GradientTransformation, where: Callable[[Any], Any],
    others: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:  # fmt: skip
    """`rule` on a part of the parameters; the others get no update, or that of a rule of theirs.

    - `where(parameters)`: a node or several of them, as for `equinox.tree_at`: `lambda m: m.readout` is a linear
      probe, `lambda m: [m.readout, *(b.query_key_value for b in m.blocks)]` attention weights and the head.

    The state holds both inner ones by name, `PART` and `OTHERS`. Gradients of what stays are not computed in a
    compiled program that has no other use of them.

    Raises `ValueError` where `where` names no parameter.
    """
    rules: dict[Any, optax.GradientTransformation] = {
        PART: rule,
        OTHERS: optax.set_to_zero() if others is None else others,
    }
    return optax.partition(rules, lambda parameters: named(where, parameters))


def named(where: Callable[[Any], Any], parameters: Any) -> Any:
    """A tree like the parameters, `PART` at `where` and `OTHERS` elsewhere. Raises `ValueError` for no part."""
    rest = jax.tree.map(lambda _: OTHERS, parameters)
    found = eqx.tree_at(where, rest, replace_fn=lambda node: jax.tree.map(lambda _: PART, node))
    if PART not in jax.tree.leaves(found):
        raise ValueError(
            "where names no parameter of the model: it must return a part of it, as lambda m: m.embedding does"
        )
    return found
