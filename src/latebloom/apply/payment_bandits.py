"""From a logged bandit table to the next policy, its off-policy value, and an audit of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latebloom.data.columns import listed
from latebloom.data.files import Column, FileError, Unit, read_table, row_number
from latebloom.lab import style
from latebloom.lab.application import Application, Applied, Say
from latebloom.methods.bandits.encoding import learn_encoding
from latebloom.methods.bandits.judging import about_leaks
from latebloom.methods.bandits.next_policy import with_hour
from latebloom.methods.bandits.payments.logs import (
    POLICIES,
    Learned,
    audit,
    context_columns,
    learn_next_policy,
    with_reward,
)

LEAST_ROWS = 100
COLUMNS = {
    "timestamp": Column("time"),
    "allowed_actions": Column("list"),
    "action": Column("label"),
    "propensity": Column(
        "number", low=0, high=1, above=True, aliases=("propensity_score", "pscore")
    ),
    "reward": Column("number", low=0, high=1, gaps=True),
    "reward_timestamp": Column("time", required=False, gaps=True),
    "generation": Column("integer", required=False),
}


@dataclass(frozen=True)
class Options:
    """How the policy is made; see `latebloom.methods.bandits.payments.logs.learn_next_policy`.

    - `cost_share`: what exploring may give up, as a share of the predicted gain over uniform play;
      `gamma` sets γ itself instead (0: uniform).
    - `floor`: share of the traffic that is served uniformly on top.
    - `ridge`: above 0; chosen by held-out log-loss unless given.
    - `window`: only the last so many generations are trained on (0: all; needs `generation`).
    - `time_unit`: of times that are numbers ("s", "ms", "us", "ns", "D" since 1970), unless their
      digits tell it; `columns`: what the log calls them, where it calls them otherwise
      ("propensity=p,reward=approved").
    """

    cost_share: float = 0.25
    gamma: float | None = None
    floor: float = 0.0
    ridge: float | None = None
    window: int = 0
    folds: int = 5
    resamples: int = 1000
    seed: int = 0
    time_unit: Unit = "auto"
    columns: tuple[str, ...] = ()


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise FileError(f"give one log, not {len(paths)} files: join them first")
    _check_options(options)
    say(f"reading {paths[0].name}", 0.0)
    log = read_log(paths[0], options.time_unit, options.columns)
    recent = _recent(log, options.window, paths[0])
    try:
        learn_encoding(with_hour(recent), context_columns(recent))
    except ValueError as error:
        raise FileError(f"{paths[0]}: {error} (rows from 0)") from None
    policy = learn_next_policy(
        recent, cost_share=options.cost_share, gamma=options.gamma, floor=options.floor,
        ridge=options.ridge, folds=options.folds, resamples=options.resamples,
        seed=options.seed, say=lambda text, share: say(text, 0.1 + 0.7 * (share or 0.0)),
    )  # fmt: skip
    chain = None
    if "generation" in log and np.ptp(log["generation"].to_numpy()) > 0:
        say("auditing the generations", 0.85)
        chain = audit(log, ridge=policy.ridge)
    say("drawing", 0.95)
    scores = policy.score(log)
    tables = {
        "policy": _scored(log, policy, scores),
        "values": policy.estimates,
        "calibration": _calibration(policy),
        "actions": _by_action(log, policy, scores),
    }
    figures = {
        "propensities": draw_propensities(log, policy, scores),
        "calibration": draw_calibration(policy),
        "values": draw_values(policy.estimates),
    }
    if chain is not None:
        tables["generations"] = chain
        figures["generations"] = draw_generations(chain, log)
    return Applied(
        tuple(_sentences(log, recent, policy, chain)), _summary(log, policy, chain), tables, figures,
        {"policy.saved": policy.policy.save},
    )  # fmt: skip


def _check_options(options: Options) -> None:
    for name, least in (("folds", 2), ("resamples", 1), ("window", 0), ("seed", 0)):
        if getattr(options, name) < least:
            raise FileError(
                f"setting {name} must be at least {least}, not {getattr(options, name)}"
            )
    if options.gamma is not None and not 0 <= options.gamma < np.inf:
        raise FileError(f"setting gamma must be a number, 0 or more, not {options.gamma:g}")
    if options.ridge is not None and not 0 < options.ridge < np.inf:
        raise FileError(f"setting ridge must be a number above 0, not {options.ridge:g}")
    if not 0 <= options.floor < 1:
        raise FileError(f"setting floor must be in [0, 1), not {options.floor:g}")
    if not 0 < options.cost_share <= 1:
        raise FileError(f"setting cost_share must be in (0, 1], not {options.cost_share:g}")


def read_log(path: Path, unit: Unit = "auto", chosen: Sequence[str] = ()) -> pd.DataFrame:
    """The table, with its rows checked one by one."""
    columns = {
        name: replace(column, unit=unit) if column.kind == "time" else column
        for name, column in COLUMNS.items()
    }
    log = read_table(path, columns, min_rows=LEAST_ROWS, chosen=chosen)
    for row, (names, action) in enumerate(zip(log["allowed_actions"], log["action"], strict=True)):
        if action not in names:
            raise FileError(
                f"{path}, column 'action', row {row_number(log, row)}: {action} is not among the "
                f"row's allowed_actions ({listed(names)}): add it there, or drop the row"
            )
    rewards = log["reward"].dropna().to_numpy(float)
    if len(rewards) == 0 or np.ptp(rewards) == 0:
        raise FileError(
            f"{path}, column 'reward': all {len(rewards)} rewards are the same: nothing can be "
            "learned from them; give rows of both outcomes"
        )
    if "reward_timestamp" in log:
        early = (log["reward_timestamp"] < log["timestamp"]).to_numpy()
        if early.any():
            raise FileError(
                f"{path}, column 'reward_timestamp', row {row_number(log, int(early.argmax()))}: the reward "
                "comes before the decision: check the time zones"
            )
    return log


def _recent(log: pd.DataFrame, window: int, path: Path) -> pd.DataFrame:
    if window <= 0:
        return log
    if "generation" not in log:
        raise FileError(f"{path} has no column 'generation', which window={window} needs")
    generation = log["generation"].to_numpy()
    last = np.unique(generation)[-window:]
    return log.loc[np.isin(generation, last)].reset_index(drop=True)


def _scored(log: pd.DataFrame, policy: Learned, scores: np.ndarray) -> pd.DataFrame:
    best = np.array(policy.actions)[scores.argmax(axis=1)]
    table = pd.DataFrame(
        {"timestamp": log["timestamp"], "action": log["action"],
         "propensity": log["propensity"], "best": best}
    )  # fmt: skip
    names = [f"p_{name}" for name in policy.actions]
    return pd.concat([table, pd.DataFrame(np.round(scores, 6), columns=pd.Index(names))], axis=1)


def _calibration(policy: Learned) -> pd.DataFrame:
    return pd.DataFrame({name: np.asarray(x) for name, x in policy.curve._asdict().items()}).rename(
        columns={"weight": "rows"}
    )


def _by_action(log: pd.DataFrame, policy: Learned, scores: np.ndarray) -> pd.DataFrame:
    names = pd.Index(policy.actions, name="action")
    of = log.groupby(log["action"].map(str))
    mean: Any = of["reward"].agg(["count", "mean"]).reindex(names)
    return pd.DataFrame(
        {
            "action": names,
            "logged_share": of.size().reindex(names, fill_value=0).to_numpy() / len(log),
            "next_share": scores.mean(axis=0),
            "rewards": mean["count"].fillna(0).astype(int).to_numpy(),
            "mean_reward": mean["mean"].to_numpy(),
        }
    )


def _sentences(
    log: pd.DataFrame, recent: pd.DataFrame, policy: Learned, chain: pd.DataFrame | None
) -> list[str]:
    arrived = with_reward(recent)
    low = float(np.mean(arrived["reward"].to_numpy(float) < 0.5))
    said = [
        policy.judgement.sentence(),
        f"γ = {policy.gamma:.3g}: exploring gives up {policy.cost:.4f} a decision by the model's "
        "own predictions",
        f"{len(log)} rows, {len(policy.actions)} actions; trained on {policy.used} rows whose reward "
        f"is there, {low:.1%} of them below 0.5 ({low * policy.used:.0f})",
        f"the log is worth {policy.effective_size['next']:.0f} rows of the next policy's own "
        f"({policy.effective_size['next'] / policy.used:.0%}); mean importance weight "
        f"{policy.mean_weight['next']:.2f} (1 where the log covers the policy)",
        f"held-out calibration error {policy.calibration_error:.4f}, AUC {policy.auc:.3f}",
    ]
    said += about_leaks(policy.leaking, policy.auc)
    missing = 1 - len(arrived) / len(recent)
    if missing > 0.05:
        said.append(
            f"{missing:.1%} of the rewards have not arrived: if high and low ones come at different "
            "speeds, what is there is biased"
        )
    if chain is not None:
        said.append(_about_chain(chain))
    return said


def _about_chain(chain: pd.DataFrame) -> str:
    falls = chain.loc[chain["reward_high"] < chain["reward_low"].shift(), "generation"]
    text = f"{len(chain)} generations; "
    if len(falls):
        text += f"reward fell beyond its intervals in generation {', '.join(map(str, falls))}; "
    last, first = chain.iloc[-1], chain.iloc[0]
    return text + (
        f"share of low rewards {first['negative_share']:.1%} -> {last['negative_share']:.1%}, entropy "
        f"{first['entropy']:.2f} -> {last['entropy']:.2f}"
    )


def _summary(log: pd.DataFrame, policy: Learned, chain: pd.DataFrame | None) -> dict[str, Any]:
    rewards = with_reward(log)["reward"].to_numpy(float)
    low = int((rewards < 0.5).sum())
    return {
        "rows": len(log), "arrived": len(rewards), "actions": list(policy.actions),
        "gamma": policy.gamma, "floor": policy.floor, "exploration_cost": policy.cost,
        "ridge": policy.ridge, "negatives": low,
        "negative_share": _plain(low / len(rewards)),
        "values": _records(policy.estimates),
        "verdict": policy.judgement.verdict,
        "leaking": list(policy.leaking),
        "effective_size": {k: _plain(v) for k, v in policy.effective_size.items()},
        "mean_weight": {k: _plain(v) for k, v in policy.mean_weight.items()},
        "log_loss": _plain(policy.log_loss), "auc": _plain(policy.auc),
        "calibration_error": _plain(policy.calibration_error),
        "generations": None if chain is None else _records(chain),
    }  # fmt: skip


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(k): _plain(v) if isinstance(v, float | np.floating) else v for k, v in row.items()}
        for row in table.to_dict("records")
    ]


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def draw_propensities(log: pd.DataFrame, policy: Learned, scores: np.ndarray) -> Figure:
    """How the propensities are spread, logged and next, on a logarithmic axis."""
    figure, ax = style.figure(1, 1, width=6.4, height=3.6)
    logged = log["propensity"].to_numpy(float)
    allowed = scores[scores > 0]
    least = max(min(logged.min(), allowed.min()), 1e-5)
    bins = np.geomspace(least, 1.0, 31)
    for place, (values, weights, label) in enumerate((
        (logged, np.full(len(logged), 1 / len(logged)), "logged, of the action played"),
        (np.maximum(allowed, least), allowed / len(scores), "next policy, as it will play"),
    )):  # fmt: skip
        ax.hist(
            values, bins, weights=weights, histtype="stepfilled", alpha=0.45,
            color=style.colours[place], label=label,
        )  # fmt: skip
    ax.set(xscale="log", xlabel="propensity", ylabel="share of decisions",
           title="how sure the policies are")  # fmt: skip
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def draw_calibration(policy: Learned) -> Figure:
    figure, ax = style.figure(1, 1, width=4.6, height=4.2)
    curve = policy.curve
    count = np.maximum(np.asarray(curve.weight), 1e-9)
    observed, predicted = np.asarray(curve.observed), np.asarray(curve.predicted)
    # Wilson's interval, which stays within [0, 1] in bins without a single negative.
    centre = (observed + 1.96**2 / (2 * count)) / (1 + 1.96**2 / count)
    half = np.sqrt(observed * (1 - observed) / count + (1.96 / (2 * count)) ** 2)
    half = 1.96 * half / (1 + 1.96**2 / count)
    bars = np.abs(np.stack([observed - (centre - half), centre + half - observed]))
    ends = [float(min(predicted.min(), (centre - half).min())), float(max(predicted.max(), 1e-9))]
    ends[1] = max(ends[1], float((centre + half).max()))
    ax.plot(ends, ends, color=style.colours[6], linewidth=1.2, linestyle="--")
    ax.errorbar(predicted, observed, bars, fmt="o", color=style.colours[0], markersize=4,
                linewidth=1.2)  # fmt: skip
    ax.set(xlabel="predicted reward (held out)", ylabel="observed reward, 95 % interval",
           title=f"calibration error {policy.calibration_error:.3f}")  # fmt: skip
    return figure


def draw_values(table: pd.DataFrame) -> Figure:
    """Values of the policies by every estimator; bars are 95 % bootstrap intervals."""
    figure, ax = style.figure(1, 1, width=6.8, height=3.6)
    offsets = {"mean": 0.0, "direct": -0.27, "ips": -0.09, "snips": 0.09, "dr": 0.27}
    names = {"mean": "own mean", "direct": "model only", "ips": "IPS", "snips": "SNIPS", "dr": "DR"}
    for place, (name, offset) in enumerate(offsets.items()):
        part: Any = table[table["estimator"] == name]
        x = [POLICIES.index(p) + offset for p in part["policy"]]
        value = part["value"].to_numpy()
        bars = np.stack([value - part["bootstrap_low"], part["bootstrap_high"] - value])
        ax.errorbar(x, value, np.maximum(bars, 0), fmt="o", markersize=5, linewidth=1.6,
                    color=style.colours[(6, 4, 2, 1, 0)[place]], label=names[name])  # fmt: skip
    ax.set_xticks(range(len(POLICIES)), ["the one that ran", "uniform", "greedy", "next"])
    ax.set(ylabel="reward a decision", title="value off the log, 95 % bootstrap intervals")
    ax.grid(False, axis="x")
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def draw_generations(chain: pd.DataFrame, log: pd.DataFrame) -> Figure:
    """Value, imbalance, exploration and shifts of each generation, and the river of actions."""
    figure, axes = style.figure(2, 2, width=10.0, height=6.8)
    g = chain["generation"].to_numpy()
    value, imbalance, shifts, river = axes.flat
    reward = chain["reward"]
    bars = np.stack([reward - chain["reward_low"], chain["reward_high"] - reward])
    value.errorbar(g - 0.06, reward, bars, fmt="o-", label="earned", color=style.colours[0])
    if "greedy_dr" in chain:
        bars = np.stack([chain["greedy_dr"] - chain["greedy_dr_low"],
                         chain["greedy_dr_high"] - chain["greedy_dr"]])  # fmt: skip
        value.errorbar(g + 0.06, chain["greedy_dr"], bars, fmt="s--", color=style.colours[1],
                       label="greedy, retrained on the one before (DR)")  # fmt: skip
    value.set(ylabel="reward a decision", title="value, 95 % intervals")
    _lines(imbalance, g, chain, {"negative_share": "share of low rewards",
                                 "entropy": "entropy (uniform: 1)", "arrived": "rewards arrived"})  # fmt: skip
    imbalance.set(ylim=(0, 1.05), ylabel="share", title="imbalance, exploration, delay")
    _lines(shifts, g, chain, {"action_shift": "actions, total variation",
                              "context_shift": "context, column that moved most",
                              "overlap": "overlap with the retrained greedy policy",
                              "calibration_error": "calibration error of the model before"})  # fmt: skip
    shifts.set(ylim=(0, None), ylabel="share", title="change against the generation before")
    _river(river, log)
    for ax in axes.flat:
        ax.set_xlabel("generation")
        ax.set_xticks(g if len(g) <= 12 else g[:: len(g) // 10 + 1])
    for ax in (value, imbalance, shifts):
        ax.margins(y=0.25)
        ax.legend(fontsize=8, loc="best")
    return figure


def _lines(ax: Axes, g: np.ndarray, chain: pd.DataFrame, names: dict[str, str]) -> None:
    for place, (name, label) in enumerate(names.items()):
        if name in chain:
            ax.plot(g, chain[name], "o-", markersize=4, label=label, color=style.colours[place])


def _river(ax: Axes, log: pd.DataFrame, most: int = 6) -> None:
    shares = pd.crosstab(log["generation"], log["action"].map(str), normalize="index")
    order = shares.mean().sort_values(ascending=False).index
    bands = shares[order[:most]]
    labels = [f"action {name}" for name in bands.columns]
    if len(order) > most:
        bands = bands.assign(rest=shares[order[most:]].sum(axis=1))
        labels.append("all others")
    ax.stackplot(bands.index.to_numpy(), bands.to_numpy().T, labels=labels, alpha=0.8,
                 colors=[*style.colours[:6], "#BFBFBF"])  # fmt: skip
    ax.set(ylim=(0, 1), ylabel="share of decisions", title="what was played")
    ax.grid(False)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


application = Application(
    about="trains the next policy on a logged table and values it off-policy; audits past generations",
    files="one CSV or Parquet file, a row a decision: timestamp, allowed_actions (list), action, "
    "propensity in (0, 1], reward in [0, 1] (empty: not arrived), optional reward_timestamp and "
    "generation; all other columns are context",
    options=Options,
    run=run,
)
