"""Algorithmic data against Python's own arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import data

KEY = jax.random.key(0)


@pytest.mark.parametrize("operation", ["+", "-", "*"])
def test_modular_arithmetic_is_pythons(operation):
    pairs, results = data.modular_arithmetic(7, operation)
    assert len(pairs) == 49
    for (a, b), c in zip(pairs.tolist(), results.tolist(), strict=True):
        assert c == eval(f"({a} {operation} {b}) % 7")


@given(st.sampled_from([2, 3, 7, 12]), st.floats(0.05, 0.95), st.integers(0, 2**31 - 1))
@settings(max_examples=8, deadline=None)
def test_a_split_loses_and_repeats_nothing(p, fraction, seed):
    task = data.ModularArithmetic(p, "+", fraction)
    if not 0 < int(fraction * p * p) < p * p:
        with pytest.raises(ValueError, match="leaves one side empty"):
            task(jax.random.key(seed))
        return
    drawn = task(jax.random.key(seed))
    assert len(drawn.x_train) == int(fraction * p * p)
    both = np.concatenate([drawn.x_train, drawn.x_test]) - [0, p]
    assert sorted(map(tuple, both.tolist())) == [(a, b) for a in range(p) for b in range(p)]
    labels = np.concatenate([drawn.y_train, drawn.y_test])
    np.testing.assert_array_equal(labels, both.sum(axis=1) % p)


@pytest.mark.parametrize("encoding", ["binary", "codes"])
def test_low_dimensional_encodings_keep_numbers_apart(encoding):
    task = data.ModularArithmetic(11, encoding=encoding)
    assert task.in_size == 8
    drawn = task(KEY)
    x = np.concatenate([drawn.x_train, drawn.x_test])
    assert len(np.unique(x, axis=0)) == 121
    assert set(np.unique(x)) == {0, 1}


def test_binary_digits_are_pythons():
    task = data.ModularArithmetic(5, encoding="binary", train_fraction=0.5)
    drawn = task(KEY)
    for x, y in zip(np.asarray(drawn.x_train, int), drawn.y_train.tolist(), strict=True):
        a, b = (sum(bit << i for i, bit in enumerate(half)) for half in (x[:3], x[3:]))
        assert (a + b) % 5 == y


def test_sparse_parity_by_hand():
    drawn = data.SparseParity(relevant=3, noise=5, samples=100, train_fraction=0.5)(KEY)
    assert drawn.x_train.shape == (50, 8)
    np.testing.assert_array_equal(drawn.y_train, drawn.x_train[:, :3].sum(1) % 2)


def test_seeds_draw_different_splits():
    task = data.ModularArithmetic(13)
    a, b = task(jax.random.key(0)), task(jax.random.key(1))
    assert not jnp.array_equal(a.x_train, b.x_train)


def test_bad_settings_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"operation must be one of \+ - \*"):
        data.modular_arithmetic(5, "/")
    with pytest.raises(ValueError, match="p must be at least 2"):
        data.modular_arithmetic(1)
    with pytest.raises(ValueError, match="cannot be drawn"):
        data.random_binary_codes(KEY, 9, 3)
