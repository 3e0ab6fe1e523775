"""Losses of a growing head, distilled features, penalties with a free head, and sums of them, against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from small_world import (
    CLASSES,
    DATA,
    ORDER,
    ROWS,
    STREAM,
    X,
    Y,
    arrays,
    batch,
    check_step,
    continual,
    entropy,
    leaves,
    logits,
    plus,
    pull,
    seen,
    sgd,
    softmax,
    stream,
    task,
    times,
    walk,
)

from latebloom.core.calling import as_examined, call
from latebloom.core.statistics import RunningStatistics
from latebloom.core.stream import class_incremental
from latebloom.core.training import trainable
from latebloom.losses import masked_binary_cross_entropy
from latebloom.methods.forgetting.class_means import NearestClassMean
from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.distillation import FeatureDistillation, LwF, agree, with_features
from latebloom.methods.forgetting.head_losses import HeadLoss, Together
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.penalties import EWC, L2, SI, axis_of_classes
from latebloom.methods.forgetting.prompting import Prompting
from latebloom.methods.forgetting.replay import ER
from latebloom.methods.forgetting.sharpness import Watched
from latebloom.nn import MLP
from latebloom.nn.mlp import Linear


def readout(model):
    return model.layers[-1]


def steps(walked):
    return [(before, after) for what, before, after, _ in walked if what == "step"]


def turns(walked):
    return [(before, after) for what, before, after, _ in walked if what == "turn"]


def binary(params, x, y, allowed):
    """Gradients of the mean over examples of the sum over classes of sigmoid cross-entropies."""
    slope = (expit(logits(params, x)) - np.eye(CLASSES)[y]) * allowed / len(y)
    return pull(params, x, slope)


def its_own(state):
    return np.isin(np.arange(CLASSES), ORDER[task(state)])


@pytest.mark.parametrize("loss", ["ce", "bce", "local_ce", "local_bce"])
def test_the_new_is_learned_by_the_loss_of_the_head(loss):
    for before, after in steps(walk(continual(HeadLoss(Method(), loss), head="seen"))):
        params, (x, y) = arrays(before.model), batch(before)
        among = its_own(before) if loss.startswith("local") else seen(before)
        gradient = binary(params, x, y, among) if "bce" in loss else entropy(params, x, y, among)[1]
        check_step(before, after, gradient)


def test_replayed_examples_compete_with_their_own_task():
    process = continual(HeadLoss(ER(0.4)), head="seen", replay=Replay(5, 5))
    for before, after in steps(walk(process))[1:4:2]:
        params = arrays(before.model)
        rows = np.asarray(before.memory.items.rows)[np.asarray(before.memory.filled)]
        old = Y[rows]
        own = np.stack([np.isin(np.arange(CLASSES), ORDER[(ORDER == y).any(1)]) for y in old])
        new = entropy(params, *batch(before), its_own(before))[1]
        check_step(before, after, plus(times(0.4, new), times(0.6, entropy(params, X[rows].astype(float), old, own)[1])))  # fmt: skip


def test_sigmoid_cross_entropy_of_far_logits_is_finite_and_leaves_others_alone():
    z, y = jnp.array([[200.0, -200.0, 7.0], [0.0, 0.0, 0.0]]), jnp.array([1, 2])
    allowed = jnp.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(
        masked_binary_cross_entropy(z, y, allowed), [400, 2 * np.log(2)], rtol=1e-6
    )
    slope = jax.grad(lambda z: masked_binary_cross_entropy(z, y, allowed).sum())(z)
    np.testing.assert_allclose(slope, [[1, -1, 0], [0.5, 0, -0.5]], atol=1e-6)
    assert not masked_binary_cross_entropy(z[:0], y[:0], allowed[:0]).size


@pytest.mark.parametrize("loss", ["ce", "bce", "local_ce"])
def test_the_fisher_matrix_is_that_of_the_loss_and_the_head_is_free(loss):
    method = HeadLoss(EWC(jnp.float32(0.7), batches=2, head=readout), loss)
    walked = walk(continual(method, head="seen"))
    total = [np.zeros_like(p) for p in arrays(walked[0][1].model)]
    first = {0: 0, 1: 3, 2: 7}
    for k, (before, after) in enumerate(turns(walked)):
        params, squares = arrays(before.model), []
        known = np.isin(np.arange(CLASSES), ORDER[: k + 1])
        among = np.isin(np.arange(CLASSES), ORDER[k]) if loss == "local_ce" else known
        for row in ROWS[first[k] : first[k] + 2].ravel():
            x, y = X[[row]].astype(float), Y[[row]]
            g = binary(params, x, y, among) if loss == "bce" else entropy(params, x, y, among)[1]
            squares.append([p**2 for p in g])
        total = [t + np.mean(parts, axis=0) for t, parts in zip(total, zip(*squares, strict=True), strict=True)]  # fmt: skip
        found = leaves(after.own.host.importance)
        for one, wanted in zip(found[:2], total[:2], strict=True):
            np.testing.assert_allclose(one, wanted, rtol=1e-4, atol=1e-7)
        assert not any(part.any() for part in found[2:])


def test_l2_leaves_the_head_or_its_new_rows_free():
    for rows in ("free", "old"):
        walked = walk(continual(L2(jnp.float32(0.5), head=readout, rows=rows), head="seen"))
        anchor, held = None, None
        for what, before, after, _ in walked:
            if what == "turn":
                anchor = arrays(before.model)
                known = np.asarray(before.stream.seen[before.stream.task[before.step - 1]])
                held = [np.ones_like(p) for p in anchor]
                for i in (2, 3):
                    held[i] = held[i] * (known if rows == "old" else 0.0)
            else:
                params = arrays(before.model)
                gradient = entropy(params, *batch(before), seen(before))[1]
                if anchor is not None and held is not None:
                    pulls = [0.5 * h * (p - a) for h, p, a in zip(held, params, anchor, strict=True)]  # fmt: skip
                    gradient = plus(gradient, pulls)
                check_step(before, after, gradient)


def test_sigmoids_distil_each_old_class():
    """LwF.MC: new classes by labels, old ones by the teacher's sigmoids."""
    teacher, known = None, np.zeros(CLASSES, bool)
    process = continual(HeadLoss(LwF(jnp.float32(1.0), 1.0, "each"), "local_bce"), head="seen")
    for what, before, after, _ in walk(process):
        if what == "turn":
            teacher, known = arrays(before.model), known | np.isin(np.arange(CLASSES), ORDER[int(before.stream.task[before.step - 1])])  # fmt: skip
            continue
        params, (x, y) = arrays(before.model), batch(before)
        target = np.eye(CLASSES)[y]
        if teacher is not None:
            target = np.where(known, expit(logits(teacher, x)), target)
        slope = (expit(logits(params, x)) - target) * (known | its_own(before)) / len(y)
        check_step(before, after, pull(params, x, slope))


