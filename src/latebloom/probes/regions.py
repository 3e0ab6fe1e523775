"""Exact linear regions of a ReLU network on a plane through its input space.

Restricted to the plane x = origin + s u + t v, every pre-activation is affine in (s, t) on each
region made by the layers before it. So the regions are found exactly by splitting convex polygons
neuron by neuron, each polygon carrying the affine map of the network on it. Humayun et al. (2024,
arXiv:2402.15555) draw such pictures with SplineCam (Humayun et al. 2023, arXiv:2302.12828).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

Layers = Sequence[tuple[Float[np.ndarray, "out in"], Float[np.ndarray, " out"]]]
"""Weight and bias of each affine layer; ReLU between them, none after the last."""

_CHUNK = 1024


@dataclass(frozen=True)
class Plane:
    """A plane in input space: x = origin + s basis[0] + t basis[1], the basis orthonormal."""

    origin: Float[np.ndarray, " in"]
    basis: Float[np.ndarray, "2 in"]

    def lift(self, points: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch in"]:
        """The inputs at plane coordinates (s, t)."""
        return self.origin + points @ self.basis

    def project(self, x: Float[np.ndarray, "*batch in"]) -> Float[np.ndarray, "*batch 2"]:
        """Plane coordinates (s, t) of the inputs' nearest points in the plane."""
        return (x - self.origin) @ self.basis.T


def plane_through(points: Float[np.ndarray, "3 in"]) -> Plane:
    """The plane through three inputs, its origin at their mean.

    Raises:
        ValueError: if the three points lie on one line.
    """
    points = np.asarray(points, np.float64)
    edges = points[1:] - points[0]
    basis, triangle = np.linalg.qr(edges.T)
    if np.abs(np.diag(triangle)).min() <= 1e-9 * np.abs(edges).max(initial=1e-300):
        raise ValueError("points must not lie on one line: choose three others for the plane.")
    return Plane(points.mean(axis=0), (basis * np.sign(np.diag(triangle))).T)


def square_around(points: Float[np.ndarray, "point 2"], margin: float = 0.5) -> np.ndarray:
    """Corners of the square that holds the points with `margin` of their extent to spare."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = (0.5 + margin) * (high - low).max()
    return (low + high) / 2 + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])


@dataclass(frozen=True)
class RegionSlice:
    """The linear regions of a network inside a convex outline of a plane.

    Attributes:
        plane: where the slice lies in input space.
        vertices: corners in (s, t), counter-clockwise; the last one repeats as padding.
        sizes: number of corners of each region.
        maps: the logits on each region are maps[:, :, :2] @ (s, t) + maps[:, :, 2].
        counts: number of regions made by the first 1, 2, ... hidden layers.
        crossing: for each hidden layer, the units whose boundary enters the outline.
    """

    plane: Plane
    vertices: Float[np.ndarray, "region corner 2"]
    sizes: Int[np.ndarray, " region"]
    maps: Float[np.ndarray, "region class 3"]
    counts: tuple[int, ...]
    crossing: tuple[Bool[np.ndarray, " unit"], ...]

    @cached_property
    def areas(self) -> Float[np.ndarray, " region"]:
        """Area of each region."""
        return _area_and_centroid(self.vertices)[0]

    @cached_property
    def centroids(self) -> Float[np.ndarray, "region 2"]:
        """Centre of mass of each region."""
        return _area_and_centroid(self.vertices)[1]

    @cached_property
    def decision_boundary(self) -> Float[np.ndarray, "segment 2 2"]:
        """Ends, in (s, t), of the segments along which the two largest logits tie."""
        chunks = range(0, len(self.maps), _CHUNK)
        return np.concatenate(
            [_ties(self.vertices[i : i + _CHUNK], self.maps[i : i + _CHUNK]) for i in chunks]
        )

    def distance_to_points(
        self, points: Float[np.ndarray, "point 2"]
    ) -> Float[np.ndarray, " region"]:
        """Distance from each region's centroid to the nearest of the points."""
        gaps = self.centroids[:, None] - np.asarray(points)[None]
        return np.linalg.norm(gaps, axis=-1).min(axis=1)

    def distance_to_decision_boundary(self) -> Float[np.ndarray, " region"]:
        """Distance from each region's centroid to the decision boundary; inf if there is none."""
        nearest = np.full(len(self.centroids), np.inf)
        for start, end in self.decision_boundary:
            along = end - start
            share = (self.centroids - start) @ along / max(along @ along, 1e-300)
            foot = start + np.clip(share, 0, 1)[:, None] * along
            np.minimum(nearest, np.linalg.norm(self.centroids - foot, axis=1), out=nearest)
        return nearest

    def density(self, distance: Float[np.ndarray, " region"], within: float) -> float:
        """Regions per unit of area among those at most `within` of the outline's side away.

        `distance` is that of each region from whatever is meant, as above; NaN if none is as near.
        """
        close = distance < within * np.sqrt(self.areas.sum())
        area = self.areas[close].sum()
        return close.sum() / area if area else np.nan

    def draw(self, ax: Axes, colour: str = "0.35", boundary_colour: str = "#D55E00") -> None:
        """Draw the regions' outlines, shaded by the logarithm of their area, and the boundary."""
        polygons = [v[:n] for v, n in zip(self.vertices, self.sizes, strict=True)]
        shade = -np.log(np.maximum(self.areas, 1e-300))
        low, high = np.percentile(shade, [5, 95])
        faces = PolyCollection(
            polygons, cmap="Blues", edgecolors=colour, linewidths=0.15, rasterized=True
        )
        faces.set_array(np.clip((shade - low) / max(high - low, 1e-12), 0, 1))
        faces.set_clim(-0.1, 1.2)
        ax.add_collection(faces)
        ax.add_collection(LineCollection(list(self.decision_boundary), colors=boundary_colour))
        ax.set_aspect("equal")
        ax.set_xlim(self.vertices[..., 0].min(), self.vertices[..., 0].max())
        ax.set_ylim(self.vertices[..., 1].min(), self.vertices[..., 1].max())


