"""A stream of three tasks of two classes, a network of two layers, and its gradients by hand in NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from latebloom.core.dataset import Dataset
from latebloom.core.stream import Exams, Stream
from latebloom.methods.forgetting.continual import Continual
from latebloom.nn import MLP

CLASSES, FEATURES, BATCH, RATE = 6, 6, 5, 0.4
STEPS = (3, 4, 3)
rng = np.random.default_rng(0)
Y = np.arange(60, dtype=np.int32) % CLASSES
X = (rng.normal(size=(60, FEATURES)) + 1.5 * np.eye(CLASSES)[Y]).astype(np.float32)
DATA = Dataset(jnp.asarray(X[:42]), jnp.asarray(Y[:42]), jnp.asarray(X[42:]), jnp.asarray(Y[42:]))
ALL = np.ones(CLASSES, bool)


def network(key):
    return MLP(FEATURES, (5,), CLASSES, key=key, activation="tanh")


def sgd(rate):
    return optax.sgd(rate)


ORDER = np.array([[3, 1], [0, 5], [2, 4]])  # the classes of each task
TASK = np.repeat(np.arange(3), STEPS)
ROWS = np.stack([
    rng.choice(np.flatnonzero(np.isin(Y[:42], ORDER[task])), BATCH, replace=False) for task in TASK
])  # fmt: skip
EXAMS = np.stack([np.flatnonzero(np.isin(Y[42:], classes)) for classes in ORDER])
STREAM = Stream(
    rows=jnp.asarray(ROWS, jnp.int32), task=jnp.asarray(TASK, jnp.int32),
    classes=jnp.asarray(np.eye(CLASSES, dtype=bool)[ORDER].any(axis=1)),
    exams=Exams(jnp.asarray(EXAMS, jnp.int32), jnp.arange(3), jnp.array([0, 3, 7])), starts=(0, 3, 7),
)  # fmt: skip


def stream(key):
    return STREAM


def continual(method, **more):
    settings = {
        "model": network, "data": DATA, "stream": stream, "optimiser": sgd, "hyper": {"rate": RATE},
        "method": method,
    }  # fmt: skip
    return Continual(**(settings | more))


def walk(process, seed=0, steps=10):
    """The states of a run: (what was done, state before, state after, what the step told)."""
    init, step, turn = (
        eqx.filter_jit(f) for f in (type(process).init, type(process).step, type(process).turn)
    )
    state, found = init(process, jax.random.key(seed)), []
    for i in range(steps):
        after = step(process, state)
        told = {}
        if not isinstance(after, type(state)):
            after, told = after
        found.append(("step", state, after, told))
        state = after
        if i + 1 in process.turns():
            after = turn(process, state)
            found.append(("turn", state, after, {}))
            state = after
    return found


def arrays(model):
    """Weights and biases in double precision."""
    (a, b), (c, d) = ((layer.weight, layer.bias) for layer in model.layers)
    return [np.asarray(p, float) for p in (a, b, c, d)]


def logits(params, x):
    a, b, c, d = params
    return np.tanh(x @ a + b) @ c + d


def pull(params, x, slope):
    """Gradients of the parameters, given those of the logits."""
    a, b, c, _ = params
    h = np.tanh(x @ a + b)
    inner = slope @ c.T * (1 - h**2)
    return [x.T @ inner, inner.sum(0), h.T @ slope, slope.sum(0)]


def softmax(z, allowed=None):
    z = z if allowed is None else np.where(allowed, z, -np.inf)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def entropy(params, x, y, allowed=ALL):
    """Mean cross-entropy among some classes, and its gradients."""
    if not len(y):
        return 0.0, [np.zeros_like(p) for p in params]
    allowed = np.broadcast_to(allowed, (len(y), CLASSES)) | (np.arange(CLASSES) == y[:, None])
    p = softmax(logits(params, x), allowed)
    target = np.eye(CLASSES)[y]
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    return loss, pull(params, x, (p - target) / len(y))


def batch(state):
    """Inputs and labels of the step that comes."""
    rows = np.asarray(state.stream.rows[state.step])
    return X[rows].astype(float), Y[rows]


def held(memory):
    """Rows and tasks in memory, in the order in which they came."""
    there = np.asarray(memory.filled)
    order = np.argsort(np.asarray(memory.time)[there])
    return tuple(np.asarray(a)[there][order] for a in (memory.items.rows, memory.items.task))


def remembered(memory):
    """Inputs and labels in memory."""
    rows, _ = held(memory)
    return X[rows].astype(float), Y[rows]


def task(state):
    return int(state.stream.task[state.step])


def seen(state):
    """Classes up to the task of the step that comes."""
    return np.asarray(state.stream.seen[task(state)])


def plus(*trees):
    return [sum(parts) for parts in zip(*trees, strict=True)]


def times(a, tree):
    return [a * x for x in tree]


def flat(tree):
    return np.concatenate([np.ravel(x) for x in tree])


def leaves(tree):
    """A tree like the parameters as a list, in the order of `arrays`."""
    return [np.asarray(x, float) for x in jax.tree.leaves(tree)]


def check_step(before, after, gradient, rtol=2e-5, atol=2e-6):
    """The step went down that gradient."""
    moved = plus(arrays(before.model), times(-1, arrays(after.model)))
    np.testing.assert_allclose(flat(moved), RATE * flat(gradient), rtol=rtol, atol=atol)
