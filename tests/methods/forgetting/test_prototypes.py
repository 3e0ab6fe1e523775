"""Losses and turned copies against numbers of the released code; mixtures and what a step does against NumPy."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import nn, unfold
from latebloom.core.augmentation import Augmented, Views, cropped, greyed, turned_copies
from latebloom.core.calling import call
from latebloom.core.dataset import Dataset
from latebloom.core.memory import Items, Memory
from latebloom.core.stream import class_incremental
from latebloom.methods.forgetting import contrast, mixing
from latebloom.methods.forgetting.continual import Continual, Replay
from latebloom.methods.forgetting.method import Batch, Lesson
from latebloom.methods.forgetting.prototypes import OnPro, TwoViews, as_matrix, begun, ocm
from latebloom.methods.forgetting.refresh import Refresh
from latebloom.methods.forgetting.replay import SCR
from latebloom.methods.forgetting.separation import (
    Separation,
    class_distances,
    confusion,
    probe_accuracy,
)

# What the losses of weilllllls/OnPro and gydpku/OCM gave on fixed inputs (benchmarks/onpro_reference.py).
RELEASED = json.loads((Path(__file__).parent / "onpro_released.json").read_text())


def of(name):
    return jnp.asarray(np.array(RELEASED[name]), jnp.float32)


def test_prototype_contrast_is_that_of_the_released_code():
    z, v, y = of("z"), of("v"), jnp.asarray(RELEASED["y"])
    there = jnp.arange(9) < 7

    def loss(z):
        # Two more that are not there change nothing, whatever they hold.
        z = jnp.concatenate([z, jnp.full((2, 5), jnp.nan)])
        found = contrast.prototypes(
            z, jnp.concatenate([v, v[:2]]), jnp.append(y, jnp.array([2, 0])), there, 6
        )
        return contrast.prototype_contrast(found, 0.5), found

    value, slope = jax.value_and_grad(lambda z: loss(z)[0])(z)
    np.testing.assert_allclose(value, RELEASED["ope"], rtol=1e-5)
    np.testing.assert_allclose(slope, RELEASED["ope_z"], atol=1e-6)
    found = loss(z)[1]
    np.testing.assert_allclose(found.both[:4], RELEASED["prototypes"], atol=1e-6)
    assert found.present.tolist() == [True, True, False, True, False, False]


@pytest.mark.parametrize(("name", "scale"), [("new", 1.0), ("old", 0.5)])
def test_instance_contrast_is_that_of_the_released_code(name, scale):
    labels, there = of("labels"), jnp.ones(6, bool)

    def loss(z, h):
        s = contrast.similarity(z, h, RELEASED["start"], scale)
        return contrast.instance_contrast(s, labels, there, 0.07, pairs=name == "new")

    value, slopes = jax.value_and_grad(loss, (0, 1))(of("zz"), of("h"))
    both = np.tile(RELEASED["labels"], 2)
    same = (both[:, None] == both).sum(axis=1)
    constant = (2 * -np.log(1e-8) / same).mean() if name == "new" else 0
    np.testing.assert_allclose(value + constant, RELEASED[name]["loss"], rtol=1e-4)
    for slope, key in zip(slopes, "zh", strict=True):
        np.testing.assert_allclose(slope, RELEASED[name][key], atol=2e-4)


def test_distillation_is_that_of_the_released_code():
    value, slope = jax.value_and_grad(contrast.anchored_contrast)(
        of("zz")[:6], of("anchors"), of("labels"), jnp.ones(6, bool)
    )
    np.testing.assert_allclose(value, RELEASED["distilled"]["loss"], rtol=1e-4)
    np.testing.assert_allclose(slope, RELEASED["distilled"]["z"], atol=1e-4)


def test_the_sixteen_copies_are_those_of_the_released_code():
    x = jnp.arange(2 * 4 * 4 * 3, dtype=jnp.float32).reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(turned_copies(x, 16)[..., 0].reshape(32, 16), RELEASED["turned"])
    whole = np.array(RELEASED["turned"]).reshape(4, 4, 2, 16)[:, 0].reshape(8, 16)
    np.testing.assert_array_equal(turned_copies(x, 4)[..., 0].reshape(8, 16), whole)


@pytest.mark.parametrize("pairs", [True, False])
def test_contrasts_of_nobody_are_zero_and_have_zero_gradients(pairs):
    nobody, z = jnp.zeros(4, bool), jnp.ones((8, 3))

    def loss(z):
        one = contrast.instance_contrast(
            contrast.similarity(z, z, 0, 1.0), jnp.arange(4.0), nobody, pairs=pairs
        )
        found = contrast.prototypes(z[:4], z[4:], jnp.arange(4), nobody, 5)
        return (
            one
            + contrast.prototype_contrast(found)
            + contrast.anchored_contrast(z[:4], z[4:], jnp.arange(4.0), nobody)
        )

    value, slope = jax.value_and_grad(loss)(z)
    assert value == 0 and not np.any(slope) and np.isfinite(slope).all()


def test_one_class_alone_has_nothing_to_be_told_from():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    labels, there = jnp.zeros(3, int), jnp.ones(3, bool)

    def loss(z):
        return contrast.prototype_contrast(contrast.prototypes(z, 2 * z + 1, labels, there, 4))

    value, slope = jax.value_and_grad(loss)(z)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


# Mixtures


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 20))
def test_counts_of_pairs_sum_to_what_is_to_be_drawn(seed, n):
    rng = np.random.default_rng(seed)
    apart = np.where(rng.random(10) < 0.3, np.inf, rng.uniform(0, 2, 10)).astype(np.float32)
    apart[rng.integers(10)] = 0.0  # prototypes that coincide
    chances = PAIRS(jnp.asarray(apart))
    counts = COUNTS(chances, jnp.int32(n), jax.random.key(seed))
    assert counts.sum() == n and (counts >= 0).all()
    assert (np.asarray(counts)[np.isinf(apart)] == 0).all()
    assert np.abs(np.asarray(counts) - n * np.asarray(chances)).max() <= 1.5
    here = np.isfinite(apart)
    inverse = 1 / np.maximum(apart[here].astype(float), 1e-6)
    weight = np.exp(inverse - inverse.max())
    np.testing.assert_allclose(np.asarray(chances)[here], weight / weight.sum(), atol=1e-5)


PAIRS, COUNTS = jax.jit(mixing.pair_chances), jax.jit(mixing.pair_counts)


def test_no_pair_has_a_chance_where_none_is_known():
    assert not PAIRS(jnp.full(6, jnp.inf)).any()
    assert np.isnan(mixing.evenness(jnp.zeros(3), jnp.arange(3) < 1))
    np.testing.assert_allclose(mixing.evenness(jnp.array([0.5, 0.5, 0.0]), jnp.arange(3) < 2), 1.0)
    coincide = jnp.array([0.0, 1.0, 1.0, jnp.inf])
    assert mixing.evenness(PAIRS(coincide), jnp.isfinite(coincide)) == 0


def test_pairs_are_drawn_from_the_memory_by_their_counts():
    labels = jnp.array([0, 1, 1, 3, 3, 0, 2, 2])
    filled = jnp.arange(8) < 6  # so nothing is left of class 2
    present = jnp.array([True, True, True, True])
    counts = jnp.array([3, 2, 0, 0, 0, 1])  # 0-1, 0-2, 0-3, 1-2, 1-3, 2-3

    @jax.jit
    def draw(key):
        return mixing.drawn_pairs(
            counts, labels, filled, present, 9, chance=0.5, alpha=0.4, key=key
        )

    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(0), 400))
    one, other = (np.asarray(labels)[np.asarray(part)[:, :6]] for part in drawn[:2])
    assert (np.asarray(drawn.one)[:, :6] < 6).all() and (np.asarray(drawn.other)[:, :6] < 6).all()
    assert (one[:, :5] == 0).all() and (other[:, :3] == 1).all() and (other[:, 5] == 3).all()
    # Class 2 is replaced by any other one.
    assert set(other[:, 3]) == set(one[:, 5]) == {0, 1, 3}
    amount = np.asarray(drawn.amount)
    pure = amount[:, :6] == 0
    assert (pure[:, 0] == pure[:, 1]).all()  # a coin a pair
    assert abs(pure[:, 0].mean() - 0.5) < 0.1 and abs(pure[:, 5].mean() - 0.5) < 0.1
    some = amount[:, :6][~pure]
    np.testing.assert_allclose([some.mean(), some.var()], [0.5, 0.25 / 1.8], atol=0.03)
    assert len(np.unique(np.asarray(drawn.one)[:, 0])) == 2


def test_mixtures_among_themselves_are_a_permutation_with_two_coins():
    draw = jax.jit(jax.vmap(lambda key: mixing.mixed_up(6, jnp.int32(4), 0.5, 0.6, key)))
    drawn = draw(jax.random.split(jax.random.key(1), 600))
    other, amount = np.asarray(drawn.other), np.asarray(drawn.amount)
    assert (np.sort(other, axis=1) == np.arange(6)).all() and (other[:, 4:] == [4, 5]).all()
    assert not amount[:, 4:].any() and 0.55 < amount.max() <= 0.6
    assert abs((amount[:, 0] > 0).mean() - 0.25) < 0.06
    assert abs((amount[:, :4] > 0).any(axis=1).mean() - 0.5 * (1 - 0.5**4)) < 0.06
    x = jnp.array([[1.0, 2.0], [jnp.inf, 0.0]])
    np.testing.assert_array_equal(mixing.mixed(x, x[::-1], jnp.array([0.0, 0.0])), x)


def test_distances_of_prototypes_by_hand():
    p = jnp.array([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
    apart = mixing.pair_distances(p, jnp.array([True, True, False]))
    assert apart.tolist() == [5, np.inf, np.inf]
    np.testing.assert_array_equal(as_matrix(apart, 3)[0], [np.inf, 5, np.inf])


# Views


def test_views_keep_what_they_are_told_to_keep():
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 6, 8, 3)), jnp.float32)
    key = jax.random.key(0)
    np.testing.assert_allclose(Views(0, 0, (1, 1), 1)(x, key), x, atol=1e-6)
    mirrored = Views(1, 0, (1, 1), 1)(x, key)
    np.testing.assert_allclose(mirrored, x[:, :, ::-1], atol=1e-6)
    grey = Views(0, 1, (1, 1), 1)(x, key)
    np.testing.assert_allclose(grey, greyed(x), atol=1e-6)
    assert np.ptp(np.asarray(grey), axis=-1).max() < 1e-6
    one = x[..., :1]
    np.testing.assert_allclose(Views(0, 1, (1, 1), 1)(one, key), one, atol=1e-6)
    some = np.asarray(Views(0.5, 0.25, (0.3, 1))(x, key))
    assert some.shape == x.shape and some.min() >= 0 and some.max() <= 1 and not (some == x).all()
    assert Views()(x.astype(jnp.bfloat16), key).dtype == jnp.bfloat16


def test_crops_are_bilinear():
    ramp = np.arange(8.0) * np.ones((1, 8, 1))
    x = jnp.asarray(ramp[..., None], jnp.float32)
    half = jnp.array([0.5])
    out = np.asarray(cropped(x, half, half, half, half))[0, :, :, 0]
    at = (0.5 + (np.arange(8) + 0.5) / 8 * 0.5) * 8 - 0.5
    np.testing.assert_allclose(out, np.tile(np.minimum(at, 7), (8, 1)), atol=1e-5)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Views(1.5), "mirrored must be from 0 to 1"), (lambda: Views(grey=-1), "grey must be"),
    (lambda: Views(crop=(0, 1)), "crop must be a least"), (lambda: Views(aspect=0.5), "aspect must be"),
    (lambda: Views(mirrored=float("nan")), "mirrored must be"),
    (lambda: turned_copies(jnp.ones((1, 4, 4, 1)), 3), "copies must be 1, 4 or 16"),
    (lambda: turned_copies(jnp.ones((1, 4, 6, 1)), 4), "must be square"),
    (lambda: turned_copies(jnp.ones((1, 5, 5, 1)), 16), "even width"),
    (lambda: turned_copies(jnp.ones((5, 5)), 4), r"\[batch, height, width, channels\]"),
    (lambda: OnPro(temperature=0.0), "temperature of OnPro must be at least above 0|above 0"),
    (lambda: OnPro(instance_temperature=jnp.array(np.nan)), "instance_temperature of OnPro"),
    (lambda: OnPro(chance=1.5), "chance of OnPro must be from 0 to 1"), (lambda: OnPro(new=-1), "new of OnPro"),
    (lambda: OnPro(sharpness=-1.0), "sharpness of OnPro"), (lambda: OnPro(copies=2), "copies of OnPro"),
    (lambda: OnPro(alpha=0), "alpha of OnPro"), (lambda: OnPro(per_class=0), "per_class"),
    (lambda: contrast.similarity(jnp.ones((2, 3)), jnp.ones((2, 2)), 0, 1.0), "window of them must be as wide"),
])  # fmt: skip
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Steps

RNG = np.random.default_rng(0)
LABELS = np.arange(60, dtype=np.int32) % 6
IMAGES = RNG.uniform(size=(60, 4, 4, 1)).astype(np.float32)
IMAGES[np.arange(60), LABELS // 4, LABELS % 4] += 2
DATA = Dataset(jnp.asarray(IMAGES), jnp.asarray(LABELS), jnp.asarray(IMAGES), jnp.asarray(LABELS))


class Pixels(eqx.Module):
    first: eqx.nn.Linear

    def __init__(self, key):
        self.first = eqx.nn.Linear(16, 8, key=key)

    def __call__(self, x):
        return jax.nn.relu(self.first(x.ravel()))


def network(key):
    one, two = jax.random.split(key)
    return nn.Projected.around(Pixels(one), DATA.x_train[:2], 6, 4, key=two)


def stream(key):
    return class_incremental(
        LABELS, LABELS, key=key, tasks=3, steps=4, batch_size=5, exam_size=10, order=range(6)
    )


def process(method, **more):
    return Continual(
        model=network, data=DATA, stream=stream, method=method, replay=Replay(12, 8), optimiser=optax.sgd,
        hyper={"learning_rate": 0.05}, **more,
    )  # fmt: skip


QUIET = Views(0, 0, (1, 1), 1)


def jitted(p):
    return eqx.filter_jit(lambda state: p.step(state))


def test_before_anything_is_remembered_a_step_is_that_of_the_formulas():
    """The first step, written out in NumPy: cross-entropy, the contrast of copies and that of prototypes."""
    p = process(OnPro(QUIET, copies=4, instance=0.5, new=2.0), tell=True)
    state = p.init(jax.random.key(3))
    told = jitted(p)(state).info
    rows = np.asarray(state.stream.rows[0])
    x, y = IMAGES[rows], LABELS[rows]
    m = jax.tree.map(np.asarray, eqx.filter(state.model, eqx.is_array))

    def features(x):
        return np.maximum(x.reshape(len(x), -1) @ m.encoder.first.weight.T + m.encoder.first.bias, 0)  # fmt: skip

    logits = features(x) @ m.readout.weight + m.readout.bias
    entropy = -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(5), y].mean()
    copies = np.concatenate([np.rot90(x, k, (1, 2)) for k in (0, 2, 1, 3)])
    h = features(np.concatenate([copies, copies]))
    z = h @ m.projection.weight + m.projection.bias
    h, z = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (h, z))
    labels = np.tile(np.concatenate([y + 6 * j for j in range(4)]), 2)

    def instance(start):
        e = np.exp((z @ h[:, start : start + 4].T + z @ z.T) / 0.07) * ~np.eye(40, dtype=bool)
        surprise = -np.log(e / e.sum(1, keepdims=True))
        same = labels[:, None] == labels
        of = 2 * np.where(same & ~np.eye(40, dtype=bool), surprise, 0).sum(1) / same.sum(1)
        return (of + surprise[np.arange(40), (np.arange(40) + 20) % 40]).mean()

    means = np.stack([z[:5][y == c].mean(0) for c in (0, 1)])
    proto = means / np.linalg.norm(means, axis=1, keepdims=True)
    both = np.concatenate([proto, proto]) @ np.concatenate([proto, proto]).T / 0.5
    e = np.exp(both) * ~np.eye(4, dtype=bool)
    prototypes = (np.log(e.sum(1)) - both[np.arange(4), [2, 3, 0, 1]]).mean()
    expected = [entropy + 0.5 * instance(start) + 2 * prototypes for start in range(4)]
    assert np.abs(np.array(expected) - float(told["new_loss"])).min() < 2e-3
    assert told["old_loss"] == 0 and np.isnan(told["closest"])


def unit(v):
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def instance_by_hand(z, h, scale, labels, pairs):
    """Two views one after the other, a window from the first feature on; image by image."""
    z, labels, total, n = unit(z), np.tile(labels, 2), 0.0, len(z)
    near = scale * (z @ unit(h)[:, : z.shape[1]].T + z @ z.T) / 0.07
    for i in range(n):
        others = [j for j in range(n) if not (pairs and j == i)]
        surprise = np.log(np.exp(near[i, others] - near[i, i]).sum()) - near[i] + near[i, i]
        same = np.flatnonzero(labels == labels[i])
        alike = sum(surprise[j] for j in same if j in others) / len(same)
        total += 2 * alike + surprise[(i + n // 2) % n] if pairs else alike
    return total / n


def prototypes_by_hand(z, v, y):
    both = [np.stack([unit(part)[y == c].mean(0) for c in np.unique(y)]) for part in (z, v)]
    p, n = unit(np.concatenate(both)), len(both[0])
    near = p @ p.T / 0.5
    of = [np.log(np.exp(np.delete(near[i], i)).sum()) - near[i, (i + n) % (2 * n)] for i in range(2 * n)]  # fmt: skip
    return np.mean(of), (both[0] + both[1]) / 2


def test_a_later_step_is_that_of_the_formulas():
    """All losses of a step that feeds back, its draws taken as they are: what is mixed, told apart, and kept."""
    rng = np.random.default_rng(4)
    model = nn.Projected.around(Pixels(jax.random.key(8)), DATA.x_train[:2], 6, 7, key=jax.random.key(9))  # fmt: skip
    rows = np.array(
        [0, 1, 4, 6, 7, 10, 12, 3, 13, 16, 18, 2]
    )  # classes 0, 1, 4, 0, 1, 4, 0, 3, 1, 4, 0, 2
    items = Items(*(jnp.asarray(v, jnp.int32) for v in (rows, LABELS[rows], np.zeros(12))))
    memory = Memory(items, jnp.zeros(12), jnp.arange(12), jnp.arange(12) < 11)

    def batch_of(items, there):
        return Batch(DATA.x_train[items.rows], items.labels, items.task, jnp.ones((len(there), 6), bool), there)  # fmt: skip

    def batch(rows, there):
        return batch_of(Items(*(jnp.asarray(v, jnp.int32) for v in (rows, LABELS[rows], 0 * rows))), there)  # fmt: skip

    fresh, old = rng.permutation(60)[:5], rows[:8]
    known = np.full((6, 6), np.inf)
    known[[0, 1, 0, 4, 1, 4], [1, 0, 4, 0, 4, 1]] = [0.3, 0.3, 0.9, 0.9, 1.2, 1.2]
    method = OnPro(
        QUIET, new=2.0, seen=3.0, instance=0.5, copies=4, base=0.5, chance=1.0, scale=0.8
    )
    lesson = Lesson(
        call, call, batch(fresh, jnp.ones(5, bool)), batch(old, jnp.ones(8, bool)), None, jnp.int32(1), jnp.array(False),
        jnp.ones(6, bool), memory, batch_of, lambda: jax.random.key(5),
    )  # fmt: skip
    own = begun(6)._replace(distances=jnp.asarray(known))
    found = eqx.filter_jit(lambda model: method.losses(model, own, lesson))(model)
    key = jax.random.split(jax.random.key(5), 6)[0]
    shown = jax.tree.map(np.asarray, eqx.filter_jit(method._fed_back)(own, lesson, lesson.old, key)[0])  # fmt: skip
    x, y = IMAGES, LABELS

    # Four among themselves, four of pairs that are known: the closest is due 3.4, by exp(1 / d), and one goes to any.
    assert shown.y[:4].tolist() == y[old[:4]].tolist() and sorted(shown.other[:4]) == sorted(y[old[:4]])  # fmt: skip
    pairs = list(zip(shown.y[4:], shown.other[4:], strict=True))
    assert pairs[:3] == [(0, 1)] * 3 and pairs[3] in {(0, 1), (0, 4), (1, 4)}
    assert (shown.amount > 0).all() and (shown.amount[:4] <= 0.6).all()
    filled = rows[:11]
    for i in range(8):
        part = shown.amount[i]
        sources = [[r for r in (old[:4] if i < 4 else filled) if y[r] == c] for c in (shown.y[i], shown.other[i])]  # fmt: skip
        mixtures = [(1 - part) * x[a] + part * x[b] for a in sources[0] for b in sources[1]]
        assert min(np.abs(shown.x[i] - m).max() for m in mixtures) < 1e-5

    m = jax.tree.map(lambda v: np.asarray(v, float), eqx.filter(model, eqx.is_array))

    def features(x):
        return np.maximum(x.reshape(len(x), -1) @ m.encoder.first.weight.T + m.encoder.first.bias, 0)  # fmt: skip

    def contrasted(x, labels, pairs):
        turned = np.concatenate([np.rot90(x, k, (1, 2)) for k in (0, 2, 1, 3)])
        h = np.tile(features(turned), (2, 1))
        labels = np.concatenate([labels + 6 * j for j in range(4)])
        z = h @ m.projection.weight + m.projection.bias
        return instance_by_hand(z, h, 0.8, labels, pairs)

    def projected(rows):
        return features(x[rows]) @ m.projection.weight + m.projection.bias

    one, other, part = shown.y, shown.other, shown.amount
    logits = features(shown.x) @ m.readout.weight + m.readout.bias
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    told = -((1 - part) * log_p[range(8), one] + part * log_p[range(8), other]).mean()
    labels = np.where(one == other, one, (1 - part) * one + part * other)
    seen, kept = prototypes_by_hand(projected(old), projected(old), y[old])
    new = prototypes_by_hand(projected(fresh), projected(fresh), y[fresh])[0]
    plastic = 0.5 * contrasted(x[fresh], y[fresh], True) + 2 * new
    stable = 0.5 * contrasted(shown.x, labels, False) + 3 * seen + told
    np.testing.assert_allclose([found.plasticity, found.stability], [plastic, stable], rtol=1e-4)
    classes = np.unique(y[old])
    apart = np.linalg.norm(kept[:, None] - kept[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(found.own.distances[np.ix_(classes, classes)], apart, rtol=1e-4)
    absent = np.setdiff1d(range(6), classes)
    assert len(absent) and not np.isfinite(found.own.distances[absent]).any()


def test_after_the_first_task_new_images_enter_no_cross_entropy():
    """With nothing but cross-entropy, other new images of the same classes leave the update as it is."""
    only = OnPro(QUIET, copies=1, instance=0.0, new=0.0, seen=0.0, feedback=False)
    p = process(only)
    step = jitted(p)
    state = p.init(jax.random.key(0))
    for _ in range(5):
        state = step(state)
    other = state._replace(stream=eqx.tree_at(lambda s: s.rows, state.stream, state.stream.rows[::-1]))  # fmt: skip
    one, two = step(state), step(other)
    np.testing.assert_array_equal(one.model.readout.weight, two.model.readout.weight)
    early = p.init(jax.random.key(0))
    other = early._replace(stream=eqx.tree_at(lambda s: s.rows, early.stream, early.stream.rows[::-1]))  # fmt: skip
    assert np.any(step(early).model.readout.weight != step(other).model.readout.weight)


@pytest.mark.parametrize("method", [
    OnPro(QUIET, copies=4), OnPro(QUIET, jnp.array(1.0), jnp.array(1.0), jnp.array(1.0), copies=4, base=jnp.array(0.5)),
    OnPro(QUIET, copies=4, sharpness=0.0), ocm(QUIET, copies=4), Refresh(OnPro(QUIET, copies=1), 1e-3, fisher="none"),
    TwoViews(SCR(lambda m, x: m.projection(jax.vmap(m.encoder)(x))), Views()),
], ids=["floats", "arrays", "uniform", "ocm", "around", "scr"])  # fmt: skip
def test_runs_learn_and_tell(method):
    trace = unfold(process(method, tell=True), seeds=2, steps=12, every=4, progress=False)
    assert (trace.diverged_at == -1).all()
    if isinstance(method, OnPro) and method.feedback:
        told = trace.evenness.values[:, 2:]
        assert ((told > 0) & (told <= 1 + 1e-6)).all()
        assert (trace.closest.values[:, 1:] < 2).all()
        if method.sharpness == 0:
            np.testing.assert_allclose(told, 1, rtol=1e-5)


def test_feedback_waits_for_the_second_step_of_the_second_task():
    loud = process(OnPro(QUIET, copies=1, chance=1.0, most=1.0))
    quiet = process(OnPro(QUIET, copies=1, chance=0.0, base=1.0))
    one, two = (p.init(jax.random.key(1)) for p in (loud, quiet))
    steps = [jitted(p) for p in (loud, quiet)]
    for step in range(6):
        same = np.array_equal(one.model.readout.weight, two.model.readout.weight)
        assert same == (step <= 5), step
        one, two = steps[0](one), steps[1](two)
    assert np.any(one.model.readout.weight != two.model.readout.weight)
    # One pair at least was known, of the classes of the first task.
    assert np.isfinite(one.own.distances).any()


def test_the_buffer_is_filled_after_the_update_and_a_network_without_heads_is_refused():
    p = process(OnPro(QUIET, copies=1))
    state = jitted(p)(p.init(jax.random.key(0)))
    assert int(state.memory.count) == 5 and not np.isfinite(state.own.distances).any()
    with pytest.raises(ValueError, match="an encoder, a readout and a projection"):
        Continual(
            model=lambda key: nn.MLP(16, (8,), 6, key=key), data=DATA, stream=stream, method=OnPro(),
            replay=Replay(12, 8), optimiser=optax.sgd, hyper={"learning_rate": 0.1},
            apply=lambda m, x, key, train: m(x.reshape(len(x), -1)),
        )  # fmt: skip


@pytest.mark.parametrize("view", [lambda x, key: x[:, :2], lambda x, key: x[:1]])
def test_a_view_of_another_shape_is_refused(view):
    p = process(OnPro(view, copies=1))
    with pytest.raises(ValueError, match="the view must be .* as its examples"):
        eqx.filter_eval_shape(p.step, eqx.filter_eval_shape(p.init, jax.random.key(0)))


def test_a_view_keeps_the_precision_of_its_examples():
    x = jnp.ones((2, 3), jnp.bfloat16)
    noisy = OnPro(lambda x, key: x + jax.random.normal(key, x.shape), copies=1)
    assert noisy.viewed(x, jax.random.key(0)).dtype == jnp.bfloat16


def test_whole_numbers_cannot_be_mixed():
    data = Dataset(DATA.x_train.astype(int), DATA.y_train, DATA.x_test.astype(int), DATA.y_test)
    p = process(OnPro(lambda x, key: x, copies=1))
    p = eqx.tree_at(lambda p: p.data, p, data)
    with pytest.raises(ValueError, match="cannot be mixed: make them floating-point"):
        eqx.filter_eval_shape(p.step, eqx.filter_eval_shape(p.init, jax.random.key(0)))


def test_augmented_calls_see_views_in_training_alone():
    x, key = DATA.x_train[:5], jax.random.key(0)
    model = network(key)
    seen = Augmented(Views(1, 0, (1, 1), 1))
    np.testing.assert_array_equal(seen(model, x, None, False), model(x))
    np.testing.assert_allclose(seen(model, x, key, True), model(x[:, :, ::-1]), atol=1e-6)


# What is watched


def test_distances_of_online_prototypes_are_watched_as_they_are():
    p = Separation(
        model=network, data=DATA, stream=stream, method=OnPro(QUIET, copies=1), replay=Replay(12, 8),
        optimiser=optax.sgd, hyper={"learning_rate": 0.05}, encode=lambda m, x: jax.vmap(m.encoder)(x),
    )  # fmt: skip
    state = p.init(jax.random.key(0))
    apart = as_matrix(jnp.arange(15.0).at[3].set(jnp.inf), 6)
    seen = eqx.filter_jit(p.observe)(state._replace(own=state.own._replace(distances=apart)))
    expected = np.where(np.isfinite(apart), apart, np.nan)
    np.testing.assert_array_equal(seen["online"], expected)
    assert np.isnan(seen["online"][0, 4]) and p.quantities()["online"].dims == ("class", "other")


def test_confusion_distances_and_the_probe_by_hand():
    scores = jnp.eye(3)[jnp.array([0, 1, 1, 2])]
    labels, seen = jnp.array([0, 0, 1, 2]), jnp.array([True, True, False])
    np.testing.assert_allclose(
        confusion(scores, labels, seen), [[0.5, 0.5, 0], [0, 1, 0], [np.nan] * 3]
    )
    z = jnp.array([[1.0, 0], [1, 0], [0, 1], [0, -1]])
    apart = class_distances(z, labels, jnp.array([True, True, True]))
    np.testing.assert_allclose(apart[0], [0, np.sqrt(2), np.sqrt(2)], atol=1e-6)
    assert np.isnan(class_distances(z, labels, seen)[0, 2])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = rng.integers(0, 4, 40)
    among = np.array([True, False, True, True])
    inside = among[y]
    fitted = np.where(inside)[0]
    a = np.concatenate([x[fitted] - x[fitted].mean(0), np.ones((len(fitted), 1))], axis=1)
    w = np.linalg.solve(a.T @ a + 0.1 * np.diag([1, 1, 1, 0]), a.T @ np.eye(4)[y[fitted]])
    b = np.concatenate([x - x[fitted].mean(0), np.ones((40, 1))], axis=1)
    told = np.where(among, b @ w, -np.inf).argmax(axis=1)
    found = probe_accuracy(*(jnp.asarray(v) for v in (x, y, x, y)), jnp.asarray(among))
    np.testing.assert_allclose(found, (told == y)[inside].mean(), atol=1e-6)
    alone = jnp.array([True, False, False, False])
    assert np.isnan(probe_accuracy(*(jnp.asarray(v) for v in (x, y, x, y)), alone))
