"""The masked language model against a plain NumPy one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

from latebloom.nn.masked_lm import MaskedLM


def built(**more) -> MaskedLM:
    sizes = {"size": 8, "heads": 2, "hidden": 12, "layers": 2, "dropout": 0.3, "spread": 0.3}
    return MaskedLM(11, 6, key=jax.random.key(0), **sizes | more)


def by_hand(model: MaskedLM, tokens: np.ndarray) -> np.ndarray:
    """One sequence [n] -> logits [n, vocabulary], in double precision."""
    f = lambda x: np.asarray(x, np.float64)  # noqa: E731

    def norm(x, of):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * f(of.scale) + f(of.shift)  # fmt: skip

    def affine(x, of):
        return x @ f(of.weight) + f(of.bias)

    def gelu(x):
        return x * (1 + erf(x / np.sqrt(2))) / 2

    h = norm(f(model.embedding)[tokens] + f(model.position)[: len(tokens)], model.norm)
    for block in model.blocks:
        parts = affine(h, block.query_key_value).reshape(len(tokens), 3, 2, 4)
        heads = []
        for head in range(2):
            q, k, v = (parts[:, i, head] for i in range(3))
            heads.append(softmax(q @ k.T / 2.0, axis=-1) @ v)  # the root of 4
        h = norm(h + affine(np.concatenate(heads, axis=1), block.out), block.norms[0])
        h = norm(h + affine(gelu(affine(h, block.up)), block.down), block.norms[1])
    h = norm(gelu(affine(h, model.dense)), model.dense_norm)
    return h @ f(model.embedding if model.output is None else model.output).T + f(model.bias)


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_textbook_encoder(tied):
    model = built(tied=tied)
    tokens = np.array([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
    found = model(jnp.asarray(tokens))
    assert np.allclose(found, [by_hand(model, t) for t in tokens], atol=2e-5)
    some = model(jnp.asarray(tokens), at=slice(4, 6))
    assert np.allclose(some, found[:, 4:], atol=1e-6)


def test_it_starts_as_bert_does():
    model = MaskedLM(300, 6, key=jax.random.key(1), layers=2)
    block = model.blocks[1]
    for weight in (model.embedding, block.query_key_value.weight, block.out.weight, block.down.weight, model.dense.weight):  # fmt: skip
        assert np.std(weight) == pytest.approx(0.02, rel=0.05)
    assert not block.up.bias.any() and not model.bias.any()
    weights = [np.ravel(w.weight)[:4096] for w in (block.query_key_value, model.blocks[0].query_key_value)]  # fmt: skip
    assert abs(np.corrcoef(weights)[0, 1]) < 0.05


def test_dropout_is_of_training_alone():
    model, tokens = built(), jnp.array([[1, 2, 3]])
    key = jax.random.key(2)
    assert np.array_equal(model(tokens, key=key), model(tokens))
    assert not np.allclose(model(tokens, key=key, train=True), model(tokens))
    assert np.array_equal(built(dropout=0.0)(tokens, key=key, train=True), built(dropout=0.0)(tokens))  # fmt: skip


def test_heads_have_to_share_the_size():
    with pytest.raises(ValueError, match="multiple of heads"):
        built(heads=3)
