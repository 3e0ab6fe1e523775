"""Which way of enrolling objects from a photo each recognises them later, on images of one's own?

`assess` draws episodes from labelled images, learns them in several ways, and asks for the very images
again, whole and with a part lost, or for other photos where there are any. It pretrains a network of its own, or takes
any network, or features that one has made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Shaped
from scipy import stats

from latebloom.core.calling import call
from latebloom.data.labelled import given_labels
from latebloom.data.stroke_glyphs import SIDES, glyphs
from latebloom.methods.forgetting import few_shot
from latebloom.methods.forgetting.corrupted import KINDS, corrupted
from latebloom.methods.forgetting.episodes import Design, Episode, arrangements, by_class, draw_many
from latebloom.methods.forgetting.few_shot import Learner, Replay, Tuning, answers
from latebloom.methods.forgetting.intervals import not_behind
from latebloom.methods.forgetting.pretraining import Pretraining, pretrained
from latebloom.nn import Linear, StageNet

PIXELS, NEAREST, DOT, EUCLID = "nearest pixels", "nearest features", "prototypes by dot product", "prototypes by Euclid"  # fmt: skip
LOGISTIC, TUNED, REPLAYED = "logistic regression", "tuned", "tuned with replay"
METHODS = (PIXELS, NEAREST, DOT, EUCLID, LOGISTIC, TUNED, REPLAYED)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of tuning, that are tried


@dataclass(frozen=True)
class Assessed:
    """What was found.

    - `methods`: accuracy of each way with a 95 % interval over episodes, clean and, of images, with half of the
      pixels lost (the fraction nearest to it; mean over kinds), whether it `may_be_best` (`not_behind`), and the
      learning `rate` of ways that tune. `robust`: by kind and fraction. `arrangements`: by how many images come at
      a time, tuned ways alone, each against its own best. `memory`: replay by sets in memory.
    - `confusion`: how often an instance was taken for another, by the best way.
    - `instances` of an episode; `separate`: whether targets are other photos than those enrolled.
    - `same`: whether all episodes have the same images, so that intervals know of order and damage alone.
    - `left_out`: classes that have fewer images than an episode draws, or, if `separate`, instances of one photo.
    """

    methods: pd.DataFrame
    robust: pd.DataFrame
    arrangements: pd.DataFrame
    memory: pd.DataFrame
    confusion: pd.DataFrame
    instances: int
    episodes: int
    separate: bool
    left_out: int = 0
    same: bool = False

    @property
    def judged(self) -> str:
        """What ways are compared by: "corrupted" targets; "clean" ones where nothing was hidden or lost."""
        return "corrupted" if "corrupted" in self.methods else "clean"

    @property
    def best(self) -> str:
        """The way with the highest accuracy."""
        return str(self.methods.sort_values(self.judged, kind="stable")["method"].iloc[-1])

    @property
    def alike(self) -> list[str]:
        """Ways that are not surely behind the best one, itself among them."""
        return self.methods[self.methods["may_be_best"]]["method"].tolist()


def assess(
    x: Shaped[np.ndarray, "n ..."], label: Sequence[Any] | np.ndarray,
    instance: Sequence[Any] | np.ndarray | None = None, *, names: Sequence[Any] | np.ndarray | None = None, network: Any = None,
    methods: Sequence[str] | None = None, instances: int = 20, episodes: int = 20, total: int = 40, rate: float | None = None,
    replayed: int = 4, fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), known: int = 300, steps: int = 300, seed: int = 0,
    say: Callable[[str, float], None] = lambda what, share: None,
) -> Assessed:  # fmt: skip
    """Episodes of the instance test.

    - `x`: images [n, height, width] or with 1 or 3 channels last, each scaled to 0 to 1 by what its type can hold; or
      features [n, d], as they are. Features are not corrupted, and need `instance`: asked for the very ones that
      were enrolled, whatever remembers them is right.
    - `label` [n]: an episode draws `instances` images of one class (as many as the largest class has, if fewer),
      and asks for the same ones.
    - `instance` [n], where there are several photos of an object: an episode draws objects of any class,
      enrols one photo of each and asks for another. The same name under two labels is two objects.
    - `names` [n]: what images are called in `confusion`, where no instance is given; else their numbers.
    - `network`: what makes features [.., d] of them, as it was trained: any Equinox module or function, of a batch
      or of one example, with channels last, or first, or all in one row, whichever it takes first. A module is tuned
      with all of its weights; of a function only the head on top is. Once learned it is asked as outside of training.
      None: images go through a network that is pretrained on `known` made-up characters for `steps` batches, so that
      none of the user's is used for it; its batch normalisation goes by each image that is asked for by itself. A
      head alone is tuned on features.
    - `methods`: some of `METHODS`; None: all, of features without pixels.
    - `total` steps of SGD in all, in sets of equal size, at `rate`; None: at the best of `RATES` for each way, on episodes of
      their own, which may have the same images. `replayed` images a step.

    Raises `ValueError` for images of another shape or type, too few, a network that takes none of them, an unknown
    way, settings out of range.
    """
    images, label = _scaled(x), given_labels(label, "label")
    pictures = images.ndim == 4
    if methods is None:
        methods = METHODS if pictures else METHODS[1:]
    for name, value, least in (("instances", instances, 2), ("episodes", episodes, 2), ("total", total, 1), ("replayed", replayed, 1), ("steps", steps, 1), ("known", known, 8)):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be a whole number from {least}, not {value}")
    if rate is not None and not (0 < rate < np.inf):
        raise ValueError(f"rate must be above 0, not {rate}")
    wrong = [f for f in fractions if not 0 <= f <= 1]
    if wrong or not len(fractions):
        raise ValueError(f"fractions must be from 0 to 1, and at least one, not {list(fractions)}")
    unknown = [m for m in methods if m not in METHODS]
    if unknown or not len(methods):
        raise ValueError(f"methods must be some of {', '.join(METHODS)}, not {', '.join(unknown) or 'none'}")  # fmt: skip
    if label.shape != (len(images),):
        raise ValueError(f"there must be a label for each of the {len(images)} images, not {list(label.shape)}")  # fmt: skip
    if not pictures and instance is None:
        raise ValueError("features need an instance for each: whatever remembers the very ones that were enrolled is right")  # fmt: skip
    if not pictures and PIXELS in methods:
        raise ValueError(f"features have no pixels: leave {PIXELS!r} out of methods")
    separate = instance is not None
    instance = None if instance is None else given_labels(instance, "instance")
    shelf, count, left_out = _shelf(label, instance, instances)
    if pictures and network is None:
        say("pretraining on made-up characters", 0.05)
    learner = _learner(images, network, count, known, steps, seed)
    fractions = tuple(fractions) if pictures else ()
    ways = [a for a in arrangements(count) if a[0] > 1] or [(1, count)]
    sets = min(ways, key=lambda a: abs(a[0] - np.sqrt(count) * 1.5))[0]
    ask = partial(
        _Ask,
        images,
        learner,
        separate,
        shelf=shelf,
        count=count,
        fractions=fractions,
        total=total,
        replayed=replayed,
    )
    rows, robust, told, lost_by, rates = [], [], {}, [], {}
    for i, method in enumerate(methods):
        say(method, 0.2 + 0.5 * i / len(methods))
        rates[method] = _rate(ask, method, sets, rate, episodes, seed)
        right, told[method] = ask(
            episodes, seed, sets=sets, method=method, kept=sets, rate=rates[method]
        )()
        rows.append({"method": method, **_two(right, fractions), "rate": rates[method]})
        lost_by.append(_judged(right, fractions))
        for k, kind in enumerate(KINDS):
            for f, fraction in enumerate(fractions):
                lost = right[:, 1 + k * len(fractions) + f]
                robust.append({"method": method, "kind": kind, "fraction": fraction, **_interval("accuracy", lost)})  # fmt: skip
    arranged, memory = [], []
    arranged_by, memory_by = {method: [] for method in methods}, []
    tuned = [m for m in methods if m in (TUNED, REPLAYED)]
    for i, (n, each) in enumerate(ways):
        say("arrangements", 0.7 + 0.2 * i / len(ways))
        for method in tuned:
            right, _ = ask(episodes, seed, sets=n, method=method, kept=n, rate=rates[method])()
            arranged.append({"method": method, "sets": n, "images": each, **_two(right, fractions)})
            arranged_by[method].append(_judged(right, fractions))
    if REPLAYED in methods and sets > 1:
        for kept in sorted({1, max(1, sets // 2), sets - 1}):
            say("memory", 0.92)
            right, _ = ask(
                episodes, seed, sets=sets, method=REPLAYED, kept=kept, rate=rates[REPLAYED]
            )()
            memory.append({"sets_kept": kept, **_two(right, fractions)})
            memory_by.append(_judged(right, fractions))
    _mark(rows, lost_by)
    _mark(memory, memory_by)
    for method in tuned:
        _mark([row for row in arranged if row["method"] == method], arranged_by[method])
    same = (
        not separate and len(shelf.rows) == 1 and int((np.asarray(shelf.rows) >= 0).sum()) == count
    )
    found = Assessed(pd.DataFrame(rows), pd.DataFrame(robust), pd.DataFrame(arranged), pd.DataFrame(memory), pd.DataFrame(), count, episodes, separate, left_out, same)  # fmt: skip
    asked, said = told[found.best]
    if instance is not None:
        names = _called(label, instance)
    elif names is None:
        names = np.arange(len(images))
    return replace(found, confusion=_confused(asked, said, np.asarray(names)))


def _called(label: np.ndarray, instance: np.ndarray) -> np.ndarray:
    """Names of instances, with the label before them where one name stands under two labels."""
    pairs = pd.DataFrame({"label": label.astype(str), "instance": instance.astype(str)})
    if pairs.drop_duplicates()["instance"].is_unique:
        return instance
    return (pairs["label"] + "/" + pairs["instance"]).to_numpy(str)


def _confused(asked: np.ndarray, said: np.ndarray, names: np.ndarray) -> pd.DataFrame:
    """What was taken for what, the most frequent pair first."""
    wrong = names[asked] != names[said]
    pairs = pd.DataFrame({"instance": names[asked][wrong], "taken_for": names[said][wrong]})
    if pairs.empty:
        return pairs.assign(times=np.zeros(0, int))
    return pairs.value_counts().rename("times").reset_index()


def _rate(ask: Any, method: str, sets: int, rate: float | None, episodes: int, seed: int) -> float:
    """The learning rate of a way: as given, else the best of `RATES` on episodes that it is not judged by, the lowest of
    equals; NaN of a way that tunes nothing."""
    if method not in (TUNED, REPLAYED):
        return float("nan")
    if rate is not None:
        return rate
    scores = []
    for each in RATES:
        one = ask(episodes, seed + 2**20, sets=sets, method=method, kept=sets, rate=each)
        scores.append(float(_judged(one()[0], one.fractions).mean()))
    return RATES[int(np.argmax(scores))]


@dataclass(frozen=True)
class _Ask:
    """One way of learning on all episodes of a design: 1 or 0 [episode, condition], mean over targets; and what was
    answered under half corruption (rows asked for, rows said)."""

    images: Array
    learner: Learner
    separate: bool
    episodes: int
    seed: int
    shelf: Any
    count: int
    sets: int
    method: str
    fractions: Sequence[float]
    kept: int
    total: int
    rate: float
    replayed: int

    def __call__(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        each = self.count // self.sets
        design = Design(self.sets, each, queries=1) if self.separate else Design.instances(self.sets, each)  # fmt: skip
        many = draw_many(jax.random.key(self.seed), design, self.shelf, self.episodes)
        keys = jax.random.split(jax.random.key(self.seed + 1), self.episodes)
        conditions = [(0, 0.0), *((k, f) for k in range(len(KINDS)) for f in self.fractions)]
        logits = np.asarray(_answers(self.images, self.learner, many, jnp.array(conditions), design, self.method, jnp.int32(self.kept), self.total, jnp.float32(self.rate), self.replayed, keys))  # fmt: skip
        labels = np.asarray(many.target_labels)
        best = logits.argmax(axis=-1)
        right = (best == labels[:, None]) & (logits.max(axis=-1) > logits.min(axis=-1))
        shown = np.asarray(many.rows).reshape(self.episodes, -1)
        order = np.argsort(np.asarray(many.labels).reshape(self.episodes, -1), axis=1)
        of_label = np.take_along_axis(shown, order, axis=1)  # row that was enrolled under a label
        half = list(range(len(conditions)))[_half(self.fractions)]
        said = np.take_along_axis(of_label[:, None].repeat(len(half), 1), best[:, half], axis=2)
        asked = np.broadcast_to(np.asarray(many.target_rows)[:, None], said.shape)
        told = (logits.max(axis=-1) > logits.min(axis=-1))[:, half]  # all alike is no answer
        return right.mean(axis=2).astype(float), (asked[told], said[told])


@eqx.filter_jit
def _answers(
    images: Array, start: Learner, many: Episode, conditions: Array, design: Design, method: str, kept: Array, total: int,
    rate: Array, replayed: int, keys: Array,
) -> Array:  # fmt: skip
    """Logits [episode, condition, target, outputs]."""
    arrays, static = eqx.partition(start, eqx.is_array)
    replay = Replay(replayed, kept) if method == REPLAYED else None
    tuning = Tuning(rate, max(1, total // design.sets), replay)

    def one(given: tuple[Episode, Array]) -> Array:
        episode, key = given
        learner = eqx.combine(arrays, static)
        if method in (TUNED, REPLAYED):
            learner = few_shot.tuned(learner, images, episode, tuning, key)
        body: Any = (lambda x: x.reshape(len(x), -1)) if method == PIXELS else learner.body
        labels, n = episode.labels.ravel(), design.outputs
        known = (
            None
            if method in (TUNED, REPLAYED)
            else few_shot.embedded(body, images, episode, "running")
        )
        ways = [partial(_spoilt, kind, key) for kind in KINDS]

        def at(condition: Array) -> Array:
            x = images[episode.target_rows]
            if images.ndim == 4:
                x = jax.lax.switch(condition[0].astype(int), ways, x, condition[1])
            if known is None:
                return answers(learner, x, "running")
            asked = answers(body, x, "running")
            if method in (PIXELS, NEAREST):
                return few_shot.nearest(asked, known, labels, n)
            if method == LOGISTIC:
                return few_shot.logistic(asked, known, labels, n)
            metric = "dot" if method == DOT else "euclidean"
            return few_shot.compared(asked, few_shot.prototypes(known, labels, n), metric)

        return jax.lax.map(lambda condition: at(condition).astype(jnp.float32), conditions)

    return jax.lax.map(one, (many, keys))


def _spoilt(kind: Any, key: Array, x: Array, fraction: Array) -> Array:
    return corrupted(x, fraction, kind=kind, key=key)


def _scaled(x: np.ndarray) -> Array:
    """Images [n, height, width, channels] from 0 to 1, or features [n, d]."""
    x = np.asarray(x)
    if x.ndim == 2:
        if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
            raise ValueError("x must be finite numbers where it is features [n, d]")
        return jnp.asarray(x, jnp.float32)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or min(x.shape[1:3]) < 8:
        raise ValueError(f"x must be images [n, height, width] or with 1 or 3 channels last, at least 8 x 8, or features [n, d], not {list(x.shape)}")  # fmt: skip
    if x.dtype == np.uint8:
        return jnp.asarray(x, jnp.float32) / 255
    if x.dtype.kind != "f" or not np.isfinite(x).all() or x.min() < 0 or x.max() > 1:
        raise ValueError("x must be uint8, or finite floats from 0 to 1: scale them")
    return jnp.asarray(x, jnp.float32)


def _shelf(label: np.ndarray, instance: Any, instances: int) -> tuple[Any, int, int]:
    """What is drawn from, how many instances an episode has, and how many classes or instances are left out."""
    if instance is None:
        shelf = by_class(label)
        most = shelf.rows.shape[1]
        count = min(instances, most)
        if count < 2:
            raise ValueError("every class has one image: an instance test needs a class with two or more")  # fmt: skip
        fit = shelf.fits(Design.instances(1, count))
        return fit, count, len(shelf.rows) - len(fit.rows)
    if instance.shape != label.shape:
        raise ValueError(f"there must be an instance for each of the {len(label)} images, not {list(instance.shape)}")  # fmt: skip
    pairs = pd.MultiIndex.from_arrays([label.astype(str), instance.astype(str)])
    shelf = by_class(pairs.factorize()[0])
    several = (np.asarray(shelf.rows) >= 0).sum(axis=1) > 1
    if several.sum() < 2:
        raise ValueError("fewer than two instances have a second photo to be recognised by: leave the column instance out, and the photos that were enrolled are asked for")  # fmt: skip
    count = min(instances, int(several.sum()))
    return shelf.of(np.flatnonzero(several)), count, int((~several).sum())  # pyright: ignore


class _ByItself(eqx.Module):
    """A network of `latebloom.nn` whose batch normalisation goes by each image alone, once it is asked: an answer
    depends on no neighbour, and images that are darker or noisier than those of training are normalised as well."""

    network: Any

    def __call__(self, x: Array, *, key: Any = None, train: bool = False) -> Array:
        if train:
            return self.network(x, key=key, train=True)
        return jax.vmap(lambda one: self.network(one[None], train=True)[0])(x)


class _Laid(eqx.Module):
    """A network of the user's, handed what it takes."""

    network: Any
    layout: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, x: Array, *, key: Any = None, train: bool = False) -> Array:
        return call(self.network, self.layout(x), key, train)


