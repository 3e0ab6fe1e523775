from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest

from latebloom.probes.regions import Plane, plane_through, slice_regions, square_around

UNIT = Plane(np.zeros(2), np.eye(2))
SQUARE = np.array([[-1.0, -1.0], [1, -1], [1, 1], [-1, 1]])


def random_layers(seed, sizes, gain=1.5):
    rng = np.random.default_rng(seed)
    return [
        (gain * rng.normal(size=(o, i)) / np.sqrt(i), gain * rng.normal(size=o) / np.sqrt(i))
        for i, o in pairwise(sizes)
    ]


def forward(layers, x):
    patterns = []
    for weight, bias in layers[:-1]:
        z = x @ weight.T + bias
        patterns.append(z > 0)
        x = np.maximum(z, 0)
    return x @ layers[-1][0].T + layers[-1][1], np.concatenate(patterns, axis=-1)


def interior_points(regions, seed=0, each=5):
    """Random strict convex combinations of each region's corners."""
    rng = np.random.default_rng(seed)
    corners = np.arange(regions.vertices.shape[1]) < regions.sizes[:, None]
    shares = rng.uniform(0.05, 1, (len(regions.sizes), each, corners.shape[1])) * corners[:, None]
    shares /= shares.sum(axis=-1, keepdims=True)
    return shares @ regions.vertices


@pytest.mark.parametrize(
    ("seed", "sizes"), [(0, [2, 12, 3]), (1, [2, 20, 20, 4]), (2, [9, 16, 16, 16, 3])]
)
def test_against_a_dense_grid(seed, sizes):
    layers = random_layers(seed, sizes)
    points = np.random.default_rng(seed).normal(size=(3, sizes[0]))
    plane = UNIT if sizes[0] == 2 else plane_through(points)
    outline = 2 * SQUARE
    regions = slice_regions(layers, plane, outline)
    axis = np.linspace(-2, 2, 401)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    seen = np.unique(forward(layers, plane.lift(grid))[1], axis=0)
    assert 0.6 * len(regions.sizes) < len(seen) <= len(regions.sizes)

    inside = interior_points(regions)
    logits, patterns = forward(layers, plane.lift(inside))
    fat = regions.areas > 1e-9
    assert (patterns == patterns[:, :1])[fat].all()
    unique = np.unique(patterns[fat, 0], axis=0)
    assert len(unique) == fat.sum()
    affine = np.einsum("rck,rpk->rpc", regions.maps[:, :, :2], inside) + regions.maps[:, None, :, 2]
    np.testing.assert_allclose(affine[fat], logits[fat], atol=1e-7)
    assert regions.areas.sum() == pytest.approx(16.0)
    assert regions.counts[-1] == len(regions.sizes)


@pytest.mark.parametrize("seed", range(5))
def test_one_layer_is_a_line_arrangement(seed):
    """Lines in general position cut a convex set into 1 + lines + crossings inside it."""
    layers = random_layers(seed, [2, 15, 2])
    weight, bias = layers[0]
    regions = slice_regions(layers, UNIT, SQUARE)
    heights = SQUARE @ weight.T + bias
    meets = (heights.min(axis=0) < 0) & (heights.max(axis=0) > 0)
    crossings = sum(
        (np.abs(np.linalg.solve(weight[[i, j]], -bias[[i, j]])) < 1).all()
        for i in range(15)
        for j in range(i)
    )
    assert len(regions.sizes) == 1 + meets.sum() + crossings
    np.testing.assert_array_equal(regions.crossing[0], meets)


def test_by_hand():
    """relu(s) - relu(t) on the square: four quadrants, decided against 0 along s = t and t < 0."""
    layers = [(np.eye(2), np.zeros(2)), (np.array([[1.0, -1.0], [0.0, 0.0]]), np.array([0, 0.25]))]
    regions = slice_regions(layers, UNIT, SQUARE)
    assert regions.counts == (4,)
    np.testing.assert_allclose(regions.areas, 1.0)
    np.testing.assert_allclose(np.abs(regions.centroids), 0.5)
    segments = regions.decision_boundary
    order = np.argsort(segments[:, :, 1].mean(axis=1))
    np.testing.assert_allclose(np.sort(segments[order[0]], axis=0), [[0.25, -1], [0.25, 0]])
    np.testing.assert_allclose(np.sort(segments[order[1]], axis=0), [[0.25, 0], [1, 0.75]])
    first_quadrant = np.flatnonzero((regions.centroids > 0).all(axis=1))
    to_boundary = regions.distance_to_decision_boundary()
    np.testing.assert_allclose(to_boundary[first_quadrant], 0.25 / np.sqrt(2))
    to_data = regions.distance_to_points(np.array([[0.5, 0.5], [-0.5, -0.5]]))
    np.testing.assert_allclose(np.sort(to_data), [0, 0, 1, 1], atol=1e-12)


