"""The study's arms, its effects on traces worked by hand, and figures that smoke does not draw."""

import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.studies.bandits import neural_bandits as module
from latebloom.studies.bandits.neural_bandits import ARMS, CITED, CLAIMS, REAL, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def trace(final, rounds=100, **more):
    """Regret at the end, one value a seed."""
    final = np.asarray(final, float)
    zero = np.zeros_like(final)
    values = {"regret": np.stack([zero, final], 1), "round": np.tile([0, rounds], (len(final), 1))}
    values |= {k: np.asarray(v, float) for k, v in more.items()}
    return xr.Dataset({k: (("seed", "step"), v) for k, v in values.items()}, {"step": [0, rounds]})


def test_the_best_rival_is_the_one_of_the_lowest_mean():
    traces = {"x/a": trace([10, 20]), "x/b": trace([5, 31]), "x/c": trace([15, 15])}
    np.testing.assert_allclose(module.against("x", "a", ["b", "c"])(traces), [-0.05, 0.05])
    np.testing.assert_allclose(module.against("x", "c", ["a", "b"])(traces), [0.05, -0.05])


def test_means_over_tables_and_pairs_of_losses():
    traces = {f"{d}/replay/{m}": trace([v, v + 2]) for d in REAL
              for m, v in (("neu-fast", 10), ("neu-square", 20), ("neu-fast-plain", 11),
                           *((m, 14) for m in CITED))}  # fmt: skip
    np.testing.assert_allclose(BY_ID["C2"].effect(traces), [-0.1, -0.1])
    np.testing.assert_allclose(BY_ID["C1.square"].effect(traces), [0.06, 0.06])
    np.testing.assert_allclose(BY_ID["C1.letter"].effect(traces), [-0.04, -0.04])
    np.testing.assert_allclose(BY_ID["C1.letter"].needs[0].effect(traces), [0.1, 0.12])
    np.testing.assert_allclose(BY_ID["A.fast"].effect(traces), [-0.01, -0.01])


def test_the_gain_at_a_noise_level_is_in_mistakes():
    traces = {
        "digits-8x8/replay/neu-square": trace([20]), "digits-8x8/replay/neu-fast": trace([10]),
        "noise-0.2/neu-square": trace([24]), "noise-0.2/neu-fast": trace([21]),
    }  # fmt: skip
    # Regret counts a mistake 1 - 2 · 0.2: 3 of regret are 5 mistakes of 100.
    np.testing.assert_allclose(BY_ID["C2.noise"].effect(traces), [0.1 - 0.05])


@pytest.mark.parametrize(("shape", "sign"), [(np.log, 1), (np.sqrt, -1)])
def test_growth_of_regret_is_told_apart(shape, sign):
    t = np.array([0, 50, 100, 200, 400, 800])
    loss = 3 * shape(np.maximum(t, 1)) + 2
    noise = 0.01 * np.random.default_rng(0).normal(size=(2, 6))
    online = xr.Dataset({"error": (("seed", "step"), 2 * (loss + 1 + noise))}, {"step": t})
    past = xr.Dataset({"hindsight": (("seed", "step"), np.ones((2, 6)))}, {"step": t})
    traces = {"regression-square": online, "hindsight-square": past}
    assert (sign * BY_ID["C3.square"].effect(traces) > 3).all()
    np.testing.assert_allclose(module.regression_regret(traces, "square"), (loss + noise)[:, 1:])
    doubled = traces | {"regression-square-plain": online * 2 - past.hindsight * 2}
    np.testing.assert_allclose(BY_ID["C3.perturb"].effect(doubled), -0.5, atol=0.1)


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


def test_every_method_is_tuned_for_every_table_of_the_smaller_budgets():
    both = {"replay": set(module.ALL), "online": set(module.NEURAL)}
    h1 = {"replay": {"neu-fast", "neu-square", *CITED, "linucb"}}
    found = {d: {t: set(methods) for t, methods in by.items()} for d, by in module.TUNED.items()}
    assert found == dict.fromkeys(REAL, both) | {"h1": h1}


def test_quick_plays_digits_and_synthetic_functions_thorough_the_other_tables():
    tables = [d for d in (*REAL, *module.MORE) if d != "digits-8x8"]
    quick, thorough = study.configs("quick"), study.configs("thorough")
    assert {c.data for c in quick.values()}.isdisjoint(tables)
    assert {c.data for c in thorough.values()} & {*tables} == {"satellite", "letter"}
    assert set(study.configs("full")) == set(ARMS)
    for part in (*CLAIMS, *study.figures):
        assert set(part.arms) <= set(thorough)
    assert (quick["dimension-random"].rounds, quick["dimension-random"].hidden) == (800, 1024)
    digits = quick["digits-8x8/replay/neu-fast"]
    assert (digits.rounds, digits.hidden, digits.limit) == (1200, 50, 200)


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
