"""Pointer networks and their rivals against a re-implementation in NumPy with loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.methods.recurrence.pointer import (
    AttentionSeq2Seq,
    PointerNetwork,
    Seq2Seq,
    sequence_loss,
    uniform_start,
)

KEY = jax.random.key(0)
MODELS = {
    "pointer": lambda key: PointerNetwork(4, key=key),
    "encoded": lambda key: PointerNetwork(4, key=key, feed="encoded"),
    "plain": lambda key: Seq2Seq(4, 6, key=key),
    "attention": lambda key: AttentionSeq2Seq(4, 6, key=key),
}
POINTS = np.random.default_rng(0).random((2, 5, 2))
COUNTS = np.array([5, 3])
TARGETS = np.array([[2, 5, 1, 0], [3, 1, 0, 0]])
LENGTHS = np.array([4, 3])


def array(x):
    return np.asarray(x, np.float64)


def lstm(layer, x, h, c):
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    gates = x @ array(layer.input.weight) + array(layer.input.bias)
    gates = gates + h @ array(layer.hidden.weight) + array(layer.hidden.bias)
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def by_hand(kind, model, points, targets):
    """Scores of one set, [steps, n + 1]."""
    h = c = np.zeros(4)
    e = []
    for p in points:
        h, c = lstm(model.encoder, p, h, c)
        e.append(h)
    if kind in ("pointer", "encoded"):
        e.insert(0, array(model.end))
    fed, read, scores = array(model.first), np.zeros(4), []
    for t in targets:
        x = np.concatenate([fed, read]) if kind == "attention" else fed
        h, c = lstm(model.decoder, x, h, c)
        if kind != "plain":
            w1, w2, v = (
                array(w)
                for w in (
                    model.attention.memory.weight,
                    model.attention.query.weight,
                    model.attention.v,
                )
            )
            u = np.array([sum(v * np.tanh(e_j @ w1 + h @ w2)) for e_j in e])
        if kind == "attention":
            a = np.exp(u) / np.exp(u).sum()
            read = sum(a_j * e_j for a_j, e_j in zip(a, e, strict=True))
        if kind in ("plain", "attention"):
            told = np.concatenate([h, read]) if kind == "attention" else h
            u = (told @ array(model.readout.weight) + array(model.readout.bias))[: len(points) + 1]
        scores.append(u)
        fed = e[t] if kind == "encoded" else points[max(t - 1, 0)]
    return np.array(scores)


SCORES = eqx.filter_jit(lambda model, *given: model(*given))


def called(model, points=POINTS, targets=TARGETS):
    return SCORES(
        model, jnp.asarray(points, jnp.float32), jnp.asarray(COUNTS), jnp.asarray(targets)
    )


@pytest.mark.parametrize("kind", MODELS)
def test_scores_and_loss_are_those_of_loops(kind):
    model = uniform_start(MODELS[kind](KEY), KEY, 0.9)
    points = POINTS.copy()
    points[1, 3:] = np.nan
    scores = called(model, points)
    cost = []
    for b, (n, steps) in enumerate(zip(COUNTS, LENGTHS, strict=True)):
        expected = by_hand(kind, model, POINTS[b, :n], TARGETS[b, :steps])
        np.testing.assert_allclose(scores[b, :steps, : n + 1], expected, atol=2e-5)
        p = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
        cost.append([-np.log(p[t, TARGETS[b, t]]) for t in range(steps)])
    assert (scores[1, :, 4:] == -jnp.inf).all()
    loss = sequence_loss(scores, jnp.asarray(TARGETS), jnp.asarray(LENGTHS))
    assert loss == pytest.approx((sum(cost[0]) + sum(cost[1])) / 2, rel=1e-5)
    loss = sequence_loss(scores, jnp.asarray(TARGETS), jnp.asarray(LENGTHS), per="step")
    assert loss == pytest.approx(np.mean(cost[0] + cost[1]), rel=1e-5)


def objective(params, rest, points, targets):
    model = eqx.combine(params, rest)
    scores = model(points, jnp.asarray(COUNTS), targets)
    return sequence_loss(scores, targets, jnp.asarray(LENGTHS))


SLOPES = eqx.filter_jit(eqx.filter_value_and_grad(objective))


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_differences_and_padding_has_none(kind):
    with jax.enable_x64(True):
        model = uniform_start(MODELS[kind](KEY), KEY, 0.9)
        model = jax.tree.map(lambda a: a.astype(jnp.float64), model)
        params, rest = eqx.partition(model, eqx.is_inexact_array)
        points, targets = POINTS.copy(), TARGETS.copy()
        points[1, 3:], targets[1, 3:] = np.nan, 77  # what stands after the end is not looked at
        points, targets = jnp.asarray(points), jnp.asarray(targets)
        _, slopes = SLOPES(params, rest, points, targets)
        for i, leaf in enumerate(jax.tree.leaves(slopes)):
            assert np.isfinite(leaf).all() and np.abs(leaf).sum() > 0, i
        way = uniform_start(params, jax.random.key(1), 1.0)
        ahead, behind = (
            SLOPES(jax.tree.map(lambda a, w: a + s * w, params, way), rest, points, targets)[0]
            for s in (1e-5, -1e-5)
        )
        along = sum(
            float((a * b).sum())
            for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(way), strict=True)
        )
        assert along == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-5)


def test_a_set_means_the_same_in_any_padding_and_any_precision():
    model = MODELS["pointer"](KEY)
    scores = called(model)
    wider = called(model, np.pad(POINTS, ((0, 0), (0, 2), (0, 0)), constant_values=9.0))
    np.testing.assert_allclose(wider[:, :, :6], scores, rtol=1e-5)
    whole = called(model, 3 * np.ones_like(POINTS)).astype(float)
    counted = model(jnp.full(POINTS.shape, 3), jnp.asarray(COUNTS), jnp.asarray(TARGETS))
    np.testing.assert_allclose(counted, whole)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), model)
    short = half(jnp.asarray(POINTS, jnp.bfloat16), jnp.asarray(COUNTS), jnp.asarray(TARGETS))
    assert short.dtype == jnp.bfloat16
    np.testing.assert_allclose(short[0].astype(float), scores[0], atol=0.02)
    assert np.isfinite(sequence_loss(short, jnp.asarray(TARGETS), jnp.asarray(LENGTHS)))


def test_a_start_is_uniform_and_keeps_precision():
    model = jax.tree.map(lambda a: a.astype(jnp.bfloat16), PointerNetwork(32, key=KEY))
    drawn = jax.tree.leaves(uniform_start(model, KEY))
    values = np.concatenate([np.ravel(a.astype(jnp.float32)) for a in drawn])
    assert all(a.dtype == jnp.bfloat16 for a in drawn)
    assert np.abs(values).max() <= 0.0803 and values.std() == pytest.approx(0.08 / 3**0.5, rel=0.03)


def test_bad_input_is_refused():
    model = MODELS["pointer"](KEY)
    points, counts, targets = jnp.asarray(POINTS), jnp.asarray(COUNTS), jnp.asarray(TARGETS)
    for make, why in (
        (lambda: model(points[0], counts, targets), r"\[batch, n, 2\]"),
        (lambda: model(points[..., :1], counts, targets), r"\[batch, n, 2\]"),
        (lambda: model(points, counts[:1], targets), "one a set, 2"),
        (lambda: Seq2Seq(4, 4, key=KEY)(points, counts, targets), "sets of 5 points go beyond the dictionary"),
        (lambda: PointerNetwork(4, key=KEY, feed="x"), "feed must be"),
        (lambda: sequence_loss(jnp.zeros((1, 1, 2)), targets[:1, :1], counts[:1], per="x"), "per must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            make()
