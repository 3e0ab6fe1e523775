"""Classes added to a network in use."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.core.calling import call
from latebloom.methods.forgetting.expansion import _plan, add_classes, grown
from latebloom.nn import MLP

rng = np.random.default_rng(0)
CENTRES = 3 * rng.normal(size=(5, 8)).astype(np.float32)
Y = np.arange(150) % 5
X = (CENTRES[Y] + rng.normal(size=(150, 8))).astype(np.float32)
OLD, NEW = Y < 3, Y >= 3
NAMES = np.where(Y == 3, "hare", "ape")


def last(model):
    return model.layers[-1]


def taught(build):
    """A network that knows the three old classes."""
    model = build(jax.random.key(0))
    x, y = jnp.asarray(X[OLD]), jnp.asarray(Y[OLD])

    @eqx.filter_jit
    def step(model):
        def loss(model):
            z = call(model, x)
            return -jax.nn.log_softmax(z)[jnp.arange(len(y)), y].mean()

        slopes = eqx.filter_grad(loss)(model)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, slopes))

    for _ in range(80):
        model = step(model)
    return model


@pytest.mark.parametrize("build", [
    lambda key: eqx.nn.MLP(8, 3, 16, 1, key=key), lambda key: MLP(8, (16,), 3, key=key, norm="batch"),
], ids=["one example", "batch norm"])  # fmt: skip
def test_new_classes_are_learned_and_old_ones_kept(build):
    model = taught(build)
    found = add_classes(
        model, last, X[NEW], NAMES[NEW], strengths=(0.0, 30.0), old_examples=(X[OLD], Y[OLD]), steps=300, rate=0.003
    )  # fmt: skip
    assert found.classes == ("ape", "hare") and list(found.models) == [0.0, 30.0]
    loose, tight = (found.table.iloc[i] for i in (0, 1))
    assert loose.before > 0.9 and loose.new > 0.8
    assert tight.moved < loose.moved and tight.old >= loose.old - 0.05
    assert found.best in (0.0, 30.0)
    network = found.models[found.best]
    assert call(network, jnp.asarray(X)).shape == (150, 5)
    if hasattr(network, "norms"):
        np.testing.assert_array_equal(network.norms[0].mean, model.norms[0].mean)


@pytest.mark.parametrize("build", [
    lambda width: eqx.nn.MLP(8, 3, width, 1, key=jax.random.key(1)), lambda width: MLP(8, (width,), 3, key=jax.random.key(1)),
], ids=["equinox", "latebloom"])  # fmt: skip
@pytest.mark.parametrize("width", [3, 5], ids=["as many as old", "as many as all"])
def test_as_many_features_as_outputs(build, width):
    """Which axis of a square head is the classes' is known of affine maps: old rows are held, new ones are not."""
    model = build(width)
    more = grown(model, last, 3, 2, key=jax.random.key(0))
    np.testing.assert_array_equal(call(more, jnp.asarray(X))[:, :3], call(model, jnp.asarray(X)))
    found = add_classes(
        model, last, X[NEW], NAMES[NEW], strengths=(1e4,), steps=30, rate=0.01, seed=0
    )
    weights = [np.asarray(last(m).weight) for m in (more, found.models[1e4])]
    axis = 0 if isinstance(last(model), eqx.nn.Linear) else 1
    moved = np.abs(weights[0] - weights[1]).max(axis=1 - axis)
    assert moved[:3].max() < 0.02 < 0.1 < moved[3:].min()


def test_one_new_class_is_learned():
    """Its own softmax alone would be 1 from the start."""
    model, one = taught(lambda key: eqx.nn.MLP(8, 3, 16, 1, key=key)), Y == 3
    found = add_classes(
        model,
        last,
        X[one],
        Y[one],
        strengths=(0.1, 10.0),
        old_examples=(X[OLD], Y[OLD]),
        steps=60,
        rate=0.003,
    )
    row = found.table[found.table.strength == found.best].iloc[0]
    assert row.new > 0.8 and row.old > 0.7


def test_a_grown_head_says_the_old_as_before():
    model = eqx.nn.MLP(8, 3, 16, 1, key=jax.random.key(1))
    more = grown(model, last, 3, 2, key=jax.random.key(2))
    z = call(more, jnp.asarray(X))
    np.testing.assert_allclose(z[:, :3], call(model, jnp.asarray(X)), rtol=1e-5, atol=1e-5)
    assert np.abs(more.layers[-1].weight[3:]).max() <= 0.25
    np.testing.assert_allclose(more.layers[-1].bias[3:], model.layers[-1].bias.mean(), rtol=1e-6)


SMALL = eqx.nn.MLP(8, 3, 16, 1, key=jax.random.key(1))


@pytest.mark.parametrize(("more", "said"), [
    ({"y": NAMES[NEW][:-1]}, "as many examples"),
    ({"y": np.arange(NEW.sum())}, "class 0 has 1 example: give at least 2"),
    ({"x": np.full((60, 8), np.nan, np.float32)}, "not finite"),
    ({"strengths": ()}, "strengths must be numbers from 0"),
    ({"strengths": (-1.0,)}, "strengths must be numbers from 0"),
    ({"strengths": (np.nan,)}, "strengths must be numbers from 0"),
    ({"strengths": np.array([])}, "strengths must be numbers from 0"),
    ({"x": np.full((60, 8), np.nan, jnp.bfloat16)}, "not finite"),
    ({"steps": 3, "rate": 1e38, "strengths": (1.0,)}, "diverged at every strength: take a rate below 1e.38"),
    ({"steps": 0}, "at least 1"),
    ({"held_back": 1.0}, "held_back between 0 and 1"),
    ({"old_examples": (X[OLD], Y[OLD] + 1)}, "from 0 to 2"),
    ({"head": lambda m: m.layers[0]}, "one axis of 3 classes, not .16, 8."),
    ({"y": np.where(NAMES[NEW] == "ape", None, "hare").astype(object)}, "labels that are missing"),
    ({"model": eqx.nn.MLP(8, "scalar", 16, 1, key=jax.random.key(1))}, "make logits .batch, classes., not .1. of"),
    ({"old_examples": (X[:3], Y[:2])}, "old_examples must be as many x as y"),
    ({"old_examples": (X[:0], Y[:0])}, "old_examples must be as many x as y"),
    ({"old_examples": (np.full((2, 8), np.nan, np.float32), np.zeros(2, int))}, "old_examples has values that are not finite"),
])  # fmt: skip
def test_bad_input_is_told(more, said):
    given = {"model": SMALL, "head": last, "x": X[NEW], "y": NAMES[NEW]} | more
    with pytest.raises(ValueError, match=said):
        add_classes(**given)


def test_of_each_class_one_example_is_learned_from_and_one_is_for_validation():
    for share, counts in ((0.9, [2, 2]), (0.9, [2, 20]), (0.01, [2, 3])):
        labels = np.repeat([3, 4], counts)
        data, _ = _plan(np.zeros((len(labels), 2), np.float32), labels, 3, 4, 2, share, 0)
        assert set(np.asarray(data.y_train)) == set(np.asarray(data.y_test)) == {3, 4}
        assert len(data.y_train) + len(data.y_test) == len(labels)
