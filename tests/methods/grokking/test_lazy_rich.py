"""The committee machine's closed forms against neurons, quadrature and large samples."""

import itertools
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import unfold
from latebloom.methods.grokking.lazy_rich import (
    ClosedDynamics,
    CommitteeMachine,
    Motion,
    Statistics,
    committee_training,
    infinite_width,
    kernel_plateau,
    moved_statistics,
    output,
    population_loss,
    population_moments,
    residual_moments,
    sample_task,
    statistics,
    tangent_kernel,
    target_power,
)
from latebloom.methods.grokking.scaled_mlp import NarrowTeacher, ScaledMLP
from latebloom.probes.linearised import Centred, Linearised
from latebloom.probes.ntk import empirical_ntk, kernel_regression, parameter_movement


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def small(**changes):
    settings = {"dim": 6, "samples": 15, "neurons": 8, "epsilon": 0.5, "probe_points": 10}
    return ClosedDynamics(**{**settings, **changes})


def gauss_hermite(dim, order=12):
    """Points and weights that integrate polynomials over N(0, I/dim) exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    points = np.array(list(itertools.product(nodes, repeat=dim))) / np.sqrt(dim)
    mass = np.prod(list(itertools.product(weights / np.sqrt(2 * np.pi), repeat=dim)), axis=1)
    return points, mass


def random_statistics(seed, dim=3, neurons=4):
    weights = jax.random.normal(jax.random.key(seed), (neurons, dim), jnp.float64)
    return weights, statistics(weights)


def test_output_is_the_committee_of_its_neurons():
    weights, at = random_statistics(0)
    x = jax.random.normal(jax.random.key(1), (7, 3), jnp.float64)
    h = np.asarray(x) @ np.asarray(weights).T
    want = 1.5 * (h + 0.2 / 2 * h**2).mean(axis=1)
    np.testing.assert_allclose(output(x, at, 1.5, 0.2), want, rtol=1e-12)
    model = CommitteeMachine(3, 4, key=jax.random.key(0), alpha=1.5, epsilon=0.2)
    model = eqx.tree_at(lambda m: m.weights, model, weights)
    np.testing.assert_allclose(model(x), want, rtol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 4), st.floats(0.1, 2))
def test_loss_decomposition_and_population_moments_by_quadrature(seed, alpha, epsilon):
    with jax.enable_x64(True):
        _, at = random_statistics(seed)
        teacher = jax.random.normal(jax.random.key(seed + 1), (3,), jnp.float64)
        x, mass = gauss_hermite(3)
        y = (x @ np.asarray(teacher)) ** 2 / 2
        residual = y - np.asarray(output(jnp.array(x), at, alpha, epsilon))
        terms = population_loss(at, teacher, alpha, epsilon)
        np.testing.assert_allclose(terms.total, mass @ residual**2, rtol=1e-9)
        assert min(terms) >= 0
        np.testing.assert_allclose(target_power(teacher), mass @ y**2, rtol=1e-9)
        first, second = population_moments(at, teacher, alpha, epsilon)
        np.testing.assert_allclose(first, (mass * residual) @ x, atol=1e-9)
        np.testing.assert_allclose(second, (x.T * (mass * residual)) @ x, atol=1e-9)


def test_loss_decomposition_against_a_large_sample():
    _, at = random_statistics(3, dim=8, neurons=20)
    task = sample_task(jax.random.key(4), 400_000, 8, jnp.float64)
    squares = (task.y - output(task.x, at, 0.7, 0.9)) ** 2
    error = float(squares.std() / np.sqrt(len(squares)))
    total = float(population_loss(at, task.teacher, 0.7, 0.9).total)
    assert abs(float(squares.mean()) - total) < 4 * error


def test_sample_moments_approach_the_population_moments():
    _, at = random_statistics(5, dim=4, neurons=6)
    task = sample_task(jax.random.key(6), 500_000, 4, jnp.float64)
    residual = task.y - output(task.x, at, 0.8, 0.6)
    exact = population_moments(at, task.teacher, 0.8, 0.6)
    spread = float(residual.std()) / np.sqrt(len(residual))
    for got, want in zip(residual_moments(task.x, residual), exact, strict=True):
        np.testing.assert_allclose(got, want, atol=5 * spread)


@pytest.mark.parametrize(
    ("centred", "linearised"), [(False, False), (True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize(("alpha", "weight_scale"), [(2.0, 1.0), (0.5, 0.25)])
def test_closed_dynamics_equal_gradient_descent_on_the_neurons(
    alpha, weight_scale, centred, linearised
):
    closed = small(
        alpha=alpha, rate=0.125, weight_scale=weight_scale, centred=centred, linearised=linearised
    )
    twin = {
        (False, False): None,
        (True, False): Centred,
        (False, True): Linearised,
        (True, True): lambda m: Linearised(m, centred=True),
    }[centred, linearised]
    neurons = committee_training(
        dim=6, samples=15, neurons=8, alpha=alpha, epsilon=0.5, rate=0.125,
        weight_scale=weight_scale, test_samples=5, twin=twin, x64=True,
    )  # fmt: skip
    net = neurons.init(jax.random.key(0))
    weights_0 = net.model.weights if twin is None else net.model.params.weights
    state = closed.init(jax.random.key(0))
    state = state._replace(
        task=state.task._replace(x=net.data.x_train, y=net.data.y_train),
        start=statistics(weights_0),
    )
    many = 250
    net, state = iterate(neurons, net, many), iterate(closed, state, many)
    weights = net.model.weights if twin is None else net.model.params.weights

    seen = closed.observe(state)
    np.testing.assert_allclose(
        seen["train_loss"], neurons.observe(net)["train_loss"], rtol=1e-9, atol=1e-20
    )
    moved = parameter_movement(weights, weights_0)
    assert moved > 1e-3
    if not linearised:
        at, want = moved_statistics(state.start, state.motion), statistics(weights)
        np.testing.assert_allclose(at.mean, want.mean, atol=1e-11)
        np.testing.assert_allclose(at.moment, want.moment, atol=1e-11)
        np.testing.assert_allclose(seen["parameter_movement"], moved, rtol=1e-9)


def iterate(process, state, steps):
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(_, arrays):
        return eqx.filter(process.step(eqx.combine(arrays, static)), eqx.is_array)

    return eqx.combine(jax.jit(lambda a: jax.lax.fori_loop(0, steps, step, a))(arrays), static)


def test_both_step_size_conventions_are_one_rate():
    """L / alpha^2 with eta and L with eta / alpha^2 are the same descent."""
    model = CommitteeMachine(4, 5, key=jax.random.key(0), alpha=3.0, dtype=jnp.float64)
    task = sample_task(jax.random.key(1), 9, 4, jnp.float64)

    def after(loss_scale, eta):
        grads = jax.grad(
            lambda w: (
                loss_scale
                * jnp.mean((eqx.tree_at(lambda m: m.weights, model, w)(task.x) - task.y) ** 2)
            )
        )(model.weights)
        return model.weights - eta * grads

    sweeps, figure_1 = after(1 / 9, 0.5 * 5), after(1.0, 5 / 9)
    closed = {}
    for rate in (0.5, 1.0):
        process = ClosedDynamics(dim=4, samples=9, neurons=5, alpha=3.0, rate=rate, probe_points=2)
        state = process.init(jax.random.key(0))
        state = process.step(state._replace(task=task, start=statistics(model.weights)))
        closed[rate] = moved_statistics(state.start, state.motion)
    np.testing.assert_allclose(closed[0.5].moment, statistics(sweeps).moment, rtol=1e-12)
    np.testing.assert_allclose(closed[1.0].moment, statistics(figure_1).moment, rtol=1e-12)


def test_plateau_is_kernel_regression_and_the_end_of_the_centred_linearised_twin():
    closed = small(rate=1.0, centred=True, linearised=True, epsilon=1.0, neurons=30)
    trace = unfold(closed, seeds=2, steps=30_000, every=30_000, progress=False)
    np.testing.assert_allclose(
        trace.test_loss.values[:, -1], trace.plateau.values[:, -1], rtol=1e-3
    )
    assert (trace.train_loss.values[:, -1] < 1e-6).all()
    assert (trace.ntk_movement.values == 0).all()

    _, at = random_statistics(0, dim=6, neurons=8)
    task = sample_task(jax.random.key(1), 15, 6, jnp.float64)
    new = jax.random.normal(jax.random.key(2), (20, 6), jnp.float64)
    kernel = tangent_kernel(task.x, task.x, at, 1.3, 0.5)
    cross = tangent_kernel(new, task.x, at, 1.3, 0.5)
    end = kernel_plateau(task.x, task.y, at, 1.3, 0.5)
    np.testing.assert_allclose(
        output(new, end, 1.3, 0.5), kernel_regression(kernel, task.y, cross), rtol=1e-6, atol=1e-9
    )


def test_infinite_width_is_the_limit_of_wide_committees():
    limit = infinite_width(5, jnp.float64)
    weights = jax.random.normal(jax.random.key(0), (200_000, 5), jnp.float64)
    wide = statistics(weights)
    np.testing.assert_allclose(wide.mean, limit.mean, atol=0.02)
    np.testing.assert_allclose(wide.moment, limit.moment, atol=0.02)
    settings = {"seeds": 3, "steps": 300, "every": 300, "progress": False}
    runs = [unfold(small(neurons=n), **settings).test_loss for n in (None, 100_000)]
    np.testing.assert_allclose(runs[0], runs[1], rtol=0.05)


def test_population_limit_is_the_limit_of_large_samples_and_learns_the_task():
    limit = small(samples=None, neurons=None)
    start = limit.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (50_000, 6), jnp.float64) / 6**0.5
    y = (x @ start.task.teacher) ** 2 / 2
    large = small(samples=50_000, neurons=None)
    sampled = iterate(large, start._replace(task=start.task._replace(x=x, y=y)), 40)
    exact = iterate(limit, start, 40)
    losses = large.observe(sampled)["test_loss"], limit.observe(exact)["test_loss"]
    np.testing.assert_allclose(*losses, rtol=0.03)

    trace = unfold(limit, seeds=2, steps=400, every=400, progress=False)
    assert (trace.test_loss[:, -1] < 0.02 * trace.test_target_power[:, -1]).all()
    assert np.isnan(trace.plateau).all() and (trace.diverged_at == -1).all()
    np.testing.assert_allclose(trace.train_loss, trace.test_loss)


def test_float32_motion_stays_with_float64():
    settings = {"seeds": 2, "steps": 1000, "every": 500, "progress": False}
    double, single = (unfold(small(dtype=d), **settings) for d in ("float64", "float32"))
    np.testing.assert_allclose(single.test_loss, double.test_loss, rtol=1e-3)
    np.testing.assert_allclose(single.plateau, double.plateau, rtol=1e-6)


def test_terms_add_up_and_the_kernel_starts_where_it_is():
    trace = unfold(small(spectrum=True), seeds=2, steps=200, every=20, progress=False)
    total = trace.linear_power + trace.misalignment + trace.trace_term
    np.testing.assert_allclose(total, trace.test_loss)
    assert (trace.ntk_movement[:, 0] < 1e-15).all()
    assert (trace.parameter_movement[:, 0] == 0).all()
    assert (trace.ntk_movement[:, -1] > 0).all()
    np.testing.assert_allclose(
        trace.task_coefficient.sum("mode"), trace.train_target_power, rtol=1e-9
    )
    assert (trace.eigenvalue.diff("mode") <= 1e-9).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_motion_moves_statistics_as_it_moves_the_weights(seed, other):
    with jax.enable_x64(True):
        weights, start = random_statistics(seed, dim=4, neurons=3)
        keys = jax.random.split(jax.random.key(other))
        motion = Motion(
            jax.random.normal(keys[0], (4, 4), jnp.float64),
            jax.random.normal(keys[1], (4,), jnp.float64),
        )
        moved = weights + weights @ motion.turn.T + motion.shift
        got, want = moved_statistics(start, motion), statistics(moved)
        np.testing.assert_allclose(got.mean, want.mean, atol=1e-12)
        np.testing.assert_allclose(got.moment, want.moment, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_loss_and_kernel_do_not_depend_on_the_axes(seed):
    with jax.enable_x64(True):
        weights, at = random_statistics(seed, dim=4)
        teacher = jax.random.normal(jax.random.key(seed + 1), (4,), jnp.float64)
        x = jax.random.normal(jax.random.key(seed + 2), (5, 4), jnp.float64)
        turn = jnp.linalg.qr(jax.random.normal(jax.random.key(seed + 3), (4, 4), jnp.float64))[0]
        turned = statistics(weights @ turn)
        np.testing.assert_allclose(
            population_loss(turned, turn.T @ teacher, 0.5, 0.7),
            population_loss(at, teacher, 0.5, 0.7),
            rtol=1e-8,
            atol=1e-12,
        )
        np.testing.assert_allclose(
            tangent_kernel(x @ turn, x @ turn, turned, 0.5, 0.7),
            tangent_kernel(x, x, at, 0.5, 0.7),
            rtol=1e-8,
            atol=1e-10,
        )


def test_a_perfect_student_has_no_loss():
    teacher = jnp.array([1.0, -2.0, 0.5])
    perfect = Statistics(jnp.zeros(3), jnp.outer(teacher, teacher) / (2.0 * 0.25))
    assert float(population_loss(perfect, teacher, 2.0, 0.25).total) == pytest.approx(0, abs=1e-20)


def test_image_network_is_homogeneous_and_scaled_by_alpha():
    x = jax.random.normal(jax.random.key(1), (4, 6))
    one = ScaledMLP((6, 5, 5, 3), key=jax.random.key(0))
    scaled = ScaledMLP((6, 5, 5, 3), key=jax.random.key(0), alpha=2.0, scale=3.0)
    np.testing.assert_allclose(scaled(x), 2 * 3**3 * one(x), rtol=1e-5)
    by_hand = np.asarray(x) @ np.asarray(one.weights[0]) / np.sqrt(6)
    by_hand = np.maximum(by_hand, 0) @ np.asarray(one.weights[1]) / np.sqrt(5)
    by_hand = np.maximum(by_hand, 0) @ np.asarray(one.weights[2]) / 5
    np.testing.assert_allclose(one(x), by_hand, rtol=1e-5)
    assert empirical_ntk(one, x).shape == (4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small(dim=0), "dim must be at least 1"),
        (lambda: small(samples=0), "samples must be at least 1"),
        (lambda: small(neurons=0), "neurons must be at least 1"),
        (lambda: small(alpha=0.0), "alpha must be positive"),
        (lambda: small(epsilon=-1.0), "epsilon must be positive"),
        (lambda: small(rate=0.0), "rate must be positive"),
        (lambda: small(probe_points=1), "probe_points"),
        (lambda: small(dtype="float16"), "dtype must be"),
        (lambda: small(samples=None, spectrum=True), "spectrum needs"),
        (lambda: CommitteeMachine(0, 3, key=jax.random.key(0)), "dim and neurons"),
        (lambda: ScaledMLP((4, 2), key=jax.random.key(0)), "sizes must name"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_seeds_on_two_devices_do_not_wait_for_one_another():
    """Batched eigh called from both devices' threads hung for ever."""
    run = "ClosedDynamics(dim=50, samples=200, neurons=20, probe_points=20, spectrum=True)"
    program = f"""
from latebloom import unfold
from latebloom.methods.grokking.lazy_rich import ClosedDynamics
trace = unfold({run}, seeds=4, steps=10, every=1, progress=False)
print(trace.attrs["backend"], trace.eigenvalue.shape)
"""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"XLA_FLAGS": flags}, timeout=240,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "cpu x 2 (4, 11, 200)", done.stderr


def test_too_large_a_step_is_reported_as_divergence():
    with pytest.warns(UserWarning, match="diverged"):
        trace = unfold(small(rate=50.0, epsilon=4.0), seeds=1, steps=400, every=50, progress=False)
    assert trace.diverged_at.values[0] > 0


def test_the_narrow_teacher_has_three_units_and_targets_of_power_one():
    data = NarrowTeacher(5, 40)(jax.random.key(1))
    assert data.x_train.shape == (40, 5) and data.x_test.shape == (1000, 5)
    x = np.concatenate([data.x_train, data.x_test])
    y = np.concatenate([data.y_train, data.y_test])
    np.testing.assert_allclose(np.mean(y**2), 1, rtol=1e-4)
    # A sum of three hinges at the origin: homogeneous, and linear where all three are on.
    teacher = ScaledMLP((5, 3, 1), key=jax.random.split(jax.random.key(1))[1])
    hinges = np.maximum(x @ np.asarray(teacher.weights[0]), 0) @ np.asarray(teacher.weights[1])
    ratio = y[np.abs(hinges) > 1e-3] / hinges[np.abs(hinges) > 1e-3]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-2)
    assert not np.allclose(NarrowTeacher(5, 40)(jax.random.key(2)).x_train, data.x_train)
