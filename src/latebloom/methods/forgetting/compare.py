"""Which method forgets least on examples of one's own, at equal cost, and what a memory buys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import xarray as xr
from jaxtyping import Array, Int, PRNGKeyArray

from latebloom.core.climbing import Climbed, climb
from latebloom.core.dataset import Dataset
from latebloom.core.memory import CLASS_BALANCED
from latebloom.core.stream import Exams, Groups, Stream, joint, planned, rehearsing
from latebloom.core.unfold import unfold
from latebloom.data import Standardiser
from latebloom.data.labelled import check_examples, given_labels
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.continual import Continual, Replay
from latebloom.methods.forgetting.distillation import LwF
from latebloom.methods.forgetting.intervals import resampled_interval, surely_leads
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.penalties import EWC, SI
from latebloom.methods.forgetting.replay import DER, ER, ERACE
from latebloom.nn.standard import network_for

FEWEST = 30  # examples of a task: 21 to train on, 3 to choose settings by, 6 to examine
EXAM = 500  # test examples of a task at most
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of Adam
FINE_TUNING, KEPT = "fine-tuning", "all data kept"


class Candidate(NamedTuple):
    """A method that is compared.

    - `method(strength)` makes it; `strengths` are tried from `start` on.
    - `new`: of 12 examples that an update pays for, how many are new; the rest are replayed, or pay for a
      teacher's pass.
    - `memory`: it remembers examples. `rehearses`: the new ones come from all tasks so far.
    """

    method: Callable[[Any], Method]
    strengths: tuple[float, ...] = (0.0,)
    start: float = 0.0
    new: int = 12
    memory: bool = False
    rehearses: bool = False


def _ewc(batches: int, strength: Any) -> EWC:
    return EWC(strength, batches=batches)


def candidates(shortest: int) -> dict[str, Candidate]:
    """Everybody by name, where the shortest task has so many updates."""
    plain: Callable[[Any], Method] = lambda strength: Method()  # noqa: E731
    decades = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
    shares = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    return {
        FINE_TUNING: Candidate(plain),
        "EWC": Candidate(partial(_ewc, min(10, shortest)), decades, 100.0),
        "SI": Candidate(SI, decades, 1.0),
        "LwF": Candidate(LwF, shares, 1.0, new=9),
        "ER": Candidate(lambda s: ER(), new=6, memory=True),
        "ER-ACE": Candidate(lambda s: ERACE(), new=6, memory=True),
        "DER++": Candidate(lambda s: DER(s, s), shares, 0.3, new=4, memory=True),
        KEPT: Candidate(plain, rehearses=True),
    }


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    - `table`: a row a method and size of memory: accuracy over all tasks at the end, what was forgotten of
      each task but the last, accuracy on each task when it was learned, with 95 % intervals; the settings
      that were chosen, and whether one is the first or last that could be (`on_edge`).
    - `pairs`: of each size of memory (0: none) any two that compete, a - b, with a 95 % interval of its own;
      `apart` where a's lead holds together with all others' that b is compared with.
    - `tasks`: accuracy on each task when it was learned and at the end. `tried`: all settings.
    - `traces`: the runs of the chosen settings, `accuracy` [seed, step, task] on the test examples.
    - `names` and `counts` of the tasks in their order; `classes`; `shared`: whether a class occurs in several
      tasks; `guess`: accuracy of always saying the most frequent class.
    - `cost`: what forgetting costs, all data kept less fine-tuning, with its interval, where both ran.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    tasks: pd.DataFrame
    tried: pd.DataFrame
    traces: Mapping[str, xr.Dataset]
    names: tuple[Any, ...]
    classes: tuple[Any, ...]
    counts: tuple[int, ...]
    shared: bool
    guess: float
    cost: tuple[float, float, float] | None

    @property
    def sizes(self) -> list[int]:
        """The sizes of memory that were compared, 0 first where there are methods without."""
        return sorted(set(self.table.loc[self.table["method"] != KEPT, "memory"].tolist()))

    def competing(self, memory: int) -> list[str]:
        """Those that have such a memory at hand, and need not use it; all data kept does not compete."""
        return _competing(self.table, memory)["name"].tolist()

    def top(self, memory: int) -> list[str]:
        """Those that may be the most accurate with such a memory, the best mean first: with 95 % confidence
        the most accurate is one of them."""
        beaten = set(self.pairs[(self.pairs["memory"] == memory) & self.pairs["apart"]]["b"])
        rows = _competing(self.table, memory).sort_values(
            "accuracy", ascending=False, kind="stable"
        )
        return [name for name in rows["name"] if name not in beaten]


def compare(
    x: np.ndarray, y: Sequence[Any] | np.ndarray, task: Sequence[Any] | np.ndarray, *,
    methods: Sequence[str] = (FINE_TUNING, "EWC", "LwF", "ER", "ER-ACE", "DER++", KEPT),
    memory: Sequence[int] = (50, 200, 1000), network: Any = "mlp", epochs: float = 10.0, batch_size: int = 48,
    told: bool = False, seeds: int = 8, progress: Callable[[str, float], None] = lambda what, share: None,
) -> Comparison:  # fmt: skip
    """Learn the tasks one after the other with each method, and compare what is known at the end.

    - `x`: features [n, d], or images [n, height, width] or [n, height, width, channels], brought to mean 0
      and deviation 1 by the first task's examples. `y` [n]: labels of any kind. `task` [n]: numbers, in
      whose order tasks come, or names, which come in the order in which they occur first.
    - `memory`: numbers of examples that ER, ER-ACE and DER++ remember; those that all training examples
      would fit into are left out.
    - `network`: "mlp" (two layers of 100), "cnn" for images, or a model or `model(key)` of your own, which
      is handed the prepared examples.
    - `epochs`: passes over each task's examples under fine-tuning. All methods make the same updates, and
      each update pays for `batch_size` examples, a multiple of 12: new ones, replayed ones, or those that
      a teacher (LwF) is asked about, at a third of their price.
    - `told`: the task is known in use, so that only its classes compete.
    - `seeds`: runs of each setting; each splits every task anew into 7 parts to train on, 1 to choose the
      learning rate and the method's strength by (the best mean), and 2 for exams.

    Intervals are those of the corrected resampled t-test (Nadeau & Bengio 2003, Machine Learning 52, Sec. 3),
    as splits overlap.

    Raises `ValueError` for shapes that do not match, fewer than 30 examples of a task, one task, one class,
    unknown methods, and settings out of their range.
    """
    x, y, task = np.asarray(x), given_labels(y), given_labels(task, "task")
    check_examples(x, y, 2 * FEWEST, own=not isinstance(network, str))
    names, tasks = _in_order(task, len(y))
    _check(methods, memory, epochs, batch_size, seeds)
    classes, labels = np.unique(y, return_inverse=True)
    split = _Split.of(labels, tasks, len(names))
    inputs = Standardiser.of(x[tasks == 0])(x)
    if isinstance(network, str) and network == "mlp":
        inputs = inputs.reshape(len(inputs), -1)
    model = network_for(network, inputs, len(classes))
    known = jnp.asarray(labels, jnp.int32)
    setting = _Setting(
        model, Dataset(inputs, known, inputs, known), split, epochs, batch_size, told, seeds, isinstance(network, str) and network == "mlp"
    )  # fmt: skip
    everybody = candidates(min(setting.lengths))
    fits = sorted(size for size in memory if size < split.train.sum())
    if not fits and any(everybody[name].memory for name in methods):
        raise ValueError(
            f"no memory is smaller than the {split.train.sum()} training examples: {list(memory)}"
        )
    wanted = [
        (name, everybody[name], size)
        for name in methods
        for size in (fits if everybody[name].memory else [0])
    ]
    traces, rows, tried = {}, [], []
    for place, (name, candidate, size) in enumerate(wanted):
        title = f"{name}, {size}" if size else name
        progress(title, place / len(wanted))
        climbed, trace = _tuned(setting, candidate, size)
        traces[title] = trace
        rows.append({"name": title, "method": name, "memory": size, "rate": climbed.best[0],
                     "strength": climbed.best[1] if len(candidate.strengths) > 1 else np.nan,
                     "on_edge": any(climbed.on_edge)})  # fmt: skip
        tried += [{"name": title, "rate": rate, "strength": strength, "accuracy_chosen_by": score}
                  for (rate, strength), score in climbed.tried.items()]  # fmt: skip
    progress("comparing", 1.0)
    shares = np.zeros((len(names), len(classes)))
    np.add.at(shares, (tasks, labels), 1)
    occurs = shares > 0
    shares /= shares.sum(axis=1, keepdims=True)
    measured = {name: _measured(trace) for name, trace in traces.items()}
    spread = split.test.sum() / split.train.sum()
    table = _table(rows, measured, spread)
    cost = None
    if {FINE_TUNING, KEPT} <= set(measured):
        lost = measured[KEPT]["accuracy"] - measured[FINE_TUNING]["accuracy"]
        cost = (float(lost.mean()), *resampled_interval(lost, spread))
    return Comparison(
        table, _pairs(table, measured, spread), _by_task(traces, names), pd.DataFrame(tried), traces, tuple(names),
        tuple(classes.tolist()), tuple(np.bincount(tasks).tolist()), bool((occurs.sum(axis=0) > 1).any()),
        float(shares.max(axis=1).mean() if told else shares.mean(axis=0).max()), cost,
    )  # fmt: skip


def by_time(time: np.ndarray, periods: int) -> np.ndarray:
    """Tasks [n] of examples by their time [n]: so many periods with as many examples each; equal times
    stay together.

    Raises `ValueError` where fewer times differ than there are to be periods.
    """
    if periods < 2:
        raise ValueError(f"periods must be at least 2, not {periods}")
    _, place, counts = np.unique(time, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    period = np.minimum((middle * periods / len(time)).astype(int), periods - 1)[place]
    if len(np.unique(period)) < periods:
        raise ValueError(
            f"the times do not make {periods} periods, as too many examples share one: take fewer"
        )
    return period


# How it is run


@dataclass(frozen=True, eq=False)
class _Split:
    """Where examples stand once each task's are in the order train, validation, test, in blocks by task.

    `labels`, `tasks` [n]; `arranged` [n]: places among the examples sorted by task, label and luck; `train`,
    `valid`, `test` [tasks]: how many of each.
    """

    labels: np.ndarray
    tasks: np.ndarray
    arranged: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @staticmethod
    def of(labels: np.ndarray, tasks: np.ndarray, count: int) -> _Split:
        sizes = np.bincount(tasks, minlength=count)
        within = np.concatenate([np.arange(n) for n in sizes]) % 10
        part = np.select([within == 5, (within == 2) | (within == 7)], [1, 2], 0)
        of = np.repeat(np.arange(count), sizes)
        arranged = np.lexsort((part, of))
        counts = [np.bincount(of[part == p], minlength=count) for p in range(3)]
        return _Split(labels, tasks, arranged, *counts)

    def rows(self, key: PRNGKeyArray) -> Int[Array, " n"]:
        """The examples in that order: every label's are spread over the parts."""
        luck = jax.random.uniform(key, (len(self.labels),))
        order = jnp.lexsort((luck, jnp.asarray(self.labels), jnp.asarray(self.tasks)))
        return order[self.arranged].astype(jnp.int32)

    def places(self, part: int, n: int) -> np.ndarray:
        """[tasks, n] places of a part's examples in that order, over again where a task has fewer."""
        counts = np.stack([self.train, self.valid, self.test])
        before = np.concatenate([[0], np.cumsum(counts.sum(axis=0))[:-1]]) + counts[:part].sum(
            axis=0
        )
        return before[:, None] + np.arange(n) % counts[part][:, None]


