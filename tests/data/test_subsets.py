"""Training and test sets drawn from a pool, on examples that are their own numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.data import Dataset, Subset, TrainingSubset

KEYS = jax.random.split(jax.random.key(0), 3)
X, Y = jnp.arange(100.0), jnp.arange(100) % 4
POOL = Dataset(X[:70], Y[:70], X[70:], Y[70:])


@pytest.mark.parametrize("more", [{}, {"test_last": True}])
def test_sets_are_disjoint_and_others_for_each_key(more):
    draw = Subset(POOL, 40, 30, **more)
    first, again, other = (draw(key) for key in (KEYS[0], KEYS[0], KEYS[1]))
    assert len(first.x_train) == 40 and len(first.x_test) == 30
    assert len({*first.x_train.tolist(), *first.x_test.tolist()}) == 70
    for part in ("train", "test"):  # labels stay with their examples
        np.testing.assert_array_equal(first.__dict__[f"x_{part}"] % 4, first.__dict__[f"y_{part}"])
    np.testing.assert_array_equal(first.x_train, again.x_train)
    assert set(first.x_train.tolist()) != set(other.x_train.tolist())


def test_of_too_few_examples_all_that_are_left_are_for_testing():
    found = Subset(POOL, 90, 30)(KEYS[0])
    assert sorted([*found.x_train.tolist(), *found.x_test.tolist()]) == X.tolist()


def test_noise_is_on_that_share_of_the_training_labels():
    x, y = jnp.zeros(2000), jnp.full(2000, 3)
    pool = Dataset(x, y, x, y)
    for share in (0.0, 0.5, 1.0):
        found = Subset(pool, 3000, 1000, label_noise=share, classes=4)(KEYS[2])
        wrong = float((found.y_train != 3).mean())  # a random label is right one time in four
        assert wrong == pytest.approx(0.75 * share, abs=0.04)
        assert (found.y_test == 3).all()
    with pytest.raises(ValueError, match="number of classes"):
        Subset(pool, 10, 10, label_noise=0.5)


def test_a_subset_for_training_leaves_the_test_set_whole():
    whole = Dataset(X, Y, -X, Y)
    draw = TrainingSubset(whole, 20)
    one, other = draw(KEYS[0]), draw(KEYS[1])
    assert len(set(one.x_train.tolist())) == 20 and set(one.x_train.tolist()) <= set(X.tolist())
    assert set(one.x_train.tolist()) != set(other.x_train.tolist())
    np.testing.assert_array_equal(one.x_train % 4, one.y_train)
    np.testing.assert_array_equal(one.x_test, -X)
