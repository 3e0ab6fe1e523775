"""Episodes against their definition, counted image by image; corruptions against counts and geometry."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.data import occluded
from latebloom.methods.forgetting.corrupted import KINDS, NOISES, corrupted
from latebloom.methods.forgetting.episodes import (
    Design,
    Shelf,
    arrangements,
    by_class,
    draw,
    draw_many,
    reordered,
)

LABELS = np.repeat(np.arange(30), 12)
SHELF = by_class(LABELS)
designs = st.builds(
    lambda blocks, way, shots, every, overwrite, queries: Design(blocks * every, way, shots, every, overwrite, queries),
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 2), st.integers(1, 3), st.booleans(), st.integers(1, 3),
)  # fmt: skip


@given(design=designs, seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_an_episode_is_what_its_design_says(design, seed):
    episode = draw(jax.random.key(seed), design, SHELF)
    rows, labels, targets, wanted, at = (np.asarray(a) for a in episode)
    assert rows.shape == labels.shape == (design.sets, design.way * design.shots)
    assert targets.shape == (design.targets,)
    used = np.concatenate([rows.ravel(), targets])
    assert len(set(used.tolist())) == len(used)  # no image twice, no target shown
    classes = LABELS[rows]
    for s in range(design.sets):
        block = s // design.change_every
        assert set(Counter(classes[s].tolist()).values()) == {design.shots}
        # the same classes throughout a block, none of them in another
        first = block * design.change_every
        assert set(classes[s]) == set(classes[first])
        others = np.delete(np.arange(design.sets) // design.change_every, s) != block
        assert not set(classes[s]) & set(np.delete(classes, s, axis=0)[others].ravel().tolist())
        offset = 0 if design.overwrite else block * design.way
        assert sorted(set(labels[s].tolist())) == list(range(offset, offset + design.way))
    names = dict(zip(classes.ravel().tolist(), labels.ravel().tolist(), strict=True))
    assert [names[c] for c in LABELS[targets].tolist()] == wanted.tolist()
    assert set(Counter(LABELS[targets].tolist()).values()) == {design.queries}
    for row, last in zip(targets, at, strict=True):
        assert last == np.flatnonzero((classes == LABELS[row]).any(axis=1)).max()
    assert design.outputs == len(set(labels.ravel().tolist()))


def test_an_instance_test_asks_for_the_images_that_were_shown():
    design = Design.instances(5, 2)
    many = draw_many(jax.random.key(0), design, SHELF, 40)
    assert many.rows.shape == (40, 5, 2)
    np.testing.assert_array_equal(many.rows.reshape(40, 10), many.target_rows)
    assert (many.labels.reshape(40, 10) == np.arange(10)).all()
    assert (many.target_set[0] == np.repeat(np.arange(5), 2)).all()
    classes = LABELS[np.asarray(many.rows)].reshape(40, -1)
    assert (classes == classes[:, :1]).all() and len(set(classes[:, 0].tolist())) > 10
    assert all(len(set(row.tolist())) == 10 for row in np.asarray(many.target_rows))


def test_arrangements_show_the_same_images_and_share_a_class_order():
    key = jax.random.key(3)
    found = [draw(key, Design(sets, each), SHELF) for sets, each in arrangements(20)]
    assert [e.rows.shape for e in found] == [(1, 20), (2, 10), (4, 5), (5, 4), (10, 2), (20, 1)]
    for episode in found[1:]:
        np.testing.assert_array_equal(episode.rows.ravel(), found[0].rows.ravel())
        np.testing.assert_array_equal(episode.target_rows, found[0].target_rows)


def test_drawing_is_uniform():
    many = draw_many(jax.random.key(1), Design(1, 1, 1, queries=1), SHELF, 6000)
    counts = np.bincount(LABELS[np.asarray(many.rows).ravel()], minlength=30)
    assert abs(counts - 200).max() < 5 * np.sqrt(200)
    places = np.bincount(np.asarray(many.rows).ravel() % 12, minlength=12)
    assert abs(places - 500).max() < 5 * np.sqrt(500)


def test_sets_in_another_order():
    episode = draw(jax.random.key(0), Design(4, 2, 1, 2), SHELF)
    order = np.array([2, 0, 3, 1])
    other = reordered(episode, order)
    np.testing.assert_array_equal(other.rows, np.asarray(episode.rows)[order])
    np.testing.assert_array_equal(other.target_rows, episode.target_rows)
    for label, last in zip(other.target_labels, other.target_set, strict=True):
        assert last == np.flatnonzero((np.asarray(other.labels) == label).any(axis=1)).max()


def test_classes_of_different_sizes():
    labels = ["a"] * 3 + ["b"] * 6 + ["c"] * 6 + ["d"] * 2
    shelf = by_class(labels)
    assert (np.asarray(shelf.rows) >= 0).sum(axis=1).tolist() == [3, 6, 6, 2]
    design = Design(1, 2, 2, queries=3)
    fit = shelf.fits(design)
    many = draw_many(jax.random.key(0), design, fit, 200)
    rows = np.concatenate([np.asarray(many.rows).ravel(), np.asarray(many.target_rows).ravel()])
    assert set(rows.tolist()) == set(range(3, 15))
    with pytest.raises(ValueError, match="draws 3 classes with 5 images each, and 2 of 4"):
        shelf.fits(Design(1, 3, 2, queries=3))
    with pytest.raises(ValueError, match="the shelf has 2 classes of at most 6"):
        draw(jax.random.key(0), Design(1, 3), fit)
    with pytest.raises(ValueError, match="at least one"):
        by_class([])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sets": 0}, "sets must be a whole number from 1"),
        ({"sets": 2, "way": 1.5}, "way must be"),
        ({"sets": True}, "sets must be"),
        ({"sets": 3, "change_every": 2}, "multiple of change_every"),
        ({"sets": 2, "test": "both"}, "'classes' or 'instances'"),
        ({"sets": 2, "way": 2, "test": "instances"}, "one class all along"),
        ({"sets": 1, "overwrite": True, "test": "instances"}, "not used again"),
    ],
)
def test_designs_that_make_no_sense(settings, words):
    with pytest.raises(ValueError, match=words):
        Design(**settings)


@given(
    fraction=st.floats(0, 1), kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31),
    size=st.sampled_from([(7, 7), (6, 9)]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_as_many_pixels_are_lost_as_asked(fraction, kind, seed, size):
    images = jnp.full((3, *size, 2), 0.4)
    found = np.asarray(corrupted(images, fraction, kind=kind, key=jax.random.key(seed), low=-1.0, high=2.0))  # fmt: skip
    changed = (found != np.float32(0.4)).any(axis=-1)
    pixels = size[0] * size[1]
    wanted = np.round(np.float32(fraction) * pixels)
    if abs(fraction * pixels % 1 - 0.5) > 1e-3:
        assert (changed.sum(axis=(1, 2)) == wanted).all()
    lost = found[changed]
    if kind == "uniform":
        assert ((lost >= -1) & (lost <= 2)).all()
    else:
        assert np.isin(lost, [-1.0] if kind not in NOISES else [-1.0, 2.0]).all()
        assert (lost[:, 0] == lost[:, 1]).all()


@pytest.mark.parametrize("shape", ["disc", "square"])
def test_what_is_hidden_lies_together_as_in_the_bytes(shape):
    """Second moments of the hidden pixels equal those of `data.occluded`, on average over positions."""
    images = np.full((200, 14, 14), 255, np.uint8)
    bytes_ = occluded(images, 0.3, seed=0, shape=shape) == 0
    ours = np.asarray(corrupted(jnp.ones((200, 14, 14, 1)), 0.3, kind=shape, key=jax.random.key(0)))
    spreads = []
    for hidden in (bytes_, ours[..., 0] == 0):
        assert (hidden.sum(axis=(1, 2)) == round(0.3 * 196)).all()
        at = [np.argwhere(h) for h in hidden]
        spreads.append((np.mean([a.var(axis=0) for a in at]), np.mean([a.mean(axis=0) for a in at])))  # fmt: skip
        assert np.ptp([a.mean(axis=0) for a in at], axis=0).min() > 4
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=0.03)


def test_noise_is_as_often_black_as_white():
    found = corrupted(jnp.full((50, 20, 20, 1), 0.5), 0.5, kind="salt-and-pepper", key=jax.random.key(0))  # fmt: skip
    assert abs(float((found == 1).mean()) - 0.25) < 0.01
    assert abs(float((found == 0).mean()) - 0.25) < 0.01


@pytest.mark.parametrize(
    ("change", "words"),
    [({"kind": "blur"}, "kind must be one of disc"), ({"fraction": 1.1}, "from 0 to 1"),
     ({"fraction": float("nan")}, "from 0 to 1"), ({"images": jnp.ones((2, 4, 4))}, r"\[n, height, width, channels\]")],
)  # fmt: skip
def test_corruptions_refuse(change, words):
    given = {"images": jnp.ones((2, 4, 4, 1)), "fraction": 0.5, "kind": "disc"} | change
    with pytest.raises(ValueError, match=words):
        corrupted(given.pop("images"), given.pop("fraction"), key=jax.random.key(0), **given)


def test_arrangements_of_none():
    with pytest.raises(ValueError, match="at least 1 image"):
        arrangements(0)
    assert isinstance(SHELF.of(np.array([0, 1])), Shelf)
