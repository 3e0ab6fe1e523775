"""The vocabulary of effects: what a claim measures, written as it is said.

Three kinds of term, each with a text that says what it is:

- a `Curve` of one trace, [seed, step]: `curve("train_accuracy") - curve("test_accuracy")`;
- a `Measure` of one trace, one number a seed: `final("test_accuracy")`, `peak(gap)`;
- an `Effect` of the traces of named arms, one number a seed: a measure *of an arm*,
  `final("test_accuracy")["adamw"]`, and what is made of several.

Terms of one kind take +, -, *, /, abs and the words below, with numbers or among themselves; an
effect knows the arms that it reads. Whatever an observable is kept in, terms compute in float64. A
number that a seed cannot give is NaN, and NaN stays NaN through everything that is computed from it,
unless a word says otherwise.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

Traces = Mapping[str, xr.Dataset]


class _Term:
    """Arithmetic between terms of one kind, and with numbers."""

    __array_ufunc__ = None  # NumPy's numbers leave arithmetic to the term
    text: str

    def __call__(self, source: Any) -> Any:
        raise NotImplementedError

    def __add__(self, other: Self | float) -> Self:
        return _infix("+", operator.add, self, other)

    def __radd__(self, other: float) -> Self:
        return _infix("+", operator.add, other, self)

    def __sub__(self, other: Self | float) -> Self:
        return _infix("-", operator.sub, self, other)

    def __rsub__(self, other: float) -> Self:
        return _infix("-", operator.sub, other, self)

    def __mul__(self, other: Self | float) -> Self:
        return _infix("*", operator.mul, self, other)

    def __rmul__(self, other: float) -> Self:
        return _infix("*", operator.mul, other, self)

    def __truediv__(self, other: Self | float) -> Self:
        return _infix("/", operator.truediv, self, other)

    def __rtruediv__(self, other: float) -> Self:
        return _infix("/", operator.truediv, other, self)

    def __neg__(self) -> Self:
        return _joined(f"-{self.text}", operator.neg, (self,))

    def __abs__(self) -> Self:
        return _joined(f"|{self.text}|", operator.abs, (self,))


@dataclass(frozen=True)
class Curve(_Term):
    """One number a seed and observation of one trace, as a `DataArray` [seed, step] of float64.

    `of` may return an array [seed, step] over all observations too. Raises `ValueError` where it
    gives another shape.
    """

    text: str
    of: Callable[[xr.Dataset], Any]

    def __call__(self, trace: xr.Dataset) -> xr.DataArray:
        return self.kept(trace).astype(float)

    def kept(self, trace: xr.Dataset) -> xr.DataArray:
        """The same in the precision that the trace keeps it in."""
        values = self.of(trace)
        if not isinstance(values, xr.DataArray):
            values = np.asarray(values)
            if values.shape != (shape := (trace.sizes["seed"], trace.sizes["step"])):
                raise ValueError(f"{self.text} must be [seed, step] = {shape}, not {values.shape}")
            return xr.DataArray(values, [("seed", trace.seed.values), ("step", trace.step.values)])
        if more := [str(dim) for dim in values.dims if dim not in ("seed", "step")]:
            raise ValueError(
                f"{self.text} has the dimension {more[0]!r} too: choose one, as in "
                f"{more[0]}={_labels(values, more[0])[0]!r}"
            )
        return values.transpose("seed", "step")

    def __getitem__(self, part: slice) -> Curve:
        """Some of the observations, by position: `curve("value")[1:-1]`."""
        first, last = part.start, part.stop
        text = f"{self.text}[{'' if first is None else first}:{'' if last is None else last}]"
        return Curve(text, lambda trace: self.kept(trace).isel(step=slice(first, last)))


@dataclass(frozen=True)
class Measure(_Term):
    """One number a seed of one trace, [seed]; `measure[arm]` is the effect of that arm.

    Raises `ValueError` where `of` gives another shape.
    """

    text: str
    of: Callable[[xr.Dataset], Any]

    def __call__(self, trace: xr.Dataset) -> np.ndarray:
        return _a_seed(self.text, self.of(trace))

    def __getitem__(self, arm: str) -> Effect:
        return Effect((arm,), f"{self.text} of {arm}", lambda traces: self(traces[arm]))


@dataclass(frozen=True)
class Effect(_Term):
    """One number a seed of the traces of `arms`, [seed].

    Raises `ValueError` where `of` gives another shape, and `KeyError` for an arm that is not among
    the traces.
    """

    arms: tuple[str, ...]
    text: str
    of: Callable[[Traces], Any]

    def __call__(self, traces: Traces) -> np.ndarray:
        return _a_seed(self.text, self.of(traces))


T = TypeVar("T", Curve, Measure, Effect)
Observable = str | Curve  # the name of an observable, or a curve made of some


def _a_seed(text: str, values: Any) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1:
        raise ValueError(f"{text} must be one number a seed, not {values.shape}")
    return values


def _joined(text: str, function: Callable[..., Any], terms: Sequence[Any]) -> Any:
    """A term of the kind of `terms`; effects put their arms together, in order."""
    made: list[Any] = [t for t in terms if isinstance(t, _Term)]
    if len(kinds := {type(t) for t in made}) != 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds)) or "no term"
        raise TypeError(f"{text}: terms must be of one kind, not {names}")

    def of(source: Any) -> Any:
        return function(*(t(source) if isinstance(t, _Term) else t for t in terms))

    if isinstance(made[0], Effect):
        arms = tuple(dict.fromkeys(arm for effect in made for arm in effect.arms))
        return Effect(arms, text, of)
    return type(made[0])(text, of)


def _infix(sign: str, function: Callable[..., Any], one: Any, other: Any) -> Any:
    kinds = [type(t) for t in (one, other) if isinstance(t, _Term)]
    numbers = [t for t in (one, other) if isinstance(t, int | float | np.number)]
    if len(kinds) + len(numbers) < 2 or len(set(kinds)) > 1:
        return NotImplemented
    return _joined(f"({_text(one)} {sign} {_text(other)})", function, (one, other))


def _text(term: Any) -> str:
    return term.text if isinstance(term, _Term) else f"{term:g}"


def _listed(word: str, terms: Iterable[Any]) -> str:
    return f"{word}({', '.join(map(_text, terms))})"


# By hand: what no word says


def derived(text: str) -> Callable[[Callable[[xr.Dataset], Any]], Curve]:
    """Decorator: a function of one trace, to [seed, step], as a curve."""
    return lambda of: Curve(text, of)


def measure(text: str) -> Callable[[Callable[[xr.Dataset], Any]], Measure]:
    """Decorator: a function of one trace, to one number a seed, as a measure."""
    return lambda of: Measure(text, of)


def effect(text: str, *arms: str) -> Callable[[Callable[[Traces], Any]], Effect]:
    """Decorator: a function of the traces of `arms`, to one number a seed, as an effect."""
    return lambda of: Effect(arms, text, of)


def combined(word: str, function: Callable[..., Any], *terms: T | float) -> T:
    """`function` of the values of terms of one kind (and of numbers), named `word`."""
    return _joined(_listed(word, terms), function, terms)


def setting(trace: xr.Dataset, name: str) -> Any:
    """A setting of the config that a trace was run with."""
    return json.loads(trace.attrs["config"])[name]


# Of one trace


def curve(name: str, **where: Any) -> Curve:
    """An observable; `where` chooses along its own dimensions, by label: `tensor="head"`.

    Raises `ValueError` for an observable, a dimension or a label that the trace does not have.
    """
    chosen = ", ".join(f"{dim}={label}" for dim, label in where.items())

    def of(trace: xr.Dataset) -> xr.DataArray:
        if name not in trace:
            raise ValueError(f"no observable {name!r}; there are: {', '.join(map(str, trace))}")
        found = trace[name]
        for dim, label in where.items():
            if dim not in found.dims:
                raise ValueError(f"{name} has no dimension {dim!r}, only {', '.join(map(str, found.dims))}")  # fmt: skip
            try:
                found = found.sel({dim: label})
            except (KeyError, IndexError):
                there = ", ".join(map(str, _labels(found, dim)))
                raise ValueError(f"{name} has no {dim} {label!r}; there are: {there}") from None
        return found

    return Curve(name + (f"[{chosen}]" if chosen else ""), of)


def _labels(values: xr.DataArray, dim: str) -> list[Any]:
    labels = values[dim].values if dim in values.coords else np.arange(values.sizes[dim])
    return labels.tolist()


def _curve(name: Observable, where: Mapping[str, Any]) -> Curve:
    if isinstance(name, str):
        return curve(name, **where)
    if where:
        raise TypeError(
            f"{name.text} is a curve already: choose {', '.join(where)} where it is made"
        )
    return name


def final(name: Observable, **where: Any) -> Measure:
    """At the last observation."""
    line = _curve(name, where)
    return Measure(f"final {line.text}", lambda t: line(t).values[:, -1])


def at(name: Observable, step: float | Measure, **where: Any) -> Measure:
    """At the last observation up to a step, or up to each seed's own step.

    NaN for a seed whose own step is NaN or before the first observation. Raises `ValueError` for
    a step that is before the first observation for all.
    """
    line = _curve(name, where)

    def of(trace: xr.Dataset) -> np.ndarray:
        seen = line(trace)
        steps, values = seen.step.values, seen.values
        wanted = np.full(len(values), step, float) if not isinstance(step, Measure) else step(trace)
        rows = np.searchsorted(steps, wanted, side="right") - 1
        if not isinstance(step, Measure) and step < steps[0]:
            raise ValueError(
                f"{line.text} at step {step:g}: it is observed from step {steps[0]} on"
            )
        found = values[np.arange(len(values)), np.maximum(rows, 0)]
        return np.where((rows < 0) | np.isnan(wanted), np.nan, found)

    return Measure(f"{line.text} at step {_text(step)}", of)


def average(name: Observable, **where: Any) -> Measure:
    """Mean over all observations."""
    line = _curve(name, where)
    return Measure(f"mean {line.text}", lambda t: line(t).values.mean(axis=1))


def tail(name: Observable, share: float = 0.1, **where: Any) -> Measure:
    """Mean over the last `share` of the observations, at least one."""
    line = _curve(name, where)

    def of(trace: xr.Dataset) -> np.ndarray:
        values = line(trace).values
        count = int(values.shape[1] * share + 1e-9)  # 0.3 of 10 is 3
        return values[:, -max(count, 1) :].mean(axis=1)

    return Measure(f"mean {line.text} over the last {share:.0%}", of)


def peak(name: Observable, **where: Any) -> Measure:
    """The highest over all observations."""
    line = _curve(name, where)
    return Measure(f"highest {line.text}", lambda t: line(t).values.max(axis=1))


def peak_step(name: Observable, **where: Any) -> Measure:
    """The first observed step at which it is highest; NaN where an observation is NaN.

    `at("test_accuracy", peak_step("valid_accuracy"))` is early stopping.
    """
    line = _curve(name, where)

    def of(trace: xr.Dataset) -> np.ndarray:
        seen = line(trace)
        found = seen.step.values[seen.values.argmax(axis=1)].astype(float)
        return np.where(np.isnan(seen.values).any(axis=1), np.nan, found)

    return Measure(f"step of the highest {line.text}", of)


def first_step(
    name: Observable, level: float, *, below: bool = False, never: Literal["end", "nan"] = "end",
    **where: Any,
) -> Measure:  # fmt: skip
    """The first observed step at which it is at or above `level` (`below`: at or below it).

    Where it never gets there: the last step, a lower bound ("end"), or NaN ("nan"). Gaps (NaN) are
    skipped; a seed that has nothing but gaps is NaN. The level is rounded to the precision that the
    observable is kept in: a float32 0.01 is at 0.01.
    """
    line = _curve(name, where)

    def of(trace: xr.Dataset) -> np.ndarray:
        seen = line.kept(trace)
        values, steps = seen.values, seen.step.values.astype(float)
        limit = float(level)  # unlike a number of NumPy, of no precision of its own
        reached = values <= limit if below else values >= limit
        last = np.where(np.isnan(values).all(axis=1), np.nan, steps[-1])
        found = np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], last)
        return found if never == "end" else np.where(reached.any(axis=1), found, np.nan)

    text = f"first step with {line.text} {'<=' if below else '>='} {level:g}"
    return Measure(text + (", if ever" if never == "nan" else ""), of)


def growth(name: Observable, *, against: Observable = "step", since: float = 0.1) -> Measure:
    """The exponent b of name ~ against^b: the slope of a line through their logarithms.

    Over the observations at which `against` is at least `since` of its last value. What is zero,
    negative or NaN has no logarithm and is left out; NaN for a seed with fewer than two left, or
    whose `against` does not vary.
    """
    line = _curve(name, {})
    base = None if against == "step" else _curve(against, {})

    def of(trace: xr.Dataset) -> np.ndarray:
        seen = line(trace)
        y = seen.values
        x = np.broadcast_to(seen.step.values if base is None else base(trace).values, y.shape)
        x = x.astype(float)
        late = (x > 0) & (x >= since * x[:, -1:] * (1 - 1e-12))
        said = late & (y > 0) & np.isfinite(y)
        found = np.full(len(y), np.nan)
        # Seeds that have all the same observations are fitted in one go.
        whole = (said == late).all(axis=1) & (x == x[:1]).all(axis=1)
        if whole.any() and late[0].sum() > 1:
            found[whole] = _slope(np.log(x[0, late[0]]), np.log(y[whole][:, late[0]]).T)
        for seed in np.flatnonzero(~whole):
            row = said[seed]
            if row.sum() > 1:
                found[seed] = _slope(np.log(x[seed, row]), np.log(y[seed, row]))
        return found

    return Measure(f"exponent of {line.text} in {_text(base) if base else 'step'}", of)


def _slope(x: np.ndarray, y: np.ndarray) -> Any:
    return np.polyfit(x, y, 1)[0] if np.ptp(x) > 0 else np.full(y.shape[1:], np.nan)


def slope_of(name: Observable, *, on: Observable) -> Measure:
    """The least-squares slope of one curve on another, over all observations.

    NaN for a seed that has NaN in either, or whose `on` does not vary.
    """
    line, base = _curve(name, {}), _curve(on, {})

    def of(trace: xr.Dataset) -> np.ndarray:
        x, y = base(trace).values, line(trace).values
        varies = np.ptp(x, axis=1) > 0
        x = x - x.mean(axis=1, keepdims=True)
        above, below = (x * y).sum(axis=1), (x * x).sum(axis=1)
        return np.divide(above, below, out=np.full(len(y), np.nan), where=varies)

    return Measure(f"slope of {line.text} on {base.text}", of)


def within(of: Measure, **values: float) -> Measure:
    """A measure of those observations alone at which other observables have these values.

    As of the settings of a sweep that a trace goes through: `within(average("gap"), d=24)`. NaN
    where there is no such observation. Raises `ValueError` where seeds differ in which they are.
    """

    def found(trace: xr.Dataset) -> np.ndarray:
        rows = np.ones((trace.sizes["seed"], trace.sizes["step"]), bool)
        for name, value in values.items():
            rows &= np.isclose(curve(name)(trace).values, value)
        if (rows != rows[:1]).any():
            raise ValueError(f"seeds have {', '.join(values)} at different observations")
        if not rows.any():
            return np.full(len(rows), np.nan)
        return of(trace.isel(step=np.flatnonzero(rows[0])))

    return Measure(f"{of.text} at {', '.join(f'{k} = {v:g}' for k, v in values.items())}", found)


# Of terms


def log(term: T) -> T:
    """The natural logarithm."""
    return _joined(_listed("log", [term]), np.log, (term,))


def log10(term: T) -> T:
    """The logarithm to base 10: of a ratio, the orders of magnitude."""
    return _joined(_listed("log10", [term]), np.log10, (term,))


def log1p(term: T) -> T:
    """log(1 + x), for steps, which may be 0."""
    return _joined(_listed("log1p", [term]), np.log1p, (term,))


def at_least(term: T, limit: float) -> T:
    """What is lower counts as `limit`."""
    return _joined(_listed("at least", [term, limit]), np.maximum, (term, limit))


# Of several terms, mostly effects


def mean(terms: Iterable[T]) -> T:
    """Their mean, for each seed."""
    terms = list(terms)
    return _joined(_listed("mean", terms), lambda *v: np.mean(v, axis=0), terms)


def highest(terms: Iterable[T]) -> T:
    """The highest of them, for each seed."""
    terms = list(terms)
    return _joined(_listed("highest", terms), lambda *v: np.max(v, axis=0), terms)


def lowest(terms: Iterable[T]) -> T:
    """The lowest of them, for each seed."""
    terms = list(terms)
    return _joined(_listed("lowest", terms), lambda *v: np.min(v, axis=0), terms)


def best(effects: Iterable[Effect], *, lowest: bool = False) -> Effect:
    """The one whose mean over seeds is highest (or lowest): one rival for all seeds.

    One with NaN is taken only if there is no other.
    """
    effects, word, sign = list(effects), "lowest" if lowest else "highest", -1 if lowest else 1

    def of(*values: np.ndarray) -> np.ndarray:
        means = np.array([sign * np.mean(v) for v in values])
        return values[int(np.where(np.isnan(means), -np.inf, means).argmax())]

    return _joined(_listed(f"{word} on average", effects), of, effects)


def chosen(effects: Iterable[Effect], *, lowest: bool = False) -> Effect:
    """For each seed the one whose mean over the other seeds is highest (or lowest): a rival that no seed's
    own luck chose. NaN, in choosing, is the worst number that there is."""
    effects, word = list(effects), "lowest" if lowest else "highest"

    def of(*values: np.ndarray) -> np.ndarray:
        table = np.stack(values, axis=1)
        known = table[np.isfinite(table)]
        worst = 0.0 if not len(known) else known.max() if lowest else known.min()
        places = best_on_others(np.where(np.isfinite(table), table, worst), lowest=lowest)
        return table[np.arange(len(table)), places]

    return _joined(_listed(f"{word} on the other seeds", effects), of, effects)


def slope(levels: Sequence[float], effects: Sequence[Effect]) -> Effect:
    """The least-squares slope of the effects on the levels, for each seed; NaN where all levels are
    equal."""
    _as_many(levels, effects)

    def of(*values: np.ndarray) -> np.ndarray:
        y = np.stack(values)
        said = np.isfinite(y).all(axis=0)
        found = np.full(y.shape[1], np.nan)
        if said.any():
            found[said] = _slope(np.asarray(levels, float), y[:, said])
        return found

    return _joined(_listed("slope", effects), of, effects)


def pearson(xs: Sequence[Effect | float], ys: Sequence[Effect]) -> Effect:
    """The correlation over arms, for each seed; NaN where one of them is NaN or does not vary."""
    return _over_arms("correlation", _pearson, xs, ys)


def spearman(xs: Sequence[Effect | float], ys: Sequence[Effect]) -> Effect:
    """The rank correlation over arms, for each seed; NaN where one is NaN or does not vary."""
    return _over_arms("rank correlation", _spearman, xs, ys)


def _over_arms(word: str, function: Any, xs: Sequence[Any], ys: Sequence[Any]) -> Effect:
    _as_many(xs, ys)

    def of(*values: Any) -> np.ndarray:
        seeds = np.shape(values[-1])
        table = np.array([np.broadcast_to(np.asarray(v, float), seeds) for v in values])
        x, y = table[: len(xs)], table[len(xs) :]
        said = np.isfinite(table).all(axis=0) & (np.ptp(x, axis=0) > 0) & (np.ptp(y, axis=0) > 0)
        found = np.full(seeds, np.nan)
        if said.any():
            found[said] = function(x[:, said], y[:, said])
        return found

    return _joined(f"{_listed(word, xs)} with {_listed('', ys)}", of, [*xs, *ys])


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([stats.spearmanr(a, b)[0] for a, b in zip(x.T, y.T, strict=True)])


def _as_many(xs: Sequence[Any], ys: Sequence[Any]) -> None:
    if len(xs) != len(ys) or len(xs) < 2:
        raise ValueError(f"needs two or more pairs of as many of each, not {len(xs)} and {len(ys)}")


# Of the curves of each seed for itself


def seedwise(text: str, *names: Observable) -> Callable[[Callable[..., float]], Measure]:
    """Decorator: a function of the steps and of one seed's values of each of `names`, [step], to a
    number, as a measure.

    NaN for a seed whose values are not all finite.
    """
    lines = [_curve(name, {}) for name in names]

    def made(function: Callable[..., float]) -> Measure:
        def of(trace: xr.Dataset) -> np.ndarray:
            steps = trace.step.values
            seeds = zip(*(line(trace).values for line in lines), strict=True)
            return np.array([
                function(steps, *own) if np.isfinite(own).all() else np.nan for own in seeds
            ], float)  # fmt: skip

        return Measure(text, of)

    return made


def best_on_others(
    values: Float[np.ndarray, "seed setting"], *, lowest: bool = False
) -> Int[np.ndarray, " seed"]:
    """For each seed the place of the setting whose mean over the other seeds is highest (or lowest):
    tuning of which no seed's own luck is a part. A single seed, without others, has the first."""
    others = (values.sum(axis=0) - values) / max(len(values) - 1, 1)
    return others.argmin(axis=1) if lowest else others.argmax(axis=1)


