"""Algorithmic data sets: modular arithmetic, sparse parity, random binary codes.

Each is a function of a random key, so that every seed draws its own split.
"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.dataset import Dataset

Operation = Literal["+", "-", "*"]
Encoding = Literal["one-hot", "tokens", "binary", "codes"]


def modular_arithmetic(
    p: int, operation: Operation = "+"
) -> tuple[Int[Array, "pairs 2"], Int[Array, " pairs"]]:
    """All p² pairs (a, b) and their results (a op b) mod p.

    Raises `ValueError` for another operation or p < 2.
    """
    if operation not in ("+", "-", "*"):
        raise ValueError(f"operation must be one of + - *, not {operation!r}")
    if p < 2:
        raise ValueError(f"p must be at least 2, not {p}")
    a, b = jnp.divmod(jnp.arange(p * p, dtype=jnp.int32), p)
    result = {"+": a + b, "-": a - b, "*": a * b}[operation] % p
    return jnp.stack([a, b], axis=-1), result


def split(key: PRNGKeyArray, x: Array, y: Array, train_fraction: float) -> Dataset:
    """Random split; `int(train_fraction * n)` examples go to training.

    Raises `ValueError` if a side would be empty.
    """
    n = len(x)
    count = int(train_fraction * n)
    if not 0 < count < n:
        raise ValueError(f"train_fraction {train_fraction} of {n} examples leaves one side empty")
    order = jax.random.permutation(key, n)
    train, test = order[:count], order[count:]
    return Dataset(x[train], y[train], x[test], y[test])


class ModularArithmetic(eqx.Module):
    """Draws a split of all pairs mod p; inputs are indices of ones (a, p + b), or tokens (a, b).

    - `encoding`: "one-hot" for networks with `one_hot=True` (width 2p), "tokens" for
      transformers; "binary" for the binary digits of each number and "codes" for random distinct
      codes of as many bits, which make the inputs low-dimensional.
    """

    p: int = eqx.field(static=True)
    operation: Operation = eqx.field(static=True, default="+")
    train_fraction: float = eqx.field(static=True, default=0.4)
    encoding: Encoding = eqx.field(static=True, default="one-hot")

    @property
    def bits(self) -> int:
        """Bits that a number below p takes."""
        return (self.p - 1).bit_length()

    @property
    def in_size(self) -> int:
        """Width of the input layer."""
        return 2 * (self.bits if self.encoding in ("binary", "codes") else self.p)

    def __call__(self, key: PRNGKeyArray) -> Dataset:
        split_key, code_key = jax.random.split(key)
        pairs, result = modular_arithmetic(self.p, self.operation)
        if self.encoding == "one-hot":
            x = pairs + jnp.array([0, self.p], jnp.int32)
        elif self.encoding in ("binary", "codes"):
            random = self.encoding == "codes"
            codes = (
                random_binary_codes(code_key, self.p, self.bits)
                if random
                else binary_digits(jnp.arange(self.p), self.bits)
            )
            x = codes[pairs].reshape(len(pairs), 2 * self.bits)
        else:
            x = pairs
        return split(split_key, x, result, self.train_fraction)


def random_binary_codes(key: PRNGKeyArray, count: int, bits: int) -> Array:
    """`count` distinct random codes, float32 [count, bits] of zeros and ones.

    Raises `ValueError` if there are fewer than `count` codes of that length, or bits > 20.
    """
    if bits > 20 or count > 2**bits:
        raise ValueError(f"{count} distinct codes of {bits} bits cannot be drawn (bits at most 20)")
    return binary_digits(jax.random.choice(key, 2**bits, (count,), replace=False), bits)


def binary_digits(numbers: Int[Array, " n"], bits: int) -> Float[Array, "n bits"]:
    """The lowest `bits` binary digits of each number, lowest first, as zeros and ones."""
    return ((numbers[:, None] >> jnp.arange(bits)) & 1).astype(jnp.float32)


class SparseParity(eqx.Module):
    """Parity of the first `relevant` of `relevant + noise` random bits.

    `samples` distinct bit strings, split in training and test by `train_fraction`; inputs are
    float32 zeros and ones. Defaults as in Prieto et al. 2025, Fig. 4.
    """

    relevant: int = eqx.field(static=True, default=3)
    noise: int = eqx.field(static=True, default=40)
    samples: int = eqx.field(static=True, default=2000)
    train_fraction: float = eqx.field(static=True, default=0.5)

    @property
    def in_size(self) -> int:
        """Width of the input layer."""
        return self.relevant + self.noise

    def __call__(self, key: PRNGKeyArray) -> Dataset:
        split_key, bit_key = jax.random.split(key)
        x = jax.random.bernoulli(bit_key, 0.5, (self.samples, self.in_size))
        y = x[:, : self.relevant].sum(axis=-1) % 2
        return split(split_key, x.astype(jnp.float32), y.astype(jnp.int32), self.train_fraction)