def _as_is(x: Array) -> Array:
    return x


def _channels_first(x: Array) -> Array:
    return jnp.moveaxis(x, -1, 1)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _laid(network: Any, images: Array) -> tuple[_Laid, int]:
    """A network that takes the images in one of the layouts, and how many features it makes."""
    said = []
    for layout in (_as_is, _channels_first, _flat) if images.ndim == 4 else (_as_is,):
        laid = _Laid(network, layout)
        try:
            made = eqx.filter_eval_shape(answers, laid, jax.ShapeDtypeStruct((3, *images.shape[1:]), images.dtype))  # fmt: skip
        except Exception as error:
            said.append(str(error).strip().split("\n")[0])
            continue
        if made.ndim == 2 and jnp.issubdtype(made.dtype, jnp.inexact):
            return laid, made.shape[1]
        said.append(f"it makes {made.dtype} {list(made.shape[1:])} of one, where features [d] are needed: flatten them")  # fmt: skip
    raise ValueError(f"network: {said[0]}" + (f"; with channels first: {said[1]}; all in one row: {said[2]}" if said[1:] else ""))  # fmt: skip


def _learner(images: Array, network: Any, outputs: int, known: int, steps: int, seed: int) -> Learner:  # fmt: skip
    """The user's network, one that is pretrained, or none, below a head for an episode's labels."""
    if network is None and images.ndim == 4:
        process, state = _body(images, known, steps, seed)
        found = process.learner(state, outputs)
        return Learner(_ByItself(found.body), found.head)
    body, width = _laid(_as_is if network is None else network, images)
    return Learner(body, Linear(width, outputs, key=jax.random.key(seed)))


