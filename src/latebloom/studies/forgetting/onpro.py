"""Online prototype learning for online continual learning: OnPro, on the losses of OCM.

Wei, Ye, Huang, Zhang, Shan (ICCV 2023, arXiv 2308.00301).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.augmentation import Augmented, Views
from latebloom.core.calling import call
from latebloom.core.dataset import Dataset
from latebloom.core.stream import Stream, class_incremental
from latebloom.data import coloured, load, load_scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures
from latebloom.lab.study import thorough, tuned_beside
from latebloom.measures import Effect, Measure, Traces, chosen
from latebloom.methods.forgetting import metrics, separated
from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.method import Batch, Method
from latebloom.methods.forgetting.prototypes import OnPro, TwoViews, ocm
from latebloom.methods.forgetting.replay import DER, ER, ERACE, SCR, remembered_alone
from latebloom.methods.forgetting.separation import Separation
from latebloom.methods.forgetting.terms import percent
from latebloom.nn import MLP, Projected, ResNet

Name = Literal["er", "erace", "der", "scr", "gdumb", "ins", "ocm", "onpro", "sham", "bare"]
Ground = Literal["plain", "cue", "shuffled", "alike"]
# The colour of each digit on "shuffled" grounds: two of three in each task, in another order each.
SHUFFLED = np.array([0, 1, 1, 2, 2, 0, 1, 0, 2, 1])
SEE = ("er", "erace", "der", "gdumb")  # who may do without random views


@dataclass(frozen=True)
class Config:
    """A method on a stream of two new classes a task, seen once.

    - `method`: the baselines; "gdumb", a network trained from scratch on a memory shared evenly by the classes; "ins", ER with OCM's instance contrast; "ocm", with its distillation; "onpro";
      "sham", OnPro whose prototypes are of shuffled labels; "bare", "ins" without the contrast: cross-entropy on views, of
      the replayed alone after the first task.
    - `rate` of Adam; `one`: ER's weight of the new, DER++'s alpha, SCR's temperature; `two`: DER++'s beta.
    - `views`: the baselines see random views in training (the others always do).
    - `new`, `seen`, `base`, `chance`, `sharpness`: OnPro's parts.
    - `ground`: digits as they are, on a ground whose colour tells the two classes of a task (the same two colours in
      all, "cue", or others in each, "shuffled"), or is either of two, whatever the digit ("alike"). `joint`: all classes from
      the start.
    - `tasks` of `steps` updates with `batch` new examples and `replay` of the `memory`.
    """

    method: Name = "onpro"
    memory: int = 50
    rate: float = 0.003
    one: float = 0.5
    two: float = 0.5
    views: bool = True
    new: float = 1.0
    seen: float = 1.0
    sharpness: float = 1.0
    base: float = 0.75
    chance: float = 0.6
    scale: float = 0.5
    ground: Ground = "plain"
    joint: bool = False
    tasks: int = 5
    steps: int = 80
    batch: int = 10
    replay: int = 20
    copies: int = 4
    net: Literal["mlp", "resnet"] = "mlp"
    width: int = 128
    features: int = 64
    projected: int = 32
    data: str = "mnist-5k"
    side: int = 14
    exam: int = 150
    mirrored: float = 0.0
    crop: float = 0.6


class Flat(eqx.Module):
    """Features of images by an MLP, not negative."""

    net: MLP

    def __call__(self, x: Array, *, train: bool = False) -> Array:
        return jax.nn.relu(self.net(x.reshape(len(x), -1), train=train))


class Sham(OnPro):
    """OnPro whose prototypes are of shuffled labels: as many groups, of anything."""

    def grouped(self, batch: Batch, key: PRNGKeyArray) -> Array:
        return jax.random.permutation(key, batch.y)


def method_of(config: Config) -> Method:
    view = views_of(config)
    one, two, new, seen, base, chance, sharpness, scale, nothing = (
        jnp.asarray(x, jnp.float32)
        for x in (config.one, config.two, config.new, config.seen, config.base, config.chance, config.sharpness, config.scale, 0)
    )  # fmt: skip
    contrast = {"copies": config.copies, "scale": scale}
    mixed = {"base": base, "chance": chance, "sharpness": sharpness}
    # With arrays, so that the arms without some parts are runs of one program.
    bare = {"base": nothing + 1, "chance": nothing, "sharpness": nothing}
    kinds: dict[str, Callable[[], Method]] = {
        "er": lambda: ER(one), "erace": ERACE, "der": lambda: DER(one, two),
        "gdumb": Method, "scr": lambda: TwoViews(SCR(_projections, one), view),
        "ins": lambda: OnPro(view, nothing, nothing, **bare, **contrast), "bare": lambda: OnPro(view, nothing, nothing, nothing, **bare, **contrast), "ocm": lambda: ocm(view, **contrast),
        "onpro": lambda: OnPro(view, new, seen, **mixed, **contrast), "sham": lambda: Sham(view, new, seen, **bare, **contrast),
    }  # fmt: skip
    return kinds[config.method]()


def views_of(config: Config) -> Views:
    return Views(config.mirrored, 0.25, (config.crop, 1.0))


def make_process(config: Config) -> Separation:
    data, shifted = images_of(config)
    seen = config.views and config.method in SEE
    replay = None if config.method == "gdumb" else Replay(config.memory, config.replay)
    return Separation(
        model=partial(_network, config, data.x_train.shape[1:]), data=data, stream=partial(_stream, config, data),
        method=method_of(config), replay=replay, optimiser=_adam,
        hyper={"rate": config.rate}, apply=Augmented(views_of(config)) if seen else call,
        encode=_features, shifted=shifted, seeds_by="vmap" if config.net == "mlp" else "map",
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """The ends of tasks."""
    return np.arange(config.tasks + 1) * config.steps


def _network(config: Config, shape: tuple[int, ...], key: PRNGKeyArray) -> Projected:
    one, other = jax.random.split(key)
    pixels = int(np.prod(shape))
    encoder = (
        Flat(MLP(pixels, (config.width,), config.features, norm="batch", key=one))
        if config.net == "mlp"
        else ResNet(shape[-1], config.features, width=config.width, norm="batch", key=one)
    )
    example = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    return Projected.around(encoder, example, 10, config.projected, key=other)


def _features(model: Projected, x: Array) -> Array:
    return call(model.encoder, x)


def _projections(model: Projected, x: Array) -> Array:
    return model.projection(call(model.encoder, x))


def _adam(rate: Array) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(1e-4), optax.adam(rate, b1=0.9, b2=0.99))


def _stream(config: Config, data: Dataset, key: PRNGKeyArray) -> Stream:
    sizes: dict[str, Any] = {"batch_size": config.batch}
    if config.joint or config.method == "gdumb":
        sizes |= {"tasks": 1, "steps": config.tasks * config.steps, "exam_size": config.tasks * config.exam}  # fmt: skip
    else:
        sizes |= {"tasks": config.tasks, "steps": config.steps, "exam_size": config.exam}
    # The colour of a class is that of its place in its task.
    order = None if config.ground == "plain" else range(10)
    stream = class_incremental(data.y_train, data.y_test, key=key, order=order, **sizes)
    if config.method != "gdumb":
        return stream
    rows = remembered_alone(
        jnp.asarray(data.y_train), config.memory, stream.steps, config.batch, key
    )
    return eqx.tree_at(lambda s: s.rows, stream, rows)


def images_of(config: Config) -> tuple[Dataset, Array | None]:
    """The examples, and the test inputs with the cue broken."""
    if config.ground == "plain":
        return load_scaled(config.data, side=config.side), None
    return on_ground(config.data, config.side, config.ground)


@functools.lru_cache(maxsize=2)
def on_ground(name: str, side: int, ground: Ground) -> tuple[Dataset, Array]:
    images = load(name)

    def painted(x: np.ndarray, y: np.ndarray, seed: int, chance: float) -> Array:
        coin = np.random.default_rng(seed).integers(0, 2, len(y))
        cue = {"cue": y % 2, "shuffled": SHUFFLED[y], "alike": coin}[ground]
        colour = coloured(x, cue, seed=seed, probability=chance).astype(np.float32) / 255
        block = x.shape[1] // side
        blocks = colour.reshape(len(x), side, block, side, block, 3)
        return jnp.asarray(blocks.mean(axis=(2, 4)))

    y_train, y_test = (jnp.asarray(y, jnp.int32) for y in (images.y_train, images.y_test))
    train = painted(images.x_train, images.y_train, 1, 1.0)
    test = painted(images.x_test, images.y_test, 2, 1.0)
    return Dataset(train, y_train, test, y_test), painted(images.x_test, images.y_test, 3, 0.0)


# What won on seeds 100 and 101 (benchmarks/onpro_tuning.py).
TUNED: dict[str, dict[str, Any]] = tuned_beside(__file__)
BASELINES: dict[str, str] = {"er": "ER", "erace": "ER-ACE", "der": "DER++", "scr": "SCR", "gdumb": "GDumb", "ins": "ER + instance contrast", "ocm": "OCM"}  # fmt: skip


def tuned(method: Name, **more: Any) -> Config:
    """A method with what tuning found; parts of OnPro and its sham with OnPro's."""
    cell = "onpro" if method == "sham" else "joint" if more.get("joint") else method
    found = {k: v for k, v in TUNED.get(cell, {}).items() if k != "views" or method in SEE}  # fmt: skip
    return replace(Config(method), **found | more)