@pytest.mark.parametrize("weighted", [False, True])
def test_features_are_distilled(weighted):
    method = FeatureDistillation(jnp.float32(0.3), head=readout, weighted=weighted)
    teacher, known = None, np.zeros(CLASSES, bool)
    for what, before, after, _ in walk(continual(method, head="seen")):
        if what == "turn":
            teacher = arrays(before.model)
            known = np.asarray(before.stream.seen[before.stream.task[before.step - 1]])
            continue
        params, (x, y) = arrays(before.model), batch(before)
        gradient = entropy(params, x, y, seen(before))[1]
        if teacher is not None:
            features, was = (np.tanh(x @ p[0] + p[1]) for p in (params, teacher))
            apart = features - was
            if weighted:
                apart = (apart @ teacher[2] * known / known.sum()) @ teacher[2].T
            inner = 0.3 * 2 * apart / len(y) * (1 - features**2)
            zeros = [np.zeros_like(p) for p in params[2:]]
            gradient = plus(gradient, [x.T @ inner, inner.sum(0), *zeros])
        check_step(before, after, gradient)


def test_several_at_once_are_the_sum_of_their_terms():
    parts = LwF(jnp.float32(0.6), 2.0, "seen"), L2(jnp.float32(0.5), head=readout), SI(0.4)
    walked = walk(continual(HeadLoss(Together(parts), "local_ce"), head="seen"))
    moved = 0
    for what, before, after, _ in walked:
        if what == "turn":
            lwf, l2, si = after.own.host
            assert int(l2.tasks) == int(si.held.tasks) and bool(lwf[1].any())
            continue
        params, (x, y) = arrays(before.model), batch(before)
        gradient = entropy(params, x, y, its_own(before))[1]
        (teacher, known), l2, si = before.own.host
        if task(before):
            known = np.asarray(known)
            was, now = (softmax(logits(p, x) / 2, known) for p in (arrays(teacher), params))
            gradient = plus(gradient, pull(params, x, 0.6 / 2 * (now - was) / len(y)))
            for strength, held in ((0.5, l2), (0.8, si.held)):
                pairs = zip(params, leaves(held.anchor), leaves(held.importance), strict=True)
                gradient = plus(gradient, [strength * w * (p - a) for p, a, w in pairs])
            moved += 1
        check_step(before, after, gradient)
    assert moved == 7


