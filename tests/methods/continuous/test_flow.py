"""Flows: log densities against a closed form and quadrature, the divergence's estimate, what is learned."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import expm

from latebloom import unfold
from latebloom.core.training import Dataset
from latebloom.data.dynamics import gaussian_ring
from latebloom.methods.continuous.flow import (
    ConcatSquash,
    Flow,
    FlowLearner,
    SquashField,
    squash_flow,
)

MATRIX = np.array([[-0.5, 0.4], [0.1, 0.8]])


def test_a_linear_flow_has_a_normal_density():
    flow = Flow(lambda t, z: z @ jnp.asarray(MATRIX.T, z.dtype))
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    z = x @ expm(MATRIX).T
    exact = -0.5 * (z**2 + np.log(2 * np.pi)).sum(1) + np.trace(MATRIX)
    np.testing.assert_allclose(flow(jnp.asarray(x)), exact, rtol=1e-4)
    one = jnp.asarray([[1.0, -1.0]] * 5)
    estimate = flow.solution(jnp.asarray(x), one).y[1]
    np.testing.assert_allclose(estimate, np.asarray(one[0]) @ MATRIX @ np.asarray(one[0]), rtol=1e-4)  # fmt: skip


def test_a_density_has_mass_one():
    flow = squash_flow(2, 8, rtol=1e-4, atol=1e-4)(jax.random.key(3))
    side = np.linspace(-12, 12, 161)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)
    mass = np.exp(np.asarray(eqx.filter_jit(flow)(jnp.asarray(grid)))).sum() * (side[1] - side[0]) ** 2  # fmt: skip
    assert mass == pytest.approx(1, abs=0.02)


def test_layers_are_the_papers():
    layer = ConcatSquash(2, 3, key=jax.random.key(0))
    x, t = np.array([[0.5, -1.0]]), 0.7
    gate = 1 / (1 + np.exp(-np.asarray(layer.gate) * t))
    exact = (x @ layer.map.weight + layer.map.bias) * gate + np.asarray(layer.drift) * t + np.asarray(layer.offset)  # fmt: skip
    np.testing.assert_allclose(layer(t, jnp.asarray(x, jnp.float32)), exact, rtol=1e-5)
    field = SquashField(2, 4, key=jax.random.key(0))
    inner = np.log1p(np.exp(field.layers[0](t, jnp.asarray(x, jnp.float32))))
    inner = np.log1p(np.exp(field.layers[1](t, jnp.asarray(inner))))
    np.testing.assert_allclose(field(t, jnp.asarray(x, jnp.float32)), field.layers[2](t, jnp.asarray(inner)), rtol=1e-4)  # fmt: skip


def ring():
    x, test = gaussian_ring(jax.random.key(0), 240), gaussian_ring(jax.random.key(1), 60)
    return Dataset(x, x[:, 0], test, test[:, 0])


def learner(**given):
    return FlowLearner(model=squash_flow(2, 6, rtol=1e-2, atol=1e-2), data=ring(), optimiser=optax.adam,
                       hyper={"learning_rate": 0.05}, batch_size=60, **given)  # fmt: skip


@pytest.mark.parametrize("penalty", ["error", "kinetic"])
def test_a_ring_is_learned(penalty):
    told = unfold(learner(penalty=penalty, strengths=0.01), seeds=1, steps=30, every=30, progress=False)  # fmt: skip
    assert told.test_loss.values[0, -1] < told.test_loss.values[0, 0] - 1
    assert (told.penalty.values[0, 1:] > 0).all()
    more = (told.train_work / told.train_evaluations).values[0, 1:]
    assert (more >= 1).all()


def test_kinetic_energy_is_that_of_the_noise_of_the_divergence():
    x = ring().x_train
    process = learner(penalty="kinetic", strengths=1.0)
    flow = Flow(lambda t, z: z @ jnp.asarray(MATRIX.T, z.dtype), rtol=1e-5, atol=1e-5)
    key = jax.random.key(4)
    noise = np.asarray(jax.random.normal(key, x.shape))
    _, told = process.cost(flow, x, x, key, jnp.int32(0))
    path = [np.asarray(x) @ expm(MATRIX * t).T @ MATRIX.T for t in np.linspace(0, 1, 201)]
    energy = np.trapezoid([(p**2).mean() for p in path], dx=1 / 200)
    np.testing.assert_allclose(told.penalty, energy + ((noise @ MATRIX) ** 2).mean(), rtol=1e-3)


def test_bad_options_are_refused():
    for options, said in (
        ({"penalty": "taylor"}, "penalty must be"),
        ({"end_width": 0.5}, "no end_width"),
    ):
        with pytest.raises(ValueError, match=said):
            learner(**options)
