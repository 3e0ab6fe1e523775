"""Concept readers against Bayes' rule and on images of all kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from latebloom.methods.grokking.concept_space import (
    Discs,
    VectorReader,
    Vectors,
    classifier_report,
    shared_classifier,
    train_classifier,
)
from latebloom.methods.grokking.concept_space.readers import garbage, varied_discs


def test_vector_reader_is_bayes_rule():
    world = Vectors((0.2, 0.4), nuisance=1)
    x = np.array([[0.01, -0.02, 0.5], [-0.004, 0.1, 5.0]], np.float32)
    probability, quality = VectorReader(world)(jnp.asarray(x))
    for i, sep in enumerate((0.2, 0.4)):
        one, zero = (norm(s * sep / 2, sep / 8).pdf(x[:, i]) for s in (1, -1))
        assert np.allclose(probability[:, i], one / (one + zero), atol=1e-4)
    assert quality.tolist() == [1.0, 0.0]


@pytest.fixture(scope="module")
def trained():
    return train_classifier(
        jax.random.key(0), Discs(image_size=8), steps=300, batch_size=64, learning_rate=5e-3
    )


def test_classifier_reads_easy_discs(trained):
    classifier, report = trained
    assert report["all"] > 0.9 and report["quality"] > 0.7
    assert set(report) == {"colour", "size", "all", "quality"}
    again = classifier_report(jax.random.key(5), classifier, Discs(image_size=8))
    assert again["colour"] > 0.95


def test_noise_is_garbage_even_where_the_concepts_seem_sure(trained):
    noise = jax.random.uniform(jax.random.key(2), (64, 8, 8, 3))
    assert float((trained[0](noise)[1] > 0.5).mean()) < 0.2


def test_garbage_is_of_four_kinds_and_not_the_images():
    images = varied_discs(jax.random.key(0), Discs(image_size=8), jnp.zeros((8, 2), jnp.int32))
    spoiled = garbage(jax.random.key(1), images)
    assert spoiled.shape == images.shape
    assert (np.abs(spoiled - images).max((1, 2, 3)) > 0.05).all()
    assert np.allclose(spoiled[1], (images[1] + images[0]) / 2, atol=1e-6)
    assert np.allclose(np.sort(spoiled[2, ..., 0].ravel()), np.sort(images[2, ..., 0].ravel()))
    assert spoiled[3].std((0, 1)).max() < 0.1


def test_bad_training():
    with pytest.raises(ValueError, match="steps must be positive"):
        train_classifier(jax.random.key(0), Discs(), steps=0)


def test_a_classifier_that_has_not_learned_is_not_shared():
    with pytest.raises(ValueError, match=r"right on \d+% of images: train it for more steps"):
        shared_classifier(("colour", "size"), 8, 1)


def test_a_classifier_is_trained_once(monkeypatch):
    calls = []

    def train(key, world, **settings):
        calls.append((world.concepts, settings))
        return "classifier", {"all": 0.95}

    monkeypatch.setattr("latebloom.methods.grokking.concept_space.readers.train_classifier", train)
    asked = (("colour", "shape"), 12, 7)
    found = [shared_classifier(*asked, learning_rate=0.1) for _ in range(2)]
    assert found == [("classifier", 0.95)] * 2
    assert calls == [(("colour", "shape"), {"steps": 7, "learning_rate": 0.1})]
