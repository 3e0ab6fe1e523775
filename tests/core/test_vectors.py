"""Weights as a vector: in tree order, back in their own precision, with nothing else touched."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import ZOO

from latebloom.core.statistics import trainable_leaves
from latebloom.core.vectors import set_weights, weights
from latebloom.nn import MLP


@pytest.mark.parametrize("name", ZOO)
def test_there_and_back_is_the_same_network(name):
    model = ZOO[name].build(jax.random.key(0))
    for running in (False, True):
        vector = weights(model, running=running)
        back = set_weights(jax.tree.map(lambda x: x, model), vector, running=running)
        pairs = zip(jax.tree.leaves(model), jax.tree.leaves(back), strict=True)
        for old, new in pairs:
            if eqx.is_array(old):
                assert new.dtype == old.dtype
                np.testing.assert_array_equal(old, new)
        learned = eqx.is_inexact_array if running else trainable_leaves(model)
        kept = eqx.filter(model, learned, inverse=True)
        moved = eqx.filter(set_weights(model, vector + 1, running=running), learned, inverse=True)
        for old, new in zip(jax.tree.leaves(kept), jax.tree.leaves(moved), strict=True):
            assert old is new or np.array_equal(old, new)


def test_running_statistics_are_weights_only_if_wanted():
    model = MLP(2, (3,), 1, key=jax.random.key(0), norm="batch")
    trained = 2 * 3 + 3 + 3 * 1 + 1 + 2 * 3  # two layers, scale and shift
    assert weights(model).shape == (trained,)
    assert weights(model, running=True).shape == (trained + 2 * 3,)
    vector = jnp.arange(float(trained))
    np.testing.assert_array_equal(weights(set_weights(model, vector)), vector)
