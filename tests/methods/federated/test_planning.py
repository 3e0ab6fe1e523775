"""From a table of round trips to weights, bias and a window, with the truth known."""

import numpy as np
import pandas as pd
import pytest

from latebloom.data.files import FileError
from latebloom.methods import federated
from latebloom.methods.federated import planning
from latebloom.methods.federated.clock import (
    buffer,
    everyone,
    first,
    fixed,
    scenario,
    schedule,
)
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
        ({"horizon": np.inf}, "at least 10 of the slowest rounds, not inf"),
        ({"buffer_size": 0}, "does not suit"),
        ({"noise": -1.0}, "noise must be finite and not below 0"),
        ({"heterogeneity": np.nan}, "heterogeneity must be finite"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        federated.plan(log(), **options)


def test_a_client_86_400_times_as_slow_costs_no_more(monkeypatch):
    monkeypatch.setattr(planning, "LONGEST", 20_000)
    times, said = np.array([1.0, 2.0, 4.0, 86_400.0]), []
    found = federated.plan(
        log(times), buffer_size=2, say=lambda what, share: said.append((what, share))
    )
    assert found.cut == ("async", "fedbuff-2") and found.horizon == 20
    assert max(len(clock.times) for clock in found.schedules.values()) <= planning.LONGEST
    clients, rows = found.clients.set_index("client"), found.schemes.set_index("scheme")
    rate = 1 / times
    # By renewal: client i takes part in a share (1 / tau_i) / sum(1 / tau_j) of the aggregations.
    np.testing.assert_allclose(clients.participation, rate / rate.sum(), rtol=1e-4)
    np.testing.assert_allclose(clients.mean_staleness, rate.sum() / rate - 1, rtol=1e-3)
    assert rows.mean_staleness["async"] == pytest.approx(3, rel=1e-3)
    assert rows.largest_staleness["async"] == pytest.approx(86_400 * 1.75, rel=1e-3)
    assert rows.aggregations_per_hour["async"] == pytest.approx(3600 * rate.sum(), rel=1e-3)
    # FedBuff's weights: twice as many visits as aggregations, whatever waits for whom.
    assert (1 / 4 / clients.weight_fedbuff).sum() == pytest.approx(2, rel=1e-3)
    # Waiting for less than a second more or less does not change how rare the slow client is.
    per_second = rows.aggregations_per_hour["fedbuff-2"] / 3600
    assert 0.25 / clients.weight_fedbuff["c3"] == pytest.approx(1 / (86_400 * per_second), rel=1e-3)
    assert rows.simulated_loss.isna().tolist() == [
        True if n in found.cut else False for n in rows.index
    ]
    assert np.isfinite(rows.simulated_loss[found.chosen])
    # Progress goes on through the clock.
    shares = [share for _, share in said]
    assert shares == sorted(shares) and shares[-1] < 1
    assert max(np.diff(shares)) < 0.06 and sum("the clock of async" in what for what, _ in said) > 5


def test_renewal_agrees_with_a_clock_that_is_played_out():
    times = np.array([1.0, 1.5, 400.0])
    whole = schedule(buffer(2), fixed(times), 3, 100_000.0)
    cut = schedule(buffer(2), fixed(times), 3, 100_000.0, most=5000)
    assert cut.horizon == cut.times[-1] and len(cut.times) == 5000
    found = planning.participation(cut, times)
    np.testing.assert_allclose(found, whole.participation, rtol=0.02)
    assert np.bincount(cut.client)[2] < planning.SELDOM


def test_a_long_horizon_is_shortened_for_all_schemes_alike(monkeypatch):
    monkeypatch.setattr(planning, "LONGEST", 2000)
    found = federated.plan(log(np.array([1.0, 1.0, 4.0])), horizon=1e6)
    assert found.horizon == pytest.approx(2000 / 9) and found.cut == ()
    assert found.curves.groupby("scheme").seconds.max().max() == pytest.approx(4 * found.horizon)


def test_rates_that_diverge_warn_of_nothing(recwarn):
    federated.plan(log(np.array([1.0, 3.0, 100.0])), horizon=60)
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_kept_models_are_those_of_all():
    optima = np.random.default_rng(1).normal(size=(3, 2))
    plan = schedule(first, fixed(TAU), 3, 40)
    every = simulate(plan, uniform(3), optima, contractions=np.array([0.1]), noise=0.3)
    some = np.array([0, 3, 4, 20])
    kept = simulate(plan, uniform(3), optima, contractions=np.array([0.1]), noise=0.3, keep=some)
    np.testing.assert_array_equal(kept, every[some])