def test_density_counts_regions_per_area_near_something():
    cross = [(np.eye(2), np.zeros(2)), (np.array([[1.0, 1], [-1, -1]]), np.array([-1.0, 1]))]
    regions = slice_regions(cross, UNIT, SQUARE)  # four quarters of area 1 in a square of side 2
    near = regions.distance_to_points(np.array([[0.5, 0.5]]))
    assert regions.density(near, 0.1) == pytest.approx(1)
    halves = slice_regions(
        [(np.eye(2)[:1], np.zeros(1)), (np.ones((2, 1)), np.zeros(2))], UNIT, SQUARE
    )
    assert halves.density(np.zeros(2), 0.1) == pytest.approx(0.5)
    assert np.isnan(halves.density(np.full(2, 0.3), 0.1))


@pytest.mark.parametrize("classes", [2, 5])
def test_decision_boundary_separates_the_classes(classes):
    layers = random_layers(7, [2, 20, 20, classes], gain=2.0)
    regions = slice_regions(layers, UNIT, SQUARE)
    segments = regions.decision_boundary
    along = segments[:, 1] - segments[:, 0]
    long = np.linalg.norm(along, axis=1) > 1e-4
    middle, normal = segments[long].mean(axis=1), along[long][:, ::-1] * [1, -1]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    sides = [forward(layers, middle + s * 1e-6 * normal)[0].argmax(axis=1) for s in (-1, 1)]
    assert len(middle) > 5 and (sides[0] != sides[1]).mean() > 0.99
    # Every change of class along a fine grid line is on a segment.
    line = np.stack([np.linspace(-1, 1, 20_001), np.full(20_001, 0.123)], axis=1)
    label = forward(layers, line)[0].argmax(axis=1)
    s, t = segments[..., 0], segments[..., 1]
    hits = (t.min(axis=1) <= 0.123) & (t.max(axis=1) > 0.123)
    share = (0.123 - t[hits, 0]) / (t[hits, 1] - t[hits, 0])
    found = np.sort(s[hits, 0] + share * (s[hits, 1] - s[hits, 0]))
    expected = line[np.flatnonzero(label[1:] != label[:-1]), 0]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_one_class_everywhere_has_no_boundary():
    layers = [(np.eye(2), np.zeros(2)), (np.zeros((2, 2)), np.array([1.0, 0.0]))]
    regions = slice_regions(layers, UNIT, SQUARE)
    assert regions.decision_boundary.shape == (0, 2, 2)
    assert np.isinf(regions.distance_to_decision_boundary()).all()


def test_plane_and_square():
    points = np.random.default_rng(0).normal(size=(3, 7))
    plane = plane_through(points)
    flat = plane.project(points)
    np.testing.assert_allclose(plane.lift(flat), points, atol=1e-12)
    np.testing.assert_allclose(plane.basis @ plane.basis.T, np.eye(2), atol=1e-12)
    corners = square_around(flat, margin=0.5)
    assert np.ptp(corners, axis=0) == pytest.approx([2 * np.ptp(flat, axis=0).max()] * 2)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one line"):
        plane_through(np.outer([0.0, 1.0, 2.0], np.ones(4)))
    with pytest.raises(ValueError, match=r"layers\[1\] must have weight \[out, 5\]"):
        slice_regions(
            [(np.zeros((5, 2)), np.zeros(5)), (np.zeros((4, 3)), np.zeros(3))], UNIT, SQUARE
        )


def test_draws():
    fig, ax = plt.subplots()
    slice_regions(random_layers(0, [2, 10, 10, 3]), UNIT, SQUARE).draw(ax)
    assert len(ax.collections) == 2 and ax.get_xlim() == (-1.0, 1.0)
    plt.close(fig)
