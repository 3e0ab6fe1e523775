"""Distillation of random teachers against NumPy, scikit-learn and what must hold."""

from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from scipy.special import erf, log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from latebloom.core.statistics import trainable_leaves
from latebloom.core.vectors import set_weights, weights
from latebloom.data import Dataset
from latebloom.methods.compression.lottery import MaskedTraining
from latebloom.methods.compression.student_tickets import Classifier, StudentTicket
from latebloom.methods.random_teachers import (
    Architecture,
    BottleneckHead,
    ConvEncoder,
    Distillation,
    Distilled,
    Landscape,
    Plane,
    divergence,
    gratings,
    linear_probe,
    nearest_neighbours,
    on_grid,
    plane_through,
    start_near,
)
from latebloom.nn import Linear

HEAD = {"hidden": 24, "bottleneck": 6, "out_size": 40}


@eqx.filter_jit
def build(key, norm=False, **head):
    encoder_key, head_key = jax.random.split(key)
    encoder = ConvEncoder(1, (4, 8), norm=norm, key=encoder_key)
    return Distilled(encoder, BottleneckHead(8, key=head_key, **(HEAD | head)))


@cache
def drawn_at_once(norm):
    """What draws networks like those of `build`: their many draws take long to compile."""
    like = build(jax.random.key(0), norm=norm)
    learned, rest = eqx.partition(like, trainable_leaves(like))
    flat, unflatten = ravel_pytree(learned)
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(learned)]
    mean, spread = (np.concatenate([f(v) + 0 * v for v in leaves]) for f in (np.mean, np.std))
    return lambda key: eqx.combine(
        unflatten(mean + spread * jax.random.normal(key, flat.shape)), rest
    )


# Processes that differ in arrays alone share these programs.
init = eqx.filter_jit(lambda process, key: process.init(key))
step = eqx.filter_jit(lambda process, state: process.step(state))
observe = eqx.filter_jit(lambda process, state: process.observe(state))
batch = eqx.filter_jit(lambda process, state: process.batch(state))
call = eqx.filter_jit(lambda model, x: model(x))
near = eqx.filter_jit(start_near)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x, y = jnp.asarray(x.reshape(-1, 8, 8, 1) / 16, jnp.float32), jnp.asarray(y)
    return Dataset(x[:300], y[:300], x[300:500], y[300:500])


def test_logits_are_cosines_and_the_scale_of_features_does_not_matter(digits):
    head = eqx.filter_jit(BottleneckHead)(8, key=jax.random.key(0), **HEAD)
    x = jax.random.normal(jax.random.key(1), (5, 8))
    logits = call(head, x)
    z, rows = np.asarray(x, float), np.asarray(head.rows)
    for layer in (*head.hidden, head.narrow):
        z = z @ np.asarray(layer.weight) + np.asarray(layer.bias)
        if layer is not head.narrow:
            z = z * (1 + erf(z / np.sqrt(2))) / 2  # GELU
    wanted = (z @ rows.T) / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(logits, wanted, rtol=2e-4, atol=1e-5)
    longer = eqx.tree_at(lambda h: (h.narrow.weight, h.rows), head, (3 * head.narrow.weight, 2 * head.rows))  # fmt: skip
    np.testing.assert_allclose(call(longer, x), logits, rtol=2e-4, atol=1e-5)
    off = jnp.asarray(False)
    plain = eqx.tree_at(lambda h: (h.unit_features, h.unit_rows), head, (off, off))
    np.testing.assert_allclose(call(plain, x), z @ rows.T, rtol=1e-3, atol=1e-6)
    narrow = call(eqx.tree_at(lambda h: h.used, head, jnp.int32(2)), x)
    a, b = z[:, :2], rows[:, :2]
    wanted = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(narrow, wanted, rtol=2e-3, atol=1e-5)
    # a gradient that flows through the normalisation is perpendicular to what is normalised
    gradient = eqx.filter_jit(eqx.filter_grad(lambda head, x: (head(x) ** 2).sum()))(head, x).rows
    np.testing.assert_allclose((np.asarray(gradient) * rows).sum(1), 0, atol=1e-4)


