"""A closer look at rehearsal-free continual learning: distillation and penalties, without old data.

Smith, Tian, Halbe, Hsu, Kira (CVPR Workshop on Continual Learning in Computer Vision 2023, arXiv 2203.17269).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.calling import as_examined, call
from latebloom.core.dataset import Dataset
from latebloom.core.memory import CLASS_BALANCED
from latebloom.core.stream import Stream, class_incremental, joint, rehearsing
from latebloom.data import glyph_images, load_scaled, scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.lab.verdict import interval
from latebloom.measures import Effect, Measure, Traces, chosen, derived
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.class_means import NearestClassMean
from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.distillation import FeatureDistillation, LwF
from latebloom.methods.forgetting.head_losses import HeadLoss, Loss, Together
from latebloom.methods.forgetting.method import Lesson, Method
from latebloom.methods.forgetting.penalties import EWC, L2
from latebloom.methods.forgetting.prompting import Prompting, learns
from latebloom.methods.forgetting.replay import ER
from latebloom.methods.forgetting.sharpness import Watched
from latebloom.methods.forgetting.terms import percent
from latebloom.nn import ConvNet, DualPrompt, PromptPool, ViT
from latebloom.optim import trained

Net = Literal["conv", "normed", "vit"]
Learns = Literal["all", "head", "attention", "prompts"]
WEIGHTS = Path(__file__).with_suffix(".npz")
SIDE = 16


@dataclass(frozen=True)
class Config:
    """What is done against forgetting, to which network.

    - `method`: names joined by "+": "base" (nothing), "predkd", "featkd", "weighted" (its importance-weighted form),
      "l2", "rows" (L2 that holds old rows of the head, too), "ewc", "mismatched" (EWC with the Fisher matrix of another loss);
      or alone "replay", "joint", "ncm", "l2p", "dual". `one`, `two`: strengths in this order.
    - `loss` of the head; with "predkd" and "bce" the task's own sigmoids, and the teacher's for the old (LwF.MC).
    - `network`: three convolutions, the same with batch normalisation ("normed"), a small transformer ("vit");
      `pretrained` on other glyphs, or from scratch; `learns`: which part of it.
    - `statistics`: running ones stay ("fixed") or follow the batches. `fresh`: the optimiser begins anew with each task.
    - `rate` of Adam; that of all but the head is `body` times it. `tasks` of `steps` updates with `batch` examples.
    """

    method: str = "base"
    loss: Loss = "ce"
    rate: float = 0.003
    body: float = 1.0
    one: float = 0.0
    two: float = 0.0
    network: Net = "conv"
    pretrained: bool = False
    learns: Learns = "all"
    statistics: Literal["follow", "fixed"] = "follow"
    fresh: bool = True
    data: str = "glyphs"
    classes: int = 50
    tasks: int = 5
    steps: int = 60
    batch: int = 32
    memory: int = 100
    width: int = 32
    size: int = 48
    exam: int = 200


def readout(model: Any) -> Any:
    """The head of each network of the study."""
    return model.vit.readout if isinstance(model, PromptPool | DualPrompt) else model.readout


def attention(model: ViT) -> list[Any]:
    """What makes queries, keys and values, and the head."""
    return [model.readout, *(block.query_key_value for block in model.blocks)]


@functools.cache
def images(name: str, classes: int = 50) -> Dataset:
    """The stream's examples: glyphs 0 to `classes` - 1, of which no network was pre-trained on one, or other images."""
    if name == "glyphs":
        return scaled(glyph_images(classes, 60, 20, seed=0, size=SIDE))
    return load_scaled(name, side=14)


def fresh(network: Net, classes: int, key: PRNGKeyArray, width: int = 32, size: int = 48) -> Any:
    """A network as it is drawn."""
    if network == "vit":
        return ViT(1, classes, key=key, patch=4, size=size, heads=3, hidden=2 * size, layers=3)
    return ConvNet(width, classes, key=key, norm="batch" if network == "normed" else None)


def body(model: Any) -> Any:
    """All arrays but the head's."""
    return eqx.filter(eqx.tree_at(lambda m: m.readout, model, None), eqx.is_array)


