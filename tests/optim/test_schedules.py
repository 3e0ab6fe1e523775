"""Schedule shapes against values worked by hand, and tables read at any step."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom.optim.schedules import (
    cosine_decay,
    flat,
    inverse_decay,
    inverse_sqrt_decay,
    polynomial_decay,
    schedule_values,
    stable_decay,
    step_decay,
    tabulated,
)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (flat(), [1, 1, 1, 1]),
        (polynomial_decay(), [0.75, 0.5, 0.25, 0]),
        (polynomial_decay(2.0), [0.5625, 0.25, 0.0625, 0]),
        (cosine_decay(), [(1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
        (inverse_decay(0.25), [1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        (inverse_sqrt_decay(0.25), [2**-0.5, 3**-0.5, 4**-0.5, 5**-0.5]),
        (step_decay((0.3, 0.6, 0.9)), [1, 0.1, 0.01, 0.001]),
        (stable_decay(0.5), [1, 1, 0.5, 0]),
    ],
)
def test_shapes_over_four_steps(shape, expected):
    np.testing.assert_allclose(schedule_values(shape, 4), expected, atol=1e-6)


def test_warmup_rises_to_one_and_the_shape_takes_the_rest():
    values = schedule_values(polynomial_decay(), 10, warmup=0.2)
    np.testing.assert_allclose(values, [0.5, 1, *np.arange(7, -1, -1) / 8], atol=1e-6)
    assert schedule_values(flat(), 10, warmup=0.99).shape == (10,)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (10, 1.0), (10, -0.1)])
def test_lengths_and_warmups_that_make_no_sense(steps, warmup):
    with pytest.raises(ValueError, match="steps must|warmup is"):
        schedule_values(flat(), steps, warmup)


def test_a_table_is_stretched_and_kept_after_its_end():
    schedule = tabulated(jnp.array([0.0, 1.0, 0.0]), steps=9, peak=2.0)
    np.testing.assert_allclose([schedule(i) for i in (0, 2, 4, 6, 8, 50)], [0, 1, 2, 1, 0, 0])


def test_a_table_drives_an_optax_optimiser():
    optimiser = optax.sgd(tabulated([1.0, 0.5, 0.0], steps=3))
    state, x = optimiser.init(jnp.zeros(())), jnp.zeros(())
    seen = []
    for _ in range(4):
        update, state = optimiser.update(jnp.ones(()), state)
        x = optax.apply_updates(x, update)
        seen.append(float(x))
    np.testing.assert_allclose(seen, [-1, -1.5, -1.5, -1.5])


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [1.0, -0.1]])
def test_tables_that_are_no_schedule(values):
    with pytest.raises(ValueError):
        tabulated(values, steps=10)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: stable_decay(0.0), "share must be above 0 and at most 1 .*, not 0"),
        (lambda: stable_decay(1.2), "share must be above 0 and at most 1"),
        (lambda: stable_decay(float("nan")), "share must be above 0"),
        (lambda: polynomial_decay(-1.0), "power must be 0 or more, not -1"),
        (lambda: polynomial_decay(float("inf")), "power must be 0 or more, not inf"),
        (lambda: inverse_decay(0.0), "offset must be positive, not 0"),
        (lambda: inverse_sqrt_decay(-0.1), "offset must be positive"),
        (lambda: step_decay(factor=-0.1), "factor must be from 0 to 1"),
        (lambda: step_decay(at=(30.0, 60.0)), "each of at must be a share of the run, from 0 to 1, not 30"),
        (lambda: tabulated([1.0, 0.0], 10, peak=-1.0), "peak must be 0 or more, not -1"),
        (lambda: tabulated([1.0, 0.0], 10, peak=float("nan")), "peak must be 0 or more, not nan"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
