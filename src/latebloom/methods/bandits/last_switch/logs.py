"""From a log of events to payoff curves: what an item brings by how long it rested, or ran."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from latebloom.data.files import Column, FileError, check_table
from latebloom.methods.bandits.last_switch.learning import isotonic_payoffs
from latebloom.methods.bandits.last_switch.payoffs import position_of, state_of

EVENT_COLUMNS = {
    "time": Column("time", aliases=("timestamp", "datetime", "date")),
    "item": Column("label", aliases=("item_id",)),
    "reward": Column("number", low=0),
    "user": Column("label", required=False, aliases=("user_id",)),
}
MOST_IDLE, MOST_STREAK = 30, 10


@dataclass(frozen=True)
class Curves:
    """Payoff curves of the items of a log.

    - `payoffs`, `low`, `high`, `plays` [items, streak + idle]: the isotonic curve, its bootstrap
      interval, and how many plays were seen, by position.
    - `resampled` [resamples, items, streak + idle]: the bootstrap's curves.
    - `start` [items]: the state tau of each item in the period that begins at `next_period`, after
      the log's last; rested where the log has users.
    - `dropped`: items with too few plays whose state is known. `at_once`: plays a period on average
      (of a user, where there are users).
    """

    items: tuple[str, ...]
    payoffs: np.ndarray
    low: np.ndarray
    high: np.ndarray
    plays: np.ndarray
    resampled: np.ndarray
    streak: int
    start: np.ndarray
    next_period: pd.Timestamp
    period: pd.Timedelta
    dropped: tuple[str, ...]
    at_once: float

    def frame(self) -> pd.DataFrame:
        """One row an item and state: item, state, payoff, low, high, plays."""
        states = state_of(np.arange(self.payoffs.shape[1]), self.streak)
        return pd.DataFrame(
            {
                "item": np.repeat(self.items, len(states)),
                "state": np.tile(states, len(self.items)),
                "payoff": self.payoffs.ravel(),
                "low": self.low.ravel(),
                "high": self.high.ravel(),
                "plays": self.plays.ravel().astype(int),
            }
        )


def plays_by_state(events: pd.DataFrame, period: pd.Timedelta) -> pd.DataFrame:
    """One row for every (user,) item and period with events: mean reward, and the state it was in.

    Periods are counted from midnight of the first day. `state` is how many periods the item was
    without events before (1, 2, ...), or minus the number of periods with events in a row; 0 where
    the log does not show it: in an item's first period, and in a run that opens the log. Raises
    `FileError` for a malformed table.
    """
    events = check_table(events, EVENT_COLUMNS, where="the log", min_rows=2)
    time = pd.DatetimeIndex(events["time"])
    origin = time.normalize().min()
    number = ((time - origin) // period).to_numpy(np.int64)
    owner = ["user", "item"] if "user" in events else ["item"]
    keys = [*owner, "number"]
    plays = events.assign(number=number).pivot_table(values="reward", index=keys, aggfunc="mean")
    plays = plays.reset_index().sort_values(keys, ignore_index=True)
    numbers = plays["number"].to_numpy()
    owners = plays[owner].to_numpy(str)
    fresh = np.append(True, (owners[1:] != owners[:-1]).any(1))
    gap = np.append(0, np.diff(numbers))
    begins = fresh | (gap != 1)
    first = np.maximum.accumulate(np.where(begins, np.arange(len(plays)), 0))
    state = np.where(begins, gap - 1, first - np.arange(len(plays)))
    unknown = fresh | (numbers[first] == 0)
    return plays.assign(state=np.where(unknown, 0, state), began=origin + numbers * period)


def payoff_curves(
    events: pd.DataFrame, *, period: str = "1D", max_idle: int | None = None,
    max_streak: int | None = None, min_plays: int = 5, resamples: int = 200,
    confidence: float = 0.95, seed: int = 0,
) -> Curves:  # fmt: skip
    """Isotonic payoff curves, with bootstrap intervals, from a log of events.

    `events` has columns time, item, reward (not negative), and perhaps user: an item's state is then
    counted for each user apart, and the curve is that of all users together.

    - `period`: a round of the schedule to come ("1D", "8h", "7D").
    - `max_idle`, `max_streak`: where the curves saturate; by default the 95th percentile of what the
      log shows, at most 30 and 10.
    - `min_plays`: items with fewer plays of known state are left out.

    A state that was never seen takes the value of the nearest one below it, so that a plan does not
    count on what the log does not show. Raises `FileError` where nothing can be estimated.
    """
    length = _period(period)
    if not 0 < confidence < 1 or resamples < 2 or min_plays < 1:
        raise ValueError("confidence must be in (0, 1), resamples at least 2, min_plays at least 1")
    rows = plays_by_state(events, length)
    known = rows.loc[rows["state"].to_numpy() != 0]
    names, counts = np.unique(known["item"].to_numpy(str), return_counts=True)
    items = tuple(str(name) for name in names[counts >= min_plays])
    if not items:
        raise FileError(
            f"the log has no item with {min_plays} plays whose state is known, at a period of {period}: "
            "give more data, or a shorter period"
        )
    state = known["state"].to_numpy()
    idle = _reach(state[state > 0], max_idle, MOST_IDLE, "max_idle")
    streak = _reach(-state[state < 0], max_streak, MOST_STREAK, "max_streak")
    payoffs, low, high, plays, resampled = _curves(
        known, items, idle, streak, resamples, confidence, seed
    )
    if "user" in rows:
        start, owners = np.full(len(items), idle), ["user", "number"]
    else:
        start, owners = _start(rows, items), ["number"]
    coming = (pd.DatetimeIndex(rows["began"]) + length).max()
    assert isinstance(coming, pd.Timestamp)
    left_out = tuple(sorted(set(rows["item"].to_numpy(str)) - set(items)))
    at_once = len(rows) / len(rows[owners].drop_duplicates())
    return Curves(
        items,
        payoffs,
        low,
        high,
        plays,
        resampled,
        streak,
        start,
        coming,
        length,
        left_out,
        at_once,
    )


def _period(text: str) -> pd.Timedelta:
    try:
        length = pd.Timedelta(text)
    except ValueError:
        length = pd.Timedelta(0)
    if not isinstance(length, pd.Timedelta) or length <= pd.Timedelta(0):
        raise ValueError(f"period must be a length of time like 1D, 8h or 7D, not {text!r}")
    return length


def _reach(seen: np.ndarray, asked: int | None, most: int, name: str) -> int:
    if asked is not None:
        if asked < 1:
            raise ValueError(f"{name} must be at least 1, not {asked}")
        return asked
    return int(min(max(np.quantile(seen, 0.95), 1), most)) if len(seen) else 1


def _curves(
    known: pd.DataFrame, items: tuple[str, ...], idle: int, streak: int, resamples: int,
    confidence: float, seed: int,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    rng = np.random.default_rng(seed)
    size = idle + streak
    payoffs, plays = np.zeros((len(items), size)), np.zeros((len(items), size))
    resampled = np.zeros((resamples, len(items), size))
    everything = known["item"].to_numpy(str)
    for i, item in enumerate(items):
        own = everything == item
        place = position_of(known["state"].to_numpy()[own], idle, streak)
        reward = known["reward"].to_numpy(float)[own]
        picks = rng.integers(len(place), size=(resamples, len(place)))
        rows = np.repeat(np.arange(resamples), len(place))
        count, total = np.zeros((resamples, size)), np.zeros((resamples, size))
        np.add.at(count, (rows, place[picks].ravel()), 1)
        np.add.at(total, (rows, place[picks].ravel()), reward[picks].ravel())
        resampled[:, i] = isotonic_payoffs(count, total)
        plays[i] = np.bincount(place, minlength=size)
        summed = np.bincount(place, weights=reward, minlength=size)
        payoffs[i] = isotonic_payoffs(plays[i][None], summed[None])[0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return payoffs, np.minimum(low, payoffs), np.maximum(high, payoffs), plays, resampled


def _start(rows: pd.DataFrame, items: tuple[str, ...]) -> np.ndarray:
    """State of every item in the period after the last one."""
    names, numbers = rows["item"].to_numpy(str), rows["number"].to_numpy()
    last, start = int(numbers.max()), []
    for item in items:
        own = set(numbers[names == item].tolist())
        run = 0
        while last - run in own:
            run += 1
        start.append(-run if run else last - max(own))
    return np.array(start, np.int64)


def fatigue_log(days: int = 240, seed: int = 0) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """An invented log of six notifications that tire: events (time, item, reward), and the truth.

    Each day two of the six go out, yesterday's again with probability 0.35; the reward is the share
    of 40 people who open it. The truth is a curve an item over the states -3, -2, -1, 1, ..., 10.
    """
    rng = np.random.default_rng(seed)
    names = ("deal", "digest", "friend", "quiz", "recap", "tip")
    top = np.array([0.55, 0.35, 0.45, 0.5, 0.6, 0.3])
    slow = np.array([4.0, 1.0, 2.0, 3.0, 6.0, 0.7])
    tires = np.array([0.3, 0.85, 0.6, 0.4, 0.2, 0.9])
    rested = top[:, None] * (1 - np.exp(-np.arange(1, 11) / slow[:, None]))
    ran = rested[:, :1] * tires[:, None] ** np.arange(3, 0, -1)
    truth = np.concatenate([ran, rested], axis=1)
    state, sent, rows = np.full(len(names), 5), [], []
    for day in range(days):
        again = [item for item in sent if rng.random() < 0.35]
        others = [item for item in rng.permutation(len(names)) if item not in again]
        sent = (again + others)[:2]
        when = pd.Timestamp("2024-01-01T09:00:00Z") + pd.Timedelta(days=day)
        for item in sent:
            chance = truth[item, position_of(state[item], 10, 3)]
            opened = rng.binomial(40, chance) / 40
            rows.append((when.isoformat(), names[item], float(opened)))
        played = np.isin(np.arange(len(names)), sent)
        state = np.where(
            played, np.where(state > 0, -1, state - 1), np.where(state < 0, 1, state + 1)
        )
    events = pd.DataFrame(rows, columns=["time", "item", "reward"])
    return events, dict(zip(names, truth, strict=True))
