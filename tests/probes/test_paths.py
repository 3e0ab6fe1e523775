import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.core.training import per_example
from latebloom.nn import MLP, Linear
from latebloom.probes.paths import (
    barrier,
    interpolate,
    linear_path,
    with_statistics_of,
)


class Line(eqx.Module):
    """Says class 1 where weight x > 0."""

    weight: jax.Array

    def __call__(self, x, *, key=None, train=False):
        return jnp.stack([jnp.zeros(len(x)), (x * self.weight).sum(-1)], -1)


def test_barrier_of_a_case_worked_by_hand():
    """Two opposite classifiers, each right on half: the point between them says 0 always."""
    one, other = Line(jnp.array([1.0, 1.0])), Line(jnp.array([-1.0, 1.0]))
    x = jnp.array([[1.0, 0.5], [-1.0, 0.5], [0.5, 1.0], [-0.5, 1.0]])
    y = jnp.array([1, 0, 1, 1])
    # Weights (1 - 2t, 1): at t = 0, x.w = 1.5 -0.5 1.5 0.5, all right. At 1 the first two are
    # -0.5 and 1.5, both wrong. At t = .5 x.w = .5 .5 1 1: only the second is wrong.
    path = linear_path(one, other, x, y, points=3)
    np.testing.assert_allclose(path.places, [0, 0.5, 1])
    np.testing.assert_allclose(path.errors, [0, 0.25, 0.5])
    assert float(path.barrier) == 0.25
    assert float(barrier(jnp.array([0.1, 0.6, 0.2, 0.3]))) == pytest.approx(0.4)


def trained_like(seed):
    """A network whose batch norm has statistics and parameters of its own."""
    net = MLP(3, (4,), 2, key=jax.random.key(seed), norm="batch")
    keys = jax.random.split(jax.random.key(seed + 50), 4)
    draws = [jax.random.uniform(k, (4,), minval=0.5, maxval=2.0) for k in keys]
    return eqx.tree_at(
        lambda m: tuple(getattr(m.norms[0], n) for n in ("scale", "shift", "mean", "variance")),
        net, tuple(draws),
    )  # fmt: skip


def test_ends_are_the_networks_and_statistics_go_along():
    one, other = trained_like(0), trained_like(1)
    assert eqx.tree_equal(interpolate(one, other, 0.0), one)
    assert eqx.tree_equal(interpolate(one, other, 1.0), other)
    between = interpolate(one, other, 0.25)
    for name in ("mean", "variance", "scale"):
        a, b, c = (getattr(net.norms[0], name) for net in (one, other, between))
        np.testing.assert_allclose(c, 0.75 * a + 0.25 * b, rtol=1e-6)


def test_statistics_can_be_measured_anew():
    x = jax.random.normal(jax.random.key(5), (40, 3)) * 3 + 1
    net = with_statistics_of(trained_like(0), x)
    hidden = np.asarray(x) @ np.asarray(net.layers[0].weight) + np.asarray(net.layers[0].bias)
    np.testing.assert_allclose(net.norms[0].mean, hidden.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(net.norms[0].variance, hidden.var(0), rtol=1e-4)
    one, other = trained_like(0), trained_like(1)
    y = jax.random.randint(jax.random.key(6), (40,), 0, 2)
    path = linear_path(one, other, x, y, points=5, statistics_of=x)
    middle = with_statistics_of(interpolate(one, other, 0.5), x)
    assert float(path.errors[2]) == float((middle(x).argmax(-1) != y).mean())


def test_every_point_equals_a_network_built_by_hand():
    one, other = Linear(3, 4, key=jax.random.key(0)), Linear(3, 4, key=jax.random.key(1))
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 4, 50)
    path = linear_path(one, other, jnp.asarray(x), jnp.asarray(y), apply=per_example)
    for place, error in zip(np.linspace(0, 1, 11), path.errors, strict=True):
        w = (1 - place) * np.asarray(one.weight) + place * np.asarray(other.weight)
        b = (1 - place) * np.asarray(one.bias) + place * np.asarray(other.bias)
        assert float(error) == pytest.approx(((x @ w + b).argmax(1) != y).mean())


def test_paths_work_for_many_networks_at_once():
    make = eqx.filter_vmap(lambda key: Linear(3, 4, key=key))
    one, other = (
        make(jax.random.split(jax.random.key(0), 5)),
        make(jax.random.split(jax.random.key(1), 5)),
    )
    x, y = jnp.ones((6, 3)), jnp.zeros(6, jnp.int32)
    barriers = eqx.filter_vmap(
        lambda a, b: linear_path(a, b, x, y, points=4, apply=per_example).barrier
    )(one, other)
    assert barriers.shape == (5,) and (barriers >= -1).all()


def test_what_is_no_path_is_refused():
    one = Linear(3, 4, key=jax.random.key(0))
    with pytest.raises(ValueError, match="same architecture"):
        interpolate(one, Linear(3, 5, key=jax.random.key(0)), 0.5)
    with pytest.raises(ValueError, match="same architecture"):
        interpolate(one, Linear(3, 4, key=jax.random.key(0), use_bias=False), 0.5)
    with pytest.raises(ValueError, match="at least 3 points, not 2"):
        linear_path(one, one, jnp.ones((2, 3)), jnp.zeros(2, jnp.int32), points=2)
