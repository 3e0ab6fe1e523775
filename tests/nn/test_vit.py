"""The vision transformer against its formula, and on real digits."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import erf, softmax

from latebloom import unfold
from latebloom.core.dataset import Dataset
from latebloom.core.training import Supervised
from latebloom.data import load_table
from latebloom.nn import ViT
from latebloom.nn.vit import positions


def norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * layer.scale + layer.shift
    )


def affine(x, layer):
    return x @ np.asarray(layer.weight) + np.asarray(layer.bias)


def test_it_is_its_formula():
    model = ViT(2, 3, key=jax.random.key(0), patch=2, size=8, heads=2, hidden=5, layers=2)
    x = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    squares = [x[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2, 4)]
    h = affine(np.stack(squares), model.embedding) + np.asarray(positions(2, 3, 8))
    for block in model.blocks:
        joint = affine(norm(h, block.norms[0]), block.query_key_value)
        q, k, v = (part.reshape(6, 2, 4) for part in np.split(joint, 3, axis=-1))
        weights = softmax(np.einsum("ihd,jhd->hij", q, k) / 2, axis=-1)
        h = h + affine(np.einsum("hij,jhd->ihd", weights, v).reshape(6, 8), block.out)
        up = affine(norm(h, block.norms[1]), block.up)
        h = h + affine(up * (1 + erf(up / np.sqrt(2))) / 2, block.down)
    expected = affine(norm(h, model.norm).mean(0), model.readout)
    np.testing.assert_allclose(model(jnp.asarray(x)[None])[0], expected, rtol=2e-4, atol=2e-5)


def test_positions_tell_rows_from_columns_and_repeat():
    found = np.asarray(positions(3, 5, 16)).reshape(3, 5, 16)
    assert len(np.unique(found.reshape(15, 16).round(5), axis=0)) == 15
    np.testing.assert_allclose(
        found[2, 3, :4], np.sin(3 * 10_000.0 ** -np.linspace(0, 1, 4)), rtol=1e-5
    )
    np.testing.assert_array_equal(found[:, :, 8:] - found[:, :1, 8:], 0)  # rows alone
    np.testing.assert_array_equal(found[:, :, :8] - found[:1, :, :8], 0)  # columns alone


def test_it_learns_digits_inside_a_scan():
    table = load_table("digits-8x8")
    x = jnp.asarray(table.x.reshape(-1, 8, 8, 1) / 16, jnp.float32)
    y = jnp.asarray(table.y, jnp.int32)
    order = jax.random.permutation(jax.random.key(0), len(x))
    x, y = x[order], y[order]
    process = Supervised(
        model=lambda key: ViT(1, key=key, patch=2, size=16, heads=2, hidden=32, layers=1),
        data=Dataset(x[:1400], y[:1400], x[1400:], y[1400:]), optimiser=optax.adam,
        hyper={"learning_rate": 1e-2}, loss=optax.softmax_cross_entropy_with_integer_labels,
        batch_size=32,
    )  # fmt: skip
    trace = unfold(process, seeds=1, steps=250, every=250, progress=False)
    assert trace.test_accuracy.values[0, -1] > 0.7


@pytest.mark.parametrize(("options", "said"), [
    ({"size": 10, "heads": 5}, "multiple of heads .5. and of 4, not 10"),
    ({"patch": 0}, "patch, .*must be at least 1"),
    ({"heads": 0}, "heads and hidden must be at least 1"),
    ({"out_size": 0}, "out_size, .*must be at least 1"),
    ({"layers": -1}, "layers at least 0"),
    ({"size": 16, "heads": 3}, "multiple of heads .3. and of 4, not 16"),
])  # fmt: skip
def test_bad_sizes_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ViT(1, key=jax.random.key(0), **options)


@pytest.mark.parametrize("shape", [(3, 64), (8, 8, 2), (3, 8, 8), (3, 8, 8, 1)])
def test_what_are_no_images_of_its_channels_is_refused(shape):
    with pytest.raises(ValueError, match="images must be .batch, height, width, 2 channels., not"):
        inspect.unwrap(ViT.embedded)(ViT(2, key=jax.random.key(0), layers=0), jnp.zeros(shape))


def test_an_image_that_patches_do_not_fill_is_refused():
    with pytest.raises(ValueError, match="patches of 4 pixels do not fill an image of 8 x 6"):
        ViT(1, key=jax.random.key(0))(jnp.zeros((1, 8, 6, 1)))
