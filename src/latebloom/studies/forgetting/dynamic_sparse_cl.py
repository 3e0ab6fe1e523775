"""Continual learning with dynamic sparse training: which sparsity by layer, which growth, for each task.

Yildirim, Gok Yildirim, Sokar, Mocanu, Vanschoren (CPAL 2024, arXiv 2308.14831).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.dataset import Dataset
from latebloom.core.stream import Stream, class_incremental, domain_incremental
from latebloom.core.views import Permutation
from latebloom.data import load_scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.measures import Effect, Measure, Traces, effect, highest, lowest, mean, measure
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.continual import Continual
from latebloom.methods.forgetting.interaction import gain_of_choice, permutation_p
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.penalties import EWC
from latebloom.methods.forgetting.subnetwork_rivals import (
    GradualPruning,
    LookingAhead,
    PackNet,
    SeparateNetworks,
)
from latebloom.methods.forgetting.subnetworks import Subnetworks
from latebloom.methods.forgetting.topology import Topology, stepped_adam
from latebloom.nn import MLP, ConvNet

Init = Literal["uniform", "erk", "adaptive"]
Growth = Literal["random", "unfired", "gradient", "momentum", "bandit"]


@dataclass(frozen=True)
class Config:
    """- `kind`: sub-networks of one network ("sparse"; "ahead": examined on tasks to come as well), by gradual pruning
      ("gmp"), separate sparse networks, PackNet, or one dense network with a head for each task ("dense", "ewc").
    - `percent` of the weights in each mask; what follows, down to `own_head`, as in `Topology`; `own_head`:
      the readout has no mask, and each task keeps its own.
    - `steps` of each of the `tasks`, `updates` of the topology in each; the rate falls to a tenth after
      half of a task's steps and again after three quarters.
    - `data`: "glyphs-100" in tasks of new classes; "mnist-5k" permuted.
    """

    kind: Literal["sparse", "ahead", "separate", "packnet", "gmp", "dense", "ewc"] = "sparse"
    percent: float = 20
    init: Init = "uniform"
    growth: Growth = "random"
    prune: Literal["magnitude", "set", "taylor"] = "magnitude"
    drop: float = 0.5
    refill: float = 0.0
    isolate: bool = True
    own_biases: bool = True
    keep: Literal["last", "best"] = "last"
    own_head: bool = False
    rate: float = 0.01
    strength: float = 1.0
    tasks: int = 10
    classes: int = 10
    steps: int = 320
    batch: int = 16
    updates: int = 20
    data: str = "glyphs-100"
    side: int = 14
    network: Literal["mlp", "conv"] = "mlp"
    widths: tuple[int, ...] = (200, 100)
    exam: int = 300


class Tasks(eqx.Module):
    """New classes with each task, or the same images permuted."""

    config: Config = eqx.field(static=True)  # of the sizes alone, so that arms share programs

    def __call__(self, key: PRNGKeyArray) -> Stream:
        config, data = self.config, data_of(self.config)
        sizes: dict[str, Any] = {
            "steps": config.steps, "batch_size": config.batch, "exam_size": config.exam, "tasks": config.tasks,
        }  # fmt: skip
        if config.data.startswith("glyphs"):
            return class_incremental(data.y_train, data.y_test, key=key, **sizes)
        own, view = jax.random.split(key)
        stream = domain_incremental(data.y_train, data.y_test, key=own, **sizes)
        orders = Permutation.drawn(config.tasks, data.x_train[0].size, key=view)
        return eqx.tree_at(lambda s: s.view, stream, orders)


def data_of(config: Config) -> Dataset:
    count = config.tasks * config.classes if config.data.startswith("glyphs") else 10
    return _first_classes(config.data, config.side, config.network == "mlp", count)


@functools.cache
def _first_classes(name: str, side: int, flat: bool, count: int) -> Dataset:
    data = load_scaled(name, side=side, flat=flat)
    train, test = (np.flatnonzero(np.asarray(y) < count) for y in (data.y_train, data.y_test))
    return Dataset(data.x_train[train], data.y_train[train], data.x_test[test], data.y_test[test])


def _network(pixels: int, widths: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Any:
    """A multilayer perceptron, or without pixels a convolutional network."""
    return MLP(pixels, widths, outputs, key=key) if pixels else ConvNet(24, outputs, key=key)


def make_process(config: Config) -> Continual:
    data = data_of(config)
    sizes = Config(**{k: getattr(config, k) for k in ("tasks", "classes", "steps", "batch", "data", "side", "network", "exam")})  # fmt: skip
    outputs = config.tasks * config.classes if config.data.startswith("glyphs") else 10
    conv = config.network == "conv"
    common: dict[str, Any] = {
        "model": partial(_network, 0 if conv else data.x_train[0].size, config.widths, outputs),
        "data": data, "stream": Tasks(sizes), "optimiser": partial(stepped_adam, steps=config.steps),
        "hyper": {"rate": config.rate}, "seeds_by": "map" if conv else "vmap",
    }  # fmt: skip
    if config.kind in ("dense", "ewc"):
        ewc = EWC(config.strength, batches=min(20, config.steps)) if config.kind == "ewc" else None
        return Continual(method=ewc or Method(), head="task", fresh=True, **common)
    readout = "readout" if conv else f"layers[{len(config.widths)}]"
    topology = Topology(
        config.percent / 100, config.init, config.growth, drop=config.drop, refill=config.refill,
        isolate=config.isolate, own_biases=config.own_biases, updates=config.updates, prune=config.prune,
        keep=config.keep, ignore=(readout,) if config.own_head else (),
    )  # fmt: skip
    kinds = {"sparse": Subnetworks, "ahead": LookingAhead, "separate": SeparateNetworks, "packnet": PackNet, "gmp": GradualPruning}  # fmt: skip
    return kinds[config.kind](topology=topology, **common)


def schedule(config: Config) -> np.ndarray:
    """The end of each task."""
    return config.steps * np.arange(config.tasks + 1)


# What won on seeds 100 and 101 (benchmarks/dynamic_sparse_cl_tuning.py): rates by density, shared by all that
# is compared there, and the best of the fixed rules.
TUNED: dict[str, dict[str, Any]] = tuned_beside(__file__)
PERCENTS, INITS, GROWTHS = (20, 10, 3), ("uniform", "erk"), ("random", "unfired", "gradient", "momentum")  # fmt: skip


def tuned(name: str, **more: Any) -> Config:
    """A config with the settings that tuning found for `name`, or else for its density."""
    known = {k: v for k, v in TUNED.get(name, TUNED[str(more.get("percent", 20))]).items()}
    return Config(**{**known, **more})


def sparse(percent: int, init: Any, growth: Any, **more: Any) -> Config:
    return tuned(str(percent), percent=percent, init=init, growth=growth, **more)


MNIST: dict[str, Any] = {"data": "mnist-5k"}
CONV: dict[str, Any] = {"network": "conv", "tasks": 5, "steps": 320, "updates": 20}
ARMS: dict[str, Config] = {
    **{f"{p}/{i}/{g}": sparse(p, i, g) for p in PERCENTS for i in INITS for g in GROWTHS},
    **{f"{p}/{i}/static": tuned(f"static-{p}", percent=p, init=i, drop=0.0) for p in PERCENTS for i in INITS},
    **{f"{p}/{i}/bandit": sparse(p, i, "bandit") for p in PERCENTS for i in INITS},
    **{f"{p}/adaptive/{g}": sparse(p, "adaptive", g) for p in (20, 10) for g in ("random", "gradient")},
    "shared-biases": sparse(20, "uniform", "gradient", own_biases=False),
    "not-frozen": sparse(20, "uniform", "gradient", isolate=False),
    **{f"refilled/{p}/{i}/gradient": sparse(p, i, "gradient", refill=1.0) for p in PERCENTS for i in INITS},
    **{f"refilled/{p}/{i}/static": tuned(f"static-{p}", percent=p, init=i, drop=0.0, refill=1.0) for p in PERCENTS for i in INITS},
    **{f"prune-{r}": sparse(20, "uniform", "gradient", prune=r) for r in ("set", "taylor")},
    "keep-best": sparse(20, "uniform", "gradient", keep="best"),
    **{f"own-head/{p}/{i}": sparse(p, i, "gradient", own_head=True) for p in (20, 10) for i in INITS},
    **{f"mnist/{p}/{i}": tuned("mnist", percent=p, init=i, growth="gradient", **MNIST) for p in (20, 3) for i in INITS},
    **{f"conv/{p}/{i}": tuned("conv", percent=p, init=i, growth="gradient", **CONV) for p in (20, 10) for i in INITS},
    **{f"separate-{p}": tuned(f"separate-{p}", kind="separate", percent=p, growth="gradient") for p in PERCENTS},
    "ahead": sparse(20, "uniform", "gradient", kind="ahead"),
    "ahead-mnist": tuned("mnist", kind="ahead", growth="gradient", **MNIST),
    **{f"gmp-{p}": tuned(f"gmp-{p}", kind="gmp", percent=p) for p in PERCENTS},
    "packnet": tuned("packnet", kind="packnet"),
    "dense": tuned("dense", kind="dense"),
    "ewc": tuned("ewc", kind="ewc"),
}  # fmt: skip


@measure("final accuracy over all tasks")
def accuracy(trace: xr.Dataset) -> np.ndarray:
    return 100 * metrics.per_seed(metrics.average_accuracy)(trace)


@measure("largest change of a task's accuracy since it was over")
def changed(trace: xr.Dataset) -> np.ndarray:
    return 100 * abs(metrics.forgetting(trace).values[:, :-1]).max(axis=1)


@measure("mean loss since a task was over")
def forgotten(trace: xr.Dataset) -> np.ndarray:
    return 100 * metrics.per_seed(metrics.forgetting)(trace)


@measure("accuracy on tasks after the first when each is over")
def learned(trace: xr.Dataset) -> np.ndarray:
    each = metrics.accuracy_matrix(trace).values.diagonal(axis1=1, axis2=2)
    return 100 * each[:, 1:].mean(axis=1)


CHANCE = 10.0  # per cent, in tasks of ten classes


@measure("distance from chance of the accuracy on tasks to come, over tasks learned")
def from_chance(trace: xr.Dataset) -> np.ndarray:
    ahead = 100 * trace.ahead.transpose("seed", "step", "task").values[:, 1:-1]
    return abs(np.nanmean(ahead, axis=2).mean(axis=1) - CHANCE)


@measure("free weights below the readout at the end, mean over layers")
def backbone_free(trace: xr.Dataset) -> np.ndarray:
    return 100 * trace.free.isel(step=-1).transpose("seed", "layer").values[:, :-1].mean(axis=1)


def last_layer(name: str) -> Measure:
    """A layer's share at the end, of the readout, in per cent."""
    return Measure(f"final {name} of the readout", lambda t: 100 * t[name].isel(step=-1, layer=-1).values)  # fmt: skip


