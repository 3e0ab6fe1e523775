"""Kinds of instance and searches by name, against what is known of the instances and by hand."""

import numpy as np
import pytest

from latebloom import unfold
from latebloom.methods.bandits.sparse_misspecified import nets, problem, searches, worlds
from latebloom.methods.bandits.sparse_misspecified.worlds import Setting, grid, make_problem


@pytest.mark.parametrize("world", ["adversarial", "random", "compressible", "gaussian", "coherent"])
def test_an_instance_is_what_its_setting_says_and_the_same_for_all(world):
    setting = Setting(world, 6, 2, 0.2)
    one, again = (make_problem(3, setting, 50) for _ in range(2))
    np.testing.assert_array_equal(one.rewards, again.rewards)
    assert one.features.shape == (100 if world in ("gaussian", "coherent") else 50, 6)
    assert (np.count_nonzero(one.theta), one.sparsity, one.epsilon) == (2, 2, 0.2)
    assert np.abs(one.rewards - one.features @ one.theta).max() <= 0.2 + 1e-9
    assert np.linalg.norm(one.features, axis=1).max() <= 1 + 1e-9
    assert not np.allclose(one.rewards, make_problem(4, setting, 50).rewards)


def test_a_table_is_an_instance_of_its_rows():
    found = make_problem(0, Setting("diabetes", 10, 2, 0.0), 80)
    assert found.features.shape == (80, 10) and np.count_nonzero(found.theta) == 2
    residuals = found.rewards - found.features @ found.theta
    assert found.epsilon == pytest.approx(np.abs(residuals).max())
    assert len(make_problem(0, Setting("diabetes", 10, 2, 0.0), 1000).features) == 300


def test_coherent_features_share_most_of_their_variance():
    plain, coherent = (
        np.corrcoef(worlds.gaussian_features(np.random.default_rng(0), 4000, 5, coherent=c).T)
        for c in (False, True)
    )
    others = ~np.eye(5, dtype=bool)
    assert np.abs(plain[others]).max() < 0.06
    np.testing.assert_allclose(coherent[others], 0.95, atol=0.01)


def test_a_grid_has_every_dimension_with_every_pair():
    assert grid("random", (2, 3), ((1, 0.1), (2, 0.2))) == (
        ("random", 2, 1, 0.1), ("random", 2, 2, 0.2), ("random", 3, 1, 0.1), ("random", 3, 2, 0.2)
    )  # fmt: skip


def test_designs_of_shared_features_are_kept():
    instance = make_problem(1, Setting("random", 4, 1, 0.1), 40)
    kept = worlds.design_of(instance, 1)
    assert worlds.design_of(make_problem(1, Setting("adversarial", 4, 1, 0.2), 40), 1) is kept
    own = make_problem(1, Setting("gaussian", 4, 1, 0.1), 20)
    found = worlds.design_of(own, 1)
    assert found.worst == pytest.approx(4, rel=0.006)  # Kiefer and Wolfowitz: the rank, at the best


@pytest.mark.parametrize("method", searches.METHODS)
def test_every_method_finds_a_good_action_where_the_model_hardly_errs(method):
    found = searches.search(method, 0, Setting("random", 4, 1, 0.05), 60)
    assert 0 <= found["gap"] <= (30 if method in ("lin-ucb", "sparse-oful") else 8)
    assert found["actions"] == 60 and 0 < found["queries"] <= 60
    size = 4 if method == "dense-net" else 1
    assert found["net"] == nets.net_size(4, size, 0.05)


def test_noise_is_averaged_over_repeats():
    setting = Setting("random", 4, 1, 0.2)
    found = searches.search("all-actions", 0, setting, 30, sigma=0.3)
    assert found["queries"] == 30 * nets.repeats_needed(0.3, 0.2, nets.net_size(4, 1, 0.2))


def test_a_needle_is_found_when_it_is_met():
    rng = np.random.default_rng(0)
    instance = problem.needle_problem(rng, 8, 4, 0.2, tries=500)
    needle = int(instance.rewards.argmax())
    met = np.flatnonzero(np.random.default_rng(1).permutation(len(instance.rewards)) == needle)[0]
    query = problem.queries(instance, 0.0, rng)
    searches.needle_by_search(instance, query, np.random.default_rng(1))
    assert query.count == met + 1
    for method in searches.NEEDLE_METHODS.values():
        query = problem.queries(instance, 0.0, np.random.default_rng(2))
        method(instance, query, np.random.default_rng(3))
        assert 1 <= query.count <= len(instance.rewards)
        assert needle in query.known or query.count == len(instance.rewards) - 1


def test_settings_are_searched_in_turn():
    settings = (
        Setting("random", 4, 1, 0.2),
        Setting("net", 6, 2, 0.1),
        Setting("needle", 8, 4, 0.2),
    )
    sphere = unfold(searches.Searches("all-actions", settings[:2], actions=30), seeds=[5], steps=2,
                    every=1, progress=False).isel(seed=0)  # fmt: skip
    np.testing.assert_array_equal(sphere.gap, [np.nan, 0, np.nan])
    np.testing.assert_array_equal(sphere.queries, [np.nan, 30, np.nan])
    assert sphere.net[2] == nets.net_size(6, 2, 0.1)
    np.testing.assert_array_equal(sphere.d, [4, 4, 6])  # before the first, that to come
    one = searches.find_needles("needle-search", 5, settings[2])
    assert one["gap"] == one["queries"] / ((one["actions"] + 1) / 2)
    many = searches.find_needles("needle-search", 5, settings[2], replicates=3)
    parts = []
    for i in range(3):
        rng = np.random.default_rng([5, 4, i])
        instance = problem.needle_problem(rng, 8, 4, 0.2, tries=3000)
        query = problem.queries(instance, 0.0, rng)
        searches.needle_by_search(instance, query, rng)
        parts.append(query.count)
    assert many["queries"] == np.median(parts)
