"""Fine-tuning, EWC, LwF and ER on Split digits leave what Avalanche's leave.

`benchmarks/continual_against_avalanche.py` has the runs, and wrote the file of Avalanche's results.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

HERE = Path(__file__).parent
FOUND = json.loads((HERE / "avalanche_methods.json").read_text())
SCRIPT = HERE.parents[2] / "benchmarks" / "continual_against_avalanche.py"
spec = importlib.util.spec_from_file_location("continual_against_avalanche", SCRIPT)
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


@pytest.mark.parametrize("method", ["fine-tuning", "ewc", "lwf"])
def test_the_same_weights_and_batches_come_to_the_same(method):
    mine = benchmark.ours(method, seeds=2)
    for name, atol in (("accuracy", 1.01 / 60), ("entropy", 1e-3)):  # an example of 60
        theirs = np.array(FOUND[method][name], float)[:2]
        np.testing.assert_allclose(mine[name], theirs, rtol=1e-3, atol=atol)


def test_replay_comes_to_the_same_on_average():
    """Memories and batches are drawn anew, so that only means over seeds are alike."""
    mine = benchmark.ours("er")
    for name in ("accuracy", "entropy"):
        apart = (mine[name] - np.array(FOUND["er"][name], float))[:, -1]  # at the end, by task
        width = t.ppf(0.995, len(apart) - 1) * apart.std(axis=0, ddof=1) / len(apart) ** 0.5
        assert (np.abs(apart.mean(axis=0)) < width).all()
        # An interval that holds everything says nothing.
        assert np.median(width) < 0.3
    forgotten = np.array(FOUND["fine-tuning"]["accuracy"], float)[:, -1, :-1].mean()
    assert mine["accuracy"][:, -1, :-1].mean() > forgotten + 0.4
