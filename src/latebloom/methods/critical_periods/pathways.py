"""Networks of two pathways that see the same input, deprived for a while.

y = f_a(x) + f_b(x), each pathway a deep network; loss 1/2 sum (y - target)^2, full-batch gradient
descent. The layers start balanced and aligned with the task's singular vectors, so that without an
activation every mode of the task learns alone (see `modes`). Kleinman, Achille, Soatto (arXiv
2308.12221), section 3 and their published experiments.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from latebloom.core.process import Process, Quantity
from latebloom.methods.critical_periods.modes import (
    PATHS,
    dominance,
    drift,
    euler,
    runge_kutta,
    strength,
)
from latebloom.nn.mlp import ACTIVATIONS

Layers = tuple[Float[Array, "out in"], ...]
Activation = Literal["identity", "relu", "tanh"]


def hierarchy(levels: int = 3) -> np.ndarray:
    """Attributes [2^levels items, 2^(levels+1) - 1] of the leaves of a binary tree, coarse first.

    One attribute for each node of the tree, 1 for the leaves below it. With three levels, eight items
    and 15 attributes with singular values sqrt(15), sqrt(7), sqrt(3) twice and 1 four times.
    """
    items = 2**levels
    blocks = [np.kron(np.eye(2**k), np.ones((items >> k, 1))) for k in range(levels + 1)]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def aligned_layers(
    key: PRNGKeyArray, u: Float[Array, "out modes"], v: Float[Array, "in modes"],
    strengths: Float[Array, " width"], depth: int,
) -> Layers:  # fmt: skip
    """Balanced layers W_1 ... W_D whose product is u diag(strengths) v^T, in a random hidden basis.

    W_1 = R d v^T, W_i = R d R^T, W_D = u d R^T with d = diag(strengths^(1/D)), R random orthogonal.
    Strengths beyond the modes are in the middle layers only, where nothing moves them.

    Raises `ValueError` for a depth below 2 or fewer hidden units than modes.
    """
    width, modes = len(strengths), u.shape[1]
    if depth < 2 or width < modes:
        raise ValueError(
            f"aligned layers need a depth of at least 2 and a width of at least {modes} (one unit a "
            f"mode), not depth {depth} and width {width}"
        )
    r = jax.random.orthogonal(key, width, dtype=u.dtype)
    d = strengths ** (1 / depth)
    first = (r[:, :modes] * d[:modes]) @ v.T
    middle = (r * d) @ r.T
    last = (u * d[:modes]) @ r[:, :modes].T
    return (first, *[middle] * (depth - 2), last)


def respond(layers: Layers, x: Float[Array, "batch in"], activation: str) -> Array:
    """Outputs of one pathway; the activation follows every layer, the last included."""
    act = ACTIVATIONS[activation]
    for weight in layers:
        x = act(x @ weight.T)
    return x


class Deprived(NamedTuple):
    layers: tuple[Layers, Layers]
    flow: Float[Array, "mode path"]  # weights p of the exact flow
    discrete: Float[Array, "mode path"]  # and of Euler steps as long as the learning rate
    key: PRNGKeyArray
    step: Int[Array, ""]


class TwoPathways(Process):
    """Gradient descent on both pathways; the ODE of the modes runs along.

    - `target` [items, attributes]: the input of item i is the i-th unit vector.
    - `start`, `length`: steps in which pathway b is gated, i.e. it is heard but does not learn; with
      `probability` below 1 only in that share of the steps, drawn at random.
    - `blocked`: mode (0 is the strongest) that pathway a can never express; None for none.
    - `epsilon`, `spread`: initial strengths are epsilon (1 + spread N(0, 1)), the same for both
      pathways, sorted from the largest down.

    Observed for each pathway and mode: `strength` K = diag(u^T Omega v), what the `flow` says
    (Runge-Kutta) and what Euler steps say (`euler`). `fit_dominance` is (A - B) / (A + B) with A the
    inner product of pathway a's outputs with the target.

    Raises `ValueError` for an unknown mode or activation, or layers too narrow.
    """

    target: Float[Array, "items attributes"]
    u: Float[Array, "attributes mode"]
    s: Float[Array, " mode"]
    v: Float[Array, "items mode"]
    shown: Float[Array, " mode"]  # 0 at the mode that pathway a cannot express
    rate: Array
    start: Array
    length: Array
    probability: Array
    epsilon: Array
    spread: Array
    depth: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self, target: ArrayLike, *, depth: int, start: int = 0, length: int = 0,
        blocked: int | None = None, probability: float = 1.0, rate: float = 0.01,
        epsilon: float = 0.01, spread: float = 0.1, width: int = 100,
        activation: Activation = "identity",
    ):  # fmt: skip
        matrix = np.asarray(target, np.float32)
        u, s, vt = np.linalg.svd(matrix.T.astype(float), full_matrices=False)
        modes = len(s)
        if depth < 2 or width < modes:
            raise ValueError(
                f"depth must be at least 2 and width at least {modes} (the modes of the target), not "
                f"{depth} and {width}"
            )
        if blocked is not None and not 0 <= blocked < modes:
            raise ValueError(f"blocked must be a mode from 0 to {modes - 1}, not {blocked}")
        if activation not in ("identity", "relu", "tanh"):
            raise ValueError(f"activation must be identity, relu or tanh, not {activation!r}")
        self.target = jnp.asarray(matrix)
        self.u, self.s, self.v = (jnp.asarray(x, jnp.float32) for x in (u, s, vt.T))
        self.shown = jnp.asarray(
            np.arange(modes) != (-1 if blocked is None else blocked), jnp.float32
        )
        self.rate, self.probability = jnp.float32(rate), jnp.float32(probability)
        self.epsilon, self.spread = jnp.float32(epsilon), jnp.float32(spread)
        self.start, self.length = jnp.int32(start), jnp.int32(length)
        self.depth, self.width, self.activation = depth, width, activation

    def init(self, key: PRNGKeyArray) -> Deprived:
        noise_key, basis_key, step_key = jax.random.split(key, 3)
        noise = jax.random.normal(noise_key, (self.width,))
        strengths = jnp.sort(self.epsilon * (1 + self.spread * noise), descending=True)
        layers = aligned_layers(basis_key, self.u, self.v, strengths, self.depth)
        p = strengths[: len(self.s)] ** (1 / self.depth)
        both = jnp.stack([p, p], axis=-1)
        return Deprived((layers, layers), both, both, step_key, jnp.int32(0))

    def outputs(self, layers: tuple[Layers, Layers]) -> tuple[Array, Array]:
        """What each pathway says of every item, [items, attributes] twice."""
        x = jnp.eye(len(self.target), dtype=self.target.dtype)
        a, b = (respond(path, x, self.activation) for path in layers)
        u, v = (basis * (1 - self.shown) for basis in (self.u, self.v))
        a = a - v @ (v.T @ a)  # rows and columns of the blocked mode are taken out
        return a - (a @ u) @ u.T, b

    def loss(self, layers: tuple[Layers, Layers], gate: Array) -> Float[Array, ""]:
        """1/2 sum (y_a + y_b - target)^2; no gradient reaches pathway b where `gate` is 0."""
        a, b = self.outputs(layers)
        heard = jax.lax.stop_gradient(b)
        return 0.5 * jnp.sum((a + heard + gate * (b - heard) - self.target) ** 2)

    def step(self, state: Deprived) -> Deprived:
        within = (state.step >= self.start) & (state.step < self.start + self.length)
        draw = jax.random.uniform(jax.random.fold_in(state.key, state.step))
        gate = 1.0 - (within & (draw < self.probability)).astype(jnp.float32)
        gradients = jax.grad(self.loss)(state.layers, gate)
        layers = jax.tree.map(lambda w, g: w - self.rate * g, state.layers, gradients)

        free = jnp.stack([jnp.float32(1), gate])
        expressed = jnp.stack([self.shown, jnp.ones_like(self.shown)], axis=-1)

        def field(p: Array) -> Array:
            return drift(p, self.s, self.depth, 0.0, free, expressed)

        half = runge_kutta(field, state.flow, self.rate / 2)
        return Deprived(
            layers,
            runge_kutta(field, half, self.rate / 2),
            euler(field, state.discrete, self.rate),
            state.key,
            state.step + 1,
        )

    def observe(self, state: Deprived) -> dict[str, Array]:
        outputs = self.outputs(state.layers)
        seen = jnp.stack([self.u.T @ y.T @ self.v for y in outputs], axis=-1)
        expressed = jnp.stack([self.shown, jnp.ones_like(self.shown)], axis=-1)
        held = jnp.diagonal(seen).T
        mixed = seen * (1 - jnp.eye(len(self.s)))[..., None]
        fits = jnp.stack([jnp.sum(y * self.target) for y in outputs])
        return {
            "strength": held,
            "flow": expressed * strength(state.flow, self.depth),
            "euler": expressed * strength(state.discrete, self.depth),
            "dominance": dominance(held),
            "fit_dominance": dominance(fits),
            "mixing": jnp.abs(mixed).max(),
            "train_loss": self.loss(state.layers, jnp.float32(1)),
        }

    def quantities(self) -> dict[str, Quantity]:
        cell = ("mode", "path")
        labels = {"mode": list(range(1, len(self.s) + 1)), "path": PATHS}
        return {
            "strength": Quantity("singular value", cell, labels, "pathway singular value"),
            "flow": Quantity("singular value", cell, labels, "the same by the exact flow"),
            "euler": Quantity("singular value", cell, labels, "the same by Euler steps"),
            "dominance": Quantity("1", ("mode",), about="(K_a - K_b) / (K_a + K_b)", gaps=True),
            "fit_dominance": Quantity("1", about="dominance over the whole target", gaps=True),
            "mixing": Quantity("singular value", about="largest off-diagonal strength"),
            "train_loss": Quantity("squared units", about="training loss"),
        }
