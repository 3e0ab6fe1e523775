"""What the arms are made of, and effects on traces worked by hand."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.core.dataset import Dataset
from latebloom.methods.forgetting.objective import Compared
from latebloom.methods.forgetting.perturbed import SAM
from latebloom.methods.forgetting.refresh import Refresh, ReleasedRefresh
from latebloom.studies.forgetting import refresh_learning as module
from latebloom.studies.forgetting.refresh_learning import (
    ARMS,
    CLAIMS,
    CONTROLS,
    FORMS,
    NAMES,
    TUNED,
    study,
)

BY_ID = {claim.id: claim for claim in CLAIMS}


def trace(first, last, **told):
    """Two seeds, two tasks: accuracy when the first is over [seed], and of both at the end [seed, task]."""
    values = np.full((2, 3, 2), np.nan)
    values[:, 1, 0], values[:, 2] = first, last
    more = {name: (("seed", "step"), np.array(v, float)) for name, v in told.items()}
    return xr.Dataset(
        {"accuracy": (("seed", "step", "task"), values), "learning": (("seed", "step"), [[0, 0, 1]] * 2), **more},
        {"step": [0, 3, 6], "seed": [0, 1], "task": [0, 1],
         "diverged_at": ("seed", np.where(np.isnan(values[:, 2, 0]), 3.0, np.nan))}, {"config": json.dumps({})},
    )  # fmt: skip


def test_gains_transfer_and_what_is_newly_learned_by_hand():
    traces = {
        "der/off": trace([0.9, 0.8], [[0.5, 0.9], [0.5, 0.7]]),
        "der/paper": trace([0.9, 0.8], [[0.7, 0.9], [0.6, 0.8]]),
        "der/noise": trace([0.9, 0.8], [[0.5, 0.9], [0.5, 0.7]]),
        "der/extra": trace([0.9, 0.8], [[0.6, 0.9], [0.4, 0.7]]),
        "der/sam": trace([0.9, 0.8], [[0.5, 0.9], [0.6, 0.7]]),
        "der/random": trace([0.9, 0.8], [[np.nan, np.nan], [0.5, 0.7]]),
    }
    assert BY_ID["C2.paper.der"].effect(traces) == pytest.approx([10, 10])
    assert BY_ID["C2.paper.der"].null(traces) == pytest.approx([0, 0])
    assert BY_ID["C3.paper.der"].effect(traces) == pytest.approx([20, 10])
    assert BY_ID["C3.new.paper.der"].effect(traces) == pytest.approx([0, 5])
    # Of the controls the one that is best on the other seed: SAM for the first, the extra step for the second.
    assert BY_ID["C2.best.paper.der"].effect(traces) == pytest.approx([10, 15])


def test_perturbations_and_flatness_are_read_after_the_first_update():
    nan = np.nan
    perturbed = trace([0.9] * 2, [[0.5, 0.9]] * 2, perturbation=[[nan, 1e-5, 3e-5], [nan, 2e-5, 1e-5]],
                      unlearned=[[nan, 0.1, 0.3], [nan, -0.1, 0.3]], fisher_norm=[[nan, 1, np.e], [nan, 1, 1]],
                      eigenvalue=[[nan, np.e**2, 1], [nan, -1, 1]])  # fmt: skip
    assert module.ratio(perturbed) == pytest.approx([3e-5, 2e-5])
    assert module.unlearned(perturbed) == pytest.approx([0.2, 0.1])
    assert module.steep(perturbed) == pytest.approx([0.5, 0])
    assert module.curved(perturbed) == pytest.approx([1, np.log(1e-6) / 2])


def test_the_least_gain_is_chosen_on_the_other_seeds():
    """Equal settings have equal means: the lowest of a seed's own would be low by chance."""
    tens = {0: [[0.8, 0.8], [0.8, 0.8]], 1: [[0.9, 0.9], [0.7, 0.7]], 2: [[0.7, 0.7], [0.9, 0.9]]}
    traces = {"der/off": trace([0.8] * 2, tens[0])}
    for place, (j, g) in enumerate((j, g) for j in module.CLIMBS for g in module.GAMMAS[:3]):
        traces[f"climb-{j}/{g:g}"] = trace([0.8] * 2, tens[place % 3])
    assert BY_ID["C5.range"].effect(traces) == pytest.approx([10, 10])


