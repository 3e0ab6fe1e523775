"""A learner for streams of one's own: what it takes, what it says, and that it goes on to the bit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import nn
from latebloom.core.augmentation import Views
from latebloom.core.checkpoint import DamagedFile
from latebloom.methods.forgetting import online_learner
from latebloom.methods.forgetting.online_learner import OnlineLearner
from latebloom.methods.forgetting.prototypes import OnPro, ocm

RNG = np.random.default_rng(0)
Y = np.array(["cat", "dog", "emu", "fox"])[np.arange(120) // 30]
X = RNG.uniform(size=(120, 4, 4, 1)).astype(np.float32)
X[np.arange(120), np.arange(120) // 30] += 1
METHOD = OnPro(Views(0, 0, (0.8, 1)), copies=4)


def encoder(key):
    return nn.ConvFeatures(1, (8,), key=key)


def learner(**more):
    settings = {"memory": 16, "replay": 8, "batch_size": 6, "projected": 4, "rate": 0.01, "watch": 5, "method": METHOD}  # fmt: skip
    return OnlineLearner(encoder, 5, **settings | more)


@pytest.fixture(scope="module")
def learned():
    one = learner()
    for start in range(0, 120, 7):  # 7 is no multiple of the batches of 6
        one.observe(X[start : start + 7], Y[start : start + 7])
    return one


def test_it_learns_and_says_what_it_knows(learned):
    assert learned.classes == ["cat", "dog", "emu", "fox"]
    assert learned.predict(X[:3]).shape == (3,) and learned.scores(X[:3]).shape == (3, 4)
    table = learned.confusion(X, Y)
    assert table.sum(axis=1).tolist() == [30] * 4
    right = (learned.predict(X) == Y).reshape(4, 30).mean(axis=1)
    np.testing.assert_allclose(learned.accuracy(X, Y).to_numpy(), right)
    x, y = learned.memory()
    assert len(x) == 16 and set(y) <= set(Y)
    places = [np.flatnonzero((X == one).all(axis=(1, 2, 3)))[0] for one in x]
    assert (Y[places] == y).all() and len(set(places)) == 16
    assert learned.memory_bytes >= x.nbytes
    strange = learned.accuracy(X[:2], ["cat", "yak"])
    assert strange["yak"] == 0 and np.isnan(strange["dog"])


def test_distances_are_those_of_the_means_of_what_is_remembered(learned):
    x, y = learned.memory()
    model = learned.model
    z = np.asarray(model.projection(model.encoder(jnp.asarray(x))))
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    apart = learned.distances()
    for a in set(y):
        for b in set(y) - {a}:
            expected = np.linalg.norm(z[y == a].mean(0) - z[y == b].mean(0))
            np.testing.assert_allclose(apart.loc[a, b], expected, rtol=1e-3)
    closest = learned.confusable(2)
    assert closest.distance.iloc[0] == np.nanmin(apart.to_numpy())
    watched = learned.over_time()
    assert watched.batches.values.tolist() == [5, 10, 15, 20, 25, 30, 35]
    assert np.isnan(watched.sel(batches=5, other="fox")).all()


def test_a_saved_learner_goes_on_to_the_bit(tmp_path):
    one = learner()
    one.observe(X[:70], Y[:70])
    one.save(tmp_path / "it")
    two = learner().load(tmp_path / "it")
    for each in (one, two):
        each.observe(X[70:], Y[70:])
    assert one.classes == two.classes and one.seen == two.seen
    np.testing.assert_array_equal(one.scores(X), two.scores(X))
    np.testing.assert_array_equal(one.over_time(), two.over_time())
    with pytest.raises(ValueError, match="other settings"):
        learner(memory=17).load(tmp_path / "it")
    with pytest.raises(ValueError, match="other settings"):
        learner(method=OnPro(Views(0, 0, (0.8, 1)), copies=4, chance=0.5)).load(tmp_path / "it")
    with pytest.raises(ValueError, match="other settings"):
        learner(method=OnPro(Views(0, 0, (0.7, 1)), copies=4)).load(tmp_path / "it")
    with pytest.raises(ValueError, match="other settings"):
        learner(rate=0.02).load(tmp_path / "it")
    (tmp_path / "it").write_bytes((tmp_path / "it").read_bytes()[:-3])
    with pytest.raises(DamagedFile, match="damaged"):
        learner().load(tmp_path / "it")


def test_new_classes_begin_a_task_once_the_last_has_settled():
    one = learner(settled=3)
    one.observe(X[::10], Y[::10])  # two batches with all classes at once
    assert one._task == 0
    two = learner(settled=4)
    for start, n, task in (
        (0, 24, 0),
        (30, 18, 1),
        (60, 24, 1),
        (90, 24, 2),
    ):  # 4, 3, 4 and 4 batches
        two.observe(X[start : start + n], Y[start : start + n])
        assert two._task == task
    three = learner()
    for name in ("spring", "summer", "spring"):
        three.observe(X[:6], Y[:6], task=name)
    assert three._task == 1


BAD = np.where(np.arange(120)[:, None, None, None] == 3, np.nan, X)


@pytest.mark.parametrize(("x", "y", "message"), [
    (X[:3], Y[:2], "its n classes"), (X[:0], Y[:0], "its n classes"), (BAD, Y, "not finite in row 3"),
    ((255 * X).astype(np.uint8), Y, "pixels / 255"), (X[:6], np.arange(6), "announce more classes"),
    (X[:3], [0.5, 1.0, 2.0], "whole numbers or names"), (X[:2], np.array([np.nan, 1.0]), "whole numbers or names"),
    (X[:2], ["cat", None], "whole numbers or names, not None"), (X[:2], [["cat"], ["dog"]], "not \\[2, 1\\]"),
])  # fmt: skip
def test_what_it_cannot_learn_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        learner().observe(x, y)


@pytest.mark.parametrize(("more", "message"), [
    ({"replay": 17}, "at most the 16 places"), ({"rate": float("nan")}, "rate must be"), ({"batch_size": 0}, "batch_size must be"),
    ({"watch": -1}, "watch must be"), ({"method": ocm()}, "must not be distilled"),
])  # fmt: skip
def test_settings_that_make_no_learner_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        learner(**more)


def test_shapes_are_told_when_they_come():
    with pytest.raises(ValueError, match="at most the 8 features"):
        learner(projected=9).observe(X[:2], Y[:2])
    with pytest.raises(ValueError, match="nothing was observed"):
        learner().predict(X)


def test_divergence_is_told():
    one = learner(optimiser=optax.sgd(1e30), watch=1)
    with pytest.raises(ValueError, match="diverged"):
        one.observe(X[:12], Y[:12])


def test_divergence_is_told_where_nobody_watches():
    one = learner(optimiser=optax.sgd(1e30), watch=0)
    one.observe(X[:12], Y[:12])
    with pytest.raises(ValueError, match="diverged"):
        one.predict(X)


class Plain(eqx.Module):
    """One example at a time, with dropout, a whole number, and an array of NumPy's."""

    inner: eqx.nn.Linear
    drop: eqx.nn.Dropout
    count: jax.Array
    shift: np.ndarray

    def __init__(self, key):
        self.inner, self.drop = eqx.nn.Linear(16, 6, key=key), eqx.nn.Dropout(0.3)
        self.count, self.shift = jnp.arange(3), np.ones(6)

    def __call__(self, x, *, key=None):
        h = jax.nn.relu(self.inner(jnp.ravel(x)) + self.shift)
        return self.drop(h, key=key)


