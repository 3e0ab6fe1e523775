"""The next bandit policy from a user's table: a log with propensities, or labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from latebloom.data.columns import listed
from latebloom.data.files import Column, FileError, read_table, row_number
from latebloom.lab import style
from latebloom.lab.application import Application, Applied, Say
from latebloom.methods.bandits.encoding import Encoding, learn_encoding
from latebloom.methods.bandits.judging import about_leaks, leaking_columns
from latebloom.methods.bandits.neural.next_policy import (
    Learned,
    Settings,
    Simulated,
    learn_from_log,
    one_hot,
    simulate,
)
from latebloom.methods.bandits.next_policy import NextPolicy

LEAST_ROWS = 50
MOST_CATEGORIES = 30


@dataclass(frozen=True)
class Options:
    """How the table is read and the policy made; see `latebloom.methods.bandits.neural.next_policy`.

    - `mode`: "log" or "labels", where the table has the columns of both.
    - `context`: names of the context columns, by commas; empty for all that are left.
    - `label`, `action`, `reward`, `propensity`: names of those columns.
    - `train_share`: of a log's first rows that are learned from; the rest judges the policy.
    - `seeds`, `order`: simulations of a labelled table, rows "shuffled" or in the "file"'s order.
    """

    mode: Literal["auto", "log", "labels"] = "auto"
    context: str = ""
    label: str = "label"
    action: str = "action"
    reward: str = "reward"
    propensity: str = "propensity"
    oracle: Literal["neural", "linear"] = "neural"
    explore: Literal["fastcb", "squarecb"] = "fastcb"
    gamma: float = 30.0
    growth: float = 0.5
    rate: float = 0.5
    hidden: int = 50
    strength: float = 0.001
    steps: int = 500
    ridge: float = 1.0
    train_share: float = 0.5
    seeds: int = 3
    order: Literal["shuffled", "file"] = "shuffled"
    seed: int = 0

    def settings(self) -> Settings:
        """The part that describes the policy."""
        names = ("oracle", "explore", "gamma", "growth", "rate", "hidden", "strength", "steps",
                 "ridge", "seed")  # fmt: skip
        return Settings(**{name: getattr(self, name) for name in names})


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise FileError(f"give one file, not {len(paths)}")
    path, settings = paths[0], options.settings()
    if not 0 < options.train_share < 1:
        raise FileError(f"setting train_share must be in (0, 1), not {options.train_share:g}")
    if options.seeds < 1:
        raise FileError(f"setting seeds must be at least 1, not {options.seeds}")
    say(f"reading {path.name}", 0.0)
    frame = read(path, options)
    go = _labelled if _mode(path, list(frame.columns), options) == "labels" else _logged
    return go(path, frame, options, settings, say)


def read(path: Path, options: Options) -> pd.DataFrame:
    """The table, its labels or its log checked; the context is as it comes."""

    def wanted(names: list[str]) -> dict[str, Column]:
        if _mode(path, names, options) == "labels":
            return {options.label: Column("label", setting="label")}
        return {
            options.action: Column("label", setting="action"),
            options.reward: Column("number", 0.0, 1.0, setting="reward"),
            options.propensity: Column("number", 0.0, 1.0, above=True, setting="propensity"),
        }

    return read_table(path, wanted, min_rows=LEAST_ROWS)


def _mode(path: Path, names: list[str], options: Options) -> str:
    """Whether a table with columns `names` is of "labels" or a "log"."""
    if options.mode != "auto":
        return options.mode
    labels, log = options.label in names, {options.action, options.reward} <= set(names)
    if labels and log:
        raise FileError(
            f"{path} has a column {options.label!r} (labels, to simulate) and columns "
            f"{options.action!r} and {options.reward!r} (a log): say which with --set mode=log or "
            "--set mode=labels"
        )
    if not labels and not log:
        raise FileError(
            f"{path} has neither a column {options.label!r} (labels, to simulate) nor "
            f"{options.action!r} with {options.reward!r} and {options.propensity!r} (a log); it has: "
            f"{listed(names)}: choose with --set label=COLUMN, or action=, reward= and propensity="
        )
    return "labels" if labels else "log"


def _logged(
    path: Path, frame: pd.DataFrame, options: Options, settings: Settings, say: Say
) -> Applied:
    taken = (options.action, options.reward, options.propensity)
    encoding, x, said = _context(path, frame, options, taken)
    actions, positions = _named(path, pd.Series(frame[options.action]), options.action)
    say("learning from the log", 0.2)
    reward = frame[options.reward].to_numpy(float)
    found = learn_from_log(
        x, positions, reward, frame[options.propensity].to_numpy(float), actions, settings,
        options.train_share, encoding.sizes,
    )  # fmt: skip
    say("drawing", 0.9)
    values = _values(found)
    test = len(frame) - found.trained
    found_said = (
        found.judgement.sentence(),
        f"{len(frame)} rows, {len(actions)} actions: learned from the first {found.trained}, judged "
        f"on the other {test}",
        f"those {test} rows are worth {float(found.value.effective_size):.0f} of the next policy's "
        f"own; the mean importance weight is {float(found.value.mean_weight):.2f} (1 where the log "
        "covers the policy)",
        said,
        *about_leaks(leaking_columns(frame, _names(encoding), reward), 0.0),
    )
    part = np.where(np.arange(len(frame)) < found.trained, "train", "test")
    summary = {
        "mode": "log", "rows": len(frame), "actions": list(actions), "trained": found.trained,
        "values": {row["estimator"]: [_plain(row["value"]), _plain(row["low"]), _plain(row["high"])]
                   for row in values.to_dict("records")},
        "verdict": found.judgement.verdict,
        "effective_size": _plain(found.value.effective_size),
        "mean_weight": _plain(found.value.mean_weight),
    }  # fmt: skip
    played = np.arange(found.trained, len(frame))
    expected = found.expected[played, positions[played]]
    figures = {
        "values": _draw_values(values),
        "exploration": _draw_spread(1 - found.probabilities.max(1)),
        "calibration": _draw_calibration(*_bins(expected, reward[played]), "reward"),
    }
    return Applied(
        found_said, summary,
        {"policy": _rows(found.probabilities, actions, {"part": part}), "values": values}, figures,
        {"policy.saved": NextPolicy(actions, encoding, found.policy).save},
    )  # fmt: skip


def _labelled(
    path: Path, frame: pd.DataFrame, options: Options, settings: Settings, say: Say
) -> Applied:
    taken = (options.label, options.action, options.reward, options.propensity)
    encoding, x, said = _context(path, frame, options, taken)
    actions, labels = _named(path, pd.Series(frame[options.label]), options.label)

    def play(settings: Settings, low: float, high: float) -> Simulated:
        return simulate(
            x, labels, actions, settings, options.seeds, options.order == "shuffled",
            progress=lambda what, share: say(what, low + (high - low) * (share or 0.0)),
            sizes=encoding.sizes,
        )  # fmt: skip

    other = "linear" if settings.oracle == "neural" else "neural"
    found = play(settings, 0.1, 0.7)
    rival = play(Options(**{**vars(options), "oracle": other}).settings(), 0.7, 0.95)
    say("drawing", 0.95)
    n, most = len(frame), np.bincount(labels).max()
    wrong, rival_wrong = found.mistakes[:, -1].mean(), rival.mistakes[:, -1].mean()
    found_said = (
        f"played once over, the {n} rows cost {wrong:.0f} mistakes ({wrong / n:.1%}) with the "
        f"{settings.oracle} oracle, {rival_wrong:.0f} with the {other} one",
        f"always naming the commonest label costs {n - most}, guessing {n * (1 - 1 / len(actions)):.0f}",
        f"{n} rows, {len(actions)} labels, mean of {options.seeds} seeds; at the end "
        f"{1 - found.probabilities.max(1).mean():.1%} of the probability explores",
        said,
    )  # fmt: skip
    summary = {
        "mode": "labels", "rows": n, "actions": list(actions), "seeds": options.seeds,
        "mistakes": {settings.oracle: found.mistakes[:, -1].tolist(),
                     other: rival.mistakes[:, -1].tolist(),
                     "commonest label": int(n - most)},
        "explored": found.explored[:, -1].tolist(),
    }  # fmt: skip
    counts = np.maximum(found.counts, 1e-9)
    curves = pd.DataFrame({
        "round": found.rounds, settings.oracle: found.mistakes.mean(0),
        other: rival.mistakes.mean(0), "explored": found.explored.mean(0),
    })  # fmt: skip
    figures = {
        "regret": _draw_regret(found, rival, (settings.oracle, other), labels, len(actions)),
        "exploration": _draw_explored(found),
        "calibration": _draw_calibration(
            found.predicted / counts, found.observed / counts, found.counts, "loss"
        ),
    }
    return Applied(
        found_said, summary,
        {"policy": _rows(found.probabilities, actions, {}), "curves": curves}, figures,
        {"policy.saved": NextPolicy(actions, encoding, found.policy).save},
    )  # fmt: skip


def _context(
    path: Path, frame: pd.DataFrame, options: Options, taken: tuple[str, ...]
) -> tuple[Encoding, np.ndarray, str]:
    """How context columns become features, these [n, d], and a sentence on them.

    Numbers stay numbers, their gaps become the mean; categories are one-hot, a gap one of them.
    """
    wanted = [name.strip() for name in options.context.split(",") if name.strip()]
    names = wanted or [str(name) for name in frame.columns if name not in taken]
    kinds: dict[str, list[str]] = {"number": [], "category": [], "left out": []}
    gaps = []
    for name in names:
        if name not in frame.columns:
            raise FileError(f"{path} has no column {name!r}; it has: {listed(frame.columns)}")
        if name in taken:
            raise FileError(f"{path}: column {name!r} cannot be context, it is one of {taken}")
        kind, missing = _kind(path, frame, name, bool(wanted))
        kinds[kind].append(name)
        if kind == "number" and missing:
            gaps.append(f"{name} ({missing})")
    used = [name for name in names if name not in kinds["left out"]]
    encoding = learn_encoding(frame, used, most_levels=MOST_CATEGORIES, few=0)
    encoding = Encoding({k: tuple(sorted(v)) for k, v in encoding.levels.items()}, encoding.scales)
    if not _names(encoding):
        raise FileError(
            f"{path} has no context column that varies: give at least one beside {', '.join(taken)}"
        )
    said = f"context: {len(encoding.scales)} numbers, {len(encoding.levels)} categories"
    if gaps:
        said += f"; gaps filled with the mean: {', '.join(gaps)}"
    if kinds["left out"]:
        said += f"; left out, being neither: {', '.join(kinds['left out'])}"
    same = [name for name in used if name not in _names(encoding)]
    if same:
        said += f"; left out, the same in all rows: {', '.join(same)}"
    return encoding, one_hot(encoding(frame), encoding.sizes), said


def _names(encoding: Encoding) -> list[str]:
    return [*encoding.levels, *encoding.scales]


def _kind(path: Path, frame: pd.DataFrame, name: str, wanted: bool) -> tuple[str, int]:
    """Whether a column is a "number", a "category" or "left out", and how many gaps it has."""
    column = pd.Series(frame[name])
    empty = (column.isna() | (column.astype(str).str.strip() == "")).to_numpy()
    numbers: Any = pd.to_numeric(column, errors="coerce")
    finite, there = np.isfinite(numbers.to_numpy(float)), int((~empty).sum())
    if finite.sum() == there and there:
        return "number", int(empty.sum())
    fractions = bool((numbers.to_numpy(float)[finite] % 1 != 0).any())
    if finite.sum() > there / 2 and (fractions or column.nunique() > MOST_CATEGORIES):
        row = int(np.flatnonzero(~finite & ~empty)[0])
        raise FileError(
            f"{path}, column {name!r}, row {row_number(frame, row)}: {column.iloc[row]!r} is not a finite number, "
            "as most of the column are: mend it, or leave it empty"
        )
    if column.nunique() <= MOST_CATEGORIES:
        return "category", int(empty.sum())
    if wanted:
        raise FileError(
            f"{path}, column {name!r} has {column.nunique()} different texts: at most "
            f"{MOST_CATEGORIES} make a category; leave it out of --set context"
        )
    return "left out", int(empty.sum())


def _named(path: Path, values: pd.Series, name: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct values in order (of number, where all are numbers), and each row's position."""
    texts = values.astype(str)
    found = sorted(texts.unique())
    if len(found) < 2:
        raise FileError(f"{path}, column {name!r} holds one value only ({found[0]!r}): "
                        "a policy needs at least two actions")  # fmt: skip
    if len(found) > len(texts) / 5:
        raise FileError(
            f"{path}, column {name!r} has {len(found)} different values in {len(texts)} rows: it "
            "must hold actions that recur, at most one in five rows"
        )
    if pd.Series(pd.to_numeric(pd.Series(found), errors="coerce"), dtype=float).notna().all():
        found.sort(key=float)
    places = {value: i for i, value in enumerate(found)}
    return tuple(found), texts.map(places).to_numpy(np.int64)