def over_growths(percent: int, init: str, kind: str = "") -> Effect:
    return mean(accuracy[f"{kind}{percent}/{init}/{g}"] for g in GROWTHS)


def erk_gain(percent: int, kind: str = "", growths: Iterable[str] = GROWTHS) -> Effect:
    """ERK less uniform, over growth rules."""
    pairs = [accuracy[f"{kind}{percent}/erk{g}"] - accuracy[f"{kind}{percent}/uniform{g}"]
             for g in (f"/{g}" if g else "" for g in growths)]  # fmt: skip
    return mean(pairs)


def spread(percent: int, init: str) -> Effect:
    """Best less worst of the growth rules."""
    found = [accuracy[f"{percent}/{init}/{g}"] for g in GROWTHS]
    return highest(found) - lowest(found)


CELLS = [(p, i) for p in PERCENTS for i in INITS]
GRID = [f"{p}/{i}/{g}" for p, i in CELLS for g in GROWTHS]


def table(traces: Traces) -> np.ndarray:
    """Accuracies [seed, condition, growth]."""
    found = np.stack([accuracy(traces[arm]) for arm in GRID], axis=1)
    return found.reshape(len(found), len(CELLS), len(GROWTHS))


@effect("p of the interaction of growth with initialisation and sparsity, by permutation", *GRID)
def interaction(traces: Traces) -> np.ndarray:
    values = table(traces)
    return np.full(len(values), permutation_p(values, seed=0))


