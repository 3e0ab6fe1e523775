"""The sweep against plain descent in NumPy and Optax, and the tuning built on it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import unfold
from latebloom.methods.schedules.schedule_sweep import Problem, ScheduleSweep
from latebloom.methods.schedules.schedule_tuning import candidates, families, tune
from latebloom.nn import MLP
from latebloom.optim.schedules import polynomial_decay, schedule_values

N, DIM, CLASSES, TRAIN, BATCH = 40, 3, 3, 32, 8


def network(key):
    return jax.tree.map(jnp.zeros_like, MLP(DIM, (), CLASSES, key=key))


def hidden(key):
    return MLP(DIM, (5,), CLASSES, key=key)


def problem(model=network, direction=optax.identity, norm="l2"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, DIM)).astype(np.float32)
    noise = rng.normal(size=(N, CLASSES))
    y = (x @ rng.normal(size=(DIM, CLASSES)) + noise).argmax(axis=1).astype(np.int32)
    return Problem(
        jnp.asarray(x), jnp.asarray(y), model, CLASSES, TRAIN, BATCH, direction(), norm
    )  # fmt: skip


def numpy_run(process, state, rates):
    """Softmax regression in float64 on the mini-batches that the process draws."""
    weight, bias, norms = np.zeros((DIM, CLASSES)), np.zeros(CLASSES), []
    for t, rate in enumerate(rates):
        x, y = (np.asarray(a, float) for a in process.batch(state._replace(step=jnp.int32(t))))
        p = np.exp(x @ weight + bias)
        wrong = (p / p.sum(axis=1, keepdims=True) - y) / len(x)
        slope, shift = x.T @ wrong, wrong.sum(axis=0)
        norms.append(np.sqrt((slope**2).sum() + (shift**2).sum()))
        weight, bias = weight - rate * slope, bias - rate * shift
    x, y = (np.asarray(a, float) for a in process._examples(state.rows[:TRAIN]))
    p = np.exp(x @ weight + bias)
    return -np.log((p / p.sum(axis=1, keepdims=True) * y).sum(axis=1)).mean(), norms


@pytest.fixture(scope="module")
def sweep():
    """Four cells: linear decay, flat, one that stops half-way, one that blows up."""
    linear, steps = 0.5 * schedule_values(polynomial_decay(), 10), jnp.ones(10)
    rates = jnp.stack([linear, 2 * steps, steps.at[5:].set(0), 1e38 * steps], axis=1)
    return ScheduleSweep(problem(), rates, ("linear", "flat", "short", "wild"), 2)


@pytest.fixture(scope="module")
def trace(sweep):
    return unfold(sweep, seeds=[3, 4], steps=10, every=5, progress=False)


def test_every_cell_is_plain_descent_on_the_same_batches(sweep, trace):
    start = sweep.init(jax.random.key(4))
    for place, cell in enumerate(("linear", "flat")):
        loss, norms = numpy_run(sweep, start, np.asarray(sweep.rates)[:, place])
        last = trace.sel(seed=4, cell=cell).isel(step=-1)
        assert float(last.train_loss) == pytest.approx(loss, rel=1e-4)
        np.testing.assert_allclose(last.gradient_norm.isel(recorded=place), norms, rtol=1e-4)


def test_a_schedule_that_is_over_and_a_cell_that_blew_up_stand_still(trace):
    assert (trace.diverged_at == -1).all()
    short = trace.train_loss.sel(cell="short", seed=3).values
    assert short[1] == short[2] < short[0]
    assert not trace.train_loss.sel(cell="wild", seed=3).values[-1] < short[0]


def test_batches_hold_training_examples_only_and_each_once_an_epoch():
    process = ScheduleSweep(problem(), jnp.ones((8, 1)), ("a",))
    state = process.init(jax.random.key(0))
    drawn = np.concatenate([process.batch(state._replace(step=jnp.int32(t)))[0] for t in range(4)])
    trained = process.problem.x[state.rows[:TRAIN]]
    assert sorted(map(tuple, drawn.tolist())) == sorted(map(tuple, trained.tolist()))


def test_adam_cells_are_optax_adam_and_record_the_l1_norm():
    steps, rate = 4, 0.05
    adam = problem(hidden, optax.scale_by_adam, "l1")
    process = ScheduleSweep(adam, jnp.full((steps, 1), rate), ("flat",), 1)
    state = process.init(jax.random.key(1))
    params = jax.tree.map(lambda p: p[0], state.params)
    optimiser = optax.adam(rate)
    inner, norms = optimiser.init(params), []
    slope_at = jax.jit(jax.grad(lambda p, x, y: adam.scores(p, x, y)[0]))
    for t in range(steps):
        slope = slope_at(params, *process.batch(state._replace(step=jnp.int32(t))))
        norms.append(sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(slope)))
        update, inner = optimiser.update(slope, inner)
        params = optax.apply_updates(params, update)
    step = jax.jit(lambda s: process.step(s))
    for _ in range(steps):
        state = step(state)
    np.testing.assert_allclose(state.norms[:, 0], norms, rtol=1e-4)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours[0], theirs, rtol=1e-3, atol=1e-5),
        state.params, params,
    )  # fmt: skip


def test_tables_and_splits_that_do_not_fit():
    with pytest.raises(ValueError, match="rates must be"):
        ScheduleSweep(problem(), jnp.ones((5, 2)), ("a",))
    with pytest.raises(ValueError, match="recorded at most"):
        ScheduleSweep(problem(), jnp.ones((5, 1)), ("a",), 2)
    good = problem()
    with pytest.raises(ValueError, match="train must leave some"):
        Problem(good.x, good.y, network, CLASSES, N, BATCH, optax.identity(), "l2")
    with pytest.raises(ValueError, match="hold a batch"):
        Problem(good.x, good.y, network, CLASSES, TRAIN, TRAIN + 1, optax.identity(), "l2")


def test_every_family_comes_with_and_without_warmup():
    names = [c.name for c in candidates(20, 0.1)]
    assert names[0] == "linear" and set(families(20)) == {n.split("+")[0] for n in names}
    assert names.count("inverse") == names.count("inverse+warm-up") == 2
    assert all(c.values.shape == (20,) and np.isfinite(c.values).all() for c in candidates(20, 0.1))


STEPS, PEAKS = 12, (0.01, 1.0, 1e4)


@pytest.fixture(scope="module")
def made():
    return tune(problem(), STEPS, PEAKS, seeds=(50, 51), warmup=0.25)


def test_tuning_takes_the_best_peak_and_refines_from_the_best_linear_run(made):
    by_name = {e.name: e for e in made.entries}
    assert next(iter(by_name)) == "linear" and list(by_name)[-2:] == ["refined", "linear-2x"]
    assert by_name["linear"].peak == 1.0
    assert all(e.peak == PEAKS[int(np.argmin(e.losses))] for e in made.entries)
    assert len(by_name["linear-2x"].values) == 2 * STEPS
    np.testing.assert_allclose(by_name["refined"].values, made.refinement.over(STEPS))
    alone = ScheduleSweep(problem(), jnp.ones((STEPS, 1)), ("linear",))
    _, norms = numpy_run(alone, alone.init(jax.random.key(50)), by_name["linear"].values)
    np.testing.assert_allclose(made.refinement.norms[[0, -1]], [norms[0], norms[-1]], rtol=1e-4)
