"""Work counted in multiplications of matrix products: the same on every machine, and known before anything is run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from latebloom.core.odes.solving import Field


def products(function: Callable[..., Any], *args: Any) -> int:
    """How many multiplications the matrix products of a function have, loops of fixed length unrolled. Nothing is run.

    Of a loop whose length is not known, and of a branch, each body counts once.
    """
    return _counted(eqx.filter_make_jaxpr(function)(*args)[0].jaxpr)


def backward_work(field: Field, t: Any, y: Any) -> int:
    """`products` of a field together with its gradient in its arrays and the state, as in an evaluation of training."""
    arrays, rest = eqx.partition(field, eqx.is_inexact_array)

    def both(arrays: Any, y: Any) -> Any:
        found, back = jax.vjp(lambda a, y: eqx.combine(a, rest)(t, y), arrays, y)
        return back(found)

    return products(both, arrays, y)


def _counted(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(_counted(inner) for inner in _inner(equation.params))
    return total


def _inner(params: Any) -> list[Any]:
    """The programs among an equation's parameters."""
    held = [v for value in params.values() for v in (value if isinstance(value, tuple | list) else [value])]  # fmt: skip
    return [getattr(v, "jaxpr", v) for v in held if hasattr(v, "jaxpr") or hasattr(v, "eqns")]
