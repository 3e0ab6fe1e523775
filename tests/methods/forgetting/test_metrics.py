"""Metrics of continual learning: by hand, against their plain definitions, and against Avalanche's."""

import itertools
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.methods.forgetting import metrics as m
from latebloom.methods.forgetting.metrics import Undefined, as_trace

NAN = np.nan

# Two tasks, then a third; steps 0 to 6. Columns: tasks a, b, c.
HAND = as_trace(
    [
        [0.1, 0.2, 0.3],
        [0.5, 0.1, 0.3],
        [0.9, 0.3, 0.2],  # the end of a
        [0.4, 0.6, 0.2],
        [0.7, 0.8, 0.4],  # the end of b
        [0.6, 0.3, 0.5],
        [0.8, 0.7, 0.9],
    ],
    [0, 0, 0, 1, 1, 2, 2],
    tasks=["a", "b", "c"],
)


def close(found, wanted):
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=1e-12)


def test_the_ends_of_tasks_by_hand():
    matrix = m.accuracy_matrix(HAND)
    close(matrix[0], [[0.9, 0.3, 0.2], [0.7, 0.8, 0.4], [0.8, 0.7, 0.9]])
    assert matrix.dims == ("seed", "learned", "task")
    assert matrix.after[0].values.tolist() == ["a", "b", "c"]
    assert matrix.step[0].values.tolist() == [2, 4, 6]
    close(m.average_accuracy(HAND), [0.8])
    close(m.forgetting(HAND), [[0.1, 0.1, NAN]])
    close(m.forgetting(HAND, "best"), [[0.1, 0.1, NAN]])
    close(m.backward_transfer(HAND).mean("task"), [-0.1])
    close(m.forward_transfer(HAND), [[NAN, 0.1, 0.1]])
    close(m.forward_transfer(HAND, 0.25), [[NAN, 0.05, 0.15]])
    close(m.forward_transfer(HAND, [NAN, 0.0, 0.5]), [[NAN, 0.3, -0.1]])


def test_the_two_definitions_of_forgetting_differ_where_a_task_improves_after_its_end():
    rows = [[0.5, 0.9, 0.1], [0.8, 0.95, 0.2], [0.6, 0.7, 0.9]]
    trace = as_trace(rows, [0, 1, 2], steps=[1, 2, 3])
    close(m.forgetting(trace), [[-0.1, 0.25, NAN]])
    close(m.forgetting(trace, "best"), [[0.2, 0.25, NAN]])


def test_the_worst_cases_by_hand():
    close(m.min_accuracy(HAND), [[0.4, 0.3, NAN]])
    close(m.worst_case_accuracy(HAND), [(0.9 + 0.4 + 0.3) / 3])
    close(
        m.worst_case_curve(HAND)[0],
        [
            0.1,
            0.5,
            0.9,
            (0.6 + 0.4) / 2,
            (0.8 + 0.4) / 2,
            (0.5 + 0.4 + 0.3) / 3,
            (0.9 + 0.4 + 0.3) / 3,
        ],
    )


def test_windows_and_learning_curves_by_hand():
    close(m.windowed_forgetting(HAND, 2), [[0.5, 0.5, 0.0]])
    close(m.windowed_forgetting(HAND, 100), [[0.5, 0.5, 0.0]])
    close(m.windowed_plasticity(HAND, 2), [[0.4, 0.4, 0.4]])
    close(m.windowed_plasticity(HAND, 3), [[0.8, 0.4, 0.4]])
    close(m.windowed_plasticity(HAND.isel(step=slice(6)), 3), [[0.8, 0.2, 0.0]])
    close(m.learning_curve_area(HAND, 2), [[0.7, 0.7, 0.7]])
    close(m.learning_curve_area(HAND, 2, zero_shot=True), [[0.5, 1.7 / 3, 0.6]])


