"""Whether which choice is best depends on the condition: a permutation test, and what it is worth to choose."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def interactions(
    table: Float[np.ndarray, "seed condition choice"],
) -> Float[np.ndarray, "seed condition choice"]:
    """What is left of each seed's table without the means of its conditions and of its choices."""
    of_condition = table.mean(axis=2, keepdims=True)
    of_choice = table.mean(axis=1, keepdims=True)
    return table - of_condition - of_choice + table.mean(axis=(1, 2), keepdims=True)


def permutation_p(
    table: Float[np.ndarray, "seed condition choice"], *, draws: int = 999, seed: int = 0
) -> float:
    """p of an interaction of condition and choice, by permutation of what the means leave.

    The statistic is F, the interactions' means over seeds against their scatter among seeds; under the null the
    choices of each seed and condition change places at random.

    Raises `ValueError` for fewer than two seeds, conditions or choices.

    Source: permutation of residuals, Anderson & ter Braak 2003 (J. Stat. Comput. Simul. 73).
    """
    if min(table.shape) < 2:
        raise ValueError(
            f"an interaction needs two seeds, conditions and choices, not {list(table.shape)}"
        )
    rest, rng = interactions(table), np.random.default_rng(seed)
    if not np.isfinite(rest).all():
        return float("nan")

    def ratio(values: np.ndarray) -> float:
        left = interactions(values)
        between = np.square(left.mean(axis=0)).sum()
        within = np.square(left - left.mean(axis=0)).sum()
        return float(between / within) if within > 0 else float(np.inf if between > 0 else 0)

    found = ratio(rest)
    as_large = sum(ratio(rng.permuted(rest, axis=2)) >= found for _ in range(draws))
    return (1 + as_large) / (1 + draws)


def gain_of_choice(
    table: Float[np.ndarray, "seed condition choice"],
) -> Float[np.ndarray, " seed"]:
    """What the best choice of each condition gains over the best choice for all, both found on the other seeds."""
    found = []
    for seed in range(len(table)):
        others = np.delete(table, seed, axis=0).mean(axis=0)
        each = table[seed][np.arange(table.shape[1]), others.argmax(axis=1)]
        found.append((each - table[seed][:, others.mean(axis=0).argmax()]).mean())
    return np.array(found)