def slice_regions(
    layers: Layers, plane: Plane, outline: Float[np.ndarray, "corner 2"]
) -> RegionSlice:
    """Find all linear regions of a ReLU network inside a convex outline of a plane.

    Works in float64. A piece whose extent across a boundary is under 1e-9 of the outline's size
    is not split off.

    Args:
        layers: weight [out, in] and bias [out] of each layer.
        plane: the plane, for example from `plane_through`.
        outline: corners of a convex polygon in (s, t), counter-clockwise.

    Raises:
        ValueError: if the layers do not fit the plane or each other.
    """
    size = plane.origin.size
    for i, (weight, bias) in enumerate(layers):
        if np.shape(weight) != (len(bias), size):
            raise ValueError(
                f"layers[{i}] must have weight [out, {size}] and bias [out], and has shapes "
                f"{np.shape(weight)} and {np.shape(bias)}: weights are stored [out, in]."
            )
        size = len(bias)
    vertices = np.array(outline, np.float64)[None]
    tolerance = 1e-9 * np.ptp(vertices[0], axis=0).max()
    # The affine map from (s, t, 1) to the current layer's input, for each polygon.
    maps = np.concatenate([plane.basis, plane.origin[None]]).T[None].astype(np.float64)
    counts = [0] * (len(layers) - 1)
    crossing = [np.zeros(len(bias), bool) for _, bias in layers[:-1]]
    finished = []
    # Depth first, a bounded number of polygons at a time, so that memory stays bounded too.
    pending = [(0, vertices, np.array([len(outline)]), maps)]
    while pending:
        depth, vertices, sizes, maps = pending.pop()
        maps = _apply(*layers[depth], maps)
        if depth == len(layers) - 1:
            finished.append((vertices, sizes, maps))
            continue
        vertices, sizes, parent, crossed = _split_by_layer(vertices, sizes, maps, tolerance)
        counts[depth] += len(vertices)
        crossing[depth] |= crossed
        for i in range(0, len(vertices), _CHUNK):
            piece = vertices[i : i + _CHUNK]
            own = maps[parent[i : i + _CHUNK]]
            centre = _area_and_centroid(piece)[1]
            on = np.einsum("puk,pk->pu", own[:, :, :2], centre) + own[:, :, 2] > 0
            pending.append((depth + 1, piece, sizes[i : i + _CHUNK], own * on[:, :, None]))
    width = max(v.shape[1] for v, _, _ in finished)
    return RegionSlice(
        plane=plane,
        vertices=np.concatenate([_pad(v, width) for v, _, _ in finished]),
        sizes=np.concatenate([n for _, n, _ in finished]),
        maps=np.concatenate([m for _, _, m in finished]),
        counts=tuple(counts),
        crossing=tuple(crossing),
    )


def _apply(weight: np.ndarray, bias: np.ndarray, maps: np.ndarray) -> np.ndarray:
    result = np.matmul(np.asarray(weight, np.float64), maps)
    result[:, :, 2] += np.asarray(bias, np.float64)
    return result