# Of a part of a trace


def steepest_rise(name: Observable, **where: Any) -> Measure:
    """The step at which it rises fastest per log step, the geometric mean of two observed ones.

    Step 0 is left out.
    """
    line = _curve(name, where)

    def of(trace: xr.Dataset) -> np.ndarray:
        seen = line(trace)
        later = seen.sel(step=seen.step > 0)
        steps = later.step.values
        slope = np.diff(later.values, axis=1) / np.diff(np.log(steps))
        return np.sqrt(steps[1:] * steps[:-1])[slope.argmax(axis=1)]

    return Measure(f"step of the steepest rise of {line.text}", of)


def during(
    function: Callable[..., Any], name: Observable, *, since: float | Measure = 0,
    before: float | Measure = np.inf, **where: Any,
) -> Measure:  # fmt: skip
    """`function`, such as `np.nanmean` or `np.nanmax`, of the observations from a step on, or from each
    seed's own, and before another; NaN for a seed that has none there."""
    line = _curve(name, where)

    def of(trace: xr.Dataset) -> np.ndarray:
        values, steps = line(trace).values, trace.step.values
        first, end = (
            np.reshape(m(trace) if isinstance(m, Measure) else m, (-1, 1)) for m in (since, before)
        )
        kept = np.where((steps >= first) & (steps < end), values, np.nan)
        found = np.full(len(values), np.nan)
        some = np.isfinite(kept).any(axis=1)
        found[some] = function(kept[some], axis=1)
        return found

    word = function.__name__.removeprefix("nan")
    return Measure(f"{word} of {line.text} from {_text(since)} to {_text(before)}", of)
