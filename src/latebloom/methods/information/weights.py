"""How much the weights up to a layer tell about the training set: I(S; theta_l), by SWAG posteriors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

JITTER = 1e-6  # added to every variance
TINY = 1e-30
Estimate = Literal["jensen", "logsumexp"]


class Swag(eqx.Module):
    """A Gaussian posterior of the weights from snapshots along training.

    The mean of all snapshots, their variance along each weight, and as low-rank part the deviations of
    the last `columns` snapshots from the mean at their time; each array of the model is a Gaussian of
    its own.

        swag = Swag.start(model)
        swag = swag.collect(model)    # once an epoch, late in training

    Source: Maddox et al. 2019 (SWAG), as used by Kawaguchi et al. 2023. The variance is accumulated
    by Welford's update, which gives the same number as a mean of squares less the squared mean, but
    survives single precision.
    """

    mean: Float[Array, "*posteriors n"]
    squares: Float[Array, "*posteriors n"]  # sums of squared deviations from the mean
    deviations: Float[Array, "*posteriors columns n"]
    count: Int[Array, "*posteriors"]
    arrays: tuple[tuple[str, int], ...] = eqx.field(static=True)  # path and size, in order

    @classmethod
    def start(cls, model: Any, columns: int = 10) -> Swag:
        """An empty posterior for the floating-point arrays of `model`."""
        if columns < 2:
            raise ValueError(f"columns must be at least 2, not {columns}")
        leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(model, eqx.is_inexact_array))[0]
        arrays = tuple((jax.tree_util.keystr(path), leaf.size) for path, leaf in leaves)
        zeros = jnp.zeros(sum(size for _, size in arrays))
        return cls(zeros, zeros, jnp.zeros((columns, zeros.size)), jnp.int32(0), arrays)

    def collect(self, model: Any, when: bool | Bool[Array, ""] = True) -> Swag:
        """Take in one snapshot; `when=False` changes nothing (for compiled loops)."""
        x, _ = ravel_pytree(eqx.filter(model, eqx.is_inexact_array))
        taken = jnp.asarray(when).astype(jnp.int32)
        count = self.count + taken
        mean = self.mean + taken / jnp.maximum(count, 1) * (x - self.mean)
        squares = self.squares + taken * (x - self.mean) * (x - mean)
        place = self.count % len(self.deviations)  # the oldest row; their order does not matter
        row = jnp.where(taken > 0, x - mean, self.deviations[place])
        return Swag(mean, squares, self.deviations.at[place].set(row), count, self.arrays)

    def variance(self) -> Float[Array, "*posteriors n"]:
        """Of the snapshots along each weight."""
        return self.squares / jnp.maximum(self.count, 1)[..., None]

    def blocks(self) -> dict[str, slice]:
        """Where each array of the model lies in the vectors, by its path."""
        ends = np.cumsum([size for _, size in self.arrays]).tolist()
        starts = [0, *ends[:-1]]
        named = zip(self.arrays, starts, ends, strict=True)
        return {path: slice(start, end) for (path, _), start, end in named}


def stack(posteriors: Sequence[Swag]) -> Swag:
    """Posteriors of one architecture as one, with a leading axis.

    Raises `ValueError` where one of them has fewer than two snapshots.
    """
    for place, swag in enumerate(posteriors):
        if int(swag.count) < 2:
            raise ValueError(
                f"posterior {place} has {int(swag.count)} snapshots: collect at least two of them"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *posteriors)


def layer_index(path: str) -> int:
    """The first index in the path of a weight, as in ".layers[2].weight"; errors say what to do."""
    if found := re.search(r"\[(\d+)\]", path):
        return int(found[1])
    raise ValueError(
        f"the path {path!r} names no layer: give layer_of, a function from path to layer"
    )


def low_rank(
    swag: Swag, as_published: bool | Bool[Array, ""] = False
) -> tuple[Float[Array, "*posteriors n"], Float[Array, "*posteriors columns n"]]:
    """Diagonal and columns of the covariance diag(diagonal) + columns' columns of each array.

    - the rule: variance + 1e-6 on the diagonal, deviations / sqrt(columns - 1);
    - `as_published`: what the authors' code evaluates, deviations neither divided nor with their
      negative entries, which it clamps to 1e-30.
    """
    scaled = swag.deviations / np.sqrt(swag.deviations.shape[-2] - 1)
    columns = jnp.where(as_published, jnp.maximum(swag.deviations, TINY), scaled)
    return swag.variance() + JITTER, columns


def log_density(
    theta: Float[Array, "*batch n"], mean: Float[Array, " n"], diagonal: Float[Array, " n"],
    columns: Float[Array, "k n"],
) -> Float[Array, "*batch"]:  # fmt: skip
    """log N(theta; mean, diag(diagonal) + columns' columns) in nats, at the cost of k n a point.

    By the Woodbury identity and the matrix determinant lemma: only a k x k matrix is eliminated.
    """
    return log_density_by_block(theta, mean, diagonal, columns, [slice(None)])[0]


def log_density_by_block(
    theta: Float[Array, "*batch n"], mean: Float[Array, " n"], diagonal: Float[Array, " n"],
    columns: Float[Array, "k n"], blocks: Sequence[slice],
) -> Float[Array, " blocks *batch"]:  # fmt: skip
    """`log_density` of each block of the weights, which are independent of one another."""
    off, scaled = theta - mean, columns / diagonal
    plain = jnp.square(off) / diagonal + jnp.log(2 * jnp.pi * diagonal)
    total = jnp.stack([plain[..., b].sum(-1) for b in blocks])
    inner = jnp.stack([scaled[:, b] @ columns[:, b].T for b in blocks]) + jnp.eye(len(columns))
    along = jnp.stack([off[..., b] @ scaled[:, b].T for b in blocks])  # [block, *batch, k]
    saved, log_det = jax.vmap(_eliminate)(inner, along.reshape(len(blocks), -1, len(columns)))
    saved, log_det = saved.reshape(total.shape), log_det.reshape(-1, *[1] * (total.ndim - 1))
    return -0.5 * (total - saved + log_det)


def _eliminate(
    a: Float[Array, "k k"], b: Float[Array, "m k"]
) -> tuple[Float[Array, " m"], Float[Array, ""]]:
    """b a^-1 b of each row and log det a, for a positive definite matrix with eigenvalues from 1 on.

    A loop of k pivots. (LAPACK calls inside a compiled loop may wait for each other for ever.)
    """

    def pivot(i: Array, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, ...]:
        a, b, square, log_det = carry
        row, lead = a[i], b[:, i]
        return (
            a - jnp.outer(row, row / row[i]), b - jnp.outer(lead, row / row[i]),
            square + lead**2 / row[i], log_det + jnp.log(row[i]),
        )  # fmt: skip

    start = (a, b, jnp.zeros_like(b[:, 0]), jnp.zeros_like(a[0, 0]))
    _, _, square, log_det = jax.lax.fori_loop(0, len(a), pivot, start)
    return square, log_det


def sample(swag: Swag, key: PRNGKeyArray, samples: int) -> Float[Array, "p samples n"]:
    """Draws from each of the stacked posteriors."""
    diagonal, columns = low_rank(swag)
    p, k, n = columns.shape
    blocks = list(swag.blocks().values())
    noise = jax.random.normal(key, (p, samples, n + k * len(blocks)))
    shared = jnp.split(noise[..., n:], len(blocks), axis=-1)
    parts = [z @ columns[:, :, b] for z, b in zip(shared, blocks, strict=True)]
    own = noise[..., :n] * jnp.sqrt(diagonal)[:, None]
    return swag.mean[:, None] + own + jnp.concatenate(parts, -1)


@eqx.filter_jit
def cumulative_log_densities(
    swag: Swag, key: PRNGKeyArray, *, samples: int = 10,
    layer_of: Callable[[str], int] = layer_index, as_published: bool | Bool[Array, ""] = False,
) -> Float[Array, "layers p samples p"]:  # fmt: skip
    """log q_j(theta) in nats of weights theta drawn from q_i, for all pairs of stacked posteriors.

    Row l of the result counts the arrays whose layer is the l-th or an earlier one; `layer_of` maps
    the path of an array to its layer. Weights are always drawn from the true posteriors;
    `as_published` changes the densities alone, as in the authors' code (see `low_rank`).
    """
    theta, blocks = sample(swag, key, samples), swag.blocks()

    def under(q: tuple[Array, Array, Array]) -> Array:
        return _by_layer(log_density_by_block(theta, *q, list(blocks.values())), blocks, layer_of)

    found = jax.lax.map(under, (swag.mean, *low_rank(swag, as_published)))
    return jnp.cumsum(jnp.moveaxis(found, 0, -1), axis=0)


def _by_layer(
    values: Float[Array, "blocks ..."], blocks: dict[str, slice], layer_of: Callable[[str], int]
) -> Float[Array, "layers ..."]:
    layers = np.array([layer_of(path) for path in blocks])
    return jnp.stack([values[layers == layer].sum(0) for layer in np.unique(layers)])


def single_seed_information(
    log_q: Float[Array, "layers instances members samples instances members"],
    how: Estimate = "jensen",
) -> Float[Array, "layers members"]:
    """I(S; theta_l) in nats for each member (seed): data instances differ, the seed does not.

    `log_q[l, d, m, t, e, k]` is the log density under the posterior of instance e, member k, of the
    t-th draw from that of instance d, member m. The prior is the average of the instances'
    posteriors: of log densities for "jensen" (an upper bound), of densities for "logsumexp" (which
    cannot exceed the log of the number of instances).

    Source: Kawaguchi et al. 2023, their Ĭ(S; theta_l).
    """
    own = jnp.einsum("ldmtem->lmdte", log_q)
    posterior = jnp.einsum("lmdtd->lmdt", own)
    if how == "jensen":
        prior = own.mean(-1)
    elif how == "logsumexp":
        prior = jax.nn.logsumexp(own, axis=-1) - jnp.log(own.shape[-1])
    else:
        raise ValueError(f"how must be 'jensen' or 'logsumexp', not {how!r}")
    return (posterior - prior).mean((-1, -2))


def multi_seed_information(
    log_q: Float[Array, "layers instances members samples instances members"],
) -> Float[Array, " layers"]:
    """I(S; theta_l) in nats with averages of log densities over seeds in both places.

    The posterior of an instance is the average over all members, the prior that over all instances
    and members (their double Jensen bound). `log_q` as in `single_seed_information`.
    """
    posterior = jnp.einsum("ldmtdk->ldmtk", log_q).mean(-1)
    return (posterior - log_q.mean((-1, -2))).mean((1, 2, 3))


@eqx.filter_jit
def kl_information(
    swag: Swag, layer_of: Callable[[str], int] = layer_index
) -> Float[Array, " layers"]:
    """I(S; theta_l) in nats from divergences of the diagonal parts, without sampling.

    -mean_i log mean_j exp(-KL(q_i || q_j)), an upper bound for a mixture of the stacked posteriors
    (Kolchinsky and Tracey 2017) that cannot exceed the log of their number.
    """
    blocks, variance = swag.blocks(), swag.variance() + JITTER
    parts = [gaussian_kl(swag.mean[:, b], variance[:, b]) for b in blocks.values()]
    total = jnp.cumsum(_by_layer(jnp.stack(parts), blocks, layer_of), axis=0)
    return -(jax.nn.logsumexp(-total, axis=-1) - jnp.log(total.shape[-1])).mean(-1)


def gaussian_kl(mean: Float[Array, "p n"], variance: Float[Array, "p n"]) -> Float[Array, "p p"]:
    """KL(q_i || q_j) in nats of all pairs of diagonal Gaussians."""

    def from_one(m: Array, v: Array) -> Array:
        ratio = v / variance
        return 0.5 * (jnp.square(m - mean) / variance + ratio - 1 - jnp.log(ratio)).sum(-1)

    return jax.vmap(from_one)(mean, variance)
