"""Probes in training against NumPy, on a network of one matrix."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.core.training import Dataset, Snapshot
from latebloom.probes import supervised

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
LABELS = jnp.array([0, 1, 2, 0, 1, 2])
W = RNG.normal(size=(4, 3)).astype(np.float32)


class Matrix(eqx.Module):
    weight: jnp.ndarray

    def __call__(self, x):
        return x @ self.weight


MODEL, DATA = Matrix(jnp.asarray(W)), Dataset(X, LABELS, X[:5], LABELS[:5])


def snapshot(logits=None, gradients=None):
    logits = MODEL(X) if logits is None else jnp.asarray(logits, jnp.float32)
    return Snapshot(logits, MODEL(X[:5]), gradients or Matrix(-2 * MODEL.weight), jnp.int32(0))


def test_the_power_of_targets_and_of_labels():
    numbers = Dataset(X, X[:, :2], X, 3 * X[:, :2])
    for part, factor in (("train", 1), ("test", 9)):
        found = supervised.target_power(part, MODEL, numbers, snapshot())
        np.testing.assert_allclose(found, factor * np.mean(np.asarray(X[:, :2]) ** 2), rtol=1e-5)
        one_hot = np.eye(3)[np.asarray(LABELS)]
        found = supervised.target_power(part, MODEL, DATA, snapshot())
        np.testing.assert_allclose(found, np.mean(one_hot**2), rtol=1e-6)


def test_norm_and_direction_of_the_weights():
    np.testing.assert_allclose(
        supervised.parameter_norm(MODEL, DATA, snapshot()), np.linalg.norm(W), rtol=1e-5
    )
    found = supervised.geometry(MODEL, DATA, snapshot())  # descent goes along the weights
    np.testing.assert_allclose(found["logit_scaling"], [1], rtol=1e-5)
    np.testing.assert_allclose(found["weight_norm"], np.linalg.norm(W), rtol=1e-5)
    assert found["logit_scaling"].dtype == found["weight_norm"].dtype == jnp.float32


def test_the_kernel_of_a_matrix_is_that_of_its_inputs():
    x, y = np.asarray(X[:4]), np.eye(3)[np.asarray(LABELS[:4])]
    kernel, y = x @ x.T, y - y.mean(0)
    centred = kernel - kernel.mean(0)
    wanted = np.trace(y.T @ centred @ y) / np.linalg.norm(centred) / np.linalg.norm(y @ y.T)
    found = supervised.ntk_alignment(4, MODEL, DATA, snapshot())
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize(("stablemax", "share"), [(False, 0.5), (True, 0.0)])
def test_collapse_is_of_the_probabilities_of_the_loss(stablemax, share):
    sure = np.where(np.arange(6)[:, None] < 3, 30.0, 3.0)  # half the margins beyond 16.6
    logits = sure * np.eye(3)[np.asarray(LABELS)]
    found = supervised.collapse(stablemax, "float32", MODEL, DATA, snapshot(logits))
    assert float(found["collapsed_fraction"]) == share
