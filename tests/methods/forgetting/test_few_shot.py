"""Tuning against SGD in NumPy, replay against a list of sets, prototypes and neighbours by hand."""

from collections import deque

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from latebloom.methods.forgetting.episodes import Design, Episode, by_class, draw
from latebloom.methods.forgetting.few_shot import (
    Learner,
    Replay,
    Tuning,
    answers,
    compared,
    correct,
    embedded,
    logistic,
    nearest,
    prototypes,
    shown,
    tuned,
)
from latebloom.methods.forgetting.pretraining import Pretraining, by_prototypes, pretrained
from latebloom.nn import BatchNorm, Linear, StageNet

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 6)).astype(np.float32)
EPISODE = draw(jax.random.key(0), Design(4, 2, 1, queries=2), by_class(np.repeat(np.arange(8), 5)))


def flat(x):
    return x


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_tuning_is_gradient_descent_on_one_set_after_the_other():
    head = Linear(6, 8, key=jax.random.key(1))
    learner = tuned(Learner(flat, head), IMAGES, EPISODE, Tuning(0.3, 3), jax.random.key(2))
    w, b = np.asarray(head.weight, float), np.asarray(head.bias, float)
    for rows, labels in zip(np.asarray(EPISODE.rows), np.asarray(EPISODE.labels), strict=True):
        for _ in range(3):
            x = IMAGES[rows].astype(float)
            error = (softmax(x @ w + b) - np.eye(8)[labels]) / len(rows)
            w, b = w - 0.3 * x.T @ error, b - 0.3 * error.sum(axis=0)
    np.testing.assert_allclose(learner.head.weight, w, atol=1e-5)
    np.testing.assert_allclose(learner.head.bias, b, atol=1e-5)


def test_numbers_may_be_arrays_and_traced():
    learner = Learner(flat, Linear(6, 8, key=jax.random.key(1)))

    @jax.jit
    def run(rate, steps, sets, earlier):
        tuning = Tuning(rate, steps, Replay(2, sets, earlier))
        return tuned(learner, IMAGES, EPISODE, tuning, jax.random.key(2)).head.weight

    traced = run(jnp.float32(0.1), jnp.int32(2), jnp.int32(1), jnp.bool_(True))
    plain = tuned(learner, IMAGES, EPISODE, Tuning(0.1, 2, Replay(2, 1)), jax.random.key(2))
    np.testing.assert_allclose(traced, plain.head.weight, rtol=1e-6)
    assert (run(0.1, 2, 1, False) != traced).any()
    still = run(0.0, 2, 1, True)
    np.testing.assert_array_equal(still, learner.head.weight)


@pytest.mark.parametrize(("images", "kept"), [(1, 1), (3, 1), (3, 2), (5, 3), (11, 4)])
def test_replay_draws_from_the_last_sets_without_replacement(images, kept):
    memory = deque(maxlen=kept)
    draws = jax.jit(jax.vmap(lambda key, s: shown(EPISODE, s, Replay(images, kept), key), (0, None)))  # fmt: skip
    for s in range(4):
        rows, labels = (np.asarray(a) for a in draws(jax.random.split(jax.random.key(s), 300), s))
        own = np.asarray(EPISODE.rows[s])
        assert (rows[:, :2] == own).all() and rows.shape == (300, 2 + images)
        names = dict(zip(np.asarray(EPISODE.rows).ravel().tolist(), np.asarray(EPISODE.labels).ravel().tolist(), strict=True))  # fmt: skip
        assert [names[r] for r in rows.ravel().tolist()] == labels.ravel().tolist()
        pool = {int(r) for group in memory for r in group}
        free = max(0, images - len(pool))
        for drawn in rows[:, 2:]:
            earlier = [r for r in drawn.tolist() if r in pool]
            assert len(set(earlier)) == len(earlier) == images - free
            assert set(drawn.tolist()) - pool <= set(own.tolist())
        if pool and images < len(pool):  # each as likely
            counts = np.array([(rows[:, 2:] == r).sum() for r in pool])
            assert abs(counts / 300 - images / len(pool)).max() < 0.15
        memory.append(own)


def test_the_control_shows_as_many_images_of_the_set_itself():
    rows, _ = shown(EPISODE, jnp.int32(3), Replay(4, 3, earlier=False), jax.random.key(0))
    assert sorted(np.asarray(rows).tolist()) == sorted(np.asarray(EPISODE.rows[3]).tolist() * 3)


