"""The methods by name, and a process that runs one on an instance of each setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from latebloom.core.process import HostProcess, Quantity
from latebloom.methods.bandits.sparse_misspecified import baselines, nets, problem, recovery
from latebloom.methods.bandits.sparse_misspecified.design import g_optimal_design
from latebloom.methods.bandits.sparse_misspecified.nets import Found
from latebloom.methods.bandits.sparse_misspecified.problem import Problem, Queries
from latebloom.methods.bandits.sparse_misspecified.worlds import Setting, design_of, make_problem

ROUNDS = 200  # of the methods that play for a number of rounds
Method = Callable[[Problem, Queries, np.random.Generator, int], Found]  # the last is the seed


def eliminated(instance: Problem, query: Queries) -> Found:
    """Net elimination at the instance's epsilon; a table's epsilon can be too large for a net."""
    epsilon = min(instance.epsilon, 0.5)
    return nets.net_elimination(instance.features, query, epsilon, instance.sparsity, noisy=query.repeats > 1)  # fmt: skip


METHODS: dict[str, Method] = {
    "net-search": lambda p, q, r, i: nets.net_search(p.features, q, p.epsilon, p.sparsity, noisy=q.repeats > 1),
    "net-elimination": lambda p, q, r, i: eliminated(p, q),
    "unknown-epsilon": lambda p, q, r, i: nets.net_elimination_unknown_epsilon(p.features, q, p.sparsity, smallest=0.05)[0],
    "dense-net": lambda p, q, r, i: nets.dense_net_search(p.features, q, p.epsilon),
    "l1-recovery": lambda p, q, r, i: recovery.l1_recovery(p.features, q, p.epsilon, p.sparsity, r),
    "lasso": lambda p, q, r, i: recovery.l1_recovery(p.features, q, p.epsilon, p.sparsity, r, solver="lasso"),
    "support-designs": lambda p, q, r, i: recovery.support_designs(p.features, q, p.epsilon, p.sparsity),
    "pursuit": lambda p, q, r, i: recovery.pursuit_design(p.features, q, p.epsilon, p.sparsity, r),
    "known-support": lambda p, q, r, i: recovery.known_support(p.features, q, np.flatnonzero(p.theta)),
    "design": lambda p, q, r, i: baselines.design_least_squares(p.features, q, design_of(p, i)),
    "phased-elimination": lambda p, q, r, i: baselines.phased_elimination(p.features, q, p.epsilon),
    "lin-ucb": lambda p, q, r, i: baselines.lin_ucb(p.features, q, ROUNDS),
    "sparse-oful": lambda p, q, r, i: baselines.sparse_oful(p.features, q, ROUNDS),
    "explore-then-commit": lambda p, q, r, i: recovery.explore_then_commit_lasso(p.features, q, p.epsilon, p.sparsity, r, ROUNDS),
    "all-actions": lambda p, q, r, i: baselines.all_actions(p.features, q),
}  # fmt: skip


def search(
    method: str, seed: int, setting: Setting, actions: int, sigma: float = 0.0
) -> dict[str, float]:
    """A method on one instance: gap, queries, and the size of the net behind it.

    `sigma`: standard deviation of the reward's noise; measurements are repeated accordingly.
    """
    if setting.world == "net":
        return unknown() | {"net": float(nets.net_size(setting.d, setting.s, setting.epsilon))}
    instance = make_problem(seed, setting, actions)
    rng = np.random.default_rng([seed, 1])
    d, s, epsilon = instance.features.shape[1], instance.sparsity, instance.epsilon
    size = d if method == "dense-net" else s
    net = (
        nets.net_size(d, size, epsilon) if epsilon < 1 and min(size, d) <= 5 and s <= 2 else np.nan
    )
    repeats = nets.repeats_needed(sigma, epsilon, int(net)) if sigma else 1
    query = problem.queries(instance, sigma, rng, repeats)
    found = METHODS[method](instance, query, rng, seed)
    return {"gap": instance.gap(found.action), "queries": float(found.queries), "net": float(net),
            "actions": float(len(instance.rewards))}  # fmt: skip


def needle_by_elimination(p: Problem, q: Queries, rng: np.random.Generator) -> None:
    """Elimination that is even told the list of all needles, in random order."""
    order = rng.permutation(len(p.features))
    nets.eliminate_parameters(p.features, q, np.linalg.norm(p.theta) * p.features[order], 1.0001 * p.epsilon)  # fmt: skip


def needle_by_search(p: Problem, q: Queries, rng: np.random.Generator) -> None:
    """Net search in random order, stopped as soon as the needle is seen."""
    for action in rng.permutation(len(p.features)):
        if q(int(action)) > p.epsilon:
            return


def needle_by_lasso(p: Problem, q: Queries, rng: np.random.Generator) -> None:
    """LASSO on actions in random order."""
    order = rng.permutation(len(p.features))
    _needle_by_fit(p, q, order, lambda x, y: recovery.lasso(x, y, 1e-3))


def needle_by_design(p: Problem, q: Queries, rng: np.random.Generator) -> None:
    """Least squares on actions in the order of their weight in the G-optimal design."""
    weights = g_optimal_design(p.features).weights
    order = np.argsort(-weights - 1e-9 * rng.random(len(weights)))
    _needle_by_fit(p, q, order, lambda x, y: np.linalg.lstsq(x, y, rcond=None)[0])


def _needle_by_fit(p: Problem, q: Queries, order: np.ndarray, fit: Callable[..., np.ndarray]) -> None:  # fmt: skip
    """Fit after every query, until the needle is what the fit recommends."""
    needle = int(p.rewards.argmax())
    for count in range(1, len(order) + 1):
        q(int(order[count - 1]))
        seen = order[:count]
        rewards = np.array([q(int(action)) for action in seen])
        if not rewards.any():  # every fit of zeros is zero and recommends nothing
            continue
        predicted = p.features @ fit(p.features[seen], rewards)
        if predicted[needle] >= predicted.max():
            return


NEEDLE_METHODS: dict[str, Callable[[Problem, Queries, np.random.Generator], None]] = {
    "needle-elimination": needle_by_elimination,
    "needle-search": needle_by_search,
    "needle-lasso": needle_by_lasso,
    "needle-design": needle_by_design,
}


def find_needles(method: str, seed: int, setting: Setting, replicates: int = 1) -> dict[str, float]:
    """Queries until the needle is recommended, over half the number of actions; mean of several."""
    ratios, counts = [], []
    for i in range(replicates):
        rng = np.random.default_rng([seed, setting.s, i])
        instance = problem.needle_problem(rng, setting.d, setting.s, setting.epsilon, tries=3000)
        query = problem.queries(instance, 0.0, rng)
        NEEDLE_METHODS[method](instance, query, rng)
        counts.append(query.count)
        ratios.append(query.count / ((len(instance.rewards) + 1) / 2))
    return {"gap": float(np.mean(ratios)), "queries": float(np.median(counts)), "net": np.nan,
            "actions": float(len(instance.rewards))}  # fmt: skip


def unknown() -> dict[str, float]:
    """What is told before anything was searched."""
    return dict.fromkeys(("gap", "queries", "net", "actions"), np.nan)


class Searches(HostProcess):
    """Runs a method on one instance of each setting in turn; a seed is an instance.

    - `method`: one of `METHODS`, or, where settings are of the world "needle", of `NEEDLE_METHODS`.
    - `actions`: of an instance. `sigma`: noise of its rewards. `replicates`: needles for each packing.
    """

    def __init__(
        self, method: str, settings: Sequence[Setting], *, actions: int = 1000, sigma: float = 0.0,
        replicates: int = 1,
    ):  # fmt: skip
        self.method, self.settings = method, tuple(settings)
        self.actions, self.sigma, self.replicates = actions, sigma, replicates

    def init(self, seed: int) -> dict[str, Any]:
        return {"seed": seed, "done": 0, "seen": unknown()}

    def step(self, state: dict[str, Any]) -> dict[str, Any]:
        seed, setting = state["seed"], self.settings[state["done"]]
        if setting.world == "needle":
            seen = find_needles(self.method, seed, setting, self.replicates)
        else:
            seen = search(self.method, seed, setting, self.actions, self.sigma)
        return {"seed": seed, "done": state["done"] + 1, "seen": seen}

    def observe(self, state: dict[str, Any]) -> dict[str, Any]:
        setting = self.settings[max(state["done"] - 1, 0)]
        told = {"d": float(setting.d), "s": float(setting.s), "setting_epsilon": setting.epsilon}
        return state["seen"] | told

    def quantities(self) -> dict[str, Quantity]:
        return {
            "gap": Quantity("epsilon", about="reward below the best action's", gaps=True),
            "queries": Quantity("rewards", about="rewards asked for", gaps=True),
            "net": Quantity("parameters", about="parameters in the net", gaps=True),
            "actions": Quantity("actions", gaps=True),
            "d": Quantity("features"),
            "s": Quantity("features", about="sparsity"),
            "setting_epsilon": Quantity("reward"),
        }
