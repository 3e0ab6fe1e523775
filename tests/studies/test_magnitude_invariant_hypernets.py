"""Effects on traces made by hand, the budgets, and steps of the larger tasks."""

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.lab import judge
from latebloom.studies.hypernetworks import magnitude_invariant_hypernets as module
from latebloom.studies.hypernetworks.magnitude_invariant_hypernets import ARMS, CLAIMS, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def trace(loss, rates=(0.1, 1.0)):
    loss = np.asarray(loss, float)
    return xr.Dataset(
        {"loss": (("seed", "step", "rate"), loss)},
        {"step": np.arange(loss.shape[1]) * 10, "rate": list(rates)},
    )


def test_steps_needed_and_speed_by_hand():
    old = trace([[[8.0], [4.0], [2.0], [1.0], [1.0]]] * 2, rates=(1.0,))
    new = trace([[[8.0], [1.0], [0.5], [0.5], [0.5]]] * 2, rates=(1.0,))
    traces = {"waves/adam/standard": old, "waves/adam/invariant": new}
    assert BY_ID["C2.waves.adam.steps"].effect(traces).tolist() == [0.25, 0.25]
    assert BY_ID["C2.waves.adam.steps"].null(traces).tolist() == [0.75, 0.75]
    never = traces | {"waves/adam/invariant": old + 1}
    assert BY_ID["C2.waves.adam.steps"].effect(never).tolist() == [1, 1]
    gap = BY_ID["C2.waves.adam"].effect(traces)
    np.testing.assert_allclose(gap, np.log([1, 0.5, 0.5, 0.5]).mean() - np.log([4, 2, 1, 1]).mean(), rtol=1e-3)  # fmt: skip


def test_where_neither_learns_faster_is_out_of_reach():
    stuck = trace([[[0.5], [0.49], [0.48]]] * 2, rates=(1.0,))
    lower = trace([[[0.5], [0.4], [0.1]]] * 2, rates=(1.0,))
    traces = {"waves/sgd/standard": stuck, "waves/sgd/invariant": stuck}
    assert judge(BY_ID["C2.waves.sgd"], traces).verdict == "out of reach"
    traces["waves/sgd/invariant"] = lower
    assert judge(BY_ID["C2.waves.sgd"], traces).verdict == "holds"


def test_choices_in_which_the_invariant_one_is_ahead():
    low, high = (trace([[[1.0], [v], [v]]] * 2, rates=(1.0,)) for v in (0.1, 0.5))
    traces = {}
    for i, cell in enumerate(module.FOUR_CELLS):
        pair = (high, low) if i else (low, high)
        traces |= {module._cell(cell, m): t for m, t in zip(module.PAIR, pair, strict=True)}
    assert BY_ID["C3"].effect(traces).tolist() == [0.75, 0.75]


def test_failures_count_up_to_three_times_the_best_rate():
    rates = (0.01, 0.03, 0.1)
    old = trace([[[1, 1, 1], [0.1, 0.9, 0.9], [0.1, 0.9, 0.9]]] * 2, rates)
    new = trace([[[1, 1, 1], [0.1, 0.1, 0.9], [0.1, 0.1, 0.9]]] * 2, rates)
    traces = {"waves/adam/standard": old, "waves/adam/invariant": new}
    assert BY_ID["C4.waves.adam"].effect(traces).tolist() == [0.5, 0.5]
    stuck = trace([[[1, 1, 1], [0.1, 0.49, 0.9], [0.1, 0.49, 0.9]]] * 2, rates)
    traces["waves/adam/standard"] = stuck
    assert BY_ID["C4.waves.adam"].effect(traces).tolist() == [0, 0]
    assert BY_ID["C4.waves.adam.stuck"].effect(traces).tolist() == [0.5, 0.5]


def before(power):
    """A start whose weights grow with a power of the size, layers with 1, 2, ... times that."""
    sizes = np.geomspace(0.1, 1, 5)
    weights = 3 * sizes**power
    layers = np.stack([sizes ** (power * n) for n in (1, 2, 3, 4)], axis=1)
    return xr.Dataset(
        {
            "spread": (("seed", "step", "size"), np.broadcast_to(weights, (2, 2, 5))),
            "gradient": (("seed", "step", "size"), np.broadcast_to(weights, (2, 2, 5))),
            "activation": (("seed", "step", "size", "layer"), np.broadcast_to(layers, (2, 2, 5, 4))),
        },
        {"size": sizes},
    )  # fmt: skip


def test_exponents_before_training():
    traces = {
        "start/leaky_relu/standard": before(1.1), "start/leaky_relu/invariant": before(0),
        "start/tanh/standard": before(0.5),
    }  # fmt: skip
    for claim, effect, null in (
        ("C1.leaky_relu", 0.1, 1), ("C1.layers", 0.3, 3), ("C1.invariant", 0, 1.1),
    ):  # fmt: skip
        np.testing.assert_allclose(BY_ID[claim].effect(traces), effect, atol=1e-9)
        np.testing.assert_allclose(BY_ID[claim].null(traces), null)
    np.testing.assert_allclose(BY_ID["C1.tanh"].effect(traces), 0.5 - 1.1)
    assert (BY_ID["C1.gradient"].effect(traces) < -0.5).all()


def test_budgets():
    quick, thorough, full = (study.configs(name) for name in ("quick", "thorough", "full"))
    assert {config.task for config in quick.values()} == {"start", "waves"}
    assert thorough["waves/adam/invariant"] == quick["waves/adam/invariant"]
    assert thorough["costs/adam/standard"].steps == 400
    assert thorough["registration/sgd/invariant"].rates == 3
    assert {"waves/sgd/encoding", "waves/adam/split", "cell/gelu/none/1/3/standard"} <= set(
        thorough
    )
    assert set(full) == set(ARMS) and full["costs/adam/residual"].rates == 7  # fmt: skip


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


def test_choices_are_drawn():
    rng = np.random.default_rng(0)
    traces_of_choices = {
        module._cell(cell, model): trace(rng.uniform(0.1, 1, (3, 4, 2)))
        for cell in module.FOUR_CELLS for model in ("standard", "invariant")
    }  # fmt: skip
    figure = next(f for f in study.figures if f.name == "cells")
    drawn = figure.draw(traces_of_choices)
    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert labels[0] == "leaky_relu, no norm, 1 setting, 3 hidden layers"
    assert len(labels) == len(module.FOUR_CELLS)
