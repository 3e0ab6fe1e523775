"""Hidden parts, lost pixels and coloured grounds, counted and by the standard library's colours."""

import colorsys
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from latebloom import data

IMAGES = np.random.default_rng(0).integers(1, 200, (12, 14, 18), np.uint8)
RGB = np.repeat(IMAGES[..., None], 3, axis=-1)
WAYS = {
    "disc": lambda x, p, seed=0: data.occluded(x, p, seed=seed, level=255),
    "square": lambda x, p, seed=0: data.occluded(x, p, seed=seed, shape="square", level=255),
    "salt-and-pepper": lambda x, p, seed=0: data.noisy(x, p, seed=seed),
    "uniform": lambda x, p, seed=0: data.noisy(x, p, seed=seed, kind="uniform"),
}


@pytest.mark.parametrize("way", WAYS)
@given(fraction=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=12)
def test_the_fraction_is_exact_and_the_rest_as_it_was(way, fraction, seed):
    before = IMAGES.copy()
    found = WAYS[way](IMAGES, fraction, seed)
    changed = (found != IMAGES).sum((1, 2))
    count = round(fraction * 14 * 18)
    if way == "uniform":  # may draw the level that was there
        assert (changed <= count).all() and changed.sum() > 0.9 * 12 * count - 12
    else:
        assert (changed == count).all()
    np.testing.assert_array_equal(IMAGES, before)


@pytest.mark.parametrize("way", WAYS)
def test_more_rows_leave_the_first_as_they_are_and_channels_go_together(way):
    found = WAYS[way](IMAGES, 0.4)
    np.testing.assert_array_equal(WAYS[way](IMAGES[:5], 0.4), found[:5])
    assert (WAYS[way](IMAGES, 0.4, 1) != found).any((1, 2)).sum() > 8
    changed = WAYS[way](RGB, 0.4) != RGB
    if way != "uniform":
        np.testing.assert_array_equal(changed, np.repeat(changed[..., :1], 3, axis=-1))
        assert (changed[..., 0].sum((1, 2)) == round(0.4 * 14 * 18)).all()
    one = IMAGES[..., None]
    np.testing.assert_array_equal(WAYS[way](one, 0.4)[..., 0], found)


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_a_disc_is_round_and_a_square_square_and_both_lie_inside(fraction):
    blank = np.zeros((40, 28, 28), np.uint8)
    centres = []
    for shape in ("disc", "square"):
        hidden = data.occluded(blank, fraction, seed=3, shape=shape, level=9) == 9
        for mask in hidden:
            rows, columns = np.nonzero(mask)
            side = math.sqrt(mask.sum())
            reach = side / math.sqrt(math.pi) if shape == "disc" else side / 2
            for at in (rows, columns):
                assert abs(np.ptp(at) + 1 - 2 * reach) <= 2
            if shape == "disc":
                off = np.hypot(rows - rows.mean(), columns - columns.mean())
                assert off.max() < reach + 1
            centres.append((rows.mean(), columns.mean()))
    assert np.std(centres, axis=0).min() > 2  # anywhere, not in the middle


def test_a_disc_that_does_not_fit_leaves_the_corners():
    hidden = data.occluded(np.ones((20, 28, 28), np.uint8), 0.9, seed=0) == 0
    assert (hidden.mean((1, 2)) == round(0.9 * 784) / 784).all()
    assert hidden[:, 8:20, 8:20].all() and not hidden[:, 0, 0].any() and not hidden[:, -1, -1].any()


def test_noise_follows_its_law():
    blank = np.full((30, 28, 28), 100, np.uint8)
    salt = data.noisy(blank, 0.5, seed=0)
    drawn = salt[salt != 100]
    assert set(np.unique(drawn)) == {0, 255}
    assert stats.binomtest(int((drawn == 255).sum()), len(drawn)).pvalue > 0.01
    levels = np.bincount(data.noisy(blank, 1.0, seed=0, kind="uniform").ravel(), minlength=256)
    assert stats.chisquare(levels).pvalue > 0.01
    where = (salt != 100).sum(0)
    assert stats.chisquare(where.ravel()).pvalue > 0.001


