"""Timescales of recorded activity: autocorrelations, fits of one and two exponentials, intervals.

Source: Khajehabdollahi et al. 2024 (arXiv 2309.12927), section 2 and appendix; bounds, lags and AIC as in their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int
from scipy import stats

FITTED, BOUND, NONE = "fitted", "at the bound", "no memory"
SILENT, CONSTANT, MISSING = "silent", "constant", "not finite"
FEWEST = 8  # trials or blocks that are drawn for an interval
GRID, AROUND = 24, 5  # places of the first grid and of those around the best
ZOOMS, SHRINK, ROUNDS = 12, 0.6, 60  # grids around the best, each so much narrower; steps then
BEND = 0.3  # steps: below it the grid is even in tau, above it in log(tau)
TOGETHER, BATCH = (
    16,
    64,
)  # units of which replicates are drawn, and curves that are fitted, at a time
LEAST = 1e-3  # of the autocorrelation after one step; below it there is no memory


def autocorrelation(activity: Any, lags: int) -> Any:
    """sum_t x_t x_{t + lag} / (n - lag), the mean of each trial and unit removed, averaged over trials: [units, lags + 1].

    `activity` [trials, time, units] may be an array of JAX or NumPy. It is not divided by its value at lag 0.

    Raises `ValueError` for another shape, and for trials of fewer steps than lags + 2.
    """
    xp = jnp if isinstance(activity, jax.Array) else np
    n = _steps(xp.shape(activity), lags)
    x = activity - xp.mean(activity, axis=1, keepdims=True)
    power = xp.abs(xp.fft.rfft(x, 2 * n, axis=1)) ** 2
    sums = xp.fft.irfft(power, 2 * n, axis=1)[:, : lags + 1]
    return xp.mean(sums, axis=0).T / (n - xp.arange(lags + 1))


def _steps(shape: tuple[int, ...], lags: int) -> int:
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"activity must be [trials, time, units], none of them 0, not {list(shape)}: one recording [time, units] is activity[None]")  # fmt: skip
    if isinstance(lags, bool) or lags != int(lags) or lags < 4:
        raise ValueError(f"lags must be a whole number from 4, not {lags}")
    if shape[1] < lags + 2:
        raise ValueError(f"trials have {shape[1]} steps where {lags} lags need at least {lags + 2}: give longer ones, or take fewer lags")  # fmt: skip
    return shape[1]


class Fits(NamedTuple):
    """Curves [n] fitted by one exponential and by two; times in steps.

    - `one`: amplitude and tau [n, 2]. `two`: amplitude and tau of the faster, then of the slower one [n, 4].
    - `rss` [n, 2]: sums of squared residuals of both. `aic` [n, 2]: 2 k + m ln(rss / m), k of 2 and 4, m lags.
    - `models` [n]: 1 or 2, the one of the lower AIC. `slow` [n]: its slower tau.
    """

    one: Float[Array, "n 2"]
    two: Float[Array, "n 4"]
    rss: Float[Array, "n 2"]
    aic: Float[Array, "n 2"]
    models: Int[Array, " n"]
    slow: Float[Array, " n"]


def fit(curves: Float[Array, "n lags"], *, most: float = 100.0, first: int = 0, rounds: int | Array = ROUNDS) -> Fits:  # fmt: skip
    """Least squares of a exp(-t / tau) and of a c exp(-t / tau1) + a (1 - c) exp(-t / tau2); a, c in [0, 1], tau in [0, most].

    `curves` are autocorrelations over that at lag 0, from lag 0 on; fitted from lag `first` on. Amplitudes are solved for
    in closed form on a grid of taus, narrower grids follow around the best, and `rounds` steps of Levenberg's, of all
    curves at once. The residuals of two are never above those of one. Works under `jit`; double precision where it is switched on.

    Raises `ValueError` for a first lag that leaves fewer than 5, and for bounds not above 0.
    """
    if not 0 <= first <= curves.shape[1] - 5:
        raise ValueError(f"first must leave at least 5 of the {curves.shape[1]} lags, and is {first}")  # fmt: skip
    if not 0 < most < np.inf:
        raise ValueError(f"most must be a number of steps above 0, not {most}")
    each = partial(_fit, t=jnp.arange(first, curves.shape[1]), most=most, rounds=rounds)
    whole = -(-len(curves) // BATCH) * BATCH  # or the rest of a batch is compiled once more
    padded = jnp.zeros((whole, curves.shape[1] - first), curves.dtype).at[: len(curves)].set(curves[:, first:])  # fmt: skip
    fits = jax.lax.map(each, padded, batch_size=BATCH)
    return jax.tree.map(lambda part: part[: len(curves)], fits)


_compiled = partial(jax.jit, static_argnames=("most", "first"))(fit)


def _fit(
    y: Float[Array, " lags"], t: Int[Array, " lags"], most: float, rounds: int | Array
) -> Fits:
    steps = jnp.linspace(-1, 1, AROUND, dtype=y.dtype)
    even = jnp.linspace(0, 1, GRID, dtype=y.dtype)
    pairs = jnp.stack([even[i] for i in jnp.triu_indices(GRID)], axis=1)
    both = jnp.array([[1, 1], [1, -1]], y.dtype)  # level and ratio of taus: valleys run so

    def search(places: Array, axes: Array) -> Array:
        """The best of `places` [n, k], and of grids along `axes` [k, k] around it.

        Each is narrower than the last, but along axes at whose end the best was.
        """

        def best_of(places: Array) -> tuple[Array, Array, Array]:
            found = _least(y, _decays(places, t, most))
            at = jnp.argmin(found)
            return places[at], found[at], at

        def narrower(_: Any, now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            best, least, width = now
            place, found, at = best_of(jnp.clip(best + (offsets * width) @ axes, 0, 1))
            better = found < least
            outer = better & (jnp.abs(offsets[at]) == 1)
            return jnp.where(better, place, best), jnp.where(better, found, least), jnp.where(outer, width, SHRINK * width)  # fmt: skip

        k = len(axes)
        offsets = jnp.stack(jnp.meshgrid(*[steps] * k, indexing="ij"), axis=-1).reshape(-1, k)
        best, least, _ = best_of(places)
        start = best, least, jnp.full(k, 1 / (GRID - 1), y.dtype)
        return jax.lax.fori_loop(0, ZOOMS, narrower, start)[0]

    def left(place: Array) -> tuple[Array, list[Array]]:
        """What the best amplitudes at these places leave of y, and the amplitudes."""
        e = _decays(place, t, most)
        if len(e) == 1:
            a = [_one(y @ e[0], e[0] @ e[0])[0]]
        else:
            a = list(_two(y @ e[0], y @ e[1], e[0] @ e[0], e[1] @ e[1], e[0] @ e[1])[:2])
        return y - sum(own * decay for own, decay in zip(a, e, strict=True)), a

    def polished(place: Array) -> Array:
        """Levenberg's steps in the places, amplitudes solved for: into the ends of narrow, bent valleys."""

        def one(_: Any, now: tuple[Array, Array]) -> tuple[Array, Array]:
            place, damping = now
            rest, slopes = left(place)[0], jax.jacfwd(lambda p: left(p)[0])(place)
            down = -slopes.T @ rest
            held = ((place <= 0) & (down < 0)) | ((place >= 1) & (down > 0))
            slopes, down = jnp.where(held, 0, slopes), jnp.where(held, 0, down)
            square = slopes.T @ slopes
            square = square + jnp.diag(damping * jnp.diag(square) + jnp.finfo(y.dtype).tiny ** 0.5)
            move = jnp.linalg.solve(square, down) if len(place) > 1 else down / square[0]
            tried = jnp.clip(place + jnp.where(jnp.isfinite(move), move, 0), 0, 1)
            better = (left(tried)[0] ** 2).sum() < (rest**2).sum()
            return jnp.where(better, tried, place), jnp.where(better, damping / 5, damping * 3)

        return jax.lax.fori_loop(0, rounds, one, (place, jnp.asarray(1e-3, y.dtype)))[0]

    single = polished(search(even[:, None], jnp.ones((1, 1), y.dtype)))
    # Where the grid's best is one exponential, a second one may still start beside it.
    s = single[0]
    second = jnp.stack([jnp.full_like(even, s), even], axis=1)
    near = second[jnp.argmin(_least(y, _decays(second, t, most)))]
    best = search(pairs, both)
    beside = (jnp.stack([s, s + d]) for d in (-0.03, 0.03))
    starts = [best, jnp.maximum(best, 0.08), near, *beside]  # at tau 0 there is no slope
    ends = jax.vmap(polished)(jnp.clip(jnp.stack(starts), 0, 1))
    double = ends[jnp.argmin(jax.vmap(lambda p: (left(p)[0] ** 2).sum())(ends))]
    (left1, (a,)), (left2, (b, c)) = left(single), left(double)
    tau, pair = _tau(single, most)[0], _tau(double, most)
    rss1, rss2 = (left1**2).sum(), (left2**2).sum()
    ordered = jnp.stack([b, pair[0], c, pair[1]])
    two = jnp.where(pair[0] > pair[1], jnp.roll(ordered, 2), ordered)
    two = jnp.where(rss1 < rss2, jnp.stack([0 * a, tau, a, tau]), two)
    rss = jnp.stack([rss1, jnp.minimum(rss1, rss2)])
    m, least = len(t), max((8 * float(jnp.finfo(y.dtype).eps)) ** 2, 1e-14)  # both exact: one
    aic = 2 * jnp.array([2, 4], y.dtype) + m * jnp.log(jnp.maximum(rss / m, least))
    models = jnp.where(aic[1] < aic[0], 2, 1)
    slow = jnp.where(models == 2, two[3], jnp.where(a > 0, tau, 0))
    return Fits(jnp.stack([a, tau]), two, rss, aic, models, slow)