def test_a_gap_by_hand():
    found = m.gap(HAND, level=0.5)
    close(found.before[0], [[0.9, NAN, NAN], [0.7, 0.8, NAN]])
    close(found.lowest[0], [[0.4, NAN, NAN], [0.6, 0.3, NAN]])
    close(found["drop"][0], [[0.5, NAN, NAN], [0.1, 0.5, NAN]])
    close(found.recovery[0], [[0.3, NAN, NAN], [0.2, 0.4, NAN]])
    close(found.updates_to_lowest[0], [[1, NAN, NAN], [1, 1, NAN]])
    close(found.updates_to_recover[0], [[2, NAN, NAN], [2, 2, NAN]])
    close(m.gap(HAND, level=0.9).updates_to_recover[0], [[NAN, NAN, NAN], [2, NAN, NAN]])
    finished = found.where(found.task == found.finished).mean("task")
    close(finished["drop"], [[0.5, 0.5]])
    assert found.step[0].values.tolist() == [2, 4]
    assert found.begun[0].values.tolist() == ["b", "c"]
    assert m.gap(HAND, 1).lowest[0, 0, 0] == 0.4


def test_what_does_not_drop_has_recovered_at_once():
    trace = as_trace([[0.5, 0.1], [0.6, 0.5], [0.7, 0.8]], [0, 1, 1], steps=[1, 2, 3])
    found = m.gap(trace)
    close(found["drop"][0, 0, 0], -0.1)
    assert found.updates_to_recover[0, 0, 0] == 0


# Tasks that come back


AGAIN = as_trace(
    [[0.5, 0.1], [0.9, 0.2], [0.3, 0.8], [0.7, 0.4], [0.2, 0.9]], [0, 0, 1, 0, 1], tasks=["a", "b"]
)


def test_tasks_that_come_back():
    assert m.accuracy_matrix(AGAIN).after[0].values.tolist() == ["a", "b", "a", "b"]
    close(m.accuracy_matrix(AGAIN)[0], AGAIN.accuracy[0, 1:])
    close(m.average_accuracy(AGAIN), [0.55])
    close(m.min_accuracy(AGAIN), [[0.2, 0.4]])
    close(m.worst_case_curve(AGAIN)[0, -2:], [(0.7 + 0.4) / 2, (0.9 + 0.2) / 2])
    found = m.gap(AGAIN)
    close(found["drop"][0], [[0.6, NAN], [NAN, 0.4], [0.5, NAN]])
    once = (m.forgetting, m.backward_transfer, m.forward_transfer, m.learning_curve_area)
    for metric in once:
        with pytest.raises(Undefined, match="comes back to task 'a': use accuracy_matrix"):
            metric(AGAIN)


# Against the definitions, written plainly


@st.composite
def traces(draw, gaps=False, again=False):
    seeds, tasks = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2 * tasks + 1, 25))
    steps = np.cumsum(rng.integers(1, 4, n)) if gaps else np.arange(n)
    learning = []
    for _ in range(seeds):
        order = rng.permutation(tasks)
        if again:
            order = np.r_[order, order[:1]]
        cuts = np.sort(rng.choice(np.arange(2, n), len(order) - 1, replace=False))
        learning.append(order[np.searchsorted(cuts, np.arange(n), side="right")])
    accuracy = rng.integers(0, 11, (seeds, n, tasks)) / 10
    if gaps:
        accuracy[rng.random(accuracy.shape) < 0.2] = NAN
    return as_trace(accuracy, learning, steps=steps)


def parts(trace):
    """For each seed: accuracies, learning, steps, the tasks in order and where each ends."""
    for seed in range(trace.sizes["seed"]):
        a, learning = trace.accuracy.values[seed], trace.learning.values[seed].tolist()
        ends = [
            n
            for n in range(len(learning))
            if n + 1 == len(learning) or learning[n + 1] != learning[n]
        ]
        yield a, learning, trace.step.values, [learning[n] for n in ends], ends


def plain(trace, of):
    """A metric from `of(one seed's parts, its task)`, NaN where it gives None; None anywhere else is too."""
    found = np.full((trace.sizes["seed"], trace.sizes["task"]), NAN)
    for seed, part in enumerate(parts(trace)):
        for task in range(found.shape[1]):
            value = of(*part, task)
            found[seed, task] = NAN if value is None else value
    return found


def plain_forgetting(best):
    def of(a, learning, steps, order, ends, task):
        k = order.index(task)
        if k == len(order) - 1:
            return None
        before = max(a[e, task] for e in ends[:-1]) if best else a[ends[k], task]
        return before - a[ends[-1], task]

    return of


def plain_minimum(a, learning, steps, order, ends, task):
    since = ends[order.index(task)] + 1
    values = [a[n, task] for n in range(since, len(a)) if learning[n] != task]
    seen = [value for value in values if not np.isnan(value)]
    return min(seen, default=np.inf) if values else None  # inf: nobody looked


