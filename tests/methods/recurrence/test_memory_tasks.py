"""Answers by plain loops, and how sequences are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.methods.recurrence.memory_tasks import answers, draw_bits, draw_length


def test_answers_are_those_of_plain_loops():
    bits = np.asarray(draw_bits(jax.random.key(0), "parity", 20, 9))
    horizons = jnp.array([1, 2, 5, 9])
    parity, match = (np.asarray(answers(jnp.asarray(bits), task, horizons)) for task in ("parity", "dms"))  # fmt: skip
    for b, row in enumerate(bits):
        for k, n in enumerate([1, 2, 5, 9]):
            assert parity[b, k] == int(sum(row[-n:])) % 2
            assert match[b, k] == int(row[-n] == row[-1])


def test_shares_of_ones_differ_between_sequences_of_parity_alone():
    shares = [np.asarray(draw_bits(jax.random.key(1), t, 400, 500)).mean(1) for t in ("parity", "dms")]  # fmt: skip
    assert shares[0].std() == pytest.approx(12**-0.5, abs=0.04) and abs(shares[0].mean() - 0.5) < 0.06  # fmt: skip
    assert shares[1].std() < 0.03


def test_lengths_are_uniform_between_their_ends():
    drawn = np.asarray(jax.vmap(lambda k: draw_length(k, jnp.int32(3)))(jax.random.split(jax.random.key(0), 2000)))  # fmt: skip
    assert set(drawn) == set(range(5, 14)) and np.bincount(drawn)[5:].min() > 2000 / 9 * 0.7


def test_another_task_is_refused():
    for call in (
        lambda: draw_bits(jax.random.key(0), "copy", 1, 4),
        lambda: answers(jnp.zeros((1, 4)), "copy", jnp.array([2])),
    ):
        with pytest.raises(ValueError, match='"parity" or "dms", not \'copy\''):
            call()
