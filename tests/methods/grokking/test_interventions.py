"""The cut of the true class's gradient, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom.core.training import Dataset
from latebloom.losses import cross_entropy
from latebloom.methods.grokking.interventions import Interruptible
from latebloom.nn import MLP

LOGITS, LABELS = jnp.array([[1.0, 2, 3], [0.0, 1, -1]]), jnp.array([1, 0])


def process(freeze_at):
    x = jnp.ones((2, 3))
    return Interruptible(
        freeze_at, model=lambda key: MLP(3, (4,), 3, key=key), data=Dataset(x, LABELS, x, LABELS),
        optimiser=optax.sgd, hyper={"learning_rate": 0.1}, loss=cross_entropy,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("freeze_at", "step", "cut"),
    [(3, 2, False), (3, 3, True), (3, 9, True), (-1, 9, False), (0, 0, True)],
)
def test_the_true_class_has_no_gradient_from_the_step_on(freeze_at, step, cut):
    made = process(freeze_at)
    found = np.asarray(jax.grad(lambda z: made.objective(z, LABELS, step))(LOGITS))
    odds = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    wanted = (odds - np.eye(3)[np.asarray(LABELS)]) / 2
    if cut:
        wanted[np.arange(2), np.asarray(LABELS)] = 0
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    # The loss is what it was.
    loss = -np.log(odds[np.arange(2), np.asarray(LABELS)]).mean()
    np.testing.assert_allclose(made.objective(LOGITS, LABELS, step), loss, rtol=1e-5)
