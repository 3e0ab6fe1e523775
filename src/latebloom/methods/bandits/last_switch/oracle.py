"""Exact answers on small instances: the best policy of all, the best schedule of a given period."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latebloom.methods.bandits.last_switch.payoffs import check_payoffs

LARGEST = 2_000_000  # entries of a table of transitions, or schedules tried


@dataclass(frozen=True)
class Optimum:
    """The best that can be done in the long run, in reward a round.

    - `value`: what the `cycle` of actions (number of arms = play nothing), repeated, earns.
    - `upper`: no policy earns more; equal to `value` up to the tolerance asked for.
    """

    value: float
    upper: float
    cycle: tuple[int, ...]


def _steps(size: int, streak: int) -> tuple[np.ndarray, np.ndarray]:
    """Position after a play and after a rest, for every position."""
    here = np.arange(size)
    play = np.where(here >= streak, streak - 1, np.maximum(here - 1, 0))
    rest = np.where(here < streak, streak, np.minimum(here + 1, size - 1))
    return play, rest


def _transitions(table: np.ndarray, streak: int) -> tuple[np.ndarray, np.ndarray]:
    """Next joint state and reward [actions, states] of every action in every joint state."""
    arms, size = table.shape
    play, rest = _steps(size, streak)
    strides = size ** np.arange(arms)[::-1]
    positions = np.stack(np.unravel_index(np.arange(size**arms), (size,) * arms))
    resting = strides @ rest[positions]
    nexts, rewards = [], []
    for arm, stride in enumerate(strides):
        here = positions[arm]
        nexts.append(resting + stride * (play[here] - rest[here]))
        rewards.append(table[arm, here])
    return np.stack([*nexts, resting]), np.stack([*rewards, np.zeros(size**arms)])


def best_policy(
    payoffs: np.ndarray, streak: int, *, tolerance: float = 1e-6, max_sweeps: int = 20_000
) -> Optimum:
    """The best policy of all, monotone payoffs or not, by relative value iteration.

    Works on the (M + N)^K joint states of the arms; each sweep is mixed half and half with standing
    still, which makes it converge although the best schedule is periodic. Every sweep bounds the
    optimum from above (the largest gain of the values over all states), and following the actions
    that look best until a state recurs bounds it from below: it is done when the two meet.

    Raises `ValueError` where there are too many joint states, or the bounds do not meet.
    """
    table = check_payoffs(payoffs, streak)
    arms, size = table.shape
    if size**arms * (arms + 1) > LARGEST:
        raise ValueError(
            f"{arms} arms of {size} positions have {size**arms:,} joint states: too many"
        )
    nexts, rewards = _transitions(table, streak)
    values, best = np.zeros(size**arms), None
    upper = np.inf
    for sweep in range(1, max_sweeps + 1):
        gains = rewards + values[nexts]
        better = gains.max(0)
        upper = min(upper, float((better - values).max()))
        if sweep % 50 == 0:
            found = _follow(gains.argmax(0), nexts, rewards)
            best = max(best or found, found)
            if upper - best[0] <= tolerance:
                return Optimum(best[0], max(upper, best[0]), best[1])
        values = 0.5 * (values + better)
        values = values - values[-1]
    raise ValueError(f"value iteration left a gap above {tolerance} after {max_sweeps} sweeps")


def _follow(
    actions: np.ndarray, nexts: np.ndarray, rewards: np.ndarray
) -> tuple[float, tuple[int, ...]]:
    """From all arms rested, act until a state recurs: mean reward of the cycle, and its actions."""
    seen: dict[int, int] = {}
    state, path, earned = nexts.shape[1] - 1, [], []
    while state not in seen:
        seen[state] = len(path)
        action = int(actions[state])
        path.append(action)
        earned.append(rewards[action, state])
        state = int(nexts[action, state])
    start = seen[state]
    return float(np.mean(earned[start:])), tuple(path[start:])


def cycle_value(payoffs: np.ndarray, streak: int, cycle: np.ndarray) -> np.ndarray:
    """Long-run reward a round of repeating a schedule of actions [..., period] for ever."""
    table, cycle = np.asarray(payoffs, np.float64), np.asarray(cycle)
    arms, size = table.shape
    play, rest = _steps(size, streak)
    position = np.full((*cycle.shape[:-1], arms), size - 1)
    period, earned = cycle.shape[-1], np.zeros(cycle.shape[:-1])
    # After size rounds the states have forgotten where they began.
    warm_up = -(-size // period) * period
    for t in range(warm_up + period):
        chosen = np.arange(arms) == cycle[..., t % period, None]
        if t >= warm_up:
            paid = np.take_along_axis(table, position.reshape(-1, arms).T, axis=1)
            earned += (paid.T.reshape(position.shape) * chosen).sum(-1)
        position = np.where(chosen, play[position], rest[position])
    return earned / period


def best_periodic(payoffs: np.ndarray, streak: int, longest: int) -> Optimum:
    """The best schedule that repeats after at most `longest` rounds, by trying all of them.

    Its `upper` is infinite: longer schedules may earn more.

    Raises `ValueError` where there are too many, (arms + 1)^longest.
    """
    table = check_payoffs(payoffs, streak)
    actions = len(table) + 1
    if actions**longest > LARGEST:
        raise ValueError(f"{actions}^{longest} schedules are too many to try")
    best = Optimum(-np.inf, np.inf, ())
    for period in range(1, longest + 1):
        tried = np.stack(np.unravel_index(np.arange(actions**period), (actions,) * period), -1)
        values = cycle_value(table, streak, tried)
        if values.max() > best.value + 1e-12:
            cycle = tuple(int(a) for a in tried[values.argmax()])
            best = Optimum(float(values.max()), np.inf, cycle)
    return best


def dyadic_schedule(payoffs: np.ndarray, streak: int) -> tuple[int, ...]:
    """Single plays at periods that are powers of two, chosen best: a purely periodic schedule.

    The recharging baseline after Simchi-Levi, Zheng, Zhu (ICML 2021, arXiv:2106.14813), whose
    guarantee is a quarter of the delay-only bound. Periods d_i with sum 1/d_i <= 1 that are powers of
    two can always be met without a clash; which arm gets which is a knapsack over slots of the
    longest period, solved exactly.
    """
    table = check_payoffs(payoffs, streak)
    arms, size = table.shape
    levels = int(np.ceil(np.log2(max(size - streak + 1, arms, 2))))
    slots = 2**levels
    periods = 2 ** np.arange(levels + 1)
    position = np.where(periods == 1, 0, np.minimum(streak + periods - 2, size - 1))
    worth = table[:, position] / periods  # [arms, period]
    best = np.zeros(slots + 1)
    taken = np.full((arms, slots + 1), -1)
    for arm in range(arms):
        new = best.copy()
        for level, need in enumerate(slots // periods):
            offer = np.full(slots + 1, -np.inf)
            offer[need:] = best[: slots + 1 - need] + worth[arm, level]
            better = offer > new + 1e-12
            new[better], taken[arm, better] = offer[better], level
        best = new
    return _place(taken, slots, periods)


def _place(taken: np.ndarray, slots: int, periods: np.ndarray) -> tuple[int, ...]:
    """Read the knapsack back and give each arm a residue, the shortest periods first."""
    arms, left, chosen = len(taken), slots, []
    for arm in reversed(range(arms)):
        level = taken[arm, left]
        if level >= 0:
            chosen.append((int(periods[level]), arm))
            left -= slots // periods[level]
    schedule = np.full(slots, arms)
    for period, arm in sorted(chosen):
        offset = int(np.flatnonzero(schedule == arms)[0])
        schedule[offset::period] = arm
    return tuple(int(a) for a in schedule)
