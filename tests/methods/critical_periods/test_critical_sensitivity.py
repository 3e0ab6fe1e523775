"""Deficits of one pathway, training at many onsets, and where the critical period ends."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from scipy import ndimage

from latebloom.data.images import Images
from latebloom.methods.critical_periods import (
    Deficit,
    DeprivedTraining,
    Pathways,
    Views,
    blur,
    critical_window,
    halves,
    mlp_pathways,
    outcomes,
    pathway_outputs,
    sensitivity,
    shares,
)
from latebloom.nn import MLP

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (6, 4))


def seen(kind, strength, step=3, x=X):
    return Deficit(kind, 1, 2, 5, strength).on_input(x, step, KEY)


def test_when_a_deficit_is_active():
    deficit = Deficit("gate", 1, 2, 5)
    assert [bool(deficit.active(t)) for t in range(9)] == [False] * 2 + [True] * 5 + [False] * 2
    moved = deficit.at(0, 1)
    assert moved.active(0) and not moved.active(1)
    assert deficit.at(4).active(8)


@pytest.mark.parametrize("kind", ["gate", "remove", "noise", "mask"])
def test_inputs_are_whole_before_and_after(kind):
    for step in (0, 1, 7, 20):
        np.testing.assert_array_equal(seen(kind, 0.7, step), X)


def test_what_a_deprived_pathway_sees():
    np.testing.assert_allclose(seen("remove", 1.0), 0)
    np.testing.assert_allclose(seen("remove", 0.25), 0.75 * X)
    np.testing.assert_array_equal(seen("gate", 1.0), X)
    wide = jnp.zeros((4000, 5))
    noise = np.asarray(seen("noise", 2.0, x=wide))
    assert noise.std() == pytest.approx(2, rel=0.05)
    assert np.abs(noise - np.asarray(seen("noise", 2.0, step=4, x=wide))).mean() > 1
    ones = jnp.ones((3, 1000))
    masked = np.asarray(seen("mask", 0.3, x=ones))
    assert masked.mean() == pytest.approx(0.7, abs=0.05)
    np.testing.assert_array_equal(masked, seen("mask", 0.3, step=6, x=ones))
    assert (masked == masked[:1]).all()  # the same features in every example


def test_blur_against_scipy():
    image = np.random.default_rng(0).normal(size=(21, 31))
    image[:6] = image[-6:] = 0
    image[:, :6] = image[:, -6:] = 0
    wanted = ndimage.gaussian_filter(image, 1.2, truncate=8, mode="constant")
    found = blur(jnp.asarray(image[None], jnp.float32), 1.2)[0]
    np.testing.assert_allclose(found[6:-6, 6:-6], wanted[6:-6, 6:-6], atol=1e-4)
    np.testing.assert_allclose(blur(jnp.ones((1, 5, 4)), 3.0), 1, rtol=1e-5)
    np.testing.assert_allclose(blur(X[None], 0.0)[0], X, atol=1e-6)
    with pytest.raises(ValueError, match="height, width"):
        blur(X, 1.0)


class Scale(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight * x


def test_a_gate_stops_the_gradient_and_nothing_else():
    paths, views = (Scale(jnp.float32(2)), Scale(jnp.float32(3))), (X, X)
    deficit = Deficit("gate", 1, 0, 2)

    def slopes(step):
        def loss(paths):
            return sum(pathway_outputs(paths, views, deficit, step, KEY)).sum()

        return loss(paths), jax.grad(loss)(paths)

    (inside, gated), (outside, free) = slopes(0), slopes(2)
    assert inside == outside
    assert gated[0].weight == free[0].weight == X.sum()
    assert gated[1].weight == 0 and free[1].weight == X.sum()
    often = Deficit("gate", 1, 0, 1000, 0.9)
    shut = jax.vmap(lambda t: jax.grad(lambda y: often.on_output(y, t, KEY))(1.0) == 0)
    assert shut(jnp.arange(1000)).mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Deficit("deaf"), "gate, remove, noise, blur, mask"),  # pyright: ignore
        (lambda: Deficit("mask", strength=1.5), "between 0 and 1"),
        (lambda: Deficit("noise", strength=-1), "at least 0"),
        (lambda: pathway_outputs([jnp.sin], [X, X]), "1 pathways but 2 views"),
        (lambda: pathway_outputs([jnp.sin], [X], Deficit("gate"), 0, KEY), "only 1"),
        (lambda: pathway_outputs([jnp.sin, jnp.sin], [X, X], Deficit("gate")), "needs a key"),
        (lambda: Views((X,), X, (X,), X), "two views or more"),
        (lambda: Views((X, X[:3]), X, (X, X), X), "view 1 of the train part has 3"),
        (lambda: critical_window([0, 1], np.ones((1, 2))), "two or more"),
        (lambda: critical_window([0, 1], np.ones((3, 2)), level=1.0), "between 0 and 1"),
    ],
)
def test_bad_inputs(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_shares_by_hand():
    y = np.array([0, 1, 1, 0])
    sure = 2.0 * jax.nn.one_hot(y, 2)
    np.testing.assert_allclose(shares(jnp.stack([3 * sure, sure]), jnp.asarray(y)), [0.75, 0.25])
    np.testing.assert_allclose(shares(jnp.stack([sure, sure]), jax.nn.one_hot(y, 2)), [0.5, 0.5])


def test_each_eye_sees_its_half():
    x = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    views = halves(Images("made up", x, np.array([1, 0]), x[:1], np.array([1]), "here"))
    left, right = views.train
    np.testing.assert_allclose(left, x[:, :, :2] / 255, rtol=1e-6)
    np.testing.assert_allclose(right, x[:, :, 2:] / 255, rtol=1e-6)
    assert views.test[1].shape == (1, 3, 3) and views.y_train.tolist() == [1, 0]
    network = mlp_pathways(views.train, (4,), 2, KEY)
    seen = []
    for path, view in zip(network.paths, views.train, strict=True):
        (w, b), (v, c) = ((np.asarray(l.weight), np.asarray(l.bias)) for l in path.network.layers)
        seen.append(np.maximum(np.asarray(view).reshape(2, -1) @ w + b, 0) @ v + c)
    np.testing.assert_allclose(network(views.train), sum(seen), rtol=1e-5, atol=1e-6)
    assert not np.allclose(seen[0], seen[1])


def test_outcomes_are_of_the_end_and_of_one_pathway():
    cells = np.arange(2 * 2 * 3 * 2.0).reshape(2, 2, 3, 2)  # [seed, step, onset, path]
    dims = ("seed", "step", "onset", "path")
    trace = xr.Dataset(
        {"share": (dims, cells), "alone": (dims, -cells), "metric": (dims[:3], cells[..., 0])},
        {"onset": [-1, 0, 5]},
    )
    found = outcomes(trace, 1)
    np.testing.assert_array_equal(found.share, [[7, 9, 11], [19, 21, 23]])
    np.testing.assert_array_equal(found.alone, -found.share)
    np.testing.assert_array_equal(found.metric.sel(onset=5), [10, 22])


def test_a_window_worked_by_hand():
    onsets, mean = [0, 100, 200, 300], np.array([1.0, 0.8, 0.2, 0.0])
    harm = mean + 0.02 * np.array([[1], [-1], [0.5], [-0.5]])
    window = critical_window(onsets, harm)
    assert window.harmful and window.worst == 0 and window.most == pytest.approx(1)
    assert window.closes == pytest.approx(150)  # half-way from 0.8 to 0.2
    assert 140 < window.low <= window.closes <= window.high < 160
    assert "closes at step 150" in str(window)
    assert critical_window(onsets, harm, level=0.9).closes == pytest.approx(50)


def test_windows_that_stay_open_and_harm_that_is_none():
    flat = 1 + 0.01 * np.random.default_rng(0).normal(size=(5, 3))
    assert critical_window([0, 1, 2], flat).closes == np.inf
    assert "still open" in str(critical_window([0, 1, 2], flat))
    nothing = np.random.default_rng(0).normal(size=(6, 4))
    window = critical_window([0, 1, 2, 3], nothing)
    assert not window.harmful and np.isnan(window.closes)
    assert "no deficit" in str(window)


def test_the_interval_covers_the_true_end():
    rng, covered = np.random.default_rng(1), 0
    onsets = np.arange(0, 500, 50)
    curve = 1 / (1 + np.exp((onsets - 210) / 40))
    truth = critical_window(onsets, np.stack([curve, curve]) + 1e-9).closes
    for _ in range(60):
        window = critical_window(onsets, curve + 0.1 * rng.normal(size=(12, 10)), draws=300)
        covered += window.low <= truth <= window.high
    assert covered >= 48


def network(key):
    keys = jax.random.split(key, 2)
    return Pathways(tuple(MLP(3, (8,), 2, key=k, activation="tanh") for k in keys))


def two_views(n=120):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    views = tuple(rng.normal(size=(n, 3)) + 1.5 * (2 * y[:, None] - 1) for _ in range(2))
    half = n // 2
    return Views(tuple(v[:half] for v in views), y[:half], tuple(v[half:] for v in views), y[half:])


TRAIN = {
    "model": network,
    "data": two_views(),
    "onsets": (0, 20, 120),
    "steps": 200,
    "optimiser": lambda rate: optax.sgd(rate),
    "hyper": {"rate": 0.3},
    "batch_size": 20,
    "seeds": 3,
    "progress": False,
}
train = partial(sensitivity, **TRAIN)


def test_early_gates_cost_the_pathway_its_share():
    found = train(deficit=Deficit("gate", 1, 0, 40))
    harm = found.harm()
    assert harm.shape == (3, 3)
    assert (harm[:, 0] > 0.1).all() and (np.abs(harm[:, 2]) < 0.05).all()
    assert found.window().harmful
    assert found.curve.onset.tolist() == [-1, 0, 20, 120]
    np.testing.assert_allclose(
        found.curve.share[0] - found.curve.share[1:], harm.mean(axis=0), rtol=1e-5
    )
    trace = found.trace
    np.testing.assert_allclose(trace.share.sum("path"), 1, rtol=1e-4)
    # A run is the run without a deficit until its onset.
    early, none = trace.sel(onset=20), trace.sel(onset=-1)
    np.testing.assert_array_equal(early.train_loss[:, :6], none.train_loss[:, :6])
    assert (early.train_loss[:, 8] != none.train_loss[:, 8]).all()


RULES = {
    "sgd": lambda rate: optax.sgd(rate),
    "momentum": lambda rate: optax.sgd(rate, 0.9),
    "adam": lambda rate: optax.adam(rate),
    "adamw": lambda rate: optax.adamw(rate, weight_decay=0.1),
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_gated_pathway_stays_exactly_where_it_is(rule):
    process = DeprivedTraining(
        model=network, data=TRAIN["data"], deficit=Deficit("gate", 1, 0, 4), onsets=(3,),
        optimiser=RULES[rule], hyper={"rate": 0.05}, batch_size=20,
        loss=optax.softmax_cross_entropy_with_integer_labels,
    )  # fmt: skip
    step = eqx.filter_jit(process.step)
    states = [process.init(KEY)]
    for _ in range(8):
        states.append(step(states[-1]))

    def of(state, run, path):
        parts = (state.model.paths[path], [
            tree.paths[path] for tree in jax.tree.leaves(
                state.optimiser, is_leaf=lambda t: isinstance(t, Pathways)) if isinstance(tree, Pathways)
        ])  # fmt: skip
        return [np.asarray(leaf[run]) for leaf in jax.tree.leaves(eqx.filter(parts, eqx.is_array))]

    for t in range(8):  # run 0 has no deficit, run 1 has it in steps 3 to 6
        still = [
            all((a == b).all() for a, b in zip(of(states[t], run, p), of(states[t + 1], run, p), strict=True))
            for run, p in ((1, 1), (1, 0), (0, 1))
        ]  # fmt: skip
        assert still == [3 <= t < 7, False, False]


def test_labels_are_indices_of_the_outputs():
    data = TRAIN["data"]
    with pytest.raises(ValueError, match="the train labels must be from 0 to 1, but row 0 has 5"):
        train(
            data=Views(data.train, data.y_train * 0 + 5, data.test, data.y_test),
            deficit=Deficit("gate", 1, 0, 5),
        )
    with pytest.raises(ValueError, match="the test labels must be from 0 to 1, but row 0 has -1"):
        train(
            data=Views(data.train, data.y_train, data.test, data.y_test * 0 - 1),
            deficit=Deficit("gate", 1, 0, 5),
        )


def test_a_deficit_of_the_first_pathway_is_the_other_way_round():
    found = train(deficit=Deficit("remove", 0, 0, 40), onsets=(0, 120), seeds=2)
    assert (found.harm()[:, 0] > 0.1).all()


def test_sensitivity_refuses_runs_that_make_no_sense():
    with pytest.raises(ValueError, match="over by the end of the run, step 200"):
        train(deficit=Deficit("gate", 1, 0, 81))
    with pytest.raises(ValueError, match="at least 1 step"):
        train(deficit=Deficit("gate", 1, 0, 0))
    with pytest.raises(ValueError, match="increasing"):
        train(deficit=Deficit("gate", 1, 0, 5), onsets=(5, 5))
    with pytest.raises(ValueError, match="only 2 views"):
        train(deficit=Deficit("gate", 2, 0, 5))
    with pytest.raises(ValueError, match="batch_size"):
        train(deficit=Deficit("gate", 1, 0, 5), batch_size=61)
