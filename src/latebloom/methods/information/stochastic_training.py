"""Training under control of I(X; Z): all data instances and seeds of one setting side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.core.training import shuffled
from latebloom.data import Dataset
from latebloom.losses import cross_entropy
from latebloom.methods.information.representation import (
    NATS_PER_BIT,
    binned_information,
    information,
    probe_with_noise,
)
from latebloom.methods.information.weights import (
    Swag,
    cumulative_log_densities,
    kl_information,
    layer_index,
    multi_seed_information,
    single_seed_information,
)
from latebloom.nn import MLP
from latebloom.nn.mlp import Linear

SMALLEST_SIGMA = 1e-10
UNIT_ENTROPY_SIGMA = (2 * jnp.pi * jnp.e) ** -0.5  # of the Gaussian with an entropy of 0 nats


class Instance(NamedTuple):
    """A training set, a test set, and more data of the same source to estimate information on."""

    x: Float[Array, "n d"]
    y: Int[Array, " n"]
    x_test: Float[Array, "test d"]
    y_test: Int[Array, " test"]
    x_more: Float[Array, "more d"]
    y_more: Int[Array, " more"]


def blobs(
    key: PRNGKeyArray, instance: Int[Array, ""] | int, shared: Bool[Array, ""] | bool = False, *,
    train: int = 50, test: int = 250, more: int = 500, classes: int = 5, spread: float = 0.7,
) -> Instance:  # fmt: skip
    """Gaussian clusters in the plane, centres uniform in [-10, 10]^2, as scikit-learn's make_blobs.

    Every instance has its own centres, or, with `shared`, is a random half of one pool of points and
    is tested on the same points: then instances differ in the sample alone, not in difficulty. All
    parts have equally many points of each class, give or take one.

    Raises `ValueError` where `train` is no multiple of `classes`.
    """
    if train % classes:
        raise ValueError(f"train must be a multiple of the {classes} classes, not {train}")
    source = jax.random.fold_in(key, jnp.where(shared, 0, 1 + instance))
    centre_key, point_key = jax.random.split(source)
    centres = jax.random.uniform(centre_key, (classes, 2), minval=-10, maxval=10)
    total = 2 * train + test + more
    y = jnp.arange(total) % classes
    x = centres[y] + spread * jax.random.normal(point_key, (total, 2))
    second = jax.random.bernoulli(jax.random.fold_in(source, 7 + instance), shape=(train,))
    half = jnp.arange(train) + train * second  # one of two points of the same class
    tested, rest = slice(2 * train, 2 * train + test), slice(2 * train + test, None)
    return Instance(x[half], y[half], x[tested], y[tested], x[rest], y[rest])


class Resampled(eqx.Module):
    """Instances from examples of your own: each trains on `train` of them, drawn with replacement.

    All are tested on the same `x_test`, but for the last `more` rows of it, on which information is
    estimated. To be given to `InformationTraining` as its `data`.

    **Raises** `ValueError` for inputs that are not [n, features] or not finite, labels that are not
    whole numbers from 0 on, and a `train` or `more` that leaves nothing to train or test on.
    """

    x: Float[Array, "n d"]
    y: Int[Array, " n"]
    x_test: Float[Array, "test d"]
    y_test: Int[Array, " test"]
    train: int = eqx.field(static=True)
    more: int = eqx.field(static=True)

    def __init__(self, data: Dataset, *, train: int, more: int):
        for part in ("train", "test"):
            x, y = (np.asarray(getattr(data, f"{name}_{part}")) for name in "xy")
            if x.ndim != 2:
                raise ValueError(
                    f"x_{part} must be [examples, features], but its shape is {x.shape}"
                )
            if not np.isfinite(x).all():
                raise ValueError(
                    f"x_{part} has values that are NaN or infinite: fill or drop those rows"
                )
            if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
                raise ValueError(f"y_{part} must be one whole number from 0 on for each example")
        if train < 1:
            raise ValueError(f"train must be at least 1, not {train}")
        if not 0 < more < len(data.x_test):
            raise ValueError(
                f"more must leave rows of x_test to test on: between 1 and {len(data.x_test) - 1}, "
                f"not {more}"
            )
        self.x = jnp.asarray(data.x_train, jnp.float32)
        self.y = jnp.asarray(data.y_train, jnp.int32)
        self.x_test = jnp.asarray(data.x_test, jnp.float32)
        self.y_test = jnp.asarray(data.y_test, jnp.int32)
        self.train, self.more = train, more

    def __call__(
        self,
        key: PRNGKeyArray,
        instance: Int[Array, ""] | int,
        shared: Bool[Array, ""] | bool = False,
    ) -> Instance:
        """Instance number `instance`; `shared` changes nothing, as all are drawn from one pool."""
        rows = jax.random.randint(jax.random.fold_in(key, instance), (self.train,), 0, len(self.x))
        tested, rest = slice(None, -self.more), slice(-self.more, None)
        return Instance(
            self.x[rows], self.y[rows], self.x_test[tested], self.y_test[tested],
            self.x_test[rest], self.y_test[rest],
        )  # fmt: skip


class StochasticMLP(eqx.Module):
    """z ~ N(mean(x), diag(sigma(x)^2)), then a linear classifier of z.

    `sizes` are input, hidden layers, code, classes. Mean and sigma are networks of their own, sigma
    behind a softplus; or sigma is fixed to `noise`.

    Source: Kawaguchi et al. 2023, clustering and MNIST experiments.
    """

    mean: MLP
    spread: MLP
    classifier: Linear
    noise: float | None = eqx.field(static=True)

    def __init__(self, sizes: Sequence[int], *, key: PRNGKeyArray, noise: float | None = None):
        if len(sizes) < 3:
            raise ValueError(f"sizes need input, code and classes, not {list(sizes)}")
        first, *hidden, code, classes = sizes
        mean_key, spread_key, key = jax.random.split(key, 3)
        self.mean = MLP(first, hidden, code, key=mean_key)
        self.spread = MLP(first, hidden if noise is None else (), code, key=spread_key)
        self.classifier = Linear(code, classes, key=key)
        self.noise = noise

    def encode(self, x: Float[Array, "n d"]) -> tuple[Float[Array, "n c"], Float[Array, "n c"]]:
        """Mean and sigma of z for each input."""
        mean = self.mean(x)
        if self.noise is not None:
            return mean, jnp.full_like(mean, self.noise)
        return mean, jnp.maximum(jax.nn.softplus(self.spread(x)), SMALLEST_SIGMA)

    def __call__(
        self, x: Float[Array, "n d"], key: PRNGKeyArray
    ) -> tuple[Float[Array, "n classes"], tuple[Array, Array, Array]]:
        """Logits, and z, mean and sigma [n, code] that they come from."""
        mean, sigma = self.encode(x)
        z = mean + sigma * jax.random.normal(key, mean.shape)
        return self.classifier(z), (z, mean, sigma)

    def with_penalty(
        self, x: Float[Array, "n d"], weights: Float[Array, " n"], key: PRNGKeyArray
    ) -> tuple[Float[Array, "n classes"], Float[Array, ""]]:
        """Logits, and I(X; Z) in nats by "mc" from a second draw of z for at most 256 inputs."""
        mean, sigma = self.encode(x)
        used, looked_at = mean + sigma * jax.random.normal(key, (2, *mean.shape))
        if len(x) > 256:
            rows = shuffled(jax.random.fold_in(key, 1), jnp.arange(256), len(x))
            mean, sigma, looked_at, weights = (a[rows] for a in (mean, sigma, looked_at, weights))
        return self.classifier(used), information(looked_at, mean, sigma, weights=weights)

    @staticmethod
    def tells(
        seen: tuple[Array, Array, Array], y: Int[Array, " n"], key: PRNGKeyArray
    ) -> dict[str, Float[Array, " 1"]]:
        """I(X; Z) and I(X; Z | Y) of the code in nats, by both estimates."""
        return {
            f"{name}_{how}": information(*seen, how, labels)[None]
            for name, labels in (("information", None), ("given_class", y))
            for how in ("mc", "jensen")
        }

    @staticmethod
    def layer_of(path: str) -> int:
        """The encoder is layer 0, the classifier layer 1."""
        return int(path.startswith(".classifier"))


class DeterministicMLP(eqx.Module):
    """A plain network whose hidden layers are looked at; `sizes` from input to classes.

    The penalty is the mean norm of the last hidden layer's activations with noise of entropy 0 added.

    Source: Kawaguchi et al. 2023, binning experiments.
    """

    network: MLP

    def __init__(self, sizes: Sequence[int], *, key: PRNGKeyArray):
        self.network = MLP(sizes[0], sizes[1:-1], sizes[-1], key=key)

    def __call__(
        self, x: Float[Array, "n d"], key: PRNGKeyArray
    ) -> tuple[Float[Array, "n classes"], tuple[Float[Array, "n _d"], ...]]:
        """Logits, and the activations of the hidden layers."""
        *hidden, logits = self.network.preactivations(x)
        return logits, tuple(jax.nn.relu(a) for a in hidden)

    def with_penalty(
        self, x: Float[Array, "n d"], weights: Float[Array, " n"], key: PRNGKeyArray
    ) -> tuple[Float[Array, "n classes"], Float[Array, ""]]:
        """Logits, and the norm that bounds the information of the last hidden layer."""
        logits, (*_, last) = self(x, key)
        noisy = last + UNIT_ENTROPY_SIGMA * jax.random.normal(key, last.shape)
        norms = jnp.linalg.norm(noisy, axis=1)
        return logits, (weights * norms).sum() / weights.sum()

    @staticmethod
    def tells(
        seen: tuple[Float[Array, "n _d"], ...], y: Int[Array, " n"], key: PRNGKeyArray
    ) -> dict[str, Float[Array, " layers"] | Int[Array, ""]]:
        """I(X; Z) and I(X; Z | Y) of every hidden layer in nats, by bins and by a noise probe."""
        probe = probe_with_noise(seen, y, key)
        return {
            "information_bins": jnp.stack([binned_information(z) for z in seen]),
            "given_class_bins": jnp.stack([binned_information(z, labels=y) for z in seen]),
            "information_probe": probe.information,
            "given_class_probe": probe.given_class,
            "probe_sigma": probe.sigma,
            "probe_violations": probe.violations,
        }

    layer_of = staticmethod(layer_index)


class Learner(NamedTuple):
    model: Any
    optimiser: Any
    multiplier: Float[Array, ""]
    swag: Any  # a `Swag`; None within an epoch


class Lesson(NamedTuple):
    learners: Learner  # leading axes (instance, member)
    data: Instance  # leading axis (instance)
    key: PRNGKeyArray
    step: Int[Array, ""]


class InformationTraining(Process):
    """Networks of one setting on several data instances, several members (seeds) on each.

    One step is one epoch. Every update is momentum SGD with weight decay on

        cross-entropy + multiplier * (target - penalty),

    where the penalty is I(X; Z) in nats (`StochasticMLP`) or a norm (`DeterministicMLP`), and then
    multiplier += dual_rate * (target - penalty): dual ascent, which pushes the penalty up to
    the target or down to it. From the epoch `swa_start` on, a snapshot goes into a `Swag` before each epoch.

    - `network(key)`: one of the two networks. `data(key, instance, shared)`: an `Instance`.
    - `instances`, `members`, `samples` (posterior draws): whole numbers.
    - `batch_size`: None for all training examples in each step; else drawn without replacement. What is
      left of an epoch when no whole batch is, waits for the next one.
    - `examples`: how many of the training examples count (None: all), `hyper` besides: array leaves,
      so that settings that differ in them share one compiled program.

    Observed: losses and accuracies [instance, member]; information in bits that layers tell
    [instance, member, layer]; I(S; theta_l) in bits up to each layer, the classifier last: single-seed
    (`weights_jensen`, `weights_logsumexp`, `weights_kl`) [member, depth], multi-seed
    (`weights_multi`) [depth], by the authors' densities (`weights_published`) [member, depth];
    parameters, norms, the multiplier. They make sense after two snapshots at the earliest.
    """

    network: Callable[[PRNGKeyArray], Any]
    data: Callable[[PRNGKeyArray, Array, Array], Instance]
    hyper: dict[str, Array]
    instances: int = eqx.field(static=True)
    members: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self, network: Callable[[PRNGKeyArray], Any],
        data: Callable[[PRNGKeyArray, Array, Array], Instance] = blobs, *, instances: int = 3,
        members: int = 3, rate: float = 0.01, momentum: float = 0.9, decay: float = 0.0,
        target: float = 1.5, dual_rate: float = 0.0, multiplier: float = 0.0, swa_start: int = 200,
        shared: bool = False, examples: int | None = None, batch_size: int | None = None,
        samples: int = 10,
    ):  # fmt: skip
        if instances < 2 or members < 1:
            raise ValueError(
                f"I(S; theta) needs 2 instances and 1 member at least, not {instances} and {members}"
            )
        self.network, self.data = network, data
        self.hyper = {
            name: jnp.asarray(value, jnp.float32)
            for name, value in {
                "rate": rate, "momentum": momentum, "decay": decay, "target": target,
                "dual_rate": dual_rate, "multiplier": multiplier,
            }.items()
        } | {
            "swa_start": jnp.int32(swa_start), "shared": jnp.bool_(shared),
            "examples": jnp.int32(2**30 if examples is None else examples),
        }  # fmt: skip
        self.instances, self.members, self.samples = instances, members, samples
        self.batch_size = batch_size

    def optimiser(self) -> optax.GradientTransformation:
        return optax.flatten(
            optax.chain(
                optax.add_decayed_weights(self.hyper["decay"]),
                optax.sgd(self.hyper["rate"], self.hyper["momentum"]),
            )
        )

    def init(self, key: PRNGKeyArray) -> Lesson:
        data_key, model_key, step_key = jax.random.split(key, 3)

        def learner(member: Array) -> Learner:
            model = self.network(jax.random.fold_in(model_key, member))
            optimiser = self.optimiser().init(eqx.filter(model, eqx.is_inexact_array))
            return Learner(model, optimiser, self.hyper["multiplier"], Swag.start(model))

        places = jnp.arange(self.instances)
        data = jax.vmap(lambda i: self.data(data_key, i, self.hyper["shared"]))(places)
        n = data.x.shape[1]
        if self.batch_size is not None and not 1 <= self.batch_size <= n:
            raise ValueError(
                f"batch_size must be between 1 and the {n} training examples, not {self.batch_size}"
            )
        learners = jax.vmap(learner)(jnp.arange(self.members))  # the same start on every instance
        learners = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.instances, *x.shape)), learners)
        return Lesson(learners, data, step_key, jnp.int32(0))

    def for_each(self, do: Callable[..., Any], state: Lesson, salt: int) -> Any:
        """`do(learner, data, key)` for every learner."""
        key = jax.random.fold_in(jax.random.fold_in(state.key, salt), state.step)
        keys = jax.random.split(key, (self.instances, self.members))
        return jax.vmap(jax.vmap(do, (0, None, 0)))(state.learners, state.data, keys)

    def step(self, state: Lesson) -> Lesson:
        n = state.data.x.shape[1]
        size = n if self.batch_size is None else self.batch_size
        order = jax.random.fold_in(state.key, state.step)

        def epoch(learner: Learner, data: Instance, key: PRNGKeyArray) -> Learner:
            # The snapshot is large: it is taken before the updates, outside their loop.
            swag = learner.swag.collect(learner.model, state.step >= self.hyper["swa_start"])
            if self.batch_size is None:
                weights = (jnp.arange(n) < self.hyper["examples"]).astype(data.x.dtype)
                return self._update(learner._replace(swag=swag), data.x, data.y, weights, key)

            def batch(learner: Learner, place: Array) -> tuple[Learner, None]:
                rows = shuffled(order, place * size + jnp.arange(size), n)
                drawn = jax.random.fold_in(key, place)
                return self._update(
                    learner, data.x[rows], data.y[rows], jnp.ones(size), drawn
                ), None

            places = jnp.arange(n // size)
            return jax.lax.scan(batch, learner._replace(swag=None), places)[0]._replace(swag=swag)

        return state._replace(learners=self.for_each(epoch, state, 0), step=state.step + 1)

    def _update(
        self, learner: Learner, x: Array, y: Array, weights: Array, key: PRNGKeyArray
    ) -> Learner:
        """One step of SGD, and of dual ascent."""

        def objective(model: Any) -> tuple[Array, Array]:
            logits, penalty = model.with_penalty(x, weights, key)
            lack = self.hyper["target"] - penalty
            loss = (weights * cross_entropy(logits, y)).sum() / weights.sum()
            return loss + learner.multiplier * lack, lack

        gradients, lack = eqx.filter_grad(objective, has_aux=True)(learner.model)
        params = eqx.filter(learner.model, eqx.is_inexact_array)
        updates, optimiser = self.optimiser().update(gradients, learner.optimiser, params)
        return learner._replace(
            model=eqx.apply_updates(learner.model, updates), optimiser=optimiser,
            multiplier=learner.multiplier + self.hyper["dual_rate"] * lack,
        )  # fmt: skip

    def observe(self, state: Lesson) -> dict[str, Array]:
        def look(learner: Learner, data: Instance, key: PRNGKeyArray) -> dict[str, Array]:
            model, parts = learner.model, (data.x, data.x_test, data.x_more)
            ends = np.cumsum([len(x) for x in parts])
            logits, seen = model(jnp.concatenate(parts), key)
            more = jax.tree.map(lambda a: a[ends[1] :], seen)
            told = model.tells(more, data.y_more, jax.random.fold_in(key, 1))
            counted = jnp.arange(len(data.x)) < self.hyper["examples"]
            found = {}
            for part, rows, y, weights in (
                ("train", slice(ends[0]), data.y, counted),
                ("test", slice(ends[0], ends[1]), data.y_test, jnp.ones(len(data.y_test))),
            ):
                right = logits[rows].argmax(-1) == y
                losses = cross_entropy(logits[rows], y)
                found[f"{part}_loss"] = (weights * losses).sum() / weights.sum()
                found[f"{part}_accuracy"] = (weights * right).sum() / weights.sum()
            norms = jnp.stack([jnp.linalg.norm(w) for w in _arrays(model)])
            return found | {
                **{n: v if n.startswith("probe_") else v / NATS_PER_BIT for n, v in told.items()},
                "norm_sum": norms.sum(), "norm_product": norms.prod(),
                "parameters": jnp.float32(sum(w.size for w in _arrays(model))),
                "multiplier": learner.multiplier,
            }  # fmt: skip

        seen = self.for_each(look, state, 1)
        seen["gap"] = seen["test_loss"] - seen["train_loss"]
        return seen | {n: v / NATS_PER_BIT for n, v in self._weights(state).items()}

    def _weights(self, state: Lesson) -> dict[str, Array]:
        """I(S; theta_l) in nats."""
        swag = state.learners.swag
        layer_of = state.learners.model.layer_of
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), swag)
        key = jax.random.fold_in(state.key, 2)

        def densities(as_published: Array) -> Array:
            pairs = (self.instances, self.members)
            found = cumulative_log_densities(
                flat, key, samples=self.samples, layer_of=layer_of, as_published=as_published
            )
            return found.reshape(-1, *pairs, self.samples, *pairs)

        log_q, published = jax.vmap(densities)(jnp.array([False, True]))
        of_member = jax.vmap(lambda s: kl_information(s, layer_of), in_axes=1)
        return {
            "weights_jensen": single_seed_information(log_q).T,
            "weights_logsumexp": single_seed_information(log_q, "logsumexp").T,
            "weights_multi": multi_seed_information(log_q),
            "weights_kl": of_member(swag),
            "weights_published": single_seed_information(published).T,
        }

    def quantities(self) -> dict[str, Quantity]:
        models, layers = ("instance", "member"), ("instance", "member", "layer")
        found = {
            "train_loss": Quantity("nats", models, about="training loss"),
            "test_loss": Quantity("nats", models, about="test loss"),
            "gap": Quantity("nats", models, about="test loss minus training loss"),
            "train_accuracy": Quantity("1", models, about="training accuracy"),
            "test_accuracy": Quantity("1", models, about="test accuracy"),
            "norm_sum": Quantity("1", models, about="sum of the arrays' norms"),
            "norm_product": Quantity("1", models, about="product of the arrays' norms"),
            "parameters": Quantity("1", models, about="number of weights"),
            "multiplier": Quantity("1", models, about="multiplier of the constraint"),
            "probe_sigma": Quantity("1", layers, about="noise added to a layer"),
            "probe_violations": Quantity("1", models, about="layers without a sigma to satisfy"),
            "weights_multi": Quantity("bits", ("depth",), about="I(S; θ), several seeds"),
        }
        for how in ("mc", "jensen", "bins", "probe"):
            found[f"information_{how}"] = Quantity("bits", layers, about=f"I(X; Z), {how}")
            found[f"given_class_{how}"] = Quantity("bits", layers, about=f"I(X; Z | Y), {how}")
        for how in ("jensen", "logsumexp", "kl", "published"):
            found[f"weights_{how}"] = Quantity("bits", ("member", "depth"), about=f"I(S; θ), {how}")
        return found


def _arrays(model: Any) -> list[Array]:
    return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
