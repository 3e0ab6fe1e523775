"""Learners that are not traced, and a chain's log as a table."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.methods.bandits.payments.host import (
    HostChain,
    HostLog,
    LinearBandit,
    Trees,
    _one_hot,
)
from latebloom.methods.bandits.payments.learners import Supervised
from latebloom.methods.bandits.payments.model import CrossedLogistic
from latebloom.methods.bandits.payments.policy import Retrained
from latebloom.methods.bandits.payments.rules import EpsilonGreedy, OneDraw, SquareCB
from latebloom.methods.bandits.payments.serving import keys_of, look, play, simulate_log
from latebloom.methods.bandits.payments.world import PaymentWorld

BATCH, K = 600, 5
WORLD = PaymentWorld(batch=BATCH, actions=K, merchants=6, issuers=8, generations=4, lift=0.7)
MODEL = CrossedLogistic(WORLD.sizes, 2, K, ridge=5.0)


def test_linear_bandits_by_hand():
    """One category of one level: ridge means and posterior widths in closed form."""
    keys = keys_of(1)
    instance = WORLD.init(keys.instance)
    view = look(WORLD, instance, keys.world, jnp.int32(0))
    even = jnp.asarray(view.allowed) / jnp.asarray(view.allowed).sum(1, keepdims=True)
    rows = play(WORLD, instance, keys, jnp.int32(0), view, even).feedback
    log = HostLog(*jax.device_get((rows.features, rows.action, rows.reward)))
    learner = LinearBandit(ridge=3.0)
    seen = learner.predict(learner.fit(log, WORLD, np.random.default_rng(0)), log.features, WORLD)
    x = _one_hot(log.features, WORLD).astype(float)
    shared = np.linalg.solve(x.T @ x + 3 * np.eye(x.shape[1]), x.T @ log.reward)
    of = log.action == 2
    a = x[of].T @ x[of] + 3 * np.eye(x.shape[1])
    own = np.linalg.solve(a, x[of].T @ (log.reward - x @ shared)[of])
    np.testing.assert_allclose(seen.mean[:, 2], x @ (shared + own), atol=1e-3)
    width = np.sqrt(np.einsum("nf,nf->n", x, np.linalg.solve(a, x.T).T))
    np.testing.assert_allclose(seen.width[:, 2], width, atol=1e-3)
    drawn = LinearBandit(ridge=3.0, spread=0.5, members=300)
    many = drawn.predict(drawn.fit(log, WORLD, np.random.default_rng(0)), log.features, WORLD)
    np.testing.assert_allclose(many.draws[:50, :, 2].std(1), 0.5 * width[:50], rtol=0.25)
    p = OneDraw()(many, jnp.asarray(view.allowed), jnp.float32(1))
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)


def test_trees_learn_and_can_be_pickled_on_the_way():
    host = HostChain(WORLD, Trees(count=15), EpsilonGreedy(0.1), contexts=100)
    state = pickle.loads(pickle.dumps(host.step(host.init(3))))
    state = host.step(state)
    seen = host.observe(state)
    assert float(seen["greedy_gain"]) > 0.1 and 0 < float(seen["negative_share"]) < 0.5


def test_a_simulated_log_is_a_table_that_tells_the_truth():
    policy = Retrained(Supervised(MODEL), SquareCB(40.0), rows=BATCH)
    log = simulate_log(WORLD, policy, 2, seed=0)
    assert len(log) == 2 * BATCH and log.timestamp.is_monotonic_increasing
    assert set(log.generation) == {1, 2}
    for row in log.iloc[[0, 700, 1199]].itertuples():
        assert str(row.action) in row.allowed_actions.split("|")
    first = log[log.generation == 1]
    sizes = first.allowed_actions.str.count(r"\|") + 1
    np.testing.assert_allclose(first.propensity, 1 / sizes, atol=1e-4)
    arrived = log[log.reward.notna()]
    waited = (arrived.reward_timestamp - arrived.timestamp).dt.total_seconds() / 3600
    # Those that would come after midnight are not there, so that the mean is a little below 2 h.
    assert 1.5 < waited.mean() < 2.1 and (waited >= 0).all()
    assert (arrived.reward_timestamp.dt.date == arrived.timestamp.dt.date).all()
    assert log.reward_timestamp[log.reward.isna()].isna().all()
    with pytest.raises(ValueError, match="at least 1"):
        simulate_log(WORLD, policy, 0)