def plain_window(window, sign):
    def of(a, learning, steps, order, ends, task):
        seen = [n for n in range(learning.index(task), len(a)) if not np.isnan(a[n, task])]
        drops = [
            sign * (a[i, task] - a[j, task])
            for i, j in itertools.combinations(seen, 2)
            if steps[j] - steps[i] < window
        ]
        return max([0.0, *drops]) if drops else np.inf if len(seen) != 1 else 0.0

    return of


@given(traces())
def test_ends_against_the_definitions(trace):
    close(m.forgetting(trace), plain(trace, plain_forgetting(False)))
    close(m.forgetting(trace, "best"), plain(trace, plain_forgetting(True)))

    def forward(a, learning, steps, order, ends, task):
        k = order.index(task)
        return a[ends[k - 1], task] - a[0, task] if k else None

    close(m.forward_transfer(trace), plain(trace, forward))


@given(traces(gaps=True, again=True))
def test_minima_against_the_definition(trace):
    wanted = plain(trace, plain_minimum)
    if np.isinf(wanted).any():
        with pytest.raises(Undefined, match="evaluated after it was learned"):
            m.min_accuracy(trace)
    else:
        close(m.min_accuracy(trace), wanted)


@given(traces(again=True))
def test_worst_case_against_the_definition(trace):
    found = m.worst_case_curve(trace).values
    for seed, (a, learning, *_) in enumerate(parts(trace)):
        for n in range(len(a)):
            values = [a[n, learning[n]]]
            for task in set(learning[: n + 1]) - {learning[n]}:
                begun = learning.index(task)
                end = next(
                    i for i in range(begun, len(a)) if i + 1 == len(a) or learning[i + 1] != task
                )
                values.append(min(a[i, task] for i in range(end + 1, n + 1) if learning[i] != task))
            close(found[seed, n], np.mean(values))


@given(traces(gaps=True), st.integers(2, 30))
def test_windows_against_the_definition(trace, window):
    for metric, sign in ((m.windowed_forgetting, 1), (m.windowed_plasticity, -1)):
        wanted = plain(trace, plain_window(window, sign))
        if np.isinf(wanted).any():
            with pytest.raises(Undefined, match="never holds two evaluations"):
                metric(trace, window)
        else:
            close(metric(trace, window), wanted)


@given(traces(again=True), st.integers(1, 30), st.sampled_from([0.5, 0.9, 1.0]))
def test_gaps_against_the_definition(trace, within, level):
    told = {name: values.values for name, values in m.gap(trace, within, level).items()}
    for seed, (a, _, steps, order, ends) in enumerate(parts(trace)):
        for b, task in itertools.product(range(len(order) - 1), range(a.shape[1])):
            one = {name: values[seed, b, task] for name, values in told.items()}
            if task not in order[: b + 1] or task == order[b + 1]:
                assert all(np.isnan(value) for value in one.values())
                continue
            before, inside = a[ends[b], task], range(ends[b] + 1, ends[b + 1] + 1)
            low = min((a[n, task], n) for n in inside if steps[n] - steps[ends[b]] <= within)
            close(one["drop"], before - low[0])
            close(one["recovery"], a[ends[b + 1], task] - low[0])
            assert one["updates_to_lowest"] == steps[low[1]] - steps[ends[b]]
            goal = low[0] + level * (before - low[0])
            back = [n for n in inside if n >= low[1] and a[n, task] >= goal]
            if before <= low[0]:
                assert one["updates_to_recover"] == 0
            elif back:
                assert one["updates_to_recover"] == steps[back[0]] - steps[ends[b]]
            else:
                assert np.isnan(one["updates_to_recover"])


# Against Avalanche's metrics, and those of the stability gap's authors, on the runs in avalanche.json, which
# benchmarks/continual_metrics_against_avalanche.py wrote

PEERS = json.loads((Path(__file__).parent / "avalanche.json").read_text())


def by_task(numbers, tasks=4):
    return [[numbers.get(str(task), NAN) for task in range(tasks)]]


