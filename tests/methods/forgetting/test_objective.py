"""The unified objective: its divergences by their definition, seven methods as instances, tables to JSON and back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_world import CLASSES, DATA, STREAM, X, arrays, continual, logits, network

from latebloom import unfold
from latebloom.core.calling import call
from latebloom.core.training import trainable
from latebloom.methods.forgetting.around import Kept, slope
from latebloom.methods.forgetting.confidence import CPR
from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.distillation import LwF
from latebloom.methods.forgetting.method import Batch, Lesson, Method, norm
from latebloom.methods.forgetting.objective import Compared, Objective, Output, Weight, as_objective
from latebloom.methods.forgetting.penalties import EWC, L2, SI
from latebloom.methods.forgetting.perturbed import SAM
from latebloom.methods.forgetting.refresh import Refresh
from latebloom.methods.forgetting.replay import DER, ER, ERACE

rng = np.random.default_rng(5)
STORED = rng.normal(size=(5, CLASSES)).astype(np.float32)
SEEN = np.arange(CLASSES) < 4
THERE = np.array([1, 1, 1, 0, 1], bool)


def batch(rows, extra=(), there=None):
    x, y = DATA.x_train[rows], DATA.y_train[rows]
    there = np.ones(len(rows), bool) if there is None else there
    allowed = np.broadcast_to(np.arange(CLASSES) != 2, (len(rows), CLASSES))
    return Batch(x, y, jnp.zeros_like(y), jnp.asarray(allowed), jnp.asarray(there), extra)


def lesson(new, old=None, other=None):
    return Lesson(
        lambda m, x: call(m, x, None, True), call, new, old, other, jnp.int32(1), jnp.array(False),
        jnp.asarray(SEEN), None, lambda *_: new,
    )  # fmt: skip


STEP = lesson(
    batch(np.arange(5)), batch(np.arange(6, 11), jnp.asarray(STORED), THERE), batch(np.arange(12, 17), (), THERE)
)  # fmt: skip
OVER = lesson(jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]), batch(np.arange(20, 28))))
ONE, TWO = (network(jax.random.key(i)) for i in (1, 2))


def kept(method):
    """What a method keeps after a first task with the first network."""
    own = method.init(TWO, STREAM)
    if method.does("moved"):
        params = trainable(ONE)
        own = method.moved(own, jax.tree.map(lambda p: p + 0.3, params), trainable(TWO), params)
    first = jax.tree.map(lambda x: x[: method.looks_back], OVER.new)
    return method.turn(ONE, own, OVER._replace(new=first)) if method.does("turn") else own


@eqx.filter_jit
def gradients(*methods):
    return [slope(method, TWO, Kept(kept(method)), STEP) for method in methods]


CASES = {
    "ER": ER(jnp.float32(0.3)), "DER": DER(0.7, 0.0), "DER++": DER(0.7, jnp.float32(0.4)),
    "LwF": LwF(1.5, over="seen"), "L2": L2(0.8), "EWC": EWC(3.0, 0.5, batches=2),
    "CPR of EWC": CPR(EWC(3.0, batches=1), 0.4), "CPR of ER": CPR(ER(), 0.4), "SI": SI(2.0), "nothing": Method(),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_method_and_its_instance_have_one_gradient(name):
    method = CASES[name]
    ours = Objective.from_json(as_objective(method).to_json())
    one, other = gradients(method, ours)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    if name != "nothing":
        (plain,) = gradients(Method())
        apart = norm(jax.tree.map(jnp.subtract, one, plain)) / norm(one)
        assert apart > 0.01  # the case says something


def bregman(potential, p, q, h=1e-6):
    """By the definition, with the gradient by differences."""
    slope = np.array([
        (potential(q + h * e) - potential(q - h * e)) / (2 * h) for e in np.eye(len(q))
    ])  # fmt: skip
    return potential(p) - potential(q) - slope @ (p - q)


def negative_entropy(p):
    return np.sum(p * np.log(p))


def soft(z, among, temperature=1.0):
    z = np.where(among, z, -np.inf) / temperature
    return (np.exp(z - z.max()) / np.exp(z - z.max()).sum())[among]


ALLOWED = np.arange(CLASSES) != 2
TERMS = {
    "stored, entropy": Output(1.0, "entropy", "stored", temperature=2.0),
    "stored, reversed": Output(1.0, "entropy", "stored", first="output"),
    "stored, square": Output(1.0, "square", "stored"),
    "uniform, from outputs": Output(1.0, "entropy", "uniform", "new", "output"),
    "uniform, to outputs": Output(1.0, "entropy", "uniform", "new", "target"),
    "teacher, entropy": Output(1.0, "entropy", "teacher", "new", temperature=2.0),
    "teacher, square": Output(1.0, "square", "teacher", "other"),
}  # fmt: skip


def by_definition(term):
    """The term in NumPy from the definition of its divergence."""
    rows = {"new": np.arange(5), "old": np.arange(6, 11), "other": np.arange(12, 17)}[term.batch]
    x = X[rows].astype(float)
    out = logits(arrays(TWO), x)
    among = SEEN if term.target == "teacher" else ALLOWED
    target = {"stored": STORED.astype(float), "teacher": logits(arrays(ONE), x)}.get(term.target)
    found = []
    for i, z in enumerate(out):
        if term.divergence == "square":
            a, b = target[i], z
            if term.target == "teacher":
                a, b = a[among], b[among]
            found.append(bregman(lambda v: v @ v / (2 * CLASSES), a, b))
            continue
        q = soft(z, among, term.temperature)
        p = soft(target[i], among, term.temperature) if target is not None else np.full(among.sum(), 1 / among.sum())  # fmt: skip
        found.append(bregman(negative_entropy, *((p, q) if term.first == "target" else (q, p))))
    there = np.ones(5, bool) if term.batch == "new" else THERE
    return np.array(found)[there].mean()


def test_terms_are_bregman_divergences():
    every = Objective(
        tuple(TERMS.values()), (Weight(0.6, "euclidean"), Weight(0.6, "fisher", prior=0.2, batches=2))
    )  # fmt: skip
    told = eqx.filter_jit(lambda m: m.losses(TWO, kept(m), STEP).told["terms"])(every)
    for term, value in zip(TERMS.values(), told[1:8], strict=True):
        assert float(value) == pytest.approx(by_definition(term), rel=1e-4, abs=1e-6), term.name
    apart = np.concatenate([(a - b).ravel() for a, b in zip(arrays(TWO), arrays(ONE), strict=True)])
    assert float(told[8]) == pytest.approx(0.6 * apart @ apart / 2, rel=1e-4)
    own = EWC(batches=2).turn(ONE, EWC().init(TWO, STREAM), OVER)
    metric = 0.2 + np.concatenate([np.ravel(f) for f in jax.tree.leaves(own.importance)])
    assert float(told[9]) == pytest.approx(0.6 * (metric * apart) @ apart / 2, rel=1e-4)


def test_the_process_tells_what_each_term_contributes():
    mixed = Objective(
        (Output(0.5, "entropy", "label"), Output(2.0, "entropy", "teacher", "old"), Output(1.0, "square", "stored", "other")),
        (Weight(2.0, "path"),),
    )  # fmt: skip
    process = continual(Compared(mixed, ER(0.5)), replay=Replay(6, 6), tell=True)
    trace = unfold(process, seeds=1, steps=10, every=1, progress=False)
    assert trace.term.values.tolist() == [
        "new: entropy to label", "old: entropy to label", "old: entropy to teacher",
        "other: square to stored", "weights: path from the last task",
    ]  # fmt: skip
    terms = trace.terms.values[0]
    np.testing.assert_allclose(terms[1:, 0], trace.new_loss.values[0, 1:], rtol=1e-6)
    np.testing.assert_allclose(
        terms[1:, 1:].sum(axis=1), trace.old_loss.values[0, 1:], rtol=1e-5, atol=1e-7
    )
    assert (
        (terms[1:4, [2, 4]] == 0).all()
        and (terms[[5, 6, 7, 9, 10], 2] > 0).all()
        and (terms[-2:, 4] > 0).all()
    )
    assert (trace.apart.values[0, 1:] > 1e-3).any()


def test_names_of_equal_terms_differ_and_tables_are_whole():
    twice = Objective((Output(1.0, "entropy", "label"), Output(2.0, "entropy", "label")))
    assert twice.names[1:] == ("old: entropy to label 1", "old: entropy to label 2")
    rows = twice.table()
    assert rows[2]["weight"] == 2.0 and rows[2]["space"] == "output" and len(rows) == 3
    assert twice.replays and not Objective((), (Weight(1.0, "euclidean"),)).replays


class Doubled(ER):
    """A method of one's own, made of one that is an instance."""

    def losses(self, model, own, lesson):
        found = super().losses(model, own, lesson)
        return found._replace(stability=2 * found.stability)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Output(-1.0, "entropy", "label"), "weight of Output"),
        (lambda: Output(float("nan"), "entropy", "label"), "weight of Output"),
        (lambda: Output(1.0, "entropy", "label", temperature=0.0), "temperature"),
        (lambda: Output(1.0, "cosine", "label"), "divergence"),
        (lambda: Output(1.0, "entropy", "mean"), "target"),
        (lambda: Output(1.0, "entropy", "label", "every"), "batch"),
        (lambda: Output(1.0, "square", "label"), "stored or teacher"),
        (lambda: Output(1.0, "entropy", "stored", "new"), "old or the other"),
        (lambda: Output(1.0, "entropy", "label", first="output"), "infinitely"),
        (lambda: Weight(1.0, "sphere"), "metric"),
        (lambda: Weight(1.0, "euclidean", prior=0.5), "prior"),
        (lambda: Weight(1.0, "fisher", decay=1.5), "decay"),
        (lambda: Objective((Weight(1.0, "path"),)), "outputs of Objective"),
        (lambda: Objective(learn=-1.0), "learn"),
        (lambda: as_objective(ERACE()), "no instance"),
        (lambda: as_objective(LwF()), "no instance"),
        (lambda: as_objective(Doubled()), "Doubled.* is no instance"),
        (lambda: as_objective(CPR(Doubled())), "Doubled.* is no instance"),
        (lambda: Objective.from_json("[]"), "first row"),
        (lambda: Objective.from_json('[{"batch": "new", "target": "label", "weight": 1}, {"space": "weight"}]'), "row 1"),
        (lambda: Objective.from_json('[{"batch": "new", "target": "label", "weight": 1}, {"space": "output", "colour": 1}]'), "colour"),
        (lambda: Objective.from_json('{"batch": "new"}'), "list of rows"),
        (lambda: Objective.from_json('[{"batch": "new", "target": "label"}]'), "row 0 .* no weight"),
        (lambda: Objective.from_json('[{"batch": "new", "target": "label", "weight": 1}, {"space": "output", "divergence": "square"}]'), "row 1 .* no target, weight"),
        (lambda: Objective.from_json('[{"batch": "new", "target": "label", "weight": 1}, {"space": "weight", "weight": 1}]'), "row 1 .* no metric"),
        (lambda: Compared(ER(), "ER"), "other of Compared"),
        (lambda: Compared(CPR(Refresh(ER())), ER()), "CPR moves the parameters"),
        (lambda: Compared(ER(), SAM(ER(), 0.1)), "SAM moves the parameters"),
        (lambda: Compared(EWC(), ER()), "ER replays"),
    ],
)  # fmt: skip
def test_what_is_no_term_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
