"""diagnose() on networks made to have one obstacle each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import nn
from latebloom.data import Dataset
from latebloom.losses import cross_entropy, mean_squared_error, stablemax_cross_entropy
from latebloom.methods.grokking import diagnose, without_true_class_gradient

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (120, 6))
Y = (X[:, 0] * X[:, 1] > 0).astype(jnp.int32) + (X[:, 2] > 0.5)
DATA = Dataset(X[:80], Y[:80], X[80:], Y[80:])


def train(model, steps, rate, scale=1.0):
    """Plain gradient descent on cross-entropy."""
    optimiser = optax.adam(rate)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(p):
        logits = eqx.combine(p, static)(X[:80])
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, Y[:80]).mean()

    def step(carry, _):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), length=steps)
    return eqx.combine(params, static)


@pytest.fixture(scope="module")
def fitted():
    initial = nn.MLP(6, (32,), 3, key=KEY, use_bias=False)
    return initial, train(initial, 800, 0.01)


def test_a_network_with_huge_logits_has_collapsed(fitted):
    initial, model = fitted
    scaled = eqx.tree_at(lambda m: m.layers[-1].weight, model, model.layers[-1].weight * 300)
    found = diagnose(scaled, DATA, initial=initial)
    assert found.train_accuracy == 1
    assert "softmax collapse" in found.causes
    assert found.findings[0].evidence["stalled_fraction"] > 0.9
    assert "stablemax" in str(found)


def test_a_fitted_network_that_goes_on_only_scales_its_logits(fitted):
    """A one-layer homogeneous network that separates the data: descent is along the weights."""
    teacher = nn.MLP(6, (), 3, key=KEY, use_bias=False)
    labels = teacher(X).argmax(-1)
    scaled = eqx.tree_at(lambda m: m.layers[0].weight, teacher, teacher.layers[0].weight * 30)
    data = Dataset(X[:3], labels[:3], X[3:], labels[3:])
    along = jax.grad(lambda c: -jnp.log(jax.nn.softmax(c * scaled(X[:3]))).mean())(1.0)
    assert jnp.isfinite(along)
    found = diagnose(scaled, data, initial=teacher)
    evidence = found.findings[1].evidence
    gradient = jax.grad(
        lambda w: optax.losses.softmax_cross_entropy_with_integer_labels(
            X[:3] @ w, labels[:3]
        ).mean()
    )(scaled.layers[0].weight)
    w = np.asarray(scaled.layers[0].weight, np.float64).ravel()
    g = np.asarray(gradient, np.float64).ravel()
    share = max(-(w @ g) / np.linalg.norm(w) / np.linalg.norm(g), 0) ** 2
    np.testing.assert_allclose(evidence["share_of_gradient_along_the_weights"], share, rtol=1e-3)


def test_a_network_with_a_large_output_scale_is_lazy():
    initial = nn.MLP(6, (256,), 3, key=KEY, logit_scale=300.0)
    lazy = diagnose(train(initial, 300, 1e-5), DATA, initial=initial)
    assert "laziness" in lazy.causes
    assert lazy.findings[2].evidence["agreement_with_linearised"] > 0.95


def test_a_rich_network_is_not_lazy_and_an_unfitted_one_has_nothing_to_blame(fitted):
    initial, model = fitted
    assert "laziness" not in diagnose(model, DATA, initial=initial).causes
    assert diagnose(initial, DATA).causes == ()
    assert "cannot be told" in str(diagnose(model, DATA))


def test_collapse_is_that_of_the_loss_and_found_where_the_softmax_rounds(fitted):
    """Def. 3 in NumPy: the sum of the shifted exponentials is exactly 1 in single precision."""
    _, model = fitted
    for scale in (1.0, 4.0, 20.0):
        scaled = eqx.tree_at(lambda m: m.layers[-1].weight, model, model.layers[-1].weight * scale)
        z = np.asarray(scaled(X[:80]), np.float32)
        sums = np.exp(z - z.max(1, keepdims=True)).sum(1, dtype=np.float32)
        right = z.argmax(1) == np.asarray(Y[:80])
        for loss in (cross_entropy, optax.losses.softmax_cross_entropy_with_integer_labels):
            found = diagnose(scaled, DATA, loss=loss).findings[0]
            assert found.name == "softmax collapse"
            np.testing.assert_allclose(found.evidence["stalled_fraction"], ((sums == 1) & right).mean(), atol=0.03)  # fmt: skip


def test_a_loss_without_softmax_is_not_told_to_leave_it(fitted):
    """Trained with StableMax, the logits may be as large as they like: nothing has collapsed."""
    _, model = fitted
    scaled = eqx.tree_at(lambda m: m.layers[-1].weight, model, model.layers[-1].weight * 300)
    found = diagnose(scaled, DATA, loss=stablemax_cross_entropy)
    assert "softmax collapse" not in str(found) and "collapse" not in found.causes
    assert found.findings[0].name == "vanished loss"
    # 1 - p is about 1e-4 / 1e4 of the largest logits here, where softmax's is below 1e-300.
    assert found.findings[0].evidence["stalled_fraction"] <= 0.02
    shares = diagnose(model, DATA, loss=stablemax_cross_entropy).findings[0]
    assert shares.evidence["stalled_fraction"] == 0 and not shares.present
    assert diagnose(scaled, DATA, loss=mean_squared_error).findings[0].name == "vanished loss"

    def hinge(z, y):
        margins = z - jnp.take_along_axis(z, y[:, None], 1) + 1
        return jnp.maximum(margins.at[jnp.arange(len(y)), y].set(0), 0).sum(1)

    stalled = diagnose(scaled, DATA, loss=hinge)
    assert "vanished loss" in stalled.causes and "softmax" not in str(stalled)


def test_a_precision_is_that_of_the_softmax(fitted):
    _, model = fitted
    shares = [diagnose(model, DATA, precision=p).findings[0].evidence["stalled_fraction"] for p in ("float16", None)]  # fmt: skip
    assert shares[0] > shares[1]
    with pytest.raises(ValueError, match="precision is that of"):
        diagnose(model, DATA, loss=stablemax_cross_entropy, precision="float16")


def test_bad_input_is_refused_in_a_sentence(fitted):
    initial, model = fitted
    one_hot = Dataset(X, jax.nn.one_hot(Y, 3), X, jax.nn.one_hot(Y, 3))
    with pytest.raises(ValueError, match="must be class indices"):
        diagnose(model, one_hot)
    broken = eqx.tree_at(lambda m: m.layers[0].weight, model, model.layers[0].weight * jnp.nan)
    with pytest.raises(ValueError, match=r"layers\[0\].weight is not finite"):
        diagnose(broken, DATA)
    for wrong in (9, 3, -1, -100):
        says = f"must be from 0 to 2, but row 4 has {wrong}:"
        with pytest.raises(ValueError, match=f"y_train {says}"):
            diagnose(model, Dataset(X, Y.at[4].set(wrong), X, Y))
        with pytest.raises(ValueError, match=f"y_test {says}"):
            diagnose(model, Dataset(X, Y, X, Y.at[4].set(wrong)))
    with pytest.raises(ValueError, match=r"logits \[n, classes\]"):
        diagnose(jax.tree_util.Partial(lambda m, x: m(x)[:, 0], model), DATA)
    with pytest.raises(ValueError, match="same arrays"):
        diagnose(model, DATA, initial=nn.MLP(6, (8,), 3, key=KEY))


def test_the_true_class_loses_its_gradient_only_when_told():
    z, y = jnp.array([[1.0, 2.0, 0.5]]), jnp.array([1])

    def loss(z, when):
        cut = without_true_class_gradient(z, y, jnp.bool_(when))
        return optax.losses.softmax_cross_entropy_with_integer_labels(cut, y)[0]

    p = jax.nn.softmax(z[0])
    np.testing.assert_allclose(jax.grad(loss)(z, False)[0], p - jnp.array([0, 1, 0]), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(loss)(z, True)[0], p * jnp.array([1, 0, 1]), rtol=1e-5)
    assert loss(z, True) == loss(z, False)
