"""Training a pointer network, or a rival, on problems drawn anew at each step.

Vinyals, Fortunato and Jaitly (NIPS 2015, arXiv 1506.03134), section 4: descent by plain stochastic gradients at a rate
of 1, gradients of a norm of at most 2, parameters from U(-0.08, 0.08), batches of 128.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity, Stepped
from latebloom.core.training import gradients, step_key, trainable, update
from latebloom.data.planar import Problems
from latebloom.methods.recurrence.pointer import Writer, sequence_loss, uniform_start
from latebloom.methods.recurrence.pointer_answers import Kind, Scores, task
from latebloom.methods.recurrence.pointer_decoding import write


class Drawn(Protocol):
    """What draws problems: `Hulls`, `Delaunays`, `Tours`, `Kept`."""

    def draw(self, key: PRNGKeyArray, batch: int) -> Problems: ...


class Kept(eqx.Module):
    """Draws from problems that are at hand, each as likely, as from those of `label_all`."""

    problems: Problems

    def draw(self, key: PRNGKeyArray, batch: int) -> Problems:
        rows = jax.random.randint(key, (batch,), 0, len(self.problems.counts))
        return jax.tree.map(lambda a: a[rows], self.problems)


def clipped_sgd(learning_rate: Any = 1.0, clip: Any = 2.0) -> optax.GradientTransformation:
    """Plain descent with gradients scaled to a norm of at most `clip`: the paper's."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.sgd(learning_rate))


