"""The process: heads, exams, the memory's times, what a run is made of, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_world import (
    ALL,
    CLASSES,
    DATA,
    EXAMS,
    FEATURES,
    ORDER,
    ROWS,
    STREAM,
    TASK,
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
    network,
    plus,
    remembered,
    seen,
    sgd,
    stream,
    task,
    times,
    walk,
)

from latebloom import unfold
from latebloom.core.dataset import Dataset
from latebloom.core.memory import Policy
from latebloom.core.runs.program import Program
from latebloom.core.stream import class_incremental, recurring
from latebloom.core.vectors import weights
from latebloom.methods.forgetting.continual import Continual, Replay
from latebloom.methods.forgetting.distillation import LwF
from latebloom.methods.forgetting.method import Method, check
from latebloom.methods.forgetting.penalties import EWC, L2, SI
from latebloom.methods.forgetting.projections import AGEM, GEM
from latebloom.methods.forgetting.replay import DER, ER, ERACE, SCR
from latebloom.nn import MLP

EVERYTHING = Replay(6, 6)  # what is drawn is all that is remembered
BY_TASK = Replay(12, 6, policy=Policy("task", "first", 4), at="task")
METHODS = {
    "fine-tuning": (Method(), None), "er": (ER(), EVERYTHING), "er-ace": (ERACE(), EVERYTHING),
    "der": (DER(), EVERYTHING), "a-gem": (AGEM(), EVERYTHING), "gem": (GEM(3, 4), BY_TASK),
    "l2": (L2(), None), "ewc": (EWC(batches=2), None), "si": (SI(), None), "lwf": (LwF(), None),
    "scr": (SCR(lambda model, x: model.layers[0](x)), EVERYTHING),
}  # fmt: skip


def told(params, x, allowed):
    return np.where(allowed, logits(params, x), -np.inf).argmax(1)


@pytest.mark.parametrize("head", ["all", "seen", "task", "batch"])
def test_heads_in_training_and_in_exams(head):
    process = continual(ER(), replay=EVERYTHING, head=head)
    for _, before, after, _ in walk(process):
        params, (x, y), k = arrays(before.model), batch(before), task(before)
        old_x, old_y = remembered(before.memory)
        own = np.isin(np.arange(CLASSES), ORDER[k])
        both = np.isin(np.arange(CLASSES), np.concatenate([y, old_y]))
        old_own = np.asarray(STREAM.classes)[held(before.memory)[1]]
        new, old = {
            "all": (ALL, ALL), "seen": (seen(before),) * 2, "task": (own, old_own), "batch": (both,) * 2,
        }[head]  # fmt: skip
        half = [entropy(params, *of)[1] for of in ((x, y, new), (old_x, old_y, old))]
        check_step(before, after, times(0.5, plus(*half)))
    observe = eqx.filter_jit(Continual.observe)
    for state in (before, after):  # nine and ten steps
        params, found = arrays(state.model), observe(process, state)["accuracy"]
        for k, rows in enumerate(EXAMS):
            own = np.isin(np.arange(CLASSES), ORDER[k])
            x, y = X[42:][rows].astype(float), Y[42:][rows]
            right = (told(params, x, own if head == "task" else ALL) == y).mean()
            np.testing.assert_allclose(found[k], right, rtol=1e-6)


def test_the_classes_of_batches_compete_in_what_looks_back_too():
    """With head="batch": a Fisher matrix's batches among their own classes, so the examples of each task."""
    _, before, after, _ = walk(continual(EWC(batches=3, fisher="batch"), head="batch"), steps=3)[3]
    squares = [
        flat(entropy(arrays(before.model), X[r].astype(float), Y[r], np.isin(np.arange(6), Y[r]))[1]) ** 2
        for r in ROWS[:3]
    ]  # fmt: skip
    np.testing.assert_allclose(
        flat(leaves(after.own.importance)), np.mean(squares, axis=0), rtol=1e-4, atol=1e-8
    )
    method = GEM(3, 4, jnp.float32(5.0))
    turned = 0
    for what, before, after, _ in walk(continual(method, replay=BY_TASK, head="batch"), steps=7):
        if what == "turn" or task(before) == 0:
            continue
        params, (x, y), (old_x, old_y) = (
            arrays(before.model), batch(before), remembered(before.memory),
        )  # fmt: skip
        g = entropy(params, x, y, np.isin(np.arange(CLASSES), y))[1]
        r = entropy(params, old_x, old_y, np.isin(np.arange(CLASSES), old_y))[1]
        along, square = flat(g) @ flat(r), flat(r) @ flat(r) + 1e-3
        turned += along < 0
        g = plus(g, times(max(5.0, -along / square) if along < 0 else 0.0, r))
        check_step(before, after, g, rtol=1e-3, atol=1e-5)
    assert turned


