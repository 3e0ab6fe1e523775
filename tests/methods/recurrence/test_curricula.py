"""Roll-outs against NumPy whatever the padding, and horizons that move as the rule says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.methods.recurrence.curricula import Curriculum, Network, sgd
from latebloom.nn.recurrent import LSTM, LeakyRNN


def made(**more):
    return Curriculum(**{"cell": lambda k: LeakyRNN(1, 12, key=k), "optimiser": sgd(), "size": 12, "heads": 5,
                         "batch": 8, "updates": 2, "exams": 2} | more)  # fmt: skip


def test_a_padded_rollout_is_that_of_its_last_steps():
    network = Network(LeakyRNN(1, 6, key=jax.random.key(0)), 6, 3, key=jax.random.key(1))
    bits = np.random.default_rng(0).integers(0, 2, (4, 15)).astype(np.float32)
    found = np.asarray(network(jnp.asarray(bits), jnp.int32(7), jax.random.key(2)))
    cell = network.cell
    h = np.asarray(jax.random.uniform(jax.random.key(2), (4, 6), maxval=0.1))
    w = np.asarray(cell.hidden.weight) * (1 - np.eye(6))
    tau = np.maximum(np.asarray(cell.tau), 1)
    for t in range(8, 15):
        drive = h @ w + cell.hidden.bias + bits[:, [t]] @ np.asarray(cell.input.weight) + cell.input.bias  # fmt: skip
        h = (1 - 1 / tau) * h + drive / tau
        h = np.where(h > 0, h, 0.01 * h)
    want = np.einsum("bs,hsc->bhc", h, network.weight) + np.asarray(network.bias)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "ends"), [
    ("single", [(2, 2), (3, 3), (4, 4)]), ("multi", [(2, 2), (2, 3), (2, 4)]), ("none", [(2, 2)] * 3),
    ("sliding", [(2, 3), (3, 4), (4, 5)]),
])  # fmt: skip
def test_horizons_move_where_an_exam_is_passed(kind, ends):
    """All exams are passed, then none."""
    for enough in (-1.0, 1.0):
        process = made(kind=kind, enough=enough, window=2, new=1)
        step = jax.jit(lambda s, p=process: p.step(s))
        state, seen = process.init(jax.random.key(0)), []
        for _ in range(3):
            seen.append((int(state.low), int(state.high)))
            state = step(state)
        assert seen == (ends if enough < 0 else [ends[0]] * 3)
        done = np.flatnonzero(np.asarray(state.passed) >= 0) + 2
        assert done.tolist() == (sorted({n for low, high in ends for n in range(low, high + 1)}) if enough < 0 else [])  # fmt: skip


def test_taus_that_are_not_learned_stay():
    for learned in (True, False):
        process = made(learn_tau=learned)
        state = process.init(jax.random.key(0))
        after = jax.jit(process.step)(state)
        assert (after.network.cell.tau == state.network.cell.tau).all() != learned
        assert (after.network.cell.hidden.weight != state.network.cell.hidden.weight).any()


def test_other_cells_and_bad_input():
    process = made(cell=lambda k: LSTM(1, 12, key=k), task="dms", mean=True)
    state = jax.jit(process.step)(process.init(jax.random.key(0)))
    assert np.isfinite(state.loss) and "tau" not in process.observe(state)
    with pytest.raises(ValueError, match="task must be one of parity, dms"):
        made(task="copy")
    with pytest.raises(ValueError, match="kind must be one of single, multi"):
        made(kind="both")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"updates": 0}, "must be at least 1"),
        ({"kind": "sliding", "window": 3, "new": 4}, r"new must be from 1 to window \(3\), not 4"),
        ({"kind": "sliding", "window": 6}, "cannot be 2 to 7"),
        ({"first": 1}, "cannot be 1 to 1"),
        ({"first": 7}, "cannot be 7 to 7"),
    ],
)
def test_numbers_that_cannot_be_are_refused(more, said):
    with pytest.raises(ValueError, match=said):
        made(**more)


def test_time_constants_are_fixed_only_where_there_are_some():
    process = made(cell=lambda k: LSTM(1, 12, key=k), learn_tau=False)
    with pytest.raises(ValueError, match="LSTM has no time constants"):
        process.init(jax.random.key(0))
