"""The study at smoke, and its checks on traces worked by hand."""

import json

import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.methods.critical_periods import hierarchy
from latebloom.studies.critical_periods import critical_periods as module
from latebloom.studies.critical_periods.critical_periods import ARMS, CLAIMS, study

S = np.linalg.svd(hierarchy(), compute_uv=False)


def dominated(*finals):
    """Traces of pathways whose final dominance by mode is given, one row a seed."""
    values = np.stack([np.zeros_like(finals), finals], axis=1)
    return xr.Dataset({"dominance": (("seed", "step", "mode"), values)}, {"step": [0, 1]})


def held(a, b, **odes):
    """One seed of pathways: final strengths in every mode as shares of the singular values."""
    cells = np.stack([np.array(a) * S, np.array(b) * S], axis=-1)[None, None]
    variables = {"strength": (("seed", "step", "mode", "path"), cells)}
    for name, shift in odes.items():
        variables[name] = (("seed", "step", "mode", "path"), cells + shift)
    return xr.Dataset(variables, {"step": [0], "mode": np.arange(1, 9), "path": ["a", "b"]})


def completed(removals, *errors, speedup=10, fill=0.5):
    coords = {"step": [0], "removal": np.array(removals) // speedup}
    values = {
        "final_error": (("seed", "step", "removal"), np.array(errors)[:, None]),
        "fill_error": (("seed", "step"), np.full((len(errors), 1), fill)),
    }
    return xr.Dataset(values, coords, {"config": json.dumps({"speedup": speedup})})


def test_effects_of_early_and_late_deficits():
    early = dominated([0.9, 0.95, 0.99], [0.7, 0.8, 0.9])
    late = dominated([0.0, -0.05, 0.02], [0.01, 0.0, 0.0])
    traces = {"early": early, "late": late, "middle": late, "sometimes": early, "no-deficit": late}
    np.testing.assert_allclose(module.early(traces), [0.9, 0.7])
    np.testing.assert_allclose(module.late(traces), [0.05, 0.01])
    np.testing.assert_allclose(module.undisturbed(traces), [0.05, 0.01])
    np.testing.assert_allclose(module.middle(traces), [0.0, 0.01])
    np.testing.assert_allclose(module.sometimes(traces), [0.9, 0.7])


def test_slopes_on_depth():
    traces = {f"short-{d}": dominated([0.1 * d, 0.0], [0.3, 0.0]) for d in module.SHORT}
    np.testing.assert_allclose(module.depth_slope(traces), [0.1, 0.0], atol=1e-12)


def flows(k_a, k_b):
    """One seed and trajectory of a mode's flow, strengths by case."""
    cells = np.stack([k_a, k_b], axis=-1)[None, None, :, None]
    dims = ("seed", "step", "case", "trajectory", "path")
    return xr.Dataset({"strength": (dims, cells)}, {"step": [0]})


def test_areas_and_portraits():
    lengths = np.array(ARMS["windows-2"].lengths)
    share = np.log1p(lengths) / np.log1p(lengths[-1])
    rows = {2: 0.5 * share, 3: 0.7 * share, 4: 0.8 * share, 6: share}
    traces = {f"windows-{d}": flows((1 + x) / 2, (1 - x) / 2) for d, x in rows.items()}
    wanted = 0.1 * np.log1p(lengths[-1]) / 2
    assert module.least_gain(traces) == pytest.approx(wanted)
    portraits = {
        f"portrait-{d}": flows(np.array([5 + d / 4, 5.5, 5.25]), np.array([5 - d / 4, 4.5, 4.75]))
        for d in module.PORTRAITS
    }
    assert module.portrait_slope(portraits) == pytest.approx(0.05)
    assert module.portrait_late(portraits) == pytest.approx(0.05)


def test_distance_from_the_equations():
    half = [0.5] * 8
    trace = held(half, half, flow=0.1, euler=0.01)
    near = held(half, half, flow=0.05, euler=0.01)
    traces = {"early": trace, "half-rate": near}
    assert module.distance(traces, "flow") == pytest.approx(0.1)  # where s = 1
    assert module.distance(traces, "euler") == pytest.approx(0.01)
    assert module.order(traces) == pytest.approx(1)


def test_what_the_deprived_pathway_relearns():
    a = [0.99, 0.0, 0.98, 0.98, 0.95, 0.95, 0.95, 0.95]
    b = [0.01, 0.9, 0.02, 0.02, 0.05, 0.05, 0.05, 0.05]
    trace = held(a, b)
    share = (np.array(a) - b) / (np.array(a) + b)
    traces = {"guillery": trace.assign(dominance=(("seed", "step", "mode"), share[None, None]))}
    assert module.relearnt(traces) == pytest.approx(0.9)
    assert module.others(traces) == pytest.approx(0.9)
    even = dominated([0.01, -1.0, 0.0, -0.02, 0.0, 0.0, 0.0, 0.0])
    assert module.others_ungated({"blocked-only": even}) == pytest.approx(0.02)
    assert module.only_the_lack(traces, "guillery") == pytest.approx(0.85)


def test_harm_by_the_length_of_the_deficit():
    lengths = (0, 20_000, 60_000, 100_000)
    deep = completed(lengths, [0.1, 0.3, 0.9, 1.1], [0.1, 0.1, 0.6, 0.6], speedup=10)
    flat = completed(lengths, [0.8, 0.8, 0.81, 0.81], [0.8, 0.8, 0.8, 0.8], speedup=40)
    traces = {"depth-3": deep, "depth-1": flat}
    np.testing.assert_allclose(module.harm(traces, "depth-3"), [0.8, 0.5])
    np.testing.assert_allclose(module.harm_difference("depth-3", "depth-1", traces), [0.79, 0.5])
    np.testing.assert_allclose(module.beyond_tenth("depth-1", "depth-3", traces), [-0.07, -0.05])
    np.testing.assert_allclose(module.late_rise(traces), [0.2, 0.0])
    np.testing.assert_allclose(module.against_fill(traces), [0.2, 0.2])
    np.testing.assert_allclose(module.longer("depth-3", traces), [1.0, np.sqrt(0.75)])


def test_nonlinear_effects():
    ends = {
        f"relu-{when}": xr.Dataset({"fit_dominance": (("seed", "step"), [[0.0, value]])})
        for when, value in (("early", 0.9), ("late", -0.1))
    }
    assert module.still_early("relu", ends) == pytest.approx(0.8)
    share = np.array([[[0.5, 0.5], [0.8, 0.2], [0.55, 0.45]]])[:, None]
    trace = xr.Dataset(
        {"share": (("seed", "step", "onset", "path"), share)}, {"onset": [-1, 0, 900]}
    )
    assert module.first_over_last("gate", {"views-gate": trace}) == pytest.approx(0.25)


def test_budgets():
    quick = study.configs("quick") | study.configs("nonlinear")
    assert {arm for claim in CLAIMS for arm in claim.arms} <= set(quick)
    assert set(study.configs("full")) == set(ARMS)
    for config in quick.values():
        if config.experiment == "completion":  # the same gradient flow as the paper's steps
            assert config.rate == 0.2 and config.post == 30_000
            assert all(steps % config.speedup == 0 for steps in config.removals)
            assert study.process(config).total_steps == study.schedule(config)[-1]


def test_study_turns_at_smoke(store_folder):
    done = run(study, "smoke", store=Store(store_folder))
    assert {v.claim for v in done.verdicts} == {c.id for c in CLAIMS}
    for arm, found in done.traces.items():
        assert (found.diverged_at == -1).all(), arm
    assert np.isfinite(done.traces["depth-3"].final_error.isel(step=-1)).all()
    drawn = [f for f in study.figures if all(arm in done.traces for arm in f.arms)]
    assert {f.name for f in drawn} == {"ode", "spectra"}
    for figure in drawn:
        assert len(style.png(figure.draw(done.traces))) > 10_000
