"""Awkward networks, each of a kind that somebody trains with Optax: every entry has to take them all."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

CLASSES = 3


class Tied(eqx.Module):
    """Two layers with one weight."""

    shared: eqx.nn.Shared
    readout: eqx.nn.Linear

    def __init__(self, key):
        one, two, three = jax.random.split(key, 3)
        layers = eqx.nn.Linear(6, 6, key=one), eqx.nn.Linear(6, 6, key=two)
        self.shared = eqx.nn.Shared(layers, lambda pair: pair[1].weight, lambda pair: pair[0].weight)  # fmt: skip
        self.readout = eqx.nn.Linear(6, CLASSES, key=three)

    def __call__(self, x):
        first, second = self.shared()
        return self.readout(jax.nn.relu(second(jax.nn.relu(first(x)))))


class Frozen(eqx.Module):
    """A fixed projection, an order of the features, a mask, a count, and something that is None."""

    projection: jax.Array
    order: jax.Array
    mask: jax.Array
    count: jax.Array
    nothing: None
    readout: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.projection = jax.random.normal(one, (8, 6))
        self.order, self.mask = jnp.arange(6)[::-1], jnp.arange(8) < 6
        self.count, self.nothing = jnp.int32(7), None
        self.readout = eqx.nn.Linear(8, CLASSES, use_bias=False, key=two)

    def __call__(self, x):
        h = jax.lax.stop_gradient(self.projection) @ x[self.order]
        return self.readout(jnp.where(self.mask, jnp.tanh(h), 0))


class Tokens(eqx.Module):
    """Embedded indices, their mean, a readout."""

    embedding: eqx.nn.Embedding
    readout: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.embedding = eqx.nn.Embedding(20, 6, key=one)
        self.readout = eqx.nn.Linear(6, CLASSES, key=two)

    def __call__(self, x):
        return self.readout(jax.vmap(self.embedding)(x).mean(0))


class Recurrent(eqx.Module):
    """A GRU over the features as a sequence."""

    cell: eqx.nn.GRUCell
    readout: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(1, 5, key=one)
        self.readout = eqx.nn.Linear(5, CLASSES, key=two)

    def __call__(self, x):
        last, _ = jax.lax.scan(lambda h, a: (self.cell(a[None], h), None), jnp.zeros(5, x.dtype), x)
        return self.readout(last)


class Normalised(eqx.Module):
    """A group normalisation without and a layer normalisation with weights."""

    first: eqx.nn.Linear
    norms: tuple
    readout: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.first = eqx.nn.Linear(6, 8, key=one)
        self.norms = eqx.nn.LayerNorm(8), eqx.nn.GroupNorm(2, channelwise_affine=False)
        self.readout = eqx.nn.Linear(8, CLASSES, key=two)

    def __call__(self, x):
        h = self.norms[0](self.first(x))
        return self.readout(jax.nn.relu(self.norms[1](h[:, None])[:, 0]))


class Stateful(eqx.Module):
    """Equinox's batch normalisation keeps its statistics beside the network."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.first = eqx.nn.Linear(6, CLASSES, key=key)
        self.norm = eqx.nn.BatchNorm(CLASSES, "batch", mode="batch")

    def __call__(self, x, state):
        return self.norm(self.first(x), state)


def dropout(key):
    one, two = jax.random.split(key)
    return eqx.nn.Sequential([
        eqx.nn.Linear(6, 8, key=one), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.5),
        eqx.nn.Linear(8, CLASSES, key=two),
    ])  # fmt: skip


def cast(dtype, build):
    def built(key):
        return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, build(key))

    return built


def plain(key):
    return eqx.nn.MLP(6, CLASSES, 8, 1, key=key)


def batch_first(key):
    from latebloom.nn import MLP

    return MLP(6, (8,), CLASSES, key=key)


def batch_norm(key):
    from latebloom.nn import MLP

    return MLP(6, (8,), CLASSES, key=key, norm="batch")


def affine(params, x):
    return x @ params["w"] + params["b"]


def bound(key):
    """A function with its parameters bound, as in plain JAX."""
    weight = jax.random.normal(key, (6, CLASSES))
    return jax.tree_util.Partial(affine, {"w": weight, "b": jnp.zeros(CLASSES)})


class Animal(NamedTuple):
    build: Any
    x: np.ndarray  # [n, ...]


rng = np.random.default_rng(0)
LABELS = np.arange(40, dtype=np.int32) % CLASSES
FEATURES = rng.normal(size=(40, 6)).astype(np.float32)
FEATURES[np.arange(40), LABELS] += 2
TOKENS = rng.integers(0, 20, (40, 4)).astype(np.int32)
ZOO = {
    "batch first": Animal(batch_first, FEATURES),
    "one example": Animal(plain, FEATURES),
    "bound function": Animal(bound, FEATURES),
    "tied": Animal(Tied, FEATURES),
    "frozen": Animal(Frozen, FEATURES),
    "tokens": Animal(Tokens, TOKENS),
    "recurrent": Animal(Recurrent, FEATURES),
    "normalised": Animal(Normalised, FEATURES),
    "batch norm": Animal(batch_norm, FEATURES),
    "dropout": Animal(dropout, FEATURES),
    "bfloat16": Animal(cast(jnp.bfloat16, plain), FEATURES.astype(jnp.bfloat16)),
    "float16": Animal(cast(jnp.float16, batch_first), FEATURES.astype(np.float16)),
}
