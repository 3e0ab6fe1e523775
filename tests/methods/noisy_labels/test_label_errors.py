"""Suspects do not depend on units, ranges or layouts; what cannot be judged is refused."""

import equinox as eqx
import jax
import numpy as np
import pytest

from latebloom.data import load
from latebloom.methods.noisy_labels import NotLearned, find_label_errors

QUICK = {"seeds": 1, "epochs": 12, "rate": 0.05, "progress": False}
IMAGES = load("digits")
PIXELS, TRUE = IMAGES.x_train[:240], IMAGES.y_train[:240]
WRONG = np.random.default_rng(0).permutation(240)[:24]
GIVEN = TRUE.copy()
GIVEN[WRONG] = (GIVEN[WRONG] + 1) % 10


@pytest.fixture(scope="module")
def usual():
    return find_label_errors(PIXELS, GIVEN, **QUICK)


def hits(found):
    """Share of the wrong labels among the first as many."""
    return np.isin(found.table["id"][: len(WRONG)], WRONG).mean()


def test_wrong_labels_are_suspect(usual):
    assert hits(usual) > 0.8
    np.testing.assert_allclose(usual.targets.sum(1), 1, rtol=1e-12)
    assert list(usual.classes) == list(range(10))


FORMS = {
    "uint16": PIXELS.astype(np.uint16) * 257,
    "12 bits": PIXELS.astype(np.uint16) * 16,
    "0 to 1": PIXELS / np.float32(255),
    "slightly above 1": PIXELS / np.float32(254),
    "-1 to 1": PIXELS / np.float64(127.5) - 1,
    "large offset": PIXELS / np.float64(255) + 1e6,
    "tiny": PIXELS * 1e-30,
    "inverted": 255 - PIXELS,
    "with a channel": PIXELS[..., None],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_unit_and_the_range_of_pixels_are_no_matter(usual, form):
    found = find_label_errors(FORMS[form], GIVEN, **QUICK)
    if form == "inverted":  # the same information, another start
        assert hits(found) > 0.8
        return
    np.testing.assert_allclose(found.targets, usual.targets, atol=0.02)
    assert abs(len(found.suspects) - len(usual.suspects)) <= 2


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1e-9, 0), (1e9, 1e12), (1, 1e6), (-3, 7)])
def test_the_unit_and_the_offset_of_features_are_no_matter(scale, offset):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = np.where(y, 1.5, -1.5)[:, None] + rng.normal(size=(200, 4))
    x = np.column_stack([x, np.full(200, 3.7)])  # and a feature that does not vary
    given = y.copy()
    given[:20] = 1 - given[:20]
    found = find_label_errors(x * scale + offset, given, **QUICK)
    assert set(found.suspects["id"]) == {*range(20), 59}  # an example that lies among the others


def test_networks_come_back_and_ones_own_go_in(usual):
    proba = usual.predict_proba(IMAGES.x_test)
    assert proba.shape == (len(IMAGES.x_test), 10)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    assert (proba.argmax(1) == IMAGES.y_test).mean() > 0.85
    with pytest.raises(ValueError, match=r"examples must be \[n, 8, 8\]"):
        usual.predict_proba(IMAGES.x_test[:, :4])

    class Own(eqx.Module):
        net: eqx.nn.MLP

        def __call__(self, x):  # one example [8, 8, 1]
            return self.net(x.ravel())

    def build(key):
        return Own(eqx.nn.MLP(64, 10, 128, 1, key=key))

    for network in (build, build(jax.random.key(0))):
        found = find_label_errors(PIXELS, GIVEN, network=network, **QUICK | {"rate": 0.1})
        assert hits(found) > 0.8
        assert isinstance(found.networks[0], Own)
        assert (found.predict_proba(IMAGES.x_test).argmax(1) == IMAGES.y_test).mean() > 0.8
    with pytest.raises(ValueError, match=r"makes \[240, 7\] of 240 examples of 10 classes"):
        find_label_errors(
            PIXELS, GIVEN, network=Own(eqx.nn.MLP(64, 7, 8, 1, key=jax.random.key(0)))
        )


def test_what_is_no_weight_comes_back_with_the_network():
    """A random order of the pixels, another for each seed, is a whole-numbered leaf."""

    class Ordered(eqx.Module):
        order: jax.Array
        net: eqx.nn.MLP

        def __call__(self, x):
            return self.net(x.ravel()[self.order])

    def build(key):
        one, two = jax.random.split(key)
        return Ordered(jax.random.permutation(one, 64), eqx.nn.MLP(64, 10, 64, 1, key=two))

    found = find_label_errors(PIXELS, GIVEN, network=build, **QUICK | {"rate": 0.1, "seeds": 2})
    orders = [np.asarray(network.order) for network in found.networks]
    assert not np.array_equal(*orders)
    for network in found.networks:
        said = jax.vmap(network)(found.prepare(PIXELS)).argmax(1)
        assert (np.asarray(said) == TRUE).mean() > 0.8


def test_strength_0_is_plain_cross_entropy():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 3)), np.arange(60) % 3
    plain, strong, usual = (
        find_label_errors(x, y, strength=s, **QUICK | {"epochs": 40}) for s in (0.0, 3.0, None)
    )
    assert plain.train_accuracy > strong.train_accuracy  # of labels that mean nothing
    np.testing.assert_array_equal(strong.targets, usual.targets)


def test_blanks_around_words_make_no_class_of_their_own():
    words = np.array(["cat", " dog", "dog ", "cow"] * 10)
    x = np.eye(3)[[0, 1, 1, 2] * 10] * 4 + np.random.default_rng(0).normal(size=(40, 3))
    assert find_label_errors(x, words, **QUICK).classes == ("cat", "cow", "dog")


def test_labels_that_nobody_learned_are_not_called_suspect():
    """All weights far off, or a rate so low that nothing moves: chance agreement."""
    with pytest.raises(NotLearned, match=r"no label can be called suspect; try more epochs"):
        find_label_errors(PIXELS, GIVEN, **QUICK | {"rate": 1e-9})


Y = np.arange(30) % 3
X = np.random.default_rng(0).normal(size=(30, 4))


@pytest.mark.parametrize(
    ("x", "y", "more", "message"),
    [
        (X, np.where(Y == 1, np.nan, Y), {}, "example 1 has no label"),
        (X, [None, *Y[1:]], {}, "example 0 has no label"),
        (X, ["a", "", *["b"] * 28], {}, "example 1 has no label"),
        (X, np.array([1, "1", *Y[2:]], object), {}, "some labels are words and some are not"),
        (X, Y[:, None], {}, r"one label an example, \[n\], not \[30, 1\]"),
        (X, Y, {"epochs": 0}, "epochs and seeds must be at least 1"),
        (X, Y, {"seeds": 0}, "epochs and seeds must be at least 1"),
        (X, Y, {"rate": -1.0}, "rate must be above 0"),
        (X, Y, {"rate": np.nan}, "rate must be above 0"),
        (X, Y, {"beta": 1.0}, r"beta in \[0, 1\)"),
        (X, Y, {"strength": -3.0}, "strength must not be negative"),
        (X, Y, {"network": "foo"}, "network must be 'mlp', 'cnn' or a model of your own, not 'foo'"),
        (X, Y, {"network": "cnn"}, "a cnn takes images"),
        (np.zeros((30, 3, 16, 16)), Y, {}, "channels first"),
        (X, Y, {"rate": 1e30}, "training diverged: take a lower rate"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_a_sentence(x, y, more, message):
    with pytest.raises(ValueError, match=message):
        find_label_errors(x, y, **QUICK | more)
