"""The empirical neural tangent kernel of a model, and what it says about lazy or rich learning.

Jacot, Gabriel, Hongler (2018), arXiv 1806.07572, define the kernel; Kumar, Bordelon, Gershman,
Pehlevan (2024), arXiv 2310.06110, use its alignment and its movement to date grokking.
"""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped

from latebloom.core.calling import how_to_call
from latebloom.core.statistics import trainable_leaves

Model = Callable[[Array], Array]


@eqx.filter_jit
def empirical_ntk(
    model: Model,
    x: Shaped[Array, "n ..."],
    other: Shaped[Array, "m ..."] | None = None,
    *,
    outputs: Literal["trace", "full"] = "trace",
    chunk: int = 128,
) -> Float[Array, "n m ..."]:
    """Return K(x, x') = <df(x)/dtheta, df(x')/dtheta> over the model's trained arrays.

    `model` maps a batch `[n, ...]` to `[n]` or `[n, out]` and treats its rows independently, or takes
    one example (`latebloom.core.calling.how_to_call`).
    `outputs="trace"` sums over equal outputs and gives `[n, m]`; `"full"` gives `[n, m, out, out]`.
    Jacobians (reverse mode, one row per output) exist for two chunks of `chunk` points at a time,
    so that memory is about `2 * chunk * out * parameters` numbers.

    Raises ValueError for a model without floating-point arrays, one that does not take such inputs,
    and outputs of another rank.
    """
    if outputs not in ("trace", "full"):
        raise ValueError(f"outputs must be 'trace' or 'full', got {outputs!r}.")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}.")
    params, static = eqx.partition(model, trainable_leaves(model))
    if not jax.tree.leaves(params):
        raise ValueError(
            "model holds no floating-point arrays, so it has no tangent kernel: "
            "pass an Equinox module (or a module bound with jax.tree_util.Partial)."
        )
    apply = how_to_call(model, x)
    rank = eqx.filter_eval_shape(apply, model, x[:1], None, False).ndim
    if rank not in (1, 2):
        raise ValueError(f"model must return [batch] or [batch, out], got {rank} dimensions.")

    def output(p: PyTree, point: Array) -> Array:
        return jnp.atleast_1d(apply(eqx.combine(p, static), point[None], None, False)[0])

    def jacobian(points: Array) -> list[Array]:
        leaves = jax.tree.leaves(jax.vmap(jax.jacrev(output), (None, 0))(params, points))
        return [leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves]

    pattern = "aop,bop->ab" if outputs == "trace" else "aop,bqp->aboq"

    def block(rows: list[Array], columns: list[Array]) -> Array:
        return sum(
            (jnp.einsum(pattern, r, c) for r, c in zip(rows, columns, strict=True)),
            start=jnp.zeros(()),
        )

    if other is None and x.shape[0] <= chunk:
        rows = jacobian(x)
        return block(rows, rows)
    left, right = _chunks(x, chunk), _chunks(x if other is None else other, chunk)

    def row_of_blocks(points: Array) -> Array:
        rows = jacobian(points)
        blocks = jax.lax.map(lambda columns: block(rows, jacobian(columns)), right)
        return jnp.moveaxis(blocks, 0, 1).reshape(blocks.shape[1], -1, *blocks.shape[3:])

    kernel = jax.lax.map(row_of_blocks, left)
    columns = x.shape[0] if other is None else other.shape[0]
    return kernel.reshape(-1, *kernel.shape[2:])[: x.shape[0], :columns]


