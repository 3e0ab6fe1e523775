"""Latent equations of irregular series: the encoder in NumPy, the objective by hand, what is learned."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import unfold
from latebloom.core.odes import solve
from latebloom.data.dynamics import irregular_oscillators
from latebloom.methods.continuous.latent_ode import (
    LatentGRU,
    LatentODELearner,
    TanhChain,
    latent_ode,
    per_value,
    series_dataset,
)

TIMES = (0.0, 0.2, 0.3, 0.7, 1.0)


def parts(n=12, channels=3, times=TIMES, seed=0):
    rng = np.random.default_rng(seed)
    there = rng.random((n, len(times), channels)) < 0.6
    there[:, 0, 0] = True
    return rng.normal(size=there.shape), there


def build(**options):
    return latent_ode(3, TIMES, state=4, gates=5, size=2, hidden=4, pairs=1, **options)


def learner(**given):
    return LatentODELearner(model=given.pop("model", build()), data=series_dataset(parts(), parts(seed=1)), optimiser=optax.adamax,
                            hyper={"learning_rate": 0.01}, deviation=0.2, **given)  # fmt: skip


def test_the_encoder_runs_backwards_and_keeps_its_state_where_nothing_is_seen():
    cell = LatentGRU(2, 5, 3, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    values, there = rng.normal(size=(4, 3, 2)), rng.random((4, 3, 2)) < 0.5
    there[0, 1] = False
    x = np.concatenate([values * there, there], axis=-1).astype(np.float32)
    times = np.array([0.0, 0.3, 1.0])
    gaps = [0.3, 0.7, 0.0]
    w = lambda pair, x: np.tanh(x @ pair[0].weight + pair[0].bias) @ pair[1].weight + pair[1].bias  # noqa: E731
    sigma = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    m, s = np.zeros((4, 3)), np.zeros((4, 3))
    for t in (2, 1, 0):
        row = np.concatenate([x[:, t], np.full((4, 1), gaps[t])], axis=-1)
        seen = np.concatenate([m, s, row], axis=-1)
        keep, reset = sigma(w(cell.gates, seen)), sigma(w(cell.resets, seen))
        new = w(cell.news, np.concatenate([m * reset, s * reset, row], axis=-1))
        on = there[:, t].any(-1, keepdims=True)
        m = np.where(on, (1 - keep) * new[:, :3] + keep * m, m)
        s = np.where(on, (1 - keep) * new[:, 3:] + keep * s, s)
    np.testing.assert_allclose(cell(jnp.asarray(x), jnp.asarray(times)), np.concatenate([m, s], 1), rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("penalty", ["none", "error", "taylor", "local_error"])
def test_the_objective_is_as_worked_by_hand(penalty):
    process = learner(penalty=penalty, strengths=2.0, taylor_order=2, epoch_steps=2)
    model, x, y = build()(jax.random.key(1)), process.data.x_train, process.data.y_train
    key = jax.random.key(2)
    for step, weight in ((0, 0.0), (60, 1 - 0.99**20)):
        total, told = eqx.filter_jit(process.cost)(model, x, y, key, jnp.int32(step))
        mean, spread = (np.asarray(a) for a in model.start(x))
        state_key = jax.random.split(key, 3)[2]
        z = mean + np.exp(spread / 2) * np.asarray(jax.random.normal(state_key, mean.shape))
        saved = solve(model.field, 0.0, 1.0, jnp.asarray(z), save=jnp.asarray(TIMES), rtol=1e-6, atol=1e-6).saved  # fmt: skip
        out = np.moveaxis(np.asarray(model.readout(saved)), 0, 1)
        there = np.asarray(y[..., 3:])
        off = (there * (out - np.asarray(y[..., :3])) ** 2).sum((1, 2)) / there.sum((1, 2))
        likelihood = off / (2 * 0.04) + np.log(0.2) + np.log(2 * np.pi) / 2
        divergence = (np.exp(spread) + mean**2 - 1 - spread).mean(-1) / 2
        byhand = (likelihood + weight * divergence).mean() + 2 * float(told.penalty)
        assert float(total) == pytest.approx(byhand, rel=1e-3)
    assert (told.penalty > 0) == (penalty != "none")


def test_hidden_values_are_not_seen_and_are_judged():
    values, there = parts(n=200)
    seen = series_dataset((values, there), parts(), hidden=0.4)
    shown, all_of_it = np.asarray(seen.x_train[..., 3:]) > 0, np.asarray(seen.y_train[..., 3:]) > 0
    np.testing.assert_array_equal(all_of_it, there)
    assert not (shown & ~there).any() and abs(shown.sum() / there.sum() - 0.6) < 0.05
    np.testing.assert_array_equal(np.asarray(seen.x_train[..., :3])[~shown], 0)
    np.testing.assert_allclose(np.asarray(seen.y_train[..., :3])[there], values[there], rtol=1e-6)
    off = per_value(jnp.zeros((200, 5, 3)), seen.y_train)
    assert float(off[0]) == pytest.approx((values[0][there[0]] ** 2).mean(), rel=1e-5)


def test_oscillators_are_learned():
    drawn = [
        irregular_oscillators(jax.random.key(0), n, channels=6, times=12, part=p)
        for n, p in ((120, 0), (60, 1))
    ]
    model = latent_ode(
        6,
        np.asarray(drawn[0].times),
        state=10,
        gates=10,
        size=4,
        hidden=10,
        pairs=1,
        rtol=1e-3,
        atol=1e-3,
    )
    process = LatentODELearner(
        model=model, data=series_dataset(*[(np.asarray(d.values), np.asarray(d.there)) for d in drawn]),
        optimiser=optax.adamax, hyper={"learning_rate": 0.02}, batch_size=60, deviation=0.2, penalty="error",
        strengths=0.01, moving=True, epoch_steps=2,
    )  # fmt: skip
    told = unfold(process, seeds=1, steps=120, every=120, progress=False)
    assert told.test_loss.values[0, -1] < 0.8 * told.test_loss.values[0, 0]
    assert told.hidden_loss.values[0, -1] < 0.9 * told.hidden_loss.values[0, 0]
    assert (told.evaluations.values[0] == 2 + 6 * (told.steps + told.rejected).values[0]).all()


def test_times_that_do_not_begin_at_zero_are_the_fields_own():
    class Ramp(eqx.Module):
        def __call__(self, t, z):
            return jnp.full_like(z, t)

    moved = tuple(t + 2.0 for t in TIMES)
    model = latent_ode(3, moved, state=4, gates=5, size=2, hidden=4, pairs=1)(jax.random.key(0))
    model = eqx.tree_at(lambda m: m.field, model, Ramp())
    process = learner(model=lambda key: model, penalty="error")
    x, y = process.data.x_train, process.data.y_train
    deterministic = eqx.tree_at(lambda m: (m.first.two.weight, m.first.two.bias), model, (jnp.zeros((4, 4)), jnp.asarray([0.0, 0.0, -60.0, -60.0])))  # fmt: skip
    total, _ = process.cost(deterministic, x, y, jax.random.key(0), jnp.int32(0))
    out = deterministic(x)
    likelihood = per_value(out, y) / (2 * 0.04) + np.log(0.2) + np.log(2 * np.pi) / 2
    np.testing.assert_allclose(total, likelihood.mean(), rtol=1e-4)


def test_the_chain_is_the_papers():
    chain = TanhChain(3, 5, 2, key=jax.random.key(0))
    assert [layer.weight.shape for layer in chain.layers] == [(3, 5), (5, 3), (3, 5), (5, 3)]
    z = np.array([[0.3, -1.0, 2.0]])
    out = np.tanh(z)
    for layer in chain.layers:
        out = np.tanh(out @ np.asarray(layer.weight) + np.asarray(layer.bias))
    np.testing.assert_allclose(chain(0.0, jnp.asarray(z, jnp.float32)), out, rtol=1e-5)


def test_bad_series_are_refused():
    values, there = parts()
    empty = there.copy()
    empty[7] = False
    nan = np.where(there, values, np.nan)
    np.testing.assert_array_equal(series_dataset((nan, there), (nan, there)).x_train, series_dataset((values, there), (values, there)).x_train)  # fmt: skip
    nan[0, 0, 0] = np.nan
    for (v, m), options, said in (
        ((values, empty), {}, "series 7 has no value"), ((nan, there), {}, "finite"), ((values[0], there[0]), {}, "must be"),
        ((values, there), {"hidden": 1.0}, "hidden must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            series_dataset((v, m), parts(), **options)
    with pytest.raises(ValueError, match="increase"):
        latent_ode(3, (0.0, 0.0))(jax.random.key(0))
    with pytest.raises(ValueError, match="deviation"):
        LatentODELearner(model=build(), data=series_dataset(parts(), parts()), optimiser=optax.sgd, hyper={"learning_rate": 0.1}, deviation=0.0)  # fmt: skip
    with pytest.raises(ValueError, match="moving=True"):
        learner(end_width=0.5)
