"""Prompted transformers against their formulas, and what of them learns."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import erf, softmax

from latebloom.core.dataset import Dataset
from latebloom.core.stream import class_incremental
from latebloom.methods.forgetting.continual import Continual
from latebloom.methods.forgetting.head_losses import HeadLoss
from latebloom.methods.forgetting.prompting import Prompting, learns
from latebloom.nn import DualPrompt, PromptPool, ViT
from latebloom.nn.prompts import _check
from latebloom.optim import trained

SIZE, HEADS = 8, 2
VIT = ViT(1, 4, key=jax.random.key(0), patch=2, size=SIZE, heads=HEADS, hidden=6, layers=3)
X = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype(np.float32)


def norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * layer.scale + layer.shift
    )


def affine(x, layer):
    return x @ np.asarray(layer.weight, float) + np.asarray(layer.bias, float)


def encoded(h, prefixes=()):
    """One image's tokens through all blocks; prefixes: {block: (keys, values)}."""
    for i, block in enumerate(VIT.blocks):
        q, k, v = np.split(affine(norm(h, block.norms[0]), block.query_key_value), 3, axis=-1)
        if i in prefixes:
            k, v = (np.concatenate([p, a]) for p, a in zip(prefixes[i], (k, v), strict=True))
        q, k, v = (a.reshape(len(a), HEADS, -1) for a in (q, k, v))
        w = softmax(np.einsum("ihd,jhd->hij", q, k) / np.sqrt(SIZE / HEADS), axis=-1)
        h = h + affine(np.einsum("hij,jhd->ihd", w, v).reshape(len(h), SIZE), block.out)
        up = affine(norm(h, block.norms[1]), block.up)
        h = h + affine(up * (1 + erf(up / np.sqrt(2))) / 2, block.down)
    return norm(h, VIT.norm)


TOKENS = np.asarray(VIT.embedded(jnp.asarray(X)), float)
QUERY = np.stack([encoded(h).mean(0) for h in TOKENS])


def cosine(keys):
    keys = np.asarray(keys, float)
    lengths = np.linalg.norm(QUERY, axis=1)[:, None] * np.linalg.norm(keys, axis=1)
    return QUERY @ keys.T / lengths


@pytest.mark.parametrize("read", ["all", "prompts"])
def test_a_pool_gives_each_image_its_nearest_prompts(read):
    model = PromptPool(VIT, key=jax.random.key(1), pool=4, length=2, top=2, read=read)
    found, near = model(jnp.asarray(X)), cosine(model.keys)
    order = np.argsort(-near, axis=1)[:, :2]
    for i, h in enumerate(TOKENS):
        tokens = np.concatenate([*np.asarray(model.prompts, float)[order[i]], h])
        out = encoded(tokens)
        out = out if read == "all" else out[:4]
        np.testing.assert_allclose(found[i], affine(out.mean(0), VIT.readout), rtol=1e-3, atol=1e-4)
    apart = (1 - np.take_along_axis(near, order, axis=1)).sum(1).mean()
    assert float(model.matching(jnp.asarray(X))) == pytest.approx(apart, rel=1e-4)


@pytest.mark.parametrize("task", [None, 2])
def test_general_and_expert_prompts_are_keys_and_values(task):
    model = DualPrompt(VIT, 3, key=jax.random.key(2), general_length=2, expert_length=3,
                       general=(0, 1), expert=(1, 2))  # fmt: skip
    learner = model if task is None else model.of_task(jnp.int32(task))
    found, near = learner(jnp.asarray(X)), cosine(model.keys)
    which = near.argmax(1) if task is None else np.full(len(X), task)
    general, expert = (np.asarray(p, float) for p in (model.general, model.expert))
    for i, h in enumerate(TOKENS):
        own = expert[which[i]]
        both = [np.concatenate([general[1][j], own[0][j]]) for j in (0, 1)]
        prefixes = {0: general[0], 1: both, 2: own[1]}
        out = affine(encoded(h, prefixes).mean(0), VIT.readout)
        np.testing.assert_allclose(found[i], out, rtol=1e-3, atol=1e-4)
    apart = (1 - near[np.arange(len(X)), which]).mean()
    assert float(learner.matching(jnp.asarray(X))) == pytest.approx(apart, rel=1e-4)


IMAGES = np.random.default_rng(1).normal(size=(60, 4, 4, 1)).astype(np.float32)
LABELS = np.arange(60, dtype=np.int32) % 4
DATA = Dataset(*map(jnp.asarray, (IMAGES[:40], LABELS[:40], IMAGES[40:], LABELS[40:])))


def learner(model, method, where=learns, **more):
    return Continual(
        model=lambda key: model, data=DATA, head="seen", method=method,
        stream=lambda key: class_incremental(LABELS[:40], LABELS[40:], key=key, tasks=2, steps=2, batch_size=6, exam_size=4),
        optimiser=lambda rate: trained(optax.sgd(rate), where), hyper={"rate": 0.1}, **more,
    )  # fmt: skip


def test_only_prompts_keys_and_the_head_learn_and_each_task_has_its_expert():
    model = DualPrompt(VIT, 2, key=jax.random.key(2), general=(0,), expert=(1,))
    process = learner(model, HeadLoss(Prompting(jnp.float32(1.0)), "local_ce"))
    state = process.init(jax.random.key(0))
    step = jax.jit(lambda s: process.step(s))
    state = step(step(state))
    for before, after in ((model.expert, state.model.expert), (model.keys, state.model.keys)):
        assert (after[0] != before[0]).any()
        np.testing.assert_array_equal(after[1], before[1])
    assert (state.model.general != model.general).any() and int(state.model.task) == -1
    assert (state.model.vit.readout.weight != VIT.readout.weight).any()
    rest = lambda m: jax.tree.leaves((m.vit.blocks, m.vit.embedding, m.vit.norm))  # noqa: E731
    for one, other in zip(rest(state.model), rest(model), strict=True):
        np.testing.assert_array_equal(one, other)
    state = step(process.turn(state))
    assert (state.model.expert[1] != model.expert[1]).any()


def with_apply(model):
    """A step where the process scales images that the method would see as they are."""
    process = learner(model, Prompting(), apply=lambda m, x, key, train: m(x / 9 - 1))
    return eqx.filter_eval_shape(process.step, eqx.filter_eval_shape(process.init, jax.random.key(0)))  # fmt: skip


@pytest.mark.parametrize(("make", "said"), [
    (lambda key: PromptPool(VIT, key=key, pool=3, top=4), "top from 1 to pool, not 3, 5, 4"),
    (lambda key: DualPrompt(VIT, 0, key=key), "at least 1, not 0"),
    (lambda key: DualPrompt(VIT, 2, key=key, expert=(3,)), "no block 3: there are 0 to 2"),
    (lambda key: DualPrompt(VIT, 2, key=key, general=(0, 0)), "block 0 is named twice"),
    (lambda key: _check(eqx.nn.Linear(2, 2, key=key)), "a latebloom.nn.ViT: the body cannot be a Linear"),
    (lambda key: with_apply(PromptPool(VIT, key=key)), "Prompting calls the network itself"),
    (lambda key: learner(VIT, Prompting()), "needs a PromptPool or a DualPrompt, not a ViT"),
    (lambda key: learner(DualPrompt(VIT, 1, key=key), Prompting()), "1 experts for 2 tasks"),
    (lambda key: Prompting(float("inf") * 0), "strength of Prompting"),
])  # fmt: skip
def test_bad_settings_are_told(make, said):
    with pytest.raises(ValueError, match=said):
        make(jax.random.key(0))
