"""The last-iterate wrapper: worked by hand, against linear decay, and held to its theorem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.optim.schedules import polynomial_decay, schedule_values
from latebloom.optim.tail_weights import last_iterate, tail_fractions


def test_fractions_are_what_is_left_of_the_weights():
    np.testing.assert_allclose(tail_fractions(jnp.array([1.0, 2.0, 5.0])), [7 / 8, 5 / 8, 0])
    np.testing.assert_allclose(
        tail_fractions(jnp.ones(50)), schedule_values(polynomial_decay(), 50), atol=1e-6
    )


def descend(optimiser, gradient, x, steps):
    state, path = optimiser.init(x), [x]
    for _ in range(steps):
        update, state = optimiser.update(gradient(x), state, x)
        x = optax.apply_updates(x, update)
        path.append(x)
    return path, state


def test_two_steps_by_hand():
    optimiser = last_iterate(optax.sgd(0.5), jnp.array([1.0, 3.0]))
    path, state = descend(optimiser, lambda x: jnp.array(2.0), jnp.array(10.0), 3)
    # z moves by -0.5 * w * 2: first -1, of which 3/4 reaches x; then -3, of which nothing does.
    np.testing.assert_allclose(path, [10, 9.25, 9.25, 9.25])
    assert float(state.iterate) == pytest.approx(10 - 1 - 3 - 3)


def test_of_plain_descent_it_makes_linear_decay():
    gradient = jax.grad(lambda p: jnp.sum((p["a"] - 3) ** 2) + jnp.sum(jnp.abs(p["b"])))
    start, steps = {"a": jnp.zeros(2), "b": jnp.ones(3)}, 20
    table = schedule_values(polynomial_decay(), steps)
    ours, _ = descend(last_iterate(optax.sgd(0.3), jnp.ones(steps)), gradient, start, steps)
    plain, _ = descend(optax.sgd(lambda count: 0.3 * table[count]), gradient, start, steps)
    for mine, theirs in zip(ours, plain, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mine, theirs)


def test_a_base_that_projects_sees_its_own_iterates():
    """z is held to |z| <= 1; x, an average of past z, would never trip the projection."""

    def update(updates, state, params):
        return jnp.clip(params - updates, -1.0, 1.0) - params, state

    base = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    path, state = descend(
        last_iterate(base, jnp.ones(10)), lambda x: jnp.array(-0.4), jnp.array(0.0), 10
    )
    assert float(state.iterate) == 1.0
    # z: 0, .4, .8, 1, 1, ...; x adds 9/10, 8/10, 7/10 of its moves.
    np.testing.assert_allclose(path[-1], 0.4 * 0.9 + 0.4 * 0.8 + 0.2 * 0.7, rtol=1e-6)


@settings(max_examples=30)
@given(
    weights=st.lists(st.floats(0.05, 20), min_size=2, max_size=12),
    base=st.sampled_from(["sgd", "adam", "momentum", "adagrad"]),
    seed=st.integers(0, 1000),
)
def test_the_regret_of_any_base_bounds_the_last_iterate(weights, base, seed):
    """f(x_T) - f(u) <= sum_t w_t <g_t, z_t - u> / w_{1:T} for convex f, whatever the base."""
    rng = np.random.default_rng(seed)
    planes, offsets = rng.normal(size=(6, 3)), rng.normal(size=6)
    u = rng.normal(size=3)
    optimisers = {
        "sgd": optax.sgd(0.3), "adam": optax.adam(0.2), "momentum": optax.sgd(0.1, 0.9),
        "adagrad": optax.adagrad(0.5),
    }  # fmt: skip
    optimiser = last_iterate(optimisers[base], jnp.asarray(weights, jnp.float32))

    def value(x):
        return (planes @ np.asarray(x, float) + offsets).max()

    def subgradient(x):
        return planes[(planes @ np.asarray(x, float) + offsets).argmax()]

    x = jnp.asarray(rng.normal(size=3), jnp.float32)
    state, regret = optimiser.init(x), 0.0
    for w in weights:
        last, g, z = x, subgradient(x), np.asarray(state.iterate, float)
        regret += w * g @ (z - u)
        update, state = optimiser.update(jnp.asarray(g, jnp.float32), state, x)
        x = optax.apply_updates(x, update)
    assert value(last) - value(u) <= regret / sum(weights) + 1e-3


def test_it_runs_in_a_compiled_loop_with_traced_weights():
    def run(weights):
        optimiser = last_iterate(optax.sgd(0.1), weights)

        def body(carry, _):
            x, state = carry
            update, state = optimiser.update(2 * x, state, x)
            return (optax.apply_updates(x, update), state), None

        return jax.lax.scan(body, (jnp.ones(()), optimiser.init(jnp.ones(()))), None, 5)[0][0]

    known = run(np.ones(5, np.float32))
    np.testing.assert_allclose(jax.jit(run)(jnp.ones(5)), known, rtol=1e-6)
    np.testing.assert_allclose(known, 0.84 * 0.88 * 0.92 * 0.96, rtol=1e-6)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.inf]])
def test_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="weights must be"):
        last_iterate(optax.sgd(0.1), jnp.array(weights))


def test_it_needs_the_parameters():
    optimiser = last_iterate(optax.sgd(0.1), jnp.ones(3))
    with pytest.raises(ValueError, match="needs the parameters"):
        optimiser.update(jnp.ones(()), optimiser.init(jnp.ones(())))
