"""What the arms are made of, and effects on traces worked by hand."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from latebloom.core.dataset import Dataset
from latebloom.data import glyph_images
from latebloom.methods.forgetting.class_means import NearestClassMean
from latebloom.methods.forgetting.head_losses import HeadLoss, Together
from latebloom.methods.forgetting.penalties import EWC, L2
from latebloom.studies.forgetting import rehearsal_free as module
from latebloom.studies.forgetting.rehearsal_free import ARMS, CLAIMS, Config, study

BY_ID = {claim.id: claim for claim in CLAIMS}
NAN = np.nan


def trace(first, last, told_first=0.9, told_last=0.8):
    """Two seeds, two tasks: accuracy on the first when it is over [seed], and of both at the end [seed, task]."""
    values, told = np.full((2, 3, 2), NAN), np.full((2, 3, 2), NAN)
    values[:, 1, 0], values[:, 2] = first, last
    told[:, 1, 0], told[:, 2] = told_first, told_last
    dims = ("seed", "step", "task")
    return xr.Dataset(
        {"accuracy": (dims, values), "task_accuracy": (dims, told), "learning": (("seed", "step"), [[0, 0, 1]] * 2)},
        {"step": [0, 3, 6], "seed": [0, 1], "task": [0, 1],
         "diverged_at": ("seed", np.where(np.isnan(values[:, 2, 0]), 3.0, NAN))}, {"config": json.dumps({})},
    )  # fmt: skip


def test_forgetting_among_all_classes_and_among_the_tasks_own():
    one = trace([0.9, 0.8], [[0.2, 0.9], [0.3, 0.9]], [0.9, 0.9], [[0.7, 0.9], [0.8, 0.95]])
    assert module.lost(one) == pytest.approx([70, 50])
    assert module.lost_told(one) == pytest.approx([20, 10])
    assert module.learned(one) == pytest.approx([90, 92.5])
    assert module.so_far(one).values[:, 1:] == pytest.approx(np.array([[90, 55], [80, 60]]))


def test_fine_tuning_has_the_loss_that_is_best_on_the_other_seeds_and_its_null_moves_less():
    flat = lambda a, b: trace([0.9] * 2, [[a, a], [b, b]])  # noqa: E731
    traces = {
        "scratch/base/ce": flat(0.2, 0.2), "scratch/base/bce": flat(0.1, 0.4), "scratch/base/local_ce": flat(0.3, 0.3),
        "scratch/l2": flat(0.5, 0.6), "scratch/slow/base": flat(0.3, 0.4), "scratch/predkd": flat(0.4, 0.4),
        "scratch/predkd+l2": flat(0.7, NAN), "scratch/slow/predkd": flat(0.45, 0.5),
    }  # fmt: skip
    # On the second seed sigmoids are best, on the first the own softmax.
    assert BY_ID["C1.l2.scratch"].effect(traces) == pytest.approx([50 - 10, 60 - 30])
    assert BY_ID["C1.l2.scratch"].null(traces) == pytest.approx([20, 10])
    assert BY_ID["C1.with.l2.scratch"].effect(traces) == pytest.approx([30, NAN], nan_ok=True)
    assert BY_ID["C1.with.l2.scratch"].null(traces) == pytest.approx([5, 10])
    assert BY_ID["C1.slow.l2.scratch"].effect(traces) == pytest.approx([20, 20])
    assert BY_ID["C1.with.slow.l2.scratch"].effect(traces) == pytest.approx([25, NAN], nan_ok=True)


def test_the_reversal_is_a_difference_of_differences():
    level = {"pretrained/l2": 0.6, "pretrained/ewc": 0.5, "scratch/l2": 0.3, "scratch/ewc": 0.35}
    traces = {arm: trace([0.9] * 2, [[v, v]] * 2) for arm, v in level.items()}
    assert BY_ID["C2.reversal"].effect(traces) == pytest.approx([15, 15])
    assert BY_ID["C2.scratch"].effect(traces) == pytest.approx([5, 5])


def test_no_null_is_zero_by_construction():
    """Where arms that are one program have one score, no null is the difference of two of them."""
    configs = dict.fromkeys(ARMS.values())
    scores = {config: 0.1 + 0.7 * (n * 0.618034 % 1) for n, config in enumerate(configs)}
    traces = {
        arm: trace([0.9 - score] * 2, [[score] * 2] * 2, told_last=0.5 + score / 9)
        for arm, config in ARMS.items()
        for score in (scores[config],)
    }
    for claim in CLAIMS:
        if claim.null is not None:
            assert np.abs(claim.null(traces)).min() > 1e-6, claim.id


def test_arms_are_what_they_say():
    methods = {arm: module.method_of(config) for arm, config in ARMS.items()}
    for regime in module.REGIMES:
        l2, ewc = (methods[f"{regime}/{name}"] for name in ("l2", "ewc"))
        assert (
            isinstance(l2, HeadLoss) and l2.loss in ("local_ce", "bce") and l2.host.rows == "free"
        )
        assert (
            isinstance(l2.host, L2)
            and isinstance(ewc.host, EWC)
            and ewc.host.head is module.readout
        )
        both = methods[f"{regime}/predkd+ewc"].host
        assert isinstance(both, Together) and isinstance(both.parts[1], EWC)
        distil = methods[f"{regime}/predkd"]
        assert (distil.loss, distil.host.over) in (("local_ce", "seen"), ("local_bce", "each"))
        off = ARMS[f"{regime}/off/l2"]
        assert (off.rate, off.loss, off.method) == (
            ARMS[f"{regime}/l2"].rate,
            ARMS[f"{regime}/l2"].loss,
            "base",
        )
        for name, of in (("slow/base", "base/local_ce"), ("slow/predkd", "predkd/{}")):
            slow = ARMS[f"{regime}/{name}"]
            whole = module.tuned(regime, of.format(slow.loss))
            assert slow.body < 1 and (slow.one, slow.method) == (whole.one, whole.method)
    assert all(ARMS[arm].fresh for arm in ARMS if arm != "carried")
    assert isinstance(methods["mismatched"], module.Mismatched)
    assert (
        methods["ce-rows"].host.rows == "old"
        and methods["ce-free"].host.rows == "free"
        and ARMS["fixed"].statistics == "fixed"
    )
    assert isinstance(methods["vit/ncm"].host, NearestClassMean)
    assert {ARMS[f"vit/{n}"].learns for n in ("l2", "attention")} == {"attention"}


def test_a_slow_body_moves_by_its_share_of_the_heads_rate():
    """Adam's first update is as long as its rate, whatever the gradient."""
    sizes = {"classes": 4, "tasks": 2, "steps": 2, "batch": 4, "exam": 4, "rate": 0.01}
    process = module.make_process(Config(body=0.1, **sizes))
    before = process.init(jax.random.key(0))
    after = eqx.filter_jit(process.step)(before)
    after = getattr(after, "state", after)
    moved = [
        np.abs(np.asarray(a) - np.asarray(b))[np.asarray(a) != np.asarray(b)].max()
        for of in (lambda m: m.readout.weight, lambda m: m.layers[0].weight, lambda m: m.layers[2].bias)
        for a, b in [(of(after.model), of(before.model))]
    ]  # fmt: skip
    np.testing.assert_allclose(moved, [0.01, 0.001, 0.001], rtol=1e-3)
    assert set(module.make_process(Config(**sizes)).hyper) == {"rate"}
    with pytest.raises(ValueError, match="learns='all', not 'head'"):
        module.make_process(Config(body=0.1, learns="head", **sizes))


