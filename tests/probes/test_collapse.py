"""Probes of collapse and of naive loss minimisation against definitions worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from latebloom import losses, nn, probes


def test_softmax_collapse_by_hand():
    logits = jnp.array([[0.0, 40.0], [0.0, 1.0], [30.0, 0.0]])
    found = probes.softmax_collapse(logits, jnp.array([1, 1, 1]))
    np.testing.assert_allclose(found["collapsed_fraction"], 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(found["zero_loss_fraction"], 1 / 3, rtol=1e-6)
    assert found["largest_margin"] == 40


def test_cosines_by_hand_even_where_squares_underflow():
    a = {"x": jnp.array([1.0, 0.0]), "y": jnp.array([1e-30, 1e-30]), "z": jnp.zeros(2)}
    b = {"x": jnp.array([1.0, 1.0]), "y": jnp.array([-2e-25, -2e-25]), "z": jnp.ones(2)}
    np.testing.assert_allclose(probes.cosines(a, b), [np.sqrt(0.5), -1, 0], rtol=1e-6)


def test_in_a_homogeneous_network_scaling_the_weights_scales_the_logits():
    """f(c w) = c^L f(w) without biases, so <w, grad> of each layer is the same: d L / d log c."""
    model = nn.MLP(4, (9, 7), 3, key=jax.random.key(0), use_bias=False)
    x = jax.random.normal(jax.random.key(1), (20, 4))
    labels = model(x).argmax(axis=1)  # fitted: scaling up lowers the loss
    gradients = jax.grad(lambda m: losses.cross_entropy(m(x), labels).mean())(model)
    products = [
        float(jnp.vdot(layer.weight, g.weight))
        for layer, g in zip(model.layers, gradients.layers, strict=True)
    ]
    np.testing.assert_allclose(products, products[0], rtol=1e-4)
    assert (probes.logit_scaling(model, gradients) > 0).all()


def test_names_and_norms_of_tensors():
    model = nn.MLP(2, (3,), 2, key=jax.random.key(0))
    assert probes.tensor_names(model)[:2] == ["layers[0].weight", "layers[0].bias"]
    flat = np.concatenate([np.ravel(w) for w in jax.tree.leaves(model)])
    np.testing.assert_allclose(probes.weight_norm(model), np.linalg.norm(flat), rtol=1e-6)