def _split_by_layer(
    vertices: np.ndarray, sizes: np.ndarray, maps: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split polygons by all units of a layer; also each piece's parent, and which units split."""
    norms = np.linalg.norm(maps[:, :, :2], axis=2)
    lines = maps / np.where(norms > 0, norms, np.inf)[:, :, None]
    corners = np.concatenate([vertices, np.ones_like(vertices[..., :1])], axis=2)
    height = np.einsum("puk,pck->puc", lines, corners)
    # Only a unit that crosses the parent can cross a piece of it: this keeps each step small.
    crosses = (height.min(axis=2) < -tolerance) & (height.max(axis=2) > tolerance)
    parent = np.arange(len(vertices))
    crossed = np.zeros(maps.shape[1], bool)
    for unit in np.flatnonzero(crosses.any(axis=0)):
        candidates = np.flatnonzero(crosses[parent, unit])
        line = lines[parent[candidates], unit]
        corners = vertices[candidates]
        height = corners @ line[:, :2, None]
        height = height[:, :, 0] + line[:, 2:]
        split = (height.min(axis=1) < -tolerance) & (height.max(axis=1) > tolerance)
        if not split.any():
            continue
        crossed[unit] = True
        cut, corners, height = candidates[split], corners[split], height[split]
        above, n_above = _clip(corners, sizes[cut], height)
        below, n_below = _clip(corners, sizes[cut], -height)
        width = max(vertices.shape[1], above.shape[1], below.shape[1])
        vertices = _pad(vertices, width)
        vertices[cut], sizes[cut] = _pad(above, width), n_above
        vertices = np.concatenate([vertices, _pad(below, width)])
        sizes = np.concatenate([sizes, n_below])
        parent = np.concatenate([parent, parent[cut]])
    return vertices, sizes, parent, crossed


def _clip(
    vertices: np.ndarray, sizes: np.ndarray, height: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The part of each convex polygon with height >= 0 (Sutherland-Hodgman, all at once)."""
    polygons, corners = height.shape
    following, following_height = np.roll(vertices, -1, axis=1), np.roll(height, -1, axis=1)
    keep = (height >= 0) & (np.arange(corners) < sizes[:, None])
    meets = (height >= 0) != (following_height >= 0)
    gap = np.where(meets, height - following_height, 1.0)
    crossing = vertices + (height / gap)[:, :, None] * (following - vertices)
    mask = np.stack([keep, meets], axis=2).reshape(polygons, -1)
    points = np.stack([vertices, crossing], axis=2).reshape(polygons, -1, 2)
    count = mask.sum(axis=1)
    order = np.argsort(~mask, axis=1, kind="stable")[:, : count.max()]
    order = np.where(np.arange(order.shape[1]) < count[:, None], order, -1)
    last = np.take_along_axis(order, count[:, None] - 1, axis=1)
    order = np.where(order < 0, last, order)
    return np.take_along_axis(points, order[:, :, None], axis=1), count


def _pad(vertices: np.ndarray, width: int) -> np.ndarray:
    extra = width - vertices.shape[1]
    return np.pad(vertices, ((0, 0), (0, extra), (0, 0)), mode="edge") if extra else vertices


def _area_and_centroid(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Relative to the first corner, so that small polygons far from the origin lose no digits.
    local = vertices - vertices[:, :1]
    following = np.roll(local, -1, axis=1)
    cross = local[..., 0] * following[..., 1] - local[..., 1] * following[..., 0]
    area = cross.sum(axis=1) / 2
    moment = ((local + following) * cross[..., None]).sum(axis=1) / 6
    flat = np.abs(area) < 1e-300
    centre = np.where(
        flat[:, None], local.mean(axis=1), moment / np.where(flat, 1.0, area)[:, None]
    )
    return np.abs(area), vertices[:, 0] + centre


def _ties(vertices: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Segments, one per region and pair of classes, along which the pair shares the maximum."""
    segments = [np.zeros((0, 2, 2))]
    corners = np.concatenate([vertices, np.ones_like(vertices[..., :1])], axis=2)
    logits = np.einsum("pck,pvk->pvc", maps, corners)
    classes = maps.shape[1]
    # A class that another one beats at every corner is the largest nowhere in the region.
    best_case = (logits[:, :, :, None] - logits[:, :, None, :]).max(axis=1)
    possible = np.all((best_case >= 0) | np.eye(classes, dtype=bool), axis=2)
    for first in range(classes):
        for second in range(first + 1, classes):
            height = logits[:, :, first] - logits[:, :, second]
            on = height >= 0
            meets = on != np.roll(on, -1, axis=1)
            some = possible[:, first] & possible[:, second] & (meets.sum(axis=1) == 2)
            index = np.flatnonzero(some)
            if not len(index):
                continue
            h, v, m = height[index], vertices[index], meets[index]
            gap = np.where(m, h - np.roll(h, -1, axis=1), 1.0)
            points = v + (h / gap)[:, :, None] * (np.roll(v, -1, axis=1) - v)
            ends = points[m].reshape(-1, 2, 2)
            segments.append(_where_largest(ends, maps[index], first))
    return np.concatenate(segments)


def _where_largest(ends: np.ndarray, maps: np.ndarray, leader: int) -> np.ndarray:
    """Shorten each segment to the part where no logit exceeds that of `leader`."""
    margin = maps[:, leader : leader + 1] - maps
    lead = np.einsum("pck,pek->pec", margin[:, :, :2], ends) + margin[:, None, :, 2]
    # The pair's own margins are rounding noise along its tie.
    scale = 1e-12 * np.abs(maps).max(axis=(1, 2), initial=0)[:, None]
    start, end = lead[:, 0] + scale, lead[:, 1] + scale
    root = start / np.where(start == end, 1.0, start - end)
    low = np.where((start < 0) & (end >= 0), root, 0.0).max(axis=1)
    high = np.where((start >= 0) & (end < 0), root, 1.0).min(axis=1)
    alive = (low < high) & ~np.any((start < 0) & (end < 0), axis=1)
    along = ends[:, 1] - ends[:, 0]
    shares = np.stack([low, high], axis=1)[alive]
    return ends[alive][:, :1] + shares[:, :, None] * along[alive][:, None]