@effect("the same with the rules' names shuffled once in each condition of each seed", *GRID)
def no_interaction(traces: Traces) -> np.ndarray:
    values = np.random.default_rng(1).permuted(table(traces), axis=2)
    return np.full(len(values), permutation_p(values, seed=0))


@effect("gain of a rule for each condition over one for all, both chosen on the other seeds", *GRID)
def choosing(traces: Traces) -> np.ndarray:
    return gain_of_choice(table(traces))


def fixed_best(percent: int, init: str) -> Effect:
    """The fixed rule that was best on the seeds of tuning."""
    best: Mapping[str, str] = TUNED["best"]
    return accuracy[f"{percent}/{init}/{best.get(f'{percent}/{init}', 'gradient')}"]


def dynamic(percent: int) -> Effect:
    """All dynamic arms less the static ones."""
    return mean(over_growths(percent, i) for i in INITS) - mean(accuracy[f"{percent}/{i}/static"] for i in INITS)  # fmt: skip


def against(anchor: str, percent: int = 20) -> Effect:
    """The best fixed pair of initialisation and growth at a density, as tuning chose it, less an anchor."""
    return (
        accuracy[f"{percent}/{TUNED['best'].get(str(percent), 'uniform/gradient')}"]
        - accuracy[anchor]
    )


