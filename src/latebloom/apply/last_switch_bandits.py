"""Last-switch bandits on a user's files: a log, or payoff tables, in; a calendar and its bound out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.data.files import FileError, read_table
from latebloom.lab import Application, Applied, style
from latebloom.lab.application import Say
from latebloom.methods.bandits.last_switch import is_monotone, position_of, state_of, table
from latebloom.methods.bandits.last_switch.logs import EVENT_COLUMNS, Curves, payoff_curves
from latebloom.methods.bandits.last_switch.scheduling import Schedule, schedule

SHOWN = 12  # items drawn


@dataclass(frozen=True)
class Options:
    """How the calendar is made.

    - `horizon`: rounds to plan. `period`: length of a round, where a log is given.
    - `max_idle`, `max_streak`: states at which curves saturate; from the log by default.
    - `min_plays`: items with fewer plays of known state are left out.
    - `resamples`, `confidence`: of the bootstrap intervals.
    - `draws`: roundings tried. `depth`: rounds that lookahead sees ahead.
    - `heuristic`: plan although payoff tables are not monotone, without a certificate.
    """

    horizon: int = 28
    period: str = "1D"
    max_idle: int | None = None
    max_streak: int | None = None
    min_plays: int = 5
    resamples: int = 200
    confidence: float = 0.95
    draws: int = 256
    depth: int = 3
    heuristic: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Model:
    """What is planned for: payoffs by item and position, and where each item stands."""

    items: tuple[str, ...]
    payoffs: np.ndarray
    streak: int
    start: np.ndarray
    curves: Curves | None


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise ValueError(f"give one file, a log (CSV) or payoff tables (JSON), not {len(paths)}")
    path = Path(paths[0])
    say("reading", 0.0)
    model, found = _from_json(path, options) if path.suffix == ".json" else _from_log(path, options)
    plan = schedule(
        model.payoffs, model.streak, options.horizon, start=model.start, draws=options.draws,
        depth=options.depth, heuristic=options.heuristic, seed=options.seed, say=say,
    )  # fmt: skip
    reach = _interval(model, plan, options.confidence)
    say("drawing", 0.95)
    return Applied(
        (*_verdict(model, plan, reach, options), *found),
        _summary(model, plan, reach),
        {"calendar": _calendar(model, plan), "payoffs": _payoffs(model), "cycles": _cycles(model, plan)},
        {
            "payoffs": draw_payoffs(model),
            "calendar": draw_calendar(model, plan),
            "certificate": draw_certificate(plan, options.horizon),
        },
    )  # fmt: skip


def _from_log(path: Path, options: Options) -> tuple[Model, list[str]]:
    events = read_table(path, EVENT_COLUMNS, min_rows=2)
    try:
        curves = payoff_curves(
            events, period=options.period, max_idle=options.max_idle, max_streak=options.max_streak,
            min_plays=options.min_plays, resamples=options.resamples, confidence=options.confidence,
            seed=options.seed,
        )  # fmt: skip
    except FileError as error:
        raise FileError(f"{path}: {error}") from None
    size = curves.payoffs.shape[1]
    found = [
        f"{len(events)} events of {len(curves.items)} items, in rounds of {options.period}; "
        f"{curves.at_once:.3g} items a round on average, where the calendar plays one at most.",
        f"Curves reach from {curves.streak} plays in a row to {size - curves.streak} rounds of rest.",
    ]
    unseen = int((curves.plays == 0).sum())
    if unseen:
        found.append(
            f"{unseen} of {curves.plays.size} states were never seen; each takes the value of the "
            "nearest state below it."
        )
    if curves.dropped:
        found.append(
            f"Left out, with fewer than {options.min_plays} plays of known state: "
            f"{', '.join(curves.dropped)}."
        )
    if "user" in events:
        found.append("States were counted for each user; the calendar is for a rested user.")
    return Model(curves.items, curves.payoffs, curves.streak, curves.start, curves), found


def _from_json(path: Path, options: Options) -> tuple[Model, list[str]]:
    if not path.is_file():
        raise FileError(f"{path}: there is no such file")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileError(f"{path} is not JSON: {error}") from None
    items = told.get("items") if isinstance(told, dict) else None
    if not isinstance(items, dict) or not items:
        raise FileError(
            f'{path} must hold {{"items": {{NAME: {{"idle": [p(1), ...], "streak": [p(-1), ...]}}}}}}'
        )
    curves = [[_curve(path, name, own, part) for name, own in items.items()] for part in ("idle", "streak")]  # fmt: skip
    payoffs, streak = table(*curves), max(map(len, curves[1]))
    names = tuple(items)
    if not options.heuristic and not is_monotone(payoffs):
        worst = names[int(np.argmin(np.diff(payoffs, axis=1).min(1)))]
        raise FileError(
            f"{path}, item {worst!r}: payoffs must not fall with rest, nor rise along a streak, nor "
            "p(-1) exceed p(1): mend them, or set heuristic=true to plan without a certificate"
        )
    start = told.get("start", {})
    unknown = [name for name in start if name not in names]
    if unknown:
        raise FileError(f"{path}, start: there is no item {unknown[0]!r}")
    idle = payoffs.shape[1] - streak
    states = [start.get(name, idle) for name in names]
    for name, state in zip(names, states, strict=True):
        if type(state) is not int or state == 0:
            raise FileError(
                f"{path}, start of {name!r}: {state!r} is no state: rounds idle, 1, 2, ..., or minus "
                "the number of plays in a row"
            )
    found = [f"{len(names)} items with up to {idle} rounds of rest and {streak} plays in a row."]
    return Model(names, payoffs, streak, np.array(states), None), found


def _curve(path: Path, name: str, own: object, part: str) -> list[float]:
    values = own.get(part) if isinstance(own, dict) else None
    number = isinstance(values, list) and all(type(v) in (int, float) for v in values)
    if not isinstance(values, list) or not values or not number:
        raise FileError(
            f"{path}, item {name!r}: {part!r} must be a list of numbers, not {values!r}"
        )
    if not np.isfinite(values).all() or min(values) < 0:
        raise FileError(f"{path}, item {name!r}: {part!r} must hold finite numbers, 0 or more")
    return values


def _interval(model: Model, plan: Schedule, confidence: float) -> tuple[float, float] | None:
    """Bootstrap interval of what the calendar brings, or None where payoffs are given."""
    if model.curves is None:
        return None
    played = plan.states != 0
    size = model.payoffs.shape[1]
    place = position_of(plan.states[played], size - model.streak, model.streak)
    totals = model.curves.resampled[:, plan.actions[played], place].sum(1)
    low, high = np.quantile(totals, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _verdict(
    model: Model, plan: Schedule, reach: tuple[float, float] | None, options: Options
) -> list[str]:
    about = "" if reach is None else f" ({options.confidence:.0%} interval {reach[0]:.4g} to {reach[1]:.4g})"  # fmt: skip
    end = "."
    if plan.bound:
        end = (
            f": at least {plan.certificate:.1%} of what any calendar can expect on these payoffs "
            f"(bound {plan.bound:.4g})."
        )
    ways = ", ".join(f"{way} {reward:.4g}" for way, reward in plan.rewards.items())
    return [
        f"The calendar expects {plan.total:.4g} in {options.horizon} rounds{about}{end}",
        f"It is the best of four ways: {ways}.",
        f"In the long run no calendar can expect more than {plan.long_run.bound:.4g} a round.",
    ]


def _summary(model: Model, plan: Schedule, reach: tuple[float, float] | None) -> dict[str, object]:
    return {
        "expected_reward": plan.total,
        "interval": None if reach is None else list(reach),
        "bound": plan.bound,
        "certificate": plan.certificate,
        "long_run_bound": plan.long_run.bound,
        "way": plan.way,
        "rewards": dict(plan.rewards),
        "items": list(model.items),
        "longest_idle": int(model.payoffs.shape[1] - model.streak),
        "longest_streak": model.streak,
        "start": dict(zip(model.items, model.start.tolist(), strict=True)),
    }


def _calendar(model: Model, plan: Schedule) -> pd.DataFrame:
    rounds = np.arange(len(plan.actions))
    frame = pd.DataFrame(
        {
            "round": rounds + 1,
            "item": [(*model.items, "")[action] for action in plan.actions],
            "state": plan.states,
            "expected_reward": plan.expected,
        }
    )
    if model.curves is not None:
        frame.insert(
            1, "begins", [model.curves.next_period + int(t) * model.curves.period for t in rounds]
        )
    return frame


def _payoffs(model: Model) -> pd.DataFrame:
    if model.curves is not None:
        return model.curves.frame()
    states = state_of(np.arange(model.payoffs.shape[1]), model.streak)
    return pd.DataFrame(
        {
            "item": np.repeat(model.items, len(states)),
            "state": np.tile(states, len(model.items)),
            "payoff": model.payoffs.ravel(),
        }
    )


def _cycles(model: Model, plan: Schedule) -> pd.DataFrame:
    """The relaxation's cycles: what share of the rounds an item spends idle n, then played m."""
    share = plan.long_run.share
    item, rest, run = np.nonzero(share > 1e-6)
    return pd.DataFrame(
        {
            "item": [model.items[i] for i in item],
            "idle": rest,
            "plays": run,
            "share": share[item, rest, run],
        }
    )