def test_a_convolution_halves_the_image_until_nothing_is_left():
    x = jax.random.normal(jax.random.key(1), (2, 9, 8, 1))
    deep = partial(ConvEncoder, 1, (3, 4, 5, 6, 7))
    assert jax.eval_shape(lambda key: deep(key=key)(x), jax.random.key(0)).shape == (2, 7)
    one = eqx.filter_jit(ConvEncoder)(1, (5,), key=jax.random.key(0))
    h, found = eqx.filter_jit(lambda one, x: (jax.nn.relu(one.layers[0](x)), one(x)))(one, x)
    blocks = np.asarray(h)[:, :8, :8].reshape(2, 4, 2, 4, 2, 5).max((2, 4)).mean((1, 2))
    np.testing.assert_allclose(found, blocks, rtol=1e-5)


def test_an_architecture_is_its_encoder_and_its_head():
    head = {"hidden": 24, "bottleneck": 6, "classes": 40, "unit_features": True, "unit_rows": True}
    made = Architecture("conv", 1, (4, 8), False, used=6, **head)
    np.testing.assert_array_equal(
        weights(eqx.filter_jit(made)(jax.random.key(0))), weights(build(jax.random.key(0)))
    )
    x = jax.ShapeDtypeStruct((3, 8, 8, 1), jnp.float32)
    for kind in ("resnet", "vit"):
        other = Architecture(kind, 1, (4, 8), False, used=2, **head)
        features = eqx.filter_eval_shape(lambda key, x: other.encoder(key)(x), jax.random.key(0), x)
        assert features.shape == (3, 8)


@given(st.floats(0, 1))
@settings(max_examples=20)
def test_a_start_between_two_networks_keeps_the_size_of_weights(alpha):
    teacher = {"w": jax.random.normal(jax.random.key(0), (20_000,))}
    fresh = {"w": jax.random.normal(jax.random.key(1), (20_000,))}
    started = start_near(teacher, fresh, alpha)["w"]
    assert float(started.std()) == pytest.approx(1, abs=0.03)
    cosine = float((started * teacher["w"]).mean())
    assert cosine == pytest.approx((1 - alpha) / np.hypot(alpha, 1 - alpha), abs=0.03)


def test_the_ends_are_the_teacher_and_the_other_network():
    teacher, fresh = (build(jax.random.key(i), norm=True) for i in range(2))
    np.testing.assert_array_equal(weights(near(teacher, fresh, jnp.float32(0))), weights(teacher))
    np.testing.assert_array_equal(weights(near(teacher, fresh, jnp.float32(1))), weights(fresh))


def kl(teacher, student):
    """Of softmaxes, in nats."""
    return (softmax(teacher, 1) * (log_softmax(teacher, 1) - log_softmax(student, 1))).sum(1)


@pytest.mark.parametrize("scale", [1.0, 1e-1, 1e-3, 1e-5])
def test_small_divergences_keep_their_digits(scale):
    rng = np.random.default_rng(0)
    teacher = rng.uniform(-1, 1, (4, 2000)).astype(np.float32)
    student = teacher + (scale * rng.normal(size=teacher.shape)).astype(np.float32)
    exact = kl(teacher.astype(float), student.astype(float))
    np.testing.assert_allclose(jax.jit(divergence)(teacher, student), exact, rtol=2e-3)


@pytest.mark.parametrize("apart", [0.5, 1.5, 30.0, 100.0, 1e4])
def test_divergences_of_any_size_are_scipy_s(apart):
    rng = np.random.default_rng(0)
    teacher, student = (np.asarray(rng.normal(size=(20, 6)) * apart, np.float32) for _ in range(2))
    t, s = (log_softmax(z.astype(float), axis=-1) for z in (teacher, student))
    exact = (np.exp(t) * (t - s)).sum(-1)
    np.testing.assert_allclose(jax.jit(divergence)(teacher, student), exact, rtol=1e-4, atol=1e-6)
    slopes = jax.grad(lambda z: divergence(jnp.asarray(teacher), z).sum())(jnp.asarray(student))
    np.testing.assert_allclose(slopes, np.exp(s) - np.exp(t), atol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e4])
