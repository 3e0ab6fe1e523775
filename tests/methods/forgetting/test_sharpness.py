"""What is watched at exams against NumPy: accuracy told the task, flatness of all tasks so far."""

import equinox as eqx
import jax
import numpy as np
import pytest
from small_world import (
    CLASSES,
    DATA,
    EXAMS,
    ORDER,
    RATE,
    ROWS,
    X,
    Y,
    arrays,
    entropy,
    flat,
    logits,
    network,
    pull,
    sgd,
    softmax,
    stream,
)

from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.sharpness import Watched

SETTINGS = {
    "model": network, "data": DATA, "stream": stream, "method": Method(), "optimiser": sgd, "hyper": {"rate": RATE},
}  # fmt: skip


def hessian(params, x, y, h=1e-4):
    """By differences of NumPy's gradients."""
    shapes, v = [p.shape for p in params], flat(params)

    def slope(v):
        ends = np.cumsum([int(np.prod(s)) for s in shapes])[:-1]
        parts = [p.reshape(s) for p, s in zip(np.split(v, ends), shapes, strict=True)]
        p = softmax(logits(parts, x))
        return flat(pull(parts, x, (p - np.eye(CLASSES)[y]) / len(y)))

    return np.stack([(slope(v + h * e) - slope(v - h * e)) / (2 * h) for e in np.eye(len(v))])


def test_accuracies_told_the_task_and_flatness():
    process = Watched(**SETTINGS, looks=2, iterations=40)
    step, look = (eqx.filter_jit(f) for f in (Watched.step, Watched.observe))
    state = process.init(jax.random.key(0))
    assert np.isnan(look(process, state)["eigenvalue"])
    for _ in range(4):  # three on the first task, one on the second
        state = step(process, state)
    found = look(process, state)
    params = arrays(state.model)
    for task in range(2):
        z = logits(params, X[42:][EXAMS[task]])
        chosen = np.sort(ORDER[task])[z[:, np.sort(ORDER[task])].argmax(axis=1)]
        told = (chosen == Y[42:][EXAMS[task]]).mean()
        assert float(found["task_accuracy"][task]) == pytest.approx(told)
    assert np.isnan(found["task_accuracy"][2])
    rows = ROWS[[0, 1, 3]].ravel()  # of two batches a task those that came
    x, y = X[rows].astype(float), Y[rows]
    g = flat(entropy(params, x, y)[1])
    each = [flat(entropy(params, x[i : i + 1], y[i : i + 1])[1]) ** 2 for i in range(len(rows))]
    fisher = np.mean(each, axis=0)
    expected = np.sqrt((g**2 / (fisher + fisher.mean())).sum())
    assert float(found["fisher_norm"]) == pytest.approx(expected, rel=1e-3)
    top = np.linalg.eigvalsh(hessian(params, x, y))[-1]
    assert float(found["eigenvalue"]) == pytest.approx(top, rel=1e-2)


def test_looking_changes_nothing_and_is_refused_without_batches():
    plain = Watched(**SETTINGS, flat=False)
    state = eqx.filter_jit(Watched.init)(plain, jax.random.key(0))
    shapes = eqx.filter_eval_shape(Watched.observe, plain, state)
    assert set(shapes) == {"accuracy", "learning", "task_accuracy"}
    with pytest.raises(ValueError, match="looks"):
        Watched(**SETTINGS, looks=0)
