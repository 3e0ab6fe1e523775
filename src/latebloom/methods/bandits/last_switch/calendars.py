"""Calendars played out in NumPy: for a few hundred rounds, compiling takes longer than playing.

The same rules as the policies `Planned`, `Lookahead` and `Follow`, for known payoffs without noise.
Tables are [arms, streak + idle], positions as there; action `arms` plays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from latebloom.methods.bandits.last_switch.planner import Plan


class Calendar(NamedTuple):
    """Actions [rounds], the positions in which arms were played, and the payoff of each round."""

    actions: Int[np.ndarray, " t"]
    places: Int[np.ndarray, " t"]
    paid: Float[np.ndarray, " t"]


def moved(
    positions: Int[np.ndarray, "b k"], actions: Int[np.ndarray, " b"], size: int, streak: int
) -> Int[np.ndarray, "b k"]:
    """Positions one round later, as `payoffs.advance` has them."""
    after_play = np.where(positions >= streak, streak - 1, np.maximum(positions - 1, 0))
    after_rest = np.where(positions < streak, streak, np.minimum(positions + 1, size - 1))
    played = np.arange(positions.shape[1]) == actions[:, None]
    return np.where(played, after_play, after_rest)


def play(
    choose: Callable[[np.ndarray, int], int], table: Float[np.ndarray, "k s"], streak: int,
    start: Int[np.ndarray, " k"], rounds: int,
) -> Calendar:  # fmt: skip
    """What `choose(positions, round)` plays from the positions `start`."""
    arms, size = table.shape
    positions = np.asarray(start)[None]
    actions, places = np.zeros(rounds, np.int64), np.zeros(rounds, np.int64)
    paid = np.zeros(rounds)
    for t in range(rounds):
        actions[t] = action = choose(positions[0], t)
        if action < arms:
            places[t] = positions[0, action]
            paid[t] = table[action, places[t]]
        positions = moved(positions, actions[t : t + 1], size, streak)
    return Calendar(actions, places, paid)


def lookahead(table: Float[np.ndarray, "k s"], streak: int, depth: int) -> Callable[..., int]:
    """The first action of the best `depth` rounds; all sequences are tried."""

    def values(positions: np.ndarray, depth: int) -> np.ndarray:
        """The best total [b, action] of `depth` rounds that begin with each action."""
        b, arms = positions.shape
        pays = np.column_stack([table[np.arange(arms), positions], np.zeros(b)])
        if depth == 1:
            return pays
        after = moved(
            np.repeat(positions, arms + 1, axis=0), np.tile(np.arange(arms + 1), b),
            table.shape[1], streak,
        )  # fmt: skip
        return pays + values(after, depth - 1).max(1).reshape(b, arms + 1)

    return lambda positions, round: int(values(positions[None], depth)[0].argmax())


def follow(order: Int[np.ndarray, " period"]) -> Callable[..., int]:
    """A fixed schedule over and over."""
    return lambda positions, round: int(order[round % len(order)])


def planned(
    plan: Plan, table: Float[np.ndarray, "k s"], start: Int[np.ndarray, " k"], rounds: int, *,
    draws: int, seed: int,
) -> Calendar:  # fmt: skip
    """The best of `draws` roundings of a plan, with the rounds that it leaves free filled."""
    rest, run, clock = _roundings(plan, draws, np.random.default_rng(seed))
    streak, (arms, size) = plan.streak, table.shape
    positions = np.tile(np.asarray(start), (draws, 1))
    actions, places = np.zeros((draws, rounds), np.int64), np.zeros((draws, rounds), np.int64)
    every = np.arange(draws)
    for t in range(rounds):
        due = np.logical_and(run > 0, clock >= rest)
        done = clock - rest
        virtual = np.where(done == 0, streak + rest - 1, streak - done)
        virtual = np.where(rest == 0, 0, np.clip(virtual, 0, size - 1))
        worth = np.where(due, table[np.arange(arms), virtual], -1.0)
        spare = np.where(run == 0, table[np.arange(arms), positions], -1.0)
        worth = np.where(np.any(due, axis=1, keepdims=True), worth, spare)
        action = np.where(worth.max(1) >= 0, worth.argmax(1), arms)
        actions[:, t] = action
        places[:, t] = positions[every, np.minimum(action, arms - 1)]
        positions = moved(positions, action, size, streak)
        clock = np.where(clock + 1 >= rest + run, 0, clock + 1)
    paid = np.where(actions < arms, table[np.minimum(actions, arms - 1), places], 0.0)
    best = int(paid.sum(1).argmax())
    return Calendar(actions[best], places[best], paid[best])


def _roundings(plan: Plan, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """For every draw and arm a cycle by its share (rest, run; run 0 for none) and a uniform phase."""
    share = np.asarray(plan.share, float)
    arms, kinds = share.shape
    which, phase = rng.random((2, draws, arms))
    kind = (which[..., None] >= share.cumsum(1)).sum(-1)
    used, pick = kind < kinds, np.minimum(kind, kinds - 1)
    rest = np.where(used, np.asarray(plan.rest)[np.arange(arms), pick], 0)
    run = np.where(used, np.asarray(plan.run)[np.arange(arms), pick], 0)
    length = rest + run
    return rest, run, np.minimum(np.floor(phase * length), np.maximum(length - 1, 0)).astype(int)
