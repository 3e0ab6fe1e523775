"""The stochastic solver against order conditions, closed forms, a replay in NumPy; its noise against what a path must be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from latebloom.core.sdes import SOSRI, SOSRI2, SRIW1, one_step, solve_sde
from latebloom.core.sdes.brownian import Piece, drawn, split

TABLEAUS = pytest.mark.parametrize("tableau", [SRIW1, SOSRI, SOSRI2], ids=lambda t: t.name)
solved = eqx.filter_jit(solve_sde)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def full(rows):
    return np.array([[*row, *[0.0] * (4 - len(row))] for row in rows])


@TABLEAUS
def test_tableaus_fulfil_the_conditions_of_strong_order(tableau):
    """Rößler 2010, Theorem 5.1 and 5.2."""
    a0, a1, b0, b1 = (full(r) for r in (tableau.a0, tableau.a1, tableau.b0, tableau.b1))
    one, alpha, (b_1, b_2, b_3, b_4) = np.ones(4), np.array(tableau.alpha), np.array(tableau.beta)
    np.testing.assert_allclose(a0.sum(1), tableau.c0, atol=1e-9)
    np.testing.assert_allclose(a1.sum(1), tableau.c1, atol=1e-9)
    e = b1 @ one
    wanted = [
        (alpha @ one, 1), (alpha @ a0 @ one, 1 / 2), (alpha @ b0 @ one, 1), (alpha @ (b0 @ one) ** 2, 3 / 2),
        *[(b @ one, v) for b, v in zip((b_1, b_2, b_3, b_4), (1, 0, 0, 0), strict=True)],
        *[(b @ e, v) for b, v in zip((b_1, b_2, b_3, b_4), (0, 1, 0, 0), strict=True)],
        *[(b @ a1 @ one, v) for b, v in zip((b_1, b_2, b_3, b_4), (1, 0, -1, 0), strict=True)],
        *[(b @ e**2, v) for b, v in zip((b_1, b_2, b_3, b_4), (1, 0, -1, 2), strict=True)],
        *[(b @ b1 @ e, v) for b, v in zip((b_1, b_2, b_3, b_4), (0, 0, 0, 1), strict=True)],
        (b_1 @ a1 @ b0 @ one / 2 + b_3 @ a1 @ b0 @ one / 3, 0),
    ]  # fmt: skip
    found, exact = np.array(wanted).T
    np.testing.assert_allclose(found, exact, atol=1e-9)


@given(some.floats(0.02, 0.95), some.floats(1e-3, 10.0), some.integers(0, 10**6))
def test_parts_make_up_the_whole(share, length, seed):
    draws = np.random.default_rng(seed).normal(size=(4, 3))
    with jax.enable_x64(True):
        whole = drawn(jnp.asarray(length), *map(jnp.asarray, draws[:2]))
        one, two = split(whole, jnp.asarray(share * length), *map(jnp.asarray, draws[2:]))
    whole, one, two = (Piece(*map(np.asarray, piece)) for piece in (whole, one, two))
    assert float(one.length + two.length) == pytest.approx(length)
    np.testing.assert_allclose(one.w + two.w, whole.w, rtol=1e-9)
    area = lambda p: p.length * (p.h + p.w / 2)  # noqa: E731  # the integral of the path
    np.testing.assert_allclose(area(one) + area(two) + two.length * one.w, area(whole), atol=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_parts_of_a_piece_are_a_path(double, share):
    n, length = 200_000, 0.7
    draws = jax.random.normal(jax.random.key(0), (4, n))
    one, two = split(drawn(jnp.asarray(length), *draws[:2]), jnp.asarray(share * length), *draws[2:])  # fmt: skip
    found = np.cov(np.stack([one.w, one.h, two.w, two.h]))
    a, b = share * length, (1 - share) * length
    exact = np.diag([a, a / 12, b, b / 12])
    size = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.abs((found - exact) / size).max() < 5 * np.sqrt(2 / n)


def test_one_half_is_as_in_the_literature(double):
    whole = Piece(jnp.asarray(2.0), jnp.asarray([0.4]), jnp.asarray([0.3]))
    one, _ = split(whole, jnp.asarray(1.0), jnp.zeros(1), jnp.zeros(1))
    np.testing.assert_allclose(one.w, 0.4 / 2 + 1.5 * 0.3)
    np.testing.assert_allclose(one.h, 0.3 / 4)


@TABLEAUS
def test_strong_order_on_a_geometric_motion(double, tableau):
    """Coarser steps on the same paths: W and H of a half are put together to those of the whole."""
    a, b, paths = 0.5, 0.8, 4000
    levels, finest = (3, 4, 5), 6
    draws = jax.random.normal(jax.random.key(1), (2, 2**finest, paths))
    h = 2.0**-finest
    w, area = np.sqrt(h) * draws[0], np.sqrt(h / 12) * draws[1]
    exact = np.exp((a - b * b / 2) + b * np.asarray(w).sum(0))
    missed, milstein = [], []
    for level in range(finest, levels[0] - 1, -1):
        if level in levels:

            def walk(y, one, h=h):
                zero, tol = jnp.zeros(()), jnp.asarray(1.0)
                return one_step(lambda t, y: a * y, lambda t, y: b * y, zero, y, jnp.asarray(h), *one, tol, tol, tableau)[0], None  # fmt: skip

            last, _ = jax.lax.scan(walk, jnp.ones(paths), (w, area))
            missed.append(np.sqrt(np.mean((np.asarray(last) - exact) ** 2)))
            rough = np.prod(1 + a * h + b * np.asarray(w) + b * b / 2 * (np.asarray(w) ** 2 - h), axis=0)  # fmt: skip
            milstein.append(np.sqrt(np.mean((rough - exact) ** 2)))
        (one, two), (first, second) = ((x[::2], x[1::2]) for x in (w, area))
        w, area = one + two, (first + second) / 2 + (one - two) / 4
        h = 2 * h
    order = np.polyfit([-5, -4, -3], np.log2(missed), 1)[0]
    assert 1.35 < order < 2.2 and np.polyfit([-5, -4, -3], np.log2(milstein), 1)[0] < 1.2
    assert (np.array(missed) < np.array(milstein) / 3).all()


def test_moments_are_right_where_noise_decides_what_is_rejected(double):
    """If noise were drawn anew after a rejection, large increments would be lost, and variance with them."""
    a, b, n = 0.3, 1.2, 6000

    def one(key):
        return solve_sde(lambda t, y: a * y, lambda t, y: b * y, 0.0, 1.0, jnp.ones(1), key=key, rtol=3e-2, atol=3e-2,
                         first_step=0.3, loop="forward")  # fmt: skip

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), n))
    assert found.reached.all() and float(found.rejected.mean()) > 1
    logs = np.log(np.abs(np.asarray(found.y[:, 0])))
    assert abs(logs.mean() - (a - b * b / 2)) < 4 * b / np.sqrt(n) + 0.01
    assert abs(logs.std() / b - 1) < 4 / np.sqrt(2 * n) + 0.01


def wheel(p):
    matrix = jnp.asarray([[-0.5, 2.0], [-2.0, -0.7]])
    return (lambda t, u: p * jnp.tanh(u @ matrix) * (1 + t)), (lambda t, u: 0.3 * u + 0.1)


START = np.array([[1.0, 0.4], [0.2, -0.8], [0.5, 0.5]])


@eqx.filter_jit
def numbers(p, tableau=SOSRI2, through=True, **options):
    given = {"rtol": 0.1, "atol": 0.1, "first_step": 0.2} | options
    found = solve_sde(*wheel(p), 0.0, 1.0, jnp.asarray(START), key=jax.random.key(3), save=jnp.asarray([0.35, 1.0]),
                      tableau=tableau, through_steps=through, record=True, max_steps=128, **given)  # fmt: skip
    parts = [found.y.ravel(), found.saved.ravel(), jnp.stack([found.error.sum, found.error2.sum])]
    return jnp.concatenate(parts), found


def test_gradients_go_through_steps_and_noise(double):
    small = 1e-7
    value, found = numbers(1.3)
    weights = np.random.default_rng(0).normal(size=value.shape)
    assert found.rejected > 0 and found.accepted > 3
    up, down = (np.asarray(numbers(1.3 + m)[0]) for m in (small, -small))
    exact = weights @ (up - down) / (2 * small)
    slope = jax.grad(lambda p: weights @ numbers(p)[0])(1.3)
    assert float(slope) == pytest.approx(exact, rel=1e-4)
    still = jax.grad(lambda p: weights @ numbers(p, through=False)[0])(1.3)
    assert np.isfinite(still) and abs(still / slope - 1) > 1e-3


def test_tallies_are_of_the_steps(double):
    _, found = numbers(1.3)
    n = int(found.accepted)
    e, h, s = (
        np.asarray(x[:n]) for x in (found.steps.error, found.steps.length, found.steps.stiffness)
    )
    assert float(found.error.sum) == pytest.approx((e * h).sum()) and h.sum() == pytest.approx(1)
    assert float(found.stiffness.sum) == pytest.approx(s.sum()) and (s > 0).all() and (e <= 1).all()
    np.testing.assert_allclose(found.saved[1], found.y)
    assert numbers(1.3, SOSRI)[1].stiffness is None
    assert found.evaluations == 4 * (n + found.rejected)
    assert numbers(1.3, SRIW1, first_step=None)[1].evaluations == 2 + 2 * sum(numbers(1.3, SRIW1, first_step=None)[1].__dict__[k] for k in ("accepted", "rejected"))  # fmt: skip


def test_the_first_step_is_as_worked_by_hand(double):
    """A step of SRIW1 without noise in the diffusion: Rößler's scheme is then the method of Ralston."""
    found = solved(lambda t, y: -y, lambda t, y: 0 * y, 0.0, 0.1, jnp.ones(1), key=jax.random.key(0), tableau=SRIW1,
                   first_step=1.0, rtol=10.0, record=True)  # fmt: skip
    h = 0.1
    k1, k2 = -1.0, -(1 - 0.75 * h)
    after = 1 + h * (k1 / 3 + 2 * k2 / 3)
    np.testing.assert_allclose(found.y, after)
    assert float(found.steps.error[0]) == pytest.approx(abs(h * (k1 + k2) / 6) / (1e-2 + 10.0))


