"""From a log of client round trips to weights, bias, staleness and a waiting policy.

Source of weights and bias: Fraboni, Vidal, Kameni, Lorenzi 2023 (JMLR 24, arXiv:2206.10189). The
comparison of schemes is a simulation on noisy quadratics under the clients' own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from latebloom.data.files import Column, FileError, check_table, row_number
from latebloom.methods.federated.clock import (
    TOLD,
    Rule,
    Schedule,
    buffer,
    everyone,
    first,
    resampled,
    schedule,
)
from latebloom.methods.federated.clock import window as window_rule
from latebloom.methods.federated.weights import (
    Scheme,
    asynchronous_weights,
    chi_square,
    fedfix_weights,
    surrogate,
    weights_from_participation,
)

COLUMNS = {
    "client": Column("label", aliases=("client_id", "cid", "node", "node_id", "partition_id")),
    "seconds": Column(
        "number",
        low=0,
        above=True,
        aliases=("duration_seconds", "elapsed_seconds", "time_seconds", "duration_s", "time_s"),
    ),
    "importance": Column("number", low=0, above=True, required=False),
}
DIVISORS = (1, 2, 3, 4, 6, 8)  # windows tried: the slowest client's mean time over each
NEAR = 1.1  # a longer window is preferred to one that leaves up to 10 % less
LONGEST = 200_000  # aggregations that a clock is played for
SHORTEST = 20.0  # mean times of the slowest client that a simulation takes at least
SELDOM = 30  # visits below which a client's share in a clock cut short is rough
CONTRACTIONS = np.logspace(-3, 0, 13)  # phi = 1 - (1 - eta)^K of the local work
DIMENSIONS = 64


@dataclass(frozen=True)
class ClientLog:
    """Round trips of each client: names, logged seconds, and the importance asked for (sum 1)."""

    names: tuple[str, ...]
    seconds: tuple[np.ndarray, ...]
    importance: Float[np.ndarray, " clients"]

    @property
    def means(self) -> Float[np.ndarray, " clients"]:
        """Mean seconds of each client."""
        return np.array([pool.mean() for pool in self.seconds])


@dataclass(frozen=True)
class Plan:
    """What a log of round trips tells.

    - `clients`: a row each: times, staleness and participation under the scheme in use, the share
      that identical weights amount to, and the weights d_i that each scheme needs.
    - `schemes`: a row each: pace, staleness, idle time, bias chi^2 of identical weights, and the
      loss that is left in the simulation, with unbiased and with identical weights.
    - `curves`: simulated loss over time of each scheme.
    - `used`, `chosen`: name in `schemes` of the scheme in use, and of the recommended window.
    - `window`: that window in seconds. `chi_square`: bias of the scheme in use.
    - `schedules`: the clock of each scheme. `horizon`: what was simulated, in mean times of the slowest
      client. `cut`: schemes whose clock was cut short, so that no loss was simulated (it is NaN).
    """

    log: ClientLog
    clients: pd.DataFrame
    schemes: pd.DataFrame
    curves: pd.DataFrame
    used: str
    chosen: str
    window: float
    chi_square: float
    schedules: dict[str, Schedule]
    horizon: float
    cut: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    name: str
    window: float | None
    schedule: Schedule
    unbiased: Float[np.ndarray, " clients"]
    share: Float[np.ndarray, " clients"]  # q~_i under identical weights
    participation: Float[np.ndarray, " clients"]
    cut: bool  # whether the clock was cut short


def client_log(table: pd.DataFrame, *, where: str = "the table") -> ClientLog:
    """Read a table `client, seconds` with one row a round trip, and perhaps `importance`.

    Raises `FileError` for missing columns, times that are not positive, fewer than two clients, or
    an importance that changes within a client.
    """
    table = check_table(table, COLUMNS, where=where, min_rows=2)
    names = table["client"].unique()
    if len(names) < 2:
        raise FileError(
            f"{where}, column 'client' names only {names[0]!r}: a federation needs two clients"
        )
    groups = table.groupby("client", sort=False)
    importance = np.ones(len(names))
    if "importance" in table:
        odd: Any = table["importance"] != groups["importance"].transform("first")
        if odd.any():
            row = int(np.flatnonzero(odd)[0])
            raise FileError(
                f"{where}, column 'importance', row {row_number(table, row)}: "
                f"{table['importance'][row]:g} differs from an earlier row of client "
                f"{table['client'][row]!r}: give each client one importance"
            )
        importance = groups["importance"].first().to_numpy(float)
    pools = tuple(pool.to_numpy(float) for _, pool in groups["seconds"])
    return ClientLog(tuple(map(str, names)), pools, importance / importance.sum())


def plan(
    table: pd.DataFrame | ClientLog, *, scheme: Scheme = "async", window: float | None = None,
    buffer_size: int | None = None, horizon: float = 100.0, heterogeneity: float = 1.0,
    noise: float = 1.0, seed: int = 0,
    say: Callable[[str, float | None], None] = lambda what, share: None,
) -> Plan:  # fmt: skip
    """Weights, bias, staleness and a FedFix window for clients with the logged times.

    - `table`: a `ClientLog`, or columns as for `client_log`.
    - `scheme`: what is in use, with its `window` (seconds) for "fedfix"; `buffer_size` is that of
      FedBuff (default: a quarter of the clients).
    - `horizon`: length of the simulation in mean times of the slowest client. It is shortened, down to
      20, where asynchronous FedAvg would aggregate more than 200,000 times. Clocks that take more
      even so are cut short: what is said of rare clients follows from their mean times then
      (`participation`), and no loss is simulated.
    - `heterogeneity`, `noise`: distance of the clients' optima from each other, and size of a local
      work's random error, in units of the distance from the start to the optimum.

    The window recommended is, of those tried (the slowest client's mean time over `DIVISORS`, and
    the one in use), the longest whose simulated loss at the end is within 10 % of the lowest, each
    at its best learning rate.

    Raises `FileError` for a bad table and `ValueError` for bad options.
    """
    log = table if isinstance(table, ClientLog) else client_log(table)
    size = max(len(log.names) // 4, 1) if buffer_size is None else buffer_size
    _check(scheme, window, size, horizon, len(log.names), heterogeneity, noise)
    horizon = _shortened(horizon, log.means)
    tries = candidates(log, window, size, horizon * log.means.max(), seed, say)
    buffered = f"fedbuff-{size}"
    used = {"fedbuff": buffered, "fedfix": f"fedfix-{0 if window is None else window:.4g}"}.get(
        scheme, scheme
    )
    world = _World.draw(log, heterogeneity, noise, seed)
    rows, curves = [], []
    for place, one in enumerate(tries):
        begin = 0.5 + 0.5 * place / len(tries)
        say(f"simulating {one.name}", begin)
        row, curve = _simulated(
            one, world, log, horizon,
            lambda share, at=begin, name=one.name: say(f"simulating {name}", at + 0.5 * share / len(tries)),
        )  # fmt: skip
        rows.append(row)
        curves.append(curve)
    schemes = pd.DataFrame(rows)
    chosen = _longest_good_window(schemes)
    byname = {one.name: one for one in tries}
    return Plan(
        log, _client_table(log, byname, used, chosen, buffered), schemes,
        pd.concat(curves, ignore_index=True), used, chosen, byname[chosen].window or np.nan,
        chi_square(log.importance, byname[used].share),
        {one.name: one.schedule for one in tries}, horizon,
        tuple(one.name for one in tries if one.cut),
    )  # fmt: skip


def _shortened(horizon: float, means: np.ndarray) -> float:
    """The horizon within which asynchronous clients send no more updates than a clock is played for."""
    return min(horizon, max(SHORTEST, LONGEST / (means.max() / means).sum()))


def participation(
    clock: Schedule, means: Float[np.ndarray, " clients"]
) -> Float[np.ndarray, " clients"]:
    """Share of aggregations in which each client takes part, from a clock that was cut short.

    For clients of `means` so long that they were hardly seen it is what renewal says: they take part
    once in their mean time and the mean wait for an aggregation, at the rate that was played.
    """
    count = np.bincount(clock.client, minlength=clock.clients)
    rate = len(clock.times) / clock.times[-1]
    wait = (clock.times[clock.aggregation] - clock.arrived).mean()
    return np.where(count < SELDOM, 1 / (rate * (means + wait)), count / len(clock.times))


def _longest_good_window(schemes: Any) -> str:
    fixed = schemes[schemes["window_seconds"].notna()]
    good = fixed[fixed["simulated_loss"] <= NEAR * fixed["simulated_loss"].min()]
    return str(good.loc[good["window_seconds"].idxmax(), "scheme"])


def _check(
    scheme: str, window: float | None, size: int, horizon: float, clients: int, heterogeneity: float,
    noise: float,
) -> None:  # fmt: skip
    if scheme not in ("sync", "async", "fedbuff", "fedfix"):
        raise ValueError(f"the scheme must be sync, async, fedbuff or fedfix, not {scheme!r}")
    if scheme == "fedfix" and window is None:
        raise ValueError("fedfix needs the window in use, in seconds")
    if window is not None and not 0 < window < np.inf:
        raise ValueError(f"the window must be longer than 0, not {window}")
    if not 1 <= size <= clients:
        raise ValueError(f"a buffer of {size} updates does not suit {clients} clients")
    if not 10 <= horizon < np.inf:
        raise ValueError(f"the horizon must be at least 10 of the slowest rounds, not {horizon}")
    for name, value in (("heterogeneity", heterogeneity), ("noise", noise)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} must be finite and not below 0, not {value}")


def candidates(
    log: ClientLog, window: float | None, buffer_size: int, horizon: float, seed: int,
    say: Callable[[str, float | None], None],
) -> list[_Candidate]:  # fmt: skip
    """Synchronous, asynchronous, FedBuff, and FedFix with several windows on the clients' clock."""
    clients, p, means = len(log.names), log.importance, log.means
    lengths = [float(f"{means.max() / divisor:.4g}") for divisor in DIVISORS]
    if window is not None:
        lengths.append(window)
    rules: dict[str, tuple[Rule, np.ndarray | None, float | None]] = {
        "sync": (everyone, p, None),
        "async": (first, asynchronous_weights(means, p), None),
        f"fedbuff-{buffer_size}": (buffer(buffer_size), None, None),
    }
    for length in lengths:
        weights = fedfix_weights(log.seconds, p, length)
        rules[f"fedfix-{length:.4g}"] = (window_rule(length), weights, length)
    found = []
    for place, (name, (rule, weights, length)) in enumerate(rules.items()):
        begin = 0.5 * place / len(rules)
        say(f"the clock of {name}", begin)
        made = schedule(
            rule, resampled(log.seconds), clients, horizon, seed=seed, most=LONGEST,
            say=lambda share, at=begin, name=name: say(f"the clock of {name}", at + 0.5 * share / len(rules)),
        )  # fmt: skip
        cut = made.horizon < horizon
        taken = participation(made, means) if cut else made.participation
        if weights is None:
            weights = weights_from_participation(taken, p)
        # Identical weights amount to the participation, which is p_i / d_i.
        share = surrogate(np.ones(clients), p / weights)
        found.append(_Candidate(name, length, made, weights, share, taken, cut))
    return found