def _values(found: Learned) -> pd.DataFrame:
    value = found.value
    rows = {
        "logged policy": found.judgement.logged, "IPS": value.ips, "SNIPS": value.snips,
        "doubly robust": value.dr, "model only": value.direct,
        "doubly robust - logged": found.judgement.gain,
    }  # fmt: skip
    return pd.DataFrame(
        [(name, float(e.value), float(e.low), float(e.high)) for name, e in rows.items()],
        columns=pd.Index(["estimator", "value", "low", "high"]),
    )


def _rows(p: np.ndarray, actions: Sequence[str], more: dict[str, np.ndarray]) -> pd.DataFrame:
    names = np.asarray(actions)
    table = pd.DataFrame({"row": np.arange(1, len(p) + 1), **more, "likeliest": names[p.argmax(1)]})
    return table.join(pd.DataFrame(p.round(6), columns=pd.Index([f"p_{a}" for a in actions])))


def _plain(value: Any) -> float | None:
    value = float(value)
    return value if np.isfinite(value) else None


def _bins(
    predicted: np.ndarray, observed: np.ndarray, count: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of predictions and observations in bins of equally many predictions, and their sizes."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), count)
    parts = [part for part in parts if len(part)]
    means = [(predicted[p].mean(), observed[p].mean(), len(p)) for p in parts]
    a, b, sizes = np.array(means).T
    return a, b, sizes


def _draw_calibration(
    predicted: np.ndarray, observed: np.ndarray, sizes: np.ndarray, what: str
) -> Figure:
    figure, ax = style.figure(width=4.2, height=3.8)
    seen = sizes > 0
    ax.plot([0, 1], [0, 1], color=style.colours[6], linewidth=1, linestyle="--")
    area = 15 + 150 * sizes[seen] / sizes.max()
    ax.scatter(predicted[seen], observed[seen], s=area, alpha=0.8)
    limit = max(0.05, 1.1 * float(np.max([predicted[seen], observed[seen]])))
    ax.set(
        xlabel=f"predicted {what} of the played action", ylabel=f"observed {what}, mean",
        xlim=(0, min(limit, 1.02)), ylim=(0, min(limit, 1.02)),
        title="Calibration (area: rows)",
    )  # fmt: skip
    return figure


def _draw_values(values: pd.DataFrame) -> Figure:
    shown = [
        r for r in values.to_dict("records")[::-1] if r["estimator"] != "doubly robust - logged"
    ]
    figure, ax = style.figure(width=5.4, height=2.8)
    for i, row in enumerate(shown):
        colour = style.colours[1 if row["estimator"] == "logged policy" else 0]
        ax.plot([row["low"], row["high"]], [i, i], color=colour)
        ax.plot([row["value"]], [i], "o", color=colour)
    ax.set_yticks(range(len(shown)), [row["estimator"] for row in shown])
    ax.set(xlabel="reward a row, 95 % interval", title="What the next policy would earn")
    return figure


def _draw_spread(explored: np.ndarray) -> Figure:
    figure, ax = style.figure(width=4.6, height=3.2)
    ax.hist(explored, bins=30, range=(0, max(float(explored.max()), 0.01)), log=True)
    ax.set(xlabel="probability not on the likeliest action", ylabel="rows",
           title="Exploration of the next policy")  # fmt: skip
    return figure


def _draw_regret(
    found: Simulated, rival: Simulated, names: tuple[str, str], labels: np.ndarray, actions: int
) -> Figure:
    figure, ax = style.figure(width=5.4, height=3.6)
    for played, name in zip((found, rival), names, strict=True):
        (line,) = ax.plot(played.rounds, played.mistakes.mean(0), label=f"{name} oracle")
        ax.fill_between(played.rounds, played.mistakes.min(0), played.mistakes.max(0),
                        color=line.get_color(), alpha=0.18, linewidth=0)  # fmt: skip
    miss = 1 - np.bincount(labels).max() / len(labels)
    grey = style.colours[6]
    ax.plot(found.rounds, miss * found.rounds, "--", color=grey, label="commonest label")
    ax.plot(found.rounds, (1 - 1 / actions) * found.rounds, ":", color=grey, label="guessing")
    ax.set(
        xlabel="rounds", ylabel="mistakes so far", title="Regret", xlim=(0, None), ylim=(0, None)
    )
    ax.legend(loc="upper left")
    return figure


def _draw_explored(found: Simulated) -> Figure:
    figure, ax = style.figure(width=4.6, height=3.2)
    step = np.diff(found.rounds)
    rate = np.diff(found.explored, axis=1) / step
    middle = (found.rounds[1:] + found.rounds[:-1]) / 2
    (line,) = ax.plot(middle, rate.mean(0))
    ax.fill_between(
        middle, rate.min(0), rate.max(0), color=line.get_color(), alpha=0.18, linewidth=0
    )
    ax.set(xlabel="rounds", ylabel="probability not on the likeliest action",
           title="Exploration", ylim=(0, None), xlim=(0, None))  # fmt: skip
    return figure


application = Application(
    about="A bandit log or a labelled table in; the next policy's action probabilities for every "
    "row out, with its off-policy value (log) or its simulated regret (labels).",
    files="one CSV or Parquet table: context columns (numbers, or categories of at most 30 values), "
    "and either `label`, or `action`, `reward` in [0, 1] and `propensity` in (0, 1]",
    options=Options,
    run=run,
)