@dataclass(frozen=True)
class _Setting:
    model: Callable[[PRNGKeyArray], Any]
    data: Dataset
    split: _Split
    epochs: float
    batch_size: int
    told: bool
    seeds: int
    batched: bool

    @property
    def lengths(self) -> list[int]:
        """Updates of each task."""
        return [max(1, round(self.epochs * n / self.batch_size)) for n in self.split.train.tolist()]

    def process(self, candidate: Candidate, size: int, rate: float, strength: float) -> Continual:
        new = self.batch_size * candidate.new // 12
        replay = Replay(size, min(self.batch_size * (12 - candidate.new) // 12, size), CLASS_BALANCED) if size else None  # fmt: skip
        if candidate.new == 4 and replay is not None:  # two batches are drawn
            replay = replay._replace(batch=min(self.batch_size // 3, size))
        return Continual(
            model=self.model, data=self.data, stream=_Own(self.split, tuple(self.lengths), new, candidate.rehearses),
            method=candidate.method(jnp.float32(strength)), replay=replay, optimiser=optax.adam,
            hyper={"learning_rate": rate}, head="task" if self.told else "all",
            seeds_by="vmap" if self.batched else "map",
        )  # fmt: skip


@dataclass(frozen=True)
class _Own:
    """A user's tasks in their order; exams on the validation and the test examples of each."""

    split: _Split
    lengths: tuple[int, ...]
    new: int
    rehearses: bool

    def __call__(self, key: PRNGKeyArray) -> Stream:
        split, count = self.split, len(self.lengths)
        split_key, draw_key, old_key = jax.random.split(key, 3)
        rows = split.rows(split_key)
        blocks = np.concatenate([np.repeat([t, count], [n, m]) for t, (n, m) in enumerate(
            zip(split.train, split.valid + split.test, strict=True))])  # fmt: skip
        groups = Groups.of(blocks)
        plan = np.eye(count, count + 1, dtype=bool)
        classes = np.zeros((count, int(split.labels.max()) + 1), bool)
        classes[split.tasks, split.labels] = True
        stream = planned(
            jnp.asarray(plan), groups, groups, jnp.asarray(classes), key=draw_key, steps=self.lengths,
            batch_size=self.new, exam_size=1, most=1,
        )  # fmt: skip
        n = min(int(split.test.max()), EXAM)
        asked = np.concatenate([split.places(2, n), split.places(1, n)])
        begins = jnp.tile(jnp.asarray(stream.starts, jnp.int32), 2)
        exams = Exams(rows[asked], jnp.tile(jnp.arange(count, dtype=jnp.int32), 2), begins)
        stream = eqx.tree_at(lambda s: (s.rows, s.exams), stream, (rows[stream.rows], exams))
        return rehearsing(stream, joint(count), key=old_key) if self.rehearses else stream


def _tuned(setting: _Setting, candidate: Candidate, size: int) -> tuple[Climbed, xr.Dataset]:
    """The best settings by the validation examples, and the trace on the test examples under them."""
    traces: dict[tuple[float, float], xr.Dataset] = {}
    count = len(setting.lengths)
    ends = np.cumsum(setting.lengths)

    def score(rate: float, strength: float) -> float:
        process = setting.process(candidate, size, rate, strength)
        trace = unfold(process, seeds=setting.seeds, at=[0, *ends], progress=False)
        traces[rate, strength] = trace.isel(task=slice(0, count))
        if (trace.diverged_at >= 0).any():
            return float("nan")
        return float(trace.accuracy.isel(step=-1, task=slice(count, None)).mean())

    climbed = climb(score, (RATES, candidate.strengths), (1e-3, candidate.start))
    if not np.isfinite(climbed.score):
        raise ValueError(
            "training diverged at every learning rate that was tried: are there outliers in x?"
        )
    rate, strength = climbed.best
    return climbed, traces[rate, strength]


# What it comes to


def _measured(trace: xr.Dataset) -> dict[str, np.ndarray]:
    """Each [seed]."""
    ends = metrics.accuracy_matrix(trace).values
    learned = np.stack([np.diag(one) for one in ends])
    return {"accuracy": ends[:, -1].mean(axis=1), "learned": learned.mean(axis=1),
            "forgetting": (learned - ends[:, -1])[:, :-1].mean(axis=1)}  # fmt: skip


def _table(
    rows: list[dict[str, Any]], measured: Mapping[str, Mapping[str, np.ndarray]], spread: float
) -> pd.DataFrame:
    found = []
    for row in rows:
        numbers = {}
        for name, values in measured[row["name"]].items():
            low, high = resampled_interval(values, spread)
            numbers |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
        found.append({**row, **numbers})
    return pd.DataFrame(found)


def _competing(table: pd.DataFrame, memory: int) -> pd.DataFrame:
    """Those that have such a memory at hand, and need not use it; all data kept does not compete."""
    return pd.DataFrame(table[table["memory"].isin([0, memory]) & (table["method"] != KEPT)])


def _pairs(
    table: pd.DataFrame, measured: Mapping[str, Mapping[str, np.ndarray]], spread: float
) -> pd.DataFrame:
    """Of each size of memory all pairs, a the one with the higher mean accuracy."""
    rows = []
    for memory in sorted(set(table.loc[table["method"] != KEPT, "memory"])):
        names = _competing(table, memory)["name"].tolist()
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                lead = measured[one]["accuracy"] - measured[other]["accuracy"]
                a, b, lead = (one, other, lead) if lead.mean() >= 0 else (other, one, -lead)
                low, high = resampled_interval(lead, spread)
                rows.append({"memory": memory, "a": a, "b": b, "difference": float(lead.mean()), "low": low,
                             "high": high, "apart": surely_leads(lead, len(names) - 1, spread)})  # fmt: skip
    return pd.DataFrame(rows, columns=["memory", "a", "b", "difference", "low", "high", "apart"])


def _by_task(traces: Mapping[str, xr.Dataset], names: Sequence[Any]) -> pd.DataFrame:
    rows = []
    for title, trace in traces.items():
        ends = metrics.accuracy_matrix(trace).mean("seed").values
        rows += [{"name": title, "task": name, "learned": float(ends[t, t]), "at_the_end": float(ends[-1, t])}
                 for t, name in enumerate(names)]  # fmt: skip
    return pd.DataFrame(rows)


def _in_order(task: np.ndarray, n: int) -> tuple[list[Any], np.ndarray]:
    """The tasks in their order, and the place in it of each example's."""
    if len(task) != n:
        raise ValueError(f"task must be one for each of the {n} examples, not {len(task)}")
    values, first, index = np.unique(task, return_index=True, return_inverse=True)
    order = np.argsort(first) if values.dtype.kind in "USO" else np.arange(len(values))
    if len(values) < 2:
        raise ValueError(
            f"all examples are of task {values.tolist()[0]!r}: there must be two or more"
        )
    counts = np.bincount(index)
    if counts.min() < FEWEST:
        few = int(counts.argmin())
        raise ValueError(
            f"task {values.tolist()[few]!r} has {counts[few]} examples where at least {FEWEST} are needed: join "
            "it with another, or drop it"
        )
    place = np.empty(len(values), int)
    place[order] = np.arange(len(values))
    return values[order].tolist(), place[index]


def _check(
    methods: Sequence[str], memory: Sequence[int], epochs: float, batch_size: int, seeds: int
) -> None:
    known = candidates(1)
    if (
        isinstance(methods, str)
        or not methods
        or len(set(methods)) < len(methods)
        or set(methods) - set(known)
    ):
        raise ValueError(f"methods must be some of {', '.join(known)}, each once, not {methods!r}")
    if any(known[name].memory for name in methods) and (not len(memory) or min(memory) < 1 or len(set(memory)) < len(memory)):  # fmt: skip
        raise ValueError(
            f"memory must be numbers of examples from 1 on, each once, not {list(memory)}"
        )
    if not (0 < epochs < np.inf) or seeds < 2:
        raise ValueError(f"epochs must be above 0 and seeds at least 2, not {epochs} and {seeds}")
    if batch_size < 12 or batch_size % 12:
        raise ValueError(f"batch_size must be a multiple of 12, not {batch_size}")
