"""What federated clients learn: exact quadratics, and networks on labelled examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.calling import call
from latebloom.core.dataset import check_targets
from latebloom.core.process import Quantity
from latebloom.core.training import shuffled
from latebloom.losses import cross_entropy
from latebloom.methods.federated.split import Split
from latebloom.methods.federated.training import Weighing


class Quadratics(eqx.Module):
    """L_i = ||theta - theta_i*||^2 / 2 with exact gradients, begun at theta = 0.

    The optima [clients, dim] are given, or drawn for each seed as standard normal ones. Source:
    Fraboni et al. 2023 (arXiv:2206.10189), examples 1 and 2.
    """

    clients: int = eqx.field(static=True)
    dim: int = eqx.field(static=True)
    optima: Float[Array, "clients dim"] | None = None

    def draw(self, key: PRNGKeyArray) -> Float[Array, "clients dim"]:
        if self.optima is not None:
            return jnp.asarray(self.optima)
        return jax.random.normal(key, (self.clients, self.dim), jnp.result_type(float))

    def start(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        return jnp.zeros(self.dim, jnp.result_type(float))

    def gradient(self, data: Array, params: Array, client: Array, key: PRNGKeyArray) -> Array:
        return params - data[client]

    def observe(self, data: Array, params: Array, by: Weighing) -> dict[str, Array]:
        losses = jnp.square(params - data).sum(axis=1) / 2
        return by.summary("train_loss", losses) | {
            "model": params,
            "optimum": jnp.asarray(by.importance) @ data,
            "surrogate_optimum": jnp.asarray(by.surrogate) @ data,
        }

    def quantities(self) -> dict[str, Quantity]:
        vectors = dict.fromkeys(("model", "optimum", "surrogate_optimum"), Quantity(dims=("dim",)))
        return vectors | {"client_train_loss": Quantity(dims=("client",))}


class Classification(eqx.Module):
    """Cross-entropy of a network on clients with labelled examples, split anew for each seed.

    - `network(key)`: any model that makes outputs of inputs (`latebloom.core.calling.call`); its
      floating-point arrays are trained.
    - `split(key)`: which examples each client has (`latebloom.methods.federated.split.DirichletSplit`).
    - `batch_size`: examples of each local step, drawn afresh without replacement; all of a client's
      if it has fewer.

    Raises `ValueError` for labels that are not indices of the network's outputs.
    """

    network: Callable[[PRNGKeyArray], Any]
    split: Callable[[PRNGKeyArray], Split]
    x_train: Float[Array, "train ..."] = eqx.field(converter=jnp.asarray)
    y_train: Int[Array, " train"] = eqx.field(converter=jnp.asarray)
    x_test: Float[Array, "test ..."] = eqx.field(converter=jnp.asarray)
    y_test: Int[Array, " test"] = eqx.field(converter=jnp.asarray)
    batch_size: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        def outputs(key: PRNGKeyArray, x: Array) -> Array:
            return call(self.network(key), x)

        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if not isinstance(y, jax.core.Tracer):
                shape = eqx.filter_eval_shape(outputs, jax.random.key(0), x)
                check_targets(y, shape, f"the {part} labels")

    def draw(self, key: PRNGKeyArray) -> Split:
        return self.split(key)

    def start(self, key: PRNGKeyArray) -> Any:
        return self.network(key)

    def gradient(self, data: Split, params: Any, client: Array, key: PRNGKeyArray) -> Any:
        size = data.train.shape[1]
        places = shuffled(key, jnp.arange(min(self.batch_size, size)), size)
        rows = data.train[client, places]
        x, y = self.x_train[rows], self.y_train[rows]
        return eqx.filter_grad(lambda network: cross_entropy(call(network, x), y).mean())(params)

    def observe(self, data: Split, params: Any, by: Weighing) -> dict[str, Array]:
        train, test = call(params, self.x_train), call(params, self.x_test)
        right = (test.argmax(axis=1) == self.y_test).astype(jnp.float32)
        each = {
            "train_loss": cross_entropy(train, self.y_train)[data.train],
            "test_loss": cross_entropy(test, self.y_test)[data.test],
            "test_accuracy": right[data.test],
        }
        found: dict[str, Array] = {}
        for name, values in each.items():
            found |= by.summary(name, values.mean(axis=1))
        return found

    def quantities(self) -> dict[str, Quantity]:
        nats = Quantity("nats")
        found = {}
        for name, one in (("train_loss", nats), ("test_loss", nats), ("test_accuracy", Quantity())):
            for prefix in ("", "surrogate_"):
                found |= {f"{prefix}{name}": one, f"{prefix}{name}_spread": one}
            found[f"client_{name}"] = Quantity(one.units, dims=("client",))
        return found
