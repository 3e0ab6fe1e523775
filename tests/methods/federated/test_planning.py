"""From a table of round trips to weights, bias and a window, with the truth known."""

import numpy as np
import pandas as pd
import pytest

from latebloom.data.files import FileError
from latebloom.methods import federated
from latebloom.methods.federated.clock import everyone, first, fixed, scenario, schedule
from latebloom.methods.federated.planning import simulate
from latebloom.methods.federated.weights import asynchronous_weights, theory, uniform

TAU = np.array([1.0, 2.0, 4.0])


def log(times=TAU, rounds=6, **more):
    names = np.repeat([f"c{i}" for i in range(len(times))], rounds)
    table = {"client": names, "seconds": np.repeat(times, rounds)}
    return pd.DataFrame(table | {n: np.repeat(v, rounds) for n, v in more.items()})


def test_constant_times_give_the_weights_of_the_theory():
    found = federated.plan(log(), horizon=40)
    clients = found.clients.set_index("client")
    np.testing.assert_allclose(clients.weight_async, asynchronous_weights(TAU, uniform(3)))
    np.testing.assert_allclose(clients.weight_sync, 1 / 3)
    share = (1 / TAU) / (1 / TAU).sum()
    np.testing.assert_allclose(clients.share_identical, share)
    expected = theory("async", TAU, weights=np.ones(3))
    assert found.chi_square == pytest.approx(expected.chi_square)
    assert clients.largest_staleness.max() <= expected.delay
    np.testing.assert_allclose(clients.participation, share, atol=0.01)
    windows = found.schemes.dropna(subset="window_seconds").set_index("window_seconds")
    assert windows.loc[4.0].largest_staleness == 0
    assert windows.loc[2.0].chi_square_identical == pytest.approx(
        theory("fedfix", TAU, window=2.0, weights=np.ones(3)).chi_square
    )
    half = theory("fedfix", TAU, window=found.window)
    np.testing.assert_allclose(clients.weight_fedfix, half.weights)


def test_rows_may_come_in_any_order_and_importance_is_kept():
    table = log(importance=[1.0, 1.0, 2.0])
    mixed = table.sample(frac=1, random_state=1)
    found = federated.plan(mixed, horizon=10).clients.set_index("client").sort_index()
    np.testing.assert_allclose(found.importance, [0.25, 0.25, 0.5])
    np.testing.assert_allclose(found.weight_async, asynchronous_weights(TAU, found.importance))


def test_noisy_times_count_by_their_mean_windows():
    rng = np.random.default_rng(0)
    rows = [(f"c{i}", s) for i, t in enumerate(TAU) for s in t * rng.lognormal(0, 0.3, 200)]
    found = federated.plan(pd.DataFrame(rows, columns=["client", "seconds"]), horizon=100)
    fix = found.schedules[found.chosen].participation
    np.testing.assert_allclose(found.clients.weight_fedfix * fix, 1 / 3, rtol=0.1)
    late = found.schedules["async"].participation
    np.testing.assert_allclose(found.clients.weight_async * late, 1 / 3, rtol=0.1)


def test_unbiased_weights_leave_less_loss_than_identical_ones():
    found = federated.plan(log(np.array([1, 1, 2, 8.0])), horizon=60, noise=0.1)
    rows = found.schemes.set_index("scheme")
    assert rows.simulated_loss["async"] < 0.2 * rows.simulated_loss_identical["async"]
    sync = rows.loc["sync"]
    assert sync.simulated_loss == pytest.approx(sync.simulated_loss_identical)
    assert rows.loc["async"].waiting_share < 0.05 < sync.waiting_share
    start = found.curves[found.curves.seconds == 0].loss
    np.testing.assert_allclose(start, start.iloc[0])


def test_equal_clients_need_no_correction():
    found = federated.plan(log(np.ones(4)), horizon=20, scheme="fedbuff", buffer_size=2)
    assert found.used == "fedbuff-2" and found.chi_square == pytest.approx(0, abs=1e-6)
    with_window = federated.plan(log(np.ones(4)), horizon=20, scheme="fedfix", window=0.3)
    assert with_window.used == "fedfix-0.3"
    assert with_window.chi_square == pytest.approx(0, abs=1e-12)


def test_simulation_is_the_linear_recursion():
    """Synchronous rounds contract by phi; two clients in turn as in example 2."""
    optima = np.random.default_rng(1).normal(size=(3, 2))
    phi = np.array([0.1, 0.5])
    plan = schedule(everyone, fixed(TAU), 3, 40)
    models = simulate(plan, uniform(3), optima, contractions=phi)
    powers = (1 - phi[None, :, None]) ** np.arange(1, 11)[:, None, None]
    np.testing.assert_allclose(models, (1 - powers) * optima.mean(0))
    tau = scenario(3, 60)
    plan = schedule(first, fixed(tau), 3, 4000)
    end = simulate(plan, np.ones(3), optima, contractions=np.array([1e-3]))[-1, 0]
    np.testing.assert_allclose(end, (1 / tau) @ optima / (1 / tau).sum(), atol=5e-3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"client": ["a", "b"]}), "has no column 'seconds'"),
        (pd.DataFrame({"client": ["a", "a"], "seconds": [1.0, 2]}), "needs two clients"),
        (pd.DataFrame({"client": ["a", "b"], "seconds": [1.0, -2]}), "outside"),
        (pd.DataFrame({"client": ["a", None], "seconds": [1.0, 2]}), "is empty"),
        (pd.DataFrame({"client": ["a"], "seconds": [1.0]}), "at least 2"),
        (
            pd.DataFrame(
                {"client": ["a", "b", "a"], "seconds": [1.0, 2, 3], "importance": [1.0, 1, 2]}
            ),
            "row 2: 2 differs",
        ),
    ],
)
def test_bad_tables_are_refused(table, message):
    with pytest.raises(FileError, match=message):
        federated.plan(table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "fedfix"}, "needs the window"),
        ({"scheme": "other"}, "must be sync"),
        ({"window": -1.0}, "longer than 0"),
        ({"buffer_size": 9}, "does not suit"),
        ({"horizon": 1.0}, "at least 10"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        federated.plan(log(), **options)
