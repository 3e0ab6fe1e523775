"""A model's first-order Taylor twin, and the model with its initial output taken away."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from latebloom.core.calling import call
from latebloom.core.statistics import trainable_leaves


class Linearised(eqx.Module):
    """The linearised twin f(x; theta_0) + J(x; theta_0) (theta - theta_0) of any model.

    It is itself a model: train it by the same loss and optimiser as the original. Under gradient
    flow on squared error it stays in the kernel regime for ever, so what the original learns and
    the twin does not is feature learning (Lee et al. 2019, arXiv 1902.06720; the control of
    arXiv 2310.06110). `centred=True` leaves f(x; theta_0) out. It takes a batch, whether the model
    takes a batch or one example; batch normalisations keep the running statistics that they have.
    """

    params: PyTree
    origin: PyTree
    static: PyTree
    centred: bool = eqx.field(static=True)

    def __init__(self, model: Callable[..., Array], *, centred: bool = False):
        self.params, self.static = eqx.partition(model, trainable_leaves(model))
        self.origin = _frozen(self.params)
        self.centred = centred

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None, train: bool = False) -> Array:
        origin = _thawed(self.origin, self.params)
        shift = jax.tree.map(lambda now, start: now - start, self.params, origin)
        output, change = jax.jvp(
            lambda p: call(eqx.combine(p, self.static), x, key, train), (origin,), (shift,)
        )
        return change if self.centred else output + change


class Centred(eqx.Module):
    """The model minus its output at initialisation, f(x; theta) - f(x; theta_0)."""

    params: PyTree
    origin: PyTree
    static: PyTree

    def __init__(self, model: Callable[..., Array]):
        self.params, self.static = eqx.partition(model, trainable_leaves(model))
        self.origin = _frozen(self.params)

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None, train: bool = False) -> Array:
        origin = _thawed(self.origin, self.params)
        now, start = (eqx.combine(p, self.static) for p in (self.params, origin))
        return call(now, x, key, train) - call(start, x, key, train)


def _frozen(params: PyTree) -> PyTree:
    # Raw bits are not floating point: no gradient, optimiser or weight decay takes them for
    # parameters, whichever filter the trainer uses.
    return jax.tree.map(
        lambda a: jax.lax.bitcast_convert_type(a, f"uint{8 * a.dtype.itemsize}"), params
    )


def _thawed(origin: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda bits, a: jax.lax.bitcast_convert_type(bits, a.dtype), origin, like)