UNMIXED: dict[str, float] = {"base": 1.0, "chance": 0.0}
ARMS: dict[str, Config] = {
    **{name: tuned(name) for name in (*BASELINES, "onpro")},  # pyright: ignore
    "ope": tuned("onpro", **UNMIXED), "apf": tuned("onpro", new=0.0, seen=0.0),
    "no-new": tuned("onpro", new=0.0), "no-seen": tuned("onpro", seen=0.0),
    "uniform": tuned("onpro", sharpness=0.0), "sham": tuned("sham"),
    **{f"{name}-200": tuned(name, memory=200) for name in ("er", "scr", "ins", "onpro")},  # pyright: ignore
    "joint": tuned("er", joint=True), "untrained": tuned("er", rate=0.0),
    **{f"cue/{name}": tuned(name, ground="cue") for name in ("er", "ins", "ocm", "onpro")},  # pyright: ignore
    "alike/er": tuned("er", ground="alike"), "bare": replace(tuned("ins"), method="bare"),
    # What is owed to the settings: the floor at OnPro's, ER at the rate of ER-ACE, DER++ and the floor.
    "ins-same": replace(tuned("onpro"), method="ins"), "cue/ins-same": replace(tuned("onpro", ground="cue"), method="ins"),
    "er-slow": tuned("er", rate=TUNED["ins"]["rate"]), "ins-same-200": replace(tuned("onpro", memory=200), method="ins"),
    "cue/er-views": replace(tuned("er", ground="cue"), views=True),  # grey ones among them
    **{f"shuffled/{name}": tuned(name, ground="shuffled") for name in ("er", "onpro")},  # pyright: ignore
    "shuffled/ins-same": replace(tuned("onpro", ground="shuffled"), method="ins"),
}  # fmt: skip


