"""Learning curves of scikit-learn classifiers on tables: learners and data other than taggers."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from latebloom.core.process import HostProcess, Quantity
from latebloom.data import load_table

LEARNERS = {
    "naive Bayes": lambda: GaussianNB(),
    "nearest neighbours": lambda: KNeighborsClassifier(3),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "discriminant": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
    "logistic": lambda: LogisticRegression(max_iter=60),
}


class ClassifierCurves(HostProcess):
    """Step i trains every learner on `sizes[i - 1]` rows of a table (see `load_table`).

    - `repeats`: splits a seed, over which accuracies are averaged; `held_out`: share of rows to test on.

    Observed: `words` (rows learned from) and `accuracy` by learner, percent.
    """

    def __init__(self, table: str, sizes: tuple[int, ...], repeats: int, held_out: float = 0.3):
        self.table, self.sizes, self.repeats, self.held_out = table, sizes, repeats, held_out

    def init(self, seed: int) -> dict[str, Any]:
        return {"seed": seed, "level": 0, "accuracy": np.full(len(LEARNERS), np.nan)}

    def step(self, state: dict[str, Any]) -> dict[str, Any]:
        size = self.sizes[state["level"]]
        with threadpool_limits(1):  # such small problems lose by threads
            runs = [self._run(state["seed"], repeat, size) for repeat in range(self.repeats)]
        return state | {"level": state["level"] + 1, "accuracy": np.mean(runs, axis=0)}

    def observe(self, state: dict[str, Any]) -> dict[str, Any]:
        size = self.sizes[max(state["level"], 1) - 1]
        return {"words": float(size), "accuracy": state["accuracy"]}

    def quantities(self) -> dict[str, Quantity]:
        learners = Quantity("%", ("learner",), {"learner": tuple(LEARNERS)}, gaps=True)
        return {"words": Quantity("rows"), "accuracy": learners}

    def _run(self, seed: int, repeat: int, size: int) -> list[float]:
        x, y = _scaled(self.table)
        order = np.random.default_rng([seed, repeat]).permutation(len(x))
        test, train = np.split(order, [round(self.held_out * len(x))])
        if size > len(train):
            raise ValueError(
                f"{self.table}: {size:,} rows are to be learned from, and {len(train):,} are there"
            )
        train, test = _every_class(train, y, size), test[:2000]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # small samples: too few of a class, no convergence
            return [
                100 * make().fit(x[train], y[train]).score(x[test], y[test])
                for make in LEARNERS.values()
            ]


def _every_class(order: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """The first `size` rows in an order that begins with two of each class."""
    rank = np.empty(len(order), int)
    labels = y[order]
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    return order[np.argsort(rank >= 2, kind="stable")][:size]


@functools.cache
def _scaled(name: str) -> tuple[np.ndarray, np.ndarray]:
    table = load_table(name)
    x = StandardScaler().fit_transform(table.x)
    return np.asarray(x, np.float32), table.y
