"""The study's statistics on traces made by hand, and its smallest run."""

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.lab.registry import find
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.studies.hypernetworks import magnitude_invariant_hypernets as module


def trace(loss, rates=(0.1, 1.0)):
    loss = np.asarray(loss, float)
    return xr.Dataset(
        {"loss": (("seed", "step", "rate"), loss)},
        {"step": np.arange(loss.shape[1]) * 10, "rate": list(rates)},
    )


def test_a_seed_uses_the_rate_that_is_best_on_the_others():
    values = np.array([[0.0, 9.0], [5.0, 4.0], [5.0, 4.0]])
    assert module.tuned(values).tolist() == [1, 0, 0]  # seed 0's own luck does not count for it


def test_a_run_that_broke_down_has_the_worst_loss_of_the_start():
    loss = [[[2.0, 4.0], [1.0, np.nan], [1.0, np.nan]]] * 2
    np.testing.assert_allclose(
        module.area(trace(loss)), [np.log([1 + module.FLOOR, 4 + module.FLOOR])] * 2
    )
    assert module.failed(trace(loss), 0.5).tolist() == [[True, True]] * 2
    assert module.failed(trace(loss), 1.5).tolist() == [[False, True]] * 2


def test_steps_needed_and_speed_by_hand():
    old = trace([[[8.0], [4.0], [2.0], [1.0], [1.0]]] * 2, rates=(1.0,))
    new = trace([[[8.0], [1.0], [0.5], [0.5], [0.5]]] * 2, rates=(1.0,))
    traces = {"waves/adam/standard": old, "waves/adam/invariant": new}
    assert module.steps_needed("waves", "adam")(traces).tolist() == [0.25, 0.25]
    gap = module.faster("waves", "adam")(traces)
    np.testing.assert_allclose(gap, np.log([1, 0.5, 0.5, 0.5]).mean() - np.log([4, 2, 1, 1]).mean(), rtol=1e-3)  # fmt: skip


def test_failures_count_up_to_three_times_the_best_rate():
    rates = (0.01, 0.03, 0.1)
    old = trace([[[1, 1, 1], [0.1, 0.9, 0.9], [0.1, 0.9, 0.9]]] * 2, rates)
    new = trace([[[1, 1, 1], [0.1, 0.1, 0.9], [0.1, 0.1, 0.9]]] * 2, rates)
    traces = {"waves/adam/standard": old, "waves/adam/invariant": new}
    assert module.more_failures("waves", "adam")(traces).tolist() == [0.5, 0.5]
    stuck = trace([[[1, 1, 1], [0.1, 0.49, 0.9], [0.1, 0.49, 0.9]]] * 2, rates)
    traces["waves/adam/standard"] = stuck
    assert module.more_failures("waves", "adam")(traces).tolist() == [0, 0]
    assert module.more_failures("waves", "adam", 0.9)(traces).tolist() == [0.5, 0.5]


def test_exponents():
    sizes = np.geomspace(0.1, 1, 5)
    values = np.stack([sizes**2, 3 * sizes**0.5])
    np.testing.assert_allclose(module.exponent(values, sizes), [2, 0.5])


@pytest.mark.parametrize(
    ("task", "model"), [("costs", "biases"), ("registration", "invariant"), ("costs", "hyperfan")]
)
def test_the_larger_tasks_take_a_step(task, model):
    base = module.BASE[task]
    config = module.replace(base, model=model, rows=10, pixels=16, rates=1, points=2, width=4)
    process = module.make_process(config)
    state = eqx.filter_jit(process.init)(jax.random.key(0))
    seen = eqx.filter_jit(lambda state: process.observe(process.step(state)))(state)
    assert np.isfinite(seen["loss"]).all()


def test_smoke(tmp_path):
    done = run(find("magnitude-invariant-hypernets"), budget="smoke", store=Store(tmp_path))
    verdicts = {v.claim: v for v in done.verdicts}
    assert verdicts["C1.leaky_relu"].verdict == "holds"
    assert verdicts["C1.invariant"].verdict == "holds"
    assert verdicts["C2.waves.adam"].verdict in ("holds", "contradicted", "undecided")
    drawn = [f for f in done.study.figures if all(arm in done.traces for arm in f.arms)]
    assert {f.name for f in drawn} == {"start", "learning-waves", "rates-waves", "settings-waves"}
    for figure in drawn:
        figure.draw(done.traces)


def test_choices_are_drawn():
    rng = np.random.default_rng(0)
    traces_of_choices = {
        module._cell(cell, model): trace(rng.uniform(0.1, 1, (3, 4, 2)))
        for cell in module.QUICK_CELLS for model in ("standard", "invariant")
    }  # fmt: skip
    figure = next(f for f in find("magnitude-invariant-hypernets").figures if f.name == "cells")
    drawn = figure.draw(traces_of_choices)
    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert labels[0] == "leaky_relu, no norm, 1 setting, 3 hidden layers"
    assert len(labels) == len(module.QUICK_CELLS)
