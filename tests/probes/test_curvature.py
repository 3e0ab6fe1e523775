"""Curvature against whole matrices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from latebloom.probes.curvature import fisher_norm, top_eigenvalue


class Vector(eqx.Module):
    w: jax.Array


def test_the_largest_eigenvalue_of_quadratic_forms():
    rng = np.random.default_rng(0)
    for eigenvalues in ([3.0, 1.0, -5.0, 0.2], [-1.0, -2.0, -3.0, -4.0], [2.0] * 4, [0.0] * 4):
        q, _ = np.linalg.qr(rng.normal(size=(4, 4)))
        matrix = jnp.asarray(q @ np.diag(eigenvalues) @ q.T, jnp.float32)
        found = top_eigenvalue(
            lambda m, a=matrix: m.w @ a @ m.w / 2, Vector(jnp.ones(4)), jax.random.key(1)
        )
        assert float(found) == pytest.approx(max(eigenvalues), abs=1e-4)


def test_the_largest_eigenvalue_of_a_network():
    model = eqx.nn.MLP(3, 2, 6, 1, activation=jnp.tanh, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (20, 3))
    y = jnp.sin(3 * x[:, :2])

    def loss(model):
        return jnp.square(jax.vmap(model)(x) - y).mean()

    params, rest = eqx.partition(model, eqx.is_inexact_array)
    flat, back = ravel_pytree(params)
    whole = jax.hessian(lambda v: loss(eqx.combine(back(v), rest)))(flat)
    expected = np.linalg.eigvalsh(np.asarray(whole, float))[-1]
    found = eqx.filter_jit(lambda m: top_eigenvalue(loss, m, jax.random.key(2), 15))(model)
    assert float(found) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="iterations"):
        top_eigenvalue(loss, model, jax.random.key(2), 0)


def test_a_gradient_in_the_inverse_fisher_metric():
    g, f = np.array([1.0, -2.0, 0.0, 3.0]), np.array([0.0, 4.0, 1.0, 3.0])
    trees = [{"a": jnp.asarray(v[:1]), "b": jnp.asarray(v[1:])} for v in (g, f)]
    found = fisher_norm(*trees, damping=0.5)
    assert float(found) == pytest.approx(np.sqrt((g**2 / (f + 0.5 * f.mean())).sum()), rel=1e-6)
