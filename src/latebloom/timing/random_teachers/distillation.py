"""Distillation of a random, frozen teacher into a student of the same architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.data.dataset import Dataset
from latebloom.nn.norm import batch_statistics, trainable_leaves, update_statistics
from latebloom.process import Process, Quantity
from latebloom.supervised import shuffled, trainable
from latebloom.timing.random_teachers.network import start_near
from latebloom.timing.random_teachers.probing import linear_probe, nearest_neighbours


class DistillationState(NamedTuple):
    student: Any
    teacher: Any
    optimiser: Any
    key: PRNGKeyArray
    step: Int[Array, ""]


class Distillation(Process):
    """A student learns the outputs of a teacher that never learned anything; labels only probe.

    One step minimises the cross-entropy of softmax(student) to softmax(teacher) on a batch, both at
    temperature 1 and on the same images. The teacher is in evaluation mode, so that with batch
    normalisation, whose running statistics are still (0, 1), the two differ even at equal weights.

    - `model(key)`: a network with an `encoder`, called as `model(x, train=...)`, such as `Distilled`.
    - `data`: labels are used by the probes alone. `examples`: how many of the training images are
      distilled on (None: all); the probes always train on all.
    - `alpha`: how far from the teacher the student starts (`start_near`).
    - `noise`: whether the student and the teacher see normal noise instead of the images.
    - `optimiser(**hyper)`, `batch_size`, `seeds_by`: as in `Supervised`. `probes` are trained anew at
      each observation, `probes` of them with keys that all seeds share.
    - `probed`: images that are probed on instead of `data`, with other labels (transfer), or None.

    Observed: `divergence`, KL(teacher || student) in nats on the test images; `student_probe`,
    `teacher_probe`, `input_probe`: test accuracy of linear probes on features and on pixels;
    `student_neighbours`, `teacher_neighbours`, `input_neighbours`.

    Raises `ValueError` for a batch larger than the images and alpha outside [0, 1].

    Source: Sarnthein et al. 2023 (arXiv 2302.12091), section 3.
    """

    model: Callable[[PRNGKeyArray], Any]
    data: Dataset
    probed: Dataset | None
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: Mapping[str, Any]
    alpha: Float[Array, ""]
    noise: Bool[Array, ""]
    examples: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    probes: int = eqx.field(static=True)
    probe_epochs: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Any], data: Dataset,
        optimiser: Callable[..., optax.GradientTransformation] = optax.adam,
        hyper: Mapping[str, Any] | None = None, alpha: float = 1e-3, noise: bool = False,
        examples: int | None = None, batch_size: int = 256, probes: int = 1, probe_epochs: int = 10,
        classes: int = 10, probed: Dataset | None = None, seeds_by: Literal["vmap", "map"] = "map",
    ):  # fmt: skip
        count = len(data.x_train) if examples is None else examples
        if not 1 <= batch_size <= count <= len(data.x_train):
            raise ValueError(
                f"batch_size {batch_size} and examples {count} must be at least 1, the batch no larger "
                f"than the examples and these no more than the {len(data.x_train)} training images"
            )
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], not {alpha}")
        self.model, self.data, self.probed, self.optimiser = model, data, probed, optimiser
        hyper = {"learning_rate": 1e-3} if hyper is None else hyper
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.alpha, self.noise = jnp.float32(alpha), jnp.asarray(noise)
        self.examples, self.batch_size = count, batch_size
        self.probes, self.probe_epochs, self.classes = probes, probe_epochs, classes
        self.seeds_by = seeds_by

    def init(self, key: PRNGKeyArray) -> DistillationState:
        teacher_key, fresh_key, step_key = jax.random.split(key, 3)
        teacher = self.model(teacher_key)
        student = start_near(teacher, self.model(fresh_key), self.alpha)
        moments = self.optimiser(**self.hyper).init(trainable(student))
        return DistillationState(student, teacher, moments, step_key, jnp.int32(0))

    def batch(self, state: DistillationState) -> Array:
        """The images of the next step: some of the first `examples` in a shuffled order, or noise."""
        epoch, place = jnp.divmod(state.step, self.examples // self.batch_size)
        places = place * self.batch_size + jnp.arange(self.batch_size)
        order_key = jax.random.fold_in(state.key, epoch)
        x = self.data.x_train[shuffled(order_key, places, self.examples)]
        drawn = jax.random.normal(jax.random.fold_in(order_key, place), x.shape)
        return jnp.where(self.noise, drawn, x)

    def step(self, state: DistillationState) -> DistillationState:
        x = self.batch(state)
        wanted = jax.nn.softmax(state.teacher(x, train=False))
        params, rest = eqx.partition(state.student, trainable_leaves(state.student))

        def loss(params: Any) -> tuple[Array, list]:
            student = eqx.combine(params, rest)
            with batch_statistics(student) as seen:
                said = jax.nn.log_softmax(student(x, train=True))
            return -(wanted * said).sum(-1).mean(), seen

        gradients, seen = jax.grad(loss, has_aux=True)(params)
        updates, moments = self.optimiser(**self.hyper).update(gradients, state.optimiser, params)
        student = update_statistics(eqx.apply_updates(state.student, updates), seen)
        return state._replace(student=student, optimiser=moments, step=state.step + 1)

    def observe(self, state: DistillationState) -> dict[str, Array]:
        data = self.data if self.probed is None else self.probed
        found = {
            "divergence": divergence(
                state.teacher(self.data.x_test, train=False),
                state.student(self.data.x_test, train=False),
            ).mean()
        }
        looks: dict[str, Callable[[Array], Array]] = {
            "student": lambda x: state.student.encoder(x, train=False),
            "teacher": lambda x: state.teacher.encoder(x, train=False),
            "input": lambda x: x.reshape(len(x), -1),
        }
        keys = jax.random.split(jax.random.key(0), self.probes)
        for name, look in looks.items():
            given = look(data.x_train), data.y_train, look(data.x_test), data.y_test
            probe = partial(linear_probe, *given, classes=self.classes, epochs=self.probe_epochs)
            found[f"{name}_probe"] = jax.lax.map(lambda key, probe=probe: probe(key), keys).mean()
            found[f"{name}_neighbours"] = nearest_neighbours(*given, classes=self.classes)
        return found

    def quantities(self) -> dict[str, Quantity]:
        found = {"divergence": Quantity("nats", about="KL of teacher and student")}
        for name in ("student", "teacher", "input"):
            found[f"{name}_probe"] = Quantity("1", about=f"linear probe on the {name}")
            found[f"{name}_neighbours"] = Quantity("1", about=f"20 nearest neighbours, {name}")
        return found


def divergence(
    teacher: Float[Array, "batch m"], student: Float[Array, "batch m"]
) -> Float[Array, " batch"]:
    """KL(softmax(teacher) || softmax(student)) in nats, exact to a few digits however small it is.

    Of thousands of cosines the two softmaxes differ by 1e-5 nats or less, which the difference of two
    entropies loses in single precision. With u the difference of the logits less its mean under the
    teacher, it is log(1 + E[exp(u) - 1 - u]).
    """
    p = jax.nn.softmax(teacher)
    u = student - teacher
    u = u - (p * u).sum(-1, keepdims=True)
    small = jnp.abs(u) < 1e-2
    series = u**2 / 2 * (1 + u / 3 * (1 + u / 4))
    rest = jnp.where(small, series, jnp.expm1(u) - u)
    return jnp.log1p((p * rest).sum(-1))