def _tau(place: Array, most: float) -> Array:
    """From 0 at 0 to `most` at 1: even at first, then by equal factors."""
    return BEND * jnp.expm1(place * np.log1p(most / BEND))


def _decays(place: Array, t: Array, most: float) -> Array:
    """exp(-t / tau) [..., lags]; of tau 0 it is 1 at lag 0 and 0 beyond."""
    tau = jnp.maximum(_tau(place, most), 1e-6)[..., None]
    return jnp.exp(-t / tau)


def _least(y: Array, decays: Array) -> Array:
    """The least sum of squares, but for that of y, for each set of decays [n, 1 or 2, lags]."""
    along, square = decays @ y, (decays * decays).sum(-1)
    if decays.shape[1] == 1:
        return _one(along[:, 0], square[:, 0])[1]
    both = (decays[:, 0] * decays[:, 1]).sum(-1)
    return _two(along[:, 0], along[:, 1], square[:, 0], square[:, 1], both)[2]


def _one(ye: Array, ee: Array) -> tuple[Array, Array]:
    """The amplitude from 0 to 1, and the sum of squares but for that of y; nothing of what is 0."""
    a = jnp.clip(ye / jnp.where(ee > 0, ee, 1), 0, 1)
    return a, a * (a * ee - 2 * ye)


