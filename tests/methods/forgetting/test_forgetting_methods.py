"""Each method's steps over task borders against its formula in NumPy, from the process' own states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls
from small_world import (
    ALL,
    CLASSES,
    RATE,
    ROWS,
    X,
    Y,
    arrays,
    batch,
    check_step,
    continual,
    entropy,
    flat,
    held,
    leaves,
    logits,
    plus,
    pull,
    remembered,
    seen,
    softmax,
    task,
    times,
    walk,
)

from latebloom.core.memory import Policy
from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.distillation import LwF, divergence, proper_divergence
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.penalties import EWC, L2, SI
from latebloom.methods.forgetting.projections import AGEM, GEM, project
from latebloom.methods.forgetting.replay import DER, ER, ERACE, SCR, supervised_contrast, unit

EVERYTHING = Replay(6, 6)  # what is drawn is all that is remembered


def steps(walked):
    return [(before, after) for what, before, after, _ in walked if what == "step"]


def turns(walked):
    return [(before, after) for what, before, after, _ in walked if what == "turn"]


def test_fine_tuning_goes_down_the_loss_of_the_batch():
    for before, after in steps(walk(continual(Method()))):
        check_step(before, after, entropy(arrays(before.model), *batch(before))[1])


def test_replay_weighs_new_and_old():
    for i, (before, after) in enumerate(steps(walk(continual(ER(0.3), replay=EVERYTHING)))):
        params, old = arrays(before.model), remembered(before.memory)
        assert len(old[1]) == min(6, 5 * i)
        new = times(0.3, entropy(params, *batch(before))[1])  # the first step's too
        check_step(before, after, plus(new, times(0.7, entropy(params, *old)[1])))


def test_asymmetric_replay():
    for before, after in steps(walk(continual(ERACE(), replay=EVERYTHING))):
        params, (x, y) = arrays(before.model), batch(before)
        here = np.isin(np.arange(CLASSES), y)
        among = ALL if task(before) == 0 else here | ~seen(before)
        new = entropy(params, x, y, among)[1]
        check_step(before, after, plus(new, entropy(params, *remembered(before.memory))[1]))


@pytest.mark.parametrize("beta", [0.0, 0.6], ids=["DER", "DER++"])
def test_dark_replay(beta):
    method = DER(jnp.float32(0.8), jnp.float32(beta))
    for before, after in steps(walk(continual(method, replay=EVERYTHING))):
        params, (x, y), memory = arrays(before.model), batch(before), before.memory
        there = np.asarray(memory.filled)
        gradient = entropy(params, x, y)[1]
        if there.any():
            old_x, old_y = (a[np.asarray(memory.items.rows)[there]] for a in (X, Y))
            was = np.asarray(memory.items.extra, float)[there]
            slope = 0.8 * 2 * (logits(params, old_x) - was) / was.size
            gradient = plus(gradient, pull(params, old_x.astype(float), slope))
            gradient = plus(gradient, times(beta, entropy(params, old_x.astype(float), old_y)[1]))
        check_step(before, after, gradient)
        came = np.asarray(after.memory.time) >= 5 * int(before.step)
        came &= np.asarray(after.memory.filled)
        rows = np.asarray(after.memory.items.rows)[came]
        np.testing.assert_allclose(
            np.asarray(after.memory.items.extra)[came], logits(params, X[rows]), atol=2e-6
        )


def test_averaged_projection():
    turned = []
    for before, after in steps(walk(continual(AGEM(), replay=EVERYTHING))):
        params = arrays(before.model)
        g = entropy(params, *batch(before))[1]
        r = entropy(params, *remembered(before.memory))[1]
        along = flat(g) @ flat(r)
        turned.append(along < 0)
        if along < 0:
            g = plus(g, times(-along / (flat(r) @ flat(r)), r))
            moved = flat(arrays(after.model)) - flat(params)
            assert abs(moved @ flat(r)) < 1e-5 * np.linalg.norm(moved) * np.linalg.norm(flat(r))
        check_step(before, after, g)
    assert any(turned) and not all(turned)


def multipliers(products, along, margin, ridge=1e-3):
    """GEM's quadratic programme by non-negative least squares, in double precision."""
    if not (along < 0).any():
        return np.zeros(len(along))
    matrix = products + ridge * np.eye(len(along))
    root, floor = np.linalg.cholesky(matrix), np.full(len(along), margin)
    return floor + nnls(root.T, -np.linalg.solve(root, along + matrix @ floor))[0]


