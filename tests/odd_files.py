"""Files as they come: unusual ones, which must be read to exactly the values written, and malformed
ones, which must be refused in a sentence with the place. Drawn from a seed for each reader of `apply`.

`python tests/odd_files.py 3000` reads as many files a reader and prints what became of them.
"""

import csv
import datetime
import io
import json
import sys
import tempfile
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from latebloom.apply import (
    async_federated,
    continual,
    continual_few_shot_instances,
    dynamical_linear_bandits,
    last_switch_bandits,
    learning_curves,
    neural_bandits,
    payment_bandits,
    pointer_networks,
    refined_schedules,
    sparse_misspecified_bandits,
    stability_gap,
)
from latebloom.data import labelled, recordings
from latebloom.data.files import FileError
from latebloom.data.point_files import read_tsplib

READ, REFUSED, EITHER = "read", "refused", "either"  # what must happen; either: but no traceback


@dataclass(frozen=True)
class Case:
    """A file, what must happen, what it says, and where its damage is: (column, row in the file)."""

    name: str
    content: bytes
    must: str
    truth: dict | None
    what: str
    place: tuple[str, int | None] | None = None


@dataclass(frozen=True)
class Reader:
    """`draw(rng)` makes a table {column: values}; `kinds` says what is in each; `read(path)` gives it
    back. `gaps` may be empty; `loose` are not checked by themselves; `low`, `above`, `high`: bounds.
    """

    draw: object
    kinds: dict
    read: object
    canon: object = dict
    gaps: tuple = ()
    loose: tuple = ()
    aliases: tuple = ()
    positive: tuple = ()
    shares: tuple = ()
    infinite: tuple = ()
    optional: tuple = ()
    more: bool = True  # whether a column that nobody asks for may stand beside them


# ---------------------------------------------------------------------------------- true tables


def some(rng, n, low=0.001, high=1.0):
    return [float(x) for x in rng.uniform(low, high, n)]


