"""What a masked language model does with the role of a word: reads it from context, or remembers it of the word.

Anand, Lepori, Merullo and Pavlick (ICLR 2025, arXiv 2406.00053). `latebloom.data.roles` makes the sequences, and
`latebloom.methods.forgetting.embeddings` forgets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.core.training import gradients, step_key, trainable, update
from latebloom.data.roles import ANSWER, LENGTH, Roles, Sequences
from latebloom.methods.forgetting.embeddings import (
    Forgetting,
    chance_of_occurring,
    drawn,
    forgotten,
    noised,
)
from latebloom.nn.masked_lm import MaskedLM
from latebloom.optim.parts import trained

ANSWERED, QUERY = slice(LENGTH - ANSWER, LENGTH), LENGTH - ANSWER - 1
NOVEL = ("novel", "novel/small", "novel/unit", "novel/bias", "novel/scaled", "novel/mended", "novel/uniform", "novel/large", "novel/left")  # fmt: skip
BANDS = 5


class Judged(NamedTuple):
    """Shares of sequences. Of switched words, what is neither `in_context` nor `in_weights` is another answer; of
    others the two answers are one.

    `chosen` is the share whose answer is right in context if only the two words of the context may be told:
    whether the role is known, whatever the network would rather say.
    """

    in_context: Float[Array, ""]
    in_weights: Float[Array, ""]
    chosen: Float[Array, ""]


def judged(logits: Float[Array, "n k vocabulary"], of: Sequences) -> Judged:
    """How the answers to sequences are to be taken: all tokens of one have to be right."""
    told = logits.argmax(axis=-1)
    two = jnp.stack([of.in_context[:, 0], _other(of)], axis=1)
    choice = jnp.take_along_axis(logits, two[:, None, :], axis=-1).argmax(axis=-1)
    told_of_two = jnp.take_along_axis(two[:, None, :], choice[..., None], axis=-1)[..., 0]

    def right(answer: Array, told: Array) -> Float[Array, ""]:
        return (told == answer).all(axis=1).mean(dtype=jnp.float32)

    return Judged(
        right(of.in_context, told), right(of.in_weights, told), right(of.in_context, told_of_two)
    )


def _other(of: Sequences) -> Int[Array, " n"]:
    """The noun of the context, which is before or after copula and adjective."""
    early = of.tokens[:, 1] == of.in_context[:, 0]
    return jnp.where(early, of.tokens[:, 2], of.tokens[:, 0])


class State(NamedTuple):
    model: MaskedLM
    moments: Any
    roles: Roles
    exams: Mapping[str, Sequences]
    novel: Float[Array, "novel size"]  # the first embeddings of novel words
    key: PRNGKeyArray
    step: Int[Array, ""]


class RoleLearner(Process):
    """A masked language model on sequences whose roles show twice; one step is one update.

    - `network(vocabulary, key)`, `roles(key)`: what learns, and from what. Each batch is new.
    - `optimiser(**hyper)`: of all parameters, with moments of the embeddings apart.
    - `forgetting` of embeddings, up to update `steps` where it has no end of its own.
    - `noise`: with which probability an occurrence of a training word makes it noise for one update, from update
      `noise_from` (0 is the first) and before update `noise_until`.
    - `embeddings`: they learn as the rest, are "frozen" or lose `decay` x rate of themselves at each update.
    - `head`, `tail`: how many of the commonest and rarest words of each kind an exam has; `exam` sequences in each.
    - `same_answers`: tell `in_weights` of exams whose words are not switched too, where it is `in_context` but for a few
      ambiguous words; otherwise it is NaN there, because nothing tells the two apart.

    A network that repeats the query has half of each exam right, in context and, if words are switched, in weights.

    Exams, with embeddings of novel words as they were at first ("novel"): drawn with a deviation of 0.02
    ("small") or 1 ("unit"); with the mean bias of trained words ("bias"), with their mean length ("scaled"), with both
    ("mended"); with uniform ones from 0 to 1, and normal ones around 5 with a deviation of 5 ("large"); and as
    training left them, which never saw them but as wrong answers ("left": so are they in the authors' code, where what
    should put them back does not). Where embeddings are forgotten, those of novel words are at first as a reset draws them.
    """

    # The probe solves for many layers at once, and with as many host devices as cores such a solve may never end.
    one_device: ClassVar[bool] = True
    network: Callable[[int, PRNGKeyArray], MaskedLM]
    roles: Callable[[PRNGKeyArray], Roles]
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: Mapping[str, Any]
    noise: Float[Array, ""] | None
    decay: Float[Array, ""]
    forgetting: Forgetting | None = eqx.field(static=True)
    noise_from: int = eqx.field(static=True)
    noise_until: int | None = eqx.field(static=True)
    embeddings: Literal["learned", "frozen"] = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    exam: int = eqx.field(static=True)
    head: int = eqx.field(static=True)
    tail: int = eqx.field(static=True)
    same_answers: bool = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, *, network: Callable[[int, PRNGKeyArray], MaskedLM], roles: Callable[[PRNGKeyArray], Roles],
        optimiser: Callable[..., optax.GradientTransformation], hyper: Mapping[str, Any], steps: int,
        batch: int = 128, forgetting: Forgetting | None = None, noise: float | None = None,
        noise_from: int = 0, noise_until: int | None = None, embeddings: Literal["learned", "frozen"] = "learned",
        decay: float | Float[Array, ""] = 0.0, exam: int = 200, head: int = 20, tail: int = 10,
        same_answers: bool = False, seeds_by: Literal["vmap", "map"] = "vmap",
    ):  # fmt: skip
        for name, value in {"steps": steps, "batch": batch, "exam": exam, "head": head, "tail": tail}.items():  # fmt: skip
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if embeddings not in ("learned", "frozen"):
            raise ValueError(f'embeddings must be "learned" or "frozen", not {embeddings!r}')
        if noise is not None and not 0 <= noise <= 1:
            raise ValueError(f"noise must be a probability, not {noise}")
        if not isinstance(decay, Tracer) and not decay >= 0:
            raise ValueError(f"decay must be a number from 0 on, not {decay}")
        if noise is None and (noise_from or noise_until is not None):
            raise ValueError(
                "noise_from and noise_until are of noise: give noise, its probability, too"
            )
        if noise_from < 0 or (noise_until is not None and noise_until <= noise_from):
            raise ValueError(f"noise_until must be above noise_from, from 0 on, not {noise_until} and {noise_from}")  # fmt: skip
        if forgetting is not None:
            forgetting.check()
        self.network, self.roles, self.optimiser = network, roles, optimiser
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.noise = None if noise is None else jnp.float32(noise)
        self.decay = jnp.asarray(decay, jnp.float32)
        self.forgetting, self.embeddings = forgetting, embeddings
        self.noise_from, self.noise_until = noise_from, noise_until
        self.steps, self.batch, self.exam, self.head, self.tail = steps, batch, exam, head, tail
        self.same_answers, self.seeds_by = same_answers, seeds_by

    def rule(self) -> optax.GradientTransformation:
        rule = self.optimiser(**self.hyper)
        if self.embeddings == "frozen":
            return trained(optax.set_to_zero(), _embedding, others=rule)
        shrinking = optax.chain(rule, optax.add_decayed_weights(-self.decay * self.hyper["rate"]))
        return trained(shrinking, _embedding, others=rule)

    def init(self, key: PRNGKeyArray) -> State:
        model_key, roles_key, exam_key, novel_key, key = jax.random.split(key, 5)
        roles = self.roles(roles_key)
        model = self.network(roles.vocabulary, model_key)
        novel = model.embedding[roles.words + 2 :]
        if self.forgetting is not None:
            novel = drawn(novel_key, novel, self.forgetting.spread)
        return State(
            model, self.rule().init(trainable(model)), roles, self.exams(roles, exam_key), novel, key, jnp.int32(0)
        )  # fmt: skip

    def exams(self, roles: Roles, key: PRNGKeyArray) -> dict[str, Sequences]:
        """The sequences of each exam but those of novel words' variants."""
        half, n = roles.words // 2, self.exam
        if max(self.head, self.tail) > half:
            raise ValueError(f"head and tail must be at most {half}, the words of a kind, not {self.head} and {self.tail}")  # fmt: skip
        ranks = {"head": (0, self.head), "tail": (half - self.tail, half), "law": (0, half)}
        edges = [half * i // BANDS for i in range(BANDS + 1)]
        ranks |= {f"band-{i}": (edges[i], edges[i + 1]) for i in range(BANDS)}
        keys = iter(jax.random.split(key, 2 + 2 * len(ranks)))
        found = {"seen": roles.training(next(keys), n), "novel": roles.novel_sequences(next(keys), n)}  # fmt: skip
        for name, (first, last) in ranks.items():
            for switched in (False, True):
                found[f"{name}/switched" if switched else name] = roles.ranked(
                    next(keys), n, first, last, switched=switched, lawful=name == "law"
                )
        return found

    def turns(self) -> range:
        return range(0) if self.forgetting is None else self.forgetting.updates(self.steps)

    def turn(self, state: State) -> State:
        assert self.forgetting is not None
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0xF0), state.step)
        model, moments = forgotten(
            self.rule(), state.model, state.moments, _embedding, self.forgetting, key
        )
        return state._replace(model=model, moments=moments)

    def step(self, state: State) -> State:
        key = step_key(state.key, state.step)
        draw, dropout, chance = jax.random.split(key, 3)
        batch = state.roles.training(draw, self.batch)

        def objective(model: MaskedLM) -> Array:
            if self.noise is not None:
                model = noised(chance, model, _embedding, self._chances(state, batch))
            logits = model(batch.tokens, key=dropout, train=True, at=ANSWERED)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.in_context).mean()

        slopes, seen = gradients(objective, state.model)
        model, moments = update(self.rule(), slopes, state.moments, state.model, seen)
        return state._replace(model=model, moments=moments, step=state.step + 1)

    def _chances(self, state: State, batch: Sequences) -> Float[Array, " vocabulary"]:
        chance = chance_of_occurring(batch.tokens, state.roles.vocabulary, self.noise)  # pyright: ignore
        chance = jnp.where(jnp.arange(state.roles.vocabulary) < state.roles.words, chance, 0.0)
        now = state.step >= self.noise_from
        if self.noise_until is not None:
            now &= state.step < self.noise_until
        return jnp.where(now, chance, 0.0)

    def on_novel(self, state: State) -> Judged:
        """How sequences of novel words are taken, with their embeddings and biases as each exam has them."""
        model, words, of = state.model, state.roles.words, state.exams["novel"]
        one, two, three = jax.random.split(jax.random.fold_in(state.key, 0xE0), 3)
        size, own = state.novel.shape, model.bias[words + 2 :]
        scaled = state.novel * _lengths(model.embedding[:words]).mean() / _lengths(state.novel)
        normal, mean = jax.random.normal(one, size), jnp.full_like(own, model.bias[:words].mean())
        given = {
            "novel": (state.novel, own), "novel/small": (0.02 * normal, own), "novel/unit": (normal, own),
            "novel/bias": (state.novel, mean), "novel/scaled": (scaled, own), "novel/mended": (scaled, mean),
            "novel/uniform": (jax.random.uniform(two, size), own),
            "novel/large": (5 + 5 * jax.random.normal(three, size), own),
            "novel/left": (model.embedding[words + 2 :], own),
        }  # fmt: skip

        def exam(embedding: Array, bias: Array) -> Judged:
            at = (
                model.embedding.at[words + 2 :].set(embedding),
                model.bias.at[words + 2 :].set(bias),
            )
            new = eqx.tree_at(lambda m: (m.embedding, m.bias), model, at)
            return judged(new(of.tokens, at=ANSWERED), of)

        return jax.vmap(exam)(*map(jnp.stack, zip(*(given[name] for name in NOVEL), strict=True)))

    def observe(self, state: State) -> dict[str, Array]:
        rest = [state.exams[name] for name in self.names()[len(NOVEL) :]]
        together = Sequences(*map(jnp.concatenate, zip(*rest, strict=True)))
        logits = state.model(together.tokens, at=ANSWERED)
        parts = jax.tree.map(lambda x: x.reshape(len(rest), self.exam, *x.shape[1:]), (logits, together))  # fmt: skip
        found = jax.tree.map(
            lambda *x: jnp.concatenate(x), self.on_novel(state), jax.vmap(judged)(*parts)
        )
        if not self.same_answers:
            apart = jnp.array([name.endswith("/switched") for name in self.names()])
            found = found._replace(in_weights=jnp.where(apart, found.in_weights, jnp.nan))
        words, embedding, bias = state.roles.words, state.model.embedding, state.model.bias
        kinds = embedding[:words].reshape(2, words // 2, -1)
        means = kinds.mean(axis=1)
        within = jnp.sqrt(jnp.square(kinds - means[:, None]).mean())
        # The first is "seen".
        loss = optax.softmax_cross_entropy_with_integer_labels(parts[0][0], rest[0].in_context)
        return {
            **found._asdict(),
            **self.probed(state),
            "loss": loss.mean(),
            "length": _lengths(embedding[:words]).mean(),
            "apart": jnp.sqrt(jnp.square(means[0] - means[1]).mean()) / within,
            "bias": bias[:words].mean() - bias[words + 2 :].mean(),
        }

    def probed(self, state: State) -> dict[str, Array]:
        """How well a linear probe of the query tells nouns from adjectives, by layer: of embeddings first.

        It is fitted to words of even rank in their own roles and asked for those of odd rank, in their own and in the
        other role, where what counts is the usual one.
        """
        own, other = (
            jnp.concatenate([state.exams[f"band-{i}{end}"].tokens for i in range(BANDS)])
            for end in ("", "/switched")
        )
        half = state.roles.words // 2

        def seen(tokens: Array) -> tuple[Array, Array, Array]:
            word = tokens[:, QUERY]
            layers = jnp.stack(
                [
                    state.model.embedding[word],
                    *(h[:, QUERY] for h in state.model.states(tokens)[1:]),
                ]
            )
            return layers, jnp.where(word < half, 1.0, -1.0), word % half % 2 == 0

        layers, kind, fit = seen(own)
        probes = jax.vmap(lambda x: linear_probe(x, kind, fit))(layers)
        shares = {}
        for name, tokens in {"probe": own, "probe_switched": other}.items():
            layers, kind, even = seen(tokens)
            told = jax.vmap(lambda x, w: with_constant(x) @ w)(layers, probes)
            shares[name] = jnp.mean(
                (told > 0) == (kind > 0), axis=1, where=~even, dtype=jnp.float32
            )
        return shares

    @staticmethod
    def names() -> tuple[str, ...]:
        """The exams, in order."""
        ranks = ("head", "tail", "law", *(f"band-{i}" for i in range(BANDS)))
        return (*NOVEL, "seen", *(f"{r}{s}" for r in ranks for s in ("", "/switched")))

    def quantities(self) -> dict[str, Quantity]:
        exams = {"dims": ("exam",), "coords": {"exam": self.names()}}
        return {
            "in_context": Quantity(about="share answered by context", **exams),  # pyright: ignore
            "in_weights": Quantity(about="share of switched words answered by their usual role", gaps=not self.same_answers, **exams),  # pyright: ignore
            "chosen": Quantity(about="share right in context of two words", **exams),  # pyright: ignore
            "probe": Quantity(about="share of words whose kind a linear probe of the query tells", dims=("layer",)),
            "probe_switched": Quantity(about="the same in the other kind's role: the usual kind", dims=("layer",)),
            "loss": Quantity("nats", about="loss on sequences of training"),
            "length": Quantity(about="mean length of trained embeddings"),
            "apart": Quantity(about="distance of the kinds' mean embeddings / deviation within"),
            "bias": Quantity("nats", about="mean output bias of trained words less that of novel ones"),
        }  # fmt: skip


def with_constant(x: Float[Array, "n size"]) -> Float[Array, "n size+1"]:
    return jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], axis=1)


def linear_probe(
    x: Float[Array, "n size"], y: Float[Array, " n"], fit: Bool[Array, " n"], ridge: float = 1e-3
) -> Float[Array, " size+1"]:
    """Weights of ridge regression of `y` on `x` scaled to unit mean square, and a constant; from the rows that `fit`."""
    weight = fit.astype(jnp.float32) / jnp.maximum(fit.sum(), 1)
    scale = jnp.sqrt((jnp.square(x) * weight[:, None]).sum() / x.shape[1])
    design = with_constant(x / jnp.maximum(scale, 1e-12))
    gram = (design * weight[:, None]).T @ design + ridge * jnp.eye(design.shape[1])
    found = jnp.linalg.solve(gram, design.T @ (weight * y))
    return found.at[:-1].divide(jnp.maximum(scale, 1e-12))


def _lengths(rows: Float[Array, "n size"]) -> Float[Array, "n 1"]:
    return jnp.sqrt(jnp.square(rows).sum(axis=1, keepdims=True))


def _embedding(model: Any) -> Any:
    return model.embedding
