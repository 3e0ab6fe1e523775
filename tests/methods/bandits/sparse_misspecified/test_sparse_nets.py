"""Nets, elimination and designs against brute force and the guarantees they must keep."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.methods.bandits.sparse_misspecified import baselines, design, nets, problem, recovery

seeds = st.integers(0, 10_000)


@given(seeds, st.integers(1, 3), st.sampled_from([0.15, 0.3, 0.6]))
def test_every_point_of_the_ball_is_near_the_net(seed, s, epsilon):
    net = nets.ball_net(s, epsilon)
    rng = np.random.default_rng(seed)
    points = problem.sphere(rng, 200, s) * rng.uniform(size=(200, 1)) ** (1 / s)
    distances = np.linalg.norm(points[:, None] - net, axis=2).min(1)
    assert distances.max() <= epsilon + 1e-12
    assert np.linalg.norm(net, axis=1).max() <= 1 + 1e-12


def test_the_net_of_a_line_by_hand():
    np.testing.assert_allclose(np.unique(nets.ball_net(1, 0.25).round(9)), [-1, -0.5, 0, 0.5, 1])
    assert nets.net_size(6, 1, 0.25) == 6 * len(nets.ball_net(1, 0.25))


def test_repeats_by_hand():
    # 2 * 0.09 * ln(2 * 100 / 0.05) / 0.04 = 37.3
    assert nets.repeats_needed(0.3, 0.2, 100) == 38
    assert nets.repeats_needed(0.0, 0.2, 100) == 1


def adversarial(seed, n, d, s, epsilon):
    rng = np.random.default_rng(seed)
    return problem.adversarial_problem(rng, problem.sphere(rng, n, d), s, epsilon)


@given(seeds, st.integers(2, 12), st.integers(1, 2), st.sampled_from([0.1, 0.2, 0.3]),
       st.sampled_from(["adversarial", "random", "compressible"]))  # fmt: skip
def test_the_guarantee_holds_on_every_instance(seed, d, s, epsilon, world):
    rng = np.random.default_rng(seed)
    features = problem.sphere(rng, 60, d)
    make = getattr(problem, f"{world}_problem")
    instance = make(rng, features, s, epsilon)
    error = instance.rewards - features @ instance.theta
    assert np.abs(error).max() <= epsilon + 1e-9
    for method in (nets.net_search, nets.net_elimination):
        found = method(features, problem.queries(instance, 0.0, rng), epsilon, s)
        assert instance.gap(found.action) <= 4 + 1e-9
        assert found.queries <= 60 and found.within == pytest.approx(4 * epsilon)


@pytest.mark.parametrize("seed", range(4))
def test_noisy_rewards_cost_repeats_and_two_epsilon(seed):
    instance = adversarial(seed, 60, 6, 2, 0.2)
    rng = np.random.default_rng(seed)
    repeats = nets.repeats_needed(0.2, 0.2, nets.net_size(6, 2, 0.2))
    query = problem.queries(instance, 0.2, rng, repeats)
    found = nets.net_elimination(instance.features, query, 0.2, 2, noisy=True)
    assert instance.gap(found.action) <= 6 and found.queries == repeats * len(query.known)


def brute_elimination(features, instance, epsilon, s):
    """The same rule with every parameter of every support laid out."""
    d = features.shape[1]
    points = nets.ball_net(s, epsilon)
    parameters = []
    for support in itertools.combinations(range(d), s):
        theta = np.zeros((len(points), d))
        theta[:, support] = points
        parameters.append(theta)
    parameters = np.concatenate(parameters)
    predictions = parameters @ features.T
    alive, asked = np.ones(len(parameters), bool), []
    while True:
        best = np.where(alive, predictions.max(1), -np.inf).argmax()
        action = predictions[best].argmax()
        asked.append(predictions[best].max())
        if abs(instance.rewards[action] - predictions[best, action]) <= 2 * epsilon:
            return asked, alive
        alive &= np.abs(predictions[:, action] - instance.rewards[action]) <= 2 * epsilon


@pytest.mark.parametrize("seed", range(6))
def test_lazy_supports_change_nothing(seed):
    instance = adversarial(seed, 50, 7, 2, 0.15)
    net = nets.NetElimination(instance.features, 0.15, 2, 0.3)
    promised = []
    while True:
        promise = net.propose()
        promised.append(promise.value)
        if abs(instance.rewards[promise.action] - promise.value) <= 0.3:
            break
        net.observe(promise.action, instance.rewards[promise.action])
    asked, alive = brute_elimination(instance.features, instance, 0.15, 2)
    np.testing.assert_allclose(promised, asked, atol=1e-12)
    assert len(net.survivors()) == alive.sum()


def test_few_supports_are_laid_out():
    rng = np.random.default_rng(0)
    features = problem.sphere(rng, 50, 40)
    net = nets.NetElimination(features, 0.2, 2, 0.4)
    net.propose()
    assert 0 < len(net.supports) < 780 / 4  # of 40 choose 2


def test_an_epsilon_too_small_is_told_and_doubled():
    rng = np.random.default_rng(3)
    features = problem.sphere(rng, 40, 5)
    rewards = np.full(40, -0.9)  # no linear model is low in every direction
    instance = problem.Problem(features, rewards, np.zeros(5), 0.5, 1)
    with pytest.raises(nets.EpsilonTooSmall, match="no 1-sparse parameter agrees"):
        nets.net_elimination(features, problem.queries(instance, 0, rng), 0.02, 1)
    found, epsilon = nets.net_elimination_unknown_epsilon(features, problem.queries(instance, 0, rng), 1)  # fmt: skip
    assert epsilon == 0.64 and found.queries <= 40  # 2 epsilon must reach 0.9


@given(seeds, st.integers(2, 8))
def test_designs_are_optimal_by_the_equivalence_theorem(seed, d):
    features = problem.sphere(np.random.default_rng(seed), 80, d)
    found = design.g_optimal_design(features, iterations=3000)
    assert found.weights.min() >= 0 and found.weights.sum() == pytest.approx(1)
    leverage = np.einsum("nd,de,ne->n", features, np.linalg.inv(found.information), features)
    # Kiefer and Wolfowitz: no design has a largest leverage below d.
    assert d - 1e-6 <= leverage.max() <= d * 1.006
    assert leverage.max() == pytest.approx(found.worst)


def test_the_design_of_a_basis_is_uniform_and_of_a_line_is_its_end():
    np.testing.assert_allclose(design.g_optimal_design(np.eye(3)).weights, 1 / 3)
    line = np.array([[0.2, 0.0], [1.0, 0.0], [-0.5, 0.0]])
    np.testing.assert_allclose(design.g_optimal_design(line, 2000).weights, [0, 1, 0], atol=0.01)


def test_the_decoys_bias_is_its_rows_one_norm():
    rng = np.random.default_rng(1)
    features = problem.sphere(rng, 300, 16)
    found = design.g_optimal_design(features)
    rows = design.least_squares_rows(features, found)
    theta = problem.sparse_unit(rng, 16, 2)
    np.testing.assert_allclose(rows @ (features @ theta), features @ theta, atol=1e-9)
    row = rows[np.abs(rows).sum(1).argmax()]
    # Measured elsewhere for G-optimal designs of random spheres: about 0.82 sqrt(d).
    assert np.abs(row).sum() == pytest.approx(0.82 * 4, rel=0.1)


def test_least_squares_falls_for_the_decoy_and_elimination_does_not():
    instance = adversarial(5, 400, 32, 1, 0.1)
    rng = np.random.default_rng(0)
    query = problem.queries(instance, 0.0, rng)
    fooled = baselines.design_least_squares(instance.features, query)
    assert instance.gap(fooled.action) > 3
    phased = baselines.phased_elimination(instance.features, query, 0.1)
    assert instance.gap(phased.action) <= 4 * (1 + np.sqrt(32))
    known = recovery.known_support(instance.features, query, np.flatnonzero(instance.theta))
    assert instance.gap(known.action) <= 4
    assert instance.gap(baselines.all_actions(instance.features, query).action) == 0


def test_needles_are_a_lower_bound_instance():
    rng = np.random.default_rng(0)
    instance = problem.needle_problem(rng, 20, 8, 0.2, tries=2000)
    support = np.flatnonzero(np.abs(instance.features).sum(0))
    assert len(support) == 8 and set(np.abs(instance.features[:, support]).ravel().round(9)) == {round(8**-0.5, 9)}  # fmt: skip
    gram = np.abs(instance.features @ instance.features.T - np.eye(len(instance.features)))
    assert gram.max() <= 0.5 + 1e-9 and len(gram) > 20
    assert np.abs(instance.rewards - instance.features @ instance.theta).max() <= 0.2 + 1e-9
    assert (instance.rewards > 0).sum() == 1 and instance.rewards.max() == pytest.approx(0.4)
    counts = []
    for i in range(200):
        order = np.random.default_rng(i).permutation(len(gram))
        query = problem.queries(instance, 0.0, rng)
        nets.eliminate_parameters(instance.features, query, 0.4 * instance.features[order], 0.2001)
        assert query.best() == instance.rewards.argmax()
        counts.append(query.count)
    assert np.mean(counts) == pytest.approx((len(gram) + 1) / 2, rel=0.15)


@given(seeds)
def test_the_linear_program_recovers_exactly_without_error(seed):
    rng = np.random.default_rng(seed)
    x, theta = rng.normal(size=(30, 50)) / 9, problem.sparse_unit(rng, 50, 2)
    np.testing.assert_allclose(recovery.l1_minimiser(x, x @ theta, 1e-9), theta, atol=1e-6)


def test_the_linear_program_keeps_within_epsilon_and_says_when_it_cannot():
    rng = np.random.default_rng(2)
    x, theta = rng.normal(size=(40, 20)) / 6, problem.sparse_unit(rng, 20, 3)
    rewards = x @ theta + 0.1 * rng.choice([-1, 1], 40)
    found = recovery.l1_minimiser(x, rewards, 0.1)
    assert np.abs(x @ found - rewards).max() <= 0.1 + 1e-7
    assert np.abs(found).sum() <= np.abs(theta).sum() + 1e-7
    with pytest.raises(ValueError, match="no parameter predicts all 2 rewards"):
        recovery.l1_minimiser(np.ones((2, 3)), np.array([0.0, 1.0]), 0.1)


@pytest.mark.parametrize("method", ["support_designs", "pursuit", "l1", "lasso", "lin_ucb", "sparse_oful"])  # fmt: skip
def test_methods_find_the_best_action_of_an_exact_model(method):
    rng = np.random.default_rng(4)
    features = problem.sphere(rng, 120, 6)
    theta = problem.sparse_unit(rng, 6, 2)
    instance = problem.Problem(features, features @ theta, theta, 0.01, 2)
    query = problem.queries(instance, 0.0, rng)
    found = {
        "support_designs": lambda: recovery.support_designs(features, query, 0.01, 2),
        "pursuit": lambda: recovery.pursuit_design(features, query, 0.01, 2, rng),
        "l1": lambda: recovery.l1_recovery(features, query, 0.01, 2, rng),
        "lasso": lambda: recovery.l1_recovery(features, query, 0.01, 2, rng, solver="lasso"),
        "lin_ucb": lambda: baselines.lin_ucb(features, query, 300),
        "sparse_oful": lambda: baselines.sparse_oful(features, query, 600),
    }[method]()
    assert instance.rewards.max() - instance.rewards[found.action] <= (0.04 if method != "sparse_oful" else 0.2)  # fmt: skip


def test_queries_count_and_remember():
    asked = []

    def ask(action):
        asked.append(action)
        return float(len(asked))

    query = problem.Queries(ask, repeats=2)
    assert query(7) == 1.5 and query(7) == 1.5 and query(3) == 3.5
    assert query.count == 4 and query.best() == 3


def test_a_real_table_is_a_problem_with_its_own_misspecification():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6))
    y = 3 * x[:, 1] - 2 * x[:, 4] + 0.1 * rng.uniform(-1, 1, 80)
    instance = problem.table_problem(x, y, 2)
    assert np.flatnonzero(instance.theta).tolist() == [1, 4]
    assert np.linalg.norm(instance.theta) == pytest.approx(1)
    assert np.linalg.norm(instance.features, axis=1).max() == pytest.approx(1)
    assert np.abs(instance.rewards - instance.features @ instance.theta).max() == pytest.approx(instance.epsilon)  # fmt: skip


@pytest.mark.parametrize(
    ("features", "epsilon", "s", "message"),
    [
        (2 * np.eye(2), 0.1, 1, "norm 2, but at most 1"),
        (np.eye(2), 1.5, 1, "epsilon must be in"),
        (np.eye(2), 0.1, 3, "sparsity must be from 1 to 2"),
        (np.eye(2) * np.nan, 0.1, 1, "must be a finite table"),
        (np.ones(3), 0.1, 1, "must be a finite table"),
    ],
)
def test_bad_input_is_refused(features, epsilon, s, message):
    for method in (nets.net_search, nets.net_elimination, recovery.support_designs):
        with pytest.raises(ValueError, match=message):
            method(features, problem.Queries(lambda a: 0.0), epsilon, s)