@functools.cache
def released(network: Net) -> tuple[np.ndarray, ...]:
    """The pre-trained bodies, leaf by leaf [body, ...] (benchmarks/rehearsal_free_pretraining.py)."""
    with np.load(WEIGHTS) as file:
        places = sorted(int(n.split("/")[1]) for n in file.files if n.startswith(f"{network}/"))
        return tuple(file[f"{network}/{place}"].astype(np.float32) for place in places)


def _network(config: Config, classes: int, key: PRNGKeyArray) -> Any:
    """A network; of a pre-trained one the head is drawn, and which body it is."""
    head, which, prompts = jax.random.split(key, 3)
    model = fresh(config.network, classes, head, config.width, config.size)
    if config.pretrained:
        leaves = released(config.network)
        place = jax.random.randint(which, (), 0, len(leaves[0]))
        known = jax.tree.unflatten(jax.tree.structure(body(model)), [jnp.asarray(w)[place] for w in leaves])  # fmt: skip
        model = eqx.combine(known, model)
    if config.method == "l2p":
        return PromptPool(model, key=prompts)
    if config.method == "dual":
        return DualPrompt(model, config.tasks, key=prompts)
    return model


class Mismatched(HeadLoss):
    """The Fisher matrix is that of softmax cross-entropy over all classes seen, whatever is learned by."""

    def turn(self, model: Any, own: Any, lesson: Lesson) -> Any:
        return super(HeadLoss, self).turn(model, own, lesson)


def method_of(config: Config) -> Method:
    one, two = (jnp.asarray(x, jnp.float32) for x in (config.one, config.two))
    batches = min(10, config.steps)
    distil = partial(LwF, temperature=1.0, over="each") if config.loss == "bce" else partial(LwF, temperature=2.0, over="seen")  # fmt: skip
    elastic = partial(EWC, batches=batches, head=readout)
    makers: dict[str, Any] = {
        "base": lambda s: Method(), "joint": lambda s: Method(), "replay": lambda s: ER(0.5), "predkd": distil,
        "featkd": partial(FeatureDistillation, head=readout),
        "weighted": partial(FeatureDistillation, head=readout, weighted=True),
        "l2": partial(L2, head=readout), "rows": partial(L2, head=readout, rows="old"),
        "ewc": elastic, "mismatched": elastic, "l2p": Prompting, "dual": Prompting,
        "ncm": lambda s: NearestClassMean(readout, config.size if config.network == "vit" else 2 * config.width, config.steps),
    }  # fmt: skip
    names = config.method.split("+")
    parts = tuple(makers[name](s) for name, s in zip(names, (one, two), strict=False))
    host = parts[0] if len(parts) == 1 else Together(parts)
    loss: Loss = "local_bce" if config.loss == "bce" and "predkd" in names else config.loss
    return (Mismatched if "mismatched" in names else HeadLoss)(host, loss)


LEARNS = {"head": readout, "attention": attention, "prompts": learns}


def _adam(part: Learns, rate: Array, body: Array | None = None) -> optax.GradientTransformation:
    if body is not None:
        return trained(optax.adam(rate), readout, others=optax.adam(body * rate))
    return optax.adam(rate) if part == "all" else trained(optax.adam(rate), LEARNS[part])


def _stream(config: Config, data: Dataset, key: PRNGKeyArray) -> Stream:
    stream = class_incremental(
        data.y_train, data.y_test, key=key, tasks=config.tasks, steps=config.steps,
        batch_size=config.batch, exam_size=config.exam,
    )  # fmt: skip
    if config.method != "joint":
        return stream
    return rehearsing(stream, joint(config.tasks), key=jax.random.fold_in(key, 1))