def _since_best(trace: xr.Dataset) -> xr.DataArray:
    return metrics.forgetting(trace, since="best")


accuracy = percent("average accuracy", metrics.average_accuracy)
forgotten = percent("forgetting", _since_best)
when_learned = percent("accuracy on a task when it is over", metrics.accuracy_when_learned)
dropped = accuracy - separated.shifted


def over(arm: str, other: str, of: Measure = accuracy) -> Effect:
    return of[arm] - of[other]


over_best = accuracy["onpro"] - chosen(accuracy[b] for b in ("er", "erace", "der", "scr", "ins"))
POINTS = "percentage points"
SUPERIOR = "the superior performance of OnPro over the state-of-the-art baseline methods"
REPRESENTATIVE = "online prototype equilibrium to learn representative features against shortcut learning and discriminative features to avoid class confusion"  # fmt: skip
SEPARATES = "an equilibrium status that separates all seen classes well while learning new classes"
SENSES = "to sense the classes that are easily misclassified and then enhance their boundaries"
LIMITING = "shortcut learning as the key limiting factor for online CL, where the learned features may be biased"
GENERALISE, TEACHES = (
    "not generalizable to new tasks",
    "may have an adverse impact on knowledge distillation",
)
LEARNS = Need(
    when_learned["onpro"], "> 60", "one pass over 800 images does not teach OnPro a new task"
)
SHORTCUT = Need(dropped["cue/er"], "> 5", "ER does not lean on the cue, so there is no shortcut to be kept from")  # fmt: skip
SHUFFLED_SHORTCUT = Need(dropped["shuffled/er"], "> 5", "ER does not lean on the shuffled cue, so there is no shortcut to be kept from")  # fmt: skip
later = partial(Claim, added="after results")
CLAIMS = (
    Claim("C1.er", "OnPro is more than 3 points above tuned ER, memory of 50", SUPERIOR, over("onpro", "er"), "> 3", POINTS,
          null=over("ins", "er"), needs=(LEARNS,)),
    Claim("C1.floor", "And above ER with the instance contrast that it builds on", SUPERIOR, over("onpro", "ins"), "> 0", POINTS,
          null=over("sham", "ins"), needs=(LEARNS,)),
    Claim("C1.best", "And above the best of ER, ER-ACE, DER++, SCR and ER with the instance contrast, chosen on the other seeds",
          SUPERIOR, over_best, "> 0", POINTS, needs=(LEARNS,)),
    thorough("C1.er-200", "More than 3 points above tuned ER, memory of 200", SUPERIOR, over("onpro-200", "er-200"), "> 3", POINTS,
          null=over("ins-200", "er-200"), needs=(LEARNS,)),
    thorough("C1.floor-200", "And above ER with the instance contrast", SUPERIOR, over("onpro-200", "ins-200"), "> 0", POINTS,
             null=over("ins-same-200", "ins-200"), needs=(LEARNS,)),
    thorough("C1.ocm", "And above OCM, with its distillation", SUPERIOR, over("onpro", "ocm"), "> 0", POINTS, needs=(LEARNS,)),
    thorough("C2", "The margin over the instance contrast is larger with a memory of 50 than of 200", "(largest at small memories)",
             over("onpro", "ins") - over("onpro-200", "ins-200"), "> 0", POINTS,
             null=over("ins-same", "ins") - over("ins-same-200", "ins-200"), needs=(LEARNS,)),
    Claim("C3.ope", "Prototype equilibrium alone adds accuracy to the instance contrast", REPRESENTATIVE, over("ope", "ins"), "> 0", POINTS,
          null=over("sham", "ins")),
    Claim("C3.apf", "Prototypical feedback adds to it", SENSES, over("onpro", "ope"), "> 0", POINTS, null=over("uniform", "ope")),
    thorough("C3.apf-alone", "Prototypical feedback alone adds accuracy to the instance contrast", SENSES, over("apf", "ins"), "> 0", POINTS,
             null=over("ins-same", "ins")),
    thorough("C3.new", "The prototypes of the new batch are needed", "(ablation: L_new)", over("onpro", "no-new"), "> 0", POINTS),
    thorough("C3.seen", "So are those of the replayed one", "(ablation: L_seen)", over("onpro", "no-seen"), "> 0", POINTS),
    Claim("C3.adaptive", "Pairs drawn by their distance beat pairs drawn alike", SENSES, over("onpro", "uniform"), "> 0", POINTS),
    thorough("C4", "OnPro forgets less than ER with the instance contrast", "(lower forgetting)", over("onpro", "ins", forgotten), "< 0", POINTS,
             null=over("sham", "ins", forgotten)),
    thorough("C4.er", "And less than ER", "(lower forgetting)", over("onpro", "er", forgotten), "< 0", POINTS, null=over("ins", "er", forgotten)),
    thorough("C4.new", "It knows tasks as well as ER when they are over", SEPARATES, over("onpro", "er", when_learned), "> -1", POINTS,
             null=over("ins", "er", when_learned)),
    Claim("S.separated", "Prototype equilibrium sets the mean features of classes further apart", SEPARATES, over("ope", "ins", separated.distance), "> 0",
          "distance", null=over("sham", "ins", separated.distance)),
    Claim("M.senses", "Classes whose mean features are close are those that are confused", SENSES, separated.senses["onpro"], "> 0.3", "Spearman",
          null=separated.senses_of_others["onpro"]),
    later("M.own", "Their nearness tells it better than that of an untrained network's features does", SENSES,
          separated.senses["onpro"] - separated.senses_by("untrained", "onpro"), "> 0", "Spearman"),
    later("M.online", "Classes whose online prototypes are close, as feedback has them, are those that are confused", SENSES, separated.online["onpro"], "> 0.3",
          "Spearman", null=separated.online_of_others["onpro"]),
    later("M.moved", "Distances move more than a tenth of the pairs that are drawn", SENSES, separated.moved["onpro"], "> 0.1", "share",
          null=separated.moved["uniform"]),
    Claim("M.even", "Chances of pairs are uneven: their entropy is below 95 % of the highest", SENSES, separated.evenness["onpro"], "< 0.95", "share", null=1.0),
    Claim("M.boundaries", "Feedback by distance leaves less confusion between the closest pairs than pairs drawn alike", SENSES,
          over("onpro", "uniform", separated.closest), "< 0", POINTS),
    Claim("K.drop", "Where colour tells the classes of a task, ER loses more than 5 points without it", LIMITING, dropped["cue/er"], "> 5", POINTS,
          null=dropped["alike/er"]),
    Claim("K.less", "OnPro loses less than ER", REPRESENTATIVE, over("cue/onpro", "cue/er", dropped), "< 0", POINTS,
          null=over("cue/ins", "cue/er", dropped), needs=(SHORTCUT,)),
    Claim("K.floor", "And less than the instance contrast", REPRESENTATIVE, over("cue/onpro", "cue/ins", dropped), "< 0", POINTS, needs=(SHORTCUT,)),
    Claim("K.broken", "Without the cue it is above the instance contrast", REPRESENTATIVE, over("cue/onpro", "cue/ins", separated.shifted), "> 0", POINTS,
          needs=(SHORTCUT,)),
    Claim("K.unseen", "A linear probe of its features tells classes not seen so far better than one of ER's", GENERALISE, over("onpro", "er", separated.unseen), "> 0", POINTS,
          null=over("ins", "er", separated.unseen)),
    Claim("K.biased", "One of ER's features, than one of an untrained network's, does worse", GENERALISE, over("er", "untrained", separated.unseen), "< 0", POINTS),
    thorough("K.unseen-floor", "One of its features does better than one of the instance contrast's", GENERALISE, over("onpro", "ins", separated.unseen), "> 0", POINTS,
             null=over("sham", "ins", separated.unseen)),
    thorough("K.distilled", "Distillation adds less where there is a shortcut", TEACHES, over("ocm", "ins") - over("cue/ocm", "cue/ins", separated.shifted), "> 0", POINTS,
             null=over("ins-same", "ins") - over("cue/ins-same", "cue/ins", separated.shifted), needs=(SHORTCUT,)),
    thorough("U.joint", "Training on all classes from the start, in as many updates, is above OnPro", "(upper bound)", over("joint", "onpro"), "> 0", POINTS),
    later("C1.same", "OnPro is above the instance contrast at OnPro's own rate and scale", SUPERIOR, over("onpro", "ins-same"), "> 0", POINTS,
          null=over("sham", "ins-same"), needs=(LEARNS,)),
    later("C1.scr", "And above SCR", SUPERIOR, over("onpro", "scr"), "> 0", POINTS, null=over("ins", "scr"), needs=(LEARNS,)),
    thorough("C1.scr-200", "And above SCR, memory of 200", SUPERIOR, over("onpro-200", "scr-200"), "> 0", POINTS, null=over("ins-200", "scr-200"),
             needs=(LEARNS,), added="after results"),
    thorough("C2.er", "The margin over tuned ER is larger with a memory of 50 than of 200", "(largest at small memories)",
             over("onpro", "er") - over("onpro-200", "er-200"), "> 0", POINTS, null=over("ins", "er") - over("ins-200", "er-200"),
             needs=(LEARNS,), added="after results"),
    later("C1.der", "And above DER++", SUPERIOR, over("onpro", "der"), "> 0", POINTS, null=over("ins", "der"), needs=(LEARNS,)),
    later("C1.gdumb", "And above GDumb, which is trained on a balanced memory alone", SUPERIOR, over("onpro", "gdumb"), "> 0", POINTS,
          null=over("ins", "gdumb"), needs=(LEARNS,)),
    later("F.floor", "ER with the instance contrast, on which OnPro stands, is above tuned ER, as OCM is in the paper", "(OCM above ER)",
          over("ins", "er"), "> 0", POINTS),
    later("C3.ope-same", "Prototype equilibrium alone adds accuracy to the instance contrast at the same rate and scale", REPRESENTATIVE,
          over("ope", "ins-same"), "> 0", POINTS, null=over("sham", "ins-same")),
    later("F.contrast", "That contrast adds accuracy to cross-entropy on the same views, at the same rate", "(OCM above ER)", over("ins", "bare"), "> 0", POINTS),
    later("K.contrast", "A probe of its features does better than one of that cross-entropy's", GENERALISE, over("ins", "bare", separated.unseen), "> 0", POINTS),
    later("S.labels", "Prototypes of the classes set their mean features further apart than those of shuffled labels, all else alike", SEPARATES,
          over("ope", "sham", separated.distance), "> 0", "distance"),
    later("S.separated-same", "And sets the mean features of classes further apart, at the same rate and scale", SEPARATES,
          over("ope", "ins-same", separated.distance), "> 0", "distance", null=over("sham", "ins-same", separated.distance)),
    later("C3.apf-alone-same", "Prototypical feedback alone adds accuracy to the instance contrast at the same rate and scale", SENSES,
          over("apf", "ins-same"), "> 0", POINTS, budget="thorough"),
    later("K.unseen-floor-same", "A probe of its features does better than one of the instance contrast's at the same rate and scale", GENERALISE,
          over("onpro", "ins-same", separated.unseen), "> 0", POINTS, null=over("sham", "ins-same", separated.unseen)),
    later("K.floor-same", "OnPro loses less without the cue than the instance contrast at the same rate and scale", REPRESENTATIVE,
          over("cue/onpro", "cue/ins-same", dropped), "< 0", POINTS, needs=(SHORTCUT,)),
    later("K.broken-same", "Without the cue it is above the instance contrast at the same rate and scale", REPRESENTATIVE,
          over("cue/onpro", "cue/ins-same", separated.shifted), "> 0", POINTS, needs=(SHORTCUT,)),
    later("K.biased-slow", "A probe of ER's features, than one of an untrained network's, does worse at a tenth of ER's rate, too", GENERALISE,
          over("er-slow", "untrained", separated.unseen), "< 0", POINTS),
    later("K.unseen-slow", "One of OnPro's tells classes not seen so far better than one of that ER's", GENERALISE, over("onpro", "er-slow", separated.unseen),
          "> 0", POINTS, null=over("ins", "er-slow", separated.unseen)),
    thorough("C1.same-200", "OnPro is above the instance contrast at the same rate and scale, memory of 200", SUPERIOR,
             over("onpro-200", "ins-same-200"), "> 0", POINTS, needs=(LEARNS,), added="after results"),
    later("C2.same", "The margin over the instance contrast at the same rate and scale is larger with a memory of 50 than of 200",
          "(largest at small memories)", over("onpro", "ins-same") - over("onpro-200", "ins-same-200"), "> 0", POINTS, needs=(LEARNS,), budget="thorough"),
    later("K.less-views", "OnPro loses less than ER that sees random views, too, a quarter of them grey", REPRESENTATIVE,
          over("cue/onpro", "cue/er-views", dropped), "< 0", POINTS, null=over("cue/ins-same", "cue/er-views", dropped), needs=(SHORTCUT,), budget="thorough"),
    later("K.views", "ER that sees random views loses less without the cue than ER that does not", "(a quarter of the views are grey)",
          over("cue/er-views", "cue/er", dropped), "< 0", POINTS, needs=(SHORTCUT,), budget="thorough"),
    later("K.views-broken", "And its accuracy without the cue is higher", "(a quarter of the views are grey)",
          over("cue/er-views", "cue/er", separated.shifted), "> 0", POINTS, needs=(SHORTCUT,), budget="thorough"),
    later("K.drop-shuffled", "Where colours tell the classes of a task, but other ones in each, ER loses more than 5 points without them", LIMITING,
          dropped["shuffled/er"], "> 5", POINTS, null=dropped["alike/er"], budget="thorough"),
    later("K.less-shuffled", "There OnPro loses less than ER", REPRESENTATIVE, over("shuffled/onpro", "shuffled/er", dropped), "< 0", POINTS,
          null=over("shuffled/ins-same", "shuffled/er", dropped), needs=(SHUFFLED_SHORTCUT,), budget="thorough"),
    later("K.floor-shuffled", "And less than the instance contrast at the same rate and scale", REPRESENTATIVE,
          over("shuffled/onpro", "shuffled/ins-same", dropped), "< 0", POINTS, needs=(SHUFFLED_SHORTCUT,), budget="thorough"),
    later("K.broken-shuffled", "Without those colours it is above the instance contrast at the same rate and scale", REPRESENTATIVE,
          over("shuffled/onpro", "shuffled/ins-same", separated.shifted), "> 0", POINTS, needs=(SHUFFLED_SHORTCUT,), budget="thorough"),
    later("C4.same", "OnPro forgets less than the instance contrast at the same rate and scale", "(lower forgetting)",
          over("onpro", "ins-same", forgotten), "< 0", POINTS, null=over("sham", "ins-same", forgotten), budget="thorough"),
)  # fmt: skip