def test_neighbours_do_not_depend_on_where_the_origin_is(offset):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = np.eye(3)[y] * 2 + rng.normal(size=(90, 3))
    x = np.round(x * 64) / 64  # exact in single precision after the shift, too
    given = jnp.asarray(x + offset, jnp.float32), jnp.asarray(y)
    found = nearest_neighbours(given[0][:60], given[1][:60], given[0][60:], given[1][60:], classes=3, neighbours=5)  # fmt: skip
    expected = KNeighborsClassifier(5).fit(x[:60], y[:60]).score(x[60:], y[60:])
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_the_linear_probe_is_as_good_as_logistic_regression_and_repeats(digits):
    x, test = (np.asarray(v.reshape(len(v), -1)) for v in (digits.x_train, digits.x_test))
    rival = LogisticRegression(max_iter=2000).fit(x, digits.y_train).score(test, digits.y_test)

    @jax.jit
    def probe(x, test, standardise):
        return linear_probe(
            x, digits.y_train, test, digits.y_test, jax.random.key(0), epochs=200, rate=1e-2,
            batch_size=64, standardise=standardise,
        )  # fmt: skip

    found = [float(probe(x, test, False)) for _ in range(2)]
    assert found[0] == found[1] == pytest.approx(rival, abs=0.03)
    assert float(probe(1000 * x + 5, 1000 * test + 5, True)) == pytest.approx(rival, abs=0.05)


def test_nearest_neighbours_are_scikit_learns(digits):
    x, test = (v.reshape(len(v), -1) for v in (digits.x_train, digits.x_test))
    rival = KNeighborsClassifier(20).fit(x, digits.y_train).score(test, digits.y_test)
    found = jax.jit(nearest_neighbours)(x, digits.y_train, test, digits.y_test)
    assert float(found) == pytest.approx(rival, abs=0.011)  # ties at the 20th may differ


def process(digits, norm=False, **options):
    options = {"batch_size": 100, "probe_epochs": 2} | options
    return Distillation(model=drawn_at_once(norm), data=digits, **options)


def test_a_step_is_adam_on_the_cross_entropy_to_the_teacher(digits):
    p = process(digits, alpha=0.5)
    state = init(p, jax.random.key(3))
    x, teacher = batch(p, state), state.teacher
    wanted = softmax(np.asarray(call(teacher, x)), 1)

    def loss(student):
        return -(wanted * jax.nn.log_softmax(student(x, train=True))).sum(1).mean()

    start = weights(state.student)
    gradient = weights(eqx.filter_jit(eqx.filter_grad(loss))(state.student))
    after = step(p, state)
    # the first step of Adam is its learning rate along the sign of the gradient
    moved = np.asarray(weights(after.student) - start)
    large = np.abs(gradient) > 1e-5
    np.testing.assert_allclose(moved[large], -1e-3 * np.sign(gradient[large]), rtol=1e-2)
    np.testing.assert_array_equal(weights(after.teacher), weights(teacher))


def test_equal_students_have_no_gradient_unless_batch_normalisation_tells_them_apart(digits):
    for norm, moves in ((False, False), (True, True)):
        p = process(digits, norm=norm, alpha=0.0, optimiser=optax.sgd)
        state = init(p, jax.random.key(0))
        after = step(p, state)
        change = np.abs(weights(after.student) - weights(state.student)).max()
        assert bool(change > 1e-7) is moves
        if norm:
            assert (after.teacher.encoder.norms[0].mean == 0).all()
            assert not (after.student.encoder.norms[0].mean == 0).all()


def test_students_come_nearer_to_their_teacher_and_noise_is_not_the_images(digits):
    p = process(digits, alpha=1.0)
    first = last = init(p, jax.random.key(0))
    for _ in range(40):
        last = step(p, last)
    before, after = observe(p, first), observe(p, last)
    assert after["divergence"] < 0.5 * before["divergence"]
    assert before["teacher_probe"] == after["teacher_probe"]
    p = process(digits, noise=True)
    drawn = np.asarray(batch(p, init(p, jax.random.key(0))))
    assert abs(drawn.mean()) < 0.1 and drawn.min() < -2
    few = process(digits, examples=120)
    seen = np.asarray(batch(few, init(few, jax.random.key(0)))).reshape(100, -1)
    known = np.asarray(digits.x_train[:120]).reshape(120, -1)
    assert all((known == row).all(1).any() for row in seen)


