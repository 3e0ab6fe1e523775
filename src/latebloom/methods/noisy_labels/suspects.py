"""Which labels look wrong: a ranked table, and how well a ranking finds the wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def suspects(
    targets: np.ndarray, labels: np.ndarray, ids: Sequence[Any] | np.ndarray | None = None,
    names: Sequence[Any] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Every example, the most suspect label first.

    - `targets` [n, classes]: running averages of the predictions (of any classifier, in fact);
      rows are normalised. `labels` [n]: class indices. `ids`: what to call the examples (row
      numbers unless given). `names`: what to call the classes.

    Columns: `id`; `label`; `suggested`, the class of the largest target; `t_label`, the target of the
    given label, by which the rows are sorted; `entropy` of the target in nats; `suspect`, whether
    suggested and label differ.

    Raises `ValueError` where shapes or numbers do not match, or an example has no target.
    """
    targets, labels = np.asarray(targets, float), np.asarray(labels)
    if targets.ndim != 2 or labels.shape != targets.shape[:1]:
        raise ValueError(
            f"targets must be [n, classes] and labels [n], not {list(targets.shape)} and "
            f"{list(labels.shape)}"
        )
    classes = targets.shape[1]
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"labels must be class indices from 0 to {classes - 1}")
    if ids is not None and len(ids) != len(labels):
        raise ValueError(f"there are {len(ids)} ids for {len(labels)} examples")
    total = targets.sum(axis=1)
    if (total <= 0).any() or not np.isfinite(targets).all():
        row = int(np.flatnonzero(~(total > 0))[0]) if (~(total > 0)).any() else 0
        raise ValueError(f"example {row} has no target: train until every example was seen")
    t = targets / total[:, None]
    rows, called = np.arange(len(labels)), np.asarray(range(classes) if names is None else names)
    logarithms = np.log(t, out=np.zeros_like(t), where=t > 0)
    table = pd.DataFrame({
        "id": rows if ids is None else np.asarray(ids),
        "label": called[labels],
        "suggested": called[t.argmax(axis=1)],
        "t_label": t[rows, labels],
        "entropy": -(t * logarithms).sum(axis=1) + 0.0,
        "suspect": t.argmax(axis=1) != labels,
    })  # fmt: skip
    return table.sort_values("t_label", kind="stable", ignore_index=True)