POINTS, P = "percentage points", "p"
ERK_LOW = "at a low sparsity level, Erdős-Rényi Kernel initialization utilizes the backbone more efficiently and allows to effectively learn increments of tasks"
UNIFORM_HIGH = "at a high sparsity level, unless it is extreme, uniform initialization demonstrates more reliable and robust performance"
GROWTH = "the performance of growth strategy is dependent on the defined initialization strategy and the extent of sparsity"
ADAPT = "adaptivity within DST components is a promising way for better continual learners"
ABOVE = Need(
    mean(accuracy[f"10/{i}/gradient"] for i in INITS),
    "> 20",
    "the sub-networks learned no more than chance",
)
CLAIMS = (
    Claim("C1.erk", "At 80 % sparsity ERK ends above uniform initialisation, over growth rules", ERK_LOW, erk_gain(20), "> 0", POINTS),
    thorough("C1.backbone", "At 80 % sparsity ERK leaves more of the layers below the readout free than uniform, over growth rules", ERK_LOW,
             mean(backbone_free[f"20/erk/{g}"] - backbone_free[f"20/uniform/{g}"] for g in GROWTHS), "> 0", POINTS,
             null=backbone_free["20/erk/static"] - backbone_free["20/uniform/static"], added="after results"),
    Claim("C2.uniform", "At 90 % uniform ends above ERK", UNIFORM_HIGH, -erk_gain(10), "> 0", POINTS, needs=(ABOVE,)),
    Claim("C2.robust", "At 90 % growth rules lie closer together under uniform than under ERK", UNIFORM_HIGH,
          spread(10, "erk") - spread(10, "uniform"), "> 0", POINTS, needs=(ABOVE,)),
    Claim("C2.interaction", "ERK's advantage is larger at 80 % than at 90 % sparsity", "(C1 and C2 together)",
          erk_gain(20) - erk_gain(10), "> 0", POINTS),
    Claim("C2.extreme", "At 97 % uniform's advantage is less than at 90 %", "unless it is extreme", erk_gain(3) - erk_gain(10), "> 0", POINTS),
    Claim("C2.interaction-97", "ERK's advantage is larger at 80 % than at 97 % sparsity", "(same, at the extreme)",
          erk_gain(20) - erk_gain(3), "> 0", POINTS),
    Claim("C3.interaction", "Growth rules differ by initialisation and sparsity: p of their interaction", GROWTH,
          interaction, "< 0.05", P, null=no_interaction),
    Claim("C3.choice", "A growth rule for each condition beats one for all, chosen on other seeds", GROWTH, choosing, "> 0", POINTS),
    Claim("C4.average", "A bandit over growth rules ends above the average fixed rule", ADAPT,
          mean(accuracy[f"{p}/{i}/bandit"] - over_growths(p, i) for p, i in CELLS), "> 0", POINTS),
    Claim("C4.best", "It ends above the fixed rule that was best on other seeds", ADAPT,
          mean(accuracy[f"{p}/{i}/bandit"] - fixed_best(p, i) for p, i in CELLS), "> 0", POINTS),
    *(thorough(f"C4.average-{p}", f"So it does at {100 - p} % sparsity", "(same)",
               mean(accuracy[f"{p}/{i}/bandit"] - over_growths(p, i) for i in INITS), "> 0", POINTS, added="after results") for p in PERCENTS),
    thorough("C4.init", "ERK while half of the weights are free, then uniform, ends above the mean of both", ADAPT,
             mean(accuracy[f"{p}/adaptive/{g}"] - mean(accuracy[f"{p}/{i}/{g}"] for i in INITS)
                  for p in (20, 10) for g in ("random", "gradient")), "> 0", POINTS),
    thorough("C4.init-best", "And above the better of both at each density and growth rule", ADAPT,
             mean(accuracy[f"{p}/adaptive/{g}"] - highest(accuracy[f"{p}/{i}/{g}"] for i in INITS)
                  for p in (20, 10) for g in ("random", "gradient")), "> 0", POINTS),
    Claim("D.dynamic", "Over densities, initialisations and growth rules, dynamic masks end above static ones",
          "(does it matter that masks move?)", mean(dynamic(p) for p in PERCENTS), "> 0", POINTS),
    *(thorough(f"D.dynamic-{p}", f"So it is at {100 - p} % sparsity", "(same)", dynamic(p), "> 0", POINTS) for p in PERCENTS),
    *(thorough(f"D.gradient-{p}", f"At {100 - p} % sparsity growth by gradient ends above static masks", "(same)",
               mean(accuracy[f"{p}/{i}/gradient"] - accuracy[f"{p}/{i}/static"] for i in INITS), "> 0", POINTS) for p in PERCENTS),
    *(thorough(f"D.fair-{p}", f"At {100 - p} % so it does where free weights start from new values, which a static mask needs", "(same)",
               mean(accuracy[f"refilled/{p}/{i}/gradient"] - accuracy[f"refilled/{p}/{i}/static"] for i in INITS), "> 0", POINTS,
               added="after results") for p in PERCENTS),
    Claim("Z.exact", "With frozen weights and biases of each task no accuracy changes after a task", "(parameter isolation)",
          changed["20/uniform/gradient"], "< 1e-9", POINTS, null=changed["not-frozen"]),
    thorough("Z.biases", "Biases that are shared, as in the authors' code, cost more than half a point", "(not in the paper)",
             forgotten["shared-biases"], "> 0.5", POINTS, null=forgotten["20/uniform/gradient"]),
    thorough("S.saturated", "At 80 % sparsity by ERK less than a tenth of the readout is free after ten tasks", "(capacity)",
             last_layer("free")["20/erk/random"], "< 10", "%", null=last_layer("free")["3/erk/random"]),
    thorough("S.refill", "Free weights that start from new values instead of 0 add accuracy at 80 and 90 %", "(not in the paper)",
             mean(accuracy[f"refilled/{p}/{i}/gradient"] - accuracy[f"{p}/{i}/gradient"] for p in (20, 10) for i in INITS), "> 0", POINTS),
    thorough("S.refill-interaction", "There, too, ERK's advantage is larger at 80 % than at 90 %", "(C1 and C2)",
             erk_gain(20, "refilled/", ("gradient",)) - erk_gain(10, "refilled/", ("gradient",)), "> 0", POINTS),
    thorough("S.head-erk", "With a readout of its own for each task ERK ends above uniform at 80 %", ERK_LOW, erk_gain(20, "own-head/", ("",)), "> 0", POINTS),
    thorough("S.head-uniform", "And uniform above ERK at 90 %", UNIFORM_HIGH, -erk_gain(10, "own-head/", ("",)), "> 0", POINTS),
    thorough("S.head", "A readout of its own adds accuracy", "(not in the paper)",
             mean(accuracy[f"own-head/{p}/{i}"] - accuracy[f"{p}/{i}/gradient"] for p in (20, 10) for i in INITS), "> 0", POINTS),
    thorough("S.set", "Pruning as in SET is at most half a point below pruning by magnitude", "(default: magnitude)",
             accuracy["prune-set"] - accuracy["20/uniform/gradient"], "> -0.5", POINTS, added="after results"),
    thorough("S.taylor", "Pruning by magnitude ends above Taylor's criterion", "(default: magnitude)",
             accuracy["20/uniform/gradient"] - accuracy["prune-taylor"], "> 0", POINTS),
    thorough("S.best", "The network of the best training accuracy is at most half a point below the last", "(the authors keep the best)",
             accuracy["keep-best"] - accuracy["20/uniform/gradient"], "> -0.5", POINTS, added="after results"),
    thorough("S.mnist-80", "On permuted MNIST ERK ends above uniform at 80 %", ERK_LOW, erk_gain(20, "mnist/", ("",)), "> 0", POINTS),
    thorough("S.mnist", "There ERK's advantage is larger at 80 % than at 97 %", "(C1 and C2)", erk_gain(20, "mnist/", ("",)) - erk_gain(3, "mnist/", ("",)), "> 0", POINTS),
    thorough("S.conv-80", "In a convolutional network ERK ends above uniform at 80 %", ERK_LOW, erk_gain(20, "conv/", ("",)), "> 0", POINTS),
    thorough("S.conv-90", "And uniform above ERK at 90 %", UNIFORM_HIGH, -erk_gain(10, "conv/", ("",)), "> 0", POINTS, added="after results"),
    thorough("S.conv", "There ERK's advantage is larger at 80 % than at 90 %", "(C1 and C2)", erk_gain(20, "conv/", ("",)) - erk_gain(10, "conv/", ("",)), "> 0", POINTS),
    thorough("F.ahead", "What a sub-network can do on tasks to come, the authors' forward transfer, is less than three points from chance",
             "(measured in the authors' code)", from_chance["ahead"], "< 3", POINTS, null=accuracy["ahead"] - CHANCE, added="after results"),
    thorough("F.ahead-mnist", "So it is where tasks have the same classes, in permuted MNIST", "(same)",
             from_chance["ahead-mnist"], "< 3", POINTS, null=accuracy["ahead-mnist"] - CHANCE, added="after results"),
    *(thorough(f"F.learned-{p}", f"At {100 - p} % sparsity tasks after the first are learned better beside frozen weights, free ones starting from new values, than alone",
               "(does sharing help what comes?)", learned[f"refilled/{p}/uniform/gradient"] - learned[f"separate-{p}"], "> 0", POINTS,
               added="after results") for p in PERCENTS),
    thorough("B.packnet", "The best fixed pair at 80 % ends above PackNet", "(anchor)", against("packnet"), "> 0", POINTS),
    thorough("B.dense", "And above dense fine-tuning with a head for each task", "(anchor)", against("dense"), "> 0", POINTS),
    thorough("B.ewc", "And above EWC with a head for each task", "(anchor)", against("ewc"), "> 0", POINTS),
    *(thorough(f"B.gmp-{p}", f"At {100 - p} % sparsity the best fixed pair ends above gradual pruning of what is free (GMP)", "(coded by the authors, not run)",
               against(f"gmp-{p}", p), "> 0", POINTS, added="after results") for p in PERCENTS),
    *(thorough(f"B.separate-{p}", f"At {100 - p} % sparsity it ends above separate networks of that density", "(anchor: sharing helps)",
               against(f"separate-{p}", p), "> 0", POINTS) for p in PERCENTS),
)  # fmt: skip


