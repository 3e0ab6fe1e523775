"""One objective for many methods: cross-entropy plus Bregman divergences of outputs and of weights.

    L = learn CE(new) + sum_i a_i D_Phi(output, target) + sum_j b_j D_Psi(theta, anchor),
    D_F(p, q) = F(p) - F(q) - <grad F(q), p - q>

as two lists of terms. ER, DER, DER++, LwF, CPR, L2, EWC and SI are instances of it (`as_objective`), and so are
mixtures that nobody named. A term's table goes to JSON and back.

Source: Wang et al. 2024 (arXiv 2403.13249), the unified objective and its table of special cases.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from latebloom.core.process import Quantity
from latebloom.core.stream import Stream
from latebloom.losses import masked_cross_entropy
from latebloom.methods.forgetting.around import Around, Kept, slope
from latebloom.methods.forgetting.confidence import CPR, entropy
from latebloom.methods.forgetting.distillation import LwF, proper_divergence
from latebloom.methods.forgetting.method import (
    Batch,
    Displaced,
    Lesson,
    Losses,
    Method,
    check,
    mean_of,
    norm,
    one_of,
)
from latebloom.methods.forgetting.penalties import EWC, L2, SI, PathIntegral, distance
from latebloom.methods.forgetting.replay import DER, ER, together


class Output(eqx.Module):
    """weight D_Phi(a, b), a mean over a batch, of what the network says and what it should say.

    - `divergence`: "entropy", Phi(p) = sum p log p of probabilities at a `temperature`, so that D is KL(a || b)
      in nats; "square", Phi(z) = |z|^2 / (2 classes) of logits.
    - `target`: the "label"; the logits "stored" with an example; those of the "teacher", the network after the
      last task, among classes that it has seen (no term in the first task); "uniform".
    - `batch`: the "new" one, "old" or "other", two that are drawn from memory.
    - `first`: which of both is a. Cross-entropy is D(target, output): that of the output from a
      one-hot target would be infinite.

    Raises `ValueError` for what has no divergence.
    """

    weight: Float[Array, ""] | float
    divergence: Literal["entropy", "square"] = eqx.field(static=True)
    target: Literal["label", "stored", "teacher", "uniform"] = eqx.field(static=True)
    batch: Literal["new", "old", "other"] = eqx.field(static=True, default="old")
    first: Literal["target", "output"] = eqx.field(static=True, default="target")
    temperature: Float[Array, ""] | float = 1.0

    def __check_init__(self) -> None:
        check(self, "weight")
        check(self, "temperature", above=True)
        one_of(self, "divergence", ("entropy", "square"))
        one_of(self, "target", ("label", "stored", "teacher", "uniform"))
        one_of(self, "batch", ("new", "old", "other"))
        one_of(self, "first", ("target", "output"))
        if self.divergence == "square" and self.target not in ("stored", "teacher"):
            raise ValueError(f"the target of a square must be stored or teacher, not {self.target}")
        if self.target == "stored" and self.batch == "new":
            raise ValueError("a stored target needs the old or the other batch, not the new one")
        if self.target == "label" and self.first == "output":
            raise ValueError(
                "from a one-hot label an output diverges infinitely: take first='target'"
            )

    @property
    def name(self) -> str:
        return f"{self.batch}: {self.divergence} to {self.target}"


class Weight(eqx.Module):
    """weight D_Psi(theta, theta*), Psi(theta) = theta' M theta / 2, theta* the parameters after the last task.

    - `metric`: M is 1 ("euclidean"); the sum of the tasks' diagonal Fisher matrices, older ones times `decay`,
      from the first `batches` of each ("fisher"); or SI's path integral with its `damping` ("path").
    - `prior`: is in M from the start, about the initial parameters: the precision of a Gaussian prior, of which
      the Fisher matrices make the Laplace approximations of VCL and NCL.

    Raises `ValueError` for a prior beside a metric that does not add up.
    """

    weight: Float[Array, ""] | float
    metric: Literal["euclidean", "fisher", "path"] = eqx.field(static=True)
    prior: Float[Array, ""] | float = 0.0
    decay: Float[Array, ""] | float = 1.0
    damping: Float[Array, ""] | float = 0.1
    batches: int = eqx.field(static=True, default=10)

    def __check_init__(self) -> None:
        check(self, "weight")
        check(self, "prior")
        check(self, "decay", 0, 1)
        check(self, "damping", above=True)
        check(self, "batches", 1)
        one_of(self, "metric", ("euclidean", "fisher", "path"))
        if self.metric == "euclidean":
            check(self, "prior", 0, 0)

    @property
    def name(self) -> str:
        return f"weights: {self.metric} from the last task"

    @property
    def keeper(self) -> Method:
        """The penalty that keeps M and theta*."""
        if self.metric == "euclidean":
            return L2()
        if self.metric == "path":
            return SI(damping=self.damping)
        return EWC(decay=self.decay, batches=self.batches)


class Held(NamedTuple):
    """The teacher and the classes that it has seen, and for each term of the weights what its keeper keeps."""

    teacher: Any
    known: Bool[Array, " classes"]
    kept: tuple[Any, ...]


class Objective(Method):
    """Cross-entropy of the new batch times `learn`, and terms in the space of outputs and of weights.

    Told: `terms` [term], what each contributes to the loss, that of the new batch first.

    Raises `ValueError` for what is no term.
    """

    outputs: tuple[Output, ...] = ()
    weights: tuple[Weight, ...] = ()
    learn: Float[Array, ""] | float = 1.0

    def __check_init__(self) -> None:
        check(self, "learn")
        for name, kind in (("outputs", Output), ("weights", Weight)):
            if not all(isinstance(term, kind) for term in getattr(self, name)):
                raise ValueError(f"{name} of Objective must be a tuple of {kind.__name__}")

    @property
    def remembers(self) -> bool:  # pyright: ignore
        return self.replays

    @property
    def replays(self) -> bool:  # pyright: ignore
        return any(term.batch != "new" for term in self.outputs)

    @property
    def looks_back(self) -> int:
        return max([term.keeper.looks_back for term in self.weights], default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """One of each term, all different."""
        found = ["new: entropy to label", *(term.name for term in (*self.outputs, *self.weights))]
        return tuple(
            f"{name} {found[: i + 1].count(name)}" if found.count(name) > 1 else name
            for i, name in enumerate(found)
        )

    def does(self, part: str) -> bool:
        if part == "turn":
            return bool(self.weights) or self._taught
        if part == "moved":
            return any(term.metric == "path" for term in self.weights)
        return super().does(part)

    @property
    def _taught(self) -> bool:
        return any(term.target == "teacher" for term in self.outputs)

    def quantities(self) -> dict[str, Quantity]:
        about = "what each term contributes to the loss"
        return {"terms": Quantity("nats", ("term",), {"term": list(self.names)}, about)}

    def init(self, model: Any, stream: Stream) -> Held:
        known = jnp.zeros(stream.classes.shape[1], bool)
        kept = tuple(
            _with_prior(term.keeper.init(model, stream), term.prior) for term in self.weights
        )
        return Held(eqx.filter(model, eqx.is_array) if self._taught else (), known, kept)

    def remembered(self, logits: jax.ShapeDtypeStruct) -> Any:
        return logits if any(term.target == "stored" for term in self.outputs) else ()

    def losses(self, model: Any, own: Held, lesson: Lesson) -> Losses:
        used = {"new"} | {term.batch for term in self.outputs}
        batches = {name: getattr(lesson, name) for name in ("new", "old", "other") if name in used}
        if len(batches) == 1:
            said = [lesson.logits(model, lesson.new.x)]
        else:
            said = together(model, lesson, *batches.values())
        logits = dict(zip(batches, said, strict=True))
        new = self.learn * lesson.loss(logits["new"], lesson.new)
        parts = [
            term.weight * self._apart(term, logits[term.batch], batches[term.batch], model, own, lesson)
            for term in self.outputs
        ]  # fmt: skip
        parts += [
            term.weight / 2 * distance(model, _anchored(kept))
            for term, kept in zip(self.weights, own.kept, strict=True)
        ]
        parts = [jnp.asarray(part, jnp.float32) for part in parts]
        remember = logits["new"] if any(t.target == "stored" for t in self.outputs) else ()
        told = {"terms": jnp.stack([jnp.asarray(new, jnp.float32), *parts])}
        return Losses(new, sum(parts, jnp.zeros(())), remember, told)

    def _apart(
        self, term: Output, logits: Array, batch: Batch, model: Any, own: Held, lesson: Lesson
    ) -> Float[Array, ""]:
        at = logits / term.temperature
        if term.target == "label":
            return mean_of(masked_cross_entropy(at, batch.y, batch.allowed), batch.there)
        if term.target == "uniform":
            return mean_of(_to_uniform(at, batch.allowed, term.first), batch.there)
        if term.target == "stored":
            other, among = batch.extra, batch.allowed
            on: Array | bool = True
        else:
            teacher = eqx.combine(own.teacher, model)
            other = jax.lax.stop_gradient(lesson.exam(teacher, batch.x))
            among = jnp.pad(own.known, (0, logits.shape[1] - len(own.known)))
            on = ~lesson.first & among.any()  # else both are one network, or nothing is known yet
        if term.divergence == "square":
            apart = jnp.square(logits - other)
            if term.target == "teacher":
                apart = jnp.where(among, apart, 0)
            found = apart.mean(axis=1) / 2
        else:
            pair = (other / term.temperature, at)
            one, two = pair if term.first == "target" else pair[::-1]
            found = _kl(one, two, among)
        return jnp.where(on, mean_of(found, batch.there), 0)

    def moved(self, own: Held, gradients: Any, before: Any, after: Any) -> Held:
        kept = (
            term.keeper.moved(kept, gradients, before, after)
            for term, kept in zip(self.weights, own.kept, strict=True)
        )
        return own._replace(kept=tuple(kept))

    def turn(self, model: Any, own: Held, lesson: Lesson) -> Held:
        def first(term: Weight) -> Lesson:
            return lesson._replace(
                new=jax.tree.map(lambda x: x[: term.keeper.looks_back], lesson.new)
            )

        kept = tuple(
            term.keeper.turn(model, kept, first(term))
            for term, kept in zip(self.weights, own.kept, strict=True)
        )
        teacher = eqx.filter(model, eqx.is_array) if self._taught else ()
        return Held(teacher, lesson.seen, kept)

    def table(self) -> list[dict[str, Any]]:
        """A row a term: its space, what it is, and its numbers."""
        row = {"term": self.names[0], "space": "output", "weight": float(self.learn)}
        rows = [row | {"divergence": "entropy", "target": "label", "batch": "new"}]
        for name, term in zip(self.names[1:], (*self.outputs, *self.weights), strict=True):
            space = "output" if isinstance(term, Output) else "weight"
            rows.append({"term": name, "space": space} | _plain(term))
        return rows

    def to_json(self) -> str:
        """`table` as JSON."""
        return json.dumps(self.table(), indent=1)

    @staticmethod
    def from_json(text: str) -> Objective:
        """The objective of a table; the inverse of `to_json`.

        Raises `ValueError` for what is no table of rows, for one without the new batch's row first, or with a row
        that is no term.
        """
        rows = json.loads(text)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("the table must be a list of rows, as to_json writes it")
        if not rows or rows[0].get("batch") != "new" or rows[0].get("target") != "label":
            raise ValueError("the first row must be the new batch's entropy to its label")
        if "weight" not in rows[0]:
            raise ValueError("row 0 of the table has no weight")
        found: dict[str, list[Any]] = {"output": [], "weight": []}
        kinds = {"output": Output, "weight": Weight}
        for place, row in enumerate(rows[1:], start=1):
            own = {name: value for name, value in row.items() if name not in ("term", "space")}
            space = row.get("space")
            known = {f.name for f in dataclasses.fields(kinds[space])} if space in kinds else set()
            if not own or set(own) - known:
                raise ValueError(
                    f"row {place} of the table is no term: {', '.join(sorted(set(own) - known)) or space}"
                )
            needed = {"weight"} | ({"divergence", "target"} if space == "output" else {"metric"})
            if lacking := sorted(needed - set(own)):
                raise ValueError(f"row {place} of the table has no {', '.join(lacking)}")
            found[space].append(kinds[space](**own))
        return Objective(tuple(found["output"]), tuple(found["weight"]), rows[0]["weight"])


def as_objective(method: Method) -> Objective:
    """A method's losses as an instance of the objective.

    Weights change by the constants of the divergences: EWC's strength counts twice, as D_Psi halves, and so do
    SI's and DER's alpha. CPR's divergence is log(classes) less its entropy.

    Raises `ValueError` for a method that is none, such as one of a class of your own that is made of these.
    """
    refused = ValueError(
        f"{method!r} is no instance of the objective; those are ER, DER, LwF(over='seen'), L2, "
        "EWC(combine='online', fisher='example'), SI, and CPR around them"
    )
    if type(method) not in (Method, ER, DER, LwF, L2, EWC, SI, CPR):
        raise refused  # a class made of one of these may do something else
    if isinstance(method, CPR):
        inside = as_objective(method.host)
        unsure = Output(method.strength, "entropy", "uniform", "new", "output")
        return Objective((*inside.outputs, unsure), inside.weights, inside.learn)
    if type(method) is Method:
        return Objective()
    if isinstance(method, ER):
        weight = method.new_weight
        return Objective((Output(1 - weight, "entropy", "label"),), (), weight)
    if isinstance(method, DER):
        logits = Output(2 * method.alpha, "square", "stored")
        return Objective((logits, Output(method.beta, "entropy", "label", "other")))
    if isinstance(method, LwF) and method.over == "seen":
        soft = Output(method.strength, "entropy", "teacher", "new", temperature=method.temperature)
        return Objective((soft,))
    if isinstance(method, L2) and method.head is None:
        return Objective((), (Weight(method.strength, "euclidean"),))
    if isinstance(method, EWC) and (method.combine, method.fisher, method.head) == (
        "online",
        "example",
        None,
    ):
        fisher = Weight(2 * method.strength, "fisher", decay=method.decay, batches=method.batches)
        return Objective((), (fisher,))
    if isinstance(method, SI):
        return Objective((), (Weight(2 * method.strength, "path", damping=method.damping),))
    raise refused


class Compared(Around):
    """A host, and another method whose gradient is taken beside it at every update.

    Told: `apart`, the length of the difference of both gradients over that of the host's, the largest.

    Raises `ValueError` for another that is no method, or that replays where the host does not, and where one of
    both moves the parameters before each update.
    """

    other: Method

    def __check_init__(self) -> None:
        if not isinstance(self.other, Method):
            raise ValueError(
                f"the other of Compared must be a Method such as ER(), not {self.other!r}"
            )
        for method in (self.host, self.other):
            if isinstance(method, Method) and method.does("displaced"):
                raise ValueError(
                    f"{type(method).__name__} moves the parameters before each update: compare its host"
                )
        if isinstance(self.host, Method) and self.other.replays and not self.host.replays:
            raise ValueError(
                f"{type(self.other).__name__} replays and the host, {type(self.host).__name__}, does not: "
                "compare the other way round"
            )

    @property
    def looks_back(self) -> int:
        return max(self.host.looks_back, self.other.looks_back)

    def does(self, part: str) -> bool:
        if part in ("turn", "moved"):
            return self.host.does(part) or self.other.does(part)
        return super().does(part)

    def init(self, model: Any, stream: Stream) -> Kept:
        return Kept(self.host.init(model, stream), self.other.init(model, stream))

    def quantities(self) -> dict[str, Quantity]:
        about = "difference of two gradients / one of them, largest since the last"
        return self.host.quantities() | {"apart": Quantity("1", about=about, over="max")}

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        one = slope(self.host, model, own, lesson)
        other = slope(self.other, model, Kept(own.mine), lesson)
        size = norm(one)
        apart = norm(jax.tree.map(jnp.subtract, one, other)) / jnp.where(size > 0, size, 1)
        return Displaced(model, model, own, {"apart": apart})

    def moved(self, own: Kept, gradients: Any, before: Any, after: Any) -> Kept:
        mine = self.other.moved(own.mine, gradients, before, after)
        return super().moved(own, gradients, before, after)._replace(mine=mine)

    def turn(self, model: Any, own: Kept, lesson: Lesson) -> Kept:
        first = jax.tree.map(lambda x: x[: self.other.looks_back], lesson.new)
        mine = self.other.turn(model, own.mine, lesson._replace(new=first))
        return super().turn(model, own, lesson)._replace(mine=mine)


def _kl(one: Array, other: Array, among: Array) -> Float[Array, " batch"]:
    if among.ndim == 1:
        return proper_divergence(one, other, among)
    one, other = (jnp.where(among, z, -jnp.inf) for z in (one, other))
    p, q = jax.nn.log_softmax(one), jax.nn.log_softmax(other)
    return jnp.where(among, jnp.exp(p) * jnp.where(among, p - q, 0), 0).sum(axis=-1)


def _to_uniform(logits: Array, allowed: Array, first: str) -> Float[Array, " batch"]:
    count = jnp.log(allowed.sum(axis=-1))
    if first == "output":
        return count - entropy(logits, allowed)
    log_p = jax.nn.log_softmax(jnp.where(allowed, logits, -jnp.inf))
    return -count - jnp.where(allowed, log_p, 0).sum(axis=-1) / allowed.sum(axis=-1)


def _anchored(kept: Any) -> Any:
    return kept.held if isinstance(kept, PathIntegral) else kept


def _with_prior(kept: Any, prior: Float[Array, ""] | float) -> Any:
    held = _anchored(kept)
    importance = jax.tree.map(lambda w: jnp.full_like(w, prior), held.importance)
    held = held._replace(importance=importance)
    return kept._replace(held=held) if isinstance(kept, PathIntegral) else held


def _plain(term: Output | Weight) -> dict[str, Any]:
    values = {f.name: getattr(term, f.name) for f in dataclasses.fields(term)}
    return {
        name: value if isinstance(value, str | int) else float(value)
        for name, value in values.items()
    }
