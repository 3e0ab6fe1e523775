"""How anybody's network is called on a batch.

latebloom's own networks take a batch, a key and whether they train; most Equinox modules take one
example, some a key as well; a plain function may take a batch. Whoever is handed a network uses
`call`, which finds out, or `batch_first` and `per_example`, which say so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray, Shaped

Apply = Callable[[Any, Array, PRNGKeyArray | None, bool], Array]


def batch_first(model: Any, x: Array, key: PRNGKeyArray | None, train: bool) -> Array:
    """Calls a network of `latebloom.nn`: `model(x, key=key, train=train)`, or without a key."""
    if "key" in _parameters(model):
        return model(x, key=key, train=train)
    return model(x, train=train)


def whole_batch(model: Any, x: Array, key: PRNGKeyArray | None, train: bool) -> Array:
    """Calls a function of a batch that knows nothing of training: `model(x)`."""
    return _mode(model, key, train)(x)


def per_example(model: Any, x: Array, key: PRNGKeyArray | None, train: bool) -> Array:
    """Calls a network that takes one example, as most Equinox modules do: `model(x[i])`.

    In training each example gets a key of its own if the network takes one; without a key, and
    outside of training, dropout is off (`equinox.nn.inference_mode`).
    """
    model = _mode(model, key, train)
    if not (train and key is not None and "key" in _parameters(model)):
        return jax.vmap(model)(x)
    return jax.vmap(lambda one, k: model(one, key=k))(x, jax.random.split(key, len(x)))


def call(model: Any, x: Shaped[Array, "batch ..."], key: Any = None, train: bool = False) -> Array:
    """Calls any network on a batch; see `how_to_call`."""
    return how_to_call(model, x)(model, x, key, train)


def as_examined(
    model: Any, x: Shaped[Array, "batch ..."], key: Any = None, train: bool = False
) -> Array:
    """Calls any network as outside of training, always: running statistics stay what they are, dropout is off.

    For a pre-trained network whose normalisations are not to drift.
    """
    return call(model, x)


def how_to_call(model: Any, x: Any) -> Apply:
    """The one of `batch_first`, `whole_batch` and `per_example` that suits a network and its inputs.

    - `model` may be abstract (`equinox.filter_eval_shape`); `x` [batch, ...] too.

    It is `batch_first` if the network's `__call__` knows `train`; else the first of the others that
    makes n outputs of n examples, whatever n is. Nothing is computed.

    Raises `ValueError` for a network that needs more than its input, as one with
    `equinox.nn.BatchNorm` needs its state, and one that takes neither a batch nor an example.
    """
    parameters = _parameters(model)
    if "train" in parameters:
        return batch_first
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = [n for n, p in parameters.items() if p.kind in positional and p.default is p.empty]
    if len(needed) > 1:
        raise ValueError(
            f"the network is called with ({', '.join(needed)}), but there is only an input: bind the "
            "rest, as in lambda x: model(x, state)[0]; to train batch normalisation use "
            "latebloom.nn.BatchNorm, whose statistics are part of the network"
        )
    failed = []
    for way in (whole_batch, per_example):
        try:
            shapes = [
                eqx.filter_eval_shape(way, model, jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), None, False).shape
                for n in (3, 5)
            ]  # fmt: skip
        except Exception as error:
            failed.append(str(error).strip().split("\n")[0])
            continue
        if all(shape[:1] == (n,) for shape, n in zip(shapes, (3, 5), strict=True)) and (
            shapes[0][1:] == shapes[1][1:]
        ):
            return way
        failed.append(f"of 3 and 5 rows it makes {list(shapes[0])} and {list(shapes[1])}")
    one = ", ".join(map(str, x.shape[1:]))
    batch = f"n, {one}" if one else "n"
    whole = " (pixels and features are floating-point numbers)" if x.dtype.kind in "iu" else ""
    raise ValueError(
        f"the network takes neither a batch [{batch}] of {x.dtype}{whole}: {failed[0]}; nor one example "
        f"[{one}]: {failed[1]}"
    )


class Given(eqx.Module):
    """A network at hand, as what builds one: whatever the key."""

    model: Any

    def __call__(self, key: PRNGKeyArray) -> Any:
        return self.model


def builder(network: Any) -> Callable[[PRNGKeyArray], Any]:
    """`network(key)`, of an Equinox module or of a function that builds one already."""
    return Given(network) if isinstance(network, eqx.Module) else network


def _mode(model: Any, key: PRNGKeyArray | None, train: bool) -> Any:
    return model if train and key is not None else eqx.nn.inference_mode(model)


def _parameters(model: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(model).parameters)
    except (TypeError, ValueError):  # of some built-in functions
        return {}
