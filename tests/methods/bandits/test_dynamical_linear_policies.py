"""Policies against the decisions of the authors' code, and against NumPy where that differs."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.core.interaction import Feedback, View
from latebloom.methods.bandits.dynamical_linear import (
    AR2,
    Bounds,
    Fixed,
    HeldLinearSystem,
    advertising_system,
    ar2,
    batch_size,
    budget_splits,
    d_lin_ucb,
    dynlin_ucb,
    exact_bounds,
    exp3,
    growing_epochs,
    lin_ucb,
    stateless_lin_ucb,
    synthetic_system,
    undiscounted_d_lin_ucb,
)
from latebloom.methods.bandits.dynamical_linear.optimistic import (
    Radius,
    backward,
    factor,
    forward,
    no_data,
)

ACTIONS = budget_splits()
ADS = advertising_system()
BOUNDS = exact_bounds(ADS, ACTIONS, 0.01)
HORIZON = 1000

# Decisions of the authors' code in its first 240 rounds, and then its estimate of h and its radius,
# on rewards <h, u_t> + sin(t) / 10 with t = 0, 1, ...
AUTHORS = {
    "dynlin": (
        "332200055554444111114444411111155555522222211111155555552222222333333300000004444444000000033333333444444440000000033333333444444440000000033333333444444440000000003333333334444444443333333330000000004444444443333333330000000004444444443333",
        [0.158063, 0.011022, 0.074831], 28.838611072994336,
    ),
    "dynlin-1": (
        "332200044443333444440000055555511111144444433333300000004444444333333300000004444444333333300000000444444443333333300000000444444443333333300000000444444443333333330000000004444444443333333330000000004444444443333333330000000004444444443333",
        [0.221682, -0.008644, 0.082898], 61.18475107779761,
    ),
    "linucb": (
        "320451403403425125125215251425125215251425043214504325043241525043404324051425234043450432405432043404523404340524340523440432540434042521542542340451254245215245214525412524521452430445252145243404252154524340452430452145245243045214542524",
        [0.240889, -0.037055, 0.108491], 6.5392472105944295,
    ),
    "linucb-1": (
        "320451403403425125125215251425125043241525125403421525412525142512521542514252514251525214523404521524521452340452152430454234045234045423404523404542340452154245215425241525412542543042452145252145423404524340542340452430445215244521254251",
        [0.25368, -0.042431, 0.106006], 6.234004777920222,
    ),
    "d-linucb": (
        "320442544442544444524442444454445444524444444444442444454444442444444444444444445442224444444424444444444444444442444444444444444444422242444444444444444444444444444444444444454444444222244444444444444444444444444444444442224244444444444444",
        [0.239979, -0.057857, 0.126027], 0.48481296413228014,
    ),
    "d-linucb-log": (
        "320451403403425125125215251425125215251425043214504325043241525043404324034054324152450432405234405142524340524304432504434052434504324504342405432404340524340425125442523404512454252154251425425125425142524340452340425403442512452540434251",
        [0.239381, -0.0379, 0.110908], 6.57713192863878,
    ),
}  # fmt: skip
SHAPE = ACTIONS.shape
POLICIES = {
    "dynlin": dynlin_ucb(SHAPE, BOUNDS, HORIZON),
    "dynlin-1": dynlin_ucb(SHAPE, BOUNDS, HORIZON, ridge=1.0),
    "linucb": lin_ucb(SHAPE, BOUNDS, HORIZON),
    "linucb-1": stateless_lin_ucb(SHAPE, BOUNDS.theta, 1.5, HORIZON),
    "d-linucb": d_lin_ucb(SHAPE, BOUNDS.theta, 1.5, 0.01, HORIZON),
    "d-linucb-log": undiscounted_d_lin_ucb(SHAPE, BOUNDS, HORIZON),
}
EXP3 = "341355010202313303121320341125535520332122112531121120223433232322015133323001100315323154324335323113454302542211053120133213520005341135205131343231125154521145321450145112304341542535004131534020520030122332311411120021343320223014125113"


def reward(action, t):
    return float(ADS.response @ ACTIONS[action] + 0.1 * np.sin(t))


def feedback(action, value, propensity=1.0):
    return Feedback(
        jnp.asarray(ACTIONS[None], jnp.float32), jnp.ones((1, len(ACTIONS)), bool),
        jnp.array([action], jnp.int32), jnp.array([propensity], jnp.float32),
        jnp.array([value], jnp.float32), jnp.zeros(1, jnp.int32), jnp.array([True]),
    )  # fmt: skip


@pytest.mark.parametrize("name", list(AUTHORS))
def test_decisions_are_those_of_the_authors_code(name):
    """Up to ties, which rounding decides: their action must have the best score but for 1e-4."""
    played, response, radius = AUTHORS[name]
    policy = POLICIES[name]
    scores, learn = eqx.filter_jit(policy.scores), eqx.filter_jit(policy.learn)
    ends = np.arange(240)
    if name.startswith("dynlin"):  # their first epoch lasts two rounds
        lengths = np.floor(np.log(np.arange(1, 90)) / np.log(1 / BOUNDS.radius)).astype(int) + 1
        ends = np.cumsum(lengths)
        ends = ends[ends < 240]
    state, start = policy.init(jax.random.key(0)), 0
    for end in ends:
        action = int(played[end])
        if start:
            found = np.asarray(scores(state, jnp.asarray(ACTIONS, jnp.float32), jnp.int32(start)))
            assert found[action] >= found.max() - 1e-4 * abs(found.max()), (name, start)
        state, start = learn(state, feedback(action, reward(action, end))), end + 1
    gram = np.asarray(state.regression.gram.value) + policy.ridge * np.eye(3)
    h = np.linalg.solve(gram, np.asarray(state.regression.moment.value))
    np.testing.assert_allclose(h, response, atol=2e-4)
    assert float(policy.radius(jnp.int32(240))) == pytest.approx(radius, rel=1e-4)


def test_constants_are_those_of_the_paper():
    b = Bounds(radius=0.5, omega=2.0, theta=3.0, action=1.5, drive=0.5, gain=1.2, noise=0.1)
    assert b.ridge_bias == pytest.approx(3 + 2 * 0.5 * 1.2 / 0.5)
    assert b.transient_bias == pytest.approx(1.5 * 2 * 1.2 * (1.5 * 0.5 / 0.5 + 1.5 / 0.5))
    assert b.variance == pytest.approx(0.01 * (1 + 4 * 1.44 / 0.75))
    radius = dynlin_ucb((6, 3), b, 100).radius
    t, ridge = 7, np.log(100)
    expected = (
        b.ridge_bias * np.sqrt(ridge)
        + b.transient_bias / np.sqrt(ridge) * np.log(np.e * (t + 1))
        + np.sqrt(2 * b.variance * (np.log(100) + 1.5 * np.log(1 + t * 1.5**2 / (3 * ridge))))
    )
    assert float(radius(jnp.int32(t))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"radius": 1.0}, r"in \[0, 1\), not 1"), ({"theta": -1.0}, "bound theta"), ({"gain": np.inf}, "bound gain")],
)  # fmt: skip
def test_bounds_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(BOUNDS, **change)


def test_discounted_rounds_of_the_radius():
    t, gamma = 50, 0.98
    rounds = (1 - gamma ** (2 * t)) / (1 - gamma**2)
    common = {"constant": 0.0, "variance": 2.0, "confidence": 1.0, "dims": 1.5, "growth": 0.3,
              "log_discount": float(np.log(gamma)), "discounted": True}  # fmt: skip
    for over, n in ((False, rounds), (True, t * rounds)):
        found = float(Radius(**common, overcounted=over)(jnp.int32(t)))
        assert found == pytest.approx(np.sqrt(2 * (1 + 1.5 * np.log(1 + 0.3 * n))), rel=1e-5)


def test_cholesky_written_out():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(5, 5))
    gram, right = (half @ half.T).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    rows = factor(jnp.asarray(gram), 0.5)
    full = gram + 0.5 * np.eye(5)
    lower = np.linalg.cholesky(full)
    half_way = forward(rows, list(jnp.asarray(right)))
    np.testing.assert_allclose(jnp.stack(half_way), np.linalg.solve(lower, right), rtol=2e-3, atol=1e-4)  # fmt: skip
    np.testing.assert_allclose(
        jnp.stack(backward(rows, half_way)), np.linalg.solve(full, right), rtol=5e-3, atol=1e-3
    )


def test_sums_of_300000_rounds_are_as_good_as_in_float64():
    actions = jnp.asarray(ACTIONS + 0.0123, jnp.float32)

    def value(t):
        return 0.8123 + 0.001 * jnp.sin(t.astype(jnp.float32))

    def add(t, state):
        chosen = actions[(t * 7919) % 6][None]
        return state.add(chosen, value(t)[None], jnp.ones(1))

    gram, moment = jax.jit(lambda: jax.lax.fori_loop(0, 300_000, add, no_data(3)))()
    t = np.arange(300_000)
    chosen = np.asarray(actions, np.float64)[(t * 7919) % 6]
    rewards = np.asarray(jax.vmap(value)(jnp.arange(300_000)), np.float64)
    np.testing.assert_allclose(gram.value, chosen.T @ chosen, rtol=1e-6)
    np.testing.assert_allclose(moment.value, chosen.T @ rewards, rtol=1e-6)


def environment(noise, longest):
    return HeldLinearSystem(
        draw=Fixed(ADS, ACTIONS), state_noise=noise, reward_noise=noise * 3**0.5,
        actions=len(ACTIONS), longest=longest,
    )  # fmt: skip


def regret_of(policy, env, decisions, keys):
    """Final regret by a loop without the engine, in whatever types are enabled."""

    def one(key):
        instance, start = jax.random.split(key)

        def play_epoch(carry, _):
            world, state, t, regret = carry
            view = env.look(world, key, t)
            decision = policy.act(state, view, t, key)
            world, outcome = env.step(world, view, decision, key, t)
            row = Feedback(
                view.features[None], view.allowed[None], decision.action[None],
                jnp.ones(1), outcome.reward[None], t[None], jnp.array([True]),
            )  # fmt: skip
            state = policy.learn(policy.acted(state, decision), row)
            return (world, state, t + decision.hold, regret + outcome.best - outcome.mean), None

        start = (env.init(instance), policy.init(start), jnp.int32(0), jnp.zeros(()))
        end = jax.lax.scan(play_epoch, start, None, length=decisions)[0]
        return end[2], end[3]

    return jax.jit(jax.vmap(one))(keys)


def test_float32_plays_as_well_as_float64():
    horizon = 20_000
    epochs = growing_epochs(BOUNDS.radius, horizon)
    finals = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            policy, env = dynlin_ucb(SHAPE, BOUNDS, horizon), environment(0.01, epochs.longest)
            keys = jax.random.split(jax.random.key(0), 3)
            rounds, regret = regret_of(policy, env, int(epochs.until(horizon)), keys)
            assert regret.dtype == (jnp.float64 if x64 else jnp.float32)
            assert (rounds == horizon).all()  # the last epoch is cut short
            finals.append(float(regret.mean()))
    assert finals[0] == pytest.approx(finals[1], rel=2e-3)
    # Three trials of the authors' code: 2539.7, standard deviation 1.9.
    assert finals[0] == pytest.approx(2539.7, abs=12)


def test_epochs_are_held_as_long_as_they_should_be():
    policy, view = dynlin_ucb(SHAPE, BOUNDS, HORIZON), View(jnp.asarray(ACTIONS, jnp.float32), None)
    state, key = policy.init(jax.random.key(0)), jax.random.key(0)
    epochs = jnp.arange(1, 61)
    held = jax.vmap(
        lambda m: policy.act(state._replace(epoch=m), view, jnp.int32(0), key).hold
    )(epochs)  # fmt: skip
    np.testing.assert_array_equal(
        held, np.floor(np.log(epochs) / np.log(1 / BOUNDS.radius)).astype(int) + 1
    )
    last = policy.act(state._replace(epoch=jnp.int32(60)), view, jnp.int32(HORIZON - 2), key)
    assert int(last.hold) == 2


def test_without_a_state_dynlin_is_linucb():
    """omega = 0: no drift, no transient, and epochs of one round where the radius is zero."""
    bounds = Bounds(0.0, 0.0, 0.7, 1.1, 0.0, 1.0, 0.1)
    assert eqx.tree_equal(dynlin_ucb(SHAPE, bounds, 200), lin_ucb(SHAPE, bounds, 200))
    bounds = Bounds(0.0, 0.1, 0.7, 1.1, 0.1, 1.0, 0.1)
    assert not eqx.tree_equal(dynlin_ucb(SHAPE, bounds, 200), lin_ucb(SHAPE, bounds, 200))


def test_d_linucb_forgets():
    """Strong discounting, against the sums written out."""
    policy, gamma = d_lin_ucb(SHAPE, 0.5, 1.5, 0.1, HORIZON, forgotten=0.1), 0.9
    rng, state = np.random.default_rng(1), policy.init(jax.random.key(0))
    learn = eqx.filter_jit(policy.learn)
    taken = rng.integers(6, size=60)
    rewards = rng.normal(size=60)
    for action, value in zip(taken, rewards, strict=True):
        state = learn(state, feedback(action, value))
    weight = gamma ** np.arange(59, -1, -1)
    u = ACTIONS[taken]
    V = np.eye(3) + (weight * u.T) @ u
    squared = np.eye(3) + (weight**2 * u.T) @ u
    inverse = np.linalg.inv(V)
    h = inverse @ ((weight * u.T) @ rewards)
    t = 60
    beta = 0.5 + 0.1 * np.sqrt(
        2 * np.log(HORIZON) + 3 * np.log(1 + 1.5**2 * (1 - gamma ** (2 * t)) / (3 * (1 - gamma**2)))
    )
    width = np.sqrt(np.einsum("ki,ij,kj->k", ACTIONS, inverse @ squared @ inverse, ACTIONS))
    found = policy.scores(state, jnp.asarray(ACTIONS, jnp.float32), jnp.int32(t))
    np.testing.assert_allclose(found, ACTIONS @ h + beta * width, rtol=2e-4, atol=2e-5)


def test_exp3_has_the_probabilities_of_the_authors_code():
    policy = exp3(6, BOUNDS, HORIZON)
    assert policy.mixing == pytest.approx(0.09687548956588288)
    assert policy.scale == pytest.approx(1.2902750786840005)
    state, allowed = policy.init(jax.random.key(0)), jnp.ones(6, bool)
    learn, chances = eqx.filter_jit(policy.learn), eqx.filter_jit(policy.probabilities)
    for t, action in enumerate(map(int, EXP3)):
        chance = float(chances(state, allowed)[action])
        state = learn(state, feedback(action, reward(action, t), chance))
    np.testing.assert_allclose(
        chances(state, allowed), [0.141443, 0.214301, 0.189251, 0.204837, 0.1198, 0.130368],
        atol=2e-5,
    )  # fmt: skip


def test_batches_of_exp3():
    assert batch_size(synthetic_system().spectral_radius, 20_000) == 6  # as the authors' code
    assert batch_size(BOUNDS.radius, HORIZON) == 12
    assert batch_size(0.0, 100) == 1
    policy = exp3(6, BOUNDS, 100, batch=12)
    view, state, key = (
        View((), jnp.ones(6, bool)),
        policy.init(jax.random.key(0)),
        jax.random.key(1),
    )
    held = [int(policy.act(state, view, jnp.int32(t), key).hold) for t in (0, 84, 96)]
    assert held == [12, 12, 4]  # the last batch is cut short
    assert policy.mixing == pytest.approx(
        min(1, np.sqrt(6 * np.log(6) / ((np.e - 1) * 2 * (100 / 12) / 3)))
    )


def allowed_by_ar2(alpha, width, epoch, means, history):
    """For each round of a history, the arms that AR2 may choose, written out."""
    arms, allowed = len(means), []
    estimate, pulled, since = [0.0] * arms, [0] * arms, [np.inf] * arms
    for t, taken in enumerate(history, 1):
        place = (t - 1) % epoch
        if place < arms:
            allowed.append([arms - 1 - place])
            since = [np.inf] * arms
        else:
            last, before = history[t - 2], history[t - 3]
            superior = last if estimate[last] >= estimate[before] else before
            for i in range(arms):
                age = t - pulled[i] + 1
                doubt = width * np.sqrt((alpha**2 - alpha ** (2 * age)) / (1 - alpha**2))
                near = estimate[superior] - estimate[i] <= doubt
                if i != superior and since[i] == np.inf and near:
                    since[i] = t
            explores = t % 2 == 1 and min(since) < np.inf
            first = [i for i in range(arms) if since[i] == min(since)]
            allowed.append(first if explores else [superior])
        pulled[taken], since[taken] = t, np.inf
        estimate = [alpha * e for e in estimate]
        estimate[taken] = alpha * means[taken]
    return allowed


@pytest.mark.parametrize(("width", "arms_after_the_start"), [(0.05, 1), (2.0, 4)])
def test_ar2_alternates_and_restarts(width, arms_after_the_start):
    means = [0.9, 0.2, 0.7, 0.5]
    policy = AR2(0.6, width, np.int32(31), 4)
    state, view, taken = policy.init(jax.random.key(0)), View((), jnp.ones(4, bool)), []

    @jax.jit
    def play_round(state, key):
        decision = policy.act(state, view, jnp.int32(0), key)
        brought = jnp.asarray(means, jnp.float32)[decision.action]
        row = feedback(0, 0.0)._replace(action=decision.action[None], reward=brought[None])
        return policy.learn(policy.acted(state, decision), row), decision

    for t in range(90):
        state, decision = play_round(state, jax.random.fold_in(jax.random.key(1), t))
        taken.append(int(decision.action))
    allowed = allowed_by_ar2(0.6, width, 31, means, taken)
    assert all(action in options for action, options in zip(taken, allowed, strict=True))
    assert len(set(taken[4:31])) == arms_after_the_start
    assert taken[31:35] == [3, 2, 1, 0]  # a new epoch looks at every arm again


def test_constants_of_ar2():
    policy = ar2(4, Bounds(0.6, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1))
    epoch = np.ceil(4 / 0.06**3)
    c0 = np.sqrt(4 * np.log(1 / 0.06) + 4 * np.log(epoch) + 2 * np.log(16))
    assert policy.width == pytest.approx(24 * c0 * 0.1) and policy.epoch == epoch


def test_epochs_that_never_come_change_nothing():
    policy = dynlin_ucb((6, 3), BOUNDS, HORIZON)
    padded = policy.padded(100)
    assert padded.starts.shape == (100,) and padded.starts.dtype == policy.starts.dtype
    np.testing.assert_array_equal(padded.starts[: len(policy.starts)], policy.starts)
    state = policy.init(jax.random.key(0))._replace(epoch=jnp.int32(10**6))
    view = View(jnp.asarray(ACTIONS, jnp.float32), jnp.ones(6, bool))
    for one, other in zip(policy.act(state, view, jnp.int32(5), jax.random.key(1)),
                          padded.act(state, view, jnp.int32(5), jax.random.key(1)), strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: ar2(3, replace(b, radius=0.0)), "AR2 is for rewards with memory and noise"),
        (lambda b: ar2(3, replace(b, noise=0.0)), "AR2 is for rewards with memory and noise"),
        (lambda b: exp3(1, b, 100), "arms must be at least 2"),
        (lambda b: exp3(3, b, 100, batch=0), "batch at least 1"),
        (lambda b: lin_ucb((3, 2), b, 1), "ridge must be a positive number, not 0"),
        (lambda b: lin_ucb((3, 2), b, 0), "the horizon must be from 1"),
        (lambda b: dynlin_ucb((3, 2), b, 100, ridge=-1.0), "ridge must be a positive number"),
        (lambda b: stateless_lin_ucb((3, 2), 1.0, 1.0, 100, ridge=0.0), "ridge must be a positive"),
        (lambda b: d_lin_ucb((3, 2), 1.0, 1.0, 0.1, 100, forgotten=0.0), "forgotten must be in"),
        (lambda b: undiscounted_d_lin_ucb((3, 2), b, 100, forgotten=1.0), "forgotten must be in"),
    ],
)
def test_settings_of_policies_out_of_range_are_refused(make, message):
    system = advertising_system()
    with pytest.raises(ValueError, match=message):
        make(exact_bounds(system, budget_splits(), 0.01))