NAMES = {**BASELINES, "onpro": "OnPro", "joint": "all classes at once"}
PROBED = {
    "untrained": "untrained",
    "er": "ER",
    "er-slow": "ER at a lower rate",
    "bare": "the same views, no contrast",
    "ins": NAMES["ins"],
    "ins-same": "the same, OnPro's settings",
    **{a: NAMES[a] for a in ("ocm", "onpro")},
}
# Coloured grounds: the arms that are drawn.
LEANING = {"er": "ER", "er-views": "ER with random views", **{a: PROBED[a] for a in ("ins", "ins-same", "ocm", "onpro")}}  # fmt: skip
PARTS = {"ins": "instance contrast, its own settings", "ins-same": "instance contrast, OnPro's settings", "sham": "+ prototypes, labels shuffled", "ope": "+ prototypes alone", "apf": "+ feedback alone",
         "no-new": "both, replayed prototypes", "no-seen": "both, new prototypes", "uniform": "both, pairs alike", "onpro": "both: OnPro"}  # fmt: skip


@pictures.by_hand(2, 2, width=8.5, height=3.6)
def draw_confusable(traces: Traces, *axes: Axes) -> None:
    trace = traces["onpro"].isel(seed=0)
    order = list(dict.fromkeys(np.argsort(_arrival(trace), kind="stable").tolist()))
    for ax, name, title in zip(axes, ("apart", "confusion"), ("distance of mean features", "told as, in %"), strict=True):  # fmt: skip
        table = trace[name].isel(step=-1).values.astype(float)[np.ix_(order, order)]
        if name == "confusion":
            table = 100 * table
        np.fill_diagonal(table, np.nan)
        image = ax.imshow(table, cmap="cividis" if name == "confusion" else "cividis_r")
        ax.set(xticks=range(len(order)), yticks=range(len(order)), xticklabels=order, yticklabels=order,
               title=title, xlabel="digit, in order of arrival", ylabel="digit" if name == "apart" else "true digit")  # fmt: skip
        ax.figure.colorbar(image, ax=ax, shrink=0.8)


