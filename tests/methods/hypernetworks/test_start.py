"""What is observed before training, against the hypernetwork asked by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from latebloom import unfold
from latebloom.methods.hypernetworks.start import Start
from latebloom.nn import MLP, Hypernetwork

SIZES = (0.1, 0.2, 0.8)


def build(key):
    primary = MLP(8, (4, 4), 1, key=key, activation="leaky_relu", use_bias=False)
    return Hypernetwork(primary, 1, (6,), key=key, encoding="none", residual=False, start="fan_in")


def test_a_start_is_observed_for_each_size_and_stays():
    process = Start(build, jnp.array(SIZES))
    found = unfold(process, seeds=1, steps=2, every=1, progress=False)
    for name in ("spread", "activation", "gradient"):
        np.testing.assert_array_equal(found[name][0, 0], found[name][0, -1])
    model, x = process.init(jax.random.key(0))
    seen = process.observe((model, x))
    for place, size in enumerate(SIZES):
        primary = model.primary(jnp.array([size]))
        weights = np.concatenate([np.ravel(layer.weight) for layer in primary.layers])
        np.testing.assert_allclose(seen["spread"][place], weights.std(), rtol=1e-4)
        h, rms = np.asarray(x), []
        for layer in primary.layers:
            h = h @ np.asarray(layer.weight)
            rms.append(np.sqrt((h**2).mean()))
            h = np.where(h > 0, h, 0.01 * h)
        np.testing.assert_allclose(seen["activation"][place], rms, rtol=1e-4)
    # Without biases the standard weights are proportional to the size.
    ratio = seen["spread"] / seen["spread"][0]
    np.testing.assert_allclose(ratio, np.array(SIZES) / SIZES[0], rtol=1e-3)
    slopes = eqx.filter_grad(lambda m: jnp.square(m.primary(jnp.array([0.8]))(x) - 1).mean())(model)
    squares = [np.square(leaf).sum() for leaf in jax.tree.leaves(slopes)]
    np.testing.assert_allclose(seen["gradient"][-1], np.sqrt(sum(squares)), rtol=1e-4)
