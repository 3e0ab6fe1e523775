"""Effects on traces worked by hand, the budgets, and a contest at smoke."""

import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.studies.schedules import refined_schedules as module
from latebloom.studies.schedules.refined_schedules import ARMS, CLAIMS, FLOOR, SUITE, WORST, study

BY_ID = {claim.id: claim for claim in CLAIMS}
CELLS = ["linear", "linear+warm-up", "cosine", "cosine+warm-up", "refined", "linear-2x"]


def trace(losses, tuning=(3, 2, 2, 3, 1, 1), norms=None):
    """Two seeds with equal losses, one a cell, after two observations; errors are losses / 10."""
    norms = np.ones(100) if norms is None else np.asarray(norms, float)
    padded = np.concatenate([norms, np.zeros_like(norms)])
    loss = np.stack([np.ones((2, len(CELLS))), np.tile(losses, (2, 1))], axis=1) - FLOOR
    wide = {"seed": 2, "step": 2}
    return xr.Dataset(
        {
            "train_loss": (("seed", "step", "cell"), loss),
            "train_error": (("seed", "step", "cell"), (loss + FLOOR) / 10),
            "tuning_loss": (
                ("seed", "step", "cell", "tried_peak"),
                np.broadcast_to(np.array(tuning, float)[:, None] + [0, 5], (2, 2, len(CELLS), 2)),
            ),
            "gradient_norm": (
                (*wide, "iteration", "recorded"),
                np.broadcast_to(padded[:, None], (2, 2, len(padded), 1)),
            ),
        },
        {"cell": CELLS, "step": [0, 200]},
    )


def suite(**changes):
    return {name: trace([1.0, 0.8, 0.4, 0.5, 0.6, 0.2], **changes) for name in SUITE}


def test_differences_are_logs_of_the_last_losses():
    traces = suite()
    traces |= {"mlp": traces["iris"], "dna": traces["iris"]}
    for claim, effect in (
        ("C1.cosine", np.log(0.8 / 0.4)), ("C1.deep", np.log(0.8 / 0.4)), ("C2", np.log(0.6 / 0.8)),
        ("C2.cost", np.log(3)), ("C2.error", -2.0), ("C2.deep-plain", np.log(0.6)),
        ("C2.separable", np.log(0.6 / 0.8)),
    ):  # fmt: skip
        np.testing.assert_allclose(BY_ID[claim].effect(traces), [effect] * 2)


def test_shapes_of_refined_schedules():
    flat = suite()
    np.testing.assert_allclose(BY_ID["C3.warm-up"].effect(flat), 0.0)
    np.testing.assert_allclose(BY_ID["C3.annealing"].effect(flat), 1.0)
    stepped = suite(norms=np.repeat([3.0, 1.0], 50))
    np.testing.assert_allclose(BY_ID["C3.warm-up"].effect(stepped), 0.5, atol=0.02)
    np.testing.assert_allclose(BY_ID["C3.annealing"].effect(stepped), 2.0, rtol=0.03)
    assert BY_ID["C3.warm-up"].null(stepped).max() < 0.3  # in any order
    np.testing.assert_allclose(BY_ID["C3.shuffled"].null(stepped), module.distance(stepped["iris"]))
    mixed = {name: trace(np.ones(6), norms=np.repeat([h, 1.0], [10 + 4 * i, 90 - 4 * i]))
             for i, (name, h) in enumerate(zip(SUITE, range(2, 11), strict=True))}  # fmt: skip
    np.testing.assert_allclose(BY_ID["C3.early"].effect(mixed), 1.0)
    rng = np.random.default_rng(0)
    assert BY_ID["C3.shuffled"].effect(suite(norms=rng.uniform(0.8, 1.2, 100)))[0] < 0.1


def worst(rows):
    """[schedule, scale, instance] for two equal seeds."""
    values = np.broadcast_to(np.array(rows, float), (2, 1, 3, 4, 2))
    dims = ("seed", "step", "schedule", "scale", "instance")
    return xr.Dataset({"ratio": (dims, values)}, {"schedule": ["linear", "flat", "inverse-sqrt"]})


def test_worst_cases_are_worst_over_problems_and_best_over_step_sizes():
    linear = [[2, 0], [1.5, 0], [0.5, 0.7], [0.1, 0.1]]
    flat = [[2, 0], [0.4, 1.3], [1.1, 0.9], [0, 3]]
    traces = dict.fromkeys(WORST, worst([linear, flat, np.full((4, 2), 9)]))
    np.testing.assert_allclose(BY_ID["C4.bound"].effect(traces), 0.7)
    np.testing.assert_allclose(BY_ID["C4.bound"].null(traces), 1.1)
    np.testing.assert_allclose(BY_ID["C4.flat"].effect(traces), 1.1 - 0.7)
    np.testing.assert_allclose(BY_ID["C4.inverse-sqrt"].effect(traces), 9 - 0.7)
    harder = [[2, 0], [1.5, 0], [0.8, 0.7], [0.1, 0.1]]
    traces[WORST[0]] = worst([harder, flat, flat])
    np.testing.assert_allclose(BY_ID["C4.bound"].effect(traces), 0.8)


def test_quick_runs_all_but_the_separable_set_and_full_is_the_papers_scale():
    quick, thorough, full = (study.configs(name) for name in ("quick", "thorough", "full"))
    assert set(thorough) - set(quick) == {"dna"} and set(thorough) == set(full) == set(ARMS)
    assert quick["letter"].rows == 1000 and quick["mlp"].rows == 2500 and quick["mlp"].pool == 2
    assert full["letter"].rows is None and full["letter"].epochs == 30 and full["mlp"].pool == 1


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return run(study, "smoke", store=Store(tmp_path_factory.mktemp("store")))


def test_a_contest_at_smoke(smoke):
    found = smoke.traces["mlp"]
    assert (found.diverged_at == -1).all()
    assert found.cell.values[0] == "linear" and found.cell.values[-2] == "refined"
    loss = found.train_loss.sel(cell="linear")
    assert (loss.isel(step=-1) < loss.isel(step=0)).all()
    half = found.step.values[-1] // 2
    short = found.train_loss.drop_sel(cell="linear-2x")
    np.testing.assert_array_equal(short.sel(step=half), short.isel(step=-1))
    lowest = found.tuning_loss.values[0, 0].argmin(axis=-1)
    np.testing.assert_allclose(found.peak.values[0, 0], found.tried_peak.values[lowest])
    assert found.refined.values.max() > 0.95 and (found.refined.values[..., -1] == 0).all()


def test_figures_are_drawn_from_small_traces(smoke):
    traces = dict.fromkeys([*SUITE, "dna", "mlp"], smoke.traces["mlp"])
    traces |= dict.fromkeys(WORST, worst(np.ones((3, 4, 2))))
    for figure in study.figures:
        assert len(style.png(figure.draw(traces))) > 10_000, figure.name


def test_logistic_regression_starts_from_nothing_on_standardised_tables():
    problem = module._problem(ARMS["iris"])
    assert problem.x.shape == (150, 4) and problem.train == 120 and problem.norm == "l2"
    np.testing.assert_allclose(problem.x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(problem.x.std(axis=0), 1, rtol=1e-4)
    weights = jax.tree.leaves(problem.model(jax.random.key(0)))
    assert [w.shape for w in weights if w.ndim] == [(4, 3), (3,)]
    assert not any(w.any() for w in weights)
    assert module.schedule(ARMS["iris"])[-1] == 2 * 30 * (120 // 16)
    assert type(module.make_process(ARMS["worst-100"])).__name__ == "WorstCase"
