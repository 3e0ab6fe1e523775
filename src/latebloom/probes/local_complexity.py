"""Local complexity: how many units switch sign in a small neighbourhood of a point.

A ReLU network is affine on each of its linear regions, and a region boundary is a place where
some pre-activation is zero. Counting regions near a point is out of reach in high dimension, so
Humayun, Balestriero and Baraniuk (2024, "Deep Networks Always Grok and Here is Why",
arXiv:2402.15555, section 3) count the units whose pre-activation changes sign over the vertices of
a small cross-polytope around the point. The count needs no labels. For the first layer it is
exact; deeper layers see only the image of the vertices, so there it is a lower bound. For a
smooth activation (GELU, tanh) it is a proxy.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

Preactivations = Callable[[Float[Array, "batch ..."]], tuple[Float[Array, "batch ..."], ...]]
"""Maps a batch of inputs to one array per layer, each of shape [batch, ...units]."""


def random_frames(
    key: Key[Array, ""], dimension: int, directions: int = 25, frames: int = 1
) -> Float[Array, "frame direction dimension"]:
    """Draw random frames of orthonormal directions in input space.

    The same frame is meant to be used for all points (as the paper does), so that the counts of
    two points, or of two moments in training, differ by the network alone. Counts made with one
    frame are correlated: use several and average.

    Raises:
        ValueError: if more directions are asked for than the space has dimensions.
    """
    if not 1 <= directions <= dimension:
        raise ValueError(
            f"directions={directions} orthonormal directions do not fit in a space of dimension "
            f"{dimension}: choose 1 <= directions <= {dimension}."
        )
    gaussian = jax.random.normal(key, (frames, dimension, directions))
    return jnp.swapaxes(jnp.linalg.qr(gaussian)[0], 1, 2)


def cross_polytope(
    x: Float[Array, " point *feature"],
    frame: Float[Array, "direction dimension"],
    radius: Float[Array, ""] | float,
    include_centre: bool = False,
) -> Float[Array, "point vertex *feature"]:
    """Vertices x + r v and x - r v for every direction v of the frame, the plus signs first.

    `include_centre` appends x itself as a last vertex.
    """
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(frame.dtype)
    offsets = radius * jnp.concatenate([frame, -frame])
    if include_centre:
        offsets = jnp.concatenate([offsets, jnp.zeros_like(offsets[:1])])
    return x[:, None] + offsets.reshape(-1, *x.shape[1:]).astype(x.dtype)


def switching_units(
    preactivations: Float[Array, "point vertex *unit"],
) -> Bool[Array, " point *unit"]:
    """Units that are on (z > 0) at some vertex of a point's neighbourhood and off at another."""
    on = preactivations > 0
    return jnp.any(on != on[:, :1], axis=1)


def local_complexity(
    preactivations: Preactivations,
    x: Float[Array, " point *feature"],
    frames: Float[Array, "frame direction dimension"],
    radius: float | Float[Array, ""] | Float[Array, " radius"] = 0.05,
    *,
    include_centre: bool = False,
    chunk: int = 64,
) -> Int[Array, "*radius frame point layer"]:
    """Number of units of each layer that switch over the cross-polytope around each point.

    Sum over the last axis for the LC of a point, then average over points and frames for the
    curve that the paper draws. Choose the radius so that at initialisation 5 to 50 % of the units
    switch: a large one saturates at the layer width, a tiny one gives zero. Traceable by
    `jax.jit`; a network with batch norm has to be in evaluation mode.

    Args:
        preactivations: the network, as a function from a batch of inputs to a tuple with one
            array per layer, of shape [batch, units] or [batch, ...] (channels and pixels of a
            feature map are all units). The paper counts the logits as a layer too.
        x: points, of any feature shape; whole numbers are taken as single-precision ones.
        frames: orthonormal directions in the flattened feature space, from `random_frames`.
        radius: distance of the vertices from the point, in units of x; a vector adds a leading
            axis to the result.
        include_centre: count the point itself as a vertex.
        chunk: points per forward pass; memory grows with chunk * 2 * directions.

    Raises:
        ValueError: if the frames do not have the dimension of the points.
    """
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(jnp.float32)  # a radius in whole numbers would be 0
    dimension = x[0].size
    if frames.ndim != 3 or frames.shape[-1] != dimension:
        raise ValueError(
            f"frames must have shape (frame, direction, {dimension}) for points with {dimension} "
            f"features, and have shape {frames.shape}: make them with random_frames(key, "
            f"{dimension})."
        )

    def count(point: Float[Array, " *feature"], frame: Array, r: Array) -> Int[Array, " layer"]:
        vertices = cross_polytope(point[None], frame, r, include_centre)[0]
        layers = preactivations(vertices)
        return jnp.stack([switching_units(z[None]).sum(dtype=jnp.int32) for z in layers])

    def count_all(frame: Array, r: Array) -> Int[Array, "point layer"]:
        return jax.lax.map(lambda point: count(point, frame, r), x, batch_size=chunk)

    radii = jnp.asarray(radius, x.dtype)
    counts = jax.lax.map(
        lambda r: jax.lax.map(lambda frame: count_all(frame, r), frames), radii.reshape(-1)
    )
    return counts if radii.ndim else counts[0]


def decision_boundary_points(
    model: Callable[[Float[Array, " batch *feature"]], Float[Array, "batch class"]],
    start: Float[Array, " pair *feature"],
    end: Float[Array, " pair *feature"],
    iterations: int = 20,
) -> tuple[Float[Array, " pair *feature"], Bool[Array, " pair"]]:
    """Points of the decision boundary on segments, by bisection of the predicted class.

    Returns the points and whether the two ends of each segment are given different classes (else
    there need be no boundary between them, and the point is meaningless). A point lies within
    2**-iterations of the segment's length from a place where the class of `start` ends.
    """
    if not jnp.issubdtype(start.dtype, jnp.inexact):
        start, end = start.astype(jnp.float32), end.astype(jnp.float32)
    shape = (-1,) + (1,) * (start.ndim - 1)
    first = jnp.argmax(model(start), axis=-1)
    crosses = first != jnp.argmax(model(end), axis=-1)

    def halve(bounds: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = bounds
        middle = (low + high) / 2
        point = start + middle.reshape(shape) * (end - start)
        same = jnp.argmax(model(point), axis=-1) == first
        return (jnp.where(same, middle, low), jnp.where(same, high, middle)), None

    zeros = jnp.zeros(start.shape[0], start.dtype)
    (low, high), _ = jax.lax.scan(halve, (zeros, zeros + 1), None, length=iterations)
    return start + ((low + high) / 2).reshape(shape) * (end - start), crosses
