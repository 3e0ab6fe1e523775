"""Small runs of pointer networks on problems drawn anew."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import unfold
from latebloom.core.training import step_key
from latebloom.data.planar import Hulls, hull, label_all
from latebloom.data.tours import Tours, christofides, distances
from latebloom.methods.recurrence.pointer import PointerNetwork, sequence_loss
from latebloom.methods.recurrence.pointer_answers import judged
from latebloom.methods.recurrence.pointer_decoding import write
from latebloom.methods.recurrence.pointer_learning import (
    Answered,
    Kept,
    PointerLearner,
    clipped_adam,
)

EXAM = Hulls(3, 5).draw(jax.random.key(9), 100)


def network(key):
    return PointerNetwork(16, key=key)


def learner(**more):
    return PointerLearner(
        **{"network": network, "problems": Hulls(3, 5), "kind": "hull", "exams": {"same": EXAM}, "batch": 32,
           "hyper": {"learning_rate": 1.0}} | more
    )  # fmt: skip


def test_hulls_are_learned_and_recorded():
    same, larger = (Hulls(*n).draw(jax.random.key(8), 100) for n in ((3, 4), (5, 5)))
    process = learner(
        network=lambda key: PointerNetwork(12, key=key), problems=Hulls(3, 4), exams={"same": same, "larger": larger},
        optimiser=clipped_adam, hyper={"learning_rate": 2e-2}, bound=0.3,
    )  # fmt: skip
    trace = unfold(process, seeds=2, at=[0, 100], progress=False)
    assert trace.exam.values.tolist() == ["same", "larger"] and trace.loss.dims == (
        "seed",
        "step",
        "exam",
    )
    at = trace.sel(exam="same")
    assert (at.loss[:, 1] < 0.55 * at.loss[:, 0]).all()
    assert (at.exact[:, 1] > 0.15).all() and (at.exact[:, 0] < 0.05).all()
    assert (at.failed[:, 1] < 0.8).all() and (at.failed[:, 0] > 0.9).all()
    assert (at.area[:, 1] > 0.5).all() and (trace.train_loss[:, 1] < at.loss[:, 0]).all()
    blank = (np.asarray(same.lengths) * np.log(np.asarray(same.counts) + 1)).mean()
    np.testing.assert_allclose(at.loss[:, 0], blank, rtol=0.05)  # at first it knows nothing


def test_a_step_is_descent_with_a_clipped_gradient_on_fresh_problems():
    process = learner(problems=Hulls(3, 5), per="sequence")
    state = process.init(jax.random.key(0))
    assert (
        max(float(jnp.abs(a).max()) for a in jax.tree.leaves(eqx.filter(state.model, eqx.is_array)))
        <= 0.08
    )
    drawn = Hulls(3, 5).draw(step_key(state.key, state.step), 32)

    def loss(model):
        scores = model(drawn.points, drawn.counts, drawn.targets)
        return sequence_loss(scores, drawn.targets, drawn.lengths)

    value, slopes = eqx.filter_jit(eqx.filter_value_and_grad(loss))(state.model)
    after = eqx.filter_jit(process.step)(state)
    norm = optax.tree.norm(slopes)
    assert after.info["train_loss"] == pytest.approx(float(value), rel=1e-5)
    assert after.info["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)
    by = min(1.0, 2.0 / float(norm))
    moved = jax.tree.map(lambda a, s: a - by * s, state.model, slopes)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(after.state.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    again = Hulls(3, 5).draw(step_key(after.state.key, after.state.step), 32)
    assert not np.allclose(drawn.points, again.points)


def test_tours_are_learned_from_a_teacher_at_hand():
    points = np.asarray(Tours(4, 4).draw(jax.random.key(3), 50).points)
    problems = label_all(list(points), lambda p: christofides(distances(p)).cities, end=False)
    assert problems.targets.shape == (50, 4) and (problems.targets[:, 0] == 1).all()
    process = learner(
        problems=Kept(problems), kind="tour", exams={"kept": problems}, widths={"kept": 2}
    )
    state = process.init(jax.random.key(0))
    seen = eqx.filter_jit(process.observe)(state)
    assert seen["failed"].tolist() == [0] and np.isfinite(seen["length"]).all()
    one = judged(state.model, problems, "tour", width=2)
    assert seen["gap"][0] == pytest.approx(float(one["gap"].mean()), abs=1e-6)
    rows = Kept(problems).draw(jax.random.key(0), 1000)
    assert {tuple(p) for p in np.asarray(rows.points[:, 0]).tolist()} == {
        tuple(p) for p in points[:, 0].tolist()
    }


def test_bad_settings_are_refused():
    wrong = label_all([[[0, 0], [1, 0], [0, 1]]], hull)
    wrong = wrong._replace(targets=wrong.targets + 1)
    for more, why in (
        ({"kind": "x"}, "kind must be"), ({"per": "x"}, "per must be"), ({"batch": 0}, "batch must be"),
        ({"widths": {"same": 0}}, "not 0 of"), ({"widths": {"other": 2}}, "2 of 'other'"), ({"exams": {}}, "at least one exam"),
        ({"exams": {"a": wrong}}, "'a' point beyond"), ({"show": 101}, "0 to the 100 problems"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            learner(**more)
    for more, why in (
        ({"exams": {}}, "at least one exam"), ({"exams": {"a": wrong}}, "'a' point beyond"), ({"kind": "x"}, "kind must be"),
        ({"answers": {}}, "100 answers to exam 'same'"), ({"answers": {"same": EXAM.targets[:9]}}, "100 answers"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            Answered(**{"exams": {"same": EXAM}, "answers": {"same": EXAM.targets}, "kind": "hull"} | more)  # fmt: skip


def test_first_answers_are_shown_and_free_ones_counted():
    exams = {n: Tours(int(n), int(n)).draw(jax.random.key(1), 20) for n in ("3", "5")}
    process = learner(kind="tour", problems=Tours(3, 5), exams=exams, show=2, widths={"5": 2})
    state = process.init(jax.random.key(0))
    seen = eqx.filter_jit(process.observe)(state)
    assert seen["answer"].shape == (2, 2, 5) and not seen["answer"][0, :, 3:].any()
    for row, (name, width) in enumerate((("3", 1), ("5", 2))):
        exam, n = exams[name], int(name)
        own = write(state.model, exam.points, exam.counts, steps=n, width=width, tours=True)
        assert seen["answer"][row, :, :n].tolist() == own.tokens[:2, 0].tolist()
        free = write(state.model, exam.points, exam.counts, steps=n, width=width).tokens[:, 0]
        none = [sorted(t) != list(range(1, n + 1)) for t in np.asarray(free).tolist()]
        assert seen["free_failed"][row] == pytest.approx(np.mean(none))
    assert set(seen) == set(process.quantities()) - {"train_loss", "gradient_norm"}


def test_answers_at_hand_are_scored_for_every_seed():
    short = EXAM.targets.at[:30].set(0)
    process = Answered(exams={"a": EXAM, "b": EXAM}, answers={"b": short, "a": EXAM.targets}, kind="hull", show=1)  # fmt: skip
    trace = unfold(process, seeds=2, at=[0, 1], progress=False)
    assert trace.exact.dims == ("seed", "step", "exam")
    np.testing.assert_allclose(trace.exact.sel(exam="a"), 1)
    np.testing.assert_allclose(trace.exact.sel(exam="b"), 0.7)
    np.testing.assert_allclose(trace.failed.sel(exam="b"), 0.3)
    np.testing.assert_allclose(trace.area, 1, rtol=1e-6)  # of those that are polygons
    assert trace.answer.sel(exam="a")[1, 1, 0].values.tolist() == EXAM.targets[0].tolist()
