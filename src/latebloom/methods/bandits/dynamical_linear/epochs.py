"""How long DynLin-UCB holds its actions: epochs that grow with the logarithm of their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

EVERY_ROUND = 1e-4  # with a smaller radius the state is gone after a round


@dataclass(frozen=True, eq=False)
class Epochs:
    """Epochs m = 1, 2, ... and how many rounds each lasts.

    `starts[i]` is the first epoch that lasts more than i rounds, `before[i]` how many rounds are
    played before it.
    """

    starts: Int[np.ndarray, " lengths"]
    before: Int[np.ndarray, " lengths"]

    @property
    def longest(self) -> int:
        """Rounds of the last epoch."""
        return len(self.starts)

    def until(self, rounds: Int[np.ndarray, " n"] | int) -> np.ndarray:
        """How many epochs it takes until so many rounds are over."""
        rounds = np.asarray(rounds)
        last = np.maximum(np.searchsorted(self.before, rounds, side="right") - 1, 0)
        return self.starts[last] - 1 + -(-(rounds - self.before[last]) // (last + 1))


def growing_epochs(radius: float, horizon: int) -> Epochs:
    """Epochs of H_m + 1 rounds, H_m = floor(log m / log(1 / radius)), as far as `horizon` rounds.

    After H_m rounds of one action the state has forgotten what was before up to about 1/m (Mussi,
    Metelli, Restelli 2023, arXiv:2211.08997, algorithm 1). For a radius below 1e-4 every round is
    an epoch. Raises `ValueError` for a radius outside [0, 1) or a horizon below 1.
    """
    if not 0 <= radius < 1 or horizon < 1:
        raise ValueError(
            f"the radius must be in [0, 1) and the horizon at least 1, not {radius:g}, {horizon}"
        )
    starts, before = [1], [0]
    while radius >= EVERY_ROUND:
        start = _first(radius, len(starts))
        rounds = before[-1] + (start - starts[-1]) * len(starts)
        if rounds >= horizon:
            break
        starts.append(start)
        before.append(rounds)
    return Epochs(np.array(starts, np.int32), np.array(before, np.int32))


def _first(radius: float, held: int) -> int:
    """The first epoch m with H_m at least `held`."""
    m = max(int(radius**-held) - 1, 1)
    while np.floor(np.log(m) / np.log(1 / radius)) < held:
        m += 1
    return m
