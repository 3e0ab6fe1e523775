"""Stochastic classifiers and the spiral learn, tell their costs, and cost what they say."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from zoo import ZOO

from latebloom import data, unfold
from latebloom.core.sdes import SOSRI2
from latebloom.core.training import Dataset
from latebloom.data.dynamics import spiral_diffusion, spiral_drift, spiral_moments
from latebloom.losses import cross_entropy
from latebloom.methods.continuous.neural_sde import (
    MomentFit,
    NeuralSDE,
    NeuralSDELearner,
    Plane,
    stochastic_classifier,
)
from latebloom.methods.continuous.regularisers import solver_penalty


def learner(examples, build, **given):
    return NeuralSDELearner(model=build, data=examples, optimiser=optax.adam, hyper={"learning_rate": 0.01},
                            loss=cross_entropy, **given)  # fmt: skip


def test_digits_are_learned_through_noise():
    whole = data.scaled(data.load("digits"), flat=True)
    digits = Dataset(
        whole.x_train[:600], whole.y_train[:600], whole.x_test[:200], whole.y_test[:200]
    )
    build = stochastic_classifier(64, 10, 16, 10, trajectories=1)
    process = learner(digits, build, batch_size=60, penalty="error", strengths=0.1)
    told = unfold(process, seeds=1, steps=50, every=50, progress=False)
    assert told.test_accuracy.values[0, -1] > 0.7 > told.test_accuracy.values[0, 0]
    tries = (told.steps + told.rejected).values[0]
    np.testing.assert_array_equal(told.evaluations.values[0], 2 + 4 * tries)
    assert (told.train_evaluations.values[0, 1:] >= 6).all()


def small():
    x = jax.random.normal(jax.random.key(5), (24, 3))
    return Dataset(x[:16], jnp.arange(16) % 2, x[16:], jnp.arange(8) % 2)


@pytest.mark.parametrize("penalty", ["none", "error_squared", "stiffness"])
def test_a_step_costs_the_loss_and_the_penalty(penalty):
    examples = small()
    build = stochastic_classifier(3, 4, 5, 2, tableau=SOSRI2)
    process, model = learner(examples, build, penalty=penalty, strengths=3.0), build(jax.random.key(1))  # fmt: skip
    x, y, key = examples.x_train, examples.y_train, jax.random.key(2)
    total, told = eqx.filter_jit(process.cost)(model, x, y, key, jnp.int32(0))
    found = model.solution(x, key, 1)
    plain = cross_entropy(model(x, key=key, train=True), y).mean()
    extra = 0.0 if penalty == "none" else solver_penalty(found, penalty)
    np.testing.assert_allclose(told.penalty, extra, rtol=1e-4)
    np.testing.assert_allclose(total, plain + 3 * extra, rtol=1e-4)
    assert told.evaluations == found.evaluations


def test_predictions_are_means_over_trajectories_and_the_same_each_time():
    model = stochastic_classifier(3, 4, 5, 2, trajectories=6)(jax.random.key(1))
    x = small().x_test
    found = model.solution(x)
    assert found.y.shape == (48, 4)
    out = jax.vmap(model.after)(found.y).reshape(6, 8, 2).mean(0)
    np.testing.assert_allclose(model(x), out, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model(x), model(x))
    assert (model(x, key=jax.random.key(9)) != model(x)).any()
    assert model.solution(x, trajectories=1).y.shape == (8, 4)


def test_any_networks_stand_before_and_after():
    build, x = ZOO["dropout"]
    x = jnp.asarray(x)[:8]
    linear = eqx.nn.Linear(3, 3, key=jax.random.key(1))
    field = lambda t, z: jax.vmap(linear)(z)  # noqa: E731
    model = NeuralSDE(build(jax.random.key(0)), field, field, linear, trajectories=1)
    assert model(x).shape == (8, 3) and np.isfinite(model(x)).all()


class Truth(eqx.Module):
    unused: jax.Array

    def drift(self, t, u):
        return spiral_drift(t, u)

    def diffusion(self, t, u):
        return spiral_diffusion(t, u)


def spiral(model, **given):
    truth = spiral_moments(jax.random.key(0), paths=2000, times=8, between=100)
    return MomentFit(model=model, start=[2.0, 0.0], times=truth.times, means=truth.means, variances=truth.variances,
                     optimiser=optax.adabelief, hyper={"learning_rate": 0.02}, **given)  # fmt: skip


def test_the_truth_fits_and_a_network_comes_nearer():
    exact = spiral(lambda key: Truth(jnp.zeros(1)), paths=800, tolerance=0.1, max_steps=1024)
    seen = eqx.filter_jit(exact.observe)(exact.init(jax.random.key(0)))
    assert float(seen["fit"]) < 0.02
    net = spiral(lambda key: Plane(20, key=key), penalty="error", strength=0.1, paths=50)
    told = unfold(net, seeds=1, steps=40, every=20, progress=False)
    fit = told.fit.values[0]
    assert fit[-1] < 0.5 * fit[0] and float(seen["fit"]) < 0.1 * fit[0]
    assert (told.penalty.values[0, 1:] > 0).all()
    assert told["mean"].shape == (1, 3, 8, 2)


def test_bad_options_are_refused():
    for options, said in (
        ({"penalty": "taylor"}, "penalty must be"),
        ({"end_width": 0.5}, "no end_width"),
    ):
        with pytest.raises(ValueError, match=said):
            learner(small(), stochastic_classifier(3, 4, 5, 2), **options)
    with pytest.raises(ValueError, match="penalty must be"):
        spiral(lambda key: Plane(4, key=key), penalty="kinetic")
    with pytest.raises(ValueError, match=r"\[3, 2\]"):
        MomentFit(model=lambda key: Plane(4, key=key), start=[1.0, 0.0], times=np.arange(3), means=np.ones((2, 2)),
                  variances=np.ones((3, 2)), optimiser=optax.sgd, hyper={"learning_rate": 0.1})  # fmt: skip
