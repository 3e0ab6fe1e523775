"""Training over settings against loops by hand; the tasks against what they say they are."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import unfold
from latebloom.data import load_table
from latebloom.methods.hypernetworks.conditional_tasks import (
    ShiftingCosts,
    Waves,
    digits_with_costs,
)
from latebloom.methods.hypernetworks.conditional_training import (
    ConditionalTraining,
    SeparateNetworks,
)
from latebloom.nn import MLP, Hypernetwork

GRID = jnp.linspace(0, 1, 3)[:, None]


def small(key, **options):
    return Hypernetwork(MLP(1, (4,), 1, key=key, activation="tanh"), 1, (6,), key=key, **options)


def process(model=small, rates=(0.01, 0.1), **more):
    draw = more.pop("draw", lambda key: jax.random.uniform(key, (2, 1)))
    return ConditionalTraining(
        Waves(8), model, draw, partial(optax.sgd, momentum=0.9), rates, GRID, **more
    )


def test_a_run_is_plain_gradient_descent_on_the_mean_over_settings():
    p = process()
    state = p.init(jax.random.key(3))
    first = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, state.models)
    optimiser = optax.sgd(0.1, momentum=0.9)
    model, moments = first, optimiser.init(eqx.filter(first, eqx.is_inexact_array))
    for step in range(4):
        batch_key, draw_key = jax.random.split(jax.random.fold_in(state.key, step))
        batch, settings = p.task.sample(batch_key), p.draw(draw_key)

        @eqx.filter_grad
        def gradient(model, settings=settings, batch=batch):
            losses = [p.task.loss(model.primary(s), s, batch) for s in settings]
            return sum(losses) / len(losses)

        updates, moments = optimiser.update(eqx.filter_jit(gradient)(model), moments)
        model = eqx.apply_updates(model, updates)
    step = eqx.filter_jit(p.step)
    for _ in range(4):
        state = step(state)
    wanted = jnp.stack([p.task.evaluate(model.primary(s), s) for s in GRID])
    np.testing.assert_allclose(p.observe(state)["loss_at"][1], wanted, rtol=2e-4)


def test_rates_and_settings_one_after_another_give_what_they_give_side_by_side():
    traces = [
        unfold(process(by=by), seeds=2, steps=6, every=3, progress=False) for by in ("vmap", "map")
    ]
    np.testing.assert_allclose(traces[0].loss_at, traces[1].loss_at, rtol=1e-3)


def test_a_rate_that_breaks_down_leaves_the_others_alone():
    alone = unfold(process(rates=(0.01,)), seeds=1, steps=200, every=100, progress=False)
    both = unfold(process(rates=(0.01, 1e6)), seeds=1, steps=200, every=100, progress=False)
    np.testing.assert_allclose(both.loss[..., 0], alone.loss[..., 0], rtol=1e-3)
    assert np.isnan(both.loss[0, -1, 1]) and not both.alive[0, -1, 1]
    assert both.diverged_at == -1  # the seed goes on


def test_separate_networks_answer_with_the_nearest_one_and_learn_apart():
    build = partial(SeparateNetworks, lambda key: MLP(1, (4,), 1, key=key), GRID)
    model = build(key=jax.random.key(0))
    found = model.weights(jnp.array([[0.1], [0.6], [0.95]]))
    for got, all_ in zip(jax.tree.leaves(found), jax.tree.leaves(model.networks), strict=True):
        np.testing.assert_array_equal(got, all_)  # 0.1 -> 0, 0.6 -> 0.5, 0.95 -> 1
    p = process(model=lambda key: build(key=key), draw=lambda key: GRID)
    state = p.init(jax.random.key(1))
    gradient = eqx.filter_grad(lambda m: p.task.loss(m.combine(jax.tree.map(lambda w: w[0], m.weights(GRID[:1]))), GRID[0], jnp.ones(3)))(model)  # fmt: skip
    assert all((leaf[1:] == 0).all() for leaf in jax.tree.leaves(gradient.networks))
    assert np.isfinite(eqx.filter_jit(lambda s: p.observe(p.step(s)))(state)["loss"]).all()


def test_batch_normalisation_of_the_hypernetwork_moves_its_statistics():
    p = process(model=partial(small, norm="batch"))
    state = eqx.filter_jit(lambda key: p.step(p.init(key)))(jax.random.key(0))
    assert not np.allclose(state.models.norms[0].mean, 0)


def test_waves_have_the_frequency_that_the_setting_says():
    x = jnp.linspace(-0.5, 0.5, 1001)
    for setting, frequency in ((0.0, 1), (1 / 3, 2), (1.0, 4)):
        np.testing.assert_allclose(
            Waves().target(jnp.array([setting]), x), np.sin(2 * np.pi * frequency * x), atol=2e-5
        )
    more = Waves().target(jnp.array([0.0, 1.0, 0.5]), x) - np.sin(2 * np.pi * x)
    np.testing.assert_allclose(more, np.cos(4 * np.pi * x) / 2, atol=1e-5)
    flat = lambda x: jnp.zeros((len(x), 1))  # noqa: E731
    assert Waves().evaluate(flat, jnp.array([0.0])) == pytest.approx(0.5, abs=0.01)


def test_costs_shift_from_even_to_odd_classes():
    x, y = jnp.zeros((4, 2, 2, 1)), jnp.array([0, 1, 2, 3])
    logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    task = ShiftingCosts(x, y, x, y, size=4)
    network = lambda x: jnp.tile(logits, (len(x), 1))  # noqa: E731
    even, odd = -np.log([0.1, 0.3]).sum() * 2 / 4, -np.log([0.2, 0.4]).sum() * 2 / 4
    assert task.evaluate(network, jnp.array([0.0])) == pytest.approx(even, rel=1e-5)
    assert task.evaluate(network, jnp.array([1.0])) == pytest.approx(odd, rel=1e-5)
    assert task.evaluate(network, jnp.array([0.25])) == pytest.approx(0.75 * even + 0.25 * odd)


@pytest.mark.parametrize("rates", [(), (0.1, 0.0), (-1.0,)])
def test_rates_must_be_positive(rates):
    with pytest.raises(ValueError, match="rates must be positive numbers"):
        process(rates=rates)


def test_digits_are_the_table_split_in_two():
    task, other = digits_with_costs(16), digits_with_costs(8)
    assert task.x.shape == (1400, 8, 8, 1) and task.x_test.shape == (397, 8, 8, 1)
    assert float(task.x.max()) == 1 and float(task.x.min()) == 0
    pixels = load_table("digits-8x8")
    whole = np.concatenate([task.x, task.x_test]).reshape(1797, 64)
    order = np.lexsort(whole.T)
    wanted = np.lexsort(pixels.x.T)
    np.testing.assert_allclose(16 * whole[order], pixels.x[wanted])
    labels = np.concatenate([task.y, task.y_test])
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(pixels.y))
    assert task.sample(jax.random.key(0))[0].shape == (16, 8, 8, 1)
    np.testing.assert_array_equal(other.y, task.y)