class Watched(Continual):
    """Observes its weights as well, running statistics and all."""

    def observe(self, state):
        return {**super().observe(state), "weights": weights(state.model, running=True)}


class Noisy(eqx.Module):
    """Dropout and a batch normalisation."""

    body: MLP
    drop: eqx.nn.Dropout

    def __init__(self, key):
        self.body = MLP(FEATURES, (5,), CLASSES, key=key, norm="batch")
        self.drop = eqx.nn.Dropout(0.3)

    def __call__(self, x, *, key=None, train=False):
        return self.body(self.drop(x, key=key, inference=not train), train=train)


def watched(method, replay=None, model=Noisy, **more):
    settings = {"model": model, "data": DATA, "stream": stream, "optimiser": sgd,
                "hyper": {"rate": 0.1}}  # fmt: skip
    return Watched(method=method, replay=replay, **(settings | more))


def test_exams_are_held_from_their_step_on_and_leave_no_trace_in_training():
    process = watched(ER(), EVERYTHING)
    dense = unfold(process, seeds=2, at=range(11), progress=False)
    sparse = unfold(process, seeds=2, at=[0, 3, 10], progress=False)
    for name in ("accuracy", "learning", "weights"):
        few = dense[name].sel(step=[0, 3, 10])
        assert few.values.tobytes() == sparse[name].values.tobytes(), name
    asked = np.isfinite(dense.accuracy.values[0])
    np.testing.assert_array_equal(asked, np.arange(11)[:, None] >= [0, 3, 7])
    assert dense.learning.values[0].tolist() == [0, *TASK]
    # Seeds differ, and each is itself in other company.
    assert not np.array_equal(dense.weights[0, -1], dense.weights[1, -1])
    alone = unfold(process, seeds=[1], at=[0, 3, 10], progress=False)
    np.testing.assert_allclose(alone.weights[0], sparse.weights[1], rtol=1e-4, atol=1e-6)


def test_exams_may_begin_in_any_order_and_all_right_is_1():
    rows = jnp.zeros((3, 49), jnp.int32)
    exams = eqx.tree_at(
        lambda s: (s.exams.since, s.exams.rows), STREAM, (jnp.array([7, 0, 3]), rows)
    )
    right = Dataset(DATA.x_train, DATA.y_train, 9.0 * jnp.eye(6), jnp.arange(6))
    process = continual(
        Method(), stream=lambda key: exams, data=right, model=lambda key: jnp.eye(6),
        apply=lambda model, x, key, train: x @ model, hyper={"rate": 0.0},
    )  # fmt: skip
    found = unfold(process, steps=10, every=1, progress=False).accuracy.values[0]
    np.testing.assert_array_equal(np.isfinite(found), np.arange(11)[:, None] >= [7, 0, 3])
    assert (found[-1] == 1).all()


class Killed(Exception):
    pass


def test_a_killed_run_ends_in_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("latebloom.core.runs.compiled.SECONDS_PER_CHUNK", 0.0)  # one step a chunk
    method, replay = METHODS["gem"]
    process, path = watched(method, replay, fresh=True, tell=True), tmp_path / "run"
    whole = unfold(process, seeds=2, at=range(11), progress=False)

    def kill(tick):
        if tick.step > 4:
            raise Killed

    with pytest.raises(Killed):
        unfold(process, seeds=2, at=range(11), progress=kill, checkpoint=path, checkpoint_seconds=0)
    resumed = unfold(process, seeds=2, at=range(11), progress=False, checkpoint=path)
    for name in whole:
        assert whole[name].values.tobytes() == resumed[name].values.tobytes(), name


SAME_BITS = {"fine-tuning", "a-gem", "gem", "si"}  # one loss, or taken apart anyway