def test_prototypes_are_means_over_all_sets_and_products_are_dots():
    labels = np.asarray(EPISODE.labels).ravel() // 2
    features = IMAGES[np.asarray(EPISODE.rows).ravel()]
    centres = np.stack([features[labels == c].mean(axis=0) for c in range(4)])
    found = prototypes(jnp.asarray(features), jnp.asarray(labels), 5)
    np.testing.assert_allclose(found[:4], centres, rtol=1e-6)
    assert (found[4] == 0).all()
    queries = IMAGES[:7]
    np.testing.assert_allclose(compared(queries, found[:4], "dot"), queries @ centres.T, rtol=2e-5, atol=1e-5)  # fmt: skip
    far = ((queries[:, None] - centres) ** 2).sum(axis=-1)
    np.testing.assert_allclose(compared(queries, found[:4], "euclidean"), -far, rtol=1e-4)
    with pytest.raises(ValueError, match="metric must be 'dot' or 'euclidean'"):
        compared(queries, found, "cosine")
    by = nearest(jnp.asarray(queries), jnp.asarray(features), jnp.asarray(labels), 5)
    every = ((queries[:, None] - features) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(by.argmax(axis=1), labels[every.argmin(axis=1)])
    assert np.isneginf(by[:, 4]).all()


def test_bytes_and_half_precision_do_not_overflow():
    known = np.array([[0, 200], [200, 0]], np.uint8)
    asked = np.array([[10, 190], [250, 1]], np.uint8)
    far = ((asked[:, None].astype(float) - known) ** 2).sum(axis=-1)
    np.testing.assert_allclose(compared(asked, known, "euclidean"), -far, rtol=1e-5)
    np.testing.assert_allclose(nearest(asked, known, jnp.arange(2), 2), -far, rtol=1e-5)
    half = (100 * known).astype(np.float16), (100 * asked.astype(int)).astype(np.float16)
    assert np.isfinite(compared(half[1], half[0], "dot")).all()
    assert compared(IMAGES, IMAGES[:2], "dot").dtype == jnp.float32


def test_logistic_regression_is_that_of_scikit_learn():
    y = np.repeat(np.arange(4), 5)
    x = RNG.normal(size=(20, 6)) + 2 * np.eye(4, 6)[y]
    found = logistic(jnp.asarray(IMAGES), jnp.asarray(x, jnp.float32), jnp.asarray(y), 4, steps=3000)  # fmt: skip
    scale = x.std(axis=0)
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit((x - x.mean(axis=0)) / scale, y)  # fmt: skip
    wanted = peer.predict_proba((IMAGES - x.mean(axis=0)) / scale)
    np.testing.assert_allclose(jax.nn.softmax(found), wanted, atol=2e-3)
    short = logistic(jnp.asarray(IMAGES), jnp.asarray(x, jnp.float32), jnp.asarray(y), 4)
    assert (short.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.95
    constant = logistic(jnp.ones((2, 3)), jnp.ones((4, 3)), jnp.arange(4), 4)
    np.testing.assert_allclose(constant, 0, atol=1e-6)


class Normed(eqx.Module):
    norm: BatchNorm

    def __call__(self, x, *, key=None, train=False):
        return self.norm(x, train=train)


def test_batch_statistics_leak_and_running_ones_do_not():
    body = Normed(BatchNorm(6))
    one, other = IMAGES[:5], np.concatenate([IMAGES[:1], IMAGES[20:24] + 3])
    leaking = [answers(body, x)[0] for x in (one, other)]
    assert abs(leaking[0] - leaking[1]).max() > 0.5
    kept = [answers(body, x, "running")[0] for x in (one, other)]
    np.testing.assert_array_equal(*kept)
    # Each support set is a batch of its own.
    found = embedded(body, IMAGES, EPISODE)
    by_hand = [(x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5) for x in IMAGES[np.asarray(EPISODE.rows)]]  # fmt: skip
    np.testing.assert_allclose(found, np.concatenate(by_hand), atol=1e-4)
    after = tuned(Learner(body, Linear(6, 8, key=jax.random.key(0))), IMAGES, EPISODE, Tuning(0.1, 1), jax.random.key(0))  # fmt: skip
    mean = np.zeros(6)
    for x in IMAGES[np.asarray(EPISODE.rows)]:
        mean = 0.9 * mean + 0.1 * x.mean(axis=0)
    np.testing.assert_allclose(after.body.norm.mean, mean, atol=1e-6)
    assert np.isfinite(answers(body, IMAGES[:1])).all()  # a batch of one
    with pytest.raises(ValueError, match="'batch' or 'running'"):
        answers(body, one, "layer")


def test_what_counts_as_correct():
    logits = jnp.array([[1.0, 2, -np.inf], [2.0, 1, 0], [1, 1, 1], [np.nan, 3, 1]])
    assert correct(logits, jnp.array([1, 1, 0, 1])).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Tuning(-0.1), "rate of Tuning must be at least 0"),
        (lambda: Tuning(float("nan")), "rate of Tuning"),
        (lambda: Tuning(0.1, 0), "steps of Tuning must be a whole number from 1"),
        (lambda: Tuning(0.1, 2.5), "steps of Tuning"),
        (lambda: Replay(0), "images of Replay"),
        (lambda: Replay(1, 0), "sets of Replay"),
    ],
)
def test_settings_that_make_no_sense(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.fixture(scope="module")
def faces():
    """40 classes of 8 images each: noisy copies of a pattern."""
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(40), 8)
    x = rng.normal(size=(40, 8, 8))[y] + 0.7 * rng.normal(size=(320, 8, 8))
    return jnp.asarray(x[..., None], jnp.float32), by_class(y)


