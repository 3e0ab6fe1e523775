"""Features in one call: the process's own student, for any encoder, and never worse inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from latebloom.data import load
from latebloom.methods.random_teachers import distil_features

IMAGES = load("digits")
X, Y = IMAGES.x_train[:200], IMAGES.y_train[:200]
SHORT = {"steps": 30, "batch_size": 32, "hidden": 16, "bottleneck": 8, "outputs": 32, "progress": False}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return distil_features(X, Y, alpha=1.0, **SHORT)


def test_a_student_comes_nearer_to_its_teacher_and_is_another_network(found):
    assert found.divergence[1] < 0.7 * found.divergence[0]
    own, teachers = found.features(X), np.asarray(found.teacher(found.prepare(X)))
    assert own.shape == teachers.shape == (200, 64)
    assert np.abs(own - teachers).max() > 1e-3
    assert list(found.probes) == ["student", "teacher", "input"]
    assert ((found.probes >= 0) & (found.probes <= 1)).all(axis=None)
    # The probe on the input is as good as scikit-learn's classifier of the same split.
    order = np.random.default_rng(0).permutation(200)
    held, rest = order[:40], order[40:]
    flat = np.asarray(found.prepare(X)).reshape(200, -1)
    rival = LogisticRegression(max_iter=2000).fit(flat[rest], Y[rest]).score(flat[held], Y[held])
    assert found.probes.loc["linear probe", "input"] == pytest.approx(rival, abs=0.1)


def test_the_range_of_pixels_is_no_matter(found):
    other = distil_features(X.astype(np.uint16) * 16 + 100, alpha=1.0, **SHORT)
    assert other.probes is None
    np.testing.assert_allclose(
        other.features(X.astype(np.uint16) * 16 + 100), found.features(X), atol=2e-2
    )


class Own(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, x):
        return self.net(x.ravel())


def test_an_encoder_of_ones_own_is_distilled_and_one_at_hand_is_the_teacher():
    def build(key):
        return Own(eqx.nn.MLP(64, 12, 32, 1, key=key))

    for encoder in (build, build(jax.random.key(5))):
        found = distil_features(X, encoder=encoder, alpha=1.0, **SHORT)
        assert found.features(X[:3]).shape == (3, 12)
        assert found.divergence[1] < found.divergence[0]
    np.testing.assert_array_equal(found.teacher.net.layers[0].weight, encoder.net.layers[0].weight)


@pytest.mark.parametrize(
    ("x", "more", "message"),
    [
        (X[:5], {}, "at least 20"),
        (X.reshape(200, -1), {}, "images .* or give an encoder"),
        (np.where(X > 3, np.nan, X), {}, "finite numbers"),
        (X, {"y": Y - 1}, "y must be from 0 to 8, but row .* has -1"),
        (X, {"y": Y / 2}, "class indices"),
        (X, {"y": Y[:9]}, "200 examples and 9 labels"),
        (X, {"steps": 0}, "steps must be at least 1"),
        (X, {"rate": -1.0}, "rate above 0"),
        (X, {"alpha": 2.0}, r"alpha must be in \[0, 1\]"),
        (X, {"encoder": lambda key: eqx.nn.Lambda(jnp.tanh)}, r"must make \[n, features\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_a_sentence(x, more, message):
    with pytest.raises(ValueError, match=message):
        distil_features(x, **SHORT | more)