def clipped_adam(learning_rate: Any = 1e-3, clip: Any = 2.0) -> optax.GradientTransformation:
    """Adam with gradients scaled to a norm of at most `clip`."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(learning_rate))


class State(NamedTuple):
    model: Any
    moments: Any
    key: PRNGKeyArray
    step: Int[Array, ""]


class PointerLearner(Process):
    """A `Writer` learns to answer problems; one step is one update on a batch drawn anew.

    - `network(key)`; its parameters are then drawn from U(-`bound`, `bound`), or left as they are with None.
    - `problems` are drawn from; `kind` "hull", "delaunay" or "tour" says how answers are scored; `exams` by name.
    - `optimiser(**hyper)`: values of `hyper` are array leaves, so that runs which differ in them share one program.
    - `per`: whether the loss is the sum over a sequence, on average over the batch, or the mean over all steps.
    - `widths` of the beam, by name, in exams that are not taken greedily.
    - `show`: of each exam the `answer` to so many problems, the first ones, is recorded, 0 from its end on.

    Recorded are scores of each exam (`pointer_answers`): means over its problems, of areas, lengths and such over those
    that have one; `loss` of each exam in nats, averaged as in training; of tours `free_failed`, how many would be none
    if not held to it; `train_loss` and `gradient_norm` before it is clipped, means over the steps since the last
    observation.

    Raises `ValueError` for another kind or `per`, an empty batch or no exam, widths of no exam or below 1, exams whose
    targets point beyond their sets, and more answers to show than there are problems.
    """

    network: Callable[[PRNGKeyArray], Writer]
    problems: Drawn
    exams: tuple[Problems, ...]
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: dict[str, Array]
    kind: Kind = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    bound: float | None = eqx.field(static=True)
    per: Literal["sequence", "step"] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)  # of the exams
    widths: tuple[int, ...] = eqx.field(static=True)
    show: int = eqx.field(static=True)

    def __init__(
        self, *, network: Callable[[PRNGKeyArray], Writer], problems: Drawn, kind: Kind, exams: Mapping[str, Problems],
        optimiser: Callable[..., optax.GradientTransformation] = clipped_sgd, hyper: Mapping[str, Any], batch: int = 128,
        bound: float | None = 0.08, per: Literal["sequence", "step"] = "sequence",
        widths: Mapping[str, int] | None = None, show: int = 0,
    ):  # fmt: skip
        task(kind)
        if per not in ("sequence", "step"):
            raise ValueError(f'per must be "sequence" or "step", not {per!r}')
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        check_exams(exams)
        if not 0 <= show <= (least := min(len(exam.counts) for exam in exams.values())):
            raise ValueError(f"show must be from 0 to the {least} problems of an exam, not {show}")
        for name, width in (widths := dict(widths or {})).items():
            if name not in exams or width < 1:
                raise ValueError(f"widths must be at least 1, of exams that there are, not {width} of {name!r}")  # fmt: skip
        self.network, self.problems, self.kind = network, problems, kind
        self.exams, self.names = tuple(exams.values()), tuple(exams)
        self.widths = tuple(widths.get(name, 1) for name in exams)
        self.optimiser = optimiser
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.batch, self.bound, self.per, self.show = batch, bound, per, show

    def init(self, key: PRNGKeyArray) -> State:
        network_key, start_key, key = jax.random.split(key, 3)
        model = self.network(network_key)
        if self.bound is not None:
            model = uniform_start(model, start_key, self.bound)
        return State(model, self.optimiser(**self.hyper).init(trainable(model)), key, jnp.int32(0))

    def loss(self, model: Writer, problems: Problems) -> Array:
        scores = model(problems.points, problems.counts, problems.targets)
        return sequence_loss(scores, problems.targets, problems.lengths, self.per)

    def step(self, state: State) -> Stepped:
        drawn = self.problems.draw(step_key(state.key, state.step), self.batch)

        def objective(model: Writer) -> tuple[Array, Array]:
            loss = self.loss(model, drawn)
            return loss, loss

        slopes, seen, loss = gradients(objective, state.model, has_aux=True)
        rule = self.optimiser(**self.hyper)
        model, moments = update(rule, slopes, state.moments, state.model, seen)
        told = {"train_loss": loss, "gradient_norm": optax.tree.norm(slopes)}
        return Stepped(State(model, moments, state.key, state.step + 1), told)

    def observe(self, state: State) -> dict[str, Array]:
        found: dict[str, dict[str, Array]] = {name: {} for name in self.names}
        shown = {}
        for width in sorted(set(self.widths)):  # exams together, for one program
            names = [n for n, w in zip(self.names, self.widths, strict=True) if w == width]
            own = [self.exams[self.names.index(name)] for name in names]
            every = joined(own)
            answers = self.written(state.model, every, width, task(self.kind).tours)
            scores = task(self.kind).scores(answers, every)
            if self.kind == "tour":
                free = self.written(state.model, every, width, False)
                scores["free_failed"] = task(self.kind).scores(free, every)["failed"]
            told = state.model(every.points, every.counts, every.targets)
            first = 0
            for name, exam in zip(names, own, strict=True):
                part = slice(first, first := first + len(exam.counts))
                found[name] = means({what: value[part] for what, value in scores.items()})
                found[name]["loss"] = sequence_loss(told[part], every.targets[part], every.lengths[part], self.per)  # fmt: skip
                shown[name] = answers[part][: self.show]
        told = {what: jnp.stack([found[name][what] for name in self.names]) for what in found[self.names[0]]}  # fmt: skip
        return told | ({"answer": _padded([shown[name] for name in self.names])} if self.show else {})  # fmt: skip

    def written(self, model: Writer, exam: Problems, width: int, tours: bool) -> Int[Array, "problems steps"]:  # fmt: skip
        """The likeliest answers that a beam of that width finds."""
        steps = task(self.kind).steps(exam.points.shape[1])
        return write(model, exam.points, exam.counts, steps=steps, width=width, tours=tours).tokens[:, 0]  # fmt: skip

    def quantities(self) -> dict[str, Quantity]:
        about = scored(self.kind, self.names)
        by = {"dims": ("exam",), "coords": {"exam": self.names}}
        if self.kind == "tour":
            free = "share of answers that are no tour where any are allowed"
            about["free_failed"] = Quantity(about=free, **by)
        if self.show:
            about["answer"] = Quantity(dims=("exam", "problem", "place"), coords={"exam": self.names}, about="tokens of first answers")  # fmt: skip
        return about | {
            "loss": Quantity("nats", about="loss, what came before being told", **by),
            "train_loss": Quantity("nats", about="training loss", over="mean"),
            "gradient_norm": Quantity(
                about="norm of the gradient before it is clipped", over="mean"
            ),
        }


class Answered(Process):
    """Answers that are at hand, as those of a heuristic, are scored as a learner's are; nothing is learned.

    `answers` by the names of the `exams`, tokens [problems, steps]. Raises `ValueError` for another kind, no exam, and
    other names or numbers of answers than of problems.
    """

    exams: tuple[Problems, ...]
    answers: tuple[Array, ...]
    kind: Kind = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    show: int = eqx.field(static=True)

    def __init__(
        self, *, exams: Mapping[str, Problems], answers: Mapping[str, Int[Any, "problems steps"]], kind: Kind, show: int = 0,
    ):  # fmt: skip
        task(kind)
        check_exams(exams)
        for name, exam in exams.items():
            if name not in answers or len(answers[name]) != len(exam.counts):
                raise ValueError(f"there must be {len(exam.counts)} answers to exam {name!r}")
        self.exams, self.names, self.kind, self.show = tuple(exams.values()), tuple(exams), kind, show  # fmt: skip
        self.answers = tuple(jnp.asarray(answers[name], jnp.int32) for name in exams)

    def init(self, key: PRNGKeyArray) -> Int[Array, ""]:
        return jnp.int32(0)

    def step(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return state + 1

    def observe(self, state: Int[Array, ""]) -> dict[str, Array]:
        pairs = zip(self.answers, self.exams, strict=True)
        found = [means(task(self.kind).scores(answer, exam)) for answer, exam in pairs]
        told = {name: jnp.stack([one[name] for one in found]) for name in found[0]}
        shown = [answer[: self.show] for answer in self.answers]
        return told | ({"answer": _padded(shown)} if self.show else {})

    def quantities(self) -> dict[str, Quantity]:
        about = scored(self.kind, self.names)
        if self.show:
            about["answer"] = Quantity(dims=("exam", "problem", "place"), coords={"exam": self.names}, about="tokens of first answers")  # fmt: skip
        return about


def means(scores: Scores) -> dict[str, Array]:
    """Means over the problems that have one."""
    return {name: jnp.nanmean(value) for name, value in scores.items()}


def scored(kind: Kind, names: tuple[str, ...]) -> dict[str, Quantity]:
    """What is recorded of the exams `names`."""
    by: dict[str, Any] = {"dims": ("exam",), "coords": {"exam": names}}
    return {name: Quantity(about=ABOUT[name], gaps=True, **by) for name in task(kind).names}


def check_exams(exams: Mapping[str, Problems]) -> None:
    """Raises `ValueError` for no exam, and for targets that point beyond their sets."""
    if not exams:
        raise ValueError("there must be at least one exam")
    for name, exam in exams.items():
        if (np.asarray(exam.targets).max(axis=1) > np.asarray(exam.counts)).any():
            raise ValueError(f"targets of exam {name!r} point beyond their sets")


def joined(problems: Sequence[Problems]) -> Problems:
    """All in one, padded with 0 to the largest."""
    n, steps = (max(size) for size in zip(*((p.points.shape[1], p.targets.shape[1]) for p in problems), strict=True))  # fmt: skip
    return Problems(
        jnp.concatenate([jnp.pad(p.points, ((0, 0), (0, n - p.points.shape[1]), (0, 0))) for p in problems]),
        jnp.concatenate([p.counts for p in problems]),
        jnp.concatenate([jnp.pad(p.targets, ((0, 0), (0, steps - p.targets.shape[1]))) for p in problems]),
        jnp.concatenate([p.lengths for p in problems]),
    )  # fmt: skip


def _padded(tokens: Sequence[Int[Array, "show steps"]]) -> Int[Array, "exams show most"]:
    most = max(t.shape[1] for t in tokens)
    return jnp.stack([jnp.pad(t, ((0, 0), (0, most - t.shape[1]))) for t in tokens])


ABOUT = {
    "exact": "share of answers that are right",
    "failed": "share of answers that are none",
    "area": "area of the intersection over the hull's, where it is a polygon",
    "covered": "share of the true triangles",
    "length": "length of tours",
    "gap": "length of tours over the target's, less 1",
}
