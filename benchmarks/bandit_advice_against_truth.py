"""How often the sentences of the bandit applications are false, against simulated truth.

    python benchmarks/bandit_advice_against_truth.py [screening | spends | calendars | verdicts] ...

Screening: "no result is larger by more than", epsilon given or read from the results. Spends: coverage
of 95 % intervals of long-run responses and of the recommended gain, with and without a trend of the
outcomes' own. Calendars: what a calendar was to bring against what it brings. Verdicts: "better" of a
target policy where no action matters.
"""

import sys
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pandas as pd

from latebloom.methods.bandits.dynamical_linear import LinearSystem, recommend
from latebloom.methods.bandits.judging import judge
from latebloom.methods.bandits.last_switch import position_of
from latebloom.methods.bandits.last_switch.logs import fatigue_log, payoff_curves
from latebloom.methods.bandits.last_switch.scheduling import schedule
from latebloom.methods.bandits.sparse_misspecified.screening import screen


def screening(count: int = 600) -> None:
    errors = {
        "none": lambda rng: np.zeros(40), "extreme": lambda rng: rng.choice([-1.0, 1.0], 40),
        "uniform": lambda rng: rng.uniform(-1, 1, 40), "normal": lambda rng: rng.normal(size=40),
    }  # fmt: skip
    for name, error in errors.items():
        for given in (True, False):
            if given and name == "normal":
                continue  # no epsilon bounds it
            false, more = 0, []
            for seed in range(count):
                rng = np.random.default_rng(seed)
                d, epsilon = int(rng.integers(3, 7)), float(rng.choice([0.001, 0.1, 0.3]))
                x, theta = rng.normal(size=(40, d)), np.zeros(d)
                theta[rng.choice(d, 2, replace=False)] = 3 * rng.normal(size=2)
                truth = x @ theta + epsilon * error(rng)
                first = int(rng.integers(3, 15))
                results = np.where(np.arange(40) < first, truth, np.nan)
                settings = {"epsilon": epsilon} if given else {}
                while not (found := screen(x, results, **settings)).decided:
                    results[found.action] = truth[found.action]
                false += bool(truth.max() - truth[found.action] > found.within + 1e-9)
                more.append(np.isfinite(results).sum() - first)
            what = "given" if given else "read"
            print(f"screening, error {name}, epsilon {what}: {false} of {count} false, "
                  f"{np.mean(more):.1f} further measurements")  # fmt: skip


def spends(count: int = 60) -> None:
    behind = LinearSystem(
        A=np.diag([0.8, 0.2, 0.5]), B=np.eye(3), C=[[0.4, 0.1, 0.3]], D=[[0.1, 1.2, 0.2]]
    )
    h, names = behind.response, ["a", "b", "c"]
    cases = {
        "no trend": (0.0, 0.0, {}), "trend": (0.3, 0.0, {}), "trend, no term": (0.3, 0.0, {"trend": False}),
        "trend and season": (0.3, 20.0, {"season": 7}),
    }  # fmt: skip
    for periods in (150, 540):
        for name, (slope, swing, more) in cases.items():
            covered, gains, claims, false = [], [], 0, 0
            for seed in range(count):
                rng, t = np.random.default_rng(1000 + seed), np.arange(periods + 60)
                spend = rng.gamma(9, [4, 3, 1.5], (periods + 60, 3))
                y = 100 + behind.simulate(spend, 4.0, seed)[:, 0] + slope * t
                y = y + swing * np.sin(2 * np.pi * t / 7)
                table = pd.DataFrame(spend, columns=names).assign(y=y)[60:].reset_index(drop=True)
                found = recommend(table, names, ["y"], replicates=100, parts=5, seed=seed, **more)
                c, best = found.channels, found.actions.iloc[0]
                covered.append((c.low <= h) & (h <= c.high))
                gain = (best[names].to_numpy(float) - table[names].to_numpy().mean(0)) @ h
                gains.append(best.low <= gain <= best.high)
                claims, false = claims + (best.low > 0), false + (best.low > 0 >= gain)
            print(f"spends, {periods} periods, {name}: responses covered {np.mean(covered, 0).round(2)}, "
                  f"gain {np.mean(gains):.2f}; {false} of {claims} 'better than the past' false")  # fmt: skip


def calendars(count: int = 60) -> None:
    for days in (60, 240):
        covered, above = [], []
        for seed in range(count):
            events, truth = fatigue_log(days, seed=seed)
            curves = payoff_curves(events, seed=seed)
            idle = curves.payoffs.shape[1] - curves.streak
            plan = schedule(curves.payoffs, curves.streak, 28, start=curves.start, draws=64)
            played = plan.states != 0
            place = position_of(plan.states[played], idle, curves.streak)
            drawn = curves.resampled[:, plan.actions[played], place].sum(1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            state, value = curves.start.copy(), 0.0
            for action in plan.actions:
                if action < len(curves.items):
                    own = truth[curves.items[action]]
                    value += own[position_of(np.clip(state[action], -3, 10), 10, 3)]
                run, rest = np.where(state > 0, -1, state - 1), np.where(state < 0, 1, state + 1)
                state = np.where(np.arange(len(state)) == action, run, rest)
            covered.append(low <= value <= high)
            above.append(plan.total / value - 1)
        print(f"calendars from {days} days: truth in the 95 % interval {np.mean(covered):.2f}, promised "
              f"{np.mean(above):+.1%} of what it brings")  # fmt: skip


def verdicts(count: int = 400) -> None:
    for n, k, spread, wrong, model in (
        (400, 2, 5.0, 1.0, 0.3), (400, 2, 5.0, 1.0, 0.0), (400, 5, 5.0, 1.0, 0.3),
        (400, 5, 0.5, 1.0, 0.3), (100, 3, 5.0, 1.0, 0.3), (400, 2, 5.0, 0.5, 0.0), (400, 2, 5.0, 0.8, 0.0),
    ):  # fmt: skip
        found = Counter()
        for seed in range(count):
            rng, rows = np.random.default_rng(seed), np.arange(n)
            b = 0.9 * rng.dirichlet(np.full(k, spread), n) + 0.1 / k
            a = (b.cumsum(1) < rng.random((n, 1))).sum(1)
            r, target = rng.random(n) < 0.3, rng.dirichlet(np.full(k, 0.3), n)[rows, a]
            told = np.minimum(b[rows, a] * wrong, 1)
            parts = (r, told, target, np.full(n, model), np.full(n, model))
            found[judge(*(jnp.asarray(x, jnp.float32) for x in parts)).verdict] += 1
        print(
            f"verdicts, {n} rows, {k} actions, propensities times {wrong}, model {model}: {dict(found)}"
        )


if __name__ == "__main__":
    parts = {f.__name__: f for f in (screening, spends, calendars, verdicts)}
    for name in sys.argv[1:] or parts:
        parts[name]()