def test_steps_land_on_times_and_lines_lie_between(double):
    at = jnp.asarray([0.3, 0.0, 0.77])
    options = dict(key=jax.random.key(5), save=at, record=True, rtol=0.1, atol=0.1)
    y0 = jnp.ones((2, 2))
    landed = solved(*wheel(1.0), 0.0, 1.0, y0, land=True, **options)
    ends = np.asarray(landed.steps.start + landed.steps.length)
    for time in (0.3, 0.77):
        assert np.nanmin(np.abs(ends - time)) < 1e-9
    between = solved(*wheel(1.0), 0.0, 1.0, y0, **options)
    np.testing.assert_array_equal(between.saved[1], y0)
    assert np.isfinite(between.saved).all() and np.isfinite(landed.saved).all()
    assert between.accepted <= landed.accepted


def test_pytrees_single_precision_and_reproducible():
    y0 = {"a": jnp.ones(3), "b": jnp.ones((2, 2), jnp.bfloat16)}

    def run(key):
        drift = lambda t, y: jax.tree.map(jnp.negative, y)  # noqa: E731
        return solved(drift, lambda t, y: y, 0.0, 0.5, y0, key=key)

    one, again, other = (run(jax.random.key(k)) for k in (0, 0, 1))
    assert one.y["a"].dtype == jnp.float32 and one.y["b"].shape == (2, 2)
    np.testing.assert_array_equal(one.y["a"], again.y["a"])
    assert (one.y["a"] != other.y["a"]).all() and len(set(np.asarray(one.y["a"]).tolist())) == 3