def test_a_plain_network_goes_on_to_the_bit_and_is_as_before_after_a_batch_refused(tmp_path):
    made = [OnlineLearner(Plain, 5, memory=16, replay=8, batch_size=6, projected=4, method=METHOD) for _ in range(2)]  # fmt: skip
    one, two = made
    with pytest.raises(ValueError, match="grey ones are"):
        one.observe(X[:6, ..., 0], Y[:6])
    assert one.classes == [] and one.seen == 0
    one.observe(X[:6], Y[:6])  # with an axis of channels
    one.save(tmp_path / "it")
    two.load(tmp_path / "it")
    for each in (one, two):
        each.observe(X[60:66], np.array([7, 7, 8, 8, 8, 7]))
    np.testing.assert_array_equal(one.scores(X), two.scores(X))
    # Names and numbers stay what they are.
    assert {*one.predict(X), *one.memory()[1]} <= {"cat", 7, 8}
    np.testing.assert_array_equal(one.scores(X.astype(np.float64)), one.scores(X))


class Frozen(eqx.Module):
    """Fixed random features, and a layer that learns."""

    fixed: jax.Array
    learned: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.fixed, self.learned = jax.random.normal(one, (16, 8)), eqx.nn.Linear(8, 6, key=two)

    def __call__(self, x):
        return jax.nn.relu(self.learned(jnp.tanh(jnp.ravel(x) @ jax.lax.stop_gradient(self.fixed))))


