"""Two-pathway networks: the task, the aligned start, gradient descent against the modes' equations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom import unfold
from latebloom.methods.critical_periods import TwoPathways, age, aligned_layers, hierarchy, settle

SINGULAR = np.sqrt([15, 7, 3, 3, 1, 1, 1, 1])


def run(steps=1000, every=10, seeds=(3,), **settings):
    process = TwoPathways(hierarchy(), width=16, **settings)
    return unfold(process, seeds=list(seeds), steps=steps, every=every, progress=False)


def test_the_hierarchical_task():
    rows = hierarchy()
    assert rows.shape == (8, 15)
    assert rows[0].tolist() == [1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert rows.sum(axis=0).tolist() == [8, 4, 4, 2, 2, 2, 2, *[1] * 8]
    np.testing.assert_allclose(np.linalg.svd(rows, compute_uv=False), SINGULAR, rtol=1e-6)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_aligned_layers_are_balanced(depth):
    u, s, vt = np.linalg.svd(hierarchy().T, full_matrices=False)
    strengths = jnp.linspace(0.5, 0.1, 12).at[8:].set(0)  # the other units hold no mode
    layers = aligned_layers(jax.random.key(0), jnp.asarray(u), jnp.asarray(vt.T), strengths, depth)
    total = layers[0]
    for w in layers[1:]:
        total = w @ total
    np.testing.assert_allclose(total, (u * strengths[:8]) @ vt, atol=1e-5)
    for first, second in itertools.pairwise(layers):
        np.testing.assert_allclose(first @ first.T, second.T @ second, atol=1e-5)


def test_the_gradient_against_finite_differences():
    process = TwoPathways(hierarchy(), depth=3, width=9, epsilon=0.5, blocked=1)
    layers = process.init(jax.random.key(1)).layers
    gradient = jax.grad(process.loss)(layers, jnp.float32(1))
    rng = np.random.default_rng(0)
    for path in (0, 1):
        for layer in range(3):
            direction = rng.normal(size=layers[path][layer].shape).astype(np.float32)

            def moved(h, path=path, layer=layer, direction=direction):
                shifted = [list(p) for p in layers]
                shifted[path][layer] = shifted[path][layer] + h * direction
                return float(process.loss(tuple(map(tuple, shifted)), jnp.float32(1)))

            slope = (moved(5e-3) - moved(-5e-3)) / 1e-2
            wanted = float((gradient[path][layer] * direction).sum())
            assert slope == pytest.approx(wanted, rel=2e-2, abs=2e-2)


def test_a_gated_pathway_speaks_but_does_not_learn():
    process = TwoPathways(hierarchy(), depth=3, width=9, epsilon=0.5)
    layers = process.init(jax.random.key(1)).layers
    open_, shut = (jax.grad(process.loss)(layers, jnp.float32(g)) for g in (1, 0))
    assert process.loss(layers, jnp.float32(0)) == process.loss(layers, jnp.float32(1))
    for a, b in zip(open_[0], shut[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert all((b == 0).all() for b in shut[1])
    assert any((b != 0).any() for b in open_[1])


def test_the_modes_stay_apart_and_follow_their_equations():
    trace = run(depth=4, start=100, length=100)
    assert trace.mixing.max() < 1e-4
    np.testing.assert_allclose(trace.strength, trace.euler, atol=1e-3)
    finer = run(depth=4, start=400, length=400, rate=0.0025, steps=4000, every=40)
    coarse = float(np.abs(trace.strength - trace.flow).max())
    fine = float(np.abs(finer.strength - finer.flow).max())
    assert 2.5 < coarse / fine < 8  # order 1: a factor of 4


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_descent_conserves_the_difference_of_ages(depth):
    trace = run(depth=depth, length=20, rate=0.002, steps=2500, every=20)
    p = trace.strength.sel(mode=1).values[0] ** (1 / depth)
    difference = np.subtract(*age(p[1:].T, depth))  # from the end of the deficit on
    lead = abs(difference[0] - np.subtract(*age(p[:1].T, depth))[0])
    assert lead > 0
    np.testing.assert_allclose(difference, difference[0], atol=0.06 * lead)
    settled = settle(p[1], SINGULAR[0], depth)
    np.testing.assert_allclose(trace.strength.sel(mode=1).values[0, -1], settled, atol=0.05)


def test_early_and_late_deficits():
    early, late = (run(depth=4, start=t, length=150) for t in (0, 750))
    assert early.dominance[0, -1].min() > 0.8
    assert abs(late.dominance[0, -1]).max() < 1e-3
    assert early.fit_dominance[0, -1] > 0.9


def test_the_deprived_pathway_learns_what_the_other_lacks():
    trace = run(depth=3, length=200, blocked=1)
    final = trace.strength[0, -1]
    assert np.abs(trace.strength.sel(mode=2, path="a")).max() < 1e-6
    assert final.sel(mode=2, path="b") == pytest.approx(SINGULAR[1], abs=0.01)
    assert (trace.dominance[0, -1].drop_sel(mode=2) > 0.8).all()


def test_gating_some_of_the_steps():
    runs = [run(depth=4, steps=200, every=200, length=30, probability=p) for p in (1, 0.5, 0)]
    one, half, none = (float(t.dominance.sel(mode=1)[0, -1]) for t in runs)
    assert none == pytest.approx(0, abs=1e-4)
    assert none < half < one


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_activations_follow_every_layer(activation):
    process = TwoPathways(hierarchy(), depth=2, width=8, epsilon=0.5, activation=activation)
    layers = process.init(jax.random.key(0)).layers
    act = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[activation]
    first, second = (np.asarray(w) for w in layers[0])
    wanted = act(act(np.eye(8) @ first.T) @ second.T)
    np.testing.assert_allclose(process.outputs(layers)[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"depth": 1}, "at least 2"),
        ({"depth": 3, "width": 7}, "at least 8"),
        ({"depth": 3, "blocked": 8}, "from 0 to 7"),
        ({"depth": 3, "activation": "gelu"}, "identity, relu or tanh"),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        TwoPathways(hierarchy(), **settings)
    with pytest.raises(ValueError, match="one unit a mode"):
        aligned_layers(jax.random.key(0), jnp.zeros((15, 8)), jnp.zeros((8, 8)), jnp.ones(4), 3)
