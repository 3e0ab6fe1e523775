"""Gaussian noise by round number, cheap enough to be drawn a million times in a row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: UInt32[Array, " words"], high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw 2011), written out.

    `jax.random` computes the same function in a loop, which on a CPU takes longer than a round of a
    bandit; written out it is fused with what uses it.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    a, b = high.astype(jnp.uint32) + keys[0], low.astype(jnp.uint32) + keys[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            a = a + b
            b = ((b << rotation) | (b >> (32 - rotation))) ^ a
        a = a + keys[(block + 1) % 3]
        b = b + keys[(block + 2) % 3] + jnp.uint32(block + 1)
    return a, b


def normals(
    key: UInt32[Array, " words"], round: Int[Array, ""], count: int
) -> Float[Array, " count"]:
    """`count` independent standard normals that belong to a round."""
    places = jnp.arange((count + 1) // 2, dtype=jnp.uint32)
    bits = jnp.concatenate(threefry(key, jnp.broadcast_to(round, places.shape), places))[:count]
    uniform = ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-22 - 1
    return jnp.sqrt(jnp.float32(2)) * jax.lax.erf_inv(uniform)