def test_one_pass_serves_all_parts():
    method = Together((LwF(), LwF(2.0), L2()))
    process = continual(method)
    state = process.init(jax.random.key(0))
    once = str(eqx.filter_make_jaxpr(continual(LwF()).step)(continual(LwF()).init(jax.random.key(0)))[0])  # fmt: skip
    three = str(eqx.filter_make_jaxpr(process.step)(state)[0])
    extra = three.count("dot_general") - once.count("dot_general")
    assert extra == 2  # the second teacher's pass, of two layers


def test_nearest_means_by_hand_with_the_classes_that_compete():
    process = Watched(
        model=lambda key: MLP(X.shape[1], (5,), CLASSES + 1, key=key, activation="tanh"), data=DATA, flat=False,
        stream=stream, optimiser=sgd, hyper={"rate": 0.1}, head="seen",
        method=NearestClassMean(readout, width=5, batches=3),
    )  # fmt: skip
    walked = walk(process)
    state = walked[6][1]  # the second task, before its last update
    first = arrays(walked[0][1].model)
    assert all(np.array_equal(a, b) for a, b in zip(first, arrays(state.model), strict=True))
    state = [after for what, _, after, _ in walked if what == "turn"][1]
    features = np.tanh(X @ first[0] + first[1])
    used = np.concatenate([ROWS[:3].ravel(), ROWS[3:6].ravel()])
    means = np.full((CLASSES, 5), np.inf)
    for c in ORDER[:2].ravel():
        means[c] = features[used[Y[used] == c]].mean(0)
    found = eqx.filter_jit(type(process).observe)(process, state)
    for k in range(2):
        rows = 42 + np.asarray(STREAM.exams.rows[k])
        apart = ((features[rows, None] - means) ** 2).sum(-1)
        right = apart.argmin(1) == Y[rows]
        assert float(found["accuracy"][k]) == pytest.approx(right.mean())
        own = np.where(np.isin(np.arange(CLASSES), ORDER[k]), apart, np.inf)
        assert float(found["task_accuracy"][k]) == pytest.approx((own.argmin(1) == Y[rows]).mean())


def normed(key):
    return MLP(X.shape[1], (5,), CLASSES, key=key, norm="batch")


@pytest.mark.parametrize("apply", [None, as_examined])
def test_statistics_come_from_the_training_pass_or_stay(apply):
    more = {} if apply is None else {"apply": apply}
    method = Together((FeatureDistillation(0.1, head=readout), LwF(), L2(0.1, head=readout)))
    walked = walk(continual(method, model=normed, **more), steps=4)
    before, after = walked[0][1].model, walked[0][2].model
    if apply is not None:
        np.testing.assert_array_equal(before.norms[0].mean, walked[-1][2].model.norms[0].mean)
        return
    x = batch(walked[0][1])[0]
    first = before.layers[0]
    seen = x @ np.asarray(first.weight) + np.asarray(first.bias)
    np.testing.assert_allclose(after.norms[0].mean, 0.1 * seen.mean(0), rtol=1e-4, atol=1e-6)
    assert isinstance(after.norms[0], RunningStatistics)


def test_features_stand_beside_logits():
    model = eqx.nn.MLP(4, 3, 6, 1, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 4))
    both = jax.vmap(with_features(model, lambda m: m.layers[-1]))(x)
    np.testing.assert_allclose(both[:, 6:], jax.vmap(model)(x), rtol=1e-6)
    np.testing.assert_allclose(both[:, :6], jax.nn.relu(jax.vmap(model.layers[0])(x)), rtol=1e-6)
    assert jax.tree.structure(trainable(model)) != jax.tree.structure(
        trainable(with_features(model, lambda m: m.layers[-1]))
    )


