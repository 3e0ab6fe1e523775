"""Deep factorisation against NumPy, closed forms and brute force; the spectral equations."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import unfold
from latebloom.methods.critical_periods import (
    DeficitSweep,
    GivenTasks,
    LowRankTasks,
    SpectralFlow,
    Task,
    end_to_end_velocity,
    gaussian_factors,
    product,
    run_of,
    spectral_velocity,
)

RNG = np.random.default_rng(0)


def tasks(**settings):
    return LowRankTasks(**{"size": 12, "rank1": 4, "rank2": 2, "n1": 60, "n2": 60, **settings})


draw = eqx.filter_jit(lambda drawn, seed: drawn(jax.random.key(seed)))
draw_factors = jax.jit(gaussian_factors, static_argnums=(1, 2))


def test_drawn_matrices_and_masks():
    drawn = draw(tasks(n1=40, n2=70), 2)
    for task, rank, n in ((drawn.first, 4, 40), (drawn.second, 2, 70)):
        s = np.linalg.svd(task.target, compute_uv=False)
        assert (s[:rank] > 0.1).all() and (s[rank:] < 1e-4).all()
        assert np.linalg.norm(task.target) == pytest.approx(12, rel=1e-5)
        assert task.seen.sum() == n
        rms = np.sqrt((np.asarray(task.target)[np.asarray(task.seen) == 1] ** 2).mean())
        assert 0.8 <= rms <= 1.2
    assert (drawn.first.seen <= drawn.second.seen).all()  # the poor data lie within the full ones


def test_the_wrong_task_has_the_same_observed_places():
    for seed in range(5):
        drawn = draw(tasks(), seed)
        np.testing.assert_array_equal(drawn.first.seen, drawn.second.seen)
        assert np.abs(drawn.first.target - drawn.second.target).max() > 0.1
    same = draw(tasks(same=True, n1=30), 0)
    np.testing.assert_array_equal(same.first.target, same.second.target)


def test_scale_of_the_initial_product():
    """The Frobenius norm of the product is about scale sqrt(n), whatever the depth."""
    for depth in (1, 3):
        factors = draw_factors(jax.random.key(0), (100, 100), depth, 1e-3)
        assert len(factors) == depth
        assert np.linalg.norm(product(factors)) == pytest.approx(1e-2, rel=0.2)
    drawn = jax.eval_shape(lambda key: gaussian_factors(key, (4, 7), 3, 0.1), jax.random.key(0))
    assert [w.shape for w in drawn] == [(4, 4), (4, 4), (4, 7)]


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_the_gradient_of_the_product_by_hand(depth, seed):
    """dL/dW_i = (W_1..W_{i-1})^T G (W_{i+1}..W_D)^T with G = seen * (W - target) / n."""
    rng = np.random.default_rng(seed)
    factors = [rng.normal(size=(5, 5)) / 2 for _ in range(depth)]
    target, seen = rng.normal(size=(5, 5)), (rng.random((5, 5)) < 0.6).astype(float)
    seen[0, 0] = 1
    task = Task(jnp.asarray(target, jnp.float32), jnp.asarray(seen, jnp.float32))
    found = jax.grad(task.loss)(tuple(jnp.asarray(w, jnp.float32) for w in factors))
    g = seen * (np.linalg.multi_dot([np.eye(5), *factors, np.eye(5)]) - target) / seen.sum()
    for i in range(depth):
        before = np.linalg.multi_dot([np.eye(5), np.eye(5), *factors[:i]])
        after = np.linalg.multi_dot([np.eye(5), np.eye(5), *factors[i + 1 :]])
        np.testing.assert_allclose(found[i], before.T @ g @ after.T, atol=1e-4)


def test_the_loss_against_finite_differences():
    task = draw(tasks(), 0).second
    factors = draw_factors(jax.random.key(1), (12, 12), 3, 1.0)
    found = jax.grad(task.loss)(factors)
    step = jax.random.normal(jax.random.key(2), (12, 12))
    for i in range(3):
        up, down = (
            task.loss(tuple(w + (h * step if j == i else 0) for j, w in enumerate(factors)))
            for h in (1e-2, -1e-2)
        )
        assert (up - down) / 2e-2 == pytest.approx(
            float((found[i] * step).sum()), rel=2e-2, abs=1e-3
        )


def descend(factors, task, rate, steps):
    """The same by NumPy, one factor at a time."""
    factors, target, seen = [np.asarray(w, float) for w in factors], *map(np.asarray, task)
    for _ in range(steps):
        g = seen * (np.linalg.multi_dot([np.eye(len(target)), *factors]) - target) / seen.sum()
        slopes = []
        for i in range(len(factors)):
            eye = np.eye(len(target))
            before = np.linalg.multi_dot([eye, eye, *factors[:i]])
            after = np.linalg.multi_dot([eye, eye, *factors[i + 1 :]])
            slopes.append(before.T @ g @ after.T)
        factors = [w - rate * s for w, s in zip(factors, slopes, strict=True)]
    return factors


@eqx.filter_jit
def start_of(process, seed):
    return process.init(jax.random.key(seed))


def test_a_sweep_is_its_runs_one_by_one():
    removals, post, rate = (0, 3, 21), 15, 3.0
    process = DeficitSweep(tasks(), removals, post, depth=3, rate=rate, init_scale=0.05)
    assert process.total_steps == 21 + 3 * 15
    trace = unfold(process, seeds=[4], steps=process.total_steps, every=1, progress=False)
    start = start_of(process, 4)
    for place, removal in enumerate(removals):
        first = descend(start.factors, start.tasks.first, rate, removal)
        final = product(descend(first, start.tasks.second, rate, post))
        wanted = np.mean((final - np.asarray(start.tasks.second.target)) ** 2)
        assert trace.final_error.values[0, -1, place] == pytest.approx(wanted, rel=1e-3)
        spectrum = np.linalg.svd(final, compute_uv=False)[:10]
        np.testing.assert_allclose(trace.final_spectrum.values[0, -1, place], spectrum, atol=1e-3)
    assert trace.branch.values[0, [0, 14, 15, 17, 18, 32, 33, 50, 51]].tolist() == [
        0, 0, -1, -1, 1, 1, -1, -1, 2,
    ]  # fmt: skip
    assert trace.age.values[0, [0, 14, 15, 18, 32, 33, 51, 65]].tolist() == [
        0, 14, 0, 3, 17, 3, 21, 35,
    ]  # fmt: skip
    assert np.isnan(trace.final_error.values[0, 14, 0])
    for place, removal in enumerate(removals):  # each from its start to its end, a step a row
        run = run_of(trace, place)
        assert run.step.values.tolist() == list(range(removal + post))
        assert (run.branch.values[0] == np.where(run.step < removal, -1, place)).all()


def test_depth_one_in_closed_form():
    """Each observed entry nears its target by 1 - rate / n a step; the others never move."""
    process = DeficitSweep(tasks(), (0, 40), 30, depth=1, rate=2.0, init_scale=1e-3)
    trace = unfold(process, seeds=[1], steps=process.total_steps, progress=False)
    start = start_of(process, 1)
    w, seen = np.asarray(start.factors[0], float), np.asarray(start.tasks.second.seen)
    one, two = (np.asarray(t.target, float) for t in (start.tasks.first, start.tasks.second))
    keep = 1 - 2.0 / 60
    for place, steps in enumerate((0, 40)):
        left = one + keep**steps * (w - one)
        final = np.where(seen, two + keep**30 * (left - two), w)
        wanted = np.mean((final - two) ** 2)
        assert trace.final_error.values[0, -1, place] == pytest.approx(wanted, rel=1e-4)
    fill = np.mean(np.where(seen, 0, two) ** 2)
    assert trace.fill_error.values[0, 0] == pytest.approx(fill, rel=1e-5)


def test_steps_of_twenty_times_the_rate_are_twenty_steps():
    """Far below the largest stable rate only rate times steps matters."""
    found = []
    for scale in (1, 20):
        removals = (0, 1000 // scale, 2000 // scale)
        process = DeficitSweep(tasks(), removals, 6000 // scale, rate=0.02 * scale)
        total = process.total_steps
        trace = unfold(process, seeds=[0], steps=total, every=total // 70, progress=False)
        found.append(trace.final_error.values[0, -1])
    np.testing.assert_allclose(found[0], found[1], rtol=0.05)


def test_matrices_of_ones_own():
    target = np.outer([1.0, 2, 3], [1.0, -1, 2, 0.5])
    seen = np.ones_like(target)
    seen[1, 2] = seen[2, 0] = 0
    given = GivenTasks(target, seen, target, seen, judged=1 - seen)
    process = DeficitSweep(given, (0,), 4000, depth=2, rate=0.5, init_scale=1e-3)
    trace = unfold(process, steps=process.total_steps, progress=False)
    assert trace.final_error.values[0, -1, 0] < 0.01  # rank one: the hidden entries are found
    # Gaps are NaN: the same matrices, and the same descent.
    gaps = np.where(seen > 0, target, np.nan)
    own = GivenTasks(gaps, seen, target, seen, judged=1 - seen)
    for a, b in zip(jax.tree.leaves(own.curriculum), jax.tree.leaves(given.curriculum), strict=True):
        np.testing.assert_array_equal(a, b)
    judged = np.zeros_like(seen)
    judged[1, 2] = 1
    partly = np.where(np.maximum(seen, judged) > 0, target, np.nan)
    process = DeficitSweep(GivenTasks(gaps, seen, partly, seen, judged), (0,), 4000, depth=2, rate=0.5)
    trace = unfold(process, steps=process.total_steps, progress=False)
    assert trace.final_error.values[0, -1, 0] < 0.01
    with pytest.raises(ValueError, match="second is nan at row 1, column 2"):
        GivenTasks(gaps, seen, gaps, seen, judged)
    with pytest.raises(ValueError, match="first is inf at row 0, column 0"):
        GivenTasks(np.where(target == 1, np.inf, target), seen, target, seen, judged)
    with pytest.raises(ValueError, match="second_seen has the shape"):
        GivenTasks(target, seen, target, seen[:2], seen)
    with pytest.raises(ValueError, match="judged must be 1"):
        GivenTasks(target, seen, target, seen, 0 * seen)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tasks(rank1=16), "ranks must be from 1 to 15"),
        (lambda: tasks(n2=145), "from 1 to 144 observed"),
        (lambda: DeficitSweep(tasks(), (3, 3), 5), "increasing"),
        (lambda: DeficitSweep(tasks(), (0,), 0), "at least 1"),
        (lambda: DeficitSweep(tasks(), (0,), 1, rate=0.0), "positive"),
        (lambda: end_to_end_velocity(jnp.ones((2, 3)), jnp.ones((2, 3)), 2), "square"),
    ],
)
def test_bad_inputs(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def balanced(depth, size=5):
    """Balanced factors with distinct singular values, their product, and a gradient."""
    orthogonal = [np.linalg.qr(RNG.normal(size=(size, size)))[0] for _ in range(depth + 1)]
    s = np.sort(RNG.uniform(0.3, 2.0, size))[::-1]
    root = np.diag(s ** (1 / depth))
    factors = [left @ root @ right.T for left, right in itertools.pairwise(orthogonal)]
    return factors, s, orthogonal[0], orthogonal[-1], RNG.normal(size=(size, size))


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_velocity_of_the_product_against_its_factors(depth):
    """dW/dt of the factors' own gradient flow, summed up by the product rule."""
    factors, s, u, v, g = balanced(depth)
    eye = np.eye(5)
    wanted = 0
    for i in range(depth):
        before = np.linalg.multi_dot([eye, eye, *factors[:i]])
        after = np.linalg.multi_dot([eye, eye, *factors[i + 1 :]])
        wanted = wanted - before @ (before.T @ g @ after.T) @ after
    w = np.linalg.multi_dot([eye, eye, *factors])
    with jax.enable_x64(True):
        found = end_to_end_velocity(jnp.asarray(w), jnp.asarray(g), depth)
        du, ds, dv = spectral_velocity(*map(jnp.asarray, (u, s, v, g)), depth)
        np.testing.assert_allclose(found, wanted, atol=1e-10)
        np.testing.assert_allclose(
            du @ np.diag(s) @ v.T + u @ np.diag(ds) @ v.T + u @ np.diag(s) @ dv.T, wanted, atol=1e-9
        )
        np.testing.assert_allclose(u.T @ du + du.T @ u, 0, atol=1e-10)  # stays orthogonal


def test_singular_values_against_descent():
    whole, start = tasks(n1=144, n2=144), {"scale": 0.1, "noise": 1e-3}
    process = SpectralFlow(whole, 150, rate=0.5, **start)
    trace = unfold(process, seeds=[0], steps=300, every=10, progress=False)
    slower = SpectralFlow(whole, 600, rate=0.125, **start)
    fine = unfold(slower, seeds=[0], steps=1200, every=40, progress=False)
    assert trace.descent.values[0, -1, 0] > 1
    assert 2.5 < float(trace.distance.max() / fine.distance.max()) < 8  # order 1
