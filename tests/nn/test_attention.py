"""Additive attention by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from latebloom.nn.attention import AdditiveAttention


def test_scores_and_reading_by_hand():
    layer = AdditiveAttention(3, 4, 5, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    memory, query = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 4))
    w1, w2, v = (np.asarray(w, float) for w in (layer.memory.weight, layer.query.weight, layer.v))
    expected = np.einsum("bjs,s->bj", np.tanh(memory @ w1 + (query @ w2)[:, None]), v)
    known = jnp.asarray(memory, jnp.float32)
    prepared = layer.prepared(known)
    scores = layer(prepared, jnp.asarray(query, jnp.float32))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    share = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
    np.testing.assert_allclose(layer.read(scores, known), np.einsum("bj,bjm->bm", share, memory), atol=1e-5)  # fmt: skip


def test_masked_memories_have_no_share_and_no_slope():
    layer = AdditiveAttention(3, 4, 5, key=jax.random.key(0))
    memory, query = jax.random.normal(jax.random.key(1), (6, 3)), jnp.ones(4)
    mask = jnp.array([True, True, False, True, False, False])

    def loss(memory):
        return layer.read(layer(layer.prepared(memory), query, mask), memory).sum()

    slopes = jax.grad(loss)(memory)
    assert np.isfinite(slopes).all()
    assert (np.abs(slopes).sum(1) > 0).tolist() == mask.tolist()
    alone = memory[jnp.array([0, 1, 3])]
    seen = layer.read(layer(layer.prepared(alone), query), alone).sum()
    np.testing.assert_allclose(loss(memory), seen, rtol=1e-5)
    assert layer(layer.prepared(memory), query, mask)[2] == -jnp.inf
