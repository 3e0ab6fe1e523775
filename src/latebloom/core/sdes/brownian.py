"""Increments of Brownian motion that may be taken back: what was drawn for a step stays drawn, split where the step is."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Piece(NamedTuple):
    """A piece of a path: its length, its increment W ~ N(0, length) and its space-time area H ~ N(0, length / 12).

    H is the mean over the piece of the path less the line through its ends; W and H are independent.
    """

    length: Float[Array, ""]
    w: Float[Array, " n"]
    h: Float[Array, " n"]


class Pending(NamedTuple):
    """Pieces that were drawn and not yet used, a stack whose last one comes next."""

    length: Float[Array, " most"]
    w: Float[Array, "most n"]
    h: Float[Array, "most n"]
    count: Int[Array, ""]


def drawn(length: Array, one: Array, two: Array) -> Piece:
    """A new piece from two draws of N(0, 1)."""
    return Piece(length, jnp.sqrt(length) * one, jnp.sqrt(length / 12) * two)


def split(whole: Piece, length: Array, one: Array, two: Array) -> tuple[Piece, Piece]:
    """The first `length` of a piece and the rest, of the conditional distribution, from two draws of N(0, 1).

    `length` is between 0 and that of the piece.

    Source: (W, H) of the parts are jointly normal; conditioned on those of the whole. At one half: Foster, Lyons,
    Oberhauser 2020 (arXiv 1905.09013).
    """
    q = length / whole.length
    rest = whole.length - length
    a = q * (1 - q) * (1 - 3 * q * (1 - q))
    b = -(q**3) * (1 - q) / 2
    c = (q - q**4) / 12
    left = jnp.sqrt(a)
    scale = jnp.sqrt(whole.length)
    w = q * whole.w + 6 * q * (1 - q) * whole.h + scale * left * one
    h = q * q * whole.h + scale * (b / left * one + jnp.sqrt(c - b * b / a) * two)
    other = (whole.length * whole.h - length * h + (length * whole.w - whole.length * w) / 2) / rest
    return Piece(length, w, h), Piece(rest, whole.w - w, other)


def nothing_pending(most: int, n: int, dtype: Any) -> Pending:
    zeros = jnp.zeros((most, n), dtype)
    return Pending(jnp.zeros(most, dtype), zeros, zeros, jnp.int32(0))


def put(pending: Pending, place: Array, piece: Piece) -> Pending:
    length, w, h = (old.at[place].set(new) for old, new in zip(pending[:3], piece, strict=True))
    return Pending(length, w, h, pending.count)
