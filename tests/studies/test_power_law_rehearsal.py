"""What the arms are made of, and the study's effects on traces worked by hand."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom import unfold
from latebloom.core.dataset import Dataset
from latebloom.methods.forgetting.facilitation import slope_of_updates, updates_to_criterion
from latebloom.methods.forgetting.penalties import EWC, SI
from latebloom.methods.forgetting.phases import updates
from latebloom.methods.forgetting.rehearsal import (
    Exponential,
    PowerLaw,
    half_age,
    lag_probabilities,
    mean_age,
    shares,
)
from latebloom.studies.forgetting import power_law_rehearsal as module
from latebloom.studies.forgetting.power_law_rehearsal import ARMS, CLAIMS, TUNED, Config, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def learned(ends, tasks=2, **config):
    """One seed, two tasks, seen at 0 and at the ends of the tasks: accuracy [end, task]."""
    values = np.full((1, 3, tasks), np.nan)
    values[0, 1:] = ends
    return xr.Dataset(
        {"accuracy": (("seed", "step", "task"), values), "learning": (("seed", "step"), [[0, 0, 1]])},
        {"step": [0, 3, 6], "seed": [0], "task": np.arange(tasks)},
        {"config": json.dumps({"exponent": 1.0, **config})},
    )  # fmt: skip


def test_accuracies_interference_and_need_by_hand():
    traces = {
        "power": learned([[0.9, np.nan], [0.8, 0.7]]),
        "none": learned([[0.8, np.nan], [0.3, 0.9]]),
        "recency": learned([[0.9, np.nan], [0.5, 0.9]]),
        "uniform": learned([[0.9, np.nan], [0.9, 0.62]]),
        "joint": learned([[0.9, np.nan], [0.9, 0.9]]),
    }
    wanted = {
        "C1.accuracy": 15, "C1.interference": 0.2, "C1.gap": 0.5, "C3.uniform": -1,
        "C3.needed": (80 / 2 + 70 - 90 / 2 - 62) / 1.5, "C3.recency": 5,
    }  # fmt: skip
    for name, value in wanted.items():
        assert BY_ID[name].effect(traces) == pytest.approx(value), name
    assert BY_ID["C1.interference"].null(traces) == pytest.approx(0.8)
    assert BY_ID["C1.gap"].null(traces) == pytest.approx(1 / 3)


def test_losses_are_from_the_end_of_a_tasks_own_examples():
    values = [[0.1, 0.1], [0.8, 0.1], [0.7, 0.1], [0.6, 0.9], [0.5, 0.8]]
    trace = xr.Dataset(
        {"accuracy": (("seed", "step", "task"), [values])}, {"step": [0, 8, 12, 20, 24]},
        {"config": json.dumps({"examples": 64, "batch": 8, "rehearsal": 0.5})},
    )  # fmt: skip
    assert module.lost(trace) == pytest.approx(30)


def test_facilitation_is_of_the_updates_on_a_tasks_own_examples():
    # Two tasks of 8 own updates and 4 of rehearsal; the first reaches 0.8, so that 0.68 is the criterion.
    values = [[0.1, 0.1], [0.6, 0.1], [0.8, 0.1], [0.8, 0.3], [0.3, 0.64], [0.3, 0.72], [0.3, 0.6]]
    trace = xr.Dataset(
        {"accuracy": (("seed", "step", "task"), [values])}, {"step": [0, 4, 8, 12, 14, 16, 20]},
        {"config": json.dumps({"examples": 64, "batch": 8, "rehearsal": 0.5})},
    )  # fmt: skip
    np.testing.assert_allclose(updates(trace), [[4 + 4 * 0.08 / 0.2, 2 + 2 * 0.5]])
    assert module.slowing(trace) == pytest.approx(np.log(3 / 5.6))
    assert module.later(trace) == pytest.approx(np.log(3 / 5.6))


def exact(odds, n=40):
    """Expected counts of tasks that come back with these odds by age."""
    age = np.arange(1.0, n)
    table = 1e6 * np.tile(lag_probabilities(odds(age)), (n, 1))
    drawn = np.where(np.arange(n)[:, None] >= age, table, 0)
    dims = ("seed", "step", "time", "age")
    return xr.Dataset(
        {"drawn": (dims, drawn[None, None]), "chances": (dims, (drawn / odds(age))[None, None])},
        {"age": age, "step": [1], "seed": [0]},
    )


def test_fits_of_exact_environments():
    traces = {
        "encounters": exact(lambda age: module.SCALE / age),
        "encounters-even": exact(lambda age: 0.1 + 0 * age),
    }
    assert BY_ID["E.need"].effect(traces) < 0.01 and BY_ID["E.need"].null(traces) > 0.9
    assert BY_ID["E.lag"].effect(traces) < 0.1 and BY_ID["E.lag"].null(traces) > 0.2


def test_rivals_differ_from_the_power_law_in_the_tail_alone():
    power, one, other = (module.table_of(ARMS[arm]) for arm in ("power", "exponential", "half-age"))
    np.testing.assert_allclose(power, shares(PowerLaw(1.0), 20))
    assert mean_age(one) == pytest.approx(mean_age(power))
    assert half_age(other) == pytest.approx(half_age(power))
    assert mean_age(module.table_of(ARMS["window"])) == pytest.approx(mean_age(power))
    assert isinstance(module.law_of(ARMS["exponential"]), Exponential)
    assert (module.table_of(ARMS["none"]) == np.eye(20)).all()
    assert module.table_of(ARMS["met"])[:2].tolist() == [0.5, 0.25]


def test_schedules_have_equal_budgets_and_equal_updates():
    processes = {
        arm: module.make_process(ARMS[arm])
        for arm in (
            "power",
            "uniform",
            "recency",
            "none",
            "ewc",
            "si",
            "met",
            "joint",
            "mixed/power",
        )
    }
    assert {p.steps for p in processes.values()} == {20 * 93}
    old = {}
    for arm, process in processes.items():
        stream = eqx.filter_jit(process.stream)(jax.random.key(0))
        old[arm] = int((np.asarray(stream.origin) < np.asarray(stream.task)[:, None]).sum())
    assert {old[a] for a in ("power", "uniform", "recency", "met", "mixed/power")} == {19 * 31 * 64}
    assert old["none"] == old["ewc"] == old["si"] == 0
    assert isinstance(processes["ewc"].method, EWC) and isinstance(processes["si"].method, SI)
    assert float(processes["ewc"].method.strength) == pytest.approx(TUNED["ewc"]["strength"])


def test_arms_that_differ_in_numbers_alone_share_a_program():
    static = {
        arm: str(eqx.filter(module.make_process(ARMS[arm]).stream, eqx.is_array, inverse=True))
        for arm in ("power", "uniform", "none", "power-2")
    }
    assert len(set(static.values())) == 1


def test_observations_are_at_the_ends_of_what_is_new_and_of_tasks():
    config = Config(tasks=2, examples=64, batch=16, rehearsal=0.5)
    assert module.schedule(config).tolist() == [0, 4, 6, 10, 12]
    dense = module.schedule(Config(dense=True))
    assert dense[:11].tolist()[-2:] == [62, 93] and set(module.schedule(Config())) <= set(dense)


@pytest.mark.parametrize("budget", ["quick", "thorough", "full"])
def test_budgets_know_their_arms(budget):
    configs = study.configs(budget)
    assert ("tasks-30/power" in configs) == (budget != "quick")
    if budget != "quick":
        assert set(configs) == set(ARMS)


def test_the_papers_scale_can_be_traced(monkeypatch):
    x = np.zeros((40, 784), np.float32)
    y = (np.arange(40) % 10).astype(np.int32)
    monkeypatch.setattr(
        module,
        "load_scaled",
        lambda name, **_: Dataset(x, y, np.tile(x, (25, 1)), np.tile(y, 25)),
    )
    configs = study.configs("full")
    for arm in ("power", "ewc", "size-2/power", "met"):
        process = module.make_process(configs[arm])
        state = eqx.filter_eval_shape(process.init, jax.random.key(0))
        width = 512 if arm.startswith("size-2") else 256
        assert state.model.layers[0].weight.shape == (784, width)
        assert state.stream.rows.shape == (20 * 234, 64)
        eqx.filter_eval_shape(process.step, state)


def test_a_small_run_rehearses_what_it_says():
    config = study.configs("smoke")["power"]
    trace = unfold(study.process(config), seeds=2, at=study.schedule(config), progress=False)
    assert trace.accuracy.sizes == {"seed": 2, "step": 33, "task": 4} or trace.sizes["task"] == 4
    assert np.isfinite(trace.accuracy.isel(step=-1)).all()


def test_fresh_networks_learn_later_tasks_no_faster_and_one_that_knows_them_does():
    """The null of forward facilitation, and what must be told from it: the same task again and again."""
    config = Config(
        "none", data="digits", side=8, tasks=3, examples=640, batch=16, width=16, exam=200, rehearsal=0.1, dense=True
    )  # fmt: skip
    at, seeds = module.schedule(config), 16

    def slopes(process):
        trace = unfold(process, seeds=seeds, at=at, progress=False)
        starts = config.task_steps * np.arange(3)
        return slope_of_updates(updates_to_criterion(trace, starts, config.new_steps))

    fresh = slopes(module.make_process(replace(config, fresh=True)))
    assert fresh.mean() > -2 * fresh.std(ddof=1) / np.sqrt(seeds)
    of = module.make_process(config)

    def same(key):
        return eqx.tree_at(lambda s: s.view.order, of.stream(key), replace_fn=lambda o: 0 * o + o[0])  # fmt: skip

    again = slopes(eqx.tree_at(lambda p: p.stream, of, same))
    assert again.mean() < -2 * again.std(ddof=1) / np.sqrt(seeds)