def test_projection_by_tasks():
    replay = Replay(12, 6, policy=Policy("task", "first", 4), at="task")
    turned = 0
    walked = walk(continual(GEM(3, 4, jnp.float32(0.1)), replay=replay))
    for before, after in steps(walked):
        params, (rows, tasks) = arrays(before.model), held(before.memory)
        g = entropy(params, *batch(before))[1]
        if task(before):
            past = [rows[tasks == k] for k in range(task(before))]
            for k, of in enumerate(past):  # the first of its stream, each once
                came = ROWS[{0: slice(0, 3), 1: slice(3, 7)}[k]].ravel()
                assert of.tolist() == list(dict.fromkeys(came.tolist()))[:4]
            old = [flat(entropy(params, X[of].astype(float), Y[of])[1]) for of in past]
            rows = np.stack(old)
            v = multipliers(rows @ rows.T, rows @ flat(g), 0.1)
            turned += v.any()
            expected = flat(g) + v @ rows
            moved = flat(params) - flat(arrays(after.model))
            np.testing.assert_allclose(moved, RATE * expected, rtol=1e-3, atol=5e-6)
        else:
            check_step(before, after, g)
    assert turned


CASES = {  # tasks, parameters, length of a gradient's entries, how far tasks are apart
    "few parameters": (8, 5, 1.0, None),
    "many": (20, 60, 1.0, None),
    "alike": (10, 50, 10.0, 1e-2),
    "the same": (10, 50, 1.0, 0.0),
    "long and alike": (19, 100, 30.0, 1e-1),
    "short": (10, 50, 1e-2, None),
}
projecting = jax.jit(project)


@pytest.mark.parametrize("name", CASES)
def test_multipliers_solve_the_quadratic_programme(name):
    tasks, size, length, apart = CASES[name]
    rng = np.random.default_rng(1)
    for _ in range(5):
        rows = rng.normal(size=(tasks, size)) * length
        if apart is not None:
            rows = rng.normal(size=size) * length + apart * rows
        some = rng.uniform(0, 4, tasks) * (rng.random(tasks) < 0.5)
        g = rng.normal(size=size) * length - some @ rows
        products, along = np.float32(rows @ rows.T), np.float32(rows @ g)
        v = np.asarray(projecting(products, along, np.ones(tasks, bool)), float)
        u = multipliers(products.astype(float), along.astype(float), 0.5)
        assert (v >= 0.5).all() or not u.any()
        error = np.linalg.norm((v - u) @ rows)
        assert error < 1e-4 * np.linalg.norm(g)


@given(
    st.integers(1, 20), st.lists(st.floats(-3, 3, width=32), min_size=20, max_size=20),
    st.integers(0, 2**20 - 1),
)  # fmt: skip
def test_multipliers_of_tasks_to_come_are_zero_and_none_is_needed_where_none_is_hurt(
    seed, along, past
):
    rows = np.random.default_rng(seed).normal(size=(20, 8)).astype(np.float32)
    active = (past >> np.arange(20)) % 2 == 1
    along = np.asarray(along, np.float32)
    v = np.asarray(projecting(rows @ rows.T, along, active))
    assert np.isfinite(v).all() and not v[~active].any()
    assert v.any() == (along < 0)[active].any()
    if v.any():
        inner = (rows @ rows.T)[np.ix_(active, active)].astype(float)
        u = multipliers(inner, along[active].astype(float), 0.5)
        value = [w @ (inner @ w + 1e-3 * w) / 2 + along[active] @ w for w in (v[active], u)]
        np.testing.assert_allclose(*value, rtol=1e-4, atol=1e-3)