def test_a_student_becomes_the_teacher_of_the_next(digits):
    p = process(digits, generation=2, alpha=0.25)
    first = step(p, step(p, init(p, jax.random.key(1))))
    third = step(p, first)
    np.testing.assert_array_equal(weights(third.teacher), weights(first.student))
    start = weights(near(first.student, first.fresh, jnp.float32(0.25)))
    # the first step of a new Adam is at most its learning rate, for most weights exactly that
    moved = np.abs(np.asarray(weights(third.student) - start))
    assert moved.max() < 1.01e-3 and np.median(moved) > 0.9e-3
    np.testing.assert_array_equal(weights(step(p, third).teacher), weights(first.student))


def test_no_pixel_of_a_grating_says_what_it_is():
    data = gratings(2000, 500)
    assert data.x_train.shape == (2000, 8, 8, 1) and data.x_test.shape == (500, 8, 8, 1)
    assert float(data.x_train.mean()) == pytest.approx(0, abs=1e-4)
    assert float(data.x_train.std()) == pytest.approx(1, abs=1e-3)
    assert np.bincount(data.y_train).min() > 150 and len(np.unique(data.y_train)) == 10
    x, test = (np.asarray(v.reshape(len(v), -1)) for v in (data.x_train, data.x_test))
    linear = RidgeClassifier().fit(x, data.y_train).score(test, data.y_test)
    assert linear < 0.4  # a third, at best
    energies = [np.abs(np.fft.fft2(v.reshape(-1, 8, 8))).reshape(len(v), -1) for v in (x, test)]
    model = RidgeClassifier().fit(energies[0], data.y_train)
    assert model.score(energies[1], data.y_test) > 0.9  # a Fourier spectrum does
    with pytest.raises(ValueError, match="at least one image"):
        gratings(0, 5)


def test_a_plane_holds_the_three_networks_and_distances():
    teacher, one, other = (build(jax.random.key(i)) for i in range(3))
    plane = plane_through(teacher, one, other)
    for place, model in (((0, 0), teacher), ((1, 0), one), ((0, 1), other)):
        there = eqx.filter_jit(Plane.at)(plane, *map(jnp.float32, place))
        np.testing.assert_allclose(weights(there), weights(model), atol=1e-6)
        np.testing.assert_allclose(plane.coordinates(model), place, atol=1e-4)
    flat = plane_through(teacher, one, other, orthogonal=True)
    there = flat.coordinates(other) - flat.coordinates(one)
    away = jnp.linalg.norm(weights(other) - weights(one))
    assert float(jnp.linalg.norm(there)) == pytest.approx(float(away), rel=1e-3)
    grid = on_grid(
        plane, jnp.array([0.0, 1.0]), jnp.array([0.0, 0.5, 1.0]), lambda m: weights(m)[:2]
    )
    assert grid.shape == (2, 3, 2)
    there = weights(teacher) + plane.first + 0.5 * plane.second
    np.testing.assert_allclose(grid[1, 1], there[:2], atol=1e-6)
    with pytest.raises(ValueError, match="lie on one line"):
        plane_through(teacher, one, near(teacher, one, jnp.float32(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 400}, "batch_size 400 and examples 300"),
        ({"examples": 301}, "from 1 to the 300 training images"),
        ({"generation": 0}, "at least 1 step"),
        ({"alpha": 1.5}, "alpha must be in"),
    ],
)
def test_bad_arguments_are_refused(digits, options, message):
    with pytest.raises(ValueError, match=message):
        process(digits, **options)