@pytest.mark.parametrize("name", ["fine-tuning", "er", "der", "a-gem", "gem", "ewc", "si"])
def test_telling_changes_nothing_but_rounding(name):
    method, replay = METHODS[name]
    silent, telling = (
        np.asarray(weights(walk(continual(method, replay=replay, tell=tell))[-1][2].model))
        for tell in (False, True)
    )
    if name in SAME_BITS:
        assert silent.tobytes() == telling.tobytes()
    else:
        np.testing.assert_allclose(silent, telling, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["er", "l2", "a-gem", "si"])
def test_norms_of_what_learns_and_what_keeps(name):
    method, replay = METHODS[name]
    walked = walk(continual(method, replay=replay, tell=True))
    anchor = None
    for what, before, after, told in walked:
        params = arrays(before.model)
        if what == "turn":
            anchor = params
            continue
        new = times(0.5 if name == "er" else 1.0, entropy(params, *batch(before))[1])
        followed = times(
            1 / 0.4, plus(params, times(-1, arrays(after.model)))
        )  # plain gradient descent
        kept = flat(followed) - flat(new)
        if name == "er":
            old = entropy(params, *remembered(before.memory))[1]
            np.testing.assert_allclose(flat(times(0.5, old)), kept, atol=1e-5)
            kept = 0.5 * flat(old)
        if name == "l2":
            kept = flat(plus(params, times(-1, anchor))) if anchor else np.zeros(1)
        np.testing.assert_allclose(told["plasticity"], np.linalg.norm(flat(new)), rtol=1e-4)
        np.testing.assert_allclose(told["stability"], np.linalg.norm(kept), rtol=1e-4, atol=5e-6)


def half(dtype):
    def build(key):
        return jax.tree.map(lambda a: a.astype(dtype), network(key))

    return build


def test_small_norms_survive_half_precision():
    """A pull back that the other gradient's rounding would swallow, squares that would be 0."""
    process = continual(L2(jnp.float32(1e-3)), tell=True, model=half(jnp.bfloat16))
    whole = continual(L2(jnp.float32(1e-3)), tell=True)
    walked, exact = walk(process, steps=7), walk(whole, steps=7)
    for (_, _, _, found), (_, _, _, expected) in zip(walked[5:8], exact[5:8], strict=True):
        assert found["stability"].dtype == jnp.float32
        np.testing.assert_allclose(found["stability"], expected["stability"], rtol=0.1)
        np.testing.assert_allclose(found["plasticity"], expected["plasticity"], rtol=0.1)


HALVES = [(name, jnp.bfloat16) for name in METHODS] + [("gem", jnp.float16)]


@pytest.mark.parametrize(("name", "dtype"), HALVES)
def test_half_precision_stays_and_what_is_summed_is_single(name, dtype):
    method, replay = METHODS[name]
    process = continual(
        method, replay=replay, model=half(dtype), fresh=True, tell=True,
        optimiser=lambda rate: optax.sgd(rate, momentum=0.9),
    )  # fmt: skip
    program = Program(process)  # raises where a step or a turn changes a type
    kinds = {
        path: x.dtype for path, x in zip(program.paths, program.state, strict=True)
        if path.startswith((".model", ".own"))
    }  # fmt: skip
    assert all(kind == dtype for path, kind in kinds.items() if path.startswith(".model"))
    summed = [kind for path, kind in kinds.items() if "importance" in path or "path" in path]
    assert all(kind == jnp.float32 for kind in summed)
    assert bool(summed) == (name in ("l2", "ewc", "si"))


@pytest.mark.parametrize("fresh", [True, False])
def test_a_fresh_optimiser(fresh):
    process = continual(
        Method(), fresh=fresh, optimiser=lambda rate: optax.sgd(rate, momentum=0.5), hyper={"rate": 0.1}
    )  # fmt: skip
    momentum = None
    for what, before, after, _ in walk(process):
        if what == "turn":
            assert fresh and not any(x.any() for x in jax.tree.leaves(after.optimiser))
            momentum = None
            continue
        g = entropy(arrays(before.model), *batch(before))[1]
        momentum = g if momentum is None else plus(g, times(0.5, momentum))
        moved = plus(arrays(before.model), times(-1, arrays(after.model)))
        np.testing.assert_allclose(flat(moved), 0.1 * flat(momentum), rtol=1e-4, atol=2e-6)
    assert process.turns() == ((3, 7) if fresh else ())