def _body(images: Array, known: int, steps: int, seed: int) -> tuple[Pretraining, Any]:
    """A network for images of this size that tells made-up characters."""
    height, width, channels = images.shape[1:]
    side = min(height, width)
    if side not in SIDES:
        raise ValueError(f"x must be images of at most {SIDES[-1]} pixels a side, not {height} x {width}: scale them, or give a network")  # fmt: skip
    drawn = glyphs(known, 10, seed=seed, size=side).reshape(-1, side, side, 1)
    drawn = np.pad(drawn, ((0, 0), (0, height - side), (0, width - side), (0, 0)))
    drawn = np.repeat(drawn, channels, axis=3).astype(np.float32) / 255
    shelf = by_class(np.repeat(np.arange(known), 10))
    stages = 3 if side >= 14 else 2
    process = Pretraining(
        lambda key: StageNet((height, width), channels, stages=stages, key=key), jnp.asarray(drawn), shelf, steps=steps, rate=3e-3
    )  # fmt: skip
    return process, pretrained(process, jax.random.key(seed))


def _half(fractions: Sequence[float]) -> slice:
    """Where conditions have the fraction nearest to half, of every kind; the whole one where there are no others."""
    if not fractions:
        return slice(0, 1)
    return slice(1 + int(np.argmin(abs(np.asarray(fractions) - 0.5))), None, len(fractions))


def _judged(right: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """What ways are compared by, [episode]: mean over kinds of corruption at about half."""
    return right[:, _half(fractions)].mean(axis=1)


def _two(right: np.ndarray, fractions: Sequence[float]) -> dict[str, float]:
    """Accuracy on whole targets, and with about half lost, on average over kinds, where any is."""
    clean = _interval("clean", right[:, 0])
    return clean | _interval("corrupted", _judged(right, fractions)) if fractions else clean


def _mark(rows: list[dict[str, Any]], values: list[np.ndarray]) -> None:
    """Each row is told whether it may be the best of these."""
    for row, may in zip(rows, not_behind(np.stack(values)) if values else (), strict=True):
        row["may_be_best"] = bool(may)


def _interval(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean and 95 % interval (Student's t over episodes) of accuracies, within 0 and 1."""
    middle, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(len(values))
    reach = error * float(stats.t.ppf(0.975, len(values) - 1))
    return {name: middle, f"{name}_low": max(0.0, middle - reach), f"{name}_high": min(1.0, middle + reach)}  # fmt: skip