def _two(ye: Array, yf: Array, ee: Array, ff: Array, ef: Array) -> tuple[Array, Array, Array]:
    """Amplitudes b, c >= 0, b + c <= 1, and the sum of squares: the free optimum where it is such, else the best edge."""
    det = ee * ff - ef * ef
    by = jnp.where(det > 0, det, 1)
    b, c = (ff * ye - ef * yf) / by, (ee * yf - ef * ye) / by
    inside = (det > 0) & (b >= 0) & (c >= 0) & (b + c <= 1)
    edge = _one(ye - yf - ef + ff, ee + ff - 2 * ef)[0]
    zero = jnp.zeros_like(edge)
    bs = jnp.stack([jnp.where(inside, b, 0), _one(ye, ee)[0] + zero, zero, edge])
    cs = jnp.stack([jnp.where(inside, c, 0), zero, _one(yf, ff)[0] + zero, 1 - edge])
    rss = bs * (bs * ee - 2 * ye) + cs * (cs * ff - 2 * yf) + 2 * bs * cs * ef
    at = jnp.argmin(rss, axis=0)[None]
    take = lambda x: jnp.take_along_axis(x, at, axis=0)[0]  # noqa: E731
    return take(bs), take(cs), take(rss)


@dataclass(frozen=True, eq=False)
class Timescales:
    """What was found of each unit; times in the user's unit, NaN where there is none.

    - `status`: "fitted"; "at the bound": the timescale is `most` or longer; "no memory": as far as the interval tells, nothing is left after a step;
      "silent" (0 throughout), "constant" in each trial, "not finite": these three are not fitted.
    - `models`: 1 or 2 exponentials, by AIC (0: none). `tau`: of the one, or of the slower; `low` and `high` of its
      interval at `level`, `high` infinite where it reaches the bound; NaN where `drawn` is 0. `two`: the share of
      replicates in which two exponentials win: near 0 or 1 the choice is firm.
    - AIC often takes two where there is one: then the slower is at the bound with little amplitude, see `share`.
    - `one` [units]: tau of one exponential, with `one_low`, `one_high`; `fast`, `slow` of two, and the amplitude of the
      slower, `share`, of the autocorrelation at lag 0.
    - `lags` [lags + 1], `curves` [units, lags + 1]: the autocorrelation over that at lag 0; `fitted` [units, lags + 1].
    - `drawn`: how many trials or blocks were drawn for a replicate, of `drawn_as` "trials" or "blocks".
    """

    names: tuple[str, ...]
    status: np.ndarray
    models: Int[np.ndarray, " units"]
    tau: Float[np.ndarray, " units"]
    low: Float[np.ndarray, " units"]
    high: Float[np.ndarray, " units"]
    two: Float[np.ndarray, " units"]
    one: Float[np.ndarray, " units"]
    one_low: Float[np.ndarray, " units"]
    one_high: Float[np.ndarray, " units"]
    fast: Float[np.ndarray, " units"]
    slow: Float[np.ndarray, " units"]
    share: Float[np.ndarray, " units"]
    lags: Float[np.ndarray, " lags"]
    curves: Float[np.ndarray, "units lags"]
    fitted: Float[np.ndarray, "units lags"]
    drawn: int
    drawn_as: str
    level: float

    def frame(self) -> pd.DataFrame:
        """A row a unit."""
        return pd.DataFrame({
            "unit": self.names, "status": self.status, "exponentials": self.models, "tau": self.tau, "low": self.low,
            "high": self.high, "two_share": self.two, "tau_of_one": self.one, "one_low": self.one_low, "one_high": self.one_high, "tau_fast": self.fast,
            "tau_slow": self.slow, "slow_amplitude": self.share,
        })  # fmt: skip


