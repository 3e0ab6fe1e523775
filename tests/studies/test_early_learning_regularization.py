"""What the arms are made of, and the effects on traces worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from latebloom.methods.noisy_labels import CoTeaching, EarlyLearningPlus
from latebloom.studies.noisy_labels import early_learning_regularization as module
from latebloom.studies.noisy_labels.early_learning_regularization import ARMS, CLAIMS, PARTS, study

EFFECT = {claim.id: claim.effect for claim in CLAIMS}
NULL = {claim.id: claim.null for claim in CLAIMS}


def seen(**values):
    """One seed; each observable a list over the steps."""
    steps = len(next(iter(values.values())))
    return xr.Dataset(
        {name: (("seed", "step"), [list(v)]) for name, v in values.items()}, {"step": range(steps)}
    )


def ends(**accuracies):
    return {arm: seen(test_accuracy=[0.1, value]) for arm, value in accuracies.items()}


def test_last_and_best_validated_epoch():
    a = seen(test_accuracy=[0.1, 0.8, 0.9, 0.5], valid_accuracy=[0.1, 0.6, 0.4, 0.2])
    b = seen(test_accuracy=[0.1, 0.7, 0.6, 0.6], valid_accuracy=[0.1, 0.2, 0.3, 0.3])
    traces = {"sym-elr": a, "sym-cross-entropy": b, "mild-ce": a}
    assert EFFECT["C1.sym"](traces) == pytest.approx(-0.1)
    # never the best test accuracy (0.9): the epoch that noisy validation labels choose, first of equals
    assert module.chosen(a) == pytest.approx(0.8)
    assert EFFECT["C1.sym-chosen"](traces) == pytest.approx(0.2)
    assert EFFECT["C2.falls"](traces) == pytest.approx(0.3)


def test_rivals_are_the_best_in_the_mean():
    names = {f"sym-{m}": 0.5 + 0.01 * i for i, m in enumerate(module.RIVALS)}
    traces = ends(**names, **{"sym-elr": 0.9, "sym-forward": 0.99})
    assert EFFECT["C1.sym-rivals"](traces) == pytest.approx(0.9 - 0.54)


def test_memorisation_effects():
    trace = seen(
        wrong_right=[0.1, 0.7, 0.2],
        wrong_memorised=[0.1, 0.2, 0.8],
        train_accuracy=[0.1, 0.5, 0.97],
    )
    traces = {arm: trace for arm in (*module.PLAIN, "kl")}
    traces["asym-cross-entropy"] = trace.assign(train_accuracy=0 * trace.train_accuracy + 0.94)
    traces["sym-elr"] = trace.assign(wrong_memorised=0 * trace.wrong_memorised + 0.1)
    assert EFFECT["C2.early"](traces) == pytest.approx(0.7)
    assert EFFECT["C2.ce"](traces) == pytest.approx(0.8)
    assert EFFECT["C0"](traces) == pytest.approx(0.94)
    assert EFFECT["C5.kl"](traces) == pytest.approx(0.7)


def test_main_effects_of_the_parts():
    accuracy = {a: 0.5 + 0.1 * ("w" in a) + 0.2 * ("m" in a) - 0.05 * ("t" in a) for a in PARTS}
    traces = ends(**accuracy)
    for id, part, wanted in (("average", "w", 0.1), ("mixup", "m", 0.2), ("twins", "t", -0.05)):
        assert EFFECT[f"C4.{id}"](traces) == pytest.approx(wanted)
        assert sum(part in arm for arm in PARTS) == 4
    configs = {arm: study.process(ARMS[arm]) for arm in ("plus-", "plus-wmt", "plus-mt")}
    assert all(isinstance(p, EarlyLearningPlus) for p in configs.values())
    flags = {
        arm: (float(p.average) > 0, bool(p.mixup), bool(p.twins)) for arm, p in configs.items()
    }
    assert flags == {
        "plus-": (False, False, False), "plus-wmt": (True, True, True), "plus-mt": (False, True, True),
    }  # fmt: skip


def test_beta_and_lambda():
    arms = dict(zip(module.BETAS.values(), (0.3, 0.7, 0.8, 0.75, 0.6), strict=True))
    traces = ends(**arms)
    assert EFFECT["C5.beta-0"](traces) == pytest.approx(0.5)
    assert NULL["C5.beta-0"](traces) == pytest.approx(0.1)  # the least averaging
    assert EFFECT["C5.beta"](traces) == pytest.approx(0.2)


def test_linear_effects():
    def problem(**values):
        return xr.Dataset(
            {n: (("seed", "step", "problem"), [np.transpose(v)]) for n, v in values.items()},
            {"step": range(4)},
        )

    trace = problem(
        alignment=[[0.0, 0.05, 0.2, 1.0], [0.3, 0.4, 0.5, 0.6]],  # the second stage is over at once
        correlation=[[0.9, 0.5, 0.1, 0.0], [0.9, 0.9, 0.9, 0.9]],
        clean_residual=[[1.0, 0.9, 0.7, 0.1], [1.0, 0.5, 0.4, 0.3]],
        wrong_accuracy=[[0.5, 0.8, 0.95, 0.1], [0.4, 0.6, 0.9, 0.0]],
    )
    traces = {"linear-slow": trace, "linear-ce": trace}
    np.testing.assert_allclose(EFFECT["C6.correlation"](traces), [0.5, np.nan])
    np.testing.assert_allclose(EFFECT["C6.clean"](traces), [-0.3, np.nan], atol=1e-7)
    np.testing.assert_allclose(EFFECT["C6.peak"](traces), [0.95, 0.9])
    np.testing.assert_allclose(EFFECT["C6.end"](traces), [0.1, 0.0])
    never = problem(alignment=[[0.0] * 4], correlation=[[0.9] * 4], clean_residual=[[1.0] * 4])
    assert np.isnan(EFFECT["C6.clean"]({"linear-slow": never})).all()


def test_budgets_and_settings():
    assert {c.id[:2] for c in CLAIMS if c.budget == "thorough"} == {"C4", "C5"}
    assert study.configs("thorough") == ARMS
    assert set(study.configs("full")) == set(ARMS)
    for arm, config in study.configs("full").items():
        assert config.rate_of_step == (
            ARMS[arm].rate_of_step if config.method == "linear" else 0.02
        )
    # both kinds of noise, only the loss differs between the methods of a table
    for kind, base in module.SETTINGS.items():
        for method in module.METHODS:
            own = module.TUNED[method][kind]
            assert ARMS[f"{kind}-{method}"] == replace(base, method=method, **own)
    teaching = study.process(ARMS["sym-co-teaching"])
    assert isinstance(teaching, CoTeaching) and float(teaching.forget) == pytest.approx(
        0.54, abs=1e-3
    )
    cnn = replace(ARMS["sym-elr"], network="cnn", limit=200)
    assert study.process(cnn).data.x_train.shape == (180, 8, 8, 1)