def draw_payoffs(model: Model) -> MatplotlibFigure:
    names = model.items[:SHOWN]
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure, axes = style.figure(rows, columns, width=2.5 * columns + 0.6, height=2.1 * rows + 0.5,
                                sharex=True, sharey=True, squeeze=False)  # fmt: skip
    states = state_of(np.arange(model.payoffs.shape[1]), model.streak)
    for i, (ax, name) in enumerate(zip(axes.flat, names, strict=False)):
        _draw_curve(ax, model, i, states)
        ax.set_title(name)
    axes[0, 0].set_ylim(bottom=0)
    for ax in axes.flat[max(len(names) - columns, 0) : len(names)]:
        ax.tick_params(labelbottom=True)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel("← plays in a row      state      rounds idle →", fontsize=10)
    figure.supylabel("payoff of a play", fontsize=10)
    return figure


def _draw_curve(ax: Axes, model: Model, i: int, states: np.ndarray) -> None:
    for side, colour in ((states < 0, style.colours[1]), (states > 0, style.colours[0])):
        x = states[side]
        ax.plot(x, model.payoffs[i, side], color=colour, marker="o", markersize=3)
        if model.curves is not None:
            low, high = model.curves.low[i, side], model.curves.high[i, side]
            ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    ax.axvline(0, color=style.colours[6], linewidth=0.8)