def make_process(config: Config) -> Watched:
    data = images(config.data, config.classes) if config.data == "glyphs" else images(config.data)
    classes = int(np.asarray(data.y_train).max()) + 1
    replays = config.method == "replay"
    if config.body != 1 and config.learns != "all":
        raise ValueError(f"a body at a rate of its own needs learns='all', not {config.learns!r}")
    rates = {"rate": config.rate} | ({} if config.body == 1 else {"body": config.body})
    return Watched(
        model=partial(_network, config, classes), data=data, stream=partial(_stream, config, data),
        method=method_of(config), optimiser=partial(_adam, config.learns), hyper=rates,
        apply=as_examined if config.statistics == "fixed" else call, head="seen", fresh=config.fresh, flat=False,
        seeds_by="map", replay=Replay(config.memory, config.batch, CLASS_BALANCED) if replays else None,
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """The ends of tasks."""
    return np.arange(config.tasks + 1) * config.steps


# What won on seeds 100 to 103 (benchmarks/rehearsal_free_tuning.py): loss, rate and strengths of each method.
TUNED: dict[str, dict[str, Any]] = tuned_beside(__file__)
Regime = Literal["scratch", "pretrained"]
REGIMES: tuple[Regime, ...] = ("scratch", "pretrained")
LOSSES: tuple[Loss, ...] = ("ce", "bce", "local_ce")
ALONE = {"predkd": "PredKD", "featkd": "FeatKD", "l2": "L2", "ewc": "EWC"}
BOTH = {f"predkd+{name}": f"PredKD + {ALONE[name]}" for name in ("featkd", "l2", "ewc")}
SAID = {"ce": "softmax", "bce": "sigmoids", "local_ce": "the task's own softmax"}


def tuned(regime: str, name: str, **more: Any) -> Config:
    """A method with what tuning found for it in its regime."""
    found = {"method": name.split("/")[0], **TUNED.get(f"{regime}/{name}", {})}
    return Config(pretrained=regime == "pretrained", **found | more)


def vit(name: str, **more: Any) -> Config:
    return Config(network="vit", pretrained=True, **TUNED.get(f"vit/{name}", {}) | more)


L2_PRE = tuned("pretrained", "l2")
ARMS: dict[str, Config] = {
    **{f"{r}/base/{loss}": tuned(r, f"base/{loss}") for r in REGIMES for loss in LOSSES},
    **{f"{r}/{name}": tuned(r, name) for r in REGIMES for name in {**ALONE, **BOTH}},
    **{f"{r}/{name}": tuned(r, f"base/{of}", method=name, loss="ce")
       for r in REGIMES for name, of in (("joint", "ce"), ("replay", "ce"))},
    **{f"{r}/off/{name}": tuned(r, name, method="base", one=0.0)
       for r, name in (("scratch", "l2"), ("scratch", "ewc"), ("pretrained", "l2"))},
    # What moves less, and has no anchor.
    **{f"{r}/slow/{name}": tuned(r, f"slow/{name}") for r in REGIMES for name in ("base", "predkd")},
    "weighted": tuned("pretrained", "weighted"),
    "ncm": Config("ncm", pretrained=True),
    "head": replace(tuned("pretrained", "base/local_ce"), learns="head"),
    # By the own softmax old rows have no gradient, so that nothing can hold them.
    "ce-free": replace(L2_PRE, loss="ce"), "ce-rows": replace(L2_PRE, loss="ce", method="rows"), "carried": replace(L2_PRE, fresh=False),
    "mismatched": tuned("pretrained", "ewc", method="mismatched"),
    "follow": replace(L2_PRE, network="normed"), "fixed": replace(L2_PRE, network="normed", statistics="fixed"),
    **{f"mnist/{name}": tuned("pretrained", name if name in ALONE else "base/local_ce", data="mnist-5k")
       for name in ("base", "l2", "ewc", "featkd")},
    **{f"vit/{name}": vit(name) for name in ("l2", "full", "head", "l2p", "dual")},
    "vit/attention": vit("l2", method="base", one=0.0),
    "vit/ncm": Config("ncm", network="vit", pretrained=True),
}  # fmt: skip


accuracy = percent("accuracy", metrics.average_accuracy)
lost = percent("forgetting among all classes seen", metrics.forgetting)
lost_told = percent("forgetting among the task's own classes", metrics.forgetting, told=True)
learned = percent(
    "accuracy on a task when it is over, among its own classes",
    metrics.accuracy_when_learned,
    told=True,
)


def base(regime: str) -> Effect:
    """Fine-tuning with whichever loss is best, each at its own rate."""
    return chosen(accuracy[f"{regime}/base/{loss}"] for loss in LOSSES)


def free(regime: str) -> Effect:
    """The best that rehearses nothing."""
    return chosen(accuracy[f"{regime}/{name}"] for name in {**ALONE, **BOTH})  # fmt: skip


def apart(regime: str, one: str, other: str, of: Measure = accuracy) -> Effect:
    return of[f"{regime}/{one}"] - of[f"{regime}/{other}"]


POINTS = "percentage points"
FORGETS = "degradation of knowledge on previously seen classes"
STRONG = "strong continual learning performance without rehearsal"
DISPROVE = "disprove the common assumption that parameter regularization fails for rehearsal-free learning of a single, expanding task"  # fmt: skip
COMBINE, VANILLA = "combining knowledge distillation and parameter regularization", "with a pre-trained model, vanilla L2 outperforms EWC and feature distillation"  # fmt: skip
PROMPTS = "L2 in self-attention blocks of a ViT outperforms popular prompting methods"
LEVERAGE = "leverage knowledge from a pre-trained model"
WHERE = {"scratch": "From scratch", "pretrained": "Pre-trained"}


def same(regime: str, name: str) -> str:
    """Fine-tuning with a method's loss."""
    return f"{regime}/base/{ARMS[f'{regime}/{name}'].loss}"


def known(arm: str, least: float = 60) -> tuple[Need, ...]:
    return (Need(learned[arm], f"> {least:g}", "tasks are not learned to begin with"),)


CLAIMS = (
    *(Claim(f"A.forgets.{r}", f"{w}, fine-tuning with softmax loses more than 30 points of old tasks", FORGETS,
            lost[f"{r}/base/ce"], "> 30", POINTS, null=lost[f"{r}/joint"], needs=known(f"{r}/base/ce"))
      for r, w in WHERE.items()),
    *(Claim(f"A.strong.{r}", f"{w}, a method or combination without rehearsal beats rehearsal of a few examples a class (2; 20 at full scale)", STRONG,
            free(r) - accuracy[f"{r}/replay"], "> 0", POINTS, null=base(r) - accuracy[f"{r}/replay"], needs=known(f"{r}/base/ce"))
      for r, w in WHERE.items()),
    *(Claim(f"C1.{name}.{r}", f"{w}, {ALONE[name]} is more than 3 points above fine-tuning with its best loss", DISPROVE,
            accuracy[f"{r}/{name}"] - base(r), "> 3", POINTS, null=accuracy[f"{r}/slow/base"] - base(r), needs=known(f"{r}/base/local_ce"))
      for r, w in WHERE.items() for name in ("l2", "ewc")),
    *(Claim(f"C1.with.{name}.{r}", f"{w}, PredKD with {ALONE[name]} is more than 3 points above PredKD alone", COMBINE,
            apart(r, f"predkd+{name}", "predkd"), "> 3", POINTS, null=apart(r, "slow/predkd", "predkd"), needs=known(f"{r}/base/local_ce"))
      for r, w in WHERE.items() for name in ("featkd", "l2", "ewc")),
    *(thorough(f"C1.slow.{name}.{r}", f"{w}, {ALONE[name]} beats a body that is merely slower than its head", DISPROVE + " (ours)",
               apart(r, name, "slow/base"), "> 0", POINTS, added="after results", needs=known(f"{r}/base/local_ce"))
      for r, w in WHERE.items() for name in ("l2", "ewc")),
    *(thorough(f"C1.with.slow.{name}.{r}", f"{w}, PredKD with {ALONE[name]} beats PredKD with a body that is merely slower than its head",
               COMBINE + " (ours)", apart(r, f"predkd+{name}", "slow/predkd"), "> 0", POINTS, added="after results",
               needs=known(f"{r}/base/local_ce"))
      for r, w in WHERE.items() for name in ("featkd", "l2", "ewc")),
    *(thorough(f"C1.comparable.{name}.{r}", f"{w}, {ALONE[name]} is at most 3 points below FeatKD", DISPROVE + " (at least comparable)",
               apart(r, name, "featkd"), "> -3", POINTS, null=base(r) - accuracy[f"{r}/featkd"])
      for r, w in WHERE.items() for name in ("l2", "ewc")),
    Claim("C2.ewc", "Pre-trained, L2 beats EWC", VANILLA, apart("pretrained", "l2", "ewc"), "> 0", POINTS,
          null=apart("pretrained", "off/l2", "ewc")),
    Claim("C2.featkd", "Pre-trained, L2 beats FeatKD", VANILLA, apart("pretrained", "l2", "featkd"), "> 0", POINTS,
          null=apart("pretrained", "off/l2", "featkd")),
    *(Claim(f"C2.with.{name}", f"So it is beside PredKD: against {ALONE[name]}", VANILLA, apart("pretrained", "predkd+l2", f"predkd+{name}"),
            "> 0", POINTS, null=apart("pretrained", "predkd", f"predkd+{name}")) for name in ("ewc", "featkd")),
    Claim("C2.reversal", "What L2 has over EWC is more if pre-trained than from scratch", VANILLA + " (next, after EWC from scratch)",
          apart("pretrained", "l2", "ewc") - apart("scratch", "l2", "ewc"), "> 0", POINTS,
          null=apart("pretrained", "off/l2", "ewc") - apart("scratch", "off/l2", "ewc")),
    Claim("C2.reversal-plain", "So it is with plain fine-tuning, which is L2 of no strength, in place of L2 from scratch", VANILLA + " (next, after EWC from scratch)",
          apart("pretrained", "l2", "ewc") - (base("scratch") - accuracy["scratch/ewc"]), "> 0", POINTS,
          null=apart("pretrained", "off/l2", "ewc") - (base("scratch") - accuracy["scratch/ewc"]), added="after results"),
    thorough("C2.scratch", "From scratch, EWC beats L2", "(implied by the order of the paper)", apart("scratch", "ewc", "l2"), "> 0", POINTS,
             null=apart("scratch", "off/ewc", "l2")),
    *(thorough(f"C2.mnist.{name}", f"So it is on digits, with the strengths found on glyphs: L2 beats {ALONE[name]}", VANILLA + " (another domain; ours)",
               apart("mnist", "l2", name), "> 0", POINTS, null=apart("mnist", "base", name)) for name in ("ewc", "featkd")),
    *(Claim(f"C3.{name}", f"A transformer's attention weights under L2 beat {said}", PROMPTS, apart("vit", "l2", name), "> 0", POINTS,
            null=apart("vit", "attention", name), needs=known("vit/l2"))
      for name, said in (("l2p", "a pool of prompts (L2P)"), ("dual", "general and expert prompts (DualPrompt)"))),
    *(thorough(f"C3.{name}", f"They beat {said}, too", "(ours)", apart("vit", "l2", name), "> 0", POINTS, null=apart("vit", "attention", name))
      for name, said in (("head", "a linear probe"), ("full", "fine-tuning of everything"), ("ncm", "the nearest class mean of frozen features"))),
    thorough("C3.off", "Without L2, at the same rate, attention weights are worse by more than a point", "(ours)", apart("vit", "l2", "attention"), "> 1", POINTS),
    thorough("L.leverage", "L2 gains more from pre-training than fine-tuning with softmax does", LEVERAGE,
             accuracy["pretrained/l2"] - accuracy["scratch/l2"] - (accuracy["pretrained/base/ce"] - accuracy["scratch/base/ce"]), "> 0", POINTS,
             null=accuracy["pretrained/off/l2"] - accuracy["scratch/off/l2"] - (accuracy["pretrained/base/ce"] - accuracy["scratch/base/ce"])),
    *(thorough(f"L.{said}", f"Pre-trained, the best that learns without rehearsal beats {what}", "(ours)", free("pretrained") - accuracy[said], "> 0", POINTS,
               null=base("pretrained") - accuracy[said])
      for said, what in (("ncm", "the nearest class mean of frozen features"), ("head", "a linear probe"))),
    *(thorough(f"F.bias.{r}", f"{w}, more than 20 points of what softmax forgets are between tasks: told the task, they are there", "(global and local forgetting)",
               lost[f"{r}/base/ce"] - lost_told[f"{r}/base/ce"], "> 20", POINTS, null=lost[f"{r}/joint"] - lost_told[f"{r}/joint"])
      for r, w in WHERE.items()),
    *(thorough(f"F.told.{name}.{r}", f"{w}, told the task, {ALONE[name]} forgets less than fine-tuning with the same loss", "(local forgetting)",
               lost_told[f"{r}/{name}"] - lost_told[same(r, name)], "< 0", POINTS, null=lost_told[f"{r}/slow/base"] - lost_told[same(r, name)],
               needs=known(f"{r}/{name}"))
      for r, w in WHERE.items() for name in ("l2", "ewc")),
    *(thorough(f"H.{loss}.{r}", f"{w}, fine-tuning by {SAID[loss]} is more than 3 points above softmax over all classes", "(the loss of the head)",
               apart(r, f"base/{loss}", "base/ce"), "> 3", POINTS) for r, w in WHERE.items() for loss in ("bce", "local_ce")),
    thorough("S.weighted", "Features weighted by the old head are worth having", "(importance-weighted)", accuracy["weighted"] - accuracy["pretrained/featkd"], "> 0", POINTS),
    thorough("S.fisher", "A Fisher matrix of the loss that is learned by beats one of softmax over all classes", "(must match)",
             accuracy["pretrained/ewc"] - accuracy["mismatched"], "> 0", POINTS),
    thorough("S.rows", "With softmax over all classes, L2 is better with the whole head free than with old rows held", "(not new head rows)",
             accuracy["ce-free"] - accuracy["ce-rows"], "> 0", POINTS, added="after results"),
    thorough("S.fresh", "An optimiser that begins anew with each task is better", "(reset)", accuracy["pretrained/l2"] - accuracy["carried"], "> 0", POINTS),
    thorough("S.statistics", "With batch normalisation, L2 is better with running statistics that stay", "(ours: statistics have no penalty)",
             accuracy["fixed"] - accuracy["follow"], "> 0", POINTS),
)  # fmt: skip


SLOW = {"slow/base": "fine-tuning, slow body", "slow/predkd": "PredKD, slow body"}
NAMES = {
    **{f"base/{loss}": f"fine-tuning, {SAID[loss]}" for loss in LOSSES}, "slow/base": SLOW["slow/base"], **ALONE, **BOTH,
    "slow/predkd": SLOW["slow/predkd"], "replay": "rehearsal of a few", "joint": "all data so far",
}  # fmt: skip
FROZEN = {"linear probe": accuracy["head"], "nearest class mean": accuracy["ncm"]}
VITS = {
    "l2": "L2 on attention", "attention": "attention, no L2", "full": "everything", "l2p": "L2P", "dual": "DualPrompt",
    "head": "linear probe", "ncm": "nearest class mean",
}  # fmt: skip


def _of(names: dict[str, str], where: str, of: Measure) -> dict[str, Effect]:
    return {text: of[f"{where}/{name}"] for name, text in names.items()}


def _forgotten(names: dict[str, str], where: str) -> dict[str, dict[str, Effect]]:
    kept = {name: text for name, text in names.items() if name != "ncm"}
    return {text: {"among all classes seen": lost[f"{where}/{name}"], "among the task's own": lost_told[f"{where}/{name}"]}
            for name, text in kept.items()}  # fmt: skip


@derived("accuracy over the tasks so far in %")
def so_far(trace: xr.Dataset) -> xr.DataArray:
    return 100 * trace.accuracy.where(trace.task <= trace.learning).mean("task")


MARKS = {
    "base/local_ce": "o", "slow/base": "X", "predkd": "s", "slow/predkd": "P", "featkd": "D", "l2": "^", "ewc": "v",
    "predkd+l2": "*",
}  # fmt: skip


@pictures.by_hand(2, height=3.9, legend=True)
def draw_frontier(traces: Traces, *axes: Axes) -> None:
    """What is learned against what is kept: means of methods, with 95 % intervals over seeds both ways."""
    for ax, (regime, title) in zip(axes, WHERE.items(), strict=True):
        shown = [name for name in MARKS if f"{regime}/{name}" in traces]
        for name, colour in zip(MARKS, (*style.colours, style.INK), strict=True):
            if name not in shown:
                continue
            at = [of(traces[f"{regime}/{name}"]) for of in (learned, lost_told)]
            (x, y), (wide, high) = (v.mean() for v in at), map(_half_width, at)
            ax.errorbar(x, y, high, wide, MARKS[name], color=colour, markersize=8, elinewidth=1, label=NAMES[name])  # fmt: skip
        ax.set(title=title.lower(), xlabel="accuracy on a task when it is over, in %")
    axes[0].set_ylabel("forgotten of it at the end, in points\n(both among its own classes)")


def _half_width(values: np.ndarray) -> float:
    """Of a 95 % interval of their mean; 0 of a single one."""
    low, high = interval(values)
    return (high - low) / 2 if np.isfinite(high - low) else 0.0


def _as_tasks(trace: xr.Dataset) -> xr.Dataset:
    return trace.isel(step=slice(1, None)).assign_coords(step=np.arange(1, trace.sizes["step"]))


LINES = {
    name: NAMES[name]
    for name in ("base/ce", "slow/base", "l2", "ewc", "featkd", "predkd+l2", "joint")
}
LOOK = {
    text: {"band": False, "marker": mark}
    for text, mark in zip(LINES.values(), "oXxvD*s", strict=True)
}
PERCENT = "accuracy at the end, in %"
SMOKE = {"classes": 10, "tasks": 2, "steps": 3, "batch": 6, "exam": 10, "memory": 10}
FULL = {"classes": 100, "tasks": 10, "steps": 940, "batch": 128, "memory": 2000}
study = Study(
    paper=Paper(
        "rehearsal-free", "A Closer Look at Rehearsal-Free Continual Learning",
        "James Seale Smith, Junjiao Tian, Shaunak Halbe, Yen-Chang Hsu, Zsolt Kira", "CVPR Workshop (CLVision)", 2023, "2203.17269",
    ),
    family="forgetting",
    question="Which of distillation, L2 and EWC keeps old classes best where no old example may be kept, from scratch and pre-trained?",
    symptoms=(
        "no old data may be kept: privacy, licences, storage",
        "add categories to a deployed classifier without the old data",
        "EWC or L2 seems to do nothing when classes come one after the other",
        "continual learning with a pre-trained network or vision transformer: prompts, L2, or a frozen body",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("scratch/base/ce", "pretrained/predkd+l2", "pretrained/featkd", "vit/dual"), SMOKE),
        "quick": Budget(5, also=("scratch/joint", "pretrained/joint")),
        "thorough": Budget(5),
        "full": Budget(5, settings=FULL, arm_settings={a: {"data": "fashion-mnist", "tasks": 5} for a in ARMS if a.startswith("mnist/")}),
    },
    claims=CLAIMS,
    figures=(
        Figure("accuracy", "Accuracy over all classes after the last task: dots are seeds, bars means. Each method with its own loss, "
               "strength and rate. Right: pre-trained on other classes, with what frozen features do.",
               pictures.dots({f"{WHERE[r].lower()}: {PERCENT}": _of(NAMES, r, accuracy) | (FROZEN if r == "pretrained" else {}) for r in REGIMES},
                             xlim=(0, 100)), ("pretrained/l2",)),
        Figure("course", "Accuracy over the classes of all tasks so far, at the end of each: means of seeds.",
               pictures.curves(so_far, *((WHERE[r].lower(), {f"{r}/{name}": text for name, text in LINES.items()}) for r in REGIMES),
                               as_drawn=_as_tasks, markers=True, look=LOOK, xlabel="tasks so far", ylabel="accuracy over their classes in %"), ("pretrained/l2",)),
        Figure("forgetting", "What is lost of a task by the end: where all classes seen compete, and where only its own do. The difference is "
               "confusion between tasks.",
               pictures.dots({f"{WHERE[r].lower()}: forgetting in points": _forgotten(NAMES, r) for r in REGIMES}, levels={"": 0.0}, xlim=(-25, 100)),
               ("pretrained/l2",)),
        Figure("frontier", "Learning against keeping, with the task told: means with 95 % intervals over seeds. Right and low is good; the panels have "
               "ranges of their own.",
               draw_frontier, ("pretrained/l2",)),
        Figure("transformer", "A small vision transformer, pre-trained on other classes: what learns, and how it is held.",
               pictures.dots({PERCENT: _of(VITS, "vit", accuracy),
                              "forgetting in points": _forgotten(VITS, "vit")}), ("vit/l2",)),
    ),
    data="drawn glyphs, 16 x 16: 50 classes, ten a task, 60 drawings each; MNIST-5k, 14 x 14",
    notes="Five tasks of 60 updates of Adam (32 examples), three convolutions or a transformer of three blocks; each seed draws the order of "
    "classes, the head, and one of three bodies pre-trained on 100 other glyph classes: intervals are over heads, orders and streams, "
    "not over bodies. Losses, strengths and rates are the best on four other seeds. Paper: CIFAR-100 and ImageNet-R, ResNets and ViT-B/16, ImageNet pre-training. Data-free generative replay and model "
    "inversion are not there. Full: 100 classes in ten tasks, 940 updates of 128.",
    watch="accuracy",
)  # fmt: skip
