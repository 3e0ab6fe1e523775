"""The study at smoke, what its arms are made of, and its own effects on traces worked by hand."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.studies.grokking import grokking_numerical_stability as module
from latebloom.studies.grokking.grokking_numerical_stability import ARMS, CLAIMS, Config, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def trace(steps=(0, 10, 100, 1000), freeze=-1, **observables):
    """Observables [seed, step], and the cosine of three tensors if given as `cosine`."""
    cosine = observables.pop("cosine", None)
    variables = {n: (("seed", "step"), np.array(v, float)) for n, v in observables.items()}
    if cosine is not None:  # the head's; the others are at 9
        three = np.stack([np.full_like(cosine, 9.0), np.array(cosine, float)], axis=2)
        variables["logit_scaling"] = (("seed", "step", "tensor"), np.insert(three, 2, 9.0, axis=2))
    seeds = len(next(iter(variables.values()))[1])
    coords = {"seed": np.arange(seeds), "step": np.array(steps)}
    if cosine is not None:
        coords["tensor"] = ["layers[0].weight", "layers[1].weight", "layers[1].bias"]
    attrs = {"config": json.dumps({"freeze_true_class_at": freeze})}
    return xr.Dataset(variables, coords, attrs)


def test_learning_that_stops_with_collapse_is_told_from_learning_that_goes_on():
    softmax = trace(
        collapsed_fraction=[[0, 0, 0.3, 0.3]] * 2, test_accuracy=[[0, 0.1, 0.2, 0.21]] * 2
    )
    stablemax = trace(collapsed_fraction=[[0] * 4] * 2, test_accuracy=[[0, 0, 0.25, 0.75]] * 2)
    traces = {"softmax-f32": softmax, "stablemax": stablemax}
    stops = BY_ID["C1.stops"]
    np.testing.assert_allclose(stops.effect(traces), 0.01)
    np.testing.assert_allclose(stops.null(traces), 0.5)
    never = traces | {"softmax-f32": stablemax}
    assert np.isnan(stops.effect(never)).all()  # without collapse there is nothing to say


def test_onsets_and_stops_correlate_over_precisions():
    def arm(onset, stop):
        steps = np.array([0, 10, 100, 1000])
        return trace(collapsed_fraction=[steps >= onset], test_accuracy=[steps >= stop])

    assert module.stop(arm(10, 100)) == [100]
    wobbling = trace(test_accuracy=[[0, 0.5, 0.3, 0.505]])
    assert module.stop(wobbling) == [10]  # within a point of the best so far
    effect = BY_ID["C1.onset"].effect
    together = [arm(10, 10), arm(100, 100), arm(1000, 1000)]
    against = [arm(10, 1000), arm(100, 100), arm(1000, 10)]
    np.testing.assert_allclose(effect(dict(zip(module.SOFTMAX, together, strict=True))), 1)
    np.testing.assert_allclose(
        effect(dict(zip(module.SOFTMAX, against, strict=True))), -1, atol=1e-3
    )


def test_alignment_is_of_the_output_weights_before_and_after_fitting():
    found = trace(train_accuracy=[[0, 0.5, 1, 1]], cosine=[[0.1, 0.3, 0.7, 0.6]])
    np.testing.assert_allclose(module.aligned_before(found), 0.2)
    np.testing.assert_allclose(module.aligned_after(found), 0.7)
    traces = {"softmax-f64": found}
    np.testing.assert_allclose(BY_ID["C3.rise"].effect(traces), 3.5)
    np.testing.assert_allclose(BY_ID["C3.level"].null(traces), 0.1)


def test_a_cut_is_judged_from_its_own_step():
    cut = trace(freeze=100, test_accuracy=[[0, 0.1, 0.5, 0.2]])
    whole = trace(test_accuracy=[[0, 0.1, 0.5, 0.75]])
    np.testing.assert_allclose(module.change_after_freezing(cut), 0.3)
    traces = {"frozen-true-class": cut, "stablemax": whole}
    np.testing.assert_allclose(module.rise_without_freezing(traces), 0.25)


def test_the_true_class_has_no_gradient_from_the_step_of_the_cut():
    process = module.make_process(dataclasses.replace(Config(p=5, width=8), freeze_true_class_at=3))
    logits, labels = jnp.array([[1.0, 2, 3, 4, 5]]), jnp.array([1])

    def gradient(step):
        return np.asarray(jax.grad(lambda z: process.objective(z, labels, step))(logits))[0]

    assert gradient(2)[1] < 0 and gradient(3)[1] == 0
    np.testing.assert_array_equal(np.delete(gradient(2), 1), np.delete(gradient(3), 1))


@pytest.mark.parametrize("perp, update", [
    ("no", [[-3.0, -1.0], [-2.0, 0.0]]), ("unscaled", [[0.0, -1.0], [0.0, 0.0]]),
    ("tensor", [[0.0, -np.sqrt(10)], None]), ("network", None),
])  # fmt: skip
def test_perp_takes_away_what_lies_along_the_weights(perp, update):
    weights = {"a": jnp.array([2.0, 0.0]), "b": jnp.array([5.0, 0.0])}
    gradients = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([2.0, 0.0])}
    optimiser = module.sgd(perp, 1.0, 0.0, 0.0)
    found, _ = optimiser.update(gradients, optimiser.init(weights), weights)
    if perp == "network":  # as one vector: nothing along (2, 0, 5, 0), the norm as before
        whole = np.concatenate([found["a"], found["b"]])
        np.testing.assert_allclose(whole @ [2, 0, 5, 0], 0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(whole), np.sqrt(14), rtol=1e-5)
        return
    for name, wanted in zip("ab", update, strict=True):
        if wanted is not None:
            np.testing.assert_allclose(found[name], wanted, atol=1e-5)


def test_losses_are_compared_at_the_same_settings():
    for softmax, stablemax in (("softmax-f32", "stablemax-fig2"), ("softmax-fig4", "stablemax")):
        for budget in ("quick", "thorough", "full"):
            configs = study.configs(budget)
            assert dataclasses.replace(configs[softmax], loss="stablemax") == configs[stablemax]


def test_budgets():
    assert {c.id for c in CLAIMS if c.budget == "full"} == {
        "C1.40", "C3.bias", "C4.transformer", "C4.transformer-plain",
    }  # fmt: skip
    assert set(study.configs("quick")) == {
        "perp-adamw", "adamw", "stablemax", "stablemax-fig2", "softmax-f32", "softmax-f64",
        "softmax-fig4",
    }  # fmt: skip
    assert study.configs("full") == ARMS


def test_study_turns_at_smoke(store_folder):
    done = run(study, "smoke", store=Store(store_folder))
    verdicts = {v.claim: v.verdict for v in done.verdicts}
    # Twenty steps of a tiny network teach nothing.
    assert verdicts["C4.transformer-plain"] == "out of reach"
    every = {arm: done.traces["perp-adamw"] for arm in ARMS}
    for figure in study.figures:
        assert len(style.png(figure.draw(every))) > 10_000