def test_a_batch_normalisation_sees_nobody_who_is_not_there():
    """The memory is empty, then holds five of six: those new, and those remembered, stand in for the rest."""
    process = continual(
        ER(), replay=Replay(6, 6), model=lambda key: MLP(FEATURES, (5,), CLASSES, key=key, norm="batch")
    )  # fmt: skip
    mean = np.zeros(5)
    for _, before, after, _ in walk(process, steps=2):
        (x, _), (old, _) = batch(before), remembered(before.memory)
        rest = old if len(old) else x
        shown = np.concatenate([x, rest[np.arange(6) % len(rest)]])
        a, b = (np.asarray(p, float) for p in jax.tree.leaves(before.model.layers[0]))
        if len(old):  # which one is shown twice is left to chance
            z = shown @ a + b
            options = [0.9 * mean + 0.1 * (z[:10].sum(0) + extra) / 11 for extra in old @ a + b]
            found = np.asarray(after.model.norms[0].mean)
            assert min(np.abs(found - option).max() for option in options) < 1e-5
        else:
            mean = 0.9 * mean + 0.1 * (shown @ a + b).mean(0)
            np.testing.assert_allclose(after.model.norms[0].mean, mean, atol=1e-5)


def test_an_importance_is_that_of_running_statistics():
    def build(key):
        return MLP(FEATURES, (5,), CLASSES, key=key, norm="batch")

    _, before, after, _ = walk(continual(EWC(batches=2), model=build), steps=3)[3]
    model = before.model

    @jax.jit
    def squares(x, y):
        def loss(model):
            return -jax.nn.log_softmax(model(x[None]))[0, y]

        found = jax.grad(loss)(model)
        return jax.tree.map(jnp.square, eqx.tree_at(lambda m: (m.norms[0].mean, m.norms[0].variance), found, (None, None)))  # fmt: skip

    rows = ROWS[:2].ravel()
    each = [flat(leaves(squares(X[r], Y[r]))) for r in rows]
    np.testing.assert_allclose(
        flat(leaves(after.own.importance)), np.mean(each, axis=0), rtol=1e-4, atol=1e-9
    )
    assert len(leaves(after.own.importance)) == 6


def drawn(key):
    return class_incremental(Y[:42], Y[42:], key=key, tasks=3, steps=3, batch_size=4, exam_size=6)


def coming_back(key):
    return recurring(
        Y[:42], Y[42:], key=key, tasks=4, steps=2, batch_size=4, classes=2, exam_size=3
    )


def test_streams_of_ones_own_differ_by_seed():
    trace = unfold(watched(ER(), EVERYTHING, network, stream=drawn), seeds=2, steps=9, progress=False)  # fmt: skip
    assert np.isfinite(trace.accuracy[:, -1]).all()
    assert not np.array_equal(trace.weights[0, -1], trace.weights[1, -1])


def labelled(y):
    return Dataset(DATA.x_train, y, DATA.x_test, DATA.y_test)


def inputs(x):
    return Dataset(x, DATA.y_train, DATA.x_test, DATA.y_test)


