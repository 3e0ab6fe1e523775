"""Refinement against closed forms, brute force, a filter by hand and the authors' numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from latebloom.methods.schedules.refinement import (
    Template,
    fit_template,
    median_smooth,
    refine,
    stretched,
    tail_schedule,
)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=30))
def test_the_schedule_is_weight_times_what_follows(weights):
    expected = [w * sum(weights[t + 1 :]) for t, w in enumerate(weights)]
    np.testing.assert_allclose(
        tail_schedule(np.array(weights)), np.array(expected) / max(expected), rtol=1e-9
    )


def test_constant_norms_refine_to_linear_decay_exactly():
    for norm in ("l1", "l2"):
        made = refine(np.full(500, 7.0), norm=norm)
        np.testing.assert_allclose(made.schedule, np.linspace(1, 0, 10_000), atol=1e-9)
        np.testing.assert_allclose(made.over(11), np.linspace(1, 0, 11), atol=1e-9)
        assert made.peak_at == 0


@pytest.mark.parametrize(("norm", "power"), [("l1", 1.5), ("l2", 2.0)])
def test_norms_that_rise_as_a_power_refine_to_a_power(norm, power):
    """Norms (1 - s)^-1/4: weights (1 - s)^a with a = 1/4 or 1/2, schedule (1 - s)^(2a + 1)."""
    s = np.linspace(0, 1, 10_000, endpoint=False)
    made = refine((1 - s) ** -0.25, norm=norm, window=0.001)
    np.testing.assert_allclose(made.schedule, (1 - s) ** power, atol=3e-3)
    fitted = fit_template(made.schedule)
    assert fitted.power == pytest.approx(power, abs=0.02) and fitted.warmup < 0.005
    assert fitted.error < 2e-3


def median_by_hand(values, width):
    """Each window's median; the right end mirrored twice the width, the left end repeated."""
    half, mirrored = width // 2, [*values, *values[::-1][1:], *values[1:]]
    padded = [values[0]] * half + mirrored[: len(values) + 2 * width]
    return [sorted(padded[i : i + width])[half] for i in range(len(values))]


@pytest.mark.parametrize(("count", "width"), [(60, 7), (45, 5), (100, 11)])
def test_the_filter_mirrors_on_the_right_and_repeats_on_the_left(count, width):
    values = np.random.default_rng(count).exponential(size=count)
    np.testing.assert_allclose(median_smooth(values, 0.111), median_by_hand(values, width))


def test_the_filter_is_a_median_not_a_mean():
    values = np.ones(1000)
    values[400:440] = 1e6
    np.testing.assert_array_equal(median_smooth(values), 1.0)


def test_places_and_lengths_are_stretched():
    uneven = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
    made = refine(1.0 + uneven / 512, places=10 + 3 * uneven, window=0.001)
    np.testing.assert_allclose(made.norms, np.linspace(1, 2, 10_000))
    assert len(refine(np.ones(20_000)).schedule) == 20_000
    np.testing.assert_allclose(stretched(np.array([0.0, 1.0]), 5), [0, 0.25, 0.5, 0.75, 1])


SHARES = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
# By the authors' code: heights of the norm curve at the knots, then the schedule at SHARES.
AUTHORS = {
    ("l2", (1, 1, 1, 1, 1, 1)): [1.0, 0.950475, 0.90045, 0.750375, 0.50025, 0.250125, 0.10005],
    ("l2", (15, 6, 4, 2, 1, 1)): [0.010894, 0.253884, 0.839013, 0.875571, 0.583714, 0.291857, 0.116743],
    ("l2", (15, 6, 4, 2, 1, 2)): [0.012266, 0.284743, 0.901386, 0.603832, 0.212032, 0.062542, 0.018972],
    ("l1", (15, 6, 4, 2, 1, 2)): [0.116742, 0.554328, 0.959651, 0.722131, 0.352084, 0.135684, 0.047302],
    ("l1", (15, 6, 4, 2, 1, 0.7)): [0.107525, 0.514394, 0.9201, 0.925501, 0.709522, 0.413408, 0.182597],
}  # fmt: skip


def at_shares(schedule):
    return [schedule[int(share * (len(schedule) - 1))] for share in SHARES]