FISHERS = [
    ("example", "online", 0.7), ("batch", "online", 1.0), ("example", "average", 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("fisher", "combine", "decay"), FISHERS)
def test_elastic_weights(fisher, combine, decay):
    method = EWC(jnp.float32(3.0), jnp.float32(decay), 2, fisher, combine)
    walked = walk(continual(method))
    for before, after in steps(walked):
        params, own = arrays(before.model), before.own
        pulled = [
            3.0 * 2 * w * (p - a)
            for w, p, a in zip(leaves(own.importance), params, leaves(own.anchor), strict=True)
        ]
        check_step(before, after, plus(entropy(params, *batch(before))[1], pulled))
    total = np.zeros(len(flat(arrays(walked[0][1].model))))
    for k, (before, after) in enumerate(turns(walked)):
        params, rows = arrays(before.model), ROWS[(0, 3)[k] :][:2]
        groups = rows.reshape(-1, 1) if fisher == "example" else rows
        squares = [flat(entropy(params, X[of].astype(float), Y[of])[1]) ** 2 for of in groups]
        found = np.mean(squares, axis=0)
        total = (k * total + found) / (k + 1) if combine == "average" else decay * total + found
        np.testing.assert_allclose(flat(leaves(after.own.importance)), total, rtol=1e-4, atol=1e-8)
        np.testing.assert_array_equal(flat(leaves(after.own.anchor)), flat(params))


def test_the_anchor_of_l2():
    walked = walk(continual(L2(jnp.float32(0.5))))
    anchor = None
    for what, before, after, _ in walked:
        params = arrays(before.model)
        if what == "turn":
            anchor = params
            continue
        held = 0 if anchor is None else 0.5
        pulled = times(held, plus(params, times(-1, anchor or params)))
        check_step(before, after, plus(entropy(params, *batch(before))[1], pulled))


def test_synaptic_intelligence():
    walked = walk(continual(SI(jnp.float32(2.0), jnp.float32(0.05))))
    anchor = arrays(walked[0][1].model)
    omega = times(0, anchor)
    path = times(0, anchor)
    for what, before, after, _ in walked:
        params = arrays(before.model)
        if what == "turn":
            omega = [
                o + np.maximum(w, 0) / ((p - a) ** 2 + 0.05)
                for o, w, p, a in zip(omega, path, params, anchor, strict=True)
            ]
            np.testing.assert_allclose(
                flat(leaves(after.own.held.importance)), flat(omega), rtol=2e-4, atol=1e-6
            )
            anchor, path = params, times(0, params)
            continue
        new = entropy(params, *batch(before))[1]
        pulled = [2.0 * 2 * o * (p - a) for o, p, a in zip(omega, params, anchor, strict=True)]
        check_step(before, after, plus(new, pulled), rtol=1e-4)
        path = [
            w - g * (b - a) for w, g, a, b in zip(path, new, params, arrays(after.model), strict=True)
        ]  # fmt: skip
        np.testing.assert_allclose(flat(leaves(after.own.path)), flat(path), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("over", ["all", "seen"])
def test_learning_without_forgetting(over):
    walked = walk(continual(LwF(jnp.float32(1.5), jnp.float32(2.0), over), tell=True))
    teacher, known, first = None, None, True
    for what, before, after, told in walked:
        params = arrays(before.model)
        if what == "turn":
            teacher, known, first = params, np.asarray(before.stream.seen[task(before) - 1]), True
            continue
        (x, y), gradient = batch(before), None
        loss, gradient = entropy(params, x, y)
        if teacher is not None and not first:
            z, t = logits(params, x) / 2, logits(teacher, x) / 2
            among = known if over == "seen" else ALL
            p, q = softmax(t, among), softmax(z, among)
            with np.errstate(divide="ignore", invalid="ignore"):
                apart = np.where(known, p * (np.log(p) - np.log(q)), 0).sum(1)
            # d/dz_j of -sum over known i of p_i log q_i
            slope = p[:, known].sum(1, keepdims=True) * q - np.where(known, p, 0)
            gradient = plus(gradient, pull(params, x, 1.5 * slope / 2 / len(y)))
            np.testing.assert_allclose(told["old_loss"], 1.5 * apart.mean(), rtol=1e-4, atol=1e-6)
        else:
            assert told["old_loss"] == 0 and told["stability"] == 0
        check_step(before, after, gradient, rtol=1e-4)
        np.testing.assert_allclose(told["new_loss"], loss, rtol=1e-5)
        first = False


@given(st.integers(0, 200))
def test_divergences(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(2, 3, 5)).astype(np.float32) * 3
    among = rng.random(5) < 0.6
    proper = np.asarray(proper_divergence(p, q, jnp.asarray(among)))
    assert (proper > -1e-6).all()
    everyone = among | ~among.any()
    a, b = softmax(p.astype(float), everyone), softmax(q.astype(float), everyone)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(among, a * np.log(a / b), 0).sum(1)
    np.testing.assert_allclose(proper, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        divergence(p, q, jnp.ones(5, bool)), proper_divergence(p, q, jnp.ones(5, bool)), atol=1e-5
    )


def contrast(features, labels, temperature):
    """The loss of each example, example by example and pair by pair; None without a pair."""
    z = [f / np.linalg.norm(f) if f.any() else f for f in features]
    found = []
    for i, y in enumerate(labels):
        others = [j for j in range(len(z)) if j != i]
        pairs = [j for j in others if labels[j] == y]
        total = np.log(sum(np.exp(z[i] @ z[j] / temperature) for j in others)) if others else 0
        found.append(
            -np.mean([z[i] @ z[j] / temperature - total for j in pairs]) if pairs else None
        )
    return found


@given(st.integers(0, 100), st.integers(1, 7), st.integers(1, 4))
def test_contrast_pair_by_pair(seed, n, classes):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(n, 3)), rng.integers(0, classes, n)
    features[rng.random(n) < 0.2] = 0
    # Places without an example change nothing.
    more = np.concatenate([features, rng.normal(size=(8 - n, 3))]).astype(np.float32)
    labelled = np.concatenate([labels, np.zeros(8 - n, int)]).astype(np.int32)
    found = contrasted(more, labelled, np.arange(8) < n)
    assert not found[n:].any()
    expected = [a or 0 for a in contrast(features, labels, 0.3)]
    np.testing.assert_allclose(found[:n], expected, rtol=1e-4, atol=1e-5)


contrasted = jax.jit(lambda f, y, there: supervised_contrast(f, y, there, 0.3))


def test_contrasts_of_half_precision_are_summed_in_single():
    rng = np.random.default_rng(1)
    z, y = jnp.asarray(rng.normal(size=(8, 6)), jnp.bfloat16), np.array([0, 1, 0, 1, 2, 2, 0, 1])
    value, slope = jax.value_and_grad(lambda z: contrasted(z, y, np.ones(8, bool)).sum())(z)
    wide = np.asarray(z, float)
    np.testing.assert_allclose(value, sum(contrast(wide, y, 0.3)), rtol=1e-5)
    assert slope.dtype == jnp.bfloat16


def hidden(model, x):
    return jnp.tanh(model.layers[0](x))


def test_contrastive_replay():
    process = continual(SCR(hidden, jnp.float32(0.3)), replay=EVERYTHING)

    def loss(params, x, y):
        a, b = params[:2]
        found = [c for c in contrast(np.tanh(x @ a + b), y, 0.3) if c is not None]
        return np.mean(found)

    walked = walk(process, steps=5)
    for before, after in steps(walked)[::2]:
        params, old = arrays(before.model), remembered(before.memory)
        x, y = (np.concatenate(pair) for pair in zip(batch(before), old, strict=True))
        gradient = times(0, params)
        for part in gradient[:2]:
            for place in np.ndindex(part.shape):
                which = params[0] if part is gradient[0] else params[1]
                was, ends = which[place], []
                for step in (1e-5, -1e-5):
                    which[place] = was + step
                    ends.append(loss(params, x, y))
                which[place] = was
                part[place] = (ends[0] - ends[1]) / 2e-5
        check_step(before, after, gradient, rtol=1e-3, atol=2e-5)


def test_scores_of_the_nearest_mean():
    process = continual(SCR(hidden), replay=EVERYTHING)
    state = walk(process, steps=5)[-1][2]
    found = np.asarray(process._scores(state)(jnp.asarray(X[42:])))
    x, y = remembered(state.memory)
    a, b = arrays(state.model)[:2]

    def features(x):
        z = np.tanh(x @ a + b)
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    known, asked = features(x), features(X[42:].astype(float))
    for c in range(CLASSES):
        if (y == c).any():
            mean = known[y == c].mean(0)
            apart = asked @ mean / np.linalg.norm(mean)
            np.testing.assert_allclose(found[:, c], apart, atol=1e-5)
        else:
            assert (found[:, c] == -np.inf).all()
    assert {1, 3} & set(y)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_units_have_length_one(dtype):
    x = jnp.asarray([[3.0, -4.0], [0.0, 0.0], [3e4, 4e4], [6e-5, 8e-5]], dtype)
    np.testing.assert_allclose(
        np.asarray(unit(x), float), [[0.6, -0.8], [0, 0], [0.6, 0.8], [0.6, 0.8]], atol=1e-2
    )