def timescales(
    activity: Any, *, lags: int = 30, most: float = 100.0, first: int = 0, step: float = 1.0,
    replicates: int = 500, level: float = 0.95, blocks: int | None = None, seed: int = 0,
    names: tuple[str, ...] | None = None, say: Any = lambda share: None,
) -> Timescales:  # fmt: skip
    """How long each unit of `activity` [trials, time, units] remembers, with intervals.

    - `lags` and `first` in steps; `most` the longest timescale, in steps; `step` the length of a step in the unit that
      taus are told in.
    - Intervals: percentiles of `replicates` in which trials are drawn anew, or, where there are fewer than 8, blocks of
      trials (`blocks` in all; else as many as hold 4 times the lags, at most 50). Levels are widened for few trials or
      blocks as by Hesterberg 2015 (The American Statistician 69, section 4.2). 0 replicates: no intervals.

    Autocorrelations of short trials are too low, since each trial loses its mean: taus that are not far shorter than
    trials come out too short, and intervals do not know of it (`benchmarks/timescales_coverage.py` measures what they hold).

    Raises `ValueError` for settings outside their ranges.
    """
    x = _numbers(activity)
    n = _steps(x.shape, lags)
    if not (np.isfinite(step) and step > 0):
        raise ValueError(f"step must be a length of time above 0, not {step}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    if replicates != int(replicates) or (replicates != 0 and replicates < 100):
        raise ValueError(f"replicates must be 0 or at least 100, not {replicates}")
    units = x.shape[2]
    named = tuple(map(str, range(units))) if names is None else tuple(names)
    if len(named) != units:
        raise ValueError(f"names must be {units}, one a unit, not {len(named)}")
    status = _status(x)
    good = np.flatnonzero(status == FITTED)
    pieces, how = _pieces(x.shape[0], n, lags, blocks)
    shape = (units, lags + 1)
    found = {name: np.full(units, np.nan) for name in ("tau", "low", "high", "two", "one", "one_low", "one_high", "fast", "slow", "share")}  # fmt: skip
    curves, fitted, models = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(units, int)
    rng = np.random.default_rng(seed)
    total = x.shape[0] * pieces
    enough = replicates and total >= FEWEST
    drawn = (
        rng.multinomial(total, np.full(total, 1 / total), size=int(replicates)) if enough else None
    )
    with jax.enable_x64(True):
        run = partial(_compiled, most=float(most), first=int(first))
        for start in range(0, len(good), TOGETHER):
            chosen = good[start : start + TOGETHER]
            padded = np.resize(chosen, TOGETHER)  # one shape, one program
            sums, counts = block_sums(x[:, :, padded], lags, pieces)
            own = sums.sum(axis=(0, 1)) / (x.shape[0] * counts.sum(axis=0))
            own = own / own[:, :1]
            fits: Any = jax.tree.map(itemgetter(slice(len(chosen))), run(jnp.asarray(own)))
            curves[chosen], models[chosen] = own[: len(chosen)], fits.models
            fitted[chosen] = _fitted(fits, np.arange(lags + 1))
            parts = (fits.slow, fits.one[:, 1], fits.two[:, 1], fits.two[:, 3], fits.two[:, 2])
            for name, part in zip(("tau", "one", "fast", "slow", "share"), parts, strict=True):
                found[name][chosen] = part
            if drawn is not None:
                bounds = _intervals(sums, counts, drawn, partial(run, rounds=5), level, most)
                for name, part in bounds.items():
                    found[name][chosen] = part[: len(chosen)]
            say((start + len(chosen)) / len(good))
    status[good] = np.where(found["tau"][good] >= most * (1 - 1e-6), BOUND, FITTED)
    least = np.where(np.isnan(found["low"]), found["tau"], found["low"])[good]
    status[good] = np.where(least < -1 / np.log(LEAST), NONE, status[good])
    for name in ("tau", "low", "high", "one", "one_low", "one_high", "fast", "slow"):
        found[name] = found[name] * step
    fitted[:, :first] = np.nan
    return Timescales(
        names=named, status=status, models=models, **found, lags=step * np.arange(lags + 1), curves=curves, fitted=fitted,
        drawn=total if enough else 0, drawn_as=how, level=level,
    )  # fmt: skip


def _numbers(activity: Any) -> Float[np.ndarray, "trials time units"]:
    x = np.asarray(activity)
    if x.dtype.kind not in "fiub" and x.dtype.name != "bfloat16":
        raise ValueError(f"activity must be real numbers, not {x.dtype}")
    return x.astype(np.float64)


def _status(x: Float[np.ndarray, "trials time units"]) -> np.ndarray:
    with np.errstate(all="ignore"):
        finite = np.isfinite(x).all(axis=(0, 1))
        largest = np.abs(x).max(axis=(0, 1))
        moves = (x.max(axis=1) - x.min(axis=1)).max(axis=0)
    status = np.full(x.shape[2], FITTED, dtype=object)
    status[moves <= 1e-12 * largest] = CONSTANT
    status[largest == 0] = SILENT
    status[~finite] = MISSING
    return status


def _pieces(trials: int, n: int, lags: int, blocks: int | None) -> tuple[int, str]:
    """Into how many blocks each trial is cut."""
    if blocks is None:
        if trials >= FEWEST:
            return 1, "trials"
        return max(1, min(-(-50 // trials), n // (4 * lags))), "blocks"
    if blocks != int(blocks) or blocks < FEWEST or blocks % trials or blocks // trials > n // 2:
        raise ValueError(f"blocks must be a multiple of the {trials} trials from {FEWEST} on, with at least 2 steps each, not {blocks}")  # fmt: skip
    return int(blocks) // trials, "blocks"


def block_sums(
    x: Float[np.ndarray, "trials time units"], lags: int, pieces: int
) -> tuple[Float[np.ndarray, "trials pieces units lags"], Int[np.ndarray, "pieces lags"]]:
    """sum_t x_t x_{t + lag} over t in each block of a trial, its mean removed, and how many t that are.

    x_{t + lag} may lie in the next blocks, so that the sums of all blocks are that of the trial. Each unit is first
    divided by its largest magnitude.
    """
    x = x / np.abs(x).max(axis=(0, 1))
    x = x - x.mean(axis=1, keepdims=True)
    n = x.shape[1]
    starts = (np.arange(pieces) * n) // pieces
    sums = np.empty((x.shape[0], pieces, x.shape[2], lags + 1))
    for lag in range(lags + 1):
        products = np.zeros_like(x)
        products[:, : n - lag] = x[:, : n - lag] * x[:, lag:]
        sums[..., lag] = np.add.reduceat(products, starts, axis=1)
    ends = np.append(starts[1:], n)
    inside = np.minimum(ends[:, None], n - np.arange(lags + 1)) - starts[:, None]
    return sums, np.maximum(inside, 0)


def _fitted(fits: Any, t: np.ndarray) -> Float[np.ndarray, "n lags"]:
    """The chosen model's curve."""

    def decay(tau: np.ndarray) -> np.ndarray:
        return np.exp(-t / np.maximum(tau, 1e-9)[:, None])

    single = fits.one[:, :1] * decay(fits.one[:, 1])
    double = fits.two[:, :1] * decay(fits.two[:, 1]) + fits.two[:, 2:3] * decay(fits.two[:, 3])
    return np.where(fits.models[:, None] == 2, double, single)


def _intervals(
    sums: np.ndarray, counts: np.ndarray, drawn: np.ndarray, run: Any, level: float, most: float
) -> dict[str, np.ndarray]:
    """Bounds of the chosen slower tau and of that of one, and how often two exponentials are chosen, of each unit."""
    trials, pieces, units, lags = sums.shape
    n = trials * pieces
    again = np.einsum("rp,pul->url", drawn, sums.reshape(n, units, lags), optimize=True)
    again = again / (drawn @ np.tile(counts, (trials, 1)))
    lead = again[..., :1]  # 0 where only trials in which the unit is silent were drawn
    curves = np.where(lead > 0, again / np.where(lead > 0, lead, 1), 0)
    fits = run(jnp.asarray(curves.reshape(-1, lags)))
    z = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 - level) / 2, n - 1))
    found = {"two": (np.asarray(fits.models) == 2).reshape(units, -1).mean(axis=1)}
    for name, taus in (("", fits.slow), ("one_", fits.one[:, 1])):
        taus = np.where(lead[..., 0] > 0, np.asarray(taus).reshape(units, -1), 0)
        low, high = np.quantile(taus, [z, 1 - z], axis=1)
        found |= {f"{name}low": low, f"{name}high": np.where(high >= most * (1 - 1e-3), np.inf, high)}  # fmt: skip
    return found