@dataclass(frozen=True)
class _World:
    """Quadratic clients: optima [clients, dim] around a point at distance 1 from the start."""

    optima: np.ndarray
    noise: float
    seed: int

    @staticmethod
    def draw(log: ClientLog, heterogeneity: float, noise: float, seed: int) -> _World:
        rng = np.random.default_rng(seed)
        centre, around = (
            rng.normal(size=(n, DIMENSIONS)) / np.sqrt(DIMENSIONS) for n in (1, len(log.names))
        )
        around -= log.importance @ around
        return _World(centre + heterogeneity * around, noise / np.sqrt(DIMENSIONS), seed)


def simulate(
    plan: Schedule, weights: Float[np.ndarray, " clients"],
    optima: Float[np.ndarray, "clients dim"], *, contractions: Float[np.ndarray, " rates"],
    noise: float = 0.0, seed: int = 0, keep: Int[np.ndarray, " kept"] | None = None,
    say: Callable[[float], None] = lambda share: None,
) -> Float[np.ndarray, "kept rates dim"]:  # fmt: skip
    """The models that a schedule makes of quadratic clients, for several learning rates at once.

    A local work moves a model by phi (theta_i* - theta + noise * xi) with xi standard normal and
    phi = 1 - (1 - eta)^K (example 1 of the source). `keep`: the aggregations whose models are
    returned, increasing (default: all). `say`: told now and then which share is done.
    """
    rng = np.random.default_rng(seed)
    phi = np.asarray(contractions, float)[:, None]
    shape = (len(phi), optima.shape[1])
    model = np.zeros(shape)
    sent = np.zeros((plan.clients, *shape))
    count = len(plan.times)
    kept = np.arange(count) if keep is None else np.asarray(keep)
    models = np.zeros((len(kept), *shape))
    until = np.searchsorted(kept, np.arange(count + 1))  # rows of `models` before each aggregation
    ends = np.searchsorted(plan.aggregation, np.arange(count), side="right")
    start = 0
    for n, end in enumerate(ends):
        if n % TOLD == TOLD - 1:
            say(n / count)
        some = plan.client[start:end]
        if len(some):
            aims = optima[some] + noise * rng.normal(size=(len(some), shape[1]))
            moves = aims[:, None] - sent[some]
            model = model + phi * np.einsum("c,crd->rd", weights[some], moves)
            sent[some] = model
        models[until[n] : until[n + 1]] = model
        start = end
    return models