COLOURS = dict(zip((*GROWTHS, "static", "bandit"), style.colours, strict=False))
NAMES = {"random": "random", "unfired": "unfired", "gradient": "gradient (RigL)", "momentum": "momentum (SNFS)",
         "static": "static masks", "bandit": "bandit over the four"}  # fmt: skip
MARKS = dict(zip(NAMES, "os^Dvx", strict=True))


@pictures.by_hand(3, width=11, height=3.6, legend=True)
def draw_grid(traces: Traces, *axes: Axes) -> None:
    """Final accuracy by growth rule, uniform and ERK side by side, for each density."""
    for ax, percent in zip(axes, PERCENTS, strict=True):
        pairs = {rule: [traces[f"{percent}/{init}/{rule}"] for init in INITS] for rule in NAMES
                 if all(f"{percent}/{init}/{rule}" in traces for init in INITS)}  # fmt: skip
        found = {rule: np.stack([accuracy(t) for t in pair]) for rule, pair in pairs.items()}
        for rule, values in found.items():
            means, others = values.mean(axis=1), [v.mean() for r, v in found.items() if r != rule]
            if (
                others and means.mean() < min(others) - 20
            ):  # beyond what would leave the others apart
                ax.text(0.5, 0.03, f"{NAMES[rule]}: {means[0]:.0f} and {means[1]:.0f} %", fontsize=8.5,
                        transform=ax.transAxes, ha="center", color=COLOURS[rule])  # fmt: skip
                continue
            x = np.arange(2) + 0.05 * (list(NAMES).index(rule) - 2.5)
            ax.plot(x, means, marker=MARKS[rule], color=COLOURS[rule], label=NAMES[rule], linewidth=1.3)  # fmt: skip
            ax.plot(np.repeat(x[:, None], values.shape[1], 1), values, ".", color=COLOURS[rule], alpha=0.35)  # fmt: skip
        ax.set_xticks([0, 1], ["uniform", "ERK"])
        ax.set(xlim=(-0.4, 1.4), title=f"{100 - percent} % sparse", xlabel="initialisation")
    axes[0].set_ylabel("accuracy after ten tasks in %")