@pytest.mark.parametrize("run", PEERS["runs"])
def test_equal_to_avalanche(run):
    trace = as_trace(np.array(run["right"]) / PEERS["examples"], run["learning"])
    theirs = run["avalanche"]
    close(m.forgetting(trace), by_task(theirs["forgetting"]))
    close(m.forgetting(trace).mean("task"), theirs["stream_forgetting"])
    close(m.backward_transfer(trace), by_task(theirs["bwt"]))
    close(m.backward_transfer(trace).mean("task"), theirs["stream_bwt"])
    close(m.forward_transfer(trace), by_task(theirs["fwt"]))
    close(m.forward_transfer(trace).mean("task"), theirs["stream_fwt"])


@pytest.mark.parametrize("run", PEERS["runs"])
def test_equal_to_the_authors(run):
    values, learning = np.array(run["right"]) / PEERS["examples"], np.array(run["learning"])
    seen = np.where(np.arange(4) <= learning[:, None], values, NAN)
    trace, theirs = as_trace(seen, learning), run["authors"]
    close(m.min_accuracy(trace), by_task(theirs["min_accuracy"]))
    np.testing.assert_allclose(m.worst_case_curve(trace)[0], theirs["worst_case_curve"], atol=1e-7)
    for width in (2, 10, 100):
        close(m.windowed_forgetting(trace, width), by_task(theirs[f"windowed_forgetting_{width}"]))
    area = m.learning_curve_area(trace, 10).values.copy()
    area[0, 0] = values[
        :10, 0
    ].mean()  # theirs begins before the first update, of the first task only
    np.testing.assert_allclose(area, by_task(theirs["learning_curve_area"]), atol=1e-6)


def test_the_authors_plasticity_is_too_low():
    """Their search skips every start below an earlier one, right for drops and wrong for rises: a wider
    window may have less."""
    more = 0
    for run, width in itertools.product(PEERS["runs"], (2, 10, 100)):
        values, learning = np.array(run["right"]) / PEERS["examples"], np.array(run["learning"])
        seen = np.where(np.arange(4) <= learning[:, None], values, NAN)
        ours = m.windowed_plasticity(as_trace(seen, learning), width).values
        theirs = np.array(by_task(run["authors"][f"windowed_plasticity_{width}"]))
        assert (ours >= theirs - 1e-12).all()
        more += (ours > theirs + 0.01).sum()
    assert more > 0


# What always holds


@settings(max_examples=30)
@given(traces())
def test_what_always_holds(trace):
    last = plain(trace, lambda a, l, s, order, e, task: None if task == order[-1] else a[-1, task])
    lowest, worst = m.min_accuracy(trace), m.worst_case_accuracy(trace)
    assert (lowest.values <= last + 1e-12)[~np.isnan(last)].all()
    assert (worst <= m.average_accuracy(trace) + 1e-12).all()
    values = trace.accuracy.values
    assert (values.min((1, 2)) <= worst.values + 1e-12).all()
    assert (worst.values <= values.max((1, 2)) + 1e-12).all()
    np.testing.assert_array_equal(m.backward_transfer(trace), -m.forgetting(trace))
    assert (m.forgetting(trace, "best").fillna(0) >= m.forgetting(trace).fillna(0) - 1e-12).all()
    narrow, wide = (m.windowed_forgetting(trace, w) for w in (2, 5))
    assert (0 <= narrow).all() and (narrow <= wide).all()
    assert (m.gap(trace, None)["drop"].fillna(0) >= m.gap(trace, 1)["drop"].fillna(0) - 1e-12).all()


@settings(max_examples=20)
@given(traces(), st.randoms())
def test_the_order_of_seeds_and_the_names_of_tasks_do_not_matter(trace, random):
    seeds = list(range(trace.sizes["seed"]))
    tasks = list(range(trace.sizes["task"]))
    random.shuffle(seeds)
    random.shuffle(tasks)
    other = trace.isel(seed=seeds, task=tasks)
    other["learning"] = xr.apply_ufunc(lambda v: np.argsort(tasks)[v], other.learning)
    for metric in (
        m.forgetting,
        m.forward_transfer,
        m.min_accuracy,
        m.windowed_forgetting,
        m.worst_case_accuracy,
    ):
        one, moved = metric(trace), metric(other)
        xr.testing.assert_allclose(one, moved.sortby("seed").sortby(list(moved.dims)[-1]))


@settings(max_examples=10)
@given(traces())
def test_one_seed_alone_has_what_it_has_among_others(trace):
    whole = m.summary(trace, beta=1)
    alone = m.summary(trace.isel(seed=[-1]), beta=1)
    xr.testing.assert_allclose(whole.isel(seed=[-1]), alone)