BAD = {
    "labels outside": ({"data": labelled(DATA.y_train.at[4].set(6))}, "train labels must be from 0 to 5.*row 4"),
    "labels that are floats": ({"data": labelled(DATA.y_train.astype(float))}, "train labels must be class indices"),
    "labels that are rows": ({"data": labelled(jnp.eye(6)[DATA.y_train])}, "train labels must be class indices"),
    "inputs that are NaN": (
        {"data": inputs(DATA.x_train.at[4, 1].set(jnp.nan).at[7].set(jnp.inf))}, "x_train must be finite, but row 4 has .*1 other"),
    "inputs of half precision that are infinite": (
        {"data": inputs(DATA.x_train.at[4].set(jnp.inf).astype(jnp.bfloat16))}, "x_train must be finite, but row 4"),
    "too few outputs": (
        {"model": lambda key: MLP(FEATURES, (), 5, key=key)}, "labels must be from 0 to 4, but row 5 has 5"),
    "no batch of outputs": ({"apply": lambda model, x, key, train: x[:, 0]}, r"outputs \[batch, classes\], not \[18\]"),
    "no memory": ({"method": ER()}, "ER remembers: give it a memory, as in replay="),
    "a batch beyond the memory": ({"replay": Replay(5, 6)}, "from 1 to the 5 places of the memory, not 6"),
    "an empty batch": ({"replay": Replay(5, 0)}, "from 1 to the 5 places of the memory, not 0"),
    "a place misspelt": ({"replay": Replay(6, 6, at="tasks")}, "at of Replay must be one of step, task, not 'tasks'"),
    "a draw misspelt": ({"replay": Replay(6, 6, by="classes")}, "by of Replay must be one of all, class"),
    "a policy misspelt": ({"replay": Replay(6, 6, Policy("classes"))}, "by of Policy must be one of all, class, task"),
    "a preference misspelt": ({"replay": Replay(6, 6, Policy("all", "newest"))}, "prefer of Policy must be one of random"),
    "no share": ({"replay": Replay(6, 6, Policy("task", share=0))}, "share of Policy must be at least 1, not 0"),
    "a long look back": ({"method": EWC(batches=4)}, "EWC looks back on 4 batches, but a task has 3"),
    "a head misspelt": ({"head": "tasks"}, "head must be one of all, seen, task, batch, not 'tasks'"),
    "outputs when a task is over": (
        {"method": DER(), "replay": Replay(6, 6, at="task")}, "DER remembers outputs .* filled at='step'"),
    "too few tasks": ({"method": GEM(2, 4), "replay": BY_TASK}, "tasks=2, but the stream has 3"),
    "exams of classes": ({"head": "task", "stream": coming_back}, "as many exams for each of the 4 tasks, not 6 in all"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_process_is_refused(name):
    settings, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        continual(**({"method": Method()} | settings))


SETTINGS = {
    "a negative weight": (lambda: ER(-0.1), "new_weight of ER must be from 0 to 1, not -0.1"),
    "a weight above 1": (lambda: ER(1.5), "new_weight of ER must be from 0 to 1, not 1.5"),
    "no weight": (lambda: ER(float("nan")), "new_weight of ER must be from 0 to 1, not nan"),
    "alpha": (lambda: DER(-1.0), "alpha of DER must be at least 0"),
    "beta": (lambda: DER(1.0, -1.0), "beta of DER must be at least 0"),
    "contrast": (lambda: SCR(None, 0.0), "temperature of SCR must be above 0, not 0.0"),
    "l2": (lambda: L2(-1.0), "strength of L2 must be at least 0"),
    "ewc": (lambda: EWC(jnp.float32(-1.0)), "strength of EWC must be at least 0"),
    "decay": (lambda: EWC(decay=1.1), "decay of EWC must be from 0 to 1, not 1.1"),
    "no batches": (lambda: EWC(batches=0), "batches of EWC must be at least 1"),
    "fisher": (lambda: EWC(fisher="examples"), "fisher of EWC must be one of example, batch"),
    "combine": (lambda: EWC(combine="sum"), "combine of EWC must be one of average, online"),
    "si": (lambda: SI(-1.0), "strength of SI must be at least 0"),
    "damping": (lambda: SI(1.0, 0.0), "damping of SI must be above 0"),
    "lwf": (lambda: LwF(-1.0), "strength of LwF must be at least 0"),
    "temperature": (lambda: LwF(1.0, 0.0), "temperature of LwF must be above 0"),
    "over": (lambda: LwF(over="old"), "over of LwF must be one of all, seen, each, not 'old'"),
    "margin": (lambda: GEM(2, 2, -1.0), "margin of GEM must be at least 0"),
    "share": (lambda: GEM(2, 0), "share of GEM must be at least 1"),
    "tasks": (lambda: GEM(0, 2), "tasks of GEM must be at least 1"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_mean_nothing_are_refused(name):
    make, message = SETTINGS[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_of_several_runs_and_of_a_trace_pass():
    check(ER(jnp.array([0.0, 0.5, 1.0])), "new_weight", 0, 1)
    found = jax.vmap(lambda strength: L2(strength).strength * 2)(jnp.arange(3.0))
    np.testing.assert_array_equal(found, [0, 2, 4])


def test_a_stream_ends():
    process = continual(Method())
    with pytest.raises(ValueError, match=f"Continual ends after {process.steps} steps"):
        unfold(process, steps=process.steps + 1, progress=False)
