"""A hypernetwork before training: what the size of its settings does to its primary network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.nn import Hypernetwork

INPUTS, EXAMPLES = 8, 64


class Start(Process):
    """A hypernetwork before training, as the size of its settings grows; a step changes nothing.

    `model(key)` builds it, of one setting, around an `MLP` of 8 inputs. Of 64 Gaussian inputs are
    observed: `spread` [size], standard deviation of the predicted weights; `activation` [size,
    layer], root mean square before each activation of the primary; `gradient` [size], norm of the
    gradient of the squared distance of the outputs from 1.
    """

    model: Callable[[PRNGKeyArray], Hypernetwork]
    sizes: Float[Array, " size"]

    def init(self, key: PRNGKeyArray) -> tuple[Hypernetwork, Array]:
        model_key, input_key = jax.random.split(key)
        return self.model(model_key), jax.random.normal(input_key, (EXAMPLES, INPUTS))

    def step(self, state: tuple[Hypernetwork, Array]) -> tuple[Hypernetwork, Array]:
        return state

    def observe(self, state: tuple[Hypernetwork, Array]) -> dict[str, Array]:
        model, x = state
        params, rest = eqx.partition(model, eqx.is_inexact_array)

        def at(size: Array) -> tuple[Array, Array, Array]:
            weights = model.weights(size[None, None])
            flat = jnp.concatenate([w.ravel() for w in jax.tree.leaves(weights)])
            seen = model.primary(size[None]).preactivations(x)

            def loss(params: Any) -> Array:
                return jnp.square(eqx.combine(params, rest).primary(size[None])(x) - 1).mean()

            norm = optax.tree.norm(jax.grad(loss)(params))
            return flat.std(), jnp.stack([jnp.sqrt(jnp.square(s).mean()) for s in seen]), norm

        spread, activation, gradient = jax.lax.map(at, self.sizes)
        return {"spread": spread, "activation": activation, "gradient": gradient}

    def quantities(self) -> dict[str, Quantity]:
        sizes = {"size": np.asarray(self.sizes).tolist()}
        return {
            "spread": Quantity("1", ("size",), sizes, "std of predicted weights"),
            "activation": Quantity("1", ("size", "layer"), sizes, "rms pre-activation"),
            "gradient": Quantity("1", ("size",), sizes, "norm of the gradient"),
        }