def test_float32_and_other_orders_of_dimensions_are_read():
    other = HAND.astype(np.float32).transpose("task", "step", "seed")
    other["learning"] = HAND.learning.astype(np.int32)
    np.testing.assert_allclose(m.min_accuracy(other), m.min_accuracy(HAND), atol=1e-7)


def test_a_seed_that_diverged_has_nan_and_the_others_do_not():
    rows = np.stack([HAND.accuracy.values[0]] * 3)
    rows[1, 3:] = NAN
    learning = [[0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 2, 2]]
    arrays = {
        "accuracy": (("seed", "step", "task"), rows),
        "learning": (("seed", "step"), learning),
    }
    coords = {"seed": [4, 5, 6], "step": np.arange(7), "task": ["a", "b", "c"]}
    trace = xr.Dataset(arrays, coords | {"diverged_at": ("seed", [-1, 3, -1])})
    alone = m.summary(HAND, beta=2)
    found = m.summary(trace, beta=2)
    assert found.attrs["undefined"] == {} and found.seed.values.tolist() == [4, 5, 6]
    for name, values in found.data_vars.items():
        close(values, [alone[name].item(), NAN, alone[name].item()])
    assert m.gap(trace)["drop"].shape == (3, 2, 3)
    close(m.forward_transfer(trace=trace, baseline=0.25)[2], m.forward_transfer(HAND, 0.25)[0])
    assert m.accuracy_matrix(trace).after[2].values.tolist() == ["a", "b", "c"]
    with pytest.raises(Undefined, match="every seed of the trace has diverged"):
        m.forgetting(trace.isel(seed=[1]))


# Sparse observations


def test_a_window_is_of_updates_whatever_was_evaluated():
    dense = as_trace([[0.9], [0.7], [0.5], [0.3]], [0] * 4)
    close(m.windowed_forgetting(dense, 2), [[0.2]])
    sparse = as_trace([[0.9], [0.7], [0.5], [0.3]], [0] * 4, steps=[0, 10, 20, 30])
    close(m.windowed_forgetting(sparse, 20), [[0.2]])  # the reference's window of 2 evaluations
    with pytest.raises(
        Undefined, match="a window of 10 updates never holds two evaluations of task 0"
    ):
        m.windowed_forgetting(sparse, 10)


def test_what_the_trace_lacks_is_named():
    unseen = as_trace([[0.5, NAN], [0.7, NAN], [0.6, 0.8]], [0, 0, 1], tasks=["a", "b"])
    close(m.forgetting(unseen), [[0.1, NAN]])
    with pytest.raises(
        Undefined, match="forward transfer needs task 'b' evaluated at step 1 of seed 0"
    ):
        m.forward_transfer(unseen)
    late = as_trace([[0.5, 0.1], [NAN, 0.2], [0.6, 0.8]], [0, 0, 1], tasks=["a", "b"])
    with pytest.raises(Undefined, match="forgetting needs task 'a' evaluated at step 1 of seed 0"):
        m.forgetting(late)
    gone = as_trace([[0.5, 0.1], [0.6, 0.2], [NAN, 0.8]], [0, 0, 1], tasks=["a", "b"])
    for metric, says in {
        m.average_accuracy: "average accuracy needs task 'a' evaluated at step 2",
        m.min_accuracy: "min-ACC needs task 'a' of seed 0 evaluated after",
        m.worst_case_accuracy: "WC-ACC needs task 'b'",
        m.gap: "a gap needs task 'a' evaluated at step 2",
    }.items():
        with pytest.raises(Undefined, match=says):
            metric(gone)
    start = as_trace([[0.5, 0.1], [0.6, 0.2]], [0, 1], steps=[1, 2])
    with pytest.raises(Undefined, match="at step 0, before the first update, or a baseline"):
        m.forward_transfer(start)
    with pytest.raises(Undefined, match="evaluated after 1 of its updates, at step 3"):
        m.learning_curve_area(
            HAND.isel(step=[0, 1, 2, 4, 5, 6]).assign_coords(step=[0, 1, 2, 4, 5, 6]), 2
        )


def test_one_task_forgets_nothing_yet():
    one = as_trace([[0.5, 0.1], [0.6, 0.2]], [0, 0], tasks=["a", "b"])
    for metric in (m.forgetting, m.forward_transfer, m.min_accuracy, m.gap):
        with pytest.raises(Undefined, match="needs a second task: only 'a' was learned"):
            metric(one)
    close(m.average_accuracy(one), [0.6])
    close(m.worst_case_accuracy(one), [0.6])


