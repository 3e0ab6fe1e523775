"""The data: class means, separations, radii, counts, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from latebloom.methods.grokking.concept_space.worlds import (
    Discs,
    Vectors,
    all_classes,
    mask_concept,
    seen_in_training,
    training_set,
)

CLASSES = all_classes(2)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def drawn():
    world = Discs(0.3, 0.4)
    classes = jnp.asarray(np.repeat(CLASSES, 400, axis=0))
    return (
        world,
        np.asarray(classes),
        {k: np.asarray(v) for k, v in world.factors(KEY, classes).items()},
    )


def test_classes_and_what_is_seen():
    assert CLASSES.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert seen_in_training(CLASSES).tolist() == [True, True, True, False]
    assert seen_in_training(all_classes(3)).sum() == 4


def test_training_set_has_equal_counts_and_no_unseen_class():
    x, condition, classes = training_set(Discs(image_size=16), KEY, 5)
    assert x.shape == (15, 16, 16, 3) and condition.shape == (15, 11)
    rows, counts = np.unique(np.asarray(classes), axis=0, return_counts=True)
    assert rows.tolist() == [[0, 0], [0, 1], [1, 0]] and counts.tolist() == [5, 5, 5]


def test_factors_follow_the_paper(drawn):
    _, classes, found = drawn
    red, blue = classes[:, 0] == 0, classes[:, 0] == 1
    assert np.allclose(found["colour"][red].mean(0), [0.65, 0.35, 0.35], atol=0.005)
    assert np.allclose(found["colour"][blue].mean(0), [0.35, 0.35, 0.65], atol=0.005)
    spread = np.abs(found["colour"][red] - [0.65, 0.35, 0.35])
    assert spread.max() <= 0.3 / 8 + 1e-6 and spread.max() > 0.3 / 8 - 1e-3
    large, small = found["size"][classes[:, 1] == 0], found["size"][classes[:, 1] == 1]
    assert large.mean() == pytest.approx(0.65, abs=0.01) and large.max() <= 0.8 + 1e-6
    assert small.min() >= 0.1 - 1e-6 and small.max() <= 0.4 + 1e-6
    assert found["background"].min() >= 0.8 and np.abs(found["centre"]).max() <= 0.5


def test_condition_tells_the_actual_colour_and_radius(drawn):
    world, classes, _ = drawn
    _, condition = world.sample(jax.random.key(7), jnp.asarray(classes))
    condition = np.asarray(condition)
    assert (condition[:, [0, 1, 2, 3, 8, 9, 10]] == 0).all()
    assert len(np.unique(condition[:, 7])) > 1000  # continuous, not a class
    prompt = np.asarray(world.prompt(jnp.array([[1, 1]])))[0]
    assert np.allclose(prompt, [0, 0, 0, 0, 0.35, 0.35, 0.65, 0.25, 0, 0, 0])
    over = np.asarray(world.prompt(jnp.array([[1, 1]]), jnp.float32(0.45)))[0]
    assert np.allclose(over[4:8], [0.05, 0.05, 0.95, 0.25])


def _factors(shape=0, radius=0.5, centre=(0.1, -0.2)):
    return {
        "shape": jax.nn.one_hot(jnp.array([shape]), 2),
        "colour": jnp.array([[0.9, 0.1, 0.1]]),
        "size": jnp.array([[radius]]),
        "background": jnp.ones((1, 3)),
        "centre": jnp.array([centre]),
    }


def test_render_against_scipy():
    world = Discs(noise=0.0)
    image = np.asarray(world.render(KEY, _factors()))[0]
    axis = np.linspace(-1, 1, 32)
    mask = np.hypot(axis[None, :] - 0.1, -axis[:, None] + 0.2) < 0.5
    soft = gaussian_filter(mask.astype(float), 1.0)[..., None]
    assert np.allclose(image, soft * [0.9, 0.1, 0.1] + (1 - soft), atol=1e-5)


@pytest.mark.parametrize("shape", [0, 1])
def test_disc_and_triangle_have_the_same_area(shape):
    world = Discs(concepts=("colour", "shape"), image_size=64, noise=0.0)
    image = np.asarray(world.render(KEY, _factors(shape, 0.4, (0.0, 0.0))))[0]
    area = ((1 - image[..., 1]) / 0.9).sum() * (2 / 63) ** 2
    assert area == pytest.approx(np.pi * 0.4**2, rel=0.03)


def test_three_concepts_have_dark_backgrounds():
    world = Discs(concepts=("colour", "size", "background"), image_size=16)
    dark = np.asarray(world.sample(KEY, jnp.array([[0, 0, 1]] * 50))[1])[:, 8:]
    assert dark.max() <= 0.2 + 1e-6 and dark.mean() == pytest.approx(0.1, abs=0.02)


def test_vectors_have_the_right_moments():
    world = Vectors((0.2, 0.8), nuisance=3)
    x, condition = (np.asarray(a) for a in world.sample(KEY, jnp.array([[0, 1]] * 20_000)))
    assert x.shape == (20_000, 5)
    assert np.allclose(x[:, :2].mean(0), [-0.1, 0.4], atol=0.005)
    assert np.allclose(x[:, :2].std(0), [0.2 / 8, 0.8 / 8], rtol=0.03)
    assert np.allclose(x[:, 2:].std(0), 1, rtol=0.03)
    assert np.allclose(condition[:, 6] - 0.5, x[:, 0], atol=1e-6)
    assert np.allclose(condition[:, 4] - 0.5, -x[:, 0], atol=1e-6)
    assert np.allclose(condition[:, 7] - 0.5, x[:, 1], atol=1e-6)


@given(st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_mask_hits_eligible_rows_at_its_rate(probability):
    condition = jnp.ones((4000, 11))
    eligible = jnp.arange(4000) % 2 == 0
    masked = np.asarray(mask_concept(KEY, condition, eligible, probability))
    hit = (masked[:, 4:7] == 0).all(1)
    assert not hit[1::2].any()
    assert hit[::2].mean() == pytest.approx(probability, abs=0.05)
    assert (masked[:, [0, 3, 7, 10]] == 1).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Discs(sep_colour=0.9), "sep_colour must lie"),
        (lambda: Discs(concepts=("size", "colour")), "'colour' and then"),
        (lambda: Discs(concepts=("colour", "weight")), "unknown concept 'weight'"),
        (lambda: Discs(image_size=4), "image_size"),
        (lambda: Vectors((0.1,)), "one separation for each"),
        (lambda: Vectors((0.1, 0.2), ("colour", "shape")), "unknown concept 'shape'"),
        (lambda: training_set(Discs(), KEY, 0), "per_class"),
    ],
)
def test_bad_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()
