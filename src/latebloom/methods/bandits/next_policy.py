"""The next policy: from rows of a table to action probabilities; saved in one file, served anywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from latebloom.core.checkpoint import DamagedFile, load_arrays, save_arrays
from latebloom.methods.bandits.encoding import Encoding
from latebloom.methods.bandits.payments.world import Features


class Scorer(Protocol):
    """What stands behind a policy: a model of the reward, and a rule that explores."""

    @property
    def kind(self) -> str:
        """Its name in saved files, see `scorer_of`."""
        ...

    def probabilities(self, features: Features, allowed: np.ndarray) -> np.ndarray:
        """[n, K], zero where an action is not allowed."""
        ...

    def expected(self, features: Features) -> np.ndarray:
        """Expected rewards [n, K]."""
        ...

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays by name, and a note for JSON."""
        ...


@dataclass(frozen=True)
class NextPolicy:
    """A policy over named actions that takes tables with the context columns it was learned on.

    Its probabilities are exact: log that of the action played as its propensity.
    """

    actions: tuple[str, ...]
    encoding: Encoding
    scorer: Scorer

    def score(self, table: pd.DataFrame) -> np.ndarray:
        """Action probabilities [n, K].

        A column `allowed_actions` (lists) limits each row's actions; without it all are allowed.
        Raises `ValueError` for a context column that is missing or holds what is not a number where it
        was one, and for an action that the policy does not know.
        """
        return self.scorer.probabilities(self._features(table), self.allowed(table))

    def predict(self, table: pd.DataFrame) -> np.ndarray:
        """Expected reward of every action in every row, [n, K], allowed or not."""
        return self.scorer.expected(self._features(table))

    def draw(self, table: pd.DataFrame, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
        """An action for every row, and the propensities to log with them."""
        p = self.score(table)
        ends = np.cumsum(p, axis=1)
        chosen = (ends <= rng.random((len(p), 1)) * ends[:, -1:]).sum(1)
        last = p.shape[1] - 1 - (p[:, ::-1] > 0).argmax(1)
        chosen = np.minimum(chosen, last)
        return [self.actions[k] for k in chosen], p[np.arange(len(p)), chosen]

    def allowed(self, table: pd.DataFrame) -> np.ndarray:
        """Which actions each row allows, [n, K]."""
        if "allowed_actions" not in table:
            return np.ones((len(table), len(self.actions)), bool)
        return action_sets(table, self.actions)

    def _features(self, table: pd.DataFrame) -> Features:
        wants_hour = "hour" in (*self.encoding.levels, *self.encoding.scales)
        return self.encoding(with_hour(table) if wants_hour and "timestamp" in table else table)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything needed to serve it into one file, which `load` reads."""
        arrays, note = self.scorer.saved()
        head = {
            "kind": self.scorer.kind, "actions": list(self.actions), "scorer": note,
            "levels": {k: list(v) for k, v in self.encoding.levels.items()},
            "scales": {k: list(v) for k, v in self.encoding.scales.items()},
        }  # fmt: skip
        save_arrays(Path(path), arrays, head)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NextPolicy:
        """The policy that was saved. Raises `ValueError` for a file that is none."""
        try:
            arrays, note = load_arrays(Path(path))
            encoding = Encoding(
                {k: tuple(v) for k, v in note["levels"].items()},
                {k: (v[0], v[1]) for k, v in note["scales"].items()},
            )
            scorer = scorer_of(note["kind"], arrays, note["scorer"], encoding, note["actions"])
            return cls(tuple(note["actions"]), encoding, scorer)
        except (DamagedFile, KeyError, TypeError, IndexError, OSError) as error:
            raise ValueError(f"{path} is not a saved policy ({error})") from None


def scorer_of(
    kind: str, arrays: dict[str, Any], note: dict[str, Any], encoding: Encoding, actions: Sequence[str]
) -> Scorer:  # fmt: skip
    """What was saved as a kind: "logistic" (payments) or "online" (neural or linear oracle)."""
    if kind == "logistic":
        from latebloom.methods.bandits.payments.logs import LogisticScorer

        return LogisticScorer.restored(arrays, note, encoding, len(actions))
    if kind == "online":
        from latebloom.methods.bandits.neural.next_policy import OnlinePolicy

        return OnlinePolicy.restored(arrays, note)
    raise KeyError(f"unknown kind {kind!r}")


def with_hour(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the timestamp's hour of day as `hour`, unless it has one."""
    return (
        table if "hour" in table else table.assign(hour=pd.to_datetime(table["timestamp"]).dt.hour)
    )


def action_sets(table: pd.DataFrame, actions: Sequence[str]) -> np.ndarray:
    """Which of `actions` each row allows, [n, K]. Raises `ValueError` for one not among them, and for
    a row that allows none."""
    place = {name: k for k, name in enumerate(actions)}
    allowed = np.zeros((len(table), len(actions)), bool)
    for row, names in enumerate(table["allowed_actions"]):
        if isinstance(names, str) or not len(names):
            raise ValueError(f"row {row}: allowed_actions must be a list of actions, not {names!r}")
        for name in names:
            if str(name) not in place:
                raise ValueError(f"row {row} allows {name!r}, which the policy does not know")
            allowed[row, place[str(name)]] = True
    return allowed
