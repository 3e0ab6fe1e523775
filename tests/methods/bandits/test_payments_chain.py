"""The generation loop against brute force and its own host twin."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.methods.bandits.payments.chain import Chain
from latebloom.methods.bandits.payments.host import HostChain, LinearBandit
from latebloom.methods.bandits.payments.learners import Supervised
from latebloom.methods.bandits.payments.model import CrossedLogistic
from latebloom.methods.bandits.payments.policy import Retrained
from latebloom.methods.bandits.payments.rules import SquareCB, Uniform, UpperBound
from latebloom.methods.bandits.payments.world import PaymentWorld

BATCH, WAITING, K = 600, 120, 5
WORLD = PaymentWorld(batch=BATCH, actions=K, merchants=6, issuers=8, generations=4, lift=0.7)
MODEL = CrossedLogistic(WORLD.sizes, 2, K, ridge=5.0)


def chain(rule, world=WORLD, waiting=0, contexts=300, **more):
    policy = Retrained(Supervised(MODEL), rule, rows=BATCH + waiting, **more)
    return Chain(world, policy, contexts=contexts, waiting=waiting)


step = jax.jit(lambda process, state: process.step(state))
start = jax.jit(lambda process, key: process.init(key))
look_at = jax.jit(lambda process, state: process.observe(state))


@cache
def states(slice_=0.0, steps=3):
    """The states of a chain after each of its generations; gamma 40, two logs remembered."""
    process = chain(SquareCB(40.0), waiting=WAITING, window=2, slice=slice_)
    found = [start(process, jax.random.key(0))]
    for _ in range(steps):
        found.append(step(process, found[-1]))
    return process, found


def test_a_log_is_served_with_the_propensities_that_it_tells():
    process, found = states()
    policy = process.policy
    fresh = jax.tree.map(lambda x: x[-BATCH:], found[2].interaction.policy.memory)
    there = np.asarray(fresh.weight) > 0
    p = np.asarray(policy.probabilities(found[1].interaction.policy, fresh.features, fresh.allowed))
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    assert (p[~np.asarray(fresh.allowed)] == 0).all()
    logged = p[np.arange(BATCH), fresh.action]
    np.testing.assert_allclose(logged[there], np.asarray(fresh.propensity)[there], atol=1e-5)
    # Played actions are as frequent as their propensities say.
    share = np.bincount(np.asarray(fresh.action), minlength=K) / BATCH
    np.testing.assert_allclose(share, p.mean(0), atol=0.06)


def test_the_first_generation_is_uniform_and_late_rewards_are_dropped():
    _, found = states()
    first = found[1].interaction.policy
    log = jax.tree.map(lambda x: x[-BATCH:], first.memory)
    there = np.asarray(log.weight) > 0
    count = np.asarray(log.allowed).sum(1)
    np.testing.assert_allclose(np.asarray(log.propensity)[there], 1 / count[there], atol=1e-6)
    assert 0.85 < there.mean() < 0.97
    # What has not arrived was decided late in the day.
    assert np.flatnonzero(~there).mean() > 0.8 * BATCH
    assert first.report.arrived == pytest.approx(there.mean())
    negatives = (there & (np.asarray(log.reward) == 0)).sum()
    assert first.report.negatives == negatives
    assert first.report.negative_share == pytest.approx(negatives / there.sum())


def test_the_memory_holds_the_last_logs_and_forgets_older_ones():
    _, found = states()
    memories = [s.interaction.policy.memory for s in found]
    rows = BATCH + WAITING
    np.testing.assert_array_equal(memories[2].reward[:rows], memories[1].reward[rows:])
    np.testing.assert_array_equal(memories[3].action[:rows], memories[2].action[rows:])
    assert (np.asarray(memories[1].weight[:rows]) == 0).all()
    examples = [float(s.interaction.policy.examples) for s in found]
    assert examples[0] == 0 and examples[2] == (np.asarray(memories[2].weight) > 0).sum()


def test_late_rewards_can_be_joined_to_the_next_log():
    _, found = states()
    log = jax.tree.map(lambda x: x[BATCH + WAITING :], found[2].interaction.policy.memory)
    joined = np.asarray(log.weight[:120]) > 0
    assert 20 < joined.sum() < 90
    # They were served by the uniform first generation.
    count = np.asarray(log.allowed[:120]).sum(1)
    np.testing.assert_allclose(
        np.asarray(log.propensity[:120])[joined], 1 / count[joined], atol=1e-6
    )
    late = (np.asarray(found[1].interaction.policy.memory.weight[-BATCH:]) == 0).sum()
    assert joined.sum() == late  # all of them, and nothing twice


def test_only_the_uniform_slice_is_trained_on():
    process, found = states(slice_=0.3)
    log = jax.tree.map(lambda x: x[-BATCH:], found[2].interaction.policy.memory)
    kept = np.asarray(log.weight) > 0
    assert kept.mean() == pytest.approx(0.3 * 0.93, abs=0.06)
    # Within the slice the played actions are uniform over those allowed: mean of 1/K.
    place = (np.asarray(log.allowed).cumsum(1)[np.arange(BATCH), log.action] - 0.5)[kept]
    assert (place / np.asarray(log.allowed).sum(1)[kept]).mean() == pytest.approx(0.5, abs=0.08)
    p = process.policy.probabilities(found[1].interaction.policy, log.features, log.allowed)
    least = 0.3 / np.asarray(log.allowed).sum(1, keepdims=True)
    assert (np.asarray(p) >= np.where(log.allowed, least, 0) - 1e-6).all()


def test_the_value_is_the_mean_over_actions_of_the_true_probabilities():
    process, found = states()
    seen = jax.device_get(look_at(process, found[2]))
    state = found[2]
    instance = state.interaction.environment
    means = np.asarray(jax.vmap(lambda f: WORLD.means(instance, f, jnp.int32(2)))(state.contexts))
    allowed = np.asarray(state.allowed)
    p = np.asarray(
        process.policy.probabilities(state.interaction.policy, state.contexts, state.allowed)
    )
    f = np.asarray(process.policy.predict(state.interaction.policy, state.contexts).mean)
    assert seen["value"] == pytest.approx((p * means).sum(1).mean(), abs=1e-5)
    best = np.where(allowed, f, -1).argmax(1)
    assert seen["greedy_value"] == pytest.approx(means[np.arange(300), best].mean(), abs=1e-5)
    oracle = np.where(allowed, means, 0).max(1).mean()
    uniform = ((means * allowed).sum(1) / allowed.sum(1)).mean()
    gain = (seen["value"] - uniform) / (oracle - uniform)
    assert seen["gain"] == pytest.approx(gain, abs=1e-4)
    unplayed = allowed - p
    rmse = np.sqrt((unplayed * (f - means) ** 2).sum() / unplayed.sum())
    assert seen["rmse_unplayed"] == pytest.approx(rmse, abs=1e-5)
    assert 0 < seen["gain"] < 1 and seen["value"] > seen["uniform_value"]


def test_the_log_is_valued_for_the_greedy_policy_that_did_not_see_it():
    process, found = states()
    served = found[1].interaction.policy
    rows = BATCH + WAITING
    log = jax.tree.map(lambda x: x[-rows:], found[2].interaction.policy.memory)
    f = np.asarray(process.policy.predict(served, log.features).mean)
    best = np.where(log.allowed, f, -1).argmax(1)
    there = np.asarray(log.weight) > 0
    w = ((best == np.asarray(log.action)) / np.asarray(log.propensity))[there]
    r = np.asarray(log.reward)[there]
    found_ = found[2].interaction.policy.report.evaluation
    assert found_.ips.value == pytest.approx((w * r).mean(), rel=1e-4)
    assert found_.snips.value == pytest.approx((w * r).sum() / w.sum(), rel=1e-4)
    n = np.arange(rows)
    terms = f[n, best][there] + w * (r - f[n, log.action][there])
    assert found_.dr.value == pytest.approx(terms.mean(), rel=1e-4)


def test_weighting_by_propensities_keeps_the_number_of_rows():
    process = chain(SquareCB(40.0), waiting=WAITING, window=2, weighting=1.0)
    _, found = states()
    plain, weighted = found[2].interaction.policy, step(process, found[1]).interaction.policy
    assert weighted.examples == plain.examples
    assert not np.allclose(weighted.params.crossed, plain.params.crossed, atol=1e-3)
    rows = plain.memory
    weight = np.asarray(rows.weight / rows.propensity)
    weight = weight * float(rows.weight.sum()) / weight.sum()
    expected = jax.jit(MODEL.fit)(rows._replace(weight=jnp.asarray(weight)))
    np.testing.assert_allclose(weighted.params.crossed, expected.crossed, atol=1e-3)


def test_a_policy_of_another_size_than_its_logs_is_refused():
    with pytest.raises(ValueError, match="a log has 600 \\+ 5"):
        Chain(WORLD, Retrained(Supervised(MODEL), Uniform(), rows=BATCH), waiting=5)
    with pytest.raises(ValueError, match="window and rows"):
        Retrained(Supervised(MODEL), Uniform(), rows=BATCH, window=0)


def test_the_host_chain_meets_the_same_transactions():
    process, found = states()
    host = HostChain(WORLD, LinearBandit(), UpperBound(0.02), contexts=300)
    state = host.step(host.init(0))
    seen, traced = host.observe(state), look_at(process, found[1])
    for name in ("uniform_value", "oracle_value", "arrived", "negatives", "reward"):
        # The first log is uniform in both: the same actions and the same noise.
        assert float(seen[name]) == pytest.approx(float(traced[name]), abs=1e-5)
    assert 0.1 < float(seen["greedy_gain"]) < 1
