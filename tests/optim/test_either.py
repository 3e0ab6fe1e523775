"""Each choice against the optimiser alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom.optim import Either

MOMENTUM = partial(optax.sgd, momentum=0.9)


@pytest.mark.parametrize(("pick", "alone"), [(True, optax.adam), (False, MOMENTUM)])
def test_either_is_the_one_that_is_picked(pick, alone):
    chosen = Either(jnp.asarray(pick), optax.adam, MOMENTUM)

    @jax.jit
    def run(rate, weights):
        found = []
        for rule in (chosen(rate), alone(rate)):
            at, state = weights, rule.init(weights)
            for _ in range(3):
                updates, state = rule.update(jax.tree.map(lambda w: w**3, at), state, at)
                at = optax.apply_updates(at, updates)
            found.append(at)
        return found

    ours, wanted = run(0.1, {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)})
    for name in "ab":
        np.testing.assert_array_equal(ours[name], wanted[name])


def test_both_choices_share_a_program():
    def step(either, weights):
        rule = either(0.1)
        return rule.update(weights, rule.init(weights), weights)[0]

    traced = [
        str(
            jax.make_jaxpr(lambda pick: step(Either(pick, optax.adam, MOMENTUM), jnp.ones(2)))(pick)
        )
        for pick in (jnp.array(True), jnp.array(False))
    ]
    assert traced[0] == traced[1]
