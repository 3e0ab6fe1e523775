"""What the arms are made of, and the effects on curves made by hand."""

import numpy as np
import pytest
import xarray as xr

from latebloom.methods.grokking.concept_space import terms
from latebloom.studies.grokking import concept_space as this
from latebloom.studies.grokking.concept_space import Config, make_process, schedule, study

STEPS = np.arange(100, 2100, 100)


@pytest.fixture(autouse=True)
def without_smoothing(monkeypatch):
    """Hand-made curves have a few points, which the filter would smear."""
    plain_time = terms.learning_time
    monkeypatch.setattr(terms, "smooth", lambda values: np.asarray(values, float))
    monkeypatch.setattr(terms, "learning_time", lambda *a, **k: plain_time(*a, **k, smoothing=0))


def curve(learned_at, low=0.0):
    """1 from a step on, `low` before; never for None."""
    return np.where(STEPS >= (np.inf if learned_at is None else learned_at), 1.0, low)


def trace(colour=500, size=500, naive=500, seen=300, over=None, linear=None, sham=None):
    """Two equal seeds with step curves on the unseen class."""
    labels = ["00", "01", "10", "11"]
    accuracy = np.stack([curve(seen)] * 3 + [curve(naive)], axis=1)
    concepts = np.ones((len(STEPS), 4, 2))
    concepts[:, 3] = np.stack([curve(colour), curve(size)], axis=1)
    two = lambda values: np.stack([values, values])  # noqa: E731
    variants = {"over_prompt": over, "linear": linear, "placebo_prompt": sham}
    return xr.Dataset(
        {
            "accuracy": (("seed", "step", "class"), two(accuracy)),
            "concept_accuracy": (("seed", "step", "class", "concept"), two(concepts)),
            "probability": (("seed", "step", "class", "concept"), two(concepts)),
            **{
                f"{name}_accuracy": (
                    ("seed", "step", f"{name}_variant"),
                    two(np.stack([0 * STEPS, curve(at)], axis=1)),
                )
                for name, at in variants.items()
            },
        },
        {"seed": [0, 1], "step": STEPS, "class": labels, "concept": ["colour", "size"]},
    )


def claim(name):
    return next(c for c in study.claims if c.id == name)


def test_c1_ranks_speed_by_signal():
    traces = {
        this._sweep("vectors", c, s): trace(colour=int(100 / c), size=int(100 * np.ceil(4 - 9 * s)))
        for c in this.COLOURS
        for s in this.SIZES
    }
    assert claim("C1-colour-vectors").effect(traces).tolist() == [1.0, 1.0]
    assert claim("C1-size-vectors").effect(traces) == pytest.approx([1.0, 1.0])
    flat = {arm: trace() for arm in traces}
    assert claim("C1-colour-vectors").effect(flat).tolist() == [0.0, 0.0]


def test_c2_needs_both_bends():
    early, late = trace(colour=300, size=900), trace(colour=900, size=300)
    colour_strong, size_strong = "vectors-c0.4-s0.1", "vectors-c0.1-s0.4"
    order, corner = claim("C2-order-vectors"), claim("C2-corner-vectors")
    right = {colour_strong: early, size_strong: late}
    assert (order.effect(right) > 0).all()
    assert (order.effect({colour_strong: late, size_strong: early}) < 0).all()
    assert (order.effect(dict.fromkeys(right, early)) < 0).all()
    assert order.null({"vectors-c0.4-s0.4": trace()}).tolist() == [0.0, 0.0]
    assert corner.effect(right).tolist() == [1.0, 1.0] and corner.null(right).tolist() == [0.0, 0.0]
    assert corner.effect({size_strong: trace()}).tolist() == [0.0, 0.0]


def test_c3_leads_and_what_holds_at_the_onset():
    arm = "vectors-hidden"
    one = {arm: trace(naive=1000, seen=300, over=500, linear=400, sham=900)}
    assert claim("C3-over-vectors").effect(one) == pytest.approx(np.log10([2, 2]))
    assert claim("C3-linear-vectors").effect(one) == pytest.approx(np.log10([2.5, 2.5]))
    assert claim("C3-placebo-vectors").effect(one).tolist() == [0, 0]
    assert claim("C3-seen-vectors").effect(one).tolist() == [1, 1]
    assert claim("C3-seen-vectors").null(one).tolist() == [0, 0]
    assert claim("C3-spread-vectors").effect(one).tolist() == [0, 0]
    never = {arm: trace(naive=None, over=500, linear=None, sham=100)}
    assert claim("C3-over-vectors").effect(never) == pytest.approx(np.log10([4, 4]))  # lower limit
    assert np.isnan(claim("C3-linear-vectors").effect(never)).all()
    assert claim("C3-placebo-vectors").effect(never).tolist() == [1, 1]


def test_c4_orders_by_mask_and_reads_the_end():
    traces = {this._mask("vectors", p): trace(colour=int(300 + 1000 * p)) for p in this.MASKS}
    assert claim("C4-delay-vectors").effect(traces) == pytest.approx([1, 1])
    assert claim("C4-fails-vectors").effect(traces).tolist() == [1, 1]
    traces[this._mask("vectors", 1.0)] = trace(colour=None)
    assert claim("C4-fails-vectors").effect(traces).tolist() == [0, 0]


def test_c6_compares_within_unseen_combinations_of_the_weak_concept():
    labels = ["000", "001", "010", "011", "100", "101", "110", "111"]
    end = np.ones((2, 1, 8, 3))
    end[:, :, [3, 5, 7], 2] = 0.25
    end[:, :, 1, 2] = 0.0  # a seen class does not matter
    three = xr.Dataset(
        {"concept_accuracy": (("seed", "step", "class", "concept"), end)},
        {"class": labels, "seed": [0, 1], "step": [1], "concept": list(this.THREE)},
    )
    assert claim("C6-weak-vectors").effect({"vectors-three": three}).tolist() == [0.75, 0.75]


def test_arms_differ_in_what_their_claim_needs():
    masks = [study.arms[this._mask("images", p)] for p in this.MASKS]
    assert [c.mask for c in masks] == list(this.MASKS)
    assert all(c.concepts == ("colour", "shape") for c in masks)
    assert study.arms["images-hidden"] == Config(interventions=True)


def test_schedule_is_quadratic():
    at = schedule(Config(steps=20_000, checkpoints=60, first_check=500))
    assert at[0] == 500 and at[-1] == 20_000 and len(at) == 60
    roots = np.sqrt(at)
    assert np.allclose(np.diff(roots), np.diff(roots).mean(), atol=0.05)


def test_images_and_vectors_make_processes(monkeypatch):
    monkeypatch.setattr(this, "shared_classifier", lambda *a, **k: (None, 1.0))
    assert make_process(study.arms["images-three"]).world.concepts == this.THREE
    assert make_process(study.arms["images-hidden"]).seeds_by == "map"
    assert make_process(study.arms["vectors-cfg"]).guidance
    patched = make_process(study.arms["vectors-hidden"])
    assert patched.patch_from == study.arms["vectors-hidden"].steps


def test_budgets():
    quick, thorough = study.configs("quick"), study.configs("thorough")
    assert {c.world for c in quick.values()} == {"vectors"} and len(quick) == 13
    assert set(thorough) - set(quick) == {
        "images-hidden", "vectors-three", "vectors-cfg", "vectors-regression",
        *(this._mask("vectors", p) for p in this.MASKS),
    }  # fmt: skip
    assert thorough["images-hidden"].image_size == 16 and thorough["vectors-three"].steps == 1200
    assert study.configs("full") == study.arms