def test_a_flat_ground_has_the_colour_of_its_cue():
    images = np.zeros((12, 14, 18), np.uint8)
    images[:, :3] = 255
    cue = np.arange(12) % 7
    found = data.coloured(images, cue, seed=0, texture=0.0, strength=0.6)
    assert found.shape == (12, 14, 18, 3) and (found[:, :3] == 255).all()
    golden = (5**0.5 - 1) / 2
    for k, image in zip(cue, found, strict=True):
        colour = np.array(colorsys.hsv_to_rgb(k * golden % 1, 1, 1))
        expected = 255 * 0.5 * (0.4 + 0.6 * colour)
        assert np.abs(image[3:] - expected).max() < 0.51
    for at in (0, 1):  # another seed, and other images, have the same colour
        np.testing.assert_array_equal(
            data.coloured(images, cue, seed=at, texture=0.0)[:5],
            data.coloured(images[:5], cue[:5], seed=7, texture=0.0),
        )


def test_the_cue_holds_with_its_probability():
    images, cue = np.zeros((2000, 2, 2), np.uint8), np.arange(2000) % 10
    whole = data.coloured(images, cue, seed=0, texture=0.0)
    for probability in (0.0, 0.7):
        some = data.coloured(images, cue, seed=0, texture=0.0, probability=probability)
        kept = int((some == whole).all((1, 2, 3)).sum())
        assert abs(kept / 2000 - probability) < 0.04
    grey = data.coloured(images, cue, seed=0, texture=0.0, strength=0.0)
    assert (grey == 128).all()


def test_a_texture_is_smooth_random_and_of_the_stated_contrast():
    images, cue = np.zeros((60, 28, 28), np.uint8), np.zeros(60, int)
    found = data.coloured(images, cue, seed=0, strength=0.0, texture=0.4) / 255
    assert 0.5 * 0.6 - 0.003 < found.min() < 0.31 and 0.69 < found.max() < 0.5 * 1.4 + 0.003
    assert abs(found.mean() - 0.5) < 0.01
    steps = np.abs(np.diff(found, axis=1))
    assert steps.max() <= 0.4 / (28 / 3) + 0.005  # linear between 4 colours a side
    assert np.corrcoef(found.reshape(60, -1))[0, 1:].max() < 0.9
    more = data.coloured(images[:7], cue[:7], seed=0, strength=0.0, texture=0.4) / 255
    np.testing.assert_array_equal(more, found[:7])


CUE = np.zeros(12, int)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.occluded(IMAGES, 1.1, seed=0), "fraction must be from 0 to 1, not 1.1"),
        (lambda: data.noisy(IMAGES, math.nan, seed=0), "fraction must be from 0 to 1"),
        (lambda: data.occluded(IMAGES, 0.1, seed=-1), "seed takes integers"),
        (lambda: data.occluded(IMAGES, 0.1, seed=0, shape="ring"), "shape must be 'disc' or"),
        (lambda: data.occluded(IMAGES, 0.1, seed=0, level=256), "level must be from 0 to 255"),
        (lambda: data.noisy(IMAGES, 0.1, seed=0, kind="snow"), "kind must be 'salt-and-pepper' or"),
        (lambda: data.noisy(IMAGES / 255, 0.1, seed=0), r"images must be uint8 .* not float64"),
        (lambda: data.noisy(IMAGES[None], 0.1, seed=0), "reshape classes and their drawings"),
        (lambda: data.noisy(IMAGES[0], 0.1, seed=0), r"images must be uint8 \[n, height, width\]"),
        (lambda: data.coloured(RGB, CUE, seed=0), "images must be grey"),
        (lambda: data.coloured(IMAGES, CUE[:3], seed=0), "for each of the 12 images"),
        (lambda: data.coloured(IMAGES, CUE - 1, seed=0), "cue must be a number from 0"),
        (lambda: data.coloured(IMAGES, CUE / 2, seed=0), "cue must be a number from 0"),
        (
            lambda: data.coloured(IMAGES, CUE, seed=0, texture=2),
            "texture must be from 0 to 1, not 2",
        ),
        (lambda: data.coloured(IMAGES, CUE, seed=0, strength=-1), "strength must be from 0 to 1"),
        (lambda: data.coloured(IMAGES, CUE, seed=0, probability=3), "probability must be from 0"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
