"""How near to the best schedule does the interleaved planner come, and at what cost?

On last-switch instances with 3 and with 8 arms (8 rounds of rest and 4 plays in a row that matter), in
turns:

- `planner`: relaxation, 256 roundings with free rounds filled, the best kept (2,000 rounds each);
- `lookahead`: the first of the best 3 actions, every round, for 2,000 rounds;
- `exact`: the optimum by value iteration over all joint states (3 arms only);
- `CP-SAT`: the best schedule of every period from 1 to --longest, by OR-tools, each to optimality or
  --limit seconds. It runs in the Python given by --python (with `ortools`), or in this one.

And rounds a second of the planner with 10 arms: one compiled program for 200 roundings (`compiled`),
the same for one rounding (`compiled, one`), NumPy over 200 roundings at once (`numpy, 200`), and a plain
NumPy loop for one rounding (`numpy, one`). Compile time is apart; medians of --repeats.

    python benchmarks/last_switch_planning.py [--python /path/to/python/with/ortools]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time


def cp_sat(payoffs: list[list[float]], streak: int, period: int, limit: float) -> float:
    """Reward a round of the best schedule of a period: cycles of all arms tile the circle of rounds."""
    from ortools.sat.python import cp_model

    size = len(payoffs[0])
    model = cp_model.CpModel()
    worth, playing = [], [[] for _ in range(period)]
    for row in payoffs:
        idle, always = model.new_bool_var(""), model.new_bool_var("")
        covers = [[idle, always] for _ in range(period)]
        for t in range(period):
            playing[t].append(always)
        worth.append(round(1e6 * period * row[0]) * always)
        for n in range(1, period):
            for m in range(1, period - n + 1):
                later = sum(row[streak - min(j, streak)] for j in range(1, m))
                gain = row[min(streak + n - 1, size - 1)] + later
                for start in range(period):
                    cycle = model.new_bool_var("")
                    worth.append(round(1e6 * gain) * cycle)
                    for t in range(n + m):
                        covers[(start + t) % period].append(cycle)
                    for t in range(n, n + m):
                        playing[(start + t) % period].append(cycle)
        for one in covers:
            model.add_exactly_one(one)
    for one in playing:
        model.add_at_most_one(one)
    model.maximize(sum(worth))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit
    solver.parameters.num_workers = 2
    status = solver.solve(model)
    assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return solver.objective_value / 1e6 / period


def answer() -> None:
    """Solve the instance on standard input; the answer goes to standard output."""
    asked = json.load(sys.stdin)
    values = [
        cp_sat(asked["payoffs"], asked["streak"], period, asked["limit"])
        for period in range(1, asked["longest"] + 1)
    ]
    print(json.dumps({"values": values}))


def quality(python: str, arms: int, longest: int, limit: float, instances: int) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from latebloom import unfold
    from latebloom.core.interaction import Interaction
    from latebloom.methods.bandits.last_switch import (
        Fixed,
        Instances,
        LastSwitch,
        Lookahead,
        best_policy,
        best_rounding,
        make_plan,
        relax,
    )

    def world(table: np.ndarray) -> LastSwitch:
        return LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), arms, 4)

    def planner(table: np.ndarray) -> float:
        plan, _ = make_plan(table, 4)
        key = jax.random.key(0)
        return best_rounding(plan, world(table), key, rounds=2000, draws=256, fill=True)[1].max()

    def lookahead(table: np.ndarray) -> float:
        process = Interaction(world(table), Lookahead(3, 4))
        trace = unfold(process, steps=2000, progress=False)
        return float(trace["mean"][0, -1]) / 2000

    def exact(table: np.ndarray) -> float:
        return best_policy(table, 4).value

    def solver(table: np.ndarray) -> float:
        asked = {"payoffs": table.tolist(), "streak": 4, "longest": longest, "limit": limit}
        done = subprocess.run(
            [python, __file__, "--answer"], input=json.dumps(asked), capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return max(json.loads(done.stdout)["values"])

    ways = {"planner": planner, "lookahead": lookahead, "exact": exact, "CP-SAT": solver}
    if arms > 3:
        del ways["exact"]  # too many joint states
    print(f"\n{arms} arms      share of the bound (mean) and seconds (median)")
    print("           " + "".join(f"{name:>19s}" for name in ways))
    for family in ("random", "jump", "satiation"):
        shares = {name: [] for name in ways}
        seconds = {name: [] for name in ways}
        for i in range(instances):
            table = np.asarray(Instances(family, arms, 8, 4)(jax.random.key(900 + i)), float)
            if i == 0:
                planner(table), lookahead(table)  # compiles
            for name, way in ways.items():
                start = time.perf_counter()
                shares[name].append(way(table) / relax(table, 4).bound)
                seconds[name].append(time.perf_counter() - start)
        cells = [
            f"{statistics.mean(shares[n]):9.3f} {statistics.median(seconds[n]):7.3f} s"
            for n in ways
        ]
        print(f"{family:10s} " + "".join(f"{cell:>19s}" for cell in cells), flush=True)


def numpy_rounds(plan: dict, rest, run, clock, rounds: int) -> float:
    """The planner in NumPy for any number of roundings [draws, arms]; mean reward a round."""
    import numpy as np

    payoffs, streak = plan["payoffs"], plan["streak"]
    size, arms = payoffs.shape[1], payoffs.shape[0]
    here, arm = np.arange(len(rest)), np.arange(arms)
    position = np.full(rest.shape, streak)
    clock, total = clock.copy(), 0.0
    for _ in range(rounds):
        due = (run > 0) & (clock >= rest)
        played = clock - rest
        virtual = np.where(played == 0, streak + rest - 1, streak - played)
        virtual = np.where(rest == 0, 0, virtual)
        worth = np.where(due, payoffs[arm, np.where(due, virtual, 0)], -1.0)
        action = np.where(worth.max(1) >= 0, worth.argmax(1), arms)
        chosen = np.minimum(action, arms - 1)
        paid = payoffs[chosen, position[here, chosen]]
        total += np.where(action < arms, paid, 0.0).mean()
        after_play = np.where(position >= streak, streak - 1, np.maximum(position - 1, 0))
        after_rest = np.where(position < streak, streak, np.minimum(position + 1, size - 1))
        position = np.where(arm == action[:, None], after_play, after_rest)
        clock = np.where(clock + 1 >= rest + run, 0, clock + 1)
    return total / rounds


def speed(repeats: int) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from latebloom.methods.bandits.last_switch import (
        Fixed,
        Instances,
        LastSwitch,
        Planned,
        average_reward,
        make_plan,
        round_plan,
        stack,
    )

    table = np.asarray(Instances("jump", 10, 30, 8)(jax.random.key(900)), float)
    plan, _ = make_plan(table, 8)
    world = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 10, 8)
    keys = jax.random.split(jax.random.key(1), 200)
    drawn = jax.vmap(lambda key: round_plan(plan, key))(keys)
    told = {"payoffs": table, "streak": 8}
    no = jnp.array(False)

    def compiled(draws: int, rounds: int) -> float:
        policies = stack([Planned(plan, no, no)])
        return float(
            np.asarray(average_reward(world, policies, keys[:draws], jnp.int32(rounds))).mean()
        )

    def plain(draws: int, rounds: int) -> float:
        return numpy_rounds(told, *(np.asarray(x[:draws]) for x in drawn), rounds)

    ways = {
        "compiled": (compiled, 200, 20_000),
        "compiled, one": (compiled, 1, 100_000),
        "numpy, 200": (plain, 200, 1_000),
        "numpy, one": (plain, 1, 5_000),
    }
    for way, draws, _ in ways.values():
        way(draws, 10)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (way, draws, rounds) in ways.items():
            start = time.perf_counter()
            way(draws, rounds)
            took[name].append(draws * rounds / (time.perf_counter() - start))
    print("\nrounds a second, planner with 10 arms")
    for name, rates in took.items():
        print(f"{name:15s} {statistics.median(rates):12,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="The interleaved planner beside exact solvers.")
    parser.add_argument("--python", default=sys.executable, help="a Python with ortools")
    parser.add_argument("--longest", type=int, default=12, help="longest period CP-SAT tries")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds CP-SAT has for a period")
    parser.add_argument("--instances", type=int, default=5, help="instances a family")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.answer:
        answer()
        return
    for arms in (3, 8):
        quality(asked.python, arms, asked.longest, asked.limit, asked.instances)
    speed(asked.repeats)


if __name__ == "__main__":
    main()
