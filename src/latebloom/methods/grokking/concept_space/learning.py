"""The learning process: train a conditional generator, and at checkpoints read its concepts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.methods.grokking.concept_space.denoisers import Denoiser, Embeddings
from latebloom.methods.grokking.concept_space.diffusion import (
    LinearSchedule,
    ancestral_sample,
    guided,
    losses,
)
from latebloom.methods.grokking.concept_space.interventions import (
    LINEAR_SCALES,
    OVER_PROMPT_HALVES,
    concept_direction,
    placebo,
    steer,
)
from latebloom.methods.grokking.concept_space.worlds import (
    World,
    all_classes,
    mask_concept,
    training_set,
)

Reader = Callable[[Array], tuple[Float[Array, "n concepts"], Float[Array, " n"]]]
"""From samples to P(concept = 1) of every concept, and to the quality, P(not garbage)."""

NO_CONDITION = -1.0
"""Every entry of the condition that stands for "unconditional" in classifier-free guidance."""

NO_STEP = 2**32 - 1
LOSS_ROWS = 128
IMAGES_KEPT = 2


class Generator(eqx.Module):
    """A denoiser with its noise schedule: all that is trained."""

    denoiser: Any
    schedule: LinearSchedule


class State(NamedTuple):
    """Generator, its optimiser's state, the seed's data, and where the run is.

    `donor` is the embedding module of a later step if there is patching, else the initial one.
    """

    generator: Generator
    optimiser: Any
    x: Float[Array, "n ..."]
    condition: Float[Array, "n 11"]
    classes: Int[Array, "n concepts"]
    donor: Any
    key: PRNGKeyArray
    step: Int[Array, ""]


class ConceptSpace(Process):
    """Trains on the classes with at most one bit set, with the paper's settings by default.

    At every observation it generates `samples` samples for each prompt and reads their concepts: the
    class means of every class, and, with `interventions`, over-prompting, linear interventions,
    their placebos, and (with `patch_from` > 0) the embedding module that the same run will have at
    step `patch_from`, all aimed at the class with every bit set.

    - `deterministic`: no diffusion; the network maps z = 0 and the condition to the sample under
      squared error (the control the authors call GenDet).
    - `mask`: probability of zeroing the colour of a condition of class (0, 1, 0, ...).
    - `p_cfg`: probability of replacing a training condition by -1; with `guidance`, samples are
      drawn with classifier-free guidance of weight `w_cfg`.
    - `reader_accuracy`: of the reader on fresh samples; recorded with every observation.
    - `keep_images`: record a few samples of the target class, as uint8.
    """

    world: World
    reader: Reader
    denoiser: Callable[..., Denoiser] = eqx.field(static=True)
    learning_rate: float | Array = 1e-3
    weight_decay: float | Array = 0.01
    clip_norm: float | Array = 0.01
    data_noise: float | Array = 1e-3
    init_scale: float | Array = 1.0
    mask: float | Array = 0.0
    p_cfg: float | Array = 0.0
    w_cfg: float | Array = 0.5
    reader_accuracy: float | Array = 1.0
    gamma_range: tuple[float, float] = eqx.field(static=True, default=(-5.0, 10.0))
    over_prompts: tuple[float, ...] = eqx.field(static=True, default=OVER_PROMPT_HALVES)
    scales: tuple[float, ...] = eqx.field(static=True, default=LINEAR_SCALES)
    batch_size: int = eqx.field(static=True, default=64)
    per_class: int = eqx.field(static=True, default=1740)
    samples: int = eqx.field(static=True, default=32)
    sampler_steps: int = eqx.field(static=True, default=50)
    interventions: bool = eqx.field(static=True, default=False)
    patch_from: int = eqx.field(static=True, default=0)
    guidance: bool = eqx.field(static=True, default=False)
    deterministic: bool = eqx.field(static=True, default=False)
    keep_images: bool = eqx.field(static=True, default=False)

    def init(self, key: PRNGKeyArray) -> State:
        data_key, model_key, key = jax.random.split(key, 3)
        x, condition, classes = training_set(self.world, data_key, self.per_class)
        denoiser = jax.tree.map(
            lambda a: a * self.init_scale if eqx.is_array(a) else a, self.denoiser(key=model_key)
        )
        generator = Generator(denoiser, LinearSchedule(*self.gamma_range))
        optimiser = self._optimiser().init(eqx.filter(generator, eqx.is_array))
        donor = generator.denoiser.condition
        state = State(generator, optimiser, x, condition, classes, donor, key, jnp.int32(0))
        return state._replace(donor=self._future(state)) if self.patch_from else state

    def _future(self, state: State) -> Any:
        """The embedding module at step `patch_from`: a run depends on its key only, so run ahead."""
        dynamic, static = eqx.partition(state, eqx.is_array)

        def advance(_: Array, dynamic: Any) -> Any:
            return eqx.filter(self.step(eqx.combine(dynamic, static)), eqx.is_array)

        ahead = jax.lax.fori_loop(0, self.patch_from, advance, dynamic)
        return eqx.combine(ahead, static).generator.denoiser.condition

    def _optimiser(self) -> optax.GradientTransformation:
        rule = optax.chain(
            optax.clip_by_global_norm(self.clip_norm),  # type: ignore[arg-type]
            optax.adamw(self.learning_rate, weight_decay=self.weight_decay),  # type: ignore[arg-type]
        )
        return optax.flatten(rule)  # one long vector: a smaller program than a rule for every array

    def _noise_of(
        self, generator: Generator, embeddings: Embeddings, key: PRNGKeyArray | None = None
    ) -> Callable[[Array, Array], Array]:
        """The denoiser as a function of noisy samples and gamma."""
        low, high = self.gamma_range
        return lambda z, gamma: generator.denoiser(
            z, (gamma - low) / (high - low), embeddings, key=key
        )

    def loss_terms(
        self,
        generator: Generator,
        key: PRNGKeyArray,
        x: Float[Array, "batch ..."],
        condition: Float[Array, "batch 11"],
        dropout: PRNGKeyArray | None = None,
    ) -> dict[str, Float[Array, " batch"]]:
        """Terms of each sample's loss, bits per coordinate (or squared error, if deterministic)."""
        embeddings = generator.denoiser.embed(condition)
        if self.deterministic:
            made = generator.denoiser(jnp.zeros_like(x), jnp.zeros(1), embeddings, key=dropout)
            return {"diffusion": ((made - x) ** 2).reshape(len(x), -1).mean(1)}
        noise_of = self._noise_of(generator, embeddings, dropout)
        return losses(key, noise_of, generator.schedule, x, self.data_noise)

    def step(self, state: State) -> State:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        rows = jax.random.randint(keys[0], (self.batch_size,), 0, len(state.x))
        second_only = state.classes[rows] == jnp.zeros_like(state.classes[0]).at[1].set(1)
        condition = mask_concept(keys[1], state.condition[rows], second_only.all(1), self.mask)
        dropped = jax.random.bernoulli(keys[2], self.p_cfg, (self.batch_size, 1))
        condition = jnp.where(dropped, NO_CONDITION, condition)
        trained, static = eqx.partition(state.generator, eqx.is_array)

        def loss(trained: Any) -> Float[Array, ""]:
            generator = eqx.combine(trained, static)
            terms = self.loss_terms(generator, keys[3], state.x[rows], condition, keys[4])
            return sum(terms.values(), jnp.zeros(())).mean()

        updates, optimiser = self._optimiser().update(
            jax.grad(loss)(trained), state.optimiser, trained
        )
        return state._replace(
            generator=eqx.combine(optax.apply_updates(trained, updates), static),
            optimiser=optimiser,
            step=state.step + 1,
        )

    def generate(
        self, generator: Generator, key: PRNGKeyArray, embeddings: Embeddings
    ) -> Float[Array, "n ..."]:
        """One sample for each row of the embeddings."""
        shape = (len(embeddings[0]), *self.world.shape)
        if self.deterministic:
            return generator.denoiser(jnp.zeros(shape), jnp.zeros(1), embeddings)
        noise_of = self._noise_of(generator, embeddings)
        if self.guidance:
            nothing = generator.denoiser.embed(jnp.full((1, *self._condition_shape), NO_CONDITION))
            noise_of = guided(noise_of, self._noise_of(generator, nothing), self.w_cfg)
        return ancestral_sample(key, noise_of, generator.schedule, shape, self.sampler_steps)

    @property
    def _classes(self) -> np.ndarray:
        return all_classes(len(self.world.concepts))

    @property
    def _condition_shape(self) -> tuple[int, ...]:
        return jax.eval_shape(
            self.world.prompt, jnp.zeros((1, len(self.world.concepts)), int)
        ).shape[1:]

    def prompts(self, state: State) -> dict[str, Embeddings]:
        """Embeddings `[variants, width]` of everything that is asked of the model."""
        classes = jnp.asarray(self._classes)
        conditions = [self.world.prompt(classes)]
        embed = state.generator.denoiser.embed
        if not self.interventions:
            return {"class": embed(conditions[0])}
        # One random direction for the whole run, as the concept's direction is one for the run.
        prompt_key, latent_key = jax.random.split(jax.random.fold_in(state.key, NO_STEP))
        plain = conditions[0][-1:]
        halves = jnp.asarray(self.over_prompts)
        over = jax.vmap(lambda half: self.world.prompt(classes[-1:], half)[0])(halves) - plain
        random = jax.random.normal(prompt_key, plain.shape)
        sham = random * jnp.linalg.norm(over, axis=1, keepdims=True) / jnp.linalg.norm(random)
        conditions += [plain + over, plain + sham]
        embedded = embed(jnp.concatenate(conditions))

        def rows(start: int, stop: int) -> Embeddings:
            return jax.tree.map(lambda e: e[start:stop], embedded)

        k, n = len(classes), len(over)
        here = rows(k - 1, k)
        direction = concept_direction(rows(k // 2, k // 2 + 1), rows(0, 1))
        scales = jnp.asarray(self.scales)[:, None]
        asked = {
            "class": rows(0, k),
            "over_prompt": rows(k, k + n),
            "placebo_prompt": rows(k + n, k + 2 * n),
            "linear": steer(here, direction, scales),
            "placebo_linear": steer(here, placebo(latent_key, direction), scales),
        }
        if self.patch_from:
            asked["patched"] = tuple(module(plain) for module in state.donor)
        return asked

    def observe(self, state: State) -> dict[str, Array]:
        asked = self.prompts(state)
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), NO_STEP)
        together = jax.tree.map(lambda *parts: jnp.concatenate(parts), *asked.values())
        rows = jax.tree.map(lambda e: jnp.repeat(e, self.samples, axis=0), together)
        made = self.generate(state.generator, key, rows)
        read = self.reader(made)
        made, probability, quality = (
            a.reshape(-1, self.samples, *a.shape[1:]) for a in (made, *read)
        )
        seen = self._of_classes(probability[: len(self._classes)], quality[: len(self._classes)])
        right = ((probability > 0.5).all(2) & (quality > 0.5)).mean(1)
        stop = len(self._classes)
        for name, embeddings in asked.items():
            if name != "class":
                start, stop = stop, stop + len(embeddings[0])
                seen[f"{name}_accuracy"] = right[start:stop]
        if self.keep_images:
            kept = made[len(self._classes) - 1 :, :IMAGES_KEPT]
            seen["images"] = (255 * jnp.clip(kept, 0, 1)).astype(jnp.uint8)
        seen["reader_accuracy"] = jnp.asarray(self.reader_accuracy)
        return seen | self._of_losses(state, key)

    def _of_classes(
        self, probability: Float[Array, "classes n concepts"], quality: Float[Array, "classes n"]
    ) -> dict[str, Array]:
        right = (probability > 0.5) == (jnp.asarray(self._classes)[:, None] == 1)
        return {
            "probability": probability.mean(1),
            "concept_accuracy": right.mean(1),
            "accuracy": (right.all(2) & (quality > 0.5)).mean(1),
            "quality": quality.mean(1),
        }

    def _of_losses(self, state: State, key: PRNGKeyArray) -> dict[str, Array]:
        """Diffusion loss on training samples, on fresh ones of their classes, and on the target."""
        keys = jax.random.split(key, 3)
        rows = jax.random.randint(keys[0], (LOSS_ROWS,), 0, len(state.x))
        target = jnp.broadcast_to(jnp.asarray(self._classes[-1]), state.classes[rows].shape)
        fresh = self.world.sample(keys[1], jnp.concatenate([state.classes[rows], target]))
        seen = state.x[rows], state.condition[rows]
        x, condition = (jnp.concatenate(pair) for pair in zip(seen, fresh, strict=True))
        # Interleaved, so that the evenly spread times are the same for the three sets.
        order = jnp.arange(3 * LOSS_ROWS).reshape(3, LOSS_ROWS).T.reshape(-1)
        terms = self.loss_terms(state.generator, keys[2], x[order], condition[order])
        train, test, target_loss = terms["diffusion"].reshape(LOSS_ROWS, 3).mean(0)
        return {
            "train_loss": train,
            "test_loss": test,
            "target_loss": target_loss,
            "gamma": state.generator.schedule(jnp.array([0.0, 1.0])),
        }

    def quantities(self) -> dict[str, Quantity]:
        labels = ["".join(map(str, row)) for row in self._classes]
        of_class = {"dims": ("class",), "coords": {"class": labels}}
        of_concept = {
            "dims": ("class", "concept"),
            "coords": {"class": labels, "concept": list(self.world.concepts)},
        }
        halves = {"dims": ("half",), "coords": {"half": list(self.over_prompts)}}
        scales = {"dims": ("scale",), "coords": {"scale": list(self.scales)}}
        loss = "squared error" if self.deterministic else "bits/dim"
        return {
            "probability": Quantity(about="mean P(concept = 1)", **of_concept),
            "concept_accuracy": Quantity(about="samples with the wanted value", **of_concept),
            "accuracy": Quantity(
                about="samples with every wanted value, and not garbage", **of_class
            ),
            "quality": Quantity(about="mean P(not garbage)", **of_class),
            "over_prompt_accuracy": Quantity(about="accuracy when over-prompted", **halves),
            "placebo_prompt_accuracy": Quantity(
                about="accuracy, random prompt of equal norm", **halves
            ),
            "linear_accuracy": Quantity(about="accuracy with the linear intervention", **scales),
            "placebo_linear_accuracy": Quantity(about="accuracy, random direction", **scales),
            "patched_accuracy": Quantity(dims=("donor",), about="accuracy, later embedding module"),
            "reader_accuracy": Quantity(about="the reader's own accuracy on fresh samples"),
            "train_loss": Quantity(loss, about="diffusion loss, training samples"),
            "test_loss": Quantity(loss, about="diffusion loss, fresh samples"),
            "target_loss": Quantity(loss, about="diffusion loss, target class"),
            "gamma": Quantity(dims=("end",), coords={"end": [0, 1]}, about="-log SNR at t = 0, 1"),
            "images": Quantity(dims=("asked", "sample", "row", "column", "channel")),
        }


class ImageConceptSpace(ConceptSpace):
    """`ConceptSpace` for image models: seeds one after another, which convolutions need."""

    seeds_by: ClassVar[Literal["vmap", "map"]] = "map"