@pictures.by_hand(3, width=11, height=3.4, sharey=True, legend=True)
def draw_matrix(traces: Traces, *axes: Axes) -> None:
    """What each task reached when it was over, in the order of tasks."""
    looks = {"uniform": "-", "erk": "--"}
    for ax, percent in zip(axes, PERCENTS, strict=True):
        for rule in ("random", "gradient", "static"):
            for init, dashes in looks.items():
                if (trace := traces.get(f"{percent}/{init}/{rule}")) is not None:
                    values = 100 * metrics.accuracy_matrix(trace).values.diagonal(axis1=1, axis2=2)
                    label = f"{NAMES[rule]}, {'ERK' if init == 'erk' else init}"
                    ax.plot(np.arange(1, values.shape[1] + 1), values.mean(axis=0), dashes,
                            color=COLOURS[rule], marker=MARKS[rule], markersize=4, label=label)  # fmt: skip
        ax.set(title=f"{100 - percent} % sparse", xlabel="number of the task")
        pictures.plain_ticks(ax, range(1, 41))
    axes[0].set_ylabel("accuracy on the task in %")


@pictures.by_hand(4, 4, width=12, height=3.2, sharey=True, legend=True)
def draw_capacity(traces: Traces, *axes: Axes) -> None:
    """Free weights of each layer after each task."""
    panels = [("20/uniform/static", "80 %, static masks"), ("20/uniform/random", "80 %, growth at random"),
              ("20/uniform/gradient", "80 %, by gradient"), ("3/uniform/gradient", "97 %, by gradient")]  # fmt: skip
    for ax, (arm, title) in zip(axes, panels, strict=True):
        for init, dashes in (("uniform", "-"), ("erk", "--")):
            trace = traces.get(arm.replace("uniform", init))
            if trace is None:
                continue
            free = 100 * trace.free.transpose("seed", "step", "layer").values[:, 1:].mean(axis=0)
            names = ("first layer", "second layer", "readout")
            for place, name in enumerate(names[: free.shape[1]]):
                label = f"{name}, {'ERK' if init == 'erk' else init}"
                ax.plot(np.arange(1, len(free) + 1), free[:, place], dashes, color=style.colours[place], label=label)  # fmt: skip
        ax.set(title=title, xlabel="tasks learned", ylim=(-2, 102))
        pictures.plain_ticks(ax, range(2, 41, 2))
    axes[0].set_ylabel("free weights in %")