@pytest.mark.parametrize(("make", "said"), [
    (lambda: HeadLoss(Method(), "mse"), "loss of HeadLoss must be one of ce, bce, local_ce, local_bce"),
    (lambda: HeadLoss("EWC"), "host of HeadLoss must be a Method"),
    (lambda: Together(()), "parts must be methods, at least one"),
    (lambda: Together((L2(), ER())), "ER replays, directs gradients or answers exams: put it first"),
    (lambda: Together((L2(), NearestClassMean(readout, 5, 1))), "answers exams: put it first"),
    (lambda: L2(1.0, rows="new"), "rows of L2 must be one of free, old"),
    (lambda: L2(float("nan")), "strength of L2"),
    (lambda: EWC(1.0, rows="all"), "rows of EWC must be one of free, old"),
    (lambda: FeatureDistillation(-1.0, head=readout), "strength of FeatureDistillation"),
    (lambda: LwF(over="none"), "over of LwF must be one of all, seen, each"),
    (lambda: continual(FeatureDistillation(1.0, head=lambda m: m.layers[-1].weight)), "the module that makes logits"),
    (lambda: continual(NearestClassMean(readout, 5, 9)), "looks back on 9 batches, but a task has 3"),
    (lambda: NearestClassMean(readout, 0, 1), "width of NearestClassMean must be at least 1"),
    (lambda: walk(continual(NearestClassMean(readout, 4, 1))), "5 features go into the head, but width is 4"),
    (lambda: Together((LwF(), Prompting())), "Prompting learns the new in its own way: put it first"),
    (lambda: Together((LwF(), HeadLoss(Prompting(), "ce"))), "HeadLoss learns the new in its own way"),
    (lambda: continual(HeadLoss(Method(), "local_ce"), stream=one_class_a_task), "a softmax over that alone teaches nothing"),
])  # fmt: skip
def test_bad_settings_are_told(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def one_class_a_task(key):
    return class_incremental(Y[:42], Y[42:], key=key, tasks=CLASSES, steps=3, batch_size=5, exam_size=2)  # fmt: skip


@pytest.mark.parametrize("loss", ["ce", "bce", "local_bce"])
def test_other_losses_take_one_class_a_task(loss):
    process = continual(HeadLoss(Method(), loss), stream=one_class_a_task, head="seen")
    before = process.init(jax.random.key(0))._replace(step=jnp.int32(3))
    after = eqx.filter_jit(process.step)(before)
    assert any((a != b).any() for a, b in zip(arrays(before.model), arrays(after.model), strict=True))  # fmt: skip


def layered(key, *last, rows=CLASSES):
    one, two = jax.random.split(key)
    return eqx.nn.Sequential([
        eqx.nn.Linear(X.shape[1], 5, key=one), eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(5, rows, key=two), *last,
    ])  # fmt: skip


class Tied(eqx.Module):
    """Two maps that have one weight."""

    shared: eqx.nn.Shared

    def __init__(self, key):
        maps = [eqx.nn.Linear(CLASSES, CLASSES, key=k) for k in jax.random.split(key)]
        self.shared = eqx.nn.Shared(tuple(maps), lambda m: m[1].weight, lambda m: m[0].weight)

    def __call__(self, x):
        first, second = self.shared()
        return second(jnp.tanh(first(x)))


def step_of(method, build, **more):
    process = continual(method, model=build, **more)
    state = eqx.filter_eval_shape(process.init, jax.random.key(0))
    return eqx.filter_eval_shape(process.step, eqx.filter_eval_shape(process.turn, state))


FEATURES = [FeatureDistillation(1.0, head=lambda m: m.layers[2]), NearestClassMean(lambda m: m.layers[2], 5, 2)]  # fmt: skip


@pytest.mark.parametrize("method", FEATURES)
@pytest.mark.parametrize(
    "last", [jax.nn.log_softmax, jax.nn.softmax, lambda z: z - z.mean(), lambda z: z[:CLASSES]]
)
def test_what_comes_after_the_head_and_mixes_its_outputs_is_refused(method, last):
    """It would mix the features, which stand beside the logits there, into them."""
    build = lambda key: layered(key, eqx.nn.Lambda(last), rows=CLASSES + 2)  # noqa: E731
    with pytest.raises(ValueError, match="must end with head.model., called once"):
        step_of(method, build)
    for dtype in (jnp.float32, jnp.bfloat16):
        scaled = lambda key, dtype=dtype: jax.tree.map(  # noqa: E731
            lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a,
            layered(key, eqx.nn.Lambda(lambda z: z / 3)),
        )
        step_of(method, scaled)


def test_a_head_must_stand_in_the_network_once():
    model, x = layered(jax.random.key(0)), jnp.asarray(X[:3])
    with pytest.raises(ValueError, match="this Sequential stands in it 0 times"):
        with_features(model, lambda m: m[2:])
    tied = Tied(jax.random.key(1))
    with pytest.raises(ValueError, match="this Linear stands in it 0 times"):
        with_features(tied, lambda m: m.shared()[1])
    same = eqx.nn.Lambda(jnp.tanh)
    with pytest.raises(ValueError, match="this Lambda stands in it 2 times"):
        with_features(eqx.nn.Sequential([same, same]), lambda m: m[0])
    both = jax.vmap(with_features(tied, lambda m: m.shared.pytree[1]))(x)
    first, second = tied.shared()
    h = jnp.tanh(jax.vmap(first)(x))
    np.testing.assert_allclose(both, np.hstack([h, jax.vmap(second)(h)]), rtol=1e-5)


def test_an_apply_of_ones_own_is_not_left_out_of_nearest_means():
    method = NearestClassMean(lambda m: m.layers[2], 5, 2)
    with pytest.raises(ValueError, match="NearestClassMean calls the network itself"):
        step_of(method, layered, apply=lambda m, x, key, train: jax.vmap(m)(x / 9 - 1))
    step_of(method, layered, apply=lambda m, x, key, train: jax.vmap(m)(x))


def test_a_question_about_made_up_values_leaves_nothing_in_the_program():
    model, x = layered(jax.random.key(0)), jnp.asarray(X[:3])
    said = []

    def asked(model, x):
        said.append(agree(call, lambda m, x: 2 * call(m, x), model, x))
        said.append(agree(call, call, model, x))
        return call(model, x)

    with_it, without = (str(eqx.filter_make_jaxpr(f)(model, x)[0]) for f in (asked, call))
    assert said == [False, True] and with_it == without
    assert agree(call, lambda m, x: 1 / 0, model, x)  # who is called in earnest tells of it


def test_a_head_for_a_penalty_has_parameters():
    with pytest.raises(ValueError, match="has no parameters of its own"):
        step_of(L2(1.0, head=lambda m: m.layers[1]), layered)
    with pytest.raises(ValueError, match="of one it raised TypeError"):
        step_of(EWC(1.0, batches=2, head=lambda m: m.shared()[1]), Tied)
    step_of(L2(1.0, head=lambda m: m.layers[2:], rows="old"), layered)


def test_the_outputs_of_a_square_head_are_those_of_its_map():
    """Ours holds [in, out], Equinox's [out, in]; of another module nobody can say."""
    square = jnp.zeros((CLASSES, CLASSES))
    key = jax.random.key(0)
    assert axis_of_classes(Linear(CLASSES, CLASSES, key=key), square, CLASSES) == 1
    assert axis_of_classes(eqx.nn.Linear(CLASSES, CLASSES, key=key), square, CLASSES) == 0
    assert axis_of_classes(object(), jnp.zeros((3, CLASSES)), CLASSES) == 1
    with pytest.raises(ValueError, match="one axis of 6 classes, not .6, 6."):
        axis_of_classes(object(), square, CLASSES)


def test_checks_leave_nothing_in_the_program(monkeypatch):
    """What is recorded stays the same program."""
    from latebloom.methods.forgetting import class_means, distillation

    def programs():
        for method in FEATURES:
            process = continual(method, model=layered)
            state = process.init(jax.random.key(0))
            for part in (process.turn, process.step):
                yield str(eqx.filter_make_jaxpr(part)(state)[0])

    checked = list(programs())
    for module in (class_means, distillation):
        monkeypatch.setattr(module, "check_last", lambda *given: None)
    monkeypatch.setattr(class_means, "check_called", lambda *given: None)
    assert list(programs()) == checked
