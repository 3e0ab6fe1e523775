"""Wrong labels made on purpose: symmetric, or to a fixed class that looks alike."""

from __future__ import annotations

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.dataset import Dataset, check_targets

MNIST_PAIRS = {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}
CIFAR10_PAIRS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}  # truck, bird, deer; cat and dog both ways


def superclass_pairs(superclass: Int[np.ndarray, " classes"]) -> dict[int, int]:
    """Each class to the next one of its superclass, the last to the first (CIFAR-100).

    `superclass`: the superclass of every class. A class alone in its superclass stays itself.
    """
    pairs = {}
    for group in np.unique(superclass):
        members = np.flatnonzero(np.asarray(superclass) == group).tolist()
        pairs |= dict(zip(members, members[1:] + members[:1], strict=True))
    return {a: b for a, b in pairs.items() if a != b}


class LabelNoise(eqx.Module):
    """Labels of which a share is replaced: `noise(key, labels)` gives the noisy ones.

    - Symmetric (`pairs=None`): `rate` of all labels, chosen at random, are drawn anew from all
      classes, the true one included, so that rate (1 - 1 / classes) of them become wrong.
    - Asymmetric: within every class of `pairs`, `rate` of its labels become that of its partner.

    Shares are exact up to one example: ceil(rate n) are chosen. All fields but `classes` are array
    leaves, so that noises of all rates and kinds share one compiled program.

    Raises `ValueError` for a rate outside [0, 1] or pairs of unknown classes.

    Source: Liu et al. 2020 (arXiv 2007.00151), section 6 and code; pairs of Patrini et al. 2017.
    """

    rate: Float[Array, ""]
    partner: Int[Array, " classes"]
    symmetric: Bool[Array, ""]
    classes: int = eqx.field(static=True)

    def __init__(self, rate: float, classes: int = 10, pairs: Mapping[int, int] | None = None):
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is a share of the labels in [0, 1], not {rate}")
        partner = np.arange(classes)
        for label, other in (pairs or {}).items():
            if not (0 <= label < classes and 0 <= other < classes):
                raise ValueError(f"pair {label} -> {other} names a class outside 0..{classes - 1}")
            partner[label] = other
        self.rate, self.partner = jnp.float32(rate), jnp.asarray(partner, jnp.int32)
        self.symmetric, self.classes = jnp.asarray(pairs is None), classes

    def __call__(self, key: PRNGKeyArray, labels: Int[Array, " n"]) -> Int[Array, " n"]:
        n = len(labels)
        order_key, draw_key = jax.random.split(key)
        place = _ranks(jax.random.bits(order_key, (n,)))
        drawn = jax.random.randint(draw_key, (n,), 0, self.classes, labels.dtype)
        anywhere = jnp.where(place < self.rate * n, drawn, labels)
        members = jnp.bincount(labels, length=self.classes)
        start = jnp.cumsum(members) - members
        within = _ranks(labels * n + place)
        chosen = within - start[labels] < self.rate * members[labels]
        paired = jnp.where(chosen, self.partner[labels].astype(labels.dtype), labels)
        return jnp.where(self.symmetric, anywhere, paired)

    def transition(self) -> Float[Array, "classes classes"]:
        """T[i, j]: probability that an example of class i is labelled j."""
        same = jnp.eye(self.classes)
        uniform = jnp.full_like(same, 1 / self.classes)
        new = jnp.where(self.symmetric, uniform, same[self.partner])
        return (1 - self.rate) * same + self.rate * new


def _ranks(values: Array) -> Int[Array, " n"]:
    """How many are smaller."""
    n = len(values)
    return jnp.zeros(n, jnp.int32).at[jnp.argsort(values)].set(jnp.arange(n, dtype=jnp.int32))


class NoisyLabels(eqx.Module):
    """The labels that one run learns from. True ones are looked at by probes alone."""

    train: Int[Array, " train"]
    valid: Int[Array, " valid"]


class NoisyData(Dataset):
    """Images or features whose training and validation labels are made noisy anew for each seed.

    `y_train`, `y_valid` and `y_test` are the true labels; `noise` makes those of the training and
    the validation part noisy, so that nothing clean guides the choice of an epoch.

    Raises `ValueError` where inputs and labels do not match in number, a part is empty, or labels are
    not from 0 to the noise's `classes` - 1.
    """

    x_valid: Array
    y_valid: Array
    noise: LabelNoise

    def __check_init__(self) -> None:
        if len(self.x_valid) != len(self.y_valid) or not len(self.x_valid):
            raise ValueError(
                f"x_valid has {len(self.x_valid)} examples and y_valid {len(self.y_valid)}: they "
                "must be the same number, at least 1"
            )
        like = jax.ShapeDtypeStruct((1, self.noise.classes), jnp.float32)
        for part in ("train", "valid", "test"):
            check_targets(getattr(self, f"y_{part}"), like, f"y_{part}")

    def draw(self, key: PRNGKeyArray) -> NoisyLabels:
        """Noisy labels of the training and the validation part."""
        train_key, valid_key = jax.random.split(key)
        return NoisyLabels(self.noise(train_key, self.y_train), self.noise(valid_key, self.y_valid))


def held_out(data: Dataset, noise: LabelNoise, share: float = 0.1) -> NoisyData:
    """The first `share` of the training examples for validation, under the same noise; the rest trains.

    Raises `ValueError` where that leaves one of the two without an example.
    """
    count = int(share * len(data.x_train) + 1e-9)  # 0.3 of 10 is 3
    return NoisyData(
        data.x_train[count:], data.y_train[count:], data.x_test, data.y_test,
        data.x_train[:count], data.y_train[:count], noise,
    )  # fmt: skip
