"""Penalties on what the solver sees, against a replay in NumPy; gradients by both adjoints; Taylor derivatives in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.core.odes import TSIT5, solve, solve_by_adjoint
from latebloom.core.odes.solving import Caught
from latebloom.methods.continuous.kinetic import kinetic_and_jacobian, with_kinetic
from latebloom.methods.continuous.regularisers import (
    annealed,
    local_penalty,
    point_to_catch,
    random_end,
    random_times,
    solver_penalty,
)
from latebloom.methods.continuous.taylor import total_derivative, with_taylor
from latebloom.methods.continuous.work import backward_work, products

solved = eqx.filter_jit(solve)
MATRIX = np.array([[-0.5, 2.0], [-2.0, -0.7]])
Y0 = np.array([1.0, 0.4])


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def turning(t, y, matrix=MATRIX):
    return jnp.asarray(matrix) @ jnp.tanh(y) * (1 + t)


def test_penalties_are_the_tallies_of_the_steps(double):
    found = solved(turning, 0.0, 2.0, jnp.asarray(Y0), rtol=1e-4, atol=1e-4, record=True)
    steps, n = found.steps, int(found.accepted)
    e, h, s = (np.asarray(x[:n]) for x in (steps.error, steps.length, steps.stiffness))
    terms = {"error": e * h, "error_squared": e**2 * h, "stiffness": s}
    for kind, each in terms.items():
        for aggregate, value in {"sum": each.sum(), "mean": each.mean(), "max": each.max()}.items():
            assert float(solver_penalty(found, kind, aggregate)) == pytest.approx(value)
    for aggregate, n_of in {"sum": 1, "mean": n}.items():
        both = ((e * h).sum() + 0.1 * s.sum()) / n_of
        assert float(solver_penalty(found, "error_and_stiffness", aggregate)) == pytest.approx(both)
    with pytest.raises(ValueError, match="no max"):
        solver_penalty(found, "error_and_stiffness", "max")
    with pytest.raises(ValueError, match="no estimate of stiffness"):
        solver_penalty(eqx.tree_at(lambda f: f.stiffness, found, None), "stiffness")
    with pytest.raises(ValueError, match="kind must be"):
        solver_penalty(found, "errors")
    with pytest.raises(ValueError, match="aggregate must be"):
        solver_penalty(found, "error", "median")
    other = eqx.filter_eval_shape(solve_by_adjoint, turning, 0.0, 2.0, jnp.asarray(Y0))
    with pytest.raises(ValueError, match="no gradients"):
        solver_penalty(other)


def one_step_by_hand(matrix, t, y, h, first, tol):
    f = lambda t, y: matrix @ np.tanh(y) * (1 + t)  # noqa: E731
    k, states = [first], [y]
    for c, a in zip(TSIT5.c[1:], TSIT5.a[1:], strict=True):
        states.append(y + h * sum(w * one for w, one in zip(a, k, strict=True)))
        k.append(f(t + c * h, states[-1]))
    scale = tol + tol * np.maximum(np.abs(y), np.abs(states[-1]))
    error = np.sqrt(np.mean((h * np.tensordot(TSIT5.error, k, 1) / scale) ** 2)) * h
    stiff = np.linalg.norm(k[6] - k[5]) / np.linalg.norm(states[6] - states[5]) / 3.5068
    return {"error": error, "stiffness": stiff}


@pytest.mark.parametrize("kind", ["error", "stiffness"])
def test_a_local_penalty_is_of_one_step_and_its_gradient_of_the_later_stages(double, kind):
    t, h, tol = 0.7, 0.2, 1e-3
    caught = Caught(jnp.asarray(t), jnp.asarray(Y0), jnp.asarray(h))
    first = MATRIX @ np.tanh(Y0) * (1 + t)
    options = dict(kind=kind, rtol=tol, atol=tol, length="solver")

    def ours(matrix):
        return local_penalty(lambda t, y: turning(t, y, matrix), caught, 2.0, **options)

    value, slope = jax.jit(jax.value_and_grad(ours))(jnp.asarray(MATRIX))
    byhand = lambda m: one_step_by_hand(m, t, Y0, h, first, tol)[kind]  # noqa: E731
    assert float(value) == pytest.approx(byhand(MATRIX), rel=1e-7)
    for i, j in ((0, 0), (1, 0)):
        move = 1e-6 * np.eye(2)[i][:, None] * np.eye(2)[j]
        exact = (byhand(MATRIX + move) - byhand(MATRIX - move)) / 2e-6
        assert float(slope[i, j]) == pytest.approx(exact, rel=1e-5)


def test_a_fresh_step_is_by_hairers_rule_and_never_beyond_the_end(double):
    t, tol = 0.7, 1e-3
    caught = Caught(jnp.asarray(t), jnp.asarray(Y0), jnp.asarray(9.0))
    fresh = solved(turning, t, 2.0, jnp.asarray(Y0), rtol=tol, atol=tol, record=True)
    found = local_penalty(turning, caught, 2.0, rtol=tol, atol=tol)
    # the first step of a solver that starts there, if it is accepted, is this step
    assert float(found) == pytest.approx(float(fresh.steps.error[0] * fresh.steps.length[0]))
    short = local_penalty(turning, caught, t + 0.01, rtol=tol, atol=tol, length="solver")
    by_hand = one_step_by_hand(MATRIX, t, Y0, 0.01, MATRIX @ np.tanh(Y0) * 1.7, tol)
    assert float(short) == pytest.approx(by_hand["error"], rel=1e-6)
    assert float(local_penalty(turning, caught, t, length="solver")) == 0  # no time is left
    with pytest.raises(ValueError, match="length"):
        local_penalty(turning, caught, 2.0, length="long")


@pytest.mark.parametrize("sampler", ["unbiased", "biased"])
def test_both_adjoints_give_the_same_gradients_of_it(double, sampler):
    catch = point_to_catch(jax.random.key(3), 0.0, 2.0, sampler)

    def value(way, matrix):
        field = lambda t, y: turning(t, y, matrix)  # noqa: E731
        found = way(field, 0.0, 2.0, jnp.asarray(Y0), rtol=1e-9, atol=1e-9, catch=catch)
        extra = local_penalty(field, found.caught, 2.0, rtol=1e-4, atol=1e-4)
        return (found.y**2).sum() + 10 * extra, extra

    slope = eqx.filter_jit(jax.grad(value, 1, has_aux=True))
    (one, extra), (other, same) = (slope(way, jnp.asarray(MATRIX)) for way in (solve, solve_by_adjoint))  # fmt: skip
    np.testing.assert_allclose(one, other, rtol=1e-6)
    assert extra == same > 0


def test_the_mean_of_the_unbiased_penalty_is_its_integral(double):
    def penalty(time):
        found = solve(turning, 0.0, 2.0, jnp.asarray(Y0), rtol=1e-5, atol=1e-5, catch=time, loop="forward")  # fmt: skip
        return local_penalty(turning, found.caught, 2.0, rtol=1e-5, atol=1e-5)

    many = jax.jit(lambda times: jax.vmap(penalty)(times))
    grid = (np.arange(500) + 0.5) / 250
    keys = jax.random.split(jax.random.key(0), 500)
    times = jax.vmap(lambda key: point_to_catch(key, 0.0, 2.0))(keys)
    drawn, exact = np.asarray(many(times)), np.asarray(many(jnp.asarray(grid))).mean()
    assert abs(drawn.mean() - exact) < 3 * drawn.std() / np.sqrt(500)
    assert drawn.std() > 0 and (times > 0).all() and (times < 2).all()


def test_taylor_derivatives_of_a_linear_field_are_powers(double):
    for order in (1, 2, 3, 4):
        exact = np.linalg.matrix_power(MATRIX, order) @ Y0
        for by in ("jet", "jvp"):
            found = total_derivative(lambda t, y: jnp.asarray(MATRIX) @ y, 0.0, jnp.asarray(Y0), order, by)  # fmt: skip
            np.testing.assert_allclose(found, exact, rtol=1e-10)
    # in time as well: y = exp(sin t) solves dy/dt = y cos t
    third = total_derivative(lambda t, y: y * jnp.cos(t), 0.3, jnp.exp(jnp.sin(jnp.asarray([0.3]))), 3)  # fmt: skip
    s, c = np.sin(0.3), np.cos(0.3)
    np.testing.assert_allclose(third, np.exp(s) * (c**3 - 3 * s * c - c), rtol=1e-10)
    both = [total_derivative(turning, 0.2, jnp.asarray(Y0), 3, by) for by in ("jet", "jvp")]
    np.testing.assert_allclose(*both, rtol=1e-10)
    for bad in (dict(order=0), dict(order=2, by="hand")):
        with pytest.raises(ValueError):
            total_derivative(turning, 0.0, jnp.asarray(Y0), **bad)


def test_r_k_is_an_integral_that_chooses_no_step(double):
    linear = lambda t, y: jnp.asarray(MATRIX) @ y  # noqa: E731
    state = jnp.asarray(Y0), jnp.zeros(())
    options = dict(rtol=1e-8, atol=1e-8)
    found = solved(with_taylor(linear, 2), 0.0, 1.5, state, counted=lambda s: s[0], **options)
    plain = solved(linear, 0.0, 1.5, jnp.asarray(Y0), save=jnp.linspace(0, 1.5, 301), **options)
    values = ((np.asarray(plain.saved) @ (MATRIX @ MATRIX).T) ** 2).mean(1)
    simpson = np.append(np.ravel([[2, 4]] * 150), 1) * np.append(0.5, np.ones(300))
    assert float(found.y[1]) == pytest.approx((simpson * values).sum() * 0.005 / 3, rel=1e-6)
    assert found.accepted == plain.accepted


def test_strengths_and_ends():
    shares = jnp.asarray([0.0, 0.5, 1.0])
    np.testing.assert_allclose(annealed(100.0, 1.0, shares), [100, 10, 1], rtol=1e-5)
    ends = jax.vmap(lambda key: random_end(key, 1.0, 0.5))(jax.random.split(jax.random.key(0), 4000))  # fmt: skip
    assert ends.min() >= 0.5 and ends.max() <= 1.5
    assert abs(ends.mean() - 1) < 3 * 0.5 / np.sqrt(3 * 4000)
    assert abs(ends.std() - 0.5 / np.sqrt(3)) < 0.01
    with pytest.raises(ValueError, match="sampler"):
        point_to_catch(jax.random.key(0), 0.0, 1.0, "both")


def test_random_times_stay_within_half_a_gap():
    times = jnp.asarray([0.0, 0.1, 0.4, 1.0])
    many = np.asarray(
        jax.vmap(lambda key: random_times(key, times))(jax.random.split(jax.random.key(0), 4000))
    )
    np.testing.assert_array_equal(many[:, 0], 0)
    for i, (gap, at) in enumerate(((0.1, 0.1), (0.3, 0.4)), 1):
        assert np.abs(many[:, i] - at).max() <= gap / 2 + 1e-6
        assert abs(many[:, i].std() - gap / np.sqrt(12)) < 0.02 * gap
    assert many.max() == 1
    with pytest.raises(ValueError, match="at least two"):
        random_times(jax.random.key(0), jnp.ones(1))


def test_kinetic_energy_and_jacobian(double):
    linear = lambda t, y: y @ jnp.asarray(MATRIX).T  # noqa: E731
    y = jnp.asarray([[1.0, 0.4], [-0.3, 2.0]])
    noise = jnp.asarray([[1.0, -1.0], [1.0, 1.0]])
    slope, energy, size = kinetic_and_jacobian(linear, 0.0, y, noise)
    np.testing.assert_allclose(slope, np.asarray(y) @ MATRIX.T)
    assert float(energy) == pytest.approx(((np.asarray(y) @ MATRIX.T) ** 2).mean())
    assert float(size) == pytest.approx(((np.asarray(noise) @ MATRIX) ** 2).mean())
    drawn = jax.random.normal(jax.random.key(0), (20_000, 2))
    mean = float(kinetic_and_jacobian(linear, 0.0, jnp.ones((20_000, 2)), drawn)[2])
    assert mean == pytest.approx((MATRIX**2).sum() / 2, rel=0.03)  # Frobenius, for each of two rows
    state = y, jnp.zeros(())
    found = solved(
        with_kinetic(linear, noise), 0.0, 1.0, state, counted=lambda s: s[0], rtol=1e-8, atol=1e-8
    )
    plain = solved(linear, 0.0, 1.0, y, rtol=1e-8, atol=1e-8, save=jnp.linspace(0, 1, 101))
    slopes = np.asarray(plain.saved) @ MATRIX.T
    exact = np.trapezoid((slopes**2).mean(axis=(1, 2)), dx=0.01) + float(size)
    assert float(found.y[1]) == pytest.approx(exact, rel=1e-4) and found.accepted == plain.accepted


def test_products_are_counted():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert products(lambda a, b: jnp.tanh(a @ b), a, b) == 60
    assert products(jax.jit(lambda a, b: a @ b + a @ b), a, b) == 120
    looped = lambda a: jax.lax.scan(lambda x, _: (x @ jnp.ones((4, 4)), None), a, None, length=7)[0]  # noqa: E731
    assert products(looped, a) == 7 * 3 * 4 * 4
    linear = eqx.nn.Linear(4, 4, use_bias=False, key=jax.random.key(0))
    field = lambda t, y: jax.vmap(linear)(y)  # noqa: E731
    assert backward_work(field, 0.0, a) == 2 * 48  # closed over: forward, and the gradient in y
    assert (
        backward_work(jax.tree_util.Partial(lambda w, t, y: y @ w, linear.weight), 0.0, a) == 3 * 48
    )
