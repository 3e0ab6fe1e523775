"""Gradient descent against the loop written out."""

import numpy as np

from latebloom.optim import sgd


def test_weight_decay_goes_through_the_momentum():
    rate, momentum, decay = 0.1, 0.9, 0.01
    optimiser = sgd(rate, momentum, decay)
    weights = np.array([1.0, -2.0], np.float32)
    state, wanted, speed = optimiser.init(weights), weights.astype(float), np.zeros(2)
    for gradient in ([0.5, 1.0], [-1.0, 0.25], [0.0, 2.0]):
        speed = momentum * speed + gradient + decay * wanted
        wanted = wanted - rate * speed
        update, state = optimiser.update(np.array(gradient, np.float32), state, weights)
        weights = weights + update
    np.testing.assert_allclose(weights, wanted, rtol=1e-6)
