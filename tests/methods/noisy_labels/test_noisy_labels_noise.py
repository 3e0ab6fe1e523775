"""Noise models against their transition matrices; suspects and memorisation by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_auc_score

from latebloom.data import Dataset
from latebloom.methods.noisy_labels import (
    CIFAR10_PAIRS,
    MNIST_PAIRS,
    LabelNoise,
    NoisyData,
    auroc,
    held_out,
    memorisation,
    superclass_pairs,
    suspects,
)

noised = jax.jit(lambda noise, key, labels: noise(key, labels))  # one program for all noises
LABELS = jnp.asarray(np.random.default_rng(0).integers(0, 10, 40_000), jnp.int32)


@pytest.mark.parametrize(
    "noise",
    [LabelNoise(0.4), LabelNoise(0.8), LabelNoise(0.4, pairs=MNIST_PAIRS),
     LabelNoise(0.2, pairs=CIFAR10_PAIRS)],
)  # fmt: skip
def test_labels_follow_the_transition_matrix(noise):
    noisy = noised(noise, jax.random.key(1), LABELS)
    seen = confusion_matrix(LABELS, noisy, normalize="true")
    np.testing.assert_allclose(seen, noise.transition(), atol=0.02)
    np.testing.assert_allclose(noise.transition().sum(axis=1), 1, atol=1e-6)


def test_symmetric_noise_may_hit_the_true_class_and_its_share_is_exact():
    # rate 0.8 of ten classes: 72 % wrong, not 80 %
    wrong = np.mean(noised(LabelNoise(0.8), jax.random.key(0), LABELS) != LABELS)
    assert wrong == pytest.approx(0.72, abs=0.007)
    ones = jnp.zeros(1000, jnp.int32)
    noisy = [noised(LabelNoise(0.3, classes=2), jax.random.key(i), ones) for i in range(200)]
    # 300 are drawn anew, half of them stay: never more than 300 are wrong
    counts = np.array([int((y != 0).sum()) for y in noisy])
    assert counts.max() <= 300 and counts.mean() == pytest.approx(150, abs=3)


def test_asymmetric_noise_takes_its_share_of_every_class():
    noise = LabelNoise(0.4, pairs=MNIST_PAIRS)
    noisy = np.asarray(noised(noise, jax.random.key(0), LABELS))
    labels = np.asarray(LABELS)
    for label in range(10):
        members = labels == label
        changed = noisy[members] != label
        assert set(noisy[members][changed]) <= {MNIST_PAIRS.get(label, label)}
        wanted = np.ceil(np.float32(0.4) * members.sum()) if label in MNIST_PAIRS else 0
        assert abs(changed.sum() - wanted) <= 1


@settings(max_examples=15)
@given(rate=st.floats(0, 1), seed=st.integers(0, 1000), symmetric=st.booleans())
def test_noise_invariants(rate, seed, symmetric):
    labels = LABELS[:57]
    noise = LabelNoise(rate, pairs=None if symmetric else {0: 1, 1: 2})
    noisy = np.asarray(noised(noise, jax.random.key(seed), labels))
    assert noisy.shape == labels.shape and noisy.min() >= 0 and noisy.max() < 10
    if rate == 0:
        assert (noisy == labels).all()
    if rate == 1 and not symmetric:
        assert not (noisy == 0).any() or 0 not in np.asarray(labels)


def test_cifar_100_pairs_go_round_within_a_superclass():
    assert superclass_pairs(np.array([0, 1, 0, 1, 0, 2])) == {0: 2, 2: 4, 4: 0, 1: 3, 3: 1}


def test_bad_noise_is_refused():
    with pytest.raises(ValueError, match="rate is a share"):
        LabelNoise(1.2)
    with pytest.raises(ValueError, match="pair 3 -> 12 names a class outside 0..9"):
        LabelNoise(0.2, pairs={3: 12})
    x, y = jnp.zeros((4, 2)), jnp.zeros(4, jnp.int32)
    with pytest.raises(ValueError, match="x_valid has 4 examples and y_valid 3"):
        NoisyData(x, y, x, y, x, y[:3], LabelNoise(0.1))


def test_validation_labels_are_as_noisy_as_training_labels():
    x = jnp.zeros((5000, 1))
    data = NoisyData(x, LABELS[:5000], x, LABELS[:5000], x, LABELS[5000:10_000], LabelNoise(0.6))
    labels = data.draw(jax.random.key(0))
    for noisy, true in ((labels.train, data.y_train), (labels.valid, data.y_valid)):
        assert np.mean(noisy != true) == pytest.approx(0.54, abs=0.02)


def test_the_first_share_of_the_training_examples_is_held_out():
    x, y = jnp.arange(20.0).reshape(10, 2), jnp.arange(10)
    noise = LabelNoise(0.5)
    data = held_out(Dataset(x, y, x[:2] + 100, y[:2]), noise, share=0.3)
    assert data.y_valid.tolist() == [0, 1, 2] and data.y_train.tolist() == [*range(3, 10)]
    assert data.x_valid[:, 0].tolist() == [0, 2, 4] and data.x_train[0].tolist() == [6, 7]
    assert data.x_test[0, 0] == 100 and data.noise is noise
    with pytest.raises(ValueError, match="x_valid has 0 examples"):
        held_out(Dataset(x, y, x, y), noise, share=0.05)


def test_memorisation_by_hand():
    # labels right, right, wrong, wrong, wrong; predicted right, other, right, memorised, other
    true, labels = jnp.array([0, 1, 2, 0, 1]), jnp.array([0, 1, 1, 2, 0])
    predicted = jnp.array([0, 0, 2, 2, 2])
    found = memorisation(jax.nn.one_hot(predicted, 3), labels, true)
    wanted = {"clean_right": 1 / 2, "clean_other": 1 / 2, "wrong_right": 1 / 3,
              "wrong_memorised": 1 / 3, "wrong_other": 1 / 3}  # fmt: skip
    assert {k: pytest.approx(float(v)) for k, v in found.items()} == wanted
    nothing_wrong = memorisation(jax.nn.one_hot(predicted, 3), true, true)
    assert np.isnan(nothing_wrong["wrong_memorised"])


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_auroc_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 6, 40) / 4, rng.random(40) < 0.4
    if 0 < positive.sum() < 40:
        wanted = roc_auc_score(positive, scores)
        assert float(auroc(jnp.asarray(scores, jnp.float32), jnp.asarray(positive))) == (
            pytest.approx(wanted, abs=1e-5)
        )


def test_suspects_by_hand():
    targets = np.array([[0.45, 0.05], [0.02, 0.18], [0.3, 0.3]])
    table = suspects(targets, np.array([1, 1, 0]), ids=["a", "b", "c"], names=["cat", "dog"])
    assert table["id"].tolist() == ["a", "c", "b"]
    assert table["label"].tolist() == ["dog", "cat", "dog"]
    assert table["suggested"].tolist() == ["cat", "cat", "dog"]
    assert table["suspect"].tolist() == [True, False, False]
    np.testing.assert_allclose(table["t_label"], [0.1, 0.5, 0.9])
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(table["entropy"], [entropy, np.log(2), entropy])


@pytest.mark.parametrize(
    ("targets", "labels", "more", "message"),
    [
        (np.ones((3, 2)), [0, 1], {}, "targets must be"),
        (np.ones((2, 2)), [0, 2], {}, "class indices from 0 to 1"),
        (np.ones((2, 2)), [0, 1], {"ids": ["a"]}, "1 ids for 2 examples"),
        (np.array([[1.0, 0], [0, 0]]), [0, 1], {}, "example 1 has no target"),
    ],
)
def test_bad_tables_of_targets_are_refused(targets, labels, more, message):
    with pytest.raises(ValueError, match=message):
        suspects(targets, np.array(labels), **more)