CLOSER = "the same, closer"
ANCHORS = {
    "80 %, gradient, uniform": "20/uniform/gradient", "80 %, gradient, ERK": "20/erk/gradient",
    "80 %, new values": "refilled/20/uniform/gradient", "80 %, new values, static": "refilled/20/uniform/static",
    "90 %, new values": "refilled/10/uniform/gradient", "90 %, new values, static": "refilled/10/uniform/static",
    "97 %, new values": "refilled/3/uniform/gradient", "97 %, new values, static": "refilled/3/uniform/static", "80 %, readout of its own": "own-head/20/uniform",
    "80 %, biases shared": "shared-biases", "80 %, nothing frozen": "not-frozen",
    "PackNet": "packnet", "GMP, 80 %": "gmp-20", "GMP, 90 %": "gmp-10", "GMP, 97 %": "gmp-3", "dense, fine-tuned": "dense", "dense, EWC": "ewc", "separate networks, 80 %": "separate-20",
    "separate networks, 90 %": "separate-10", "separate networks, 97 %": "separate-3",
}  # fmt: skip


SMOKE: dict[str, Any] = {
    "tasks": 2, "classes": 2, "steps": 6, "batch": 4, "updates": 2, "widths": (6,), "exam": 20, "side": 7,
}  # fmt: skip
FULL: dict[str, Any] = {"network": "conv", "side": 28, "steps": 1600, "batch": 64}
study = Study(
    paper=Paper(
        "dynamic-sparse-cl",
        "Continual Learning with Dynamic Sparse Training: Exploring Algorithms for Effective Model Updates",
        "Murat Onur Yildirim, Elif Ceren Gok Yildirim, Ghada Sokar, Decebal Constantin Mocanu, Joaquin Vanschoren",
        "CPAL", 2024, "2308.14831", "muratonuryildirim/CL-with-DST",
    ),
    family="forgetting",
    question="Which initial sparsity, pruning and growth give the best sub-network for each of a sequence of tasks in one network?",
    symptoms=(
        "a network of fixed capacity fills up after a few tasks",
        "task-incremental learning by masks, parameter isolation",
        "dynamic sparse training, where to prune and where to regrow",
        "ERK or uniform sparsity across layers",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("20/uniform/gradient", "20/erk/gradient", "not-frozen", "packnet", "dense"), SMOKE),
        "quick": Budget(5, also=("20/uniform/static",)),
        "thorough": Budget(5),
        "full": Budget(5, settings=FULL),
    },
    claims=CLAIMS,
    figures=(
        Figure("growth", "Accuracy over ten tasks by initialisation and growth rule; small dots are seeds. Each panel has an axis of its own.", draw_grid, ("20/uniform/gradient", "20/erk/gradient")),
        Figure("tasks", "Accuracy that each task reached when it was over, and keeps; mean over seeds.", draw_matrix, ("20/uniform/gradient",)),
        Figure("capacity", "Weights that no task uses yet, by layer, under uniform (full) and ERK (dashed) initialisation.", draw_capacity, ("20/uniform/gradient",)),
        Figure("anchors", "Accuracy after ten tasks; dots are seeds, bars means. New values: free weights do not start at 0.",
               pictures.dots({title: {label: accuracy[arm] for label, arm in ANCHORS.items()} for title in ("accuracy after ten tasks in %", CLOSER)},
                             own={CLOSER: {"xlim": (86, 98)}}), ("20/uniform/gradient",)),
    ),
    data="glyphs-100, 14 x 14, ten tasks of ten classes; MNIST-5k, 14 x 14, permuted",
    notes="The paper trains ResNet-18 and others on CIFAR-100 and miniImageNet; here an MLP of 200 and 100 units learns "
    "drawn characters, 320 updates of 16 examples a task, 20 of its topology, as many as the paper's; a small "
    "convolutional network learns five tasks. Biases are each task's own, exams know the task's classes, as many "
    "weights grow as were pruned, and the last network of a task is kept. Learning rates are the best on two other seeds, one for each density. "
    "Full: the convolutional network at 28 x 28, 1,600 updates of 64 examples.",
    watch="accuracy",
)  # fmt: skip