def _simulated(
    one: _Candidate, world: _World, log: ClientLog, horizon: float, say: Callable[[float], None]
) -> tuple[dict[str, object], pd.DataFrame]:
    """A row of the table of schemes, and the loss curve at the best learning rate."""
    clock = one.schedule
    span = min(horizon * log.means.max(), clock.horizon)
    looks = np.linspace(0, span, 101)
    curves = {kind: np.full(len(looks), np.nan) for kind in ("unbiased", "identical")}
    if not one.cut:
        identical = np.full(clock.clients, one.unbiased.mean())
        for half, kind in enumerate(curves):
            weights = identical if half else one.unbiased
            curves[kind] = _best_curve(
                clock, weights, world, log.importance, looks, lambda share, half=half: say((half + share) / 2)
            )  # fmt: skip
    stale = 1 / one.participation - 1  # aggregations between two of a client's, on average
    busy = (np.minimum(clock.arrived, span) - clock.began).sum() / (span * clock.clients)
    row = {
        "scheme": one.name,
        "window_seconds": np.nan if one.window is None else one.window,
        "aggregations_per_hour": 3600 * len(clock.times) / clock.times[-1],
        "updates_per_hour": 3600 * len(clock.client) / clock.times[-1],
        "waiting_share": np.nan if one.cut else max(1 - busy, 0.0),
        "mean_staleness": (
            one.participation @ stale / one.participation.sum()
            if one.cut
            else clock.staleness.mean()
        ),
        "largest_staleness": int(max(clock.staleness.max(), stale.max() if one.cut else 0)),
        "chi_square_identical": chi_square(log.importance, one.share),
        "simulated_loss": curves["unbiased"][-20:].mean(),
        "simulated_loss_identical": curves["identical"][-20:].mean(),
    }
    curve = pd.DataFrame(
        {"scheme": one.name, "seconds": looks, "loss": curves["unbiased"],
         "loss_identical": curves["identical"]}
    )  # fmt: skip
    return row, curve


