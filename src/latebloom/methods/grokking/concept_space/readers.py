"""Concept readers: from generated samples to concepts, with a judgement of garbage."""

from __future__ import annotations

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.methods.grokking.concept_space.denoisers import Linear, linears, space_to_depth
from latebloom.methods.grokking.concept_space.worlds import Discs, Vectors, all_classes
from latebloom.nn.conv import Conv

EASIEST = {"sep_colour": 0.8, "sep_size": 0.4, "sep_background": 0.8}
HARDEST = {"sep_colour": 0.2, "sep_size": 0.1, "sep_background": 0.2}


class VectorReader(eqx.Module):
    """The exact posterior of the concepts of `Vectors`, all classes being equally likely.

    A vector is garbage if a nuisance coordinate is farther than 4 standard deviations from its mean.
    """

    world: Vectors

    def __call__(
        self, x: Float[Array, "n dim"]
    ) -> tuple[Float[Array, "n concepts"], Float[Array, " n"]]:
        count = len(self.world.concepts)
        seps = jnp.asarray(self.world.seps)
        # Two Gaussians at -+ sep/2 with standard deviation sep/8 have log odds sep x / (sep/8)^2.
        probability = jax.nn.sigmoid(64 * x[:, :count] / seps)
        plausible = (jnp.abs(x[:, count:]) < 4).all(1)
        return probability, plausible.astype(x.dtype)