def _arrival(trace: xr.Dataset) -> np.ndarray:
    """After how many observations each class is first known."""
    known = np.isfinite(np.diagonal(trace.confusion.values, axis1=1, axis2=2))
    return known.argmax(axis=0)


@pictures.by_hand(3, 3, width=9.5, height=3.3)
def draw_over_time(traces: Traces, *axes: Axes) -> None:
    trace = traces["onpro"].isel(seed=0)
    order = np.argsort(_arrival(trace), kind="stable")
    steps = [2, len(trace.step) // 2 + 1, len(trace.step) - 1]
    for ax, step in zip(axes, steps, strict=True):
        table = trace.apart.isel(step=step).values.astype(float)[np.ix_(order, order)]
        np.fill_diagonal(table, np.nan)
        image = ax.imshow(table, cmap="cividis_r", vmin=0, vmax=0.8)
        ax.set(xticks=range(len(order)), yticks=range(len(order)), xticklabels=order, yticklabels=order,
               title=f"after {step} tasks", xlabel="digit, in order of arrival", ylabel="digit" if ax is axes[0] else "")  # fmt: skip
    axes[-1].figure.colorbar(image, ax=list(axes), shrink=0.8, label="distance")


LEVEL = "accuracy after the last task in %"
SMOKE = {"data": "digits", "side": 8, "steps": 5, "batch": 6, "replay": 6, "memory": 20, "width": 8, "features": 8, "projected": 4, "exam": 10}  # fmt: skip
FULL = {"data": "fashion-mnist", "side": 28, "steps": 1200, "replay": 64, "copies": 16, "net": "resnet", "width": 32, "features": 512,
        "projected": 128, "exam": 1000, "mirrored": 0.5, "crop": 0.3, "memory": 100}  # fmt: skip
study = Study(
    paper=Paper(
        "onpro", "Online Prototype Learning for Online Continual Learning",
        "Yujie Wei, Jiaxin Ye, Zhizhong Huang, Junping Zhang, Hongming Shan", "ICCV", 2023, "2308.00301", "weilllllls/OnPro",
    ),
    family="forgetting",
    question="Do prototypes of the classes, learned online, keep a single-pass learner from features that serve the present classes alone?",
    symptoms=(
        "online continual learning, every example is seen once",
        "a small replay buffer is not enough against forgetting",
        "shortcut features fail when further classes arrive",
        "which classes of a stream are confused, and should be mixed in replay",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("er", "scr", "ocm", "onpro", "sham"), SMOKE),
        "quick": Budget(10),
        "thorough": Budget(10),
        "full": Budget(5, settings=FULL, arm_settings={a: {"memory": 500} for a in ARMS if a.endswith("-200")}),
    },
    claims=CLAIMS,
    figures=(
        Figure("methods", "One pass over five tasks of two digits: dots are seeds, bars means. \"All classes at once\" has them "
               "from the start, and nothing to forget.",
               pictures.dots({LEVEL: {name: accuracy[arm] for arm, name in NAMES.items()},
                              "forgetting in points": {name: forgotten[arm] for arm, name in NAMES.items() if arm not in ("joint", "gdumb")}}), ("onpro",)),
        Figure("parts", "What each part of OnPro adds to ER with the instance contrast, memory of 50; all but the first have OnPro's rate and scale.",
               pictures.dots({LEVEL: {name: accuracy[arm] for arm, name in PARTS.items()},
                              "mean distance of classes": {name: separated.distance[arm] for arm, name in PARTS.items()}}), ("ope",)),
        Figure("cue", "Digits on a ground whose colour tells the two classes of a task: exams on such grounds, and on grounds of any "
               "colour. Right: a linear probe on the classes that have not come yet (plain digits); "
               "the lower rate of ER is that of the instance contrast.",
               pictures.dots({"cue intact: accuracy in %": {name: accuracy[f"cue/{a}"] for a, name in LEANING.items()},
                              "cue broken: accuracy in %": {name: separated.shifted[f"cue/{a}"] for a, name in LEANING.items()},
                              "unseen classes: probe in %": {PROBED[a]: separated.unseen[a] for a in PROBED}}), ("cue/er",)),
        Figure("confusable", "OnPro, one seed, after the last task: distances of the mean features of classes (yellow is close), and what they are told as.",
               draw_confusable, ("onpro",)),
        Figure("over-time", "The distances of the classes known so far, as tasks come: yellow is close.", draw_over_time, ("onpro",)),
    ),
    data="MNIST-5k, 14 x 14, two classes a task; the same on coloured grounds",
    notes="One pass over 4,000 digits in five tasks of two classes, batches of 10 new and up to 20 replayed images, a memory of 50 or 200, "
    "an MLP of 128 units with batch normalisation to 64 features, four whole turns. Views are crops of 60 to 100 % of the image, "
    "not mirrored, as digits have a side. Rates and weights are the best on two other seeds. Paper: CIFAR and Tiny ImageNet, a ResNet-18, "
    "1,000 updates a task and more, 16 turned copies. Full: Fashion-MNIST at 28 x 28, 1,200 updates a task, a residual network, 16 copies.",
    watch="accuracy",
)  # fmt: skip