def test_the_regime_is_passes_over_a_task_and_something_to_forget():
    few, remembers = BY_ID["C2.all.paper"].needs
    traces = {}
    for host in NAMES:
        config = json.dumps(vars(ARMS[f"{host}/off"]))
        traces[f"{host}/off"] = trace([0.9, 0.8], [[0.5, 0.9], [0.5, 0.7]]).assign_attrs(
            config=config
        )
    # 150 updates of 16 of the 800 examples of two classes; of 32 of all 4,000.
    assert module.passes(traces["er/off"]) == pytest.approx([3, 3])
    assert few.effect(traces) == pytest.approx([1.2, 1.2])
    assert remembers.effect(traces) == pytest.approx([-40, -30])
    long = trace([0.9] * 2, [[0.5, 0.9]] * 2).assign_attrs(
        config=json.dumps(vars(ARMS["long/off"]))
    )
    assert module.passes(long) == pytest.approx([10, 10])
    regimes = {c.id for c in CLAIMS if any(n.reason == module.FEW for n in c.needs)}
    papers = {c.id for c in CLAIMS if c.id[:2] in ("C2", "C3") and ".best." not in c.id}
    assert regimes == papers


def test_the_boundary_is_the_least_gamma_that_fails():
    level = {f"climb-1/{g:g}": [[0.8, 0.8]] * 2 for g in module.GAMMAS}
    level["climb-1/0.1"] = [[0.8, 0.8], [0.7, 0.7]]
    level["climb-1/1"] = [[np.nan, np.nan], [0.1, 0.1]]
    traces = {arm: trace([0.8] * 2, ends) for arm, ends in level.items()}
    traces["der/off"] = trace([0.8] * 2, [[0.8, 0.8]] * 2)
    assert module.fails(1)(traces) == pytest.approx([0, -1])


def test_arms_are_what_they_say():
    methods = {arm: module.method_of(ARMS[arm]) for arm in ARMS}
    for host in NAMES:
        released = methods[f"{host}/released"]
        assert isinstance(released, ReleasedRefresh)
        assert (released.delta, released.tau, released.every) == (1e-5, 1e-5, 1)
        for form in ("paper", "ascent"):
            method = methods[f"{host}/{form}"]
            assert isinstance(method, Refresh) and method.every == 1 and method.steps == 1
            assert method.temperature == (1.0 if form == "paper" else 0.0)
            assert float(method.gamma) == pytest.approx(TUNED[host]["size"][form])
        assert isinstance(methods[f"{host}/sam"], SAM)
    assert all(isinstance(methods[f"twin/{name}"], Compared) for name in module.TWINS)
    assert methods["every-4"].every == 4 and methods["new"].objective == "new"


def test_every_form_and_control_was_tuned_over_as_many_sizes():
    for found in TUNED.values():
        assert set(found["size"]) == {*FORMS, *CONTROLS} - {"released"}


@pytest.mark.parametrize("budget", ["quick", "thorough", "full"])
def test_budgets_know_their_arms(budget):
    configs = study.configs(budget)
    assert "mixed" in configs and ("lwf/paper" in configs) == (budget != "quick")


def test_the_papers_scale_can_be_traced(monkeypatch):
    x = np.zeros((40, 784), np.float32)
    y = (np.arange(40) % 10).astype(np.int32)
    big = Dataset(x, y, np.tile(x, (250, 1)), np.tile(y, 250))
    monkeypatch.setattr(module, "load_scaled", lambda name, **_: big)
    configs = study.configs("full")
    assert configs["long/off"].steps == 10 * configs["der/off"].steps == 12_000
    for arm in ("der/paper", "cpr/released", "mixed"):
        process = module.make_process(configs[arm])
        state = eqx.filter_eval_shape(process.init, jax.random.key(0))
        assert state.model.layers[0].weight.shape == (784, 100)
        assert state.stream.rows.shape == (5 * 1200, 10)
        eqx.filter_eval_shape(process.step, state)
        assert module.schedule(configs[arm])[-1] == 6000