class ConceptClassifier(eqx.Module):
    """Convolutions, maximum and mean over the image, two layers: a logit a concept, and a quality.

    Called on images `[n, size, size, 3]` (clipped to [0, 1]) it returns P(concept = 1) and
    P(not garbage).
    """

    patch: Linear
    convolutions: tuple[Conv, Conv]
    head: tuple[Linear, Linear]

    def __init__(self, concepts: int, width: int = 32, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.patch, *head = linears(keys[0], [(12, width), (2 * width, 64), (64, concepts + 1)])
        self.convolutions = (
            Conv(width, width, 3, key=keys[1]),
            Conv(width, width, 3, key=keys[2]),
        )
        self.head = head[0], head[1]

    def logits(self, images: Float[Array, "n size size 3"]) -> Float[Array, "n concepts+1"]:
        x = jax.nn.gelu(self.patch(space_to_depth(4 * jnp.clip(images, 0.0, 1.0) - 2)))
        for convolution in self.convolutions:
            x = x + jax.nn.gelu(convolution(x))
        pooled = jnp.concatenate([x.max((1, 2)), x.mean((1, 2))], axis=1)
        return self.head[1](jax.nn.gelu(self.head[0](pooled)))

    def __call__(
        self, images: Float[Array, "n size size 3"]
    ) -> tuple[Float[Array, "n concepts"], Float[Array, " n"]]:
        probability = jax.nn.sigmoid(self.logits(images))
        return probability[:, :-1], probability[:, -1]


def varied_discs(
    key: PRNGKeyArray, world: Discs, classes: Int[Array, "n concepts"]
) -> Float[Array, "n size size 3"]:
    """Images whose separations vary log-uniformly from the hardest to the easiest."""

    def one(key: PRNGKeyArray, row: Int[Array, " concepts"]) -> Float[Array, "size size 3"]:
        sep_key, image_key = jax.random.split(key)
        u = jax.random.uniform(sep_key, (len(EASIEST),))
        seps = {n: HARDEST[n] * (EASIEST[n] / HARDEST[n]) ** u[i] for i, n in enumerate(EASIEST)}
        varied = Discs(**seps, concepts=world.concepts, image_size=world.image_size)
        return varied.sample(image_key, row[None])[0][0]

    return jax.vmap(one)(jax.random.split(key, len(classes)), classes)


def garbage(
    key: PRNGKeyArray, images: Float[Array, "n size size 3"]
) -> Float[Array, "n size size 3"]:
    """As many images that are none: noised, two in one, shuffled pixels, or empty, in turn."""
    keys = jax.random.split(key, 5)
    n, size = len(images), images.shape[1]
    sigma = jax.random.uniform(keys[0], (n, 1, 1, 1), minval=0.35, maxval=1.0)
    noised = jnp.sqrt(1 - sigma**2) * images + sigma * jax.random.normal(keys[1], images.shape)
    double = (images + jnp.roll(images, 1, axis=0)) / 2
    pixels = images.reshape(n, size * size, 3)
    order = jnp.argsort(jax.random.uniform(keys[2], (n, size * size)), axis=1)
    shuffled = jnp.take_along_axis(pixels, order[..., None], axis=1).reshape(images.shape)
    empty = jax.random.uniform(keys[3], (n, 1, 1, 3)) + 0 * images
    empty = empty + 0.05 * jax.random.normal(keys[4], images.shape)
    kind = (jnp.arange(n) % 4)[:, None, None, None]
    return jnp.select([kind == 0, kind == 1, kind == 2], [noised, double, shuffled], empty)


def classifier_batch(
    key: PRNGKeyArray, world: Discs, rows: int
) -> tuple[Float[Array, "n size size 3"], Int[Array, "n concepts"]]:
    """Images of all classes, equally often, with pixel noise of up to 0.1; and their classes."""
    image_key, level_key, noise_key = jax.random.split(key, 3)
    classes = jnp.asarray(all_classes(len(world.concepts)))
    classes = classes[jnp.arange(rows) % len(classes)]
    images = varied_discs(image_key, world, classes)
    level = jax.random.uniform(level_key, (rows, 1, 1, 1), maxval=0.1)
    return images + level * jax.random.normal(noise_key, images.shape), classes


def train_classifier(
    key: PRNGKeyArray,
    world: Discs,
    *,
    steps: int = 1500,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
) -> tuple[ConceptClassifier, dict[str, float]]:
    """A classifier of the concepts of `world`, and its accuracy on fresh images.

    It is trained apart from any generator, on all classes and on separations from hard to easy
    (`HARDEST` to `EASIEST`), and tells garbage from images. The report holds the accuracy of each
    concept, of `quality`, and of `all` concepts at once, over the separations of `world` itself.
    """
    if steps < 1 or batch_size < 8:
        raise ValueError(f"steps must be positive and batch_size at least 8: {steps}, {batch_size}")
    model_key, step_key, test_key = jax.random.split(key, 3)
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    start, static = eqx.partition(
        ConceptClassifier(len(world.concepts), key=model_key), eqx.is_array
    )

    def loss(model: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        batch_key, garbage_key = jax.random.split(key)
        images, classes = classifier_batch(batch_key, world, batch_size)
        both = jnp.concatenate([images, garbage(garbage_key, images[: batch_size // 2])])
        logits = eqx.combine(model, static).logits(both)
        real = (jnp.arange(len(both)) < batch_size).astype(jnp.float32)
        concepts = optax.sigmoid_binary_cross_entropy(logits[:batch_size, :-1], classes)
        return concepts.mean() + optax.sigmoid_binary_cross_entropy(logits[:, -1], real).mean()

    def step(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        model, state = carry
        updates, state = optimiser.update(
            jax.grad(loss)(model, jax.random.fold_in(step_key, i)), state
        )
        return optax.apply_updates(model, updates), state

    @jax.jit
    def train(model: Any) -> Any:
        return jax.lax.fori_loop(0, steps, step, (model, optimiser.init(model)))[0]

    classifier: ConceptClassifier = eqx.combine(train(start), static)
    return classifier, classifier_report(test_key, classifier, world)


@cache
def shared_classifier(
    concepts: tuple[str, ...], image_size: int, steps: int, learning_rate: float = 2e-3
) -> tuple[ConceptClassifier, float]:
    """A classifier for all generators of such `Discs`, trained once, and its accuracy on all concepts.

    Raises `ValueError` where it is right on fewer than nine in ten images.
    """
    world = Discs(concepts=concepts, image_size=image_size)
    trained, report = train_classifier(
        jax.random.key(0), world, steps=steps, learning_rate=learning_rate
    )
    if report["all"] < 0.9:
        raise ValueError(
            f"the concept classifier is right on {report['all']:.0%} of images: train it for more steps"
        )
    return trained, report["all"]


def classifier_report(
    key: PRNGKeyArray, classifier: ConceptClassifier, world: Discs, per_class: int = 128
) -> dict[str, float]:
    """Accuracy on fresh images of all classes of `world`: each concept, `all`, and `quality`."""
    image_key, garbage_key = jax.random.split(key)
    classes = jnp.asarray(all_classes(len(world.concepts))).repeat(per_class, axis=0)
    images = world.sample(image_key, classes)[0]
    probability, quality = eqx.filter_jit(classifier)(images)
    _, of_garbage = eqx.filter_jit(classifier)(garbage(garbage_key, images))
    right = (probability > 0.5) == (classes == 1)
    return {
        **{name: float(right[:, i].mean()) for i, name in enumerate(world.concepts)},
        "all": float(right.all(1).mean()),
        "quality": float(((quality > 0.5).mean() + (of_garbage < 0.5).mean()) / 2),
    }