def test_a_landscape_is_that_of_its_three_networks(digits):
    p = Landscape(process(digits, alpha=0.5), at=jnp.array([0.0, 1.0]), shown=100)
    state = step(p, init(p, jax.random.key(0)))
    seen = observe(p, state)
    near, far = state
    np.testing.assert_array_equal(weights(near.teacher), weights(far.teacher))
    x = digits.x_test[:100]
    said = np.asarray(call(near.teacher, x), float)
    apart = [kl(said, np.asarray(call(one.student, x), float)).mean() for one in state]
    np.testing.assert_allclose(seen["divergence"][1, 0], apart[0], rtol=1e-2, atol=1e-9)
    np.testing.assert_allclose(seen["divergence"][0, 1], apart[1], rtol=1e-2)
    assert float(seen["divergence"][0, 0]) == pytest.approx(0, abs=1e-9)
    lengths = [np.linalg.norm(weights(s.student) - weights(s.teacher)) for s in state]
    np.testing.assert_allclose(seen["distances"][:2], lengths, rtol=1e-4)
    features = [np.asarray(call(far.student.encoder, v[:100])) for v in (digits.x_train, x)]
    labels = np.asarray(digits.y_train[:100]), np.asarray(digits.y_test[:100])
    rival = KNeighborsClassifier(20).fit(features[0], labels[0]).score(features[1], labels[1])
    assert float(seen["neighbours"][0, 1]) == pytest.approx(rival, abs=0.021)


def test_tickets_are_pruned_from_a_student_and_rewound_to_it(digits):
    p = process(digits)
    training = MaskedTraining(
        model=lambda key: Classifier(drawn_at_once(False)(key).encoder, Linear(8, 10, key=key)),
        data=digits, optimiser=optax.sgd, hyper={"learning_rate": 0.1}, batch_size=100,
        loss=optax.softmax_cross_entropy_with_integer_labels, seeds_by="map",
    )  # fmt: skip

    def tickets(distilled):
        return StudentTicket(
            training, p, distilled=distilled, steps=4, rewind=0, fraction=0.5, controls_at=(0,),
            points=3,
        )  # fmt: skip

    start = init(tickets(3), jax.random.key(0))
    dense = step(tickets(3), start)
    # the encoder is the student's, distilled by hand; the readout is left alone
    student = init(p, jax.random.fold_in(start.key, 0xD157))
    teacher = student.teacher
    for _ in range(3):
        student = step(p, student)
    np.testing.assert_allclose(
        weights(dense.rewound.encoder), weights(student.student.encoder), atol=1e-6
    )
    np.testing.assert_array_equal(dense.rewound.readout.weight, start.rewound.readout.weight)
    sparse = step(tickets(3), dense)  # distils no more
    np.testing.assert_array_equal(weights(sparse.rewound), weights(dense.rewound))
    masks = jax.tree.leaves(sparse.masks)
    assert len(masks) == 2  # the two convolutions
    left, size = (sum(f(m) for m in masks) for f in (lambda m: m.sum(), lambda m: m.size))
    assert float(left / size) == pytest.approx(0.5, abs=0.01)
    seen = observe(tickets(3), dense)
    one, other = (
        jax.tree.map(lambda v, i=i: v[i] if eqx.is_array(v) else v, dense.runs) for i in (0, 1)
    )
    middle = set_weights(one, (weights(one) + weights(other)) / 2)
    score = eqx.filter_jit(lambda m: (m(digits.x_test).argmax(1) != digits.y_test).mean())
    errors = [float(score(m)) for m in (one, middle, other)]
    np.testing.assert_allclose(seen["path"], errors, atol=0.006)
    worst = max(errors) - (errors[0] + errors[2]) / 2
    assert float(seen["barrier"]) == pytest.approx(worst, abs=0.011)
    assert np.isnan(observe(tickets(3), sparse)["barrier"])
    random = step(tickets(0), start)
    np.testing.assert_allclose(weights(random.rewound.encoder), weights(teacher.encoder), atol=0.01)


@pytest.mark.parametrize(
    "probe", [nearest_neighbours, partial(linear_probe, key=jax.random.key(0))]
)
def test_labels_beyond_the_classes_are_refused(probe):
    x, y = jnp.eye(6), np.array([0, 100, 200, 0, 100, 200])
    with pytest.raises(ValueError, match="labels must be from 0 to 2, but row 1 has 100"):
        probe(x, y, x, y // 100, classes=3)
    with pytest.raises(ValueError, match="test_labels must be from 0 to 2, but row 1 has 100"):
        probe(x, y // 100, x, y, classes=3)
