"""Warping, smoothness and the generator of pairs."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import map_coordinates

from latebloom.methods.hypernetworks.registration import (
    LABELS,
    Registration,
    UNet,
    blob_pairs,
    register_blobs,
    roughness,
    warp,
)

RNG = np.random.default_rng(0)


def test_warp_is_bilinear_sampling_at_displaced_places():
    image, displacement = RNG.uniform(size=(9, 7)), RNG.normal(size=(9, 7, 2))
    place = np.moveaxis(np.mgrid[:9, :7], 0, -1) + displacement
    inside = ((place >= 0) & (place <= [8, 6])).all(-1)
    wanted = map_coordinates(image, np.moveaxis(place, -1, 0), order=1, mode="nearest")
    found = warp(jnp.asarray(image, jnp.float32), jnp.asarray(displacement, jnp.float32))
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-5)
    still = warp(jnp.asarray(image, jnp.float32), jnp.zeros((9, 7, 2)))
    np.testing.assert_allclose(still, image, atol=1e-6)


def test_roughness_of_a_shear_is_its_slope_squared():
    rows = jnp.arange(6.0)[:, None, None] * jnp.ones((6, 6, 2))
    assert roughness(3 * rows) == 9 / 2  # slope 3 down, none to the right
    assert roughness(jnp.ones((6, 6, 2))) == 0


def test_pairs_are_one_image_and_its_smooth_deformation():
    images, labels = blob_pairs(6, 32, 0)
    again, _ = blob_pairs(6, 32, 0)
    np.testing.assert_array_equal(images, again)
    assert set(np.unique(labels)) <= set(range(LABELS + 1))
    assert -0.2 < images.min() and images.max() < 1.2
    moved = (labels[..., 0] != labels[..., 1]).mean()
    assert 0.02 < moved < 0.5  # something moves, most of the image does not
    for n in range(6):  # the tones of a label are the same on both sides
        for kind in np.unique(labels[n, ..., 1]):
            sides = [np.median(images[n, ..., s][labels[n, ..., s] == kind]) for s in (0, 1)]
            assert abs(sides[0] - sides[1]) < 0.15


def test_the_loss_weighs_likeness_against_smoothness():
    images, labels = blob_pairs(4, 32, 1)
    pairs = jnp.asarray(images)
    task = Registration(pairs, pairs, jnp.asarray(labels), size=2, noise=0.5)
    ramp = jnp.arange(32.0)[:, None, None] * jnp.ones((32, 32, 2))
    network = lambda pairs: jnp.broadcast_to(0.1 * ramp, (*pairs.shape[:3], 2))  # noqa: E731
    np.testing.assert_allclose(task.evaluate(network, jnp.array([1.0])), 0.01 / 2, rtol=1e-5)
    still = lambda pairs: jnp.zeros((*pairs.shape[:3], 2))  # noqa: E731
    wanted = np.square(images[..., 0] - images[..., 1]).mean() / 0.25
    np.testing.assert_allclose(task.evaluate(still, jnp.array([0.0])), wanted, rtol=1e-5)
    same = jnp.stack([labels[..., 0], labels[..., 0]], -1)
    perfect = Registration(pairs, pairs, same, size=2)
    np.testing.assert_allclose(perfect.dice(still), 1.0, rtol=1e-5)
    assert task.dice(still) < 1


def test_the_network_gives_a_displacement_for_every_pixel():
    network = UNet(4, key=jax.random.key(0))
    assert network(jnp.zeros((2, 16, 24, 2))).shape == (2, 16, 24, 2)


def test_a_fifth_of_the_pairs_is_for_the_exam():
    task = register_blobs(10, 16, 3)
    pairs, labels = blob_pairs(10, 16, 0)
    np.testing.assert_array_equal(task.pairs, pairs[:8])
    np.testing.assert_array_equal(task.pairs_test, pairs[8:])
    np.testing.assert_array_equal(task.labels_test, labels[8:])
    assert task.sample(jax.random.key(0)).shape == (3, 16, 16, 2)