def test_a_late_first_evaluation_hides_a_gap():
    late = as_trace([[0.5, 0.1], [0.6, 0.2], [0.5, 0.8]], [0, 0, 1], steps=[0, 20, 40])
    with pytest.warns(UserWarning, match="up to 20 of the first updates after a border go by"):
        m.gap(late)
    with pytest.raises(Undefined, match="within 5 updates after the border at step 20 of seed 0"):
        m.gap(late, 5)
    dense = as_trace(np.zeros((62, 2)), [0, *[1] * 61], steps=[20, *range(21, 81), 200])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m.gap(dense)


def test_the_summary_says_what_is_undefined():
    unseen = as_trace([[0.5, NAN], [0.7, NAN], [0.6, 0.8]], [0, 0, 1], tasks=["a", "b"])
    found = m.summary(unseen, windows=(10,), beta=1)
    assert list(found.attrs["undefined"]) == ["forward_transfer"]
    close(found["drop"], [0.1])
    close(found.recovery, [0.0])
    close(found.min_accuracy, [0.6])
    whole = m.summary(HAND, beta=2)
    assert whole.attrs["undefined"] == {}
    close(whole["drop"], [0.5])
    close(whole.windowed_forgetting_10, [1 / 3])
    assert all(values.dims == ("seed",) for values in whole.data_vars.values())


# Noise


# Bad inputs


def broken(**changes):
    return HAND.assign({k: (HAND[k].dims, v) for k, v in changes.items()})


BAD = {
    "accuracy must be [seed, step, task], not of shape": lambda: as_trace([0.1], [0]),
    "learning must be [seed, step] = [1, 2] or [step], not [3]": lambda: as_trace([[0.1], [0.2]], [0, 0, 0]),
    "tasks has 2 labels, accuracy has 1": lambda: as_trace([[0.1], [0.2]], [0, 0], tasks=["a", "b"]),
    "learning must be an index of 1 tasks from 0 on, not 1": lambda: as_trace([[0.1], [0.2]], [1, 1]),
    "from 0 on, not -1": lambda: as_trace([[0.1], [0.2]], [-1, -1]),
    "a whole number": lambda: as_trace([[0.1], [0.2]], [0.5, 0.5]),
    "a whole number, at every step": lambda: as_trace([[0.1], [0.2]], [0, NAN]),
    "step must be whole numbers": lambda: as_trace([[0.1], [0.2]], [0, 0], steps=[1, 1]),
    "step must be whole": lambda: as_trace([[0.1], [0.2]], [0, 0], steps=[0.5, 1]),
    "accuracy is infinite": lambda: as_trace([[0.1], [np.inf]], [0, 0]),
    "the trace is empty": lambda: as_trace(np.zeros((0, 1)), []),
    "is 0 at step 0 and 1 at the next": lambda: as_trace([[0.1, 0], [0.2, 0]], [0, 1]),
    "seed 0 learns 1, seed 1 learns 2": lambda: as_trace(np.zeros((2, 3, 2)), [[0, 0, 0], [0, 0, 1]]),
    "has no 'learning' [seed, step]": lambda: m.min_accuracy(HAND.drop_vars("learning")),
    "accuracy must be [seed, step, task], not [seed, step]": lambda: m.min_accuracy(HAND.isel(task=0)),
    "since must be 'learned' or 'best', not 'first'": lambda: m.forgetting(HAND, "first"),
    "window must be a whole number of updates from 2 on, not 1": lambda: m.windowed_forgetting(HAND, 1),
    "not 2.5": lambda: m.windowed_plasticity(HAND, 2.5),
    "beta must be a whole number": lambda: m.learning_curve_area(HAND, 0),
    "within must be a number of updates": lambda: m.gap(HAND, 0),
    "level must be above 0": lambda: m.gap(HAND, level=0),
    "baseline must be a number or [3], one a task, not [2]": lambda: m.forward_transfer(HAND, [0, 0]),
    "baseline must be finite": lambda: m.forward_transfer(HAND, NAN),
}  # fmt: skip


@pytest.mark.parametrize("says", BAD)
def test_bad_inputs(says):
    with pytest.raises(ValueError, match=re.escape(says)):
        BAD[says]()
