import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from latebloom.core.views import Permutation, Rotation

IMAGES = np.random.default_rng(0).random((4, 9, 9)).astype(np.float32)


def test_rotation_is_that_of_scipy():
    angles = (0.0, 30.0, 90.0, 137.0)
    view = eqx.filter_jit(Rotation(angles, 9))
    turned = view(jnp.asarray(IMAGES), jnp.arange(4))
    for angle, image, found in zip(angles, IMAGES, turned, strict=True):
        # SciPy blends the last pixel with what is outside, too, in its constant mode with a grid.
        wanted = ndimage.rotate(image, angle, reshape=False, order=1, mode="grid-constant")
        np.testing.assert_allclose(found, wanted, atol=2e-5)
    flat = view(jnp.asarray(IMAGES.reshape(4, 81)), jnp.arange(4))
    np.testing.assert_array_equal(flat.reshape(4, 9, 9), turned)
    np.testing.assert_array_equal(turned[0], IMAGES[0])
    np.testing.assert_allclose(turned[2], np.rot90(IMAGES[2]), atol=1e-6)


def test_images_of_another_size_are_refused():
    with pytest.raises(
        ValueError, match="must have 64 pixels, as the rotation was made for, not 81"
    ):
        Rotation((0.0,), 8)(jnp.asarray(IMAGES), jnp.zeros(4, int))


def test_each_task_has_an_order_of_its_own():
    view = Permutation.drawn(3, 81, key=jax.random.key(1))
    seen = view(jnp.asarray(IMAGES), jnp.array([0, 1, 2, 1]))
    assert seen.shape == IMAGES.shape
    np.testing.assert_array_equal(seen[0], IMAGES[0])
    for task, before, after in ((1, 1, 1), (2, 2, 2), (1, 3, 3)):
        np.testing.assert_array_equal(
            after_flat(seen, after), IMAGES[before].ravel()[np.asarray(view.order[task])]
        )
    assert (np.asarray(view.order[1]) != np.asarray(view.order[2])).any()


def after_flat(seen, place):
    return np.asarray(seen[place]).ravel()