def _best_curve(
    clock: Schedule, weights: np.ndarray, world: _World, importance: np.ndarray, looks: np.ndarray,
    say: Callable[[float], None],
) -> np.ndarray:  # fmt: skip
    """Loss above the optimum at the moments `looks`, at the learning rate that is best in the end."""
    target = importance @ world.optima
    done = np.searchsorted(clock.times, looks * (1 + 1e-9), side="right")  # aggregations by then
    keep, places = np.unique(done[done > 0] - 1, return_inverse=True)
    with np.errstate(over="ignore", invalid="ignore"):  # there are rates at which it diverges
        models = simulate(
            clock, weights, world.optima, contractions=CONTRACTIONS, noise=world.noise,
            seed=world.seed, keep=keep, say=say,
        )  # fmt: skip
        later = np.square(models - target).sum(-1) / 2
        begin = np.full(((done == 0).sum(), len(CONTRACTIONS)), (target**2).sum() / 2)
        seen = np.nan_to_num(np.concatenate([begin, later[places]]), nan=np.inf)
        return seen[:, seen[-20:].mean(axis=0).argmin()]


def _client_table(
    log: ClientLog, tries: dict[str, _Candidate], used: str, chosen: str, buffered: str
) -> pd.DataFrame:
    clock = tries[used].schedule
    late: Any = pd.Series(clock.staleness).groupby(clock.client)
    each: Sequence[int] = range(len(log.names))
    mean, largest = late.mean().reindex(each).to_numpy(), late.max().reindex(each).to_numpy()
    if tries[used].cut:
        mean = 1 / tries[used].participation - 1
        largest = np.fmax(largest, mean)
    return pd.DataFrame(
        {
            "client": log.names,
            "rounds_logged": [len(pool) for pool in log.seconds],
            "mean_seconds": log.means,
            "sd_seconds": [pool.std(ddof=1) if len(pool) > 1 else np.nan for pool in log.seconds],
            "importance": log.importance,
            "participation": tries[used].participation,
            "mean_staleness": mean,
            "largest_staleness": largest,
            "share_identical": tries[used].share,
            "weight_sync": tries["sync"].unbiased,
            "weight_async": tries["async"].unbiased,
            "weight_fedfix": tries[chosen].unbiased,
            "weight_fedbuff": tries[buffered].unbiased,
        }
    )