def test_what_does_not_end_is_not_a_number():
    short = solved(*wheel(1.0), 0.0, 1.0, jnp.ones((1, 2)), key=jax.random.key(0), rtol=1e-4, atol=1e-4, max_steps=3)  # fmt: skip
    assert not short.reached and np.isnan(short.y).all() and np.isnan(short.error.sum)
    nowhere = solved(lambda t, y: y * jnp.nan, lambda t, y: y, 0.0, 1.0, jnp.ones(1), key=jax.random.key(0))  # fmt: skip
    assert np.isnan(nowhere.y).all() and nowhere.accepted == 0


BAD = [
    (dict(rtol=0.0), "rtol must be above 0"), (dict(max_steps=0), "max_steps"), (dict(most_pending=0), "most_pending"),
    (dict(loop="fast"), "loop"), (dict(save=jnp.asarray([2.0])), "between start and end"),
]  # fmt: skip


@pytest.mark.parametrize("options, said", BAD, ids=[said for _, said in BAD])
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        solve_sde(*wheel(1.0), 0.0, 1.0, jnp.ones((1, 2)), key=jax.random.key(0), **options)


def test_bad_fields_and_ends_are_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="later than the start"):
        solve_sde(*wheel(1.0), 1.0, 0.0, jnp.ones((1, 2)), key=key)
    with pytest.raises(ValueError, match=r"diffusion\(t, y\) must return"):
        solve_sde(lambda t, y: y, lambda t, y: y[:1], 0.0, 1.0, jnp.ones(2), key=key)
    with pytest.raises(TypeError, match="int32"):
        solve_sde(lambda t, y: y, lambda t, y: y, 0.0, 1.0, jnp.arange(3), key=key)
