"""What the arms are run with, and the study's effects on traces worked by hand."""

import json

import numpy as np
import pytest
import xarray as xr

from latebloom.methods.critical_periods import hierarchy
from latebloom.studies.critical_periods import critical_periods as module
from latebloom.studies.critical_periods.critical_periods import ARMS, CLAIMS, study

S = np.linalg.svd(hierarchy(), compute_uv=False)
BY_ID = {claim.id: claim for claim in CLAIMS}


def dominated(*finals):
    """Traces of pathways whose final dominance by mode is given, one row a seed; the rest is as the last."""
    rows = np.array([[*row, *[row[-1]] * (len(S) - len(row))] for row in finals])
    cells = (("seed", "step", "mode"), np.stack([np.zeros_like(rows), rows], axis=1))
    return xr.Dataset({"dominance": cells}, {"step": [0, 1], "mode": np.arange(1, len(S) + 1)})


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
    wanted = {
        "early": [0.9, 0.7],
        "late": [0.05, 0.01],
        "none": [0.05, 0.01],
        "middle": [0.0, 0.01],
    }
    for name, values in (wanted | {"sometimes": [0.9, 0.7]}).items():
        np.testing.assert_allclose(BY_ID[f"C1.{name}"].effect(traces), values)


def flows(k_a, k_b):
    """One seed and trajectory of a mode's flow, strengths by case."""
    cells = np.stack([k_a, k_b], axis=-1)[None, None, :, None]
    dims = ("seed", "step", "case", "trajectory", "path")
    attrs = {"config": json.dumps({"lengths": ARMS["windows-2"].lengths})}
    return xr.Dataset({"strength": (dims, cells)}, {"step": [0]}, attrs)


def test_areas_and_portraits():
    lengths = np.array(ARMS["windows-2"].lengths)
    share = np.log1p(lengths) / np.log1p(lengths[-1])
    rows = {2: 0.5 * share, 3: 0.7 * share, 4: 0.8 * share, 6: share}
    traces = {f"windows-{d}": flows((1 + x) / 2, (1 - x) / 2) for d, x in rows.items()}
    wanted = 0.1 * np.log1p(lengths[-1]) / 2
    assert BY_ID["C2.area"].effect(traces) == pytest.approx(wanted)
    portraits = {
        f"portrait-{d}": flows(np.array([5 + d / 4, 5.5, 5.25]), np.array([5 - d / 4, 4.5, 4.75]))
        for d in module.PORTRAITS
    }
    assert BY_ID["C2.large"].effect(portraits) == pytest.approx(0.05)
    assert BY_ID["C2.large-late"].effect(portraits) == pytest.approx(0.05)


def test_distance_from_the_equations():
    half = [0.5] * 8
    trace = held(half, half, flow=0.1, euler=0.01)
    near = held(half, half, flow=0.05, euler=0.01)
    none = held(half, half, flow=0.3, euler=0.2)
    traces = {"early": trace, "half-rate": near, "no-deficit": none}
    assert BY_ID["C3.flow"].effect(traces) == pytest.approx(0.1)  # where s = 1
    assert BY_ID["C3.steps"].effect(traces) == pytest.approx(0.01)
    assert BY_ID["C3.order"].effect(traces) == pytest.approx(1)
    assert BY_ID["C3.flow"].null(traces) == pytest.approx(0.3)


def test_what_the_deprived_pathway_relearns():
    a = [0.99, 0.0, 0.98, 0.98, 0.95, 0.95, 0.95, 0.95]
    b = [0.01, 0.9, 0.02, 0.02, 0.05, 0.05, 0.05, 0.05]
    trace = held(a, b)
    share = (np.array(a) - b) / (np.array(a) + b)
    traces = {"guillery": trace.assign(dominance=(("seed", "step", "mode"), share[None, None]))}
    assert BY_ID["C4.relearns"].effect(traces) == pytest.approx(0.9)
    assert BY_ID["C4.others"].effect(traces) == pytest.approx(0.9)
    even = dominated([0.01, -1.0, 0.0, -0.02, 0.0, 0.0, 0.0, 0.0])
    assert BY_ID["C4.control"].effect({"blocked-only": even}) == pytest.approx(0.02)
    assert module.lack(trace) == pytest.approx(0.85)


def test_harm_by_the_length_of_the_deficit():
    lengths = (0, 20_000, 60_000, 100_000)
    deep = completed(lengths, [0.1, 0.3, 0.9, 1.1], [0.1, 0.1, 0.6, 0.6], speedup=10)
    flat = completed(lengths, [0.8, 0.8, 0.81, 0.81], [0.8, 0.8, 0.8, 0.8], speedup=40)
    traces = {"depth-3": deep, "depth-1": flat}
    np.testing.assert_allclose(BY_ID["C5.harm"].effect(traces), [0.8, 0.5])
    np.testing.assert_allclose(BY_ID["C5.control"].effect(traces), [-0.07, -0.05])
    np.testing.assert_allclose(BY_ID["C5.saturates"].effect(traces), [0.2, 0.0])
    np.testing.assert_allclose(BY_ID["C5.baseline"].effect(traces), [0.2, 0.2])
    np.testing.assert_allclose(module.longer(deep), [1.0, np.sqrt(0.75)])


def test_nonlinear_effects():
    ends = {
        f"relu-{when}": xr.Dataset({"fit_dominance": (("seed", "step"), [[0.0, value]])})
        for when, value in (("early", 0.9), ("late", -0.1))
    }
    assert BY_ID["C8.relu"].effect(ends) == pytest.approx(0.8)
    share = np.array([[[0.5, 0.5], [0.8, 0.2], [0.55, 0.45]]])[:, None]
    trace = xr.Dataset(
        {"share": (("seed", "step", "onset", "path"), share)}, {"onset": [-1, 0, 900]}
    )
    assert module.terms.first_over_last(1)(trace) == pytest.approx(0.25)


def test_budgets():
    quick, thorough, full = (study.configs(name) for name in ("quick", "thorough", "full"))
    nonlinear = {a for a in ARMS if a.startswith(("relu", "tanh", "views"))}
    assert set(thorough) - set(quick) == nonlinear and {c.id for c in CLAIMS if c.budget == "thorough"} == {
        c.id for c in CLAIMS if c.id.startswith("C8")
    }  # fmt: skip
    assert all(thorough[arm] == config for arm, config in quick.items())
    assert full == ARMS
    for config in thorough.values():
        if config.experiment == "completion":  # the same gradient flow as the paper's steps
            assert config.rate == 0.2 and config.post == 30_000 and config.speedup == 40
            assert all(steps % config.speedup == 0 for steps in config.removals)
            assert study.process(config).total_steps == study.schedule(config)[-1]
