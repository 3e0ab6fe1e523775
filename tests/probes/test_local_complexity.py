from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.probes.local_complexity import (
    cross_polytope,
    decision_boundary_points,
    local_complexity,
    random_frames,
    switching_units,
)
from latebloom.probes.regions import Plane, slice_regions


def random_layers(seed, sizes, gain=1.5):
    rng = np.random.default_rng(seed)
    return [
        (gain * rng.normal(size=(o, i)) / np.sqrt(i), gain * rng.normal(size=o) / np.sqrt(i))
        for i, o in pairwise(sizes)
    ]


def preactivations_of(layers):
    def preactivations(x):
        result = []
        for weight, bias in layers:
            result.append(x @ jnp.asarray(weight, x.dtype).T + jnp.asarray(bias, x.dtype))
            x = jax.nn.relu(result[-1])
        return tuple(result)

    return preactivations


ONE_LAYER = jax.jit(partial(local_complexity, preactivations_of(random_layers(0, [4, 16]))))


def test_frames_are_orthonormal_and_differ():
    frames = random_frames(jax.random.key(0), 20, directions=7, frames=3)
    assert frames.shape == (3, 7, 20)
    gram = np.einsum("fpd,fqd->fpq", frames, frames)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(7), (3, 7, 7)), atol=1e-5)
    assert np.abs(frames[0] - frames[1]).max() > 0.1


def test_frame_directions_have_no_preferred_axis():
    frames = random_frames(jax.random.key(1), 5, directions=2, frames=4000)
    first = np.asarray(frames[:, 0])
    np.testing.assert_allclose(first.T @ first / 4000, np.eye(5) / 5, atol=0.02)


def test_vertices_are_at_the_radius_along_the_frame():
    frame = random_frames(jax.random.key(0), 6, directions=3)[0]
    x = jnp.arange(12.0).reshape(2, 2, 3)
    vertices = cross_polytope(x, frame, 0.5, include_centre=True)
    assert vertices.shape == (2, 7, 2, 3)
    np.testing.assert_allclose(vertices[:, :3] + vertices[:, 3:6], 2 * x[:, None].repeat(3, 1))
    distance = jnp.linalg.norm((vertices - x[:, None]).reshape(2, 7, -1), axis=-1)
    np.testing.assert_allclose(distance, [[0.5] * 6 + [0]] * 2, atol=1e-5)


def test_zero_counts_as_off():
    z = jnp.array([[[0.0, 0.0, -1.0, 1.0], [-1.0, 1.0, -2.0, 2.0]]])
    assert switching_units(z).tolist() == [[False, True, False, False]]


def test_agrees_with_three_valued_signs_away_from_zero():
    z = jax.random.normal(jax.random.key(0), (50, 6, 9))
    signs = np.sign(z)
    np.testing.assert_array_equal(switching_units(z), np.any(signs[:, 1:] != signs[:, :1], axis=1))


def test_first_layer_is_the_closed_form():
    """A hyperplane w x + b = 0 meets the cross-polytope iff |w x + b| < r max_v |w v|."""
    ((weight, bias),) = random_layers(0, [30, 40])
    x = np.random.default_rng(1).normal(size=(25, 30)).astype(np.float32)
    frames = random_frames(jax.random.key(2), 30, directions=10, frames=2)
    radii = jnp.array([0.1, 0.7])
    counts = local_complexity(preactivations_of([(weight, bias)]), x, frames, radii, chunk=7)
    assert counts.shape == (2, 2, 25, 1)
    reach = np.abs(np.einsum("fpd,ud->fpu", frames, weight)).max(axis=1)
    height = np.abs(x @ weight.T + bias)
    expected = (height < np.asarray(radii)[:, None, None, None] * reach[:, None]).sum(axis=-1)
    np.testing.assert_array_equal(counts[..., 0], expected)


@pytest.mark.parametrize("seed", range(4))
def test_never_exceeds_the_exact_count_in_the_plane(seed):
    """In 2-D the cross-polytope is a square: slice it exactly and list the units that enter it."""
    layers = random_layers(seed, [2, 30, 30, 30, 3])
    x = np.random.default_rng(seed).normal(size=(6, 2)).astype(np.float32)
    frames = random_frames(jax.random.key(seed), 2, directions=2)
    radius = 0.6
    counts = np.asarray(local_complexity(preactivations_of(layers), x, frames, radius))[0]
    plane = Plane(np.zeros(2), np.eye(2))
    frame = np.asarray(frames[0], np.float64)
    corners = radius * np.concatenate([frame, -frame])
    if np.linalg.det(frame) < 0:
        corners = corners[::-1]
    for point, count in zip(x, counts, strict=True):
        exact = [c.sum() for c in slice_regions(layers, plane, point + corners).crossing]
        assert count[0] == exact[0]
        assert (count[:3] <= exact).all()


def test_constant_for_a_network_without_boundaries_nearby():
    frames = random_frames(jax.random.key(0), 3, directions=3)
    far = local_complexity(lambda x: (x + 100.0,), jnp.zeros((4, 3)), frames, 1.0)
    assert far.shape == (1, 4, 1) and not far.any()


@given(seed=st.integers(0, 100), small=st.floats(0.05, 1.0), factor=st.floats(1.0, 5.0))
@settings(max_examples=20, deadline=None)
def test_first_layer_grows_with_the_radius(seed, small, factor):
    x = jax.random.normal(jax.random.key(seed), (5, 4))
    frames = random_frames(jax.random.key(0), 4, directions=4)
    counts = ONE_LAYER(x, frames, jnp.array([small, small * factor]))
    assert (counts[1] >= counts[0]).all()


def test_feature_maps_and_the_centre():
    """Units are all entries after the batch; images are perturbed in their flattened space."""
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 1))
    frames = random_frames(jax.random.key(1), 16, directions=5)

    def preactivations(batch):
        assert batch.shape[1:] == (4, 4, 1)
        return (batch - 0.1, batch.reshape(len(batch), -1) - 0.1)

    counts = local_complexity(preactivations, x, frames, 0.5, include_centre=True)
    np.testing.assert_array_equal(counts[..., 0], counts[..., 1])


def test_bad_frames_are_refused():
    with pytest.raises(ValueError, match="directions=5"):
        random_frames(jax.random.key(0), 4, directions=5)
    with pytest.raises(ValueError, match=r"frames must have shape \(frame, direction, 3\)"):
        local_complexity(lambda x: (x,), jnp.zeros((2, 3)), jnp.zeros((1, 2, 4)))


def test_bisection_finds_a_known_boundary():
    def model(x):
        return jnp.stack([x[:, 0], 0.3 * jnp.ones(len(x))], axis=1)

    start = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    end = jnp.array([[1.0, 1.0], [0.0, 2.0], [0.2, 1.0]])
    points, crosses = decision_boundary_points(model, start, end)
    assert crosses.tolist() == [True, True, False]
    np.testing.assert_allclose(points[:2], [[0.3, 0.3], [0.3, 1.4]], atol=1e-5)
