"""The study at smoke, its arms, and its checks on traces worked by hand."""

import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.studies.bandits import neural_bandits as module
from latebloom.studies.bandits.neural_bandits import ARMS, CITED, CLAIMS, REAL, name, study


def trace(final, rounds=100, **more):
    """Regret at the end, one value a seed."""
    final = np.asarray(final, float)
    zero = np.zeros_like(final)
    values = {"regret": np.stack([zero, final], 1), "round": np.tile([0, rounds], (len(final), 1))}
    values |= {k: np.asarray(v, float) for k, v in more.items()}
    return xr.Dataset({k: (("seed", "step"), v) for k, v in values.items()}, {"step": [0, rounds]})


def test_the_best_rival_is_the_one_of_the_lowest_mean():
    traces = {"a": trace([10, 20]), "b": trace([5, 31]), "c": trace([15, 15])}
    np.testing.assert_allclose(module.against_best(traces, "a", ["b", "c"]), [-0.05, 0.05])
    np.testing.assert_allclose(module.against_best(traces, "c", ["a", "b"]), [0.05, -0.05])


def test_means_over_tables_and_pairs_of_losses():
    traces = {name(d, "replay", m): trace([v, v + 2]) for d in REAL
              for m, v in (("neu-fast", 10), ("neu-square", 20), ("neu-fast-plain", 11),
                           *((m, 14) for m in CITED))}  # fmt: skip
    np.testing.assert_allclose(module.fast_minus_square(traces), [-0.1, -0.1])
    np.testing.assert_allclose(module.square_on_all(traces), [0.06, 0.06])
    np.testing.assert_allclose(module.fast_on_letter(traces), [-0.04, -0.04])
    np.testing.assert_allclose(module.fast_perturbed(traces), [-0.01, -0.01])


def test_the_gain_at_a_noise_level_is_in_mistakes():
    traces = {
        "digits-8x8/replay/neu-square": trace([20]), "digits-8x8/replay/neu-fast": trace([10]),
        "noise-0.2/neu-square": trace([24]), "noise-0.2/neu-fast": trace([21]),
    }  # fmt: skip
    # Regret counts a mistake 1 - 2 · 0.2: 3 of regret are 5 mistakes of 100.
    np.testing.assert_allclose(module.gain_lost_to_noise(traces), [0.1 - 0.05])


@pytest.mark.parametrize(("shape", "sign"), [(np.log, 1), (np.sqrt, -1)])
def test_growth_of_regret_is_told_apart(shape, sign):
    t = np.array([0, 50, 100, 200, 400, 800])
    loss = 3 * shape(np.maximum(t, 1)) + 2
    noise = 0.01 * np.random.default_rng(0).normal(size=(2, 6))
    online = xr.Dataset({"error": (("seed", "step"), 2 * (loss + 1 + noise))}, {"step": t})
    past = xr.Dataset({"hindsight": (("seed", "step"), np.ones((2, 6)))}, {"step": t})
    traces = {"regression-square": online, "hindsight-square": past}
    assert (sign * module.log_growth_square(traces) > 3).all()
    np.testing.assert_allclose(module.regression_regret(traces, "square"), (loss + noise)[:, 1:])
    doubled = traces | {"regression-square-plain": online * 2 - past.hindsight * 2}
    assert np.isfinite(module.regression_perturbed(doubled)).all()


def test_the_exponent_of_a_power_is_found():
    t = np.arange(0, 801, 50)
    found = xr.Dataset({"log_det": (("seed", "step"), (2.0 * t**0.7)[None])}, {"step": t})
    np.testing.assert_allclose(module.growth(found), [0.7])


def test_arms_that_differ_in_numbers_alone_share_a_program():
    def shape(arm):
        process = module.make_process(ARMS[arm])
        leaves, tree = jax.tree.flatten(process)
        return tree, [getattr(v, "shape", ()) for v in leaves], len(module.schedule(ARMS[arm]))

    plain = [f"digits-8x8/replay/{m}" for m in ("neural-ucb", "neural-ts", "neural-greedy")]
    assert shape(plain[0]) == shape(plain[1]) == shape(plain[2])
    assert shape("noise-0.2/neu-fast") == shape("digits-8x8/replay/neu-fast-plain")
    assert shape("regression-kl") == shape("digits-8x8/online/neu-fast")
    assert shape("digits-8x8/replay/linucb") == shape("digits-8x8/replay/linear-square")


def test_every_method_is_tuned_for_every_table_of_the_quick_budget():
    replay, online = {*module.NEURAL, *module.OTHERS}, set(module.NEURAL)
    expected = {(d, "replay", m) for d in REAL for m in replay}
    expected |= {(d, "online", m) for d in REAL for m in online}
    expected |= {("h1", "replay", m) for m in ("neu-fast", "neu-square", *CITED, "linucb")}
    assert set(module.TUNED) == expected


def test_quick_and_tables_run_every_claim_and_full_every_arm():
    quick, tables = (set(study.configs(name)) for name in ("quick", "tables"))
    for part in (*CLAIMS, *study.figures):
        assert set(part.arms) <= quick or set(part.arms) <= tables
    assert set(study.configs("full")) == set(ARMS)
    dimension = study.configs("quick")["dimension-random"]
    assert (dimension.rounds, dimension.hidden) == (800, 1024)


def test_study_turns_at_smoke(store_folder):
    done = run(study, "smoke", store=Store(store_folder))
    ran = {v.claim for v in done.verdicts if v.verdict != "not run"}
    assert ran == {"C1.digits", "C4.orthogonal", "C4.random"}
    for arm, found in done.traces.items():
        assert (found.diverged_at == -1).all(), arm
    fast = done.traces["digits-8x8/replay/neu-fast"]
    assert (fast.plays.values[:, -1].sum(1) == 30).all()
    drawn = [f for f in study.figures if all(arm in done.traces for arm in f.arms)]
    assert "dimension" in {f.name for f in drawn}
    for figure in drawn:
        assert len(style.png(figure.draw(done.traces))) > 10_000


def figure_traces():
    """What the figures need, made up."""
    t, rng = np.linspace(0, 100, 6), np.random.default_rng(0)
    grow = lambda: np.cumsum(rng.random((2, 6)), 1)  # noqa: E731
    bins = lambda: (("seed", "step", "bin"), 30 + rng.random((2, 6, 10)))  # noqa: E731
    found = {}
    for arm in {arm for figure in study.figures for arm in figure.arms}:
        values = {k: (("seed", "step"), grow()) for k in ("regret", "explored", "error", "log_loss", "hindsight", "log_det")}  # fmt: skip
        values |= {k: bins() for k in ("counts", "predicted", "observed")}
        found[arm] = xr.Dataset(values | {"round": (("seed", "step"), np.tile(t, (2, 1)))}, {"step": t})  # fmt: skip
    return found


@pytest.mark.parametrize("figure", study.figures, ids=lambda f: f.name)
def test_figures_draw_what_they_ask_for(figure):
    traces = {arm: found for arm, found in figure_traces().items() if arm in figure.arms}
    assert len(style.png(figure.draw(traces))) > 10_000
