"""Made-up tagged text and made-up learning curves, whose truth is known."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np

from latebloom.core.process import HostProcess, Quantity
from latebloom.data import TaggedText, read_tagged

Kind = Literal["power", "exponential", "two-phase"]


@functools.cache
def generated_text(sentences: int = 4000, seed: int = 0) -> TaggedText:
    """Sentences of a hidden Markov model with 8 tags; each has 600 words of Zipf frequencies, of which
    a third are shared with the next tag, and its own ending for two thirds of them."""
    rng = np.random.default_rng(seed)
    tags, words = 8, 600
    moves = rng.dirichlet(np.full(tags, 0.4), size=tags)
    frequency = 1 / np.arange(1, words + 1)
    frequency /= frequency.sum()
    endings = ["ing", "ed", "ly", "s", "ion", "al", "er", "ment"]

    def word(tag: int, rank: int) -> str:
        if rank % 3 == 0:
            return f"w{max(tag - tag % 2, 0)}x{rank}"
        return f"{'bcdfghjklmnp'[rank % 12]}{rank}{endings[tag] if rank % 3 == 1 else 'e'}"

    lines = []
    for _ in range(sentences):
        tag, line = int(rng.integers(tags)), []
        for rank in rng.choice(words, size=int(rng.integers(4, 16)), p=frequency):
            line.append(f"{word(tag, int(rank))}/t{tag}")
            tag = int(rng.choice(tags, p=moves[tag]))
        lines.append((" ".join(line), ""))
    return read_tagged(lines, "the generated text")


class MadeUpCurve(HostProcess):
    """An accuracy curve of known asymptote, observed with noise that falls with the root of the size.

    - `kind`: "power" c - a x^(-b); "exponential" c - a e^(-x / s); "two-phase": a power law plus a
      second, late rise, so that the early part says little about the end.
    - `noise`: standard deviation at the first size, percentage points. `dropped`: share of
      observations, after the first three, that are missing (NaN).

    c, b, s and the first accuracy are drawn by the seed. Observed: `words`, `accuracy`, `truth`
    (accuracy without noise) and `asymptote`, percent.
    """

    def __init__(self, kind: Kind, sizes: tuple[int, ...], noise: float, dropped: float):
        self.kind, self.sizes, self.noise, self.dropped = kind, sizes, noise, dropped

    def init(self, seed: int) -> dict[str, Any]:
        return {"seed": seed, "level": 0}

    def step(self, state: dict[str, Any]) -> dict[str, Any]:
        return state | {"level": state["level"] + 1}

    def observe(self, state: dict[str, Any]) -> dict[str, Any]:
        seed, level = state["seed"], max(state["level"], 1)
        x = self.sizes[level - 1] / self.sizes[0]
        truth, asymptote = self._truth(np.random.default_rng(seed), x)
        rng = np.random.default_rng([seed, level])
        missing = rng.random() < self.dropped and level > 3
        noisy = truth + self.noise / np.sqrt(x) * rng.normal()
        return {
            "words": float(self.sizes[level - 1]), "accuracy": np.nan if missing else noisy,
            "truth": truth, "asymptote": asymptote,
        }  # fmt: skip

    def quantities(self) -> dict[str, Quantity]:
        return {
            "words": Quantity("words"),
            "accuracy": Quantity("%", gaps=True),
            "truth": Quantity("%"),
            "asymptote": Quantity("%"),
        }

    def _truth(self, rng: np.random.Generator, x: float) -> tuple[float, float]:
        top, begin = rng.uniform(93, 98), rng.uniform(75, 85)
        power, span = rng.uniform(0.25, 0.5), rng.uniform(8, 30)
        late, when = rng.uniform(2, 4), rng.uniform(30, 60)
        if self.kind == "exponential":
            return float(top - (top - begin) * np.exp(-(x - 1) / span)), float(top)
        curve = top - (top - begin) * x**-power
        if self.kind == "two-phase":
            curve -= late / (1 + (x / when) ** 4)
        return float(curve), float(top)