@pytest.mark.parametrize(("curve", "expected"), AUTHORS.items())
def test_the_papers_made_up_curves(curve, expected):
    norm, heights = curve
    knots = [0, 0.003, 0.02, 0.03, 0.1, 1]
    norms = np.interp(np.linspace(0, 1, 2000), knots, heights)
    norms = ndimage.gaussian_filter1d(norms, 40.0, mode="nearest")
    schedule = tail_schedule(norms ** {"l1": -1.0, "l2": -2.0}[norm])
    np.testing.assert_allclose(at_shares(schedule), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("l2", [0.08223, 0.296198, 0.654126, 0.974374, 0.474566, 0.143363, 0.036534]),
        ("l1", [0.326576, 0.608998, 0.88201, 0.981656, 0.56152, 0.21924, 0.070139]),
    ],
)
def test_noisy_norms_from_resampling_to_schedule(norm, expected):
    """Resampled, filtered, weighted and normalised, against the authors' code on the same norms."""
    t = np.arange(300)
    noise = np.exp(0.3 * np.random.default_rng(7).standard_normal(300))
    made = refine((1 + 4 * np.exp(-t / 20) + t / 300) * noise, norm=norm)
    np.testing.assert_allclose(at_shares(made.schedule), expected, atol=2e-6)
    assert made.schedule.argmax() == 2414


def test_large_early_norms_give_warmup_and_falling_norms_late_annealing():
    s = np.linspace(0, 1, 2000)
    early = refine(np.where(s < 0.3, 3.0, 1.0), window=0.01)
    assert early.peak_at == pytest.approx(0.3, abs=0.01)
    # Before: w = 1/9 of an after-weight; what follows 0.3 weighs 0.7.
    assert early.over(1001)[100] == pytest.approx((0.2 / 9 + 0.7) / 9 / 0.7, rel=0.02)
    falling = refine(np.where(s < 0.8, 3.0, 1.0), window=0.01)
    assert falling.peak_at == pytest.approx(0.8, abs=0.01)


def test_collapsed_norms_take_all_and_a_floor_gives_it_back():
    norms = np.concatenate([np.ones(700), np.full(300, 1e-9)])
    assert refine(norms).peak_at == pytest.approx(0.7, abs=0.05)
    floored = refine(norms, floor=0.4)
    np.testing.assert_allclose(floored.schedule, np.linspace(1, 0, 10_000), atol=1e-6)
    assert np.isfinite(refine(np.concatenate([np.ones(700), np.zeros(300)])).schedule).all()


@settings(max_examples=15)
@given(st.floats(0, 0.8), st.floats(0.4, 4))
def test_a_template_is_found_again(warmup, power):
    s = np.linspace(0, 1, 400)
    left = np.clip((1 - s) / (1 - warmup), 0, 1) ** power
    shape = np.where(s < warmup, s / max(warmup, 1e-9), left)
    found = fit_template(3 * shape, points=400)
    assert found.error < 0.01
    assert found.warmup == pytest.approx(warmup, abs=0.01)
    assert found.power == pytest.approx(power, rel=0.05)


def test_a_template_reads_as_a_schedule():
    np.testing.assert_allclose(
        Template(0.2, 1.0, 0.0).over(10), [0.5, 1, *np.arange(7, -1, -1) / 8], atol=1e-6
    )


@pytest.mark.parametrize(
    ("norms", "settings", "message"),
    [
        (np.ones(9), {}, "at least 10"),
        (np.ones((20, 2)), {}, "at least 10"),
        ([np.inf] * 20, {}, "finite"),
        ([-1.0] * 20, {}, "not negative"),
        ([0.0] * 20, {}, "mostly 0"),
        (np.ones(20), {"norm": "linf"}, "'l1' or 'l2'"),
        (np.ones(20), {"window": 0.0}, "window"),
        (np.ones(20), {"floor": 1.0}, "floor"),
        (np.ones(20), {"places": np.zeros(20)}, "increasing"),
        (np.ones(20), {"places": np.arange(19)}, "increasing"),
    ],
)
def test_norms_and_settings_that_make_no_sense(norms, settings, message):
    with pytest.raises(ValueError, match=message):
        refine(norms, **settings)


@pytest.mark.parametrize("bad", [np.zeros(20), np.full(20, -1.0), np.ones(5), np.full(20, np.nan)])
def test_what_is_no_schedule_has_no_template(bad):
    with pytest.raises(ValueError, match="schedule must"):
        fit_template(bad)
