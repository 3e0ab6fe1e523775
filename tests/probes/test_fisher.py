"""The Fisher diagonal against gradients of each example, or batch, by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.losses import cross_entropy
from latebloom.nn import Linear
from latebloom.probes.fisher import fisher_diagonal

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 4, 5)).astype(np.float32)
Y = rng.integers(0, 3, (3, 4)).astype(np.int32)


def losses(model, batch):
    x, y = batch
    return cross_entropy(model(x), y)


def gradients(model, x, y):
    """Of the mean loss of a batch: of the weight [5, 3], of the bias [3]."""
    z = x @ np.asarray(model.weight, float) + np.asarray(model.bias, float)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    slope = (p - np.eye(3)[y]) / len(y)
    return x.T @ slope, slope.sum(0)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1), ("float16", 0.01)]
)
@pytest.mark.parametrize("how", ["example", "batch"])
def test_mean_squares(how, dtype, tolerance):
    # Gradients of about 1e-4, whose squares half precision takes for nothing.
    scale = 1e-4
    model = Linear(5, 3, key=jax.random.key(0), dtype=jnp.dtype(dtype))
    x = jnp.asarray(X * scale, dtype)
    found = fisher_diagonal(losses, model, (x, jnp.asarray(Y)), how)
    exact = np.asarray(x, float)
    if how == "example":
        parts = [gradients(model, a[None], b[None]) for a, b in zip(exact.reshape(12, 5), Y.ravel(), strict=True)]  # fmt: skip
    else:
        parts = [gradients(model, a, b) for a, b in zip(exact, Y, strict=True)]
    for leaf, of in ((found.weight, 0), (found.bias, 1)):
        assert leaf.dtype == jnp.float32
        expected = np.mean([part[of] ** 2 for part in parts], axis=0)
        np.testing.assert_allclose(leaf, expected, rtol=tolerance, atol=tolerance * expected.max())


def test_another_way_is_refused():
    with pytest.raises(ValueError, match="how must be 'example' or 'batch', not 'examples'"):
        fisher_diagonal(losses, Linear(5, 3, key=jax.random.key(0)), (X, Y), "examples")  # pyright: ignore
