"""The solver against closed forms, SciPy, a replay in NumPy; its gradients against finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import RK45, solve_ivp
from scipy.integrate._ivp.common import select_initial_step

from latebloom.core.odes import (
    DOPRI5,
    TSIT5,
    Controller,
    WithArguments,
    solve,
    solve_by_adjoint,
    solve_each,
)  # fmt: skip

GRID = np.linspace(0.0, 3.0, 7)
solved = eqx.filter_jit(solve)  # one program; solve by itself runs its first operations one by one


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def wheel(t, y, pull=1.3):
    """Van der Pol's oscillator, driven, of arrays or NumPy."""
    take = np.stack if isinstance(y, np.ndarray) else jnp.stack
    return take([y[1], pull * (1 - y[0] ** 2) * y[1] - y[0] + 0.3 * (np.sin(t) if take is np.stack else jnp.sin(t))])  # fmt: skip


Y0 = np.array([2.0, 0.1])
EXACT = solve_ivp(wheel, (0, 3), Y0, rtol=1e-12, atol=1e-12, t_eval=GRID).y.T
BACK = solve_ivp(wheel, (0, -1), Y0, rtol=1e-12, atol=1e-12).y[:, -1]


@eqx.filter_jit
def wheeled(y0, tol, end=3.0, save=GRID, **options):
    return solve(wheel, 0.0, end, y0, rtol=tol, atol=tol, save=save, **options)


@pytest.mark.parametrize("tableau", [TSIT5, DOPRI5], ids=lambda t: t.name)
def test_tableaus_have_the_order_they_say(tableau):
    a = np.zeros((7, 7))
    for i, row in enumerate(tableau.a):
        a[i, : len(row)] = row
    c, e, one = np.array(tableau.c), np.array(tableau.error), np.ones(7)
    np.testing.assert_allclose(a.sum(1), c, atol=1e-13)
    d = np.diag
    trees = {  # of order up to four, and their densities; of order five, one
        1: [(one, 1)], 2: [(c, 2)], 3: [(c**2, 3), (a @ c, 6)],
        4: [(c**3, 4), (d(c) @ a @ c, 8), (a @ c**2, 12), (a @ a @ c, 24)], 5: [(c**4, 5), (a @ a @ a @ c, 120)],
    }  # fmt: skip
    for order, rows in trees.items():
        for vector, density in rows:
            assert a[-1] @ vector == pytest.approx(1 / density, abs=1e-12)
            if order <= 4:  # the other solution of the pair is of order four
                assert e @ vector == pytest.approx(0, abs=1e-12)
    assert abs(e @ c**4) > 1e-6
    dense = np.array(tableau.dense)
    np.testing.assert_allclose(dense.sum(1), a[-1], atol=1e-12)  # ends at the step's end
    for theta in (0.2, 0.7):  # the interpolant is of order four
        weights = dense @ theta ** np.arange(1, 5)
        for order in (1, 2, 3, 4):
            for vector, density in trees[order]:
                assert weights @ vector == pytest.approx(theta**order / density, abs=1e-12)
    if tableau is DOPRI5:
        np.testing.assert_allclose(dense, RK45.P, atol=1e-15)
        np.testing.assert_allclose(np.abs(e), np.abs(RK45.E), atol=1e-15)


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_it_solves_at_every_tolerance(double, tol):
    found = wheeled(jnp.asarray(Y0), jnp.asarray(tol))
    peer = solve_ivp(wheel, (0, 3), Y0, rtol=tol, atol=tol, t_eval=GRID)
    reached = np.abs(np.asarray(found.saved) - EXACT).max()
    assert reached < 30 * tol and found.reached
    assert reached < 3 * np.abs(peer.y.T - EXACT).max() + 1e-12  # no worse than SciPy's
    assert found.evaluations < 1.5 * peer.nfev + 10
    np.testing.assert_allclose(found.y, found.saved[-1], rtol=1e-12)
    np.testing.assert_array_equal(found.saved[0], Y0)
    assert found.evaluations == 2 + 6 * (found.accepted + found.rejected)


