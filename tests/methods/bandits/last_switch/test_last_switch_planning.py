"""Relaxation, rounding, virtual states and exact oracles against brute force and each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from latebloom import unfold
from latebloom.core.interaction import Interaction
from latebloom.methods.bandits.last_switch import (
    GUARANTEE,
    Fixed,
    Follow,
    Instances,
    LastSwitch,
    Lookahead,
    Planned,
    average_reward,
    best_periodic,
    best_policy,
    best_rounding,
    compare,
    cycle_value,
    cycle_values,
    dyadic_schedule,
    expected_virtual,
    horizon_bound,
    make_plan,
    plan_of,
    relax,
    round_plan,
    stack,
    virtual_position,
)
from latebloom.methods.bandits.last_switch.evaluation import variants

tables = st.integers(0, 10_000).map(
    lambda seed: np.sort(np.random.default_rng(seed).uniform(0, 1, (3, 6)), axis=1)
)


def step(tau, played):
    if played:
        return -1 if tau > 0 else tau - 1
    return 1 if tau < 0 else tau + 1


def pays(row, tau, streak):
    tau = int(np.clip(tau, -streak, len(row) - streak))
    return row[tau + streak if tau < 0 else tau + streak - 1]


def simulate(table, streak, actions, start=None):
    """Rewards of a sequence of actions, by the definition of the model."""
    tau, earned = list(start or [1] * len(table)), []
    for action in actions:
        earned.append(pays(table[action], tau[action], streak) if action < len(table) else 0.0)
        tau = [step(t, i == action) for i, t in enumerate(tau)]
    return np.array(earned)


def best_of_horizon(table, streak, rounds, start):
    """The most that any policy earns in `rounds` rounds, by trying all."""
    options = itertools.product(range(len(table) + 1), repeat=rounds)
    return max(simulate(table, streak, actions, start).sum() for actions in options)


def test_what_a_cycle_brings_by_hand():
    row = np.array([[0.1, 0.2, 0.5, 0.9]])  # p(-2), p(-1), p(1), p(2)
    np.testing.assert_allclose(cycle_values(row, 2), [[[0.5, 0.7], [0.9, 1.1]]])


def test_a_relaxation_solved_by_hand():
    # One arm: rest 2 rounds and play 1 (0.9 every 3 rounds), or rest 1 and play 1 (0.4 every 2).
    found = relax(np.array([[0.0, 0.4, 0.9]]), 1)
    assert found.bound == pytest.approx(0.3) and found.share[0, 2, 1] == pytest.approx(1)
    # An arm that never tires is played for ever.
    found = relax(np.array([[0.5, 0.5, 0.5]]), 1)
    assert found.bound == pytest.approx(0.5) and found.share[0, 0, 1] == pytest.approx(1)
    # Two such arms share the one play a round.
    assert relax(np.full((2, 3), 0.5), 1).bound == pytest.approx(0.5)
    # Runs: p(2) = 0.9, then p(-1) = 0.8; pairs reach 1.7 / 4, single plays 0.9 / 3.
    runs = np.array([[0.0, 0.8, 0.8, 0.9]])
    assert relax(runs, 2).bound == pytest.approx(max(1.7 / 4, 1.6 / 3))
    assert relax(runs, 2, longest_run=1).bound == pytest.approx(0.8 / 2)


@given(tables, st.integers(1, 4))
@settings(max_examples=20)
def test_the_relaxation_is_a_vertex_and_agrees_with_another_solver(table, streak):
    found = relax(table, streak)
    used = found.share > 0
    assert (used.sum((1, 2)) > 1).sum() <= 1 and used.sum() <= len(table) + 1
    idle = table.shape[1] - streak
    gains, rows, plays = [], [], []
    for arm, row in enumerate(table):
        for n in range(1, idle + 1):
            for m in range(1, streak + 1):
                cycle = simulate(row[None], streak, [1] * (n - 1) + [0] * m)
                gains.append(cycle.sum())
                rows.append(np.eye(len(table))[arm] * (n + m))
                plays.append(m)
        gains.append(row[0])
        rows.append(np.eye(len(table))[arm])
        plays.append(1)
    other = linprog(-np.array(gains), np.vstack([np.array(rows).T, plays]), np.ones(len(table) + 1), method="highs-ipm")  # fmt: skip
    assert found.bound == pytest.approx(-other.fun, abs=1e-7)


@given(tables, st.integers(1, 4))
@settings(max_examples=15)
def test_no_policy_beats_the_relaxation_and_every_periodic_one_is_beaten_by_the_best(table, streak):
    best = best_policy(table, streak)
    assert best.value <= best.upper <= best.value + 1e-6 + 1e-12
    assert best.value <= relax(table, streak).bound + 1e-9
    assert best_periodic(table, streak, 4).value <= best.value + 1e-6
    repeats = simulate(table, streak, list(best.cycle) * 40)
    length = len(best.cycle)
    assert repeats[-20 * length :].mean() == pytest.approx(best.value, abs=1e-9)


def test_the_bound_and_the_optimum_do_not_need_monotone_payoffs():
    rng = np.random.default_rng(3)
    for _ in range(10):
        table = rng.uniform(0, 1, (2, 6))
        best = best_policy(table, 3)
        assert best.value <= relax(table, 3).bound + 1e-9
        assert best_periodic(table, 3, 8).value <= best.value + 1e-6


def test_the_best_policy_by_hand():
    # Each pays 1 after one round of rest: alternate. With two rounds of rest: two in three rounds.
    assert best_policy(np.array([[0.0, 1.0, 1.0]] * 2), 1).value == pytest.approx(1)
    assert best_policy(np.array([[0.0, 0.0, 1.0]] * 2), 1).value == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="too many"):
        best_policy(np.ones((6, 30)), 5)
    with pytest.raises(ValueError, match="too many to try"):
        best_periodic(np.ones((6, 3)), 1, 12)


@given(tables, st.integers(1, 4), st.lists(st.integers(0, 3), min_size=1, max_size=7))
@settings(max_examples=25)
def test_a_repeated_cycle_earns_what_it_earns(table, streak, cycle):
    repeats = simulate(table, streak, cycle * 30)
    expected = repeats[-10 * len(cycle) :].mean()
    assert cycle_value(table, streak, np.array(cycle)) == pytest.approx(expected, abs=1e-9)


@given(tables, st.integers(1, 4))
@settings(max_examples=20)
def test_powers_of_two_get_a_quarter_of_the_delay_only_bound(table, streak):
    schedule = np.array(dyadic_schedule(table, streak))
    for arm in range(len(table)):
        gaps = np.diff(np.flatnonzero(np.tile(schedule == arm, 3)))
        assert len(set(gaps.tolist())) <= 1  # purely periodic
    quarter = relax(table, streak, longest_run=1).bound / 4
    assert cycle_value(table, streak, schedule) >= quarter - 1e-9


def test_powers_of_two_are_chosen_best():
    tight = np.asarray(Instances("tight", 4, 3, 1)(jax.random.key(0)), float)
    assert cycle_value(tight, 1, np.array(dyadic_schedule(tight, 1))) == pytest.approx(1)


@pytest.mark.parametrize("arms", [2, 5, 12])
def test_the_tight_family_reaches_its_limit(arms):
    table = np.asarray(Instances("tight", arms, arms - 1, 1)(jax.random.key(0)), float)
    plan, relaxation = make_plan(table, 1)
    assert relaxation.bound == pytest.approx(1)
    assert expected_virtual(plan) == pytest.approx(1 - (1 - 1 / arms) ** arms, abs=1e-6)


@given(tables, st.integers(1, 4))
@settings(max_examples=30)
def test_the_certificate_holds_on_every_instance(table, streak):
    for run in (None, 1):
        plan, relaxation = make_plan(table, streak, longest_run=run)
        assert expected_virtual(plan) >= GUARANTEE * relaxation.bound - 1e-6


@pytest.mark.parametrize("family", ["random", "jump", "satiation"])
def test_what_is_drawn_and_played_agrees_with_the_exact_expectation(family):
    table = np.asarray(Instances(family, 3, 6, 3)(jax.random.key(11)), float)
    plan, _ = make_plan(table, 3)
    environment = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 3, 3)
    keys = jax.random.split(jax.random.key(0), 4000)

    @jax.jit
    @jax.vmap
    def virtual(key):
        due, place = virtual_position(round_plan(plan, key), 3)
        return jnp.where(due, plan.payoffs[jnp.arange(3), place], 0).max()

    values = np.asarray(virtual(keys))
    error = 4 * values.std() / np.sqrt(len(values))
    assert values.mean() == pytest.approx(expected_virtual(plan), abs=error)
    real = average_reward(environment, stack([Planned(plan, jnp.array(False), jnp.array(False))]), keys[:300], jnp.int32(600))  # fmt: skip
    assert np.mean(real) >= expected_virtual(plan) - 9 / 600 - 4 * np.std(real) / np.sqrt(300)


def replay(plan, drawn, table, streak, rounds):
    """Virtual states written out in Python: per round the action, its virtual and its real payoff."""
    tau, clock, rows = [1] * len(table), np.array(drawn.clock), []
    rest, run = np.array(drawn.rest), np.array(drawn.run)
    for _ in range(rounds):
        worth = {}
        for arm in range(len(table)):
            if run[arm] and clock[arm] >= rest[arm]:
                played = clock[arm] - rest[arm]
                state = -streak if rest[arm] == 0 else (rest[arm] if played == 0 else -played)
                worth[arm] = pays(table[arm], state, streak)
        action = max(worth, key=lambda arm: (worth[arm], -arm)) if worth else len(table)
        real = pays(table[action], tau[action], streak) if worth else 0.0
        rows.append((action, worth.get(action, 0.0), real))
        tau = [step(t, i == action) for i, t in enumerate(tau)]
        clock = np.where(run > 0, (clock + 1) % np.maximum(rest + run, 1), 0)
    return np.array(rows)


@pytest.mark.parametrize("family", ["random", "jump", "satiation"])
def test_the_planner_plays_as_written_out_and_real_states_mirror_virtual_ones(family):
    table = np.asarray(Instances(family, 4, 7, 3)(jax.random.key(5)), float)
    plan, _ = make_plan(table, 3)
    environment = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 4, 3)
    for seed in range(3):
        drawn = round_plan(plan, jax.random.key(seed))
        rows = replay(plan, drawn, table, 3, 60)
        process = Interaction(environment, Planned(plan, False, False, drawn))
        trace = unfold(process, seeds=1, steps=60, every=1, progress=False)
        actions = np.diff(trace.plays.values[0], axis=0).argmax(1)
        np.testing.assert_array_equal(actions, rows[:, 0])
        np.testing.assert_allclose(np.diff(trace["mean"].values[0]), rows[:, 2], atol=1e-5)
        # After the first cycle the real state is never below the virtual one.
        assert (rows[10:, 2] >= rows[10:, 1] - 1e-9).all()


def test_fill_uses_only_arms_that_the_rounding_left_out_and_never_loses():
    # Two fast arms take up all plays; the third is not worth a cycle of the bound's budget.
    table = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.1, 0.1, 0.1], [0.05, 0.05, 0.05]])
    plan, relaxation = make_plan(table, 1)
    assert relaxation.bound == pytest.approx(2 / 3 + 0.1 / 3)
    environment = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 4, 1)
    keys = jax.random.split(jax.random.key(1), 200)
    plain, filled, *_ = np.asarray(average_reward(environment, variants(plan, plan), keys, jnp.int32(300)))  # fmt: skip
    assert (filled >= plain - 1e-6).all() and filled.mean() > plain.mean() + 0.005


def test_the_best_of_many_roundings_is_the_best():
    table = np.asarray(Instances("tight", 4, 3, 1)(jax.random.key(0)), float)
    plan, _ = make_plan(table, 1)
    environment = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 4, 1)
    drawn, means = best_rounding(plan, environment, jax.random.key(2), rounds=200, draws=100)
    assert means.max() > 0.97 and sorted(np.asarray(drawn.clock)) == [0, 1, 2, 3]


def test_ranking_by_real_states_is_another_rule():
    # Arm 0 is idle longer than its virtual cycle knows of, and really worth more than arm 1.
    table = np.array([[0.0, 0.3, 1.0], [0.0, 0.5, 0.5]])
    plan, _ = make_plan(table, 1)
    drawn = round_plan(plan, jax.random.key(0))._replace(
        rest=jnp.array([1, 1]), run=jnp.array([1, 1]), clock=jnp.array([1, 1])
    )
    environment = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 2, 1, start=jnp.array([2, 2]))
    chosen = {}
    for by_real in (False, True):
        process = Interaction(environment, Planned(plan, False, by_real, drawn))
        chosen[by_real] = unfold(process, steps=1, progress=False).plays.values[0, -1].argmax()
    assert chosen == {False: 1, True: 0}


@given(tables, st.lists(st.sampled_from([-2, -1, 1, 2, 3]), min_size=2, max_size=2))
@settings(max_examples=12)
def test_no_policy_beats_the_bound_of_a_finite_horizon(table, start):
    table = table[:2, :5]
    best = best_of_horizon(table, 2, 5, start)
    assert best <= horizon_bound(table, 2, np.array(start), 5) + 1e-9


def test_the_bound_of_a_horizon_is_met_where_rest_is_all():
    table = np.array([[0.0, 1.0]])
    assert horizon_bound(table, 1, np.array([1]), 3) == pytest.approx(2)  # play, rest, play
    assert best_of_horizon(table, 1, 3, [1]) == 2


def test_payoffs_that_are_not_monotone_need_to_be_asked_for():
    falling = np.array([[0.0, 0.9, 0.1]])
    with pytest.raises(ValueError, match="heuristic=True"):
        make_plan(falling, 1)
    assert make_plan(falling, 1, heuristic=True)[1].bound == pytest.approx(0.45)
    with pytest.raises(ValueError, match="longest_run must be from 1 to 1"):
        relax(falling, 1, longest_run=2)


def test_a_solution_that_is_no_vertex_can_be_rounded_too():
    table = np.asarray(Instances("satiation", 2, 4, 2)(jax.random.key(3)), float)
    found = relax(table, 2)
    rate = np.zeros_like(found.rate)
    for n, m in ((1, 1), (2, 1), (3, 2)):
        rate[0, n, m] = 0.2 / (n + m)
    plan = plan_of(type(found)(0.0, rate), table, 2)
    drawn = jax.vmap(lambda key: round_plan(plan, key))(jax.random.split(jax.random.key(0), 4000))
    kinds = np.stack([drawn.rest[:, 0], drawn.run[:, 0]], 1)
    for n, m in ((1, 1), (2, 1), (3, 2)):
        assert (kinds == [n, m]).all(1).mean() == pytest.approx(0.2, abs=0.03)
    assert (np.asarray(drawn.run[:, 1]) == 0).all()


def test_lookahead_against_all_sequences():
    table = np.asarray(Instances("satiation", 3, 5, 3)(jax.random.key(2)), float)
    environment = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 3, 3)
    for depth in (1, 3):
        trace = unfold(
            Interaction(environment, Lookahead(depth, 3)), steps=12, every=1, progress=False
        )
        tau = [1, 1, 1]
        for action in np.diff(trace.plays.values[0], axis=0).argmax(1):
            options = list(itertools.product(range(4), repeat=depth))
            totals = [simulate(table, 3, option, tau).sum() for option in options]
            firsts = {
                o[0] for o, total in zip(options, totals, strict=True) if total > max(totals) - 1e-6
            }
            assert action in firsts
            tau = [step(t, i == action) for i, t in enumerate(tau)]


def test_compare_orders_what_must_be_ordered():
    table = np.asarray(Instances("jump", 2, 6, 2)(jax.random.key(4)), float)
    found = compare(table, 2, jax.random.key(0), rounds=400, draws=50, best_of=20, depth=2, period=6, exact=True)  # fmt: skip
    slack = 8 / 400  # the start-up
    best = found.reward["optimum"]
    assert best <= found.bound + 1e-9 and best <= found.upper <= best + 1.1e-6
    assert all(reward <= best + slack for reward in found.reward.values())
    assert found.reward["planner-best"] >= found.reward["planner"]
    assert found.reward["round-robin"] == pytest.approx(
        simulate(table, 2, [0, 1] * 50)[-20:].mean()
    )
    assert found.virtual >= GUARANTEE * found.bound


def test_round_robin_in_the_loop_and_as_a_cycle():
    table = np.asarray(Instances("random", 3, 5, 2)(jax.random.key(9)), float)
    environment = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 3, 2)
    trace = unfold(Interaction(environment, Follow(jnp.array([0, 1, 2]))), steps=33, every=1, progress=False)  # fmt: skip
    expected = simulate(table, 2, [0, 1, 2] * 11)
    np.testing.assert_allclose(np.diff(trace["mean"].values[0]), expected, atol=1e-5)