def test_pre_trained_bodies_have_seen_no_class_of_the_stream():
    glyphs = module.images("glyphs")
    other = glyph_images([200], 1, 1, seed=0, size=module.SIDE)
    assert not any((glyphs.x_train[..., 0] == other.x_train[0] / 255).all(axis=(1, 2)))
    model = [module._network(Config(pretrained=True), 50, jax.random.key(k)) for k in range(6)]
    bodies = {float(jnp.abs(m.layers[0].weight).sum()) for m in model}
    assert 1 < len(bodies) <= 3
    assert len({float(jnp.abs(m.readout.weight).sum()) for m in model}) == 6


def test_a_mismatched_fisher_matrix_is_that_of_softmax_over_all_seen():
    """Of the second task: there the classes that compete differ."""
    sizes = {"classes": 4, "tasks": 2, "steps": 2, "batch": 4, "exam": 4, "loss": "local_ce"}
    found = {}
    for method, loss in (("ewc", "local_ce"), ("mismatched", "local_ce"), ("ewc", "ce")):
        process = module.make_process(Config(method, **(sizes | {"loss": loss})))
        state = process.init(jax.random.key(0))
        own = eqx.filter_jit(process.turn)(state._replace(step=jnp.int32(4))).own.host
        found[method, loss] = np.asarray(own.importance.layers[0].weight)
    np.testing.assert_allclose(found["mismatched", "local_ce"], found["ewc", "ce"], rtol=1e-5)
    assert np.abs(found["ewc", "local_ce"] - found["ewc", "ce"]).max() > 1e-6


@pytest.mark.parametrize("budget", ["quick", "thorough", "full"])
def test_budgets_know_their_arms(budget):
    configs = study.configs(budget)
    assert "vit/dual" in configs and ("carried" in configs) == (budget != "quick")


def test_the_papers_scale_can_be_traced(monkeypatch):
    x = np.zeros((1000, 16, 16, 1), np.float32)
    y = (np.arange(1000) % 100).astype(np.int32)
    big, small = (
        Dataset(x, y, np.tile(x, (3, 1, 1, 1)), np.tile(y, 3)),
        Dataset(x, y % 10, x, y % 10),
    )
    monkeypatch.setattr(module, "images", lambda name, classes=10: small if classes == 10 else big)
    configs = study.configs("full")
    for arm in ("pretrained/predkd+l2", "vit/dual", "mnist/l2"):
        process = module.make_process(configs[arm])
        state = eqx.filter_eval_shape(process.init, jax.random.key(0))
        assert state.stream.rows.shape == (configs[arm].tasks * 940, 128)
        eqx.filter_eval_shape(process.step, state)
        assert module.schedule(configs[arm])[-1] == configs[arm].tasks * 940
