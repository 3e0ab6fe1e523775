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

from latebloom.core.calling import call
from latebloom.core.dataset import Dataset
from latebloom.core.process import Process, Quantity
from latebloom.core.training import gradients, shuffled, trainable, update
from latebloom.methods.random_teachers.network import start_near
from latebloom.methods.random_teachers.probing import linear_probe, nearest_neighbours


class DistillationState(NamedTuple):
    student: Any
    teacher: Any
    fresh: Any  # what students start towards
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
      distilled on, each as often in an epoch as any other (None: all); the probes always train on all.
    - `alpha`: how far from the teacher the student starts (`start_near`).
    - `noise`: whether the student and the teacher see normal noise instead of the images.
    - `generation`: steps after which the student becomes the teacher of a new student, which starts
      `alpha` from it towards the same fresh weights with an optimiser of its own (None: never).
    - `optimiser(**hyper)`, `batch_size`, `seeds_by`: as in `Supervised`. `probes` linear probes are
      trained anew at each observation, with keys that all seeds share; `standardise`: on features of
      mean 0 and variance 1, so that a probe of few updates does not favour those on a larger scale.
    - `probed`: images that are probed on instead of `data`, with other labels (transfer), or None.

    Observed: `divergence`, KL(teacher || student) in nats on the test images; `student_probe`,
    `teacher_probe`, `input_probe`: test accuracy of linear probes on features and on pixels (the
    teacher is the present one);
    `student_neighbours`, `teacher_neighbours`, `input_neighbours`.

    `alpha`, `noise`, `examples`, `generation` and `standardise` are arrays: runs that differ in them share a program.

    Raises `ValueError` for a batch larger than the images, examples that are not there, a generation
    of no steps and alpha outside [0, 1].

    Source: Sarnthein et al. 2023 (arXiv 2302.12091), section 3.
    """

    model: Callable[[PRNGKeyArray], Any]
    data: Dataset
    probed: Dataset | None
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: Mapping[str, Any]
    alpha: Float[Array, ""]
    noise: Bool[Array, ""]
    examples: Int[Array, ""]
    generation: Int[Array, ""]
    standardise: Bool[Array, ""]
    batch_size: int = eqx.field(static=True)
    probes: int = eqx.field(static=True)
    probe_epochs: int = eqx.field(static=True)
    probe_batch: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Any], data: Dataset,
        optimiser: Callable[..., optax.GradientTransformation] = optax.adam,
        hyper: Mapping[str, Any] | None = None, alpha: float = 1e-3, noise: bool = False,
        examples: int | None = None, generation: int | None = None, batch_size: int = 256,
        probes: int = 1, probe_epochs: int = 10, probe_batch: int = 256, classes: int = 10,
        standardise: bool = False, probed: Dataset | None = None, seeds_by: Literal["vmap", "map"] = "map",
    ):  # fmt: skip
        there = len(data.x_train)
        count = there if examples is None else examples
        if not 1 <= batch_size <= there or not 1 <= count <= there:
            raise ValueError(
                f"batch_size {batch_size} and examples {count} must be from 1 to the {there} training "
                "images"
            )
        if generation is not None and generation < 1:
            raise ValueError(f"a generation must have at least 1 step, not {generation}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], not {alpha}")
        self.model, self.data, self.probed, self.optimiser = model, data, probed, optimiser
        hyper = {"learning_rate": 1e-3} if hyper is None else hyper
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.alpha, self.noise = jnp.float32(alpha), jnp.asarray(noise)
        self.examples, self.batch_size = jnp.int32(count), batch_size
        self.generation = jnp.int32(2**31 - 1 if generation is None else generation)
        self.standardise = jnp.asarray(standardise)
        self.probes, self.probe_epochs, self.probe_batch = probes, probe_epochs, probe_batch
        self.classes = classes
        self.seeds_by = seeds_by

    def init(self, key: PRNGKeyArray) -> DistillationState:
        teacher_key, fresh_key, step_key = jax.random.split(key, 3)
        teacher, fresh = self.model(teacher_key), self.model(fresh_key)
        student, moments = self.begin(teacher, fresh)
        return DistillationState(student, teacher, fresh, moments, step_key, jnp.int32(0))

    def begin(self, teacher: Any, fresh: Any) -> tuple[Any, Any]:
        """A student of that teacher and its optimiser's state."""
        student = start_near(teacher, fresh, self.alpha)
        return student, self.optimiser(**self.hyper).init(trainable(student))

    def batch(self, state: DistillationState) -> Array:
        """The images of the next step: some of the first `examples` in a shuffled order, or noise."""
        there = len(self.data.x_train)
        epoch, place = jnp.divmod(state.step, there // self.batch_size)
        places = place * self.batch_size + jnp.arange(self.batch_size)
        order_key = jax.random.fold_in(state.key, epoch)
        x = self.data.x_train[shuffled(order_key, places, there) % self.examples]
        drawn = jax.random.normal(jax.random.fold_in(order_key, place), x.shape)
        return jnp.where(self.noise, drawn, x)

    def restarted(self, state: DistillationState) -> DistillationState:
        """The same, or at the end of a generation its student as the teacher of the next."""

        def anew(trees: tuple) -> tuple:
            student, fresh = (eqx.combine(trees[i], rests[i]) for i in (0, 2))
            begun, moments = self.begin(student, fresh)
            return eqx.filter(begun, eqx.is_array), trees[0], trees[2], moments

        networks = state.student, state.teacher, state.fresh
        rests = [eqx.partition(network, eqx.is_array)[1] for network in networks]
        trees = *(eqx.filter(network, eqx.is_array) for network in networks), state.optimiser
        over = (state.step > 0) & (state.step % self.generation == 0)
        *arrays, moments = jax.lax.cond(over, anew, lambda same: same, trees)
        student, teacher, fresh = map(eqx.combine, arrays, rests)
        return state._replace(student=student, teacher=teacher, fresh=fresh, optimiser=moments)

    def step(self, state: DistillationState) -> DistillationState:
        state = self.restarted(state)
        x = self.batch(state)
        wanted = jax.nn.softmax(state.teacher(x, train=False))

        def objective(student: Any) -> Array:
            said = jax.nn.log_softmax(student(x, train=True))
            return -(wanted * said).sum(-1).mean()

        slopes, seen = gradients(objective, state.student)
        rule = self.optimiser(**self.hyper)
        student, moments = update(rule, slopes, state.optimiser, state.student, seen)
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
            "student": lambda x: call(state.student.encoder, x),
            "teacher": lambda x: call(state.teacher.encoder, x),
            "input": lambda x: x.reshape(len(x), -1),
        }
        keys = jax.random.split(jax.random.key(0), self.probes)
        for name, look in looks.items():
            given = look(data.x_train), data.y_train, look(data.x_test), data.y_test
            probe = partial(
                linear_probe, *given, classes=self.classes, epochs=self.probe_epochs,
                batch_size=self.probe_batch, standardise=self.standardise,
            )  # fmt: skip
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
    """KL(softmax(teacher) || softmax(student)) in nats, exact to a few digits however small or large.

    Of thousands of cosines the two softmaxes differ by 1e-5 nats or less, which the difference of two
    entropies loses in single precision. With u the difference of the logits less its mean under the
    teacher, it is log(1 + E[exp(u) - 1 - u]), which in turn overflows where logits are far apart: there
    it is E[log p - log q].
    """
    p = jax.nn.softmax(teacher)
    u = student - teacher
    u = u - (p * u).sum(-1, keepdims=True)
    near = jnp.abs(u).max(-1) < 1
    close = jnp.where(near[..., None], u, 0)
    small = jnp.abs(close) < 1e-2
    series = close**2 / 2 * (1 + close / 3 * (1 + close / 4))
    rest = jnp.where(small, series, jnp.expm1(close) - close)
    apart = jax.nn.log_softmax(teacher) - jax.nn.log_softmax(student)
    far = jnp.where(p > 0, p * apart, 0).sum(-1)
    return jnp.where(near, jnp.log1p((p * rest).sum(-1)), far)
