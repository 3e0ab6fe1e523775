"""A log of norms with a known answer, the entries that are left out, and logs that are refused."""

import numpy as np
import pandas as pd
import pytest

from latebloom.methods.schedules.refined_run import refine_run


def log(norms, every=1):
    return pd.DataFrame({"step": np.arange(len(norms)) * every, "grad_norm": norms})


def test_constant_norms_give_linear_decay_and_no_gain():
    found = refine_run(log(np.full(100, 3.0)), trim=0)
    table = found.schedule
    assert list(table) == ["step", "progress", "refined", "template", "linear", "cosine", "optimal"]
    np.testing.assert_allclose(table.refined, np.linspace(1, 0, 100), atol=1e-9)
    np.testing.assert_allclose(table.linear, 1 - np.arange(1, 101) / 100, atol=1e-6)
    assert found.bound == pytest.approx(1.0) and found.spread == 1.0
    assert found.template.power == pytest.approx(1, abs=0.01) and found.template.warmup < 0.01
    assert np.abs(table.optimal - table.refined)[:75].max() < 0.02


def test_a_half_with_thrice_the_norm_by_hand():
    norms = np.repeat([3.0, 1.0], 500)
    found = refine_run(log(norms), trim=0, window=0.01, steps=10)
    # Weights 1/9 and 1: before, (1/9) * (what is left); after, what is left.
    before = [(1 + (0.5 - s) / 0.5 / 9) / 9 for s in np.arange(5) / 9]
    after = [(1 - s) / 0.5 for s in np.arange(5, 10) / 9]
    np.testing.assert_allclose(found.schedule.refined, [*before, *after], atol=3e-3)
    assert found.refinement.peak_at == pytest.approx(0.5, abs=0.01)
    # sqrt(T / sum 1/g^2) against sqrt(mean g^2): sqrt(1.8) and sqrt(5).
    assert found.bound == pytest.approx(np.sqrt(1.8 / 5), rel=1e-3)
    assert refine_run(log(norms), norm="l1").bound is None


def test_overflow_is_left_out_and_ends_are_trimmed():
    norms = np.full(60, 2.0)
    norms[[0, 1, 58, 59]] = 1e9
    norms[[10, 30]] = [np.inf, np.nan]
    found = refine_run(log(norms, every=10))
    assert (found.recorded, found.dropped) == (54, 2)
    np.testing.assert_allclose(found.refinement.norms, 2.0)
    assert len(found.schedule) == 10 * 55 + 1  # from step 20 to step 570


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda t: t.head(23), {}, "19 finite norms are left"),
        (lambda t: t.assign(grad_norm=np.nan), {}, "0 finite norms"),
        (lambda t: t, {"trim": -1}, "finite norms are left"),
        (lambda t: t.assign(grad_norm=-1.0), {}, "not negative"),
        (lambda t: t.assign(step=5), {}, "increasing"),
        (lambda t: t, {"norm": "max"}, "'l1' or 'l2'"),
        (lambda t: t, {"steps": 1}, "steps must be at least 2"),
    ],
)
def test_logs_that_are_refused(change, settings, message):
    with pytest.raises(ValueError, match=message):
        refine_run(change(log(np.ones(50))), **settings)
