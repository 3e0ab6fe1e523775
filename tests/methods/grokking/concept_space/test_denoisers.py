"""Networks: shapes, the rearrangements of pixels, initialisation, and interventions on embeddings."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.methods.grokking.concept_space.denoisers import (
    GroupNorm,
    MLPDenoiser,
    UNet,
    depth_to_space,
    linears,
    space_to_depth,
    unet_block_sizes,
)
from latebloom.methods.grokking.concept_space.interventions import (
    concept_direction,
    patch_embedding,
    placebo,
    steer,
)

KEY = jax.random.key(0)


@eqx.filter_jit
def small_unet(patched=False):
    return UNet((8, 16), 1, key=KEY, groups=4, heads=2, time_size=8, patched=patched)


@pytest.fixture(scope="module")
def unet():
    return small_unet()


@pytest.fixture(scope="module")
def mlp():
    return MLPDenoiser(4, (8, 8), key=KEY, time_size=8)


def test_channels_of_the_paper():
    """Two blocks a level at 64, 128, 256: a skip joins the first block of each upper level."""
    assert unet_block_sizes((64, 128, 256), 2) == [
        (64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256),
        (256, 256), (256, 256),
        (256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64),
    ]  # fmt: skip


@eqx.filter_jit
def forward(model, z, t, c, key=None):
    return model(z, t, model.embed(c), key=key)


def test_unet_starts_as_the_identity_and_has_one_embedding_a_block(unet):
    z = jax.random.normal(KEY, (2, 8, 8, 3))
    embeddings = eqx.filter_eval_shape(unet.embed, jnp.ones((2, 11)))
    assert [e.shape for e in embeddings] == [(2, 8), (2, 16), (2, 16), (2, 16), (2, 16), (2, 8)]
    assert np.allclose(forward(unet, z, jnp.zeros(2), jnp.ones((2, 11))), z)


def test_unet_depends_on_everything_once_its_output_is_not_zero(unet):
    def arrays(m):
        return [m.conv_out.weight, *(block.second.weight for block in m.residual)]

    noise = [0.1 * jax.random.normal(KEY, w.shape) for w in arrays(unet)]
    live = eqx.tree_at(arrays, unet, noise)
    z = jax.random.normal(KEY, (2, 8, 8, 3))

    def out(z=z, t=0.3, c=1.0, key=None):
        return np.asarray(forward(live, z, jnp.full(2, t), jnp.full((2, 11), c), key))

    base = out()
    for other in (out(z=z + 1), out(t=0.9), out(c=2.0)):
        assert not np.allclose(base, other)
    one, same, other = (out(key=jax.random.key(i)) for i in (1, 1, 2))
    assert np.array_equal(one, same) and not np.allclose(one, other)  # dropout


def test_patched_unet_keeps_the_shape():
    model = eqx.filter_eval_shape(small_unet, patched=True)
    z = jnp.ones((2, 8, 8, 3))
    run = eqx.filter_eval_shape(
        lambda m, z, c: m(z, jnp.zeros(2), m.embed(c)), model, z, jnp.ones((2, 11))
    )
    assert run.shape == z.shape
    assert model.conv_in.weight.shape[2:] == (12, 8)


def test_space_to_depth_and_back():
    x = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    deep = space_to_depth(x)
    assert deep.shape == (2, 2, 3, 12)
    assert np.array_equal(
        deep[0, 0, 0], np.concatenate([x[0, 0, 0], x[0, 0, 1], x[0, 1, 0], x[0, 1, 1]])
    )
    assert np.array_equal(depth_to_space(deep), x)
    with pytest.raises(ValueError, match="cannot be halved"):
        space_to_depth(jnp.ones((1, 3, 4, 1)))


def test_group_norm_normalises_each_group():
    x = 3 + 2 * jax.random.normal(KEY, (2, 4, 4, 8)) * jnp.arange(1, 9)
    grouped = np.asarray(GroupNorm(8, 4)(x)).reshape(2, 4, 4, 4, 2)
    assert np.allclose(grouped.mean((1, 2, 4)), 0, atol=1e-5)
    assert np.allclose(grouped.std((1, 2, 4)), 1, atol=1e-4)


def test_affine_maps_start_as_in_pytorch():
    first, second = linears(KEY, [(100, 300), (4, 2000)])
    assert first.weight.shape == (300, 100) and second.bias.shape == (2000,)
    for layer, bound in ((first, 0.1), (second, 0.5)):
        both = np.concatenate([np.ravel(layer.weight), np.ravel(layer.bias)])
        assert np.abs(both).max() <= bound and both.std() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_mlp_has_no_dropout_and_uses_the_condition(mlp):
    z = jax.random.normal(KEY, (5, 4))
    one, two = mlp.embed(jnp.ones((5, 11))), mlp.embed(jnp.zeros((5, 11)))
    assert mlp(z, jnp.zeros(5), one).shape == (5, 4)
    assert not np.allclose(mlp(z, jnp.zeros(5), one), mlp(z, jnp.zeros(5), two))
    assert np.allclose(mlp(z, jnp.zeros(5), one, key=KEY), mlp(z, jnp.zeros(5), one))
    assert np.allclose(mlp(z, jnp.zeros(1), one), mlp(z, jnp.zeros(5), one), atol=1e-6)


@given(st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_steering_is_linear(a, b):
    here = (jnp.ones((1, 2)), jnp.zeros((1, 3)))
    direction = (jnp.array([[1.0, -1.0]]), jnp.ones((1, 3)))
    twice = steer(steer(here, direction, a), direction, b)
    once = steer(here, direction, a + b)
    assert all(np.allclose(x, y, atol=1e-5) for x, y in zip(twice, once, strict=True))


def test_direction_leads_from_one_prompt_to_the_other(mlp):
    red, blue = mlp.embed(jnp.zeros((1, 11))), mlp.embed(jnp.ones((1, 11)))
    there = steer(red, concept_direction(blue, red), 1.0)
    assert all(np.allclose(x, y, atol=1e-6) for x, y in zip(there, blue, strict=True))


def test_placebo_has_the_same_norm_and_another_direction():
    direction = (jnp.arange(1.0, 65).reshape(1, 64), jnp.ones((3, 64)))
    sham = placebo(KEY, direction)
    for true, false in zip(direction, sham, strict=True):
        assert np.allclose(np.linalg.norm(true, axis=1), np.linalg.norm(false, axis=1), rtol=1e-5)
        cosine = (true * false).sum(1) / np.linalg.norm(true, axis=1) ** 2
        assert np.abs(cosine).max() < 0.6


def test_patching_takes_the_embedding_module_only(mlp):
    donor = MLPDenoiser(4, (8, 8), key=jax.random.key(1), time_size=8)
    patched = patch_embedding(mlp, donor)
    c = jax.random.normal(KEY, (2, 11))
    assert all(map(np.array_equal, patched.embed(c), donor.embed(c)))
    assert eqx.tree_equal(patched.layers, mlp.layers) and eqx.tree_equal(patched.time, mlp.time)


def test_bad_networks(mlp):
    with pytest.raises(ValueError, match="two levels"):
        UNet((8,), key=KEY)
    shape = eqx.filter_eval_shape
    with pytest.raises(ValueError, match="multiple of groups"):
        shape(partial(UNet, (6, 12), groups=4), key=KEY)
    with pytest.raises(ValueError, match="multiple of heads"):
        shape(partial(UNet, (8, 16), 1, groups=4, heads=3), key=KEY)
    with pytest.raises(ValueError, match="donor has no embedding module"):
        patch_embedding(mlp, eqx.nn.Linear(1, 1, key=KEY))
    with pytest.raises(ValueError, match="of one architecture"):
        patch_embedding(mlp, MLPDenoiser(4, (9, 8), key=KEY, time_size=8))