def draw_calendar(model: Model, plan: Schedule) -> MatplotlibFigure:
    """Who is played when, darker where the payoff is higher."""
    used = sorted(set(plan.actions[plan.states != 0].tolist()))
    figure, ax = style.figure(1, 1, width=8.0, height=0.34 * max(len(used), 3) + 1.5)
    top = max(float(plan.expected.max()), 1e-9)
    for t, (action, paid) in enumerate(zip(plan.actions, plan.expected, strict=True)):
        if plan.states[t] != 0:
            shade = to_rgba(style.colours[0], 0.25 + 0.75 * float(paid) / top)
            ax.barh(used.index(int(action)), 0.92, left=t + 0.54, height=0.8, color=shade)
    ax.set_yticks(range(len(used)), [model.items[i] for i in used])
    ax.invert_yaxis()
    ax.set_xlim(0.4, len(plan.actions) + 0.6)
    label = "round"
    if model.curves is not None:
        label = f"round (the first begins {model.curves.next_period:%Y-%m-%d %H:%M})"
    ax.set(
        xlabel=label, title=f"calendar found by {plan.way}; darker: higher payoff (up to {top:.3g})"
    )
    ax.grid(False, axis="y")
    return figure


WAY_COLOURS: dict[str, str] = {
    "planner": style.colours[0],
    "greedy": style.colours[1],
    "periodic": style.colours[3],
    "lookahead": style.colours[4],
}


def draw_certificate(plan: Schedule, horizon: int) -> MatplotlibFigure:
    figure, ax = style.figure(1, 1, width=5.8, height=3.9)
    rounds = np.arange(horizon + 1)
    ax.plot(rounds, np.append(0, np.cumsum(plan.expected)), color=WAY_COLOURS[plan.way],
            label=f"calendar ({plan.way})")  # fmt: skip
    end = {"linestyle": "", "clip_on": False, "zorder": 3}
    for way, reward in plan.rewards.items():
        if way != plan.way:
            ax.plot(
                horizon, reward, marker="s", color=WAY_COLOURS[way], label=f"{way} instead", **end
            )
    if plan.bound:
        ax.plot(horizon, plan.bound, marker="_", markersize=18, markeredgewidth=2.5, color=style.INK,
                label="no calendar expects more", **end)  # fmt: skip
    ax.plot(rounds, plan.long_run.bound * rounds, color=style.colours[6], linestyle=(0, (4, 2)),
            linewidth=1.2, label="long-run bound")  # fmt: skip
    ax.set(xlabel="rounds", ylabel="cumulative expected reward", xlim=(0, horizon), ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


application = Application(
    about="From a log of what was played and what it brought to payoff curves by state and a calendar, "
    "with a bound that no calendar can beat.",
    files="One file. CSV or Parquet with columns time (ISO 8601, or seconds), item, reward (a number, 0 or "
    'more), and perhaps user; or JSON {"items": {NAME: {"idle": LIST, "streak": LIST}}, "start": {NAME: '
    "state}}, with the payoffs after 1, 2, ... rounds of rest, and of the second, third, ... play in a row.",
    options=Options,
    run=run,
)
