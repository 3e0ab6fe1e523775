"""The payment world against its formula in NumPy and the figures it was specified by."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.core.interaction import Decision
from latebloom.methods.bandits.payments.world import Features, PaymentWorld

BATCH = 4000


@jax.jit
def draw(world, key, generation):
    instance = world.init(key)
    rounds = generation * BATCH + jnp.arange(BATCH)
    keys = jax.random.split(jax.random.fold_in(key, 1), BATCH)
    view = jax.vmap(lambda k, r: world.look(instance, k, r))(keys, rounds)
    means = jax.vmap(lambda f: world.means(instance, f, generation))(view.features)
    return instance, view, means


@cache
def sample(seed=0, persistence=1.0, generation=0):
    """One batch: instance, view, true means [n, K]."""
    world = PaymentWorld(batch=BATCH, persistence=persistence, generations=6)
    return world, *jax.device_get(draw(world, jax.random.key(seed), jnp.int32(generation)))


def test_means_are_those_of_the_formula():
    _, world, view, means = sample()
    for row in (0, 1234, 3999):
        merchant, issuer, card, region, hour = view.features.categories[row]
        amount, recurring = view.features.numbers[row]
        for a in (0, 5, 23):
            z = 1.85 + world.merchant[merchant] + 0.5 * recurring - 0.15 * amount
            z += sum(world.issuer[0, issuer, f] * world.action[f, a] for f in range(4))
            z += world.card[card, a] + world.region[region, a]
            z += world.daily[a] * np.sin(2 * np.pi * (hour - world.phase[a]) / 24)
            assert means[row, a] == pytest.approx(1 / (1 + np.exp(-z)), abs=1e-5)


def test_uniform_play_authorises_83_and_the_best_95_in_a_hundred():
    found = []
    for seed in range(4):
        _, _, view, means = sample(seed)
        uniform = (means * view.allowed).sum(1) / view.allowed.sum(1)
        found.append((uniform.mean(), np.where(view.allowed, means, 0).max(1).mean()))
    np.testing.assert_allclose(np.mean(found, axis=0), [0.829, 0.951], atol=0.02)


def test_action_sets_depend_on_card_region_and_merchant_alone():
    _, instance, view, _ = sample()
    merchant, _, card, region, _ = view.features.categories.T
    np.testing.assert_array_equal(view.allowed, instance.allowed[card, region, merchant])
    assert view.allowed[:, 0].all()
    assert view.allowed[:, 1:].mean() == pytest.approx(0.6, abs=0.03)
    assert len(np.unique(view.allowed.sum(1))) > 5


def test_contexts_follow_their_distributions():
    _, _, view, _ = sample()
    merchant, issuer, card, region, hour = view.features.categories.T
    zipf = np.arange(1, 51) ** -1.1
    share = np.bincount(merchant, minlength=50) / BATCH
    np.testing.assert_allclose(share, zipf / zipf.sum(), atol=0.02)
    assert issuer.max() <= 199 and np.bincount(issuer).argmax() == 0
    assert set(card) == set(range(5)) and set(region) == set(range(6))
    counts = np.bincount(hour, minlength=24)
    assert counts.argmax() in (14, 15) and counts[15] > 3 * counts[3]
    assert (np.diff(hour) >= 0).all()  # rounds are in order of time
    amount, recurring = view.features.numbers.T
    assert amount.mean() == pytest.approx(0, abs=0.06) and amount.std() == pytest.approx(
        1, abs=0.05
    )
    assert recurring.mean() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("persistence", [1.0, 0.9])
def test_issuers_drift_from_one_batch_to_the_next(persistence):
    _, instance, _, _ = sample(0, persistence, 3)
    u = instance.issuer.reshape(7, -1)
    for lag in (1, 3):
        correlation = np.mean([np.corrcoef(u[g], u[g + lag])[0, 1] for g in range(7 - lag)])
        assert correlation == pytest.approx(persistence**lag, abs=0.04)
    assert u[-1].std() == pytest.approx(1, abs=0.06)
    if persistence == 1.0:
        np.testing.assert_array_equal(u[0], u[-1])


def test_a_generation_meets_its_own_issuers():
    world, instance, view, means = sample(0, 0.9, 3)
    features = Features(*(jnp.asarray(x[7]) for x in view.features))
    np.testing.assert_allclose(world.means(instance, features, jnp.int32(3)), means[7], atol=1e-6)
    assert np.abs(world.means(instance, features, jnp.int32(0)) - means[7]).max() > 1e-3


@jax.jit
def played(world, key):
    instance = world.init(key)

    def one(round):
        see, act = jax.random.split(jax.random.fold_in(key, round))
        view = world.look(instance, see, round)
        decision = Decision(jnp.int32(0), jnp.float32(1))
        _, outcome = world.step(instance, view, decision, act, round)
        return outcome, jnp.asarray(outcome.delay)

    return jax.vmap(one)(jnp.arange(world.batch))


def outcomes(world):
    return jax.device_get(played(world, jax.random.key(3)))


def test_rewards_are_drawn_from_the_means_and_regret_from_the_best():
    outcome, _ = outcomes(PaymentWorld(batch=BATCH, base=0.0))
    assert outcome.reward.mean() == pytest.approx(outcome.mean.mean(), abs=0.025)
    assert (outcome.best >= outcome.mean - 1e-6).all() and set(outcome.reward) == {0.0, 1.0}


def test_delays_have_the_mean_that_is_asked_for():
    """Arrivals counted in rounds are turned back to hours through the day's density."""
    world = PaymentWorld(batch=BATCH, base=0.0, delay=4.0, decline_delay=0.5)
    outcome, delay = outcomes(world)
    place = (np.arange(BATCH) + 0.5) / BATCH
    arrival = place + delay / BATCH
    hours = np.asarray(world.time_of_day(arrival % 1)) + 24 * (arrival // 1)
    waited = hours - np.asarray(world.time_of_day(place))
    assert waited[outcome.reward == 1].mean() == pytest.approx(4.0, rel=0.1)
    assert waited[outcome.reward == 0].mean() == pytest.approx(0.5, rel=0.12)
    _, prompt = outcomes(PaymentWorld(batch=BATCH, delay=0.0, decline_delay=0.0))
    assert (prompt == 0).all()


def test_a_step_changes_nothing_so_that_batches_are_served_side_by_side():
    world, instance, view, _ = sample()
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), view)
    after, _ = world.step(
        instance, one, Decision(jnp.int32(0), jnp.float32(1)), jax.random.key(0), jnp.int32(0)
    )
    assert after is instance and world.memoryless


def test_a_world_without_a_choice_is_refused():
    with pytest.raises(ValueError, match="at least two actions"):
        PaymentWorld(actions=1)
    with pytest.raises(ValueError, match="needs rounds"):
        PaymentWorld(batch=0)
