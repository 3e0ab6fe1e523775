"""How much a layer tells about its input: I(X; Z), and I(X; Z | Y) beyond the class.

All in nats; divide by `NATS_PER_BIT` for bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

Marginal = Literal["mc", "jensen"]
NATS_PER_BIT = float(np.log(2))
SIGMAS = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0)
LOG_2PI = float(np.log(2 * np.pi))


@jax.custom_vjp
def gaussian_log_densities(
    z: Float[Array, "n d"], mean: Float[Array, "m d"], sigma: Float[Array, "m d"]
) -> Float[Array, "n m"]:
    """log N(z_i; mean_j, diag(sigma_j^2)) of every pair, in nats."""
    off = (z[:, None] - mean) * (1 / sigma)
    return -0.5 * jnp.square(off).sum(-1) - jnp.log(sigma).sum(-1) - 0.5 * z.shape[1] * LOG_2PI


def _densities_back(
    inputs: tuple[Array, Array, Array], slope: Float[Array, "n m"]
) -> tuple[Array, Array, Array]:
    """The gradient row by row of z; autodiff would store arrays [n, m, d]."""
    z, mean, sigma = inputs
    precise = 1 / sigma

    def row(
        sums: tuple[Array, Array], at: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], Array]:
        off = (at[0] - mean) * precise
        pull = at[1][:, None] * off
        scaled = pull * precise
        return (sums[0] + scaled, sums[1] + pull * off), -scaled.sum(0)

    nothing = (jnp.zeros_like(mean), jnp.zeros_like(sigma))
    (of_mean, squares), of_z = jax.lax.scan(row, nothing, (z, slope))
    return of_z, of_mean, (squares - slope.sum(0)[:, None]) * precise


gaussian_log_densities.defvjp(
    lambda z, mean, sigma: (gaussian_log_densities(z, mean, sigma), (z, mean, sigma)),
    _densities_back,
)


@eqx.filter_jit
def information(
    z: Float[Array, "n d"], mean: Float[Array, "n d"], sigma: Float[Array, "n d"],
    how: Marginal = "mc", labels: Int[Array, " n"] | None = None,
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:  # fmt: skip
    """I(X; Z) in nats of a Gaussian encoder p(z|x) = N(mean, diag(sigma^2)), from one z an input.

    The mean over i of log p(z_i|x_i) minus the log of the marginal, which is an average over the
    same inputs:

    - "mc": log mean_j p(z_i|x_j), a lower bound in expectation that cannot exceed log n.
    - "jensen": mean_j log p(z_i|x_j), an upper bound, far too high where the encodings of
      different inputs hardly overlap.

    With `labels` it is I(X; Z | Y): the marginal runs over the inputs of the same class, and
    classes count by their frequency. `weights` of 0 leave inputs out.

    Source: Kawaguchi et al. 2023 (arXiv 2305.18887), their estimates Î and Ĭ.
    """
    weights = jnp.ones(len(z)) if weights is None else weights
    pairs = jnp.broadcast_to(weights, (len(z), len(z)))
    if labels is not None:
        pairs = pairs * (labels[:, None] == labels)
    found = _pointwise(gaussian_log_densities(z, mean, sigma), pairs, how)
    return (weights * found).sum() / weights.sum()


def _pointwise(
    log_p: Float[Array, "n n"], pairs: Float[Array, "n n"], how: Marginal
) -> Float[Array, " n"]:
    """log p(z_i|x_i) minus the log marginal over the inputs j that `pairs` [i, j] counts."""
    share = pairs / jnp.maximum(pairs.sum(1, keepdims=True), 1e-12)
    if how == "mc":
        marginal = jax.nn.logsumexp(log_p, axis=1, b=share)
    elif how == "jensen":
        marginal = jnp.where(share > 0, share * log_p, 0).sum(1)
    else:
        raise ValueError(f"how must be 'mc' or 'jensen', not {how!r}")
    counted = jnp.diagonal(pairs) > 0
    return jnp.where(counted, jnp.diagonal(log_p) - jnp.where(counted, marginal, 0), 0)


@eqx.filter_jit
def binned_information(
    features: Float[Array, "n d"], bins: int = 10, labels: Int[Array, " n"] | None = None
) -> Float[Array, ""]:
    """I(X; Z) = H(Z) in nats of a layer whose activations are cut into `bins` equal bins.

    The bins reach from the lowest to the highest activation of the layer (of the class, with
    `labels`); each distinct row of bin numbers is one value of Z. With `labels`: I(X; Z | Y), classes
    weighted by frequency. It cannot exceed log n, and reaches it as soon as all rows differ.

    Source: Kawaguchi et al. 2023, binning variant.
    """
    labels = jnp.zeros(len(features), int) if labels is None else labels
    same = labels[:, None] == labels
    low = jnp.where(same, features.min(1), jnp.inf).min(1)[:, None]
    high = jnp.where(same, features.max(1), -jnp.inf).max(1)[:, None]
    width = jnp.maximum((high - low) / bins, 1e-12)
    codes = jnp.clip(jnp.floor((features - low) / width), 0, bins - 1)
    alike = (codes[:, None] == codes).all(-1) & same
    return -jnp.log(alike.sum(1) / same.sum(1)).mean()


class Noise(NamedTuple):
    """Noise chosen for each layer, and what the layers tell once it is added (nats)."""

    sigma: Float[Array, " layers"]
    information: Float[Array, " layers"]
    given_class: Float[Array, " layers"]
    violations: Int[Array, ""]  # layers at which no sigma satisfied the data-processing inequality
    table: Float[Array, "sigmas layers"]  # I(X; Z) at every sigma
    log_marginal: Float[Array, "sigmas layers"]


@eqx.filter_jit
def probe_with_noise(
    layers: Sequence[Float[Array, "n _d"]], labels: Int[Array, " n"], key: PRNGKeyArray, *,
    sigmas: Sequence[float] = SIGMAS, how: Marginal = "mc",
) -> Noise:  # fmt: skip
    """I(X; Z) and I(X; Z | Y) of deterministic layers, Z being the activations plus N(0, sigma^2).

    Without noise both would be infinite. From the last layer to the first, each layer gets the
    sigma with the highest mean log marginal density of its activations (as a kernel density from
    the other inputs) among those at which it tells at least as much about X as the layer above it;
    where there is none, the highest of all, counted as a violation. `layers` are in order of depth.

    The choice decides the result: look at `table` before trusting it.

    Source: Kawaguchi et al. 2023, their code's rule for the CIFAR networks. Differences: the noise is
    drawn and every dimension counted, and no input serves as a kernel for itself, which would
    reward the smallest sigma.
    """
    scale = jnp.asarray(sigmas)
    n = len(labels)
    same = (labels[:, None] == labels).astype(float)
    table, given, marginals = [], [], []
    sizes = [layer.shape[1] for layer in layers]
    noises = jnp.split(jax.random.normal(key, (n, sum(sizes))), np.cumsum(sizes)[:-1], axis=1)
    for layer, noise in zip(layers, noises, strict=True):
        columns = jax.vmap(_noisy, (None, None, None, None, 0))(layer, noise, same, how, scale)
        for column, values in zip((table, given, marginals), columns, strict=True):
            column.append(values)
    found, marginal = jnp.stack(table, 1), jnp.stack(marginals, 1)
    chosen, violations = choose_sigma(found, marginal)
    rows = jnp.arange(len(layers))
    return Noise(
        scale[chosen], found[chosen, rows], jnp.stack(given, 1)[chosen, rows], violations, found,
        marginal,
    )  # fmt: skip


def _noisy(
    layer: Float[Array, "n d"], noise: Float[Array, "n d"], same: Float[Array, "n n"], how: Marginal,
    sigma: Float[Array, ""],
) -> tuple[Array, Array, Array]:  # fmt: skip
    """I(X; Z), I(X; Z | Y) and the mean log density of the activations, at one sigma.

    |f_i + sigma e_i - f_j|^2 is opened up, so that all sigmas share the products of all pairs.
    """
    n, size = layer.shape
    square = jnp.square(layer[:, None] - layer).sum(-1)
    cross = (noise * layer).sum(1, keepdims=True) - noise @ layer.T
    own = jnp.square(noise).sum(1, keepdims=True)
    constant = -size * (jnp.log(sigma) + 0.5 * LOG_2PI)
    log_p = constant - (square + 2 * sigma * cross + sigma**2 * own) / (2 * sigma**2)
    clean, others = constant - square / (2 * sigma**2), ~jnp.eye(n, dtype=bool)
    if how == "mc":
        density = jax.nn.logsumexp(clean, axis=1, b=others) - jnp.log(n - 1)
    else:
        density = (others * clean).sum(1) / (n - 1)
    everyone = jnp.ones((n, n))
    plain, given = (_pointwise(log_p, pairs, how).mean() for pairs in (everyone, same))
    return plain, given, density.mean()


def choose_sigma(
    information: Float[Array, "sigmas layers"], log_marginal: Float[Array, "sigmas layers"]
) -> tuple[Int[Array, " layers"], Int[Array, ""]]:
    """Which sigma each layer gets by the rule of `probe_with_noise`, and the number of violations."""
    floor, chosen, violations = -jnp.inf, [], jnp.int32(0)
    for layer in reversed(range(information.shape[1])):
        allowed = information[:, layer] >= floor
        possible = allowed.any()
        best = jnp.where(allowed | ~possible, log_marginal[:, layer], -jnp.inf).argmax()
        violations += ~possible
        floor = information[best, layer]
        chosen.append(best)
    return jnp.stack(chosen[::-1]), violations
