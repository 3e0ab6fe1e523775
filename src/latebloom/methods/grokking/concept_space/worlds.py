"""Worlds with known concepts: rendered discs, and their fast twin of Gaussian vectors.

A world draws samples `x` of given concept classes together with the *continuous* conditioning
vector that describes each sample. A class is a row of bits, one for each concept. A generative
model trains on the classes with at most one bit set; the others are out of distribution.

Source: Park et al., "Emergence of Hidden Capabilities" (2024), section 3 and appendix on data.
"""

from __future__ import annotations

from itertools import product
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from scipy.ndimage import gaussian_filter1d

CONDITION_SIZE = 11
"""Length of a conditioning vector: shape 2, x 1, y 1, colour 3, size 1, background 3."""

_SHAPE, _COLOUR, _SIZE, _BACKGROUND = slice(0, 2), slice(4, 7), slice(7, 8), slice(8, 11)
_FIELDS = {"shape": _SHAPE, "colour": _COLOUR, "size": _SIZE, "background": _BACKGROUND}
_RED_TO_BLUE = np.array([-1.0, -1.0, 1.0]), np.array([1.0, -1.0, -1.0])
_SMALLEST_RADIUS = 0.1


class World(Protocol):
    """What the concept-space process needs of a source of data."""

    concepts: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]: ...

    def sample(
        self, key: PRNGKeyArray, classes: Int[Array, "batch concepts"]
    ) -> tuple[Float[Array, "batch ..."], Float[Array, "batch 11"]]: ...

    def prompt(
        self, classes: Int[Array, "batch concepts"], colour_half: Float[Array, ""] | None = None
    ) -> Float[Array, "batch 11"]: ...


def all_classes(concepts: int) -> np.ndarray:
    """Every class as a row of bits, `[2**concepts, concepts]`, in binary order."""
    return np.array(list(product((0, 1), repeat=concepts)), np.int32)


def seen_in_training(classes: np.ndarray) -> np.ndarray:
    """True for the classes with at most one bit set."""
    return classes.sum(-1) <= 1


