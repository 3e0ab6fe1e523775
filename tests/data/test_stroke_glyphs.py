"""Glyphs against the laws they are drawn by, a pen moved by brute force, and themselves drawn otherwise."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from latebloom import data
from latebloom.data import stroke_glyphs as module
from latebloom.data.draws import uniforms
from latebloom.data.stroke_glyphs import (
    Hand,
    _class_draws,
    _drawing_draws,
    _drawn,
    _shapes,
    strokes,
)

RAW = [5958206249878721, 482614551980721, 2521447046259633]
INK = np.array([[14725, 19107], [65805, 66551], [48747, 44320]])


def bezier(points, t):
    """De Casteljau: control points [4, 2] at times [t] -> [t, 2]."""
    points = np.broadcast_to(points[:, None], (4, len(t), 2))
    while len(points) > 1:
        points = (1 - t[:, None]) * points[:-1] + t[:, None] * points[1:]
    return points[0]


def by_brute_force(chains, width, size):
    t = np.linspace(0, 1, 60)
    points = np.concatenate([bezier(segment, t) for chain in chains for segment in chain])
    image = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            d = np.hypot(size * points[:, 0] - column - 0.5, size * points[:, 1] - row - 0.5).min()
            image[row, column] = 255 * min(max(1 - (d - width / 2), 0), 1)
    return image


# ---------------------------------------------------------------------------------- classes
def test_strokes_segments_and_attachments_follow_their_laws():
    n = 4000
    shapes = _shapes(np.stack([_class_draws(3, label) for label in range(n)]))
    there = shapes.exists.any(-1)
    counts = np.bincount(there.sum(1), minlength=5)[1:]
    assert stats.chisquare(counts, n * np.array([0.2, 0.35, 0.3, 0.15])).pvalue > 0.01
    lengths = np.bincount(shapes.exists.sum(-1)[there], minlength=4)[1:]
    assert stats.chisquare(lengths).pvalue > 0.01
    later = there[:, 1:].sum()
    assert stats.binomtest(int((shapes.attached & there).sum()), int(later), 0.6).pvalue > 0.01
    assert not shapes.attached[:, 0].any()
    hosts = np.bincount(shapes.host[there[:, 3], 3])
    assert len(hosts) == 3 and stats.chisquare(hosts).pvalue > 0.01
    assert stats.kstest(shapes.free.ravel(), stats.uniform(0.15, 0.7).cdf).pvalue > 0.01
    # Nothing exists behind what does not.
    assert (np.diff(shapes.exists.astype(int), axis=-1) <= 0).all()
    assert (np.diff(there.astype(int), axis=-1) <= 0).all()


@pytest.mark.parametrize("instance", [None, 4])
def test_a_chain_goes_on_where_and_as_fast_as_its_last_segment_ends(instance):
    joints = 0
    for label in range(60):
        for chain in strokes(label, instance, seed=1):
            for before, after in itertools.pairwise(chain):
                np.testing.assert_allclose(after[0], before[3], atol=1e-12)
                np.testing.assert_allclose(after[1] - after[0], before[3] - before[2], atol=1e-12)
                joints += 1
    assert joints > 60


def test_attached_strokes_start_on_earlier_ones_in_every_drawing():
    shapes = _shapes(np.stack([_class_draws(1, label) for label in range(40)]))
    t = np.linspace(0, 1, 2001)
    checked = 0
    for label in range(40):
        for instance in (None, 0):
            chains = strokes(label, instance, seed=1)
            for s in range(1, len(chains)):
                if not shapes.attached[label, s]:
                    continue
                host = np.concatenate([bezier(c, t) for c in chains[shapes.host[label, s]]])
                assert np.linalg.norm(host - chains[s][0, 0], axis=1).min() < 2e-3
                checked += 1
    assert checked > 40


# ---------------------------------------------------------------------------------- drawings
@pytest.mark.parametrize("size", [28, 32])
def test_a_drawing_is_that_of_a_pen_moved_by_brute_force(size):
    hand = Hand(pen=(1.7, 1.7))
    for label, instance in ((0, 0), (5, 3)):
        found = data.glyphs([label], [instance], seed=2, size=size, hand=hand)[0, 0]
        chains = strokes(label, instance, seed=2, hand=hand)
        expected = by_brute_force(chains, 1.7 * size / 28, size)
        assert found.max() == 255 and np.abs(found - expected).max() < 0.51


def test_rotation_scale_shear_and_shift_follow_their_laws():
    hand, n = Hand(jitter=0), 1500
    plain = np.concatenate(strokes(7, seed=0)).reshape(-1, 2) - 0.5
    design = np.column_stack([plain, np.ones(len(plain))])
    drawn = np.stack([
        np.concatenate(strokes(7, i, seed=0, hand=hand)).reshape(-1, 2) for i in range(n)
    ])  # fmt: skip
    solved = np.linalg.lstsq(design, np.moveaxis(drawn, 0, 1).reshape(len(plain), -1), rcond=None)
    fitted = solved[0].reshape(3, n, 2)
    np.testing.assert_allclose(np.einsum("pk,knd->npd", design, fitted), drawn, atol=1e-9)
    a, shift = (
        np.moveaxis(fitted[:2], 0, 2),
        fitted[2] - 0.5,
    )  # a [n, out, in] = scale R(angle) shear
    angle = np.arctan2(a[:, 1, 0], a[:, 0, 0])
    scale = np.hypot(a[:, 0, 0], a[:, 1, 0])
    shear = (a[:, 0, 1] * np.cos(angle) + a[:, 1, 1] * np.sin(angle)) / scale
    np.testing.assert_allclose(np.linalg.det(a), scale**2, rtol=1e-9)
    laws = [
        (np.degrees(angle), 8),
        (np.log(scale), 0.1),
        (shear, 0.1),
        *((s, 0.03) for s in shift.T),
    ]
    for values, deviation in laws:
        assert stats.kstest(values, stats.norm(0, deviation).cdf).pvalue > 0.01
    between = np.corrcoef(np.stack([values for values, _ in laws]))
    assert np.abs(between - np.eye(5)).max() < 4 / math.sqrt(n)


def test_jitter_and_pen_follow_their_laws():
    n, hand = 1500, Hand(rotation=0, scale=0, shear=0, shift=0, jitter=0.04, pen=(1, 3))
    shapes = _shapes(np.repeat(_class_draws(0, 2)[None], n, axis=0))
    controls, pens = _drawn(shapes, np.stack([_drawing_draws(0, 2, i) for i in range(n)]), hand)
    assert stats.kstest(pens, stats.uniform(1, 2).cdf).pvalue > 0.01
    moved = controls[:, 0, 0] - shapes.free[:, 0, :4]  # the first four points of a stroke are free
    assert stats.kstest(moved.ravel(), stats.norm(0, 0.04).cdf).pvalue > 0.01
    between = np.corrcoef(moved.reshape(n, 8).T)
    assert np.abs(between - np.eye(8)).max() < 4 / math.sqrt(n)


def test_a_wide_pen_covers_what_a_narrow_one_does():
    thin, wide = (
        data.glyphs(6, 2, seed=0, hand=Hand(pen=(width, width))).astype(int) for width in (1.2, 2.4)
    )
    assert (wide >= thin).all() and (wide > thin).any((2, 3)).all()


def test_a_still_hand_draws_the_same_each_time():
    hand = Hand(rotation=0, scale=0, shear=0, shift=0, jitter=0, pen=(2, 2))
    images = data.glyphs(4, 3, seed=0, hand=hand)
    assert (images == images[:, :1]).all()
    assert len(np.unique(images[:, 0].reshape(4, -1), axis=0)) == 4


# ---------------------------------------------------------------------------------- draws
def test_more_classes_and_drawings_leave_the_others_as_they_are(monkeypatch):
    whole = data.glyphs(9, 7, seed=5)
    assert whole.shape == (9, 7, 28, 28) and whole.dtype == np.uint8
    np.testing.assert_array_equal(data.glyphs(4, 2, seed=5), whole[:4, :2])
    np.testing.assert_array_equal(data.glyphs([8, 3], range(4, 7), seed=5), whole[[8, 3], 4:])
    monkeypatch.setattr(module, "CHUNK", 10)
    monkeypatch.setattr(module, "BATCH", 3)
    np.testing.assert_array_equal(data.glyphs(9, 7, seed=5), whole)
    assert len(np.unique(whole.reshape(63, -1), axis=0)) == 63
    assert (data.glyphs(9, 7, seed=6) != whole).any((2, 3)).all()


def test_bits_and_images_are_those_that_they_have_always_been():
    numbers = uniforms(3, seed=1, stream=2, row=3, column=4)
    np.testing.assert_array_equal((numbers * 2**53).astype(int), RAW)
    assert np.abs(data.glyphs(3, 2, seed=0).astype(int).sum((2, 3)) - INK).max() <= 4


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
@settings(max_examples=30)
def test_numbers_lie_strictly_between_zero_and_one_at_every_place(seed, row, column):
    numbers = uniforms(50, seed=seed, stream=1, row=row, column=column)
    assert (numbers > 0).all() and (numbers < 1).all()
    np.testing.assert_array_equal(
        numbers[:20], uniforms(20, seed=seed, stream=1, row=row, column=column)
    )
    assert (numbers != uniforms(50, seed=seed, stream=0, row=row, column=column)).any()


def test_numbers_of_neighbouring_places_are_independent():
    numbers = np.array([
        [uniforms(4, seed=0, stream=1, row=row, column=column) for column in range(40)]
        for row in range(40)
    ])  # fmt: skip
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 0.01
    for axis in (0, 1, 2):
        ends = (
            np.take(numbers, range(a, numbers.shape[axis] + a - 1), axis).ravel() for a in (0, 1)
        )
        assert stats.pearsonr(*ends).pvalue > 0.01


def test_pixels_alone_tell_some_of_twenty_classes():
    x = data.glyphs(200, 2, seed=0).reshape(10, 20, 2, -1) / 255
    known, asked = x[:, :, 0], x[:, :, 1]
    distance = ((asked[:, :, None] - known[:, None]) ** 2).sum(-1)
    assert 0.3 < (distance.argmin(-1) == np.arange(20)).mean() < 0.6


# ---------------------------------------------------------------------------------- parts
@given(st.integers(8, 2000), st.integers(0, 1000))
@settings(max_examples=20)
def test_parts_of_classes_share_none_and_lose_none(classes, seed):
    split = data.class_split(classes, seed=seed)
    assert sorted(np.concatenate(split)) == list(range(classes))
    assert len(split.train) == round(0.74 * classes)
    assert len(split.validation) == round(0.13 * classes)
    assert all((np.diff(part) > 0).all() for part in split)


def test_parts_differ_with_the_seed():
    a, b = (data.class_split(100, seed=seed) for seed in (0, 1))
    assert set(a.test) != set(b.test)
    with pytest.raises(ValueError, match="take more classes"):
        data.class_split(3, seed=0)


def test_images_of_known_classes_hold_other_drawings_for_testing():
    images = data.glyph_images([4, 9], 3, 2, seed=1, size=20)
    drawn = data.glyphs([4, 9], 5, seed=1, size=20)
    assert images.classes == 2 and images.x_train.shape == (6, 20, 20)
    assert images.y_train.tolist() == [0, 1] * 3 and images.y_test.tolist() == [0, 1] * 2
    np.testing.assert_array_equal(images.x_train[images.y_train == 1], drawn[1, :3])
    np.testing.assert_array_equal(images.x_test[images.y_test == 0], drawn[0, 3:])


def test_a_hundred_classes_come_by_name():
    images = data.load("glyphs-100")
    assert images.name == "glyphs-100" and images.x_train.shape == (10_000, 28, 28)
    assert (np.bincount(images.y_test) == 30).all()
    np.testing.assert_array_equal(images.x_test[:3], data.glyphs(3, [100], seed=0)[:, 0])
    assert data.names()["glyphs-100"]["where"] == "installed"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: data.glyphs(0, 1, seed=0),
            "classes is empty: give how many, at least 1, or which",
        ),
        (lambda: data.glyphs(2, [], seed=0), "instances is empty"),
        (lambda: data.glyphs([1, 5, 1], 1, seed=0), "classes has 1 twice"),
        (lambda: data.glyphs([1, -5], 1, seed=0), "classes takes integers from 0 to .* not -5"),
        (lambda: data.glyphs(2, 1.5, seed=0), "instances takes integers .* not 1.5"),
        (lambda: data.glyphs(2, True, seed=0), "instances takes integers .* not True"),
        (lambda: data.glyphs(2, 1, seed=-1), "seed takes integers .* not -1"),
        (lambda: data.glyphs(2, 1, seed=2**63), "seed takes integers"),
        (lambda: data.glyphs(2, 1, seed=0, size=4), "size must be from 8 to 256 pixels, not 4"),
        (lambda: data.glyphs(2, 1, seed=0, size=28.5), "size takes integers .* not 28.5"),
        (lambda: data.glyph_images(2, 0, 1, seed=0), "train must be at least 1 drawing a class"),
        (lambda: data.glyph_images(2, 1, 0.5, seed=0), "test takes integers .* not 0.5"),
        (lambda: data.class_split(50, seed=0, shares=(0.5, 0.5, 0.5)), "that add up to 1"),
        (lambda: data.class_split(0, seed=0), "leave a part without any"),
        (lambda: strokes(-1, seed=0), "label takes integers"),
        (lambda: strokes(1, -1, seed=0), "instance takes integers"),
        (lambda: Hand(jitter=-0.1), "jitter must be a number from 0, not -0.1"),
        (lambda: Hand(scale=math.nan), "scale must be a number from 0"),
        (lambda: Hand(pen=(2, 1)), "pen must be a least and a largest width above 0"),
        (lambda: Hand(pen=(0, 1)), "pen must be"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