def _chunks(x: Array, chunk: int) -> Array:
    size = min(chunk, x.shape[0])
    count = -(-x.shape[0] // size)
    padded = jnp.pad(x, ((0, count * size - x.shape[0]),) + ((0, 0),) * (x.ndim - 1), mode="edge")
    return padded.reshape(count, size, *x.shape[1:])


def kernel_alignment(
    kernel: Float[Array, "n n"], targets: Float[Array, " n"] | Float[Array, "n out"]
) -> Float[Array, ""]:
    """Return the centred alignment of a kernel with the targets, 1 for K = y y^T with centred y.

    tr(y_c^T K_c y_c) / (||K_c||_F ||y_c y_c^T||_F) with y_c = y - mean and K_c = K - column means,
    as in the experiments of arXiv 2310.06110 (for one output the last norm is ||y_c||^2). The
    kernel is centred on one side only, which leaves the numerator what it is in CKA (Kornblith et
    al. 2019). NaN for constant targets.
    """
    y = targets.reshape(targets.shape[0], -1)
    if kernel.shape != (y.shape[0], y.shape[0]):
        raise ValueError(
            f"kernel must be [{y.shape[0]}, {y.shape[0]}] to match targets, got {kernel.shape}; "
            "sum over outputs first (outputs='trace')."
        )
    y = y - y.mean(axis=0)
    centred = kernel - kernel.mean(axis=0)
    scale = jnp.linalg.norm(centred) * jnp.linalg.norm(y.T @ y)
    return jnp.einsum("ao,ab,bo->", y, centred, y) / scale


def kernel_weights(
    kernel: Float[Array, "n n"],
    targets: Float[Array, " n"] | Float[Array, "n out"],
    *,
    jitter: float = 1e-10,
) -> Float[Array, "n ..."]:
    """Solve (K + jitter tr(K)/n I) a = y: the dual weights of kernel regression.

    Tangent kernels of nearly linear models are ill-conditioned (the eigenvalues of the quadratic
    part are O(eps^2)), hence the jitter; it is below float32 rounding, so give float64 kernels
    (`with jax.enable_x64():`) wherever the condition number may pass 1e6.
    """
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"kernel must be square, got {kernel.shape}.")
    if targets.shape[0] != kernel.shape[0]:
        raise ValueError(
            f"targets must have one row per kernel row, got {targets.shape[0]} for "
            f"{kernel.shape[0]}."
        )
    n = kernel.shape[0]
    ridge = jitter * jnp.trace(kernel) / n * jnp.eye(n, dtype=kernel.dtype)
    return jnp.linalg.solve(kernel + ridge, targets)


def kernel_regression(
    kernel: Float[Array, "n n"],
    targets: Float[Array, " n"] | Float[Array, "n out"],
    cross: Float[Array, "m n"],
    *,
    jitter: float = 1e-10,
) -> Float[Array, "m ..."]:
    """Return the predictions K(x*, X) K(X, X)^-1 y of kernel regression; see `kernel_weights`.

    With the kernel at initialisation this is where a lazily trained network ends, up to its
    initial output: the plateau from which grokking departs.
    """
    if cross.ndim != 2 or cross.shape[1] != kernel.shape[0]:
        raise ValueError(
            f"cross must be [new points, {kernel.shape[0]} training points], got {cross.shape}."
        )
    return cross @ kernel_weights(kernel, targets, jitter=jitter)


def task_spectrum(
    kernel: Float[Array, "n n"], targets: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return the eigenvalues lambda_k of K/n, largest first, and the coefficients <y, v_k>^2 / n.

    The coefficients sum to mean(y^2). A task whose coefficients sit on small eigenvalues is badly
    aligned with the kernel and is learned late.
    """
    n = kernel.shape[0]
    values, vectors = jnp.linalg.eigh(kernel / n)
    return values[::-1], ((vectors.T @ targets) ** 2 / n)[::-1]


def kernel_movement(kernel: Float[Array, "..."], initial: Float[Array, "..."]) -> Float[Array, ""]:
    """Return ||K_t - K_0||_F / ||K_0||_F: near 0 while learning is lazy."""
    if kernel.shape != initial.shape:
        raise ValueError(
            f"kernel and initial must be of one shape, got {kernel.shape} and {initial.shape}."
        )
    return jnp.linalg.norm(jnp.ravel(kernel - initial)) / jnp.linalg.norm(jnp.ravel(initial))


def parameter_movement(model: PyTree, initial: PyTree) -> Float[Array, ""]:
    """Return |theta_t - theta_0|^2 / |theta_0|^2 over the trained arrays of two models."""
    now, start = (jax.tree.leaves(eqx.filter(m, trainable_leaves(m))) for m in (model, initial))
    if [a.shape for a in now] != [a.shape for a in start]:
        raise ValueError(
            "model and initial must have the same arrays: pass two states of one model."
        )
    moved = sum(jnp.sum((a - b) ** 2) for a, b in zip(now, start, strict=True))
    return jnp.asarray(moved / sum(jnp.sum(b**2) for b in start))