def check_concepts(concepts: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises unless the concepts are known, differ, number two or more and begin with the colour."""
    if unknown := set(concepts) - set(known):
        raise ValueError(f"unknown concept {min(unknown)!r}: choose from {', '.join(known)}")
    if concepts[:1] != ("colour",) or len(concepts) < 2 or len(set(concepts)) < len(concepts):
        raise ValueError(f"concepts must be 'colour' and then other ones, not {concepts}")


def training_set(
    world: World, key: PRNGKeyArray, per_class: int
) -> tuple[Float[Array, "batch ..."], Float[Array, "batch 11"], Int[Array, "batch concepts"]]:
    """`per_class` samples of every training class: samples, conditions and classes."""
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, not {per_class}")
    classes = all_classes(len(world.concepts))
    classes = jnp.asarray(np.repeat(classes[seen_in_training(classes)], per_class, axis=0))
    return *world.sample(key, classes), classes


def mask_concept(
    key: PRNGKeyArray,
    conditions: Float[Array, "batch 11"],
    eligible: Bool[Array, " batch"],
    probability: Float[Array, ""] | float,
    field: slice = _COLOUR,
) -> Float[Array, "batch 11"]:
    """Zero the `field` (colour) of eligible conditions with the given probability.

    This is the underspecified prompt of the paper, "triangle" in place of "red triangle".
    """
    hit = eligible & jax.random.bernoulli(key, probability, eligible.shape)
    return jnp.where(hit[:, None], conditions.at[:, field].set(0.0), conditions)


class Discs(eqx.Module):
    """Images of one disc (or triangle) on a plain background, `[batch, size, size, 3]` in [0, 1].

    Each concept has two values, `sep_*` apart: their distance is the concept's signal.

    - colour 0/1: red/blue, channels 0.5 +- sep_colour/2, each uniform within sep_colour/8;
    - size 0/1: large/small, radius 0.45 +- sep_size/2 within 3/8 sep_size, the half-image being 1;
    - shape 0/1: disc, or upright triangle of the same area;
    - background 0/1: light/dark, 0.5 +- sep_background/2, each channel within sep_background/8.

    A concept that is not in `concepts` stays at its value 0 (the background then within [0.8, 1])
    and is absent (zero) from the conditioning vector. The centre is uniform in [-0.5, 0.5]^2. The
    mask is blurred by 1 pixel at 32 pixels width, and pixels get Gaussian noise of 1e-3.
    """

    sep_colour: float | Array = 0.8
    sep_size: float | Array = 0.4
    sep_background: float | Array = 0.8
    concepts: tuple[str, ...] = eqx.field(static=True, default=("colour", "size"))
    image_size: int = eqx.field(static=True, default=32)
    noise: float | Array = 1e-3

    def __check_init__(self) -> None:
        check_concepts(self.concepts, known=tuple(_FIELDS))
        if self.image_size < 8:
            raise ValueError(f"image_size must be at least 8 pixels, not {self.image_size}")
        for name, most in (("sep_colour", 0.8), ("sep_size", 0.4), ("sep_background", 0.8)):
            value = getattr(self, name)
            if isinstance(value, float) and not 0 < value <= most:
                raise ValueError(f"{name} must lie in (0, {most}] to stay in range, not {value}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.image_size, self.image_size, 3)

    def _bit(self, classes: Int[Array, "batch concepts"], concept: str) -> Int[Array, " batch"]:
        if concept in self.concepts:
            return classes[:, self.concepts.index(concept)]
        return jnp.zeros(len(classes), jnp.int32)

    def _means(
        self, classes: Int[Array, "batch concepts"], colour_half: Float[Array, ""] | None = None
    ) -> dict[str, Float[Array, "batch n"]]:
        """Class means of every field, concept or not."""
        half = self.sep_colour / 2 if colour_half is None else colour_half
        blue = self._bit(classes, "colour")[:, None]
        dark = self._bit(classes, "background")[:, None]
        sign = jnp.where(blue == 1, *map(jnp.asarray, _RED_TO_BLUE))
        light = self.sep_background / 2 if "background" in self.concepts else 0.4
        return {
            "shape": jax.nn.one_hot(self._bit(classes, "shape"), 2),
            "colour": 0.5 + half * sign,
            "size": 0.45 + self.sep_size * (0.5 - self._bit(classes, "size")[:, None]),
            "background": 0.5 + light * (1.0 - 2.0 * dark) * jnp.ones(3),
        }

    def _condition(self, fields: dict[str, Float[Array, "batch n"]]) -> Float[Array, "batch 11"]:
        condition = jnp.zeros((len(fields["colour"]), CONDITION_SIZE))
        for name in self.concepts:
            condition = condition.at[:, _FIELDS[name]].set(fields[name])
        return condition

    def prompt(
        self, classes: Int[Array, "batch concepts"], colour_half: Float[Array, ""] | None = None
    ) -> Float[Array, "batch 11"]:
        """The class means as conditions. `colour_half` in place of sep_colour/2 exaggerates."""
        return self._condition(self._means(classes, colour_half))

    def factors(
        self, key: PRNGKeyArray, classes: Int[Array, "batch concepts"]
    ) -> dict[str, Float[Array, "batch n"]]:
        """One draw of shape, colour, size, background and centre for each row of `classes`."""
        keys = jax.random.split(key, 4)
        means, n = self._means(classes), len(classes)
        background = self.sep_background / 8 if "background" in self.concepts else 0.1
        uniform = [
            jax.random.uniform(k, (n, width), minval=-1.0)
            for k, width in zip(keys, (3, 1, 3, 2), strict=True)
        ]
        # The lower border of the radius is clipped before drawing, so that no mass piles up on it.
        low = jnp.maximum(means["size"] - 3 / 8 * self.sep_size, _SMALLEST_RADIUS)
        high = means["size"] + 3 / 8 * self.sep_size
        return {
            "shape": means["shape"],
            "colour": means["colour"] + self.sep_colour / 8 * uniform[0],
            "size": low + (high - low) * (uniform[1] + 1) / 2,
            "background": means["background"] + background * uniform[2],
            "centre": 0.5 * uniform[3],
        }

    def sample(
        self, key: PRNGKeyArray, classes: Int[Array, "batch concepts"]
    ) -> tuple[Float[Array, "batch size size 3"], Float[Array, "batch 11"]]:
        """One image and its condition for each row of `classes`."""
        factor_key, noise_key = jax.random.split(key)
        fields = self.factors(factor_key, classes)
        return self.render(noise_key, fields), self._condition(fields)

    def render(
        self, key: PRNGKeyArray, fields: dict[str, Float[Array, "batch n"]]
    ) -> Float[Array, "batch size size 3"]:
        """Images of the given factors."""
        axis = jnp.linspace(-1.0, 1.0, self.image_size)
        dx = axis[None, :] - fields["centre"][:, 0, None, None]
        dy = -axis[:, None] - fields["centre"][:, 1, None, None]
        radius = fields["size"][:, :, None]
        disc = jnp.hypot(dx, dy) < radius
        mask = disc
        if "shape" in self.concepts:
            side = np.sqrt(4 * np.pi / np.sqrt(3)) * radius
            inner, slope = side / (2 * np.sqrt(3)), np.sqrt(3)
            top = side / np.sqrt(3)
            triangle = (dy > -inner) & (dy < top - slope * jnp.abs(dx))
            mask = jnp.where(fields["shape"][:, 1, None, None] == 1, triangle, disc)
        pixels = self.image_size / 32
        blur = jnp.asarray(gaussian_filter1d(np.eye(self.image_size), pixels, axis=0), jnp.float32)
        soft = (blur @ mask.astype(jnp.float32) @ blur.T)[..., None]
        colour, background = fields["colour"], fields["background"]
        image = soft * colour[:, None, None] + (1 - soft) * background[:, None, None]
        image = image + self.noise * jax.random.normal(key, image.shape)
        return jnp.clip(image, 0.0, 1.0)


class Vectors(eqx.Module):
    """The fast twin: Gaussian vectors whose first coordinates are the concepts.

    Concept i of value 0/1 has mean -+ seps[i]/2 and standard deviation seps[i]/8; `nuisance` further
    coordinates are standard normal (the authors' "vec" data set). The condition tells the concept
    coordinates v in the fields that the images use: colour (0.5 - v, 0.5, 0.5 + v), others 0.5 + v.
    Samples are `[batch, concepts + nuisance]`.
    """

    seps: Float[Array, " concepts"] | tuple[float, ...]
    concepts: tuple[str, ...] = eqx.field(static=True, default=("colour", "size"))
    nuisance: int = eqx.field(static=True, default=2)

    def __check_init__(self) -> None:
        check_concepts(self.concepts, known=("colour", "size", "background"))
        if np.size(self.seps) != len(self.concepts):
            raise ValueError(
                f"seps needs one separation for each of {self.concepts}, not {np.size(self.seps)}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.concepts) + self.nuisance,)

    def prompt(
        self, classes: Int[Array, "batch concepts"], colour_half: Float[Array, ""] | None = None
    ) -> Float[Array, "batch 11"]:
        """The class means as conditions. `colour_half` in place of seps[0]/2 exaggerates."""
        half = jnp.asarray(self.seps) / 2
        if colour_half is not None:
            half = half.at[0].set(colour_half)
        return self._condition((2 * classes - 1) * half)

    def _condition(self, values: Float[Array, "batch concepts"]) -> Float[Array, "batch 11"]:
        condition = jnp.zeros((len(values), CONDITION_SIZE))
        for i, name in enumerate(self.concepts):
            sign = jnp.array([-1.0, 0.0, 1.0]) if name == "colour" else 1.0
            condition = condition.at[:, _FIELDS[name]].set(0.5 + sign * values[:, i : i + 1])
        return condition

    def sample(
        self, key: PRNGKeyArray, classes: Int[Array, "batch concepts"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch 11"]]:
        """One vector and its condition for each row of `classes`."""
        concept_key, nuisance_key = jax.random.split(key)
        seps = jnp.asarray(self.seps)
        means = (2 * classes - 1) * seps / 2
        values = means + seps / 8 * jax.random.normal(concept_key, means.shape)
        nuisance = jax.random.normal(nuisance_key, (len(classes), self.nuisance))
        return jnp.concatenate([values, nuisance], axis=1), self._condition(values)