def test_evaluations_are_those_that_are_made(double):
    made = []

    def field(t, y):
        jax.debug.callback(lambda _: made.append(1), t)
        return -y * jnp.cos(20 * t)

    found = solved(field, 0.0, 3.0, jnp.ones(1), loop="forward", first_step=3.0)
    jax.effects_barrier()
    assert len(made) == found.evaluations and found.rejected > 0
    assert found.evaluations == 1 + 6 * (found.accepted + found.rejected)


def test_single_precision_and_backwards(double):
    found = wheeled(jnp.asarray(Y0, jnp.float32), jnp.float32(1e-5))
    assert found.y.dtype == jnp.float32
    np.testing.assert_allclose(found.saved, EXACT, atol=3e-4)
    back = wheeled(jnp.asarray(Y0), 1e-8, -1.0, np.array([-1.0, 0.0]))
    np.testing.assert_allclose(back.y, BACK, rtol=1e-6)
    np.testing.assert_allclose(back.saved, [BACK, Y0], rtol=1e-6)
    none = wheeled(jnp.asarray(Y0), 1e-8, 0.0, np.array([0.0]))
    np.testing.assert_array_equal(none.y, Y0)
    assert none.accepted == 0 and none.reached and none.error.sum == 0


def test_pytrees_of_other_dtypes_with_a_closed_form(double):
    y0 = {"a": jnp.asarray([1.0, 2.0], jnp.float32), "b": (jnp.asarray(0.5), jnp.ones((2, 2), jnp.bfloat16))}  # fmt: skip

    def field(t, y):
        return {"a": -y["a"], "b": (2 * t * y["b"][0], jnp.cos(t) * jnp.ones((2, 2)))}

    found = solved(field, 0.5, 2.0, y0, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(found.y["a"], np.array([1.0, 2.0]) * np.exp(-1.5), rtol=1e-5)
    np.testing.assert_allclose(found.y["b"][0], 0.5 * np.exp(4 - 0.25), rtol=1e-6)
    np.testing.assert_allclose(found.y["b"][1], 1 + np.sin(2) - np.sin(0.5), rtol=1e-5)
    assert [y.dtype for y in jax.tree.leaves(found.y)] == [jnp.float32, jnp.float64, jnp.float32]


def replayed(lengths, pull, rtol):
    """What a chain of Tsitouras' steps of these lengths comes to, in NumPy: the end, sums of E h, E^2 h and S."""
    t, y, sums = 0.0, Y0, np.zeros(3)
    for h in lengths:
        k, states = [], []
        for c, a in zip(TSIT5.c, TSIT5.a, strict=True):
            states.append(y + h * sum((w * one for w, one in zip(a, k, strict=True)), np.zeros(2)))
            k.append(wheel(t + c * h, states[-1], pull))
        after = states[-1]
        scale = rtol + rtol * np.maximum(np.abs(y), np.abs(after))
        error = np.sqrt(np.mean((h * np.tensordot(TSIT5.error, k, 1) / scale) ** 2))
        stiff = np.linalg.norm(k[6] - k[5]) / np.linalg.norm(states[6] - states[5]) / 3.5068
        sums += [error * h, error**2 * h, stiff]
        t, y = t + h, after
    return np.append(y, sums)


@eqx.filter_jit
def numbers(pull, through=True, loop="checkpointed", end=2.0, y0=Y0):
    found = solve(lambda t, y: wheel(t, y, pull), 0.0, end, y0, rtol=1e-4, atol=1e-4, through_steps=through,
                  loop=loop, max_steps=64, record=True)  # fmt: skip
    return jnp.append(found.y, jnp.stack([found.error.sum, found.error2.sum, found.stiffness.sum])), found  # fmt: skip


def test_each_step_is_what_it_says(double):
    found, solution = numbers(1.3)
    n = int(solution.accepted)
    lengths = np.asarray(solution.steps.length[:n])
    np.testing.assert_allclose(found, replayed(lengths, 1.3, 1e-4), rtol=1e-9)
    steps = solution.steps
    np.testing.assert_allclose(steps.start[:n], np.cumsum(lengths) - lengths, atol=1e-12)
    assert np.isnan(steps.error[n:]).all() and n > 6
    np.testing.assert_allclose(solution.error2.max, (steps.error**2 * steps.length)[:n].max())
    np.testing.assert_allclose(solution.stiffness.sum, steps.stiffness[:n].sum())
    # The first length is SciPy's (Hairer's); the rest follows the controller, worked through here.
    first = select_initial_step(wheel, 0.0, Y0, 2.0, np.inf, wheel(0.0, Y0), 1, 4, 1e-4, 1e-4)
    assert solution.rejected == 0
    h, before = first, 1e-4
    for length, error in zip(lengths[:-1], np.asarray(steps.error[: n - 1]), strict=True):
        assert length == pytest.approx(h, rel=1e-9)
        h *= np.clip(0.9 * error**-0.14 * before**0.08, 0.2, 10)
        before = max(error, 1e-4)


def test_gradients_go_through_the_steps_or_do_not(double):
    small, weights = 1e-6, np.array([1.0, -2.0, 3.0, 0.5, 0.1])
    n = int(numbers(1.3)[1].accepted)
    lengths = np.asarray(numbers(1.3)[1].steps.length[:n])
    ways = {
        True: lambda p: np.asarray(numbers(p)[0]),
        False: lambda p: replayed(lengths, p, 1e-4),
    }
    found = {}
    for through, loop in ((True, "checkpointed"), (False, "checkpointed"), (True, "scan")):
        up, down = (ways[through](1.3 + move) for move in (small, -small))
        exact = weights @ (up - down) / (2 * small)
        found[through] = jax.grad(lambda p: weights @ numbers(p, through, loop)[0])(1.3)
        assert float(found[through]) == pytest.approx(exact, rel=1e-4)
    assert abs(found[True] / found[False] - 1) > 0.05


def test_gradients_in_times_and_states(double):
    def value(end, start, y, save, tol=1e-9):
        found = solve(wheel, start, end, y, rtol=tol, atol=tol, save=save, max_steps=200)
        return found.y.sum() + (found.saved[0] ** 2).sum()

    at = (2.0, 0.3, jnp.asarray(Y0), jnp.asarray([1.1]))
    slopes = jax.jit(jax.grad(value, (0, 1, 2, 3)))(*at)
    state, small = np.asarray(at[2]), 1e-5

    def peer(end, start, y, save):
        found = solve_ivp(wheel, (start, end), y, rtol=1e-12, atol=1e-12, t_eval=[save, end]).y
        return found[:, 1].sum() + (found[:, 0] ** 2).sum()

    point = np.array([2.0, 0.3, *state, 1.1])
    for i, found in enumerate([slopes[0], slopes[1], *slopes[2], slopes[3][0]]):
        move = small * np.eye(5)[i]
        up, down = (peer(p[0], p[1], p[2:4], p[4]) for p in (point + move, point - move))
        assert float(found) == pytest.approx((up - down) / (2 * small), rel=1e-4, abs=1e-6)


class Awkward(eqx.Module):
    """A field with an integer leaf, a fixed matrix, a function, something that is None, dropout."""

    layer: eqx.nn.Linear
    fixed: jax.Array
    order: jax.Array
    dropout: eqx.nn.Dropout
    nothing: None = None

    def __call__(self, t, y):
        h = jax.lax.stop_gradient(self.fixed) @ y[self.order]
        return self.dropout(jnp.tanh(self.layer(h) + t))


def awkward():
    net = Awkward(eqx.nn.Linear(2, 2, key=jax.random.key(0)), jnp.asarray([[1.0, 0.5], [0.0, 2.0]]),
                  jnp.asarray([1, 0]), eqx.nn.Dropout(0.5))  # fmt: skip
    return eqx.nn.inference_mode(net)


def test_the_adjoint_equation_gives_the_same_gradients(double):
    save = jnp.asarray([1.5, 0.4, 1.0])  # in no order

    def value(way, net, y, start, end, save):
        found = way(net, start, end, y, rtol=1e-9, atol=1e-9, save=save)
        return found.y[0] + (found.saved * jnp.asarray([[1.0, 2.0], [-1.0, 0.3], [0.5, 1.0]])).sum()

    def slopes(way):
        found = eqx.filter_grad(lambda given, save: value(way, *given, save))
        return eqx.filter_jit(found)

    net = jax.tree.map(lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, awkward())
    ways = slopes(solve), slopes(solve_by_adjoint)
    for start, end, times in ((0.1, 1.5, save), (-0.1, -1.5, -save)):
        given = net, jnp.asarray([0.3, -0.2]), jnp.asarray(start), jnp.asarray(end)
        discrete, continuous = (way(given, times) for way in ways)
        # the time saved that is the end moves along with it only where steps are what is differentiated
        for a, b in zip(jax.tree.leaves(discrete), jax.tree.leaves(continuous), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        assert np.abs(discrete[0].layer.weight).max() > 0.1
        np.testing.assert_array_equal(continuous[0].fixed, 0)


@eqx.filter_jit
def each(y, **options):
    return solve_each(lambda t, y: jnp.sin(3 * y) * y, 0.0, 2.0, y, rtol=1e-6, atol=1e-6, **options)


def test_a_batch_steps_together_or_each_by_itself(double):
    y = jnp.asarray([[0.2, 0.1], [3.0, 9.0], [0.0, 0.0]])
    apart = each(y, save=jnp.asarray([1.0]))
    assert apart.saved.shape == (3, 1, 2) and apart.evaluations.shape == (3,)
    assert apart.accepted[1] > 2 * apart.accepted[0] > 2 * apart.accepted[2] > 0
    together = solved(lambda t, y: jnp.sin(3 * y) * y, 0.0, 2.0, y, rtol=1e-6, atol=1e-6)
    assert together.accepted.shape == () and apart.accepted[0] < together.accepted
    np.testing.assert_allclose(together.y, apart.y, atol=1e-4)
    alone = each(y[1:2])
    np.testing.assert_allclose(alone.y[0], apart.y[1], rtol=1e-10)
    assert alone.accepted[0] == apart.accepted[1]
    with pytest.raises(ValueError, match="one leading axis"):
        solve_each(wheel, 0.0, 1.0, (jnp.ones(3), jnp.ones(2)))
    with pytest.raises(ValueError, match="key of its own"):
        solve_each(wheel, 0.0, 1.0, jnp.ones((3, 2)), catch=jax.random.key(0))


def test_what_does_not_end_is_not_a_number(double):
    short = wheeled(jnp.asarray(Y0), 1e-8, max_steps=5)
    assert not short.reached and np.isnan(short.y).all() and np.isnan(short.error.sum)
    assert np.isfinite(short.saved[0]).all() and np.isnan(short.saved[-1]).all()
    # y' = y^2 from 1 is infinite at 1: steps become too short before they become too many
    burst = solved(lambda t, y: y * y, 0.0, 2.0, jnp.asarray([1.0]), max_steps=100_000)
    assert not burst.reached and np.isnan(burst.y).all() and burst.accepted < 1000
    nowhere = solved(lambda t, y: y * jnp.nan, 0.0, 2.0, jnp.asarray([1.0]))
    assert np.isnan(nowhere.y).all() and nowhere.accepted == 0 and nowhere.rejected < 60
    with pytest.raises(Exception, match="max_steps"):
        wheeled(jnp.asarray(Y0), 1e-8, max_steps=5, failure="raise").y.block_until_ready()


def test_at_rest_gradients_are_finite(double):
    def value(p):
        found = solve(lambda t, y: p * y, 0.0, 1.0, jnp.zeros(2), max_steps=64)
        return found.y.sum() + found.error.sum + found.stiffness.sum + found.error2.max

    found, slope = jax.jit(jax.value_and_grad(value))(2.0)
    assert np.isfinite(slope) and found == 0


def test_points_are_caught(double):
    at = wheeled(jnp.asarray(Y0), 1e-7, catch=1.5)
    np.testing.assert_allclose(at.caught.state, EXACT[3], atol=1e-5)
    assert at.caught.time == 1.5 and 0 < at.caught.step < 1
    keys = jax.random.split(jax.random.key(0), 3000)

    @jax.jit
    def drawn(keys):
        return jax.vmap(lambda key: wheeled(jnp.asarray(Y0), 1e-4, catch=key, record=True))(keys)

    many = drawn(keys)
    n = int(many.accepted[0])
    starts = np.asarray(many.steps.start[0, :n])
    rows = np.abs(np.asarray(many.caught.time)[:, None] - starts).argmin(1)
    np.testing.assert_array_equal(np.asarray(many.caught.time), starts[rows])
    counts = np.bincount(rows, minlength=n)
    assert ((counts - 3000 / n) ** 2 / (3000 / n)).sum() < n + 4 * np.sqrt(2 * n)  # chi-squared


BAD = [
    (dict(rtol=0.0), "rtol must be above 0"), (dict(atol=-1.0), "atol"), (dict(max_steps=0), "max_steps"),
    (dict(first_step=0.0), "first_step"), (dict(save=jnp.asarray([4.0])), "between start and end"),
    (dict(save=jnp.asarray(1.0)), "the times"), (dict(loop="fast"), "loop"), (dict(failure="no"), "failure"),
]  # fmt: skip


@pytest.mark.parametrize("options, said", BAD, ids=[said for _, said in BAD])
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        solve(lambda t, y: y, 0.0, 3.0, jnp.ones(2), **options)


def test_bad_states_fields_and_controllers_are_refused():
    with pytest.raises(TypeError, match=r"\['n'\].*int32"):
        solve(lambda t, y: y, 0.0, 1.0, {"n": jnp.arange(3)})
    with pytest.raises(TypeError, match="no arrays"):
        solve(lambda t, y: y, 0.0, 1.0, ())
    with pytest.raises(ValueError, match="must return what y is"):
        solve(lambda t, y: y[:1], 0.0, 1.0, jnp.ones(2))
    with pytest.raises(ValueError, match="no meaning"):
        solve_by_adjoint(lambda t, y: y, 0.0, 1.0, jnp.ones(2), loop="scan")
    for bad in (dict(shrink=1.5), dict(safety=2.0), dict(proportional=-1.0)):
        with pytest.raises(ValueError):
            Controller(**bad)
    with pytest.warns(UserWarning, match="below the precision"):
        solved(lambda t, y: y, 0.0, 1.0, jnp.ones(2), rtol=1.4e-8, max_steps=1)


def test_other_controllers_solve_too(double):
    for controller in (Controller(0.0, 1.0), Controller(0.3, 0.3, 0.1)):
        found = wheeled(jnp.asarray(Y0), 1e-6, controller=controller)
        np.testing.assert_allclose(found.saved, EXACT, atol=1e-4)


class Term:
    """Like diffrax.ODETerm."""

    def __init__(self, vector_field):
        self.vector_field = vector_field

    def vf(self, t, y, args):
        return self.vector_field(t, y, args)


def test_fields_with_arguments_and_terms_are_fields():
    def decay(t, y, rate):
        return -rate * y

    for term in (decay, Term(decay)):
        np.testing.assert_array_equal(WithArguments(term, 3.0)(0.0, jnp.ones(2)), [-3, -3])
    controlled = Term(decay)
    controlled.control = None
    with pytest.raises(TypeError, match="ordinary"):
        WithArguments(controlled)(0.0, jnp.ones(2))
