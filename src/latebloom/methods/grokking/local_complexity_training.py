"""Training under observation of local complexity, robustness, and the regions of a plane.

Humayun et al. (2024, arXiv:2402.15555) follow a network far past interpolation and watch where its
linear regions go: the local complexity at training, test, random and decision boundary points, the
accuracy under attack, and exact pictures of the regions on a plane through three training points.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int

from latebloom.core.process import Quantity
from latebloom.core.training import Supervised, SupervisedState
from latebloom.data import Dataset
from latebloom.nn import MLP
from latebloom.probes.adversarial import robust_accuracy
from latebloom.probes.local_complexity import decision_boundary_points, local_complexity
from latebloom.probes.regions import Plane, RegionSlice, slice_regions, square_around

POINT_SETS = ("train", "test", "random", "boundary")


class WatchedTraining(Supervised):
    """Supervised learning of an `MLP` with local complexity, attacks and norms observed.

    - `frames`: of the cross-polytopes around the points, see `random_frames`; `radii`: of them.
    - `random_points`: inputs unlike the data; no set of points is larger than this one.
    - `epsilons`: of the attacks on the first `attacked` test examples.
    - `last`: the step at which the attacks are repeated with 50 steps and 3 restarts.
    - `slices`: record the network on a plane through three training points, for `recorded_slice`.
    - `supervised`: of `Supervised`.
    """

    frames: Float[Array, "frame direction feature"]
    random_points: Float[Array, "point feature"]
    radii: tuple[float, ...] = eqx.field(static=True)
    epsilons: tuple[float, ...] = eqx.field(static=True)
    attacked: int = eqx.field(static=True)
    slices: bool = eqx.field(static=True)
    last: Int[Array, ""]

    def __init__(
        self, *, frames: Float[Array, "frame direction feature"],
        random_points: Float[Array, "point feature"], radii: tuple[float, ...],
        epsilons: tuple[float, ...], attacked: int, last: int, slices: bool = False,
        **supervised: Any,
    ):  # fmt: skip
        super().__init__(**supervised)
        self.frames, self.random_points = frames, random_points
        self.radii, self.epsilons = radii, epsilons
        self.attacked, self.slices, self.last = attacked, slices, jnp.int32(last)

    def observe(self, state: SupervisedState) -> dict[str, Array]:
        model, data = state.model, self.dataset(state)
        counts = self.counts(model, data)
        total = counts.sum(axis=-1)
        spread = jnp.sqrt(jnp.nanvar(total, axis=-1) / jnp.isfinite(total).sum(axis=-1))
        x, y = data.x_test[: self.attacked], data.y_test[: self.attacked]
        epsilons = jnp.array(self.epsilons)
        attack_key = jax.random.fold_in(state.key, 0xADE)
        attack = partial(robust_accuracy, model, x, y, attack_key, epsilons, domain=(0.0, 1.0))
        strong = jax.lax.cond(
            state.step == self.last,
            lambda: attack(steps=50, restarts=3),
            lambda: jnp.full_like(epsilons, jnp.nan),
        )
        slope = jax.vmap(jax.grad(lambda point: model(point[None]).max()))
        seen = super().observe(state) | {
            "local_complexity": jnp.nanmean(counts, axis=2),
            "local_complexity_interval": 2.576 * spread,
            "robust_accuracy": attack(steps=10),
            "strong_robust_accuracy": strong,
            "weight_norm": optax.tree.norm([model.layers]),
            "input_gradient_norm": jnp.linalg.norm(slope(x), axis=-1).mean(),
        }
        return seen | (network_on_plane(model, data) if self.slices else {})

    def counts(self, model: MLP, data: Dataset) -> Float[Array, "set radius point layer"]:
        """Local complexity of each point, averaged over frames; NaN where a set has no point."""
        # All sets are as large as the smallest of them.
        n = min(len(self.random_points), len(data.x_train), len(data.x_test))
        partners = jnp.roll(data.x_train, -min(n, len(data.x_train) // 2), axis=0)[:n]
        boundary, crosses = decision_boundary_points(model, data.x_train[:n], partners)
        sets = (data.x_train[:n], data.x_test[:n], self.random_points[:n], boundary)
        counts = jax.lax.map(
            lambda x: local_complexity(model.preactivations, x, self.frames, jnp.array(self.radii)),
            jnp.stack(sets),
        ).mean(axis=2)
        return counts.at[-1].set(jnp.where(crosses[:, None], counts[-1], jnp.nan))

    def quantities(self) -> dict[str, Quantity]:
        depth = len(eqx.filter_eval_shape(self.model, jax.random.key(0)).layers)
        layers = [*(f"hidden {i}" for i in range(1, depth)), "logits"]
        epsilon = {"epsilon": list(self.epsilons)}
        sets = {"points": list(POINT_SETS), "radius": list(self.radii)}
        return super().quantities() | {
            "local_complexity": Quantity(
                "units", ("points", "radius", "layer"), sets | {"layer": layers},
                "units that switch sign near a point", gaps=True,
            ),
            "local_complexity_interval": Quantity(
                "units", ("points", "radius"), sets,
                "half width of the 99 % interval of local complexity over points", gaps=True,
            ),
            "robust_accuracy": Quantity(
                "1", ("epsilon",), epsilon, "test accuracy under PGD, 10 steps"
            ),
            "strong_robust_accuracy": Quantity(
                "1", ("epsilon",), epsilon, "last test accuracy under PGD, 50 steps, 3 restarts",
                gaps=True,
            ),
            "weight_norm": Quantity(about="L2 norm of weights and biases"),
            "input_gradient_norm": Quantity(
                "1 / pixel value", about="mean norm of the largest logit's input gradient at test"
            ),
        }  # fmt: skip


def network_on_plane(model: MLP, data: Dataset) -> dict[str, Array]:
    """The network on the plane through three training points of different classes.

    Its first layer takes plane coordinates, in which `plane_anchors` are the three points.
    """
    y = data.y_train
    second = jnp.argmax(y != y[0])
    third = jnp.argmax((y != y[0]) & (y != y[second]))
    a, b, c = data.x_train[0], data.x_train[second], data.x_train[third]
    basis, triangle = jnp.linalg.qr(jnp.stack([b - a, c - a], axis=1))
    first, *later = model.layers
    layers = [(basis.T @ first.weight, first(a)), *((layer.weight, layer.bias) for layer in later)]
    seen = {"plane_anchors": jnp.concatenate([jnp.zeros((1, 2)), triangle.T])}
    for i, (weight, bias) in enumerate(layers):
        seen |= {f"plane_weight_{i}": weight, f"plane_bias_{i}": bias}
    return seen


def recorded_slice(
    seed: xr.Dataset, observation: int
) -> tuple[RegionSlice, Float[np.ndarray, "3 2"]]:
    """Exact regions on the plane that one seed's trace holds, and the three training points in it.

    Around the points lies a quarter of their extent.
    """
    seen = seed.isel(step=observation)
    layers = [
        (seen[f"plane_weight_{i}"].values.T, seen[f"plane_bias_{i}"].values)
        for i in range(seed.sizes["layer"])
    ]
    anchors = seen.plane_anchors.values.astype(float)
    plane = Plane(np.zeros(2), np.eye(2))
    return slice_regions(layers, plane, square_around(anchors, margin=0.25)), anchors
