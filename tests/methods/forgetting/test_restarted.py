"""Networks that start anew with each task: against tasks learned apart, by hand."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from small_world import DATA, continual, network, sgd, stream

from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.facilitation import Restarted
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.penalties import L2
from latebloom.methods.forgetting.replay import ER


def adam(rate):
    return optax.adam(rate)


def test_each_task_starts_from_the_first_network_and_an_optimiser_that_knows_nothing():
    base = continual(Method(), optimiser=adam, hyper={"rate": 0.1})
    process = Restarted(
        model=base.model, data=DATA, stream=stream, method=base.method, optimiser=adam, hyper={"rate": 0.1}
    )  # fmt: skip
    step = eqx.filter_jit(lambda s: process.step(s))
    state = start = process.init(jax.random.key(3))
    plain = base.init(jax.random.key(3))
    for a, b in zip(jax.tree.leaves(start.model), jax.tree.leaves(plain.model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert process.turns() == process.starts[1:]
    for done in range(process.steps):
        if done in process.turns():
            moved = state
            state = process.turn(state)
            same = [
                np.array_equal(a, b)
                for a, b in zip(
                    jax.tree.leaves(state.model), jax.tree.leaves(start.model), strict=True
                )
            ]
            assert all(same) and not np.array_equal(
                jax.tree.leaves(moved.model)[0], jax.tree.leaves(start.model)[0]
            )
            for a, b in zip(
                jax.tree.leaves(state.optimiser), jax.tree.leaves(start.optimiser), strict=True
            ):
                np.testing.assert_array_equal(a, b)
            assert state.step == done
        state = step(state)


def test_it_keeps_nothing():
    for method, replay in ((L2(), None), (ER(), Replay(6, 6))):
        with pytest.raises(ValueError, match="keeps nothing: give it Method"):
            Restarted(
                model=network, data=DATA, stream=stream, method=method, replay=replay, optimiser=sgd,
                hyper={"rate": 0.1},
            )  # fmt: skip
