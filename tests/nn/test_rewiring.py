"""Which weights go and come: against sorts in NumPy, and ERK against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.nn import rewiring
from latebloom.nn.rewiring import (
    GROWTHS,
    cosine_rate,
    dropped,
    erk_densities,
    grown,
    largest,
    momentum_of,
    random_masks,
    smallest,
    uniform_densities,
)

KEY = jax.random.key(0)
pick = jax.jit(largest)
least = jax.jit(smallest)


def by_hand(shapes, density):
    """ERK as the paper tells it: layers are made dense one by one until no other would be beyond 1."""
    sizes = [np.prod(s) for s in shapes]
    raw = [np.sum(s) / np.prod(s) for s in shapes]
    dense = set()
    while True:
        left = [i for i in range(len(shapes)) if i not in dense]
        budget = density * sum(sizes) - sum(sizes[i] for i in dense)
        if not left:
            return np.ones(len(shapes))
        epsilon = budget / sum(raw[i] * sizes[i] for i in left)
        most = max(left, key=lambda i: raw[i])
        if epsilon * raw[most] <= 1:
            return np.array([1.0 if i in dense else epsilon * raw[i] for i in range(len(shapes))])
        dense.add(most)


LENET = [(784, 300), (300, 100), (100, 10)]
CONV = [(3, 3, 1, 12), (3, 3, 12, 24), (3, 3, 24, 48), (48, 50)]


@pytest.mark.parametrize("shapes", [LENET, CONV, [(5, 4)]])
@pytest.mark.parametrize("density", [0.01, 0.1, 0.2, 0.5, 0.9, 1.0])
def test_erk_keeps_the_whole_density_and_no_layer_is_more_than_dense(shapes, density):
    found = np.asarray(erk_densities(shapes, density), float)
    np.testing.assert_allclose(found, by_hand(shapes, density), rtol=2e-5)
    sizes = np.array([np.prod(s) for s in shapes])
    np.testing.assert_allclose((found * sizes).sum(), density * sizes.sum(), rtol=1e-5)
    assert (found <= 1 + 1e-6).all()
    np.testing.assert_allclose(uniform_densities(shapes, density), density)


def test_erk_of_a_case_by_hand():
    # Linear layers: epsilon (n_in + n_out) / (n_in n_out); 24 weights of 120 to be kept.
    found = erk_densities([(20, 4), (4, 10)], 0.2)
    epsilon = 24 / (20 + 4 + 4 + 10)
    np.testing.assert_allclose(found, [epsilon * 24 / 80, epsilon * 14 / 40], rtol=1e-6)
    # At 60 % the second would be at 1.9 * 14 / 40 = 0.66; at 95 % beyond 1, so it is dense.
    np.testing.assert_allclose(erk_densities([(20, 4), (4, 10)], 0.95), [74 / 80, 1.0], rtol=1e-6)


@given(
    st.lists(st.sampled_from([0.0, 0.5, 0.5, 1.0, 3e-5, 7.0, 1e30]), min_size=8, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8), st.integers(0, 9), st.integers(0, 50),
)  # fmt: skip
def test_exactly_so_many_of_the_largest_and_of_the_smallest(values, among, count, seed):
    values, among = np.array(values, np.float32), np.array(among)
    key = jax.random.key(seed)
    for select, sign in ((pick, 1), (least, -1)):
        found = np.asarray(select(jnp.asarray(values), jnp.asarray(among), count, key))
        assert found.sum() == min(count, among.sum()) and not (found & ~among).any()
        chosen, left = sign * values[found], sign * values[among & ~found]
        assert not len(chosen) or not len(left) or chosen.min() >= left.max()


def test_ties_are_broken_at_random_and_evenly():
    keys = jax.random.split(KEY, 600)
    flat = jnp.zeros((3, 5))
    found = jax.vmap(lambda k: largest(flat, flat == 0, 6, k))(keys)
    assert (np.asarray(found).sum(axis=(1, 2)) == 6).all()
    share = np.asarray(found).mean(axis=0)
    assert np.abs(share - 6 / 15).max() < 5 * np.sqrt(0.4 * 0.6 / 600)


def test_half_precision_is_compared_as_it_is():
    values = jnp.asarray([1.0, 2.0, 3.0], jnp.bfloat16)
    assert least(values, jnp.ones(3, bool), 1, KEY).tolist() == [True, False, False]


W = np.array([[0.5, -0.2, 0.0, 0.9], [-0.7, 0.1, -0.05, 0.3]], np.float32)
M = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)
G = np.array([[0.1, 9.0, 5.0, 0.01], [0.2, 0.3, 8.0, 7.0]], np.float32)


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        # ceil(0.5 * 7) = 4 of the seven that are there
        ("magnitude", [0.0, -0.05, 0.1, -0.2]),
        ("set", [0.0, 0.1, -0.05, -0.2]),
        ("taylor", [0.0, 0.9, 0.1, 0.5]),
    ],
)
def test_what_each_rule_prunes(rule, gone):
    found = np.asarray(dropped(jnp.asarray(W), jnp.asarray(G), jnp.asarray(M), 0.5, KEY, rule))
    assert sorted(W[found].tolist()) == sorted(np.float32(gone).tolist())


def test_no_rate_prunes_none_and_set_has_no_more_than_there_are_of_a_sign():
    none = dropped(jnp.asarray(W), jnp.asarray(G), jnp.asarray(M), 0.0, KEY)
    assert not none.any()
    up = dropped(jnp.abs(jnp.asarray(W)), jnp.asarray(G), jnp.asarray(M), 1.0, KEY, "set")
    assert up.sum() == 4  # half of seven, rounded up; no negative one


@pytest.mark.parametrize("rule", GROWTHS)
def test_what_each_rule_grows(rule):
    there = np.array([1, 0, 0, 0, 1, 0, 0, 0], bool)
    fired = np.array([1, 1, 0, 0, 1, 1, 0, 1], bool)
    slope = np.array([9, -3, 0, 1, 9, 0, 2, -4.0], np.float32)
    moving = np.array([9, 0, 5, 0, 9, -7, 0, 1.0], np.float32)
    wanted = {"gradient": [1, 7], "momentum": [2, 5]}
    for seed in range(4):
        got = np.asarray(
            grown(GROWTHS.index(rule), *map(jnp.asarray, (slope, moving, fired, there)), 2, jax.random.key(seed))
        )  # fmt: skip
        assert got.sum() == 2 and not (got & there).any()
        if rule == "unfired":
            assert not (got & fired).any()
        if rule in wanted:
            assert np.flatnonzero(got).tolist() == wanted[rule]
    every = grown(1, *map(jnp.asarray, (slope, moving, fired, there)), 4, KEY)
    assert np.flatnonzero(every & ~fired).tolist() == [2, 3, 6] or rule != "unfired"


def test_unfired_falls_back_to_any():
    there = jnp.asarray([True, False, False, False])
    nothing = jnp.zeros(4)
    got = grown(1, nothing, nothing, jnp.asarray([True, True, True, False]), there, 2, KEY)
    assert got[3] and got.sum() == 2 and not got[0]


def test_random_masks_have_each_layers_density():
    like = {"a": jnp.zeros((200, 100), bool), "b": jnp.zeros((50, 100), bool), "c": None}
    found = random_masks(like, jnp.asarray([0.1, 1.0]), KEY)
    assert found["b"].all() and found["c"] is None
    assert abs(float(found["a"].mean()) - 0.1) < 5 * np.sqrt(0.09 / 20_000)


def test_the_rate_falls_as_torchs_cosine_does():
    done = np.linspace(0, 1, 5)
    found = [float(cosine_rate(0.5, 0.005, d)) for d in done]
    np.testing.assert_allclose(found, 0.005 + 0.495 * (1 + np.cos(np.pi * done)) / 2, rtol=1e-6)


def test_momentum_is_adams_or_the_trace():
    params, grads = {"w": jnp.asarray([1.0, 2.0])}, {"w": jnp.asarray([0.3, -0.4])}
    _, adam = optax.adam(0.1).update(grads, optax.adam(0.1).init(params))
    m, v = 0.1 * grads["w"], 0.001 * grads["w"] ** 2
    np.testing.assert_allclose(momentum_of(adam)["w"], m / (jnp.sqrt(v) + 1e-8), rtol=1e-5)
    sgd = optax.sgd(0.1, momentum=0.9)
    _, trace = sgd.update(grads, sgd.init(params))
    np.testing.assert_allclose(momentum_of(trace)["w"], grads["w"])
    assert momentum_of(optax.sgd(0.1).init(params)) is None


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="prune must be one of magnitude, set, taylor"):
        dropped(jnp.ones(2), jnp.ones(2), jnp.ones(2, bool), 0.5, KEY, "small")
    assert rewiring.PRUNES == ("magnitude", "set", "taylor")
