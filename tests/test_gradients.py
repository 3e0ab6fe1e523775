"""Gradients of every loss at awkward logits: by finite differences in double precision, and in half.

Awkward are zeros (a readout that starts at zero), ties, logits of which the softmax is 0 and 1, and
masked ones (-inf).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import losses
from latebloom.methods.forgetting.distillation import divergence, proper_divergence
from latebloom.methods.forgetting.replay import supervised_contrast, unit
from latebloom.methods.noisy_labels import losses as noisy
from latebloom.nn import MLP

TARGETS = np.array([[0.7, 0.1, 0.2], [0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
TRANSITION = np.array([[0.8, 0.2, 0.0], [0.0, 0.8, 0.2], [0.2, 0.0, 0.8]])
ALLOWED = np.array([[True, True, False], [False, True, False], [True, False, False]])
TEACHER = np.array([[0.0, 0.0, 0.0], [3.0, -1.0, 0.5], [12.0, 0.0, -12.0]])
LABELS = jnp.array([0, 1, 2], jnp.int32)
LOSSES = {
    "softmax": losses.cross_entropy,
    "stablemax": losses.stablemax_cross_entropy,
    "squared": losses.mean_squared_error,
    "elr": lambda z, y: noisy.elr_loss(z, y, jnp.asarray(TARGETS, z.dtype), 3.0),
    "kl": lambda z, y: noisy.kl_loss(z, y, jnp.asarray(TARGETS, z.dtype), 3.0),
    "gce": partial(noisy.generalised_cross_entropy, q=0.7),
    "sce": partial(noisy.symmetric_cross_entropy, a=0.1, b=1.0),
    "soft-bootstrap": partial(noisy.soft_bootstrap, beta=0.8),
    "hard-bootstrap": partial(noisy.hard_bootstrap, beta=0.8),
    "forward": lambda z, y: noisy.forward_loss(z, y, jnp.asarray(TRANSITION)),
    "masked": lambda z, y: losses.masked_cross_entropy(z, y, jnp.asarray(ALLOWED)),
    "lwf": lambda z, y: divergence(jnp.asarray(TEACHER, z.dtype), z, jnp.asarray(ALLOWED[0])),
    "lwf of seen": lambda z, y: proper_divergence(jnp.asarray(TEACHER, z.dtype), z, jnp.asarray(ALLOWED[0])),
}  # fmt: skip
LOGITS = {
    "zero": np.zeros((3, 3)),
    "negative zero": -np.zeros((3, 3)),
    "near zero": np.array([[1e-7, -1e-7, 0.0], [0.0, 1e-7, 1e-7], [-1e-7, 0.0, -1e-7]]),
    "one at zero": np.array([[0.0, 2.0, -2.0], [1.0, 0.0, -1.0], [-3.0, 0.5, 0.0]]),
    "tie": np.array([[1.0, 1.0, -4.0], [2.0, 2.0, 2.0], [-5.0, -5.0, 3.0]]),
    "sure": np.array([[12.0, 0.0, -1.0], [0.0, 12.0, 0.0], [-1.0, 0.0, 12.0]]),
    "sure and wrong": np.array([[-30.0, 9.0, 0.0], [40.0, 0.0, 1.0], [35.0, 1.0, 0.0]]),
}  # fmt: skip
# ELR clamps probabilities at 1e-4 and 1 - 1e-4, where it really has kinks; the class that hard
# bootstrap takes for the label jumps at a tie.
SMOOTH = [
    (loss, logits) for loss in LOSSES for logits in LOGITS
    if (loss, logits) not in {("hard-bootstrap", name) for name in ("zero", "negative zero", "near zero", "tie")}
]  # fmt: skip


@pytest.mark.parametrize(("loss", "logits"), SMOOTH)
def test_gradients_are_differences(loss, logits):
    with jax.enable_x64():
        z, of = jnp.asarray(LOGITS[logits], jnp.float64), LOSSES[loss]
        found = jax.grad(lambda z: of(z, LABELS).sum())(z)
        assert found.dtype == z.dtype
        steps = 1e-6 * jnp.eye(z.size).reshape(-1, *z.shape)
        total = jax.vmap(lambda step: of(z + step, LABELS).sum())
        expected = ((total(steps) - total(-steps)) / 2e-6).reshape(z.shape)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_are_finite_in_every_precision(loss, dtype):
    for name, logits in LOGITS.items():
        z = jnp.asarray(logits, dtype)
        found, slope = jax.vjp(lambda z: LOSSES[loss](z, LABELS), z)
        assert jnp.isfinite(found).all(), name
        (gradient,) = slope(jnp.ones_like(found))
        assert gradient.dtype == z.dtype, name
        assert jnp.isfinite(gradient).all(), name
        with jax.enable_x64():
            exact = LOSSES[loss](jnp.asarray(logits, jnp.float64), LABELS)
        np.testing.assert_allclose(np.asarray(found, float), exact, rtol=3e-2, atol=3e-2)


MASKED = (-1e9, -np.inf)


@pytest.mark.parametrize("masked", MASKED)
@pytest.mark.parametrize(
    "loss",
    [
        name
        for name in LOSSES
        if name not in ("squared", "kl", "elr", "masked", "lwf", "lwf of seen")
    ],
)
def test_a_masked_class_changes_nothing_for_the_others(loss, masked):
    """As where some classes are not to be chosen from: their logits are -inf, or a very low number."""
    z = jnp.array([[0.3, -0.2, masked], [1.0, 0.5, masked]], jnp.float32)
    y = jnp.array([0, 1], jnp.int32)
    gradient = jax.grad(lambda z: LOSSES[loss](z, y).sum())(z)
    assert jnp.isfinite(LOSSES[loss](z, y)).all()
    assert jnp.isfinite(gradient).all()
    if loss not in ("stablemax", "forward"):  # these give some of the probability to it
        assert not gradient[:, 2].any()


@pytest.mark.parametrize("masked", MASKED)
@pytest.mark.parametrize("precision", [None, "float16", "float32"])
def test_a_masked_class_is_no_matter_in_any_precision(masked, precision):
    z = jnp.array([[30.0, 0.0, masked], [1.0, 0.5, masked]], jnp.float32)
    y = jnp.array([0, 1], jnp.int32)
    found = losses.cross_entropy(z, y, precision)
    np.testing.assert_allclose(found, [0, np.log1p(np.exp(0.5))], rtol=2e-3)
    np.testing.assert_array_equal(losses.collapsed(z, precision), [True, False])
    gradient = jax.grad(lambda z: losses.cross_entropy(z, y, precision).sum())(z)
    p = 1 / (1 + np.exp(0.5))
    np.testing.assert_allclose(gradient, [[0, 0, 0], [1 - p, p - 1, 0]], atol=2e-3)


def test_stablemax_has_the_slope_of_its_two_halves():
    z = jnp.array([-3.0, -1e-30, -0.0, 0.0, 1e-30, 3.0])
    slopes = jax.vmap(jax.grad(lambda x: losses.stablemax_logits(x)))(z)
    np.testing.assert_allclose(slopes, 1 / (1 + np.abs(z)), rtol=1e-6)
    assert jnp.isfinite(jax.vmap(jax.grad(jax.grad(losses.stablemax_logits)))(z)).all()


def test_a_readout_that_starts_at_zero_learns_with_stablemax():
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(60, 3)), jnp.float32), jnp.asarray(np.arange(60) % 3)
    x = x.at[jnp.arange(60), y].add(4.0)
    model = MLP(3, (), 3, key=jax.random.key(0))
    model = jax.tree.map(jnp.zeros_like, model)
    rule = optax.sgd(1.0)
    state = rule.init(model)
    for _ in range(60):
        slopes = jax.grad(lambda m: losses.stablemax_cross_entropy(m(x), y).mean())(model)
        updates, state = rule.update(slopes, state)
        model = optax.apply_updates(model, updates)
    assert float((model(x).argmax(-1) == y).mean()) > 0.95


# A feature of zeros has no direction: there the loss really jumps, and the gradient is taken for 0.
FEATURES = {
    "plain": (np.array([[1.0, 2.0], [-0.5, 1.0], [0.3, -0.2], [2.0, 2.0]]), [0, 0, 1, 1]),
    "a tie of the largest": (np.array([[1.0, 1.0], [-1.0, 1.0], [2.0, -2.0]]), [0, 0, 0]),
    "the same": (np.ones((3, 2)), [0, 0, 1]),
    "opposite": (np.array([[1.0, 0.0], [-1.0, 0.0]]), [0, 0]),
    "one example": (np.array([[1.0, 2.0]]), [0]),
    "no pair": (np.array([[1.0, 2.0], [2.0, 1.0]]), [0, 1]),
    "short": (1e-3 * np.array([[1.0, 2.0], [-0.5, 1.0], [0.3, -0.2]]), [0, 0, 0]),
    "zeros": (np.array([[0.0, 0.0], [1.0, 2.0], [0.5, -1.0], [0.0, 0.0]]), [0, 0, 0, 1]),
    "all zeros": (np.zeros((3, 2)), [0, 0, 1]),
}


def contrast(features, labels, there):
    return supervised_contrast(features, labels, there, 0.5).sum()


def padded(name):
    """Four places, so that all share one program."""
    features, labels = FEATURES[name]
    more = 4 - len(labels)
    return (
        np.concatenate([features, np.ones((more, 2))]),
        np.array([*labels, *[0] * more], np.int32),
        np.arange(4) < len(labels),
    )


contrasted = jax.jit(jax.value_and_grad(contrast))
contrasts = jax.jit(jax.vmap(contrast, (0, None, None)))
turned = jax.jit(jax.jacobian(unit))


@pytest.mark.parametrize("name", FEATURES)
def test_gradients_of_contrasts_are_differences(name):
    z, *rest = padded(name)
    with jax.enable_x64():
        found = np.asarray(contrasted(z, *rest)[1])
        assert np.isfinite(found).all()
        still = ~z.any(axis=1)
        assert not found[still].any() and not found[~rest[1]].any()
        size = 1e-6 * np.abs(FEATURES[name][0]).max(initial=1e-3)
        steps = size * np.eye(z.size).reshape(-1, *z.shape)
        up, down = contrasts(z + steps, *rest), contrasts(z - steps, *rest)
        expected = np.asarray((up - down) / (2 * size)).reshape(z.shape)
        np.testing.assert_allclose(found[~still], expected[~still], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", FEATURES)
def test_contrasts_are_finite_in_every_precision(name, dtype):
    z, *rest = padded(name)
    z = jnp.asarray(z, dtype)
    value, slope = contrasted(z, *rest)
    assert jnp.isfinite(value) and jnp.isfinite(slope).all() and slope.dtype == dtype
    assert jnp.isfinite(turned(z)).all()


def test_a_teacher_may_be_of_any_opinion():
    """The gradient of what is taught is finite too, in classes that are left out as well."""
    z = jnp.asarray(LOGITS["sure"], jnp.float32)
    for of in (divergence, proper_divergence):
        for among in ([True, True, False], [False] * 3):
            slopes = jax.grad(lambda t, s: of(t, s, jnp.array(among)).sum(), (0, 1))(z, -z)
            assert all(jnp.isfinite(slope).all() for slope in slopes)
            assert any(among) or not any(slope.any() for slope in slopes)