def moments(rng, n, gap=3600):
    start = int(datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC).timestamp())
    start += int(rng.integers(0, 10**7))
    return [(start + i * gap + int(rng.integers(0, gap // 2))) * 10**9 for i in range(n)]


def names(rng, count):
    pools = (
        ["0", "1", "2", "10"],
        ["a", "b", "c", "d"],
        ["Zoë", "Łódź", "東京", "tail spin"],
        ['say "so"', "x;y", "x,y", "NA"],
    )
    return list(rng.permutation(pools[rng.integers(len(pools))])[:count])


def picked(rng, pool, n):
    values = [str(pool[i]) for i in rng.integers(0, len(pool), n)]
    return [*map(str, pool), *values][:n]


def draw_federated(rng):
    n = int(rng.integers(6, 30))
    pool = names(rng, 3)
    table = {"client": picked(rng, pool, n), "seconds": some(rng, n, 0.01, 5000)}
    if rng.random() < 0.3:
        weight = dict(zip(pool, some(rng, 3), strict=True))
        table["importance"] = [weight[c] for c in table["client"]]
    return table


def by_client(table):
    found = {}
    for client, seconds in zip(table["client"], table["seconds"], strict=True):
        found.setdefault(client, []).append(seconds)
    return found


def read_federated(path):
    log = async_federated.read_log(path)
    return {name: pool.tolist() for name, pool in zip(log.names, log.seconds, strict=True)}


def draw_spends(rng):
    n = int(rng.integers(20, 40))
    day = 86_400 * 10**9
    start = int(rng.integers(19_000, 20_000)) * day
    table = {"spend_tv": some(rng, n, 0, 900), "spend Web": some(rng, n, 0, 1)}
    table["outcome_orders"] = [x - 300 for x in some(rng, n, 0, 900)]
    return table | {"date": [start + i * day for i in range(n)]}


def read_spends(path):
    options = dynamical_linear_bandits.Options(time="date")
    table, spend, outcome = dynamical_linear_bandits.read_record(path, options)
    return columns(table, (*spend, *outcome, "date"))


def draw_pictures(rng):
    n = int(rng.integers(2, len(PICTURES)))
    return {
        "file": [str(name) for name in rng.permutation(list(PICTURES))[:n]],
        "label": picked(rng, names(rng, 2), n),
    }


def read_pictures(path):
    found = labelled.read_images(picture_folder(), path, 4)
    assert all((x == PICTURES[f]).all() for x, f in zip(found.x, found.ids, strict=True))
    return {"file": found.ids.tolist(), "label": found.y.tolist()}


def draw_photos(rng):
    table = draw_pictures(rng)
    n = len(table["file"])
    return table | ({"instance": picked(rng, names(rng, 2), n)} if rng.random() < 0.6 else {})


def read_photos(path):
    options = continual_few_shot_instances.Options(size=8)
    found = continual_few_shot_instances.read_photos([picture_folder(), path], options)
    assert all((x == PICTURES[f]).all() for x, f in zip(found.x, found.ids, strict=True))
    more = {name: values.tolist() for name, values in found.more.items()}
    return {"file": found.ids.tolist(), "label": found.y.tolist(), **more}


PICTURES = {"a 1.png": 10, "b.png": 20, "ç.png": 30, "2.0.png": 40, "long" * 40 + ".png": 50}
_folder = []


def picture_folder():
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory())
        for name, grey in PICTURES.items():
            Image.fromarray(np.full((4, 4), grey, np.uint8)).save(Path(_folder[0].name) / name)
    return Path(_folder[0].name)


def draw_stream(rng):
    n = int(rng.integers(3, 30))
    table = {"label": picked(rng, names(rng, 3), n), "task": picked(rng, names(rng, 2), n)}
    return table | {"x 0": some(rng, n), "x 1": some(rng, n, -9, 9)}


def read_stream(path):
    found = continual.read_stream([path], continual.Options())
    features = dict(zip(found.features, found.x.T.tolist(), strict=True))
    return {"label": found.y.tolist(), "task": found.more["task"].tolist(), **features}


def draw_events(rng):
    n = int(rng.integers(5, 40))
    table = {"time": moments(rng, n), "item": picked(rng, names(rng, 3), n)}
    table["reward"] = some(rng, n, 0, 20)
    return table | ({"user": picked(rng, names(rng, 2), n)} if rng.random() < 0.4 else {})


def read_events(path):
    return columns(last_switch_bandits.read_events(path))


def draw_scores(rng):
    n = int(rng.integers(5, 30))
    table = {"size": [float(x) for x in np.cumsum(rng.integers(1, 5000, n))], "score": some(rng, n)}
    if rng.random() < 0.5:
        table["seed"] = picked(rng, [0, 1, 2], n)
        table["learner"] = picked(rng, names(rng, 2), n)
    return table


def read_scores(path):
    table = learning_curves.read_scores(path)
    return columns(table, [c for c in table if (table[c] != "").any()])


def draw_logged(rng):
    n = int(rng.integers(50, 70))
    table = {"action": picked(rng, names(rng, 3), n), "reward": some(rng, n)}
    table |= {"propensity": some(rng, n), "age": some(rng, n, -50, 50)}
    return table | {"device": picked(rng, ["phone", "web page"], n)}


def read_logged(path):
    options = neural_bandits.Options()
    frame = neural_bandits.read(path, options)
    taken = (options.action, options.reward, options.propensity)
    if "1 numbers" in neural_bandits._context(path, frame, options, taken)[-1]:
        frame["age"] = frame["age"].map(float)
    frame["device"] = frame["device"].map(str.strip)
    return columns(frame, (*taken, "device", "age"))


def draw_payments(rng):
    n = int(rng.integers(100, 110))
    table = {"timestamp": moments(rng, n), "allowed_actions": [], "action": []}
    pool = names(rng, 3)
    for _ in range(n):
        allowed = [str(a) for a in rng.permutation(pool)[: rng.integers(1, 4)]]
        table["allowed_actions"].append(allowed)
        table["action"].append(allowed[int(rng.integers(len(allowed)))])
    table |= {"propensity": some(rng, n), "amount": some(rng, n, 1, 300)}
    table["reward"] = [None if x < 0.1 else float(x > 0.3) for x in rng.random(n)]
    if rng.random() < 0.7:
        late = [t + int(rng.integers(1, 900)) * 10**9 for t in table["timestamp"]]
        both = zip(late, table["reward"], strict=True)
        table["reward_timestamp"] = [None if r is None else t for t, r in both]
    if rng.random() < 0.4:
        table["generation"] = [i // 40 for i in range(n)]
    return table


def read_payments(path):
    table = payment_bandits.read_log(path)
    if pd.Series(pd.to_numeric(table["amount"], errors="coerce")).notna().all():
        table["amount"] = table["amount"].map(float)
    return columns(table)


def draw_norms(rng):
    n = int(rng.integers(20, 40))
    norms = [None if rng.random() < 0.05 else x for x in some(rng, n, 0, 50)]
    return {"step": [float(x) for x in np.cumsum(rng.integers(1, 100, n))], "grad_norm": norms}


def read_norms(path):
    return columns(refined_schedules.read_log(path), ("step", "grad_norm"))


def draw_candidates(rng):
    n = int(rng.integers(5, 20))
    table = {"name": [f"candidate {i}" for i in range(n)]} if rng.random() < 0.5 else {}
    table |= {f"x {i}": some(rng, n, -5, 5) for i in range(3)}
    results = [None if rng.random() < 0.4 else x for x in some(rng, n, -900, 900)]
    return table | {"result": results}


def read_candidates(path):
    options = sparse_misspecified_bandits.Options()
    table, _ = sparse_misspecified_bandits.read_candidates(path, options)
    return columns(table)


def draw_accuracies(rng):
    """Two tasks, each evaluated from its start on, now and then."""
    pool = names(rng, 2)
    n, border = int(rng.integers(8, 20)), int(rng.integers(3, 6))
    rows = [(step, pool[int(step > border)], task) for step in range(n)
            for task in pool[: 1 + (step >= border)]]  # fmt: skip
    table = {"iteration": [r[0] for r in rows], "task": [r[2] for r in rows]}
    table |= {"accuracy": some(rng, len(rows), 0, 1), "learning": [r[1] for r in rows]}
    return table


def read_accuracies(path):
    return columns(stability_gap.read_rows(path, stability_gap.Options()))


def draw_points(rng):
    n = int(rng.integers(4, 30))
    table = {"x": some(rng, n, -90, 90), "y": some(rng, n, 0, 1)}
    return table | ({"instance": picked(rng, names(rng, 3), n)} if rng.random() < 0.6 else {})


def by_instance(table):
    found = {}
    named = table.get("instance", ["all"] * len(table["x"]))
    for name, *place in zip(named, table["x"], table["y"], strict=True):
        found.setdefault(name, []).append(place)
    return found


def read_point_sets(path):
    found = pointer_networks.read_instances([path], pointer_networks.Options())
    return {one.name: one.points.tolist() for one in found}


def draw_activity(rng):
    trials, steps = int(rng.integers(1, 4)), int(rng.integers(3, 12))
    n = trials * steps
    table = {f"x {i}": [None if rng.random() < 0.05 else x for x in some(rng, n, -9, 9)] for i in range(2)}  # fmt: skip
    if trials > 1 or rng.random() < 0.5:
        table["trial"] = [name for name in names(rng, trials) for _ in range(steps)]
    return table


def read_activity(path):
    """Without the names of trials, which a recording does not keep."""
    found = recordings.read_recording(path)
    flat = found.activity.reshape(-1, len(found.names))
    table = pd.DataFrame(flat, columns=list(found.names))
    return columns(table) | {"trials": len(found.activity)}


def by_trial(table):
    kept = {name: values for name, values in table.items() if name != "trial"}
    return kept | {"trials": len(set(table["trial"])) if "trial" in table else 1}


def columns(table, wanted=None):
    """{column: values} of plain Python: times in nanoseconds, gaps None."""
    found = {}
    for name in table if wanted is None else wanted:
        values = table[name]
        if pd.api.types.is_datetime64_any_dtype(values):
            ns = values.dt.as_unit("ns").astype("int64").tolist()
            found[str(name)] = [None if g else t for t, g in zip(ns, values.isna(), strict=True)]
        else:
            found[str(name)] = [None if v is None or v != v else v for v in values.tolist()]
    return found


READERS = {
    "async-federated": Reader(
        draw_federated, {"client": "label", "seconds": "number", "importance": "number"},
        read_federated, by_client, positive=("seconds",), aliases=("Seconds", "duration_s"),
    ),
    "continual": Reader(
        draw_stream, {"label": "label", "task": "label", "x 0": "number", "x 1": "number"}, read_stream,
        aliases=("Label", "class"), more=False,
    ),
    "continual-few-shot-instances": Reader(
        draw_photos, {"file": "text", "label": "label", "instance": "label"}, read_photos, aliases=("File", "path"), optional=("instance",),
    ),
    "dynamical-linear-bandits": Reader(
        draw_spends,
        {"spend_tv": "number", "spend Web": "number", "outcome_orders": "number", "date": "day"},
        read_spends,
    ),
    "early-learning-regularization": Reader(
        draw_pictures, {"file": "text", "label": "label"}, read_pictures, aliases=("File", "image"),
    ),
    "last-switch-bandits": Reader(
        draw_events, {"time": "time", "item": "label", "reward": "number", "user": "label"},
        read_events, aliases=("Time", "timestamp"),
    ),
    "learning-curves": Reader(
        draw_scores, {"size": "number", "score": "number", "seed": "label", "learner": "label"},
        read_scores, positive=("size",), aliases=("Size", "train_size"),
    ),
    "long-timescales": Reader(
        draw_activity, {"x 0": "number", "x 1": "number", "trial": "label"}, read_activity, by_trial, optional=("trial",),
        gaps=("x 0", "x 1"), infinite=("x 0", "x 1"), more=False,
    ),
    "neural-bandits": Reader(
        draw_logged, {"action": "label", "reward": "number", "propensity": "number",
                      "age": "number", "device": "label"},
        read_logged, loose=("age", "device"), positive=("propensity",),
        shares=("reward", "propensity"), more=False,
    ),
    "payment-bandits": Reader(
        draw_payments, {"timestamp": "time", "allowed_actions": "list", "action": "label",
                        "propensity": "number", "reward": "number", "reward_timestamp": "time",
                        "generation": "integer", "amount": "number"},
        read_payments, gaps=("reward", "reward_timestamp"), loose=("amount",),
        positive=("propensity",), shares=("reward", "propensity"), aliases=("Timestamp", "TimeStamp "),
    ),
    "pointer-networks": Reader(
        draw_points, {"x": "number", "y": "number", "instance": "label"}, read_point_sets, by_instance, aliases=("X", "Easting"),
        optional=("instance",),
    ),
    "refined-schedules": Reader(
        draw_norms, {"step": "number", "grad_norm": "number"}, read_norms, gaps=("grad_norm",),
        infinite=("grad_norm",), aliases=("Step", "global_step", "run 1 - step"),
    ),
    "stability-gap": Reader(
        draw_accuracies, {"iteration": "integer", "task": "label", "accuracy": "number",
                          "learning": "label"},
        read_accuracies, gaps=("accuracy",), aliases=("Iteration", "step", "run 1 - step"), more=False,
    ),
    "sparse-misspecified-bandits": Reader(
        draw_candidates, {"name": "label", "x 0": "number", "x 1": "number", "x 2": "number",
                          "result": "number"},
        read_candidates, gaps=("result",), more=False,
    ),
}  # fmt: skip

# ------------------------------------------------------------------------------ how it is written


@dataclass
class Manner:
    """A way of writing a table, usual or not."""

    separator: str
    comma: bool
    ends: str
    encoding: str
    quoting: int
    forms: dict  # of each column's values
    blank: float  # share of empty lines


def manner(rng, table, kinds):
    separator = str(rng.choice([",", ";", "\t"]))
    forms = {}
    for name in table:
        pool = {"number": NUMBERS, "integer": INTEGERS, "label": LABELS, "time": TIMES, "day": DAYS,
                "list": LISTS, "text": TEXTS}[kinds[name]]  # fmt: skip
        forms[name] = list(pool)[rng.integers(len(pool))]
    ends = str(rng.choice(["\n", "\n", "\r\n", "\r", "\r\r\n"]))
    quoting = int(rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    return Manner(
        separator,
        separator != "," and rng.random() < 0.5,
        ends,
        str(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"])),
        csv.QUOTE_ALL if ends == "\r" else quoting,  # else the writer leaves "\n" without quotes
        forms,
        float(rng.choice([0, 0, 0.1])),
    )


def exponent(x):
    return f"{x:.17e}"


NUMBERS = {
    "plain": repr,
    "exponent": exponent,
    "sign": lambda x: f"{x:+}",
    "bare": lambda x: (
        repr(x).replace("0.", ".", 1) if 0 < x < 1 and "e" not in repr(x) else repr(x)
    ),
    "short": lambda x: repr(x).removesuffix(".0"),
    "dot": lambda x: repr(x).removesuffix("0") if repr(x).endswith(".0") else repr(x),
    "space": lambda x: f" {x!r} ",
    "exact": lambda x: f"{x:.25f}" if abs(x) > 1e-3 else repr(x),
}
INTEGERS = {"plain": str, "point": lambda x: f"{x}.0", "sign": lambda x: f"+{x}"}
LABELS = {
    "plain": str,
    "point": lambda x: f"{x}.0" if x.isdigit() else x,
    "space": lambda x: f"  {x}\u00a0",
    "decomposed": lambda x: unicodedata.normalize("NFD", x),
}
TEXTS = {"plain": str, "space": lambda x: f" {x} "}


def stamp(ns, pattern, zone=0):
    moment = datetime.datetime.fromtimestamp(ns // 10**9, datetime.UTC)
    return (moment + datetime.timedelta(hours=zone)).strftime(pattern)


TIMES = {
    "iso": lambda t: stamp(t, "%Y-%m-%dT%H:%M:%SZ"),
    "naive": lambda t: stamp(t, "%Y-%m-%d %H:%M:%S"),
    "zone": lambda t: stamp(t, "%Y-%m-%dT%H:%M:%S+02:00", 2),
    "short zone": lambda t: stamp(t, "%Y-%m-%d %H:%M:%S-0530", -5.5),
    "utc": lambda t: stamp(t, "%Y-%m-%d %H:%M:%S UTC"),
    "fraction": lambda t: stamp(t, "%Y-%m-%dT%H:%M:%S.000000001Z"),
    "comma": lambda t: stamp(t, "%Y-%m-%dT%H:%M:%S,5Z"),
    "compact": lambda t: stamp(t, "%Y%m%dT%H%M%SZ"),
    "packed": lambda t: stamp(t, "%Y%m%d%H%M%S"),
    "slashes": lambda t: stamp(t, "%Y/%m/%d %H:%M:%S"),
    "s": lambda t: str(t // 10**9),
    "s point": lambda t: f"{t // 10**9}.0",
    "s half": lambda t: f"{t // 10**9}.5",
    "ms": lambda t: str(t // 10**6 + 7),
    "us": lambda t: str(t // 10**3 + 7),
    "ns": lambda t: str(t + 7),
}
ADDED = {
    "fraction": 1,
    "comma": 5 * 10**8,
    "s half": 5 * 10**8,
    "ms": 7 * 10**6,
    "us": 7 * 10**3,
    "ns": 7,
}
DAYS = {
    "iso": lambda t: stamp(t, "%Y-%m-%d"),
    "compact": lambda t: stamp(t, "%Y%m%d"),
    "slashes": lambda t: stamp(t, "%Y/%m/%d"),
    "midnight": lambda t: stamp(t, "%Y-%m-%dT%H:%M:%S"),
    "s": lambda t: str(t // 10**9),
    "ms": lambda t: str(t // 10**6),
}
LISTS = {
    "json": lambda x: json.dumps(x),
    "numbers": lambda x: json.dumps([float(v) if v.isdigit() else v for v in x]),
    "python": lambda x: repr(x),
    "tuple": lambda x: repr(tuple(x)),
    "pipes": lambda x: between(x, "|"),
    "spaced": lambda x: between(x, " | "),
    "commas": lambda x: between(x, ","),
    "semicolons": lambda x: between(x, ";"),
    "spaces": lambda x: between(x, " "),
    "array": lambda x: f"[{between(x, ' ')}]" if all(v.isdigit() for v in x) else repr(x),
}


def between(values, mark):
    """Values with a mark between them, or JSON where they hold marks of their own."""
    plain = all(set(v).isdisjoint('|,; "') for v in values)
    return mark.join(values) if plain else json.dumps(values)


def quantised(table, kinds, how):
    """The times that the column's form can say."""
    return {
        name: [None if t is None else t + ADDED.get(how.forms[name], 0) for t in values]
        if kinds[name] == "time"
        else values
        for name, values in table.items()
    }


def written(table, kinds, how, rng):
    """Rows of texts, the header first."""
    gap = str(rng.choice(["", "", "NA", "NaN", "null"]))
    pools = NUMBERS | INTEGERS | LABELS | TEXTS
    texts = {}
    for name, values in table.items():
        kind = kinds[name]
        form = {"number": NUMBERS, "integer": INTEGERS, "label": LABELS, "time": TIMES, "day": DAYS,
                "list": LISTS, "text": TEXTS}.get(kind, pools)[how.forms[name]]  # fmt: skip
        own = [gap if v is None else form(v) for v in values]
        points = kind in ("number", "integer") or (kind == "time" and how.forms[name][0] == "s")
        if how.comma and points and how.forms[name] != "slashes":
            own = [text.replace(".", ",") for text in own]
        texts[name] = own
    return [list(texts), *map(list, zip(*texts.values(), strict=True))]


def encoded(rows, how, rng):
    """The file, and the number of each row in it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=how.separator, quoting=how.quoting, lineterminator=how.ends)
    numbers, line = [], 0
    if how.separator == ";" and rng.random() < 0.1:
        out.write(f"sep=;{how.ends}" if how.ends in ("\n", "\r\n") else "")
        line += how.ends in ("\n", "\r\n")
    for row in rows:
        while rng.random() < how.blank and numbers:
            out.write(how.ends)
            line += 1 + (how.ends == "\r\r\n")
        writer.writerow(row)
        line += 1
        numbers.append(line)
        line += how.ends == "\r\r\n"
    text = out.getvalue()
    if rng.random() < 0.3:
        text = text.rstrip("\r\n") + ("" if rng.random() < 0.5 else 3 * how.ends)
    if rng.random() < 0.1 and len(rows[0]) > 1:
        text = text.rstrip("\r\n") + how.ends + how.separator * (len(rows[0]) - 1)
    return text.encode(how.encoding), numbers


STRANGE = [
    "\u2028",
    "\x0c",
    "\x85",
    "a\nb",
    "a\r\nb",
    'q"q',
    "😀",
    "\x1c",
    "x" * 140_000,
    ",;\t",
    " ",
    "",
]


def dressed(rows, reader, rng):
    """The rows with what may stand beside them, and the columns in another order."""
    header, body = rows[0], rows[1:]
    for name in reader.aliases[: 1 + int(rng.integers(3))][-1:]:
        if rng.random() < 0.5:
            header = [name if h.lower() == alias_of(reader) else h for h in header]
    header = [f" {h} " if rng.random() < 0.1 else h for h in header]
    if reader.more and rng.random() < 0.6:
        header = [*header, "remarks\nof all kinds"]
        body = [[*row, str(rng.choice(STRANGE[:8]))] for row in body]
        body[-1][-1] = STRANGE[rng.integers(len(STRANGE))]
    order = rng.permutation(len(header)) if rng.random() < 0.5 else np.arange(len(header))
    rows = [[row[i] for i in order] for row in (header, *body)]
    if rng.random() < 0.15:  # the index that pandas writes
        rows = [["", *rows[0]], *([str(i), *row] for i, row in enumerate(rows[1:]))]
    if rng.random() < 0.1:
        rows = [[*row, ""] for row in rows]
    return rows


def alias_of(reader):
    return next(name for name in reader.kinds if name.lower() == reader.aliases[0].strip().lower())


def undecidable(rows, how, kinds, header):
    """Whether decimals cannot be told from thousands: each mark is followed by three digits."""
    if how.separator == "," or (how.separator == "\t" and not how.comma):
        return False
    marked = [
        text.strip()
        for row in rows
        for name, text in zip(header, row, strict=True)
        if kinds[name] in ("number", "integer", "time")
        and set(text) & set(".,")
        and ":" not in text
    ]
    bare = [text.lstrip("+-") for text in marked]
    grouped = [t[:1] in "123456789" and len(t) in (5, 6, 7) and t[-4] in ".," for t in bare]
    return bool(marked) and all(grouped)


def as_parquet(table, kinds, rng):
    frame = {}
    for name, values in table.items():
        if kinds[name] in ("time", "day"):
            stamps = pd.to_datetime(pd.Series(values, dtype="Int64"), utc=True)
            frame[name] = stamps if rng.random() < 0.5 else stamps.dt.tz_localize(None)
        elif kinds[name] == "label" and all(v.isdigit() for v in values) and rng.random() < 0.7:
            frame[name] = pd.Series([float(v) for v in values] if rng.random() < 0.5 else [int(v) for v in values])  # fmt: skip
        else:
            frame[name] = pd.Series(values)
    out = io.BytesIO()
    made = pd.DataFrame(frame)
    if rng.random() < 0.3:
        made = made.set_index(next(iter(made.columns)))
    made.to_parquet(out)
    return out.getvalue()


def as_json(table, kinds, how, rng):
    plain = {
        name: [None if v is None else TIMES[how.forms[name]](v - ADDED.get(how.forms[name], 0))
               for v in values] if kinds[name] == "time"
        else [DAYS[how.forms[name]](v) for v in values] if kinds[name] == "day" else values
        for name, values in table.items()
    }  # fmt: skip
    rows = [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    if rng.random() < 0.5:
        rows = [{k: v for k, v in row.items() if v is not None} for row in rows]
    if rng.random() < 0.5:
        return ".jsonl", "\n".join(json.dumps(row) for row in rows).encode()
    return ".json", json.dumps({"log_history": rows} if rng.random() < 0.5 else rows).encode()


# ----------------------------------------------------------------------------------- what is wrong

WRONG = {
    "number": ["abc", "12%", "0x1F", "1_000", "１２", "--1", "$5", "True", "1e", "−5", "1.234.567",
               "1,234.5", "1.234,5", "1'234.5", "1 234", "5 kg", "=1+1"],
    "integer": ["1.5", "abc", "9223372036854775808", "1e30", "1e999999999", "-"],
    "time": ["yesterday", "now", "today", "01/02/2025", "2025-13-01", "2025-02-30", "31.12.2025",
             "170000000000", "86400", "1.7e9", "2025-01-01T25:00:00", "2025", "2024-01 05", "True"],
    "list": ["[1", "0,1|2", "0,,2", "[[0], [1]]", '{"a": 1}', "[null]", "[0, nan]", "|", "[" * 5000],
    "label": ["", "   "],
    "text": ["", " "],
}  # fmt: skip
WRONG["day"] = WRONG["time"]


def spoilt_cell(rows, header, kinds, reader, how, rng):
    """A cell that cannot be what its column holds: rows, what was done, and where."""
    name = str(rng.choice([h for h in header if h not in reader.loose]))
    pool = list(WRONG[kinds[name]])
    gap = ["", "nan", "NaT", "NA"] if kinds[name] in ("number", "integer", "time", "day") else [""]
    pool += [] if name in reader.gaps else gap
    if kinds[name] == "number":
        pool += [] if name in reader.infinite else ["inf", "1e999"]
        pool += ["0", "0.0", "-1"] if name in reader.positive else []
        pool += ["1.5" if not how.comma else "1,5", "2"] if name in reader.shares else []
    wrong = str(rng.choice(pool))
    row = int(rng.integers(1, len(rows)))
    rows[row][header.index(name)] = wrong
    return f"{kinds[name]} {wrong[:12]!r}", (name, row)


def spoilt_bytes(content, how, rng):
    """A file that is no table."""
    text = content.decode(how.encoding)
    first = text.lstrip("\r\n").split("\r")[0].split("\n")[0]
    separator = how.separator
    ways = {
        "latin-1": lambda: (text + "\nZoé").encode("latin-1", "replace"),
        "utf-16 without mark": lambda: text.encode("utf-16-le"),
        "nul": lambda: (text + "\0").encode(),
        "empty": lambda: b"",
        "blank": lambda: b" \n\r\n\t\n",
        "separators only": lambda: b";;;;\n;;;;\n",
        "workbook": lambda: b"PK\x03\x04" + content,
        "gzip": lambda: b"\x1f\x8b" + content,
        "parquet by name": lambda: b"PAR1" + content,
        "header only": lambda: first.encode() if '"' not in first else b"a,b",
        "too long a row": lambda: (text.rstrip("\r\n") + how.ends + separator * 30 + "x").encode(),
        "too short a row": lambda: (text.rstrip("\r\n") + how.ends + "x").encode(),
        "open quote": lambda: (text.rstrip("\r\n") + how.ends + '"x' + separator).encode(),
        "broken quote": lambda: (text.rstrip("\r\n") + how.ends + '"x" y' + separator).encode(),
    }
    what = str(rng.choice(list(ways)))
    return what, ways[what]()


OPTIONAL = ("spend_tv", "spend Web", "x 0", "x 1", "x 2")  # any number of such columns is right


def spoilt_table(rows, header, reader, rng):
    """A header that does not name its columns, or decimals that do not agree."""
    must = [h for h in header if h not in ("importance", "user", "seed", "learner", "generation",
                                           "reward_timestamp", "name", *OPTIONAL, *reader.loose, *reader.optional)]  # fmt: skip
    at = header.index(str(rng.choice(must if must else header)))
    what = str(rng.choice(["missing", "twice", "no name"][not must :]))
    if what == "missing":
        rows = [[v for i, v in enumerate(row) if i != at] for row in rows]
    elif what == "twice":
        rows = [[*row, row[at]] for row in rows]
    else:
        rows = [[*row, "" if n == 0 else "x"] for n, row in enumerate(rows)]
    return what, rows


def case(slug, seed):
    """One file for a reader, drawn from a seed."""
    reader, rng = READERS[slug], np.random.default_rng([seed, *slug.encode()])
    table, kinds = reader.draw(rng), reader.kinds
    how = manner(rng, table, kinds)
    table = quantised(table, kinds, how)
    truth = reader.canon(table)
    lot = rng.random()
    if lot < 0.06:
        return Case("t.parquet", as_parquet(table, kinds, rng), READ, truth, "parquet")
    if lot < 0.15:
        suffix, content = as_json(table, kinds, how, rng)
        return Case(f"t{suffix}", content, READ, truth, "json")
    plain = {
        name: [None if v is None else v - ADDED.get(how.forms[name], 0) for v in values]
        if kinds[name] == "time" else values for name, values in table.items()
    }  # fmt: skip
    rows = written(plain, kinds, how, rng)
    header = rows[0]
    if lot < 0.5:
        doubtful = undecidable(rows[1:], how, kinds, header)
        content, _ = encoded(dressed(rows, reader, rng), how, rng)
        return Case("t.csv", content, REFUSED if doubtful else READ, truth, "unusual")
    if lot < 0.75:
        what, (name, row) = spoilt_cell(rows, header, kinds, reader, how, rng)
        how.quoting = csv.QUOTE_ALL
        content, numbers = encoded(rows, how, rng)
        return Case("t.csv", content, REFUSED, None, what, (name, numbers[row]))
    if lot < 0.83:
        what, rows = spoilt_table(rows, header, reader, rng)
        if what == "missing" and len(rows[0]) == 0:
            what, rows = "missing", [["x"], ["1"]]
        return Case("t.csv", encoded(rows, how, rng)[0], REFUSED, None, what)
    if lot < 0.93:
        how = replace(how, encoding="utf-8", ends="\n" if how.ends == "\r\r\n" else how.ends)
        what, content = spoilt_bytes(encoded(rows, how, rng)[0], how, rng)
        return Case("t.csv", content, REFUSED, None, what)
    content = bytearray(encoded(dressed(rows, reader, rng), how, rng)[0])
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(len(content)))
        content[at : at + int(rng.integers(0, 3))] = rng.bytes(int(rng.integers(0, 3)))
    return Case("t.csv", bytes(content), EITHER, None, "struck bytes")


# ------------------------------------------------------- arrays and payoff tables, of two readers


def case_arrays(seed):
    """An .npz of examples with labels."""
    rng = np.random.default_rng([seed, 1])
    n = int(rng.integers(2, 12))
    kind = str(rng.choice(["u1", "i2", "i8", "f2", "f4", "f8", "U", "S", "?"]))
    texts = picked(rng, ["a", "bb", "Zoe"], n)
    numbers = rng.integers(0, 2 if kind == "?" else 4, n)
    y = np.array(texts) if kind == "U" else np.array(texts).astype("S") if kind == "S" else numbers.astype(kind)  # fmt: skip
    x = (rng.random((n, 3)) * 200).astype(str(rng.choice(["u1", "f4", "f8", "i4"])))
    arrays = {"x": x, "y": y}
    if rng.random() < 0.5:
        arrays["ids"] = np.array([f"id {i}" for i in range(n)]) if rng.random() < 0.5 else np.arange(n) * 3  # fmt: skip
    truth = {
        "x": x.tolist(),
        "y": texts if kind in "US" else numbers.tolist(),
        "ids": arrays.get("ids", np.arange(n)).tolist(),
    }
    wrong = {
        "no y": {"x": x},
        "objects": arrays | {"y": np.array([None, *numbers[1:]], object)},
        "one label too many": arrays | {"y": np.append(y, y[:1])},
        "labels in two columns": arrays | {"y": np.stack([y, y], 1)},
        "a label that is NaN": arrays | {"y": np.where(np.arange(n) == 1, np.nan, numbers)},
        "an empty label": arrays | {"y": np.array(["", *texts[1:]])},
        "dates": arrays | {"y": np.full(n, "2024-01-01", "M8[D]")},
        "a name twice": arrays | {"ids": np.zeros(n, int)},
        "names for half": arrays | {"ids": np.arange(n + 1)},
        "a single number": arrays | {"x": np.float64(3)},
        "complex labels": arrays | {"y": numbers.astype(complex)},
    }
    lot, out = rng.random(), io.BytesIO()
    what = str(rng.choice(list(wrong)))
    save = np.savez if rng.random() < 0.5 else np.savez_compressed
    save(out, **(wrong[what] if 0.4 < lot < 0.7 else arrays))
    content = bytearray(out.getvalue())
    if lot <= 0.4:
        return Case("t.npz", bytes(content), READ, truth, "arrays")
    if lot < 0.7:
        return Case("t.npz", bytes(content), REFUSED, None, what)
    if lot < 0.8:
        return Case(
            "t.npz", bytes(content[: rng.integers(len(content))]), REFUSED, None, "cut short"
        )
    for _ in range(int(rng.integers(1, 5))):
        content[rng.integers(len(content))] = rng.integers(256)
    return Case("t.npz", bytes(content), EITHER, None, "struck bytes")


def read_arrays(path):
    found = labelled.read_npz(path)
    return {"x": found.x.tolist(), "y": found.y.tolist(), "ids": found.ids.tolist()}


def case_payoffs(seed):
    """Payoff tables as JSON."""
    rng = np.random.default_rng([seed, 2])
    pool = ["a", "Zoë", "3", "x y"][: rng.integers(1, 5)]
    items = {}
    for name in pool:
        idle = np.sort(rng.random(rng.integers(1, 5)))
        ran = -np.sort(-rng.random(rng.integers(1, 4))) * idle[0]
        items[name] = {"idle": idle.tolist(), "streak": ran.tolist()}
    most, longest = (max(len(own[k]) for own in items.values()) for k in ("idle", "streak"))
    told = {"items": items}
    states = {name: most for name in pool}
    if rng.random() < 0.5:
        told["start"] = {pool[0]: int(rng.choice([-2, -1, 1, 4]))}
        states |= told["start"]
    truth = {"items": pool, "start": list(states.values()), "payoffs": [
        [own["streak"][min(j, len(own["streak"])) - 1] for j in range(longest, 0, -1)]
        + [own["idle"][min(j, len(own["idle"])) - 1] for j in range(1, most + 1)]
        for own in items.values()
    ]}  # fmt: skip
    text = json.dumps(told, indent=[None, 1][rng.integers(2)], ensure_ascii=bool(rng.integers(2)))
    encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16"]))
    lot = rng.random()
    if lot < 0.4:
        return Case("t.json", text.encode(encoding), READ, truth, "payoffs")
    one = json.dumps(items[pool[0]])
    first = items[pool[0]]
    wrong = {
        "cut short": text[: rng.integers(1, len(text))],
        "twice": f'{{"items": {{"a": {one}, "a": {one}}}}}',
        "a list": json.dumps([told]),
        "nothing": "",
        "null": "null",
        "deep": "[" * 100_000,
        "many digits": f'{{"items": {{"a": {{"idle": [{"9" * 5000}], "streak": [1]}}}}}}',
        "a list to start": json.dumps(told | {"start": [1]}),
    }
    for what, value in {"NaN": float("nan"), "text": "1", "negative": -0.1, "true": True,
                        "infinite": 1e400, "list": [1.0], "null": None, "huge": 10**400}.items():  # fmt: skip
        wrong[f"{what} as payoff"] = json.dumps({"items": {"a": first | {"streak": [value]}}})
    for what, value in {"0": 0, "true": True, "half": 1.5, "text": "1", "null": None}.items():
        wrong[f"{what} as state"] = json.dumps(told | {"start": {pool[0]: value}})
    wrong["unknown"] = json.dumps(told | {"start": {"nobody": 1}})
    wrong["falling"] = json.dumps({"items": {"a": {"idle": [0.5, 0.4], "streak": [0.1]}}})
    wrong["empty"] = json.dumps({"items": {"a": {"idle": [], "streak": [0.1]}}})
    what = str(rng.choice(list(wrong)))
    if lot < 0.85:
        return Case("t.json", wrong[what].encode(), REFUSED, None, what)
    content = bytearray(text.encode())
    for _ in range(int(rng.integers(1, 5))):
        content[rng.integers(len(content))] = rng.integers(256)
    return Case("t.json", bytes(content), EITHER, None, "struck bytes")


def case_tsplib(seed):
    """Instances of TSPLIB: places, or whole tables of distances."""
    rng = np.random.default_rng([seed, 3])
    n, plane = int(rng.integers(1, 9)), bool(rng.integers(2))
    colon = str(rng.choice([":", " : ", ":\t"]))
    head = {"NAME": "a b", "COMMENT": "x: y", "TYPE": "TSP", "DIMENSION": str(n)}
    if plane:
        points = rng.integers(-50, 50, (n, 2)) / 4
        truth = {"points": points.tolist()}
        head["EDGE_WEIGHT_TYPE"] = str(rng.choice(["EUC_2D", "CEIL_2D", "euc_2d"]))
        form = str(rng.choice(["", ".9e", "+"]))
        body = [f"{i + 1} {points[i][0]:{form}}  {points[i][1]}" for i in rng.permutation(n)]
        section = "NODE_COORD_SECTION"
    else:
        d = np.triu(rng.integers(0, 99, (n, n)), 1)
        d = d + d.T
        truth = {"distances": d.astype(float).tolist()}
        form = str(rng.choice(["FULL_MATRIX", "LOWER_DIAG_ROW"]))
        head |= {"EDGE_WEIGHT_TYPE": "EXPLICIT", "EDGE_WEIGHT_FORMAT": form}
        values = d.ravel() if form == "FULL_MATRIX" else d[np.tril_indices(n)]
        body = [
            " ".join(map(str, part)) for part in np.array_split(values, int(rng.integers(1, 4)))
        ]
        section = "EDGE_WEIGHT_SECTION"
    ends = str(rng.choice(["\n", "\r\n"]))

    def file(head, body, section=section):
        lines = [f"{name}{colon}{value}" for name, value in head.items()]
        return ends.join([*lines, section, *body, *(["EOF", "more"] if rng.random() < 0.7 else [])])

    lot = rng.random()
    if lot < 0.4:
        return Case("t.tsp", file(head, body).encode(), READ, truth, "instance")
    wrong = {
        "nothing": "",
        "a table": "x,y\n1,2\n",
        "another problem": file(head | {"TYPE": "CVRP"}, body),
        "one more": file(head | {"DIMENSION": str(n + 1)}, body),
        "no size": file({k: v for k, v in head.items() if k != "DIMENSION"}, body),
        "half": file(head | {"DIMENSION": f"{n}.5"}, body),
        "huge": file(head | {"DIMENSION": "9" * 5000}, body),
        "no section": file(head, body, "DISPLAY_DATA_SECTION"),
        "a word": file(head, [*body[:-1], body[-1].rsplit(" ", 1)[0] + " two"]),
        "not finite": file(head, [*body[:-1], body[-1].rsplit(" ", 1)[0] + " nan"]),
        "other distances": file(head | {"EDGE_WEIGHT_TYPE": "ATT"}, body),
        "twice": file(head, [*body, *body]),
    }
    what = str(rng.choice(list(wrong)))
    if lot < 0.8:
        return Case("t.tsp", wrong[what].encode(), REFUSED, None, what)
    content = bytearray(file(head, body).encode())
    for _ in range(int(rng.integers(1, 5))):
        content[rng.integers(len(content))] = rng.integers(256)
    return Case("t.tsp", bytes(content), EITHER, None, "struck bytes")


def read_instance(path):
    found = read_tsplib(path)
    if found.points is None:
        return {"distances": found.distances().tolist()}
    return {"points": found.points.tolist()}


def read_payoffs(path):
    model, _ = last_switch_bandits._from_json(path, last_switch_bandits.Options())
    return {
        "items": list(model.items),
        "start": model.start.tolist(),
        "payoffs": model.payoffs.tolist(),
    }


DRAWN = {slug: (partial(case, slug), reader.read) for slug, reader in READERS.items()} | {
    "early-learning-regularization, arrays": (case_arrays, read_arrays),
    "last-switch-bandits, payoffs": (case_payoffs, read_payoffs),
    "pointer-networks, instances": (case_tsplib, read_instance),
}

# ------------------------------------------------------------------------------------- what happens


def outcome(read, made, folder):
    """What became of a file: its fault, or "read" or "refused" as it should be."""
    path = Path(folder) / made.name
    path.write_bytes(made.content)
    try:
        found = read(path)
    except FileError as error:
        said = str(error)
        if made.must == READ:
            return f"refused, though it should be read: {said}"
        if "\n" in said or len(said) > 800 or path.name not in said:
            return f"not one sentence that names the file: {said}"
        if made.place and repr(made.place[0]) not in said:
            return f"column {made.place[0]!r} is not named: {said}"
        blamed = "earlier" if "rows before" in said or "three decimals" in said else "row"
        if made.place and blamed == "row" and f"row {made.place[1]}" not in said:
            return f"row {made.place[1]} is not named: {said}"
        return REFUSED
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if made.must == REFUSED:
        return "read, though it should be refused"
    found = {name: values for name, values in found.items() if not name.startswith("remarks")}
    if made.must == READ and found != made.truth:
        return f"another meaning: {differing(found, made.truth)}"
    return READ


def differing(found, truth):
    for name, values in truth.items():
        if name not in found:
            return f"{name!r} is missing"
        for row, (a, b) in enumerate(zip(found[name], values, strict=False)):
            if a != b:
                return f"{name!r}, entry {row}: {a!r} where {b!r} was written"
    return f"{len(next(iter(found.values())))} rows, columns {list(found)}"


def main(count, first):
    with tempfile.TemporaryDirectory() as folder:
        for slug, (draw, read) in DRAWN.items():
            seen, faults = Counter(), Counter()
            for seed in range(first, first + count):
                made = draw(seed)
                came = outcome(read, made, folder)
                seen[came if came in (READ, REFUSED) else "fault"] += 1
                if came not in (READ, REFUSED):
                    faults[made.what] += 1
                    if faults[made.what] <= 2:
                        print(f"  {slug} {seed} ({made.what}, {made.must}): {came[:300]}")
            print(f"{slug:40}{dict(seen)}  refused {seen[REFUSED] / count:.0%}  {dict(faults)}")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 300, int(sys.argv[2]) if len(sys.argv) > 2 else 0
    )