def small(key):
    return StageNet((8, 8), filters=4, stages=2, key=key)


def test_stages_are_what_they_say():
    net = small(jax.random.key(0))
    assert [c.weight.shape for c in net.convolutions] == [(3, 3, 1, 4), (3, 3, 4, 8)]
    assert net.features == 2 * 2 * 8
    x = jnp.asarray(RNG.normal(size=(3, 8, 8, 1)), jnp.float32)
    h = np.asarray(x)
    for c in net.convolutions:
        padded = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
        size = h.shape[1]
        h = sum(padded[:, i : i + size, j : j + size] @ np.asarray(c.weight[i, j]) for i in range(3) for j in range(3))  # fmt: skip
        h = h + np.asarray(c.bias)
        h = (h - h.mean(axis=(0, 1, 2))) / np.sqrt(h.var(axis=(0, 1, 2)) + 1e-5)
        h = np.where(h > 0, h, 0.01 * h).reshape(3, size // 2, 2, size // 2, 2, -1).max(axis=(2, 4))
    np.testing.assert_allclose(net(x, train=True), h.reshape(3, -1), atol=1e-4)
    with pytest.raises(ValueError, match="too small for 3 stages"):
        StageNet((7, 9), key=jax.random.key(0))
    with pytest.raises(ValueError, match="must be at least 1"):
        StageNet((8, 8), filters=0, key=jax.random.key(0))


def test_pretraining_learns_classes_that_no_episode_has(faces):
    images, shelf = faces
    process = Pretraining(small, images, shelf, steps=60, batch=32, rate=3e-3)
    state = pretrained(process, jax.random.key(0))
    parts = [np.asarray(process.part(state, name).rows) for name in ("train", "validation", "test")]
    assert [len(p) for p in parts] == [30, 5, 5] == list(process.counts())
    assert len(np.unique(np.concatenate(parts))) == 320
    before = process.observe(process.init(jax.random.key(0)))["loss"]
    assert process.observe(state)["loss"] < 0.8 * before
    assert process.learner(state, 7).head.weight.shape == (32, 7)
    episodic = Pretraining(
        small,
        images,
        shelf,
        "prototypes",
        "euclidean",
        Design(1, 10, queries=2),
        steps=60,
        rate=3e-3,
    )
    after = pretrained(episodic, jax.random.key(0))
    assert episodic.observe(after)["loss"] < episodic.observe(episodic.init(jax.random.key(0)))["loss"]  # fmt: skip
    # The loss is that of its prototypes.
    episode = draw(jax.random.key(5), Design(1, 5, queries=2), episodic.part(after, "test"))
    logits = by_prototypes(after.learner.body, images, episode, images[episode.target_rows], 5, "dot")  # fmt: skip
    own = np.asarray(after.learner.body(images[episode.rows[0]], train=True))
    queries = np.asarray(after.learner.body(images[episode.target_rows], train=True))
    np.testing.assert_allclose(logits, queries @ own[np.argsort(episode.labels[0])].T, rtol=1e-3, atol=1e-3)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"steps": 0}, "steps of Pretraining"), ({"rate": 0.0}, "rate of Pretraining must be above 0"), ({"objective": "both"}, "objective of"),
     ({"objective": "prototypes", "design": Design(1, 31)}, "draws 31 classes; 30 are for training"), ({"batch": -1}, "batch of")],
)  # fmt: skip
def test_pretraining_refuses(faces, settings, words):
    with pytest.raises(ValueError, match=words):
        Pretraining(small, *faces, **settings)


def test_too_few_classes_for_three_parts():
    with pytest.raises(ValueError, match="take 5 at least"):
        Pretraining(small, jnp.ones((4, 8, 8, 1)), by_class([0, 0, 1, 1]))
    assert isinstance(EPISODE, Episode)