def test_what_is_frozen_stays_and_the_rest_decays():
    before = Frozen(jax.random.key(3))
    one = OnlineLearner(before, 5, memory=16, replay=8, batch_size=6, projected=4, rate=0.01, method=METHOD)  # fmt: skip
    one.observe(X[24:42], Y[24:42])
    np.testing.assert_array_equal(one.model.encoder.fixed, before.fixed)
    assert np.any(one.model.encoder.learned.weight != before.learned.weight)
    rule = online_learner._decayed(0.1)
    weights = {"some": jnp.array([2.0, -4.0]), "none": jnp.array([3.0]), "nothing": None}
    slopes = {"some": jnp.array([1.0, 0.0]), "none": jnp.array([0.0]), "nothing": None}
    found = rule.update(slopes, rule.init(weights), weights)[0]
    np.testing.assert_allclose(found["some"], [1.2, -0.4], rtol=1e-6)
    assert found["none"] == 0 and found["nothing"] is None


def test_a_list_of_names_and_numbers_keeps_both():
    one = learner()
    one.observe(X[:3], ["cat", 7, np.int64(7)])
    one.observe(X[3:6], np.array([7, 7, 8]))
    assert one.classes == ["cat", 7, 8]
    assert one.confusion(X[:3], ["cat", 7, 7]).sum(axis=1).to_dict() == {"cat": 1, 7: 2, 8: 0}


@pytest.mark.parametrize(("x", "message"), [
    ((255 * X).astype(np.uint8), "pixels / 255"), (BAD, "not finite in row 3"), (X[0], "as before"), (X[:, :3], "as before"),
])  # fmt: skip
def test_what_it_cannot_tell_is_refused(learned, x, message):
    with pytest.raises(ValueError, match=message):
        learned.predict(x)


def test_exams_without_a_class_for_each_are_refused(learned):
    with pytest.raises(ValueError, match="each of the 4 examples"):
        learned.confusion(X[:4], Y[:3])
    with pytest.raises(ValueError, match="not \\[4, 1\\]"):
        learned.accuracy(X[:4], Y[:4, None])


def test_inputs_need_not_be_images():
    flat = X.reshape(120, 16)
    with pytest.raises(ValueError, match=r"take a view\(x, key\) of your own"):
        OnlineLearner(Plain, 5, memory=16, replay=8, projected=4, method=METHOD).observe(flat, Y)
    method = OnPro(lambda x, key: x + 0.1 * jax.random.normal(key, x.shape), copies=1)
    one = OnlineLearner(lambda key: eqx.nn.MLP(16, 6, 8, 1, key=key), 5, memory=16, replay=8, batch_size=6, projected=4, method=method)  # fmt: skip
    one.observe(flat[24:42], Y[24:42])
    assert set(one.predict(flat)) <= {"cat", "dog"} and np.isfinite(one.scores(flat)).all()
