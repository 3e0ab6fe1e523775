"""Critical learning periods emerge even in deep linear networks.

Kleinman, Achille, Soatto (ICLR 2024, arXiv 2308.12221).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import optax
import xarray as xr
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from scipy import stats

from latebloom.core.process import Process, log_steps
from latebloom.data import load
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures, style
from latebloom.measures import (
    Effect,
    Measure,
    Traces,
    at,
    at_least,
    average,
    combined,
    curve,
    effect,
    final,
    highest,
    lowest,
    measure,
    peak,
    setting,
    slope,
)
from latebloom.methods.critical_periods import (
    Deficit,
    DeficitSweep,
    DeprivedTraining,
    LowRankTasks,
    ModeCompetition,
    Sensitivity,
    SpectralFlow,
    TwoPathways,
    critical_window,
    final_dominance,
    halves,
    hierarchy,
    mlp_pathways,
    outcomes,
    run_of,
    terms,
)
from latebloom.methods.critical_periods.deficits import Kind
from latebloom.methods.critical_periods.drawing import draw_flow
from latebloom.methods.critical_periods.pathways import Activation
from latebloom.methods.critical_periods.sensitivity import NEVER
from latebloom.methods.critical_periods.terms import due, gap, of_case

REMOVALS = (0, 1000, 5000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000)
LONG = 60_000  # the deficit whose harm is judged


@dataclass(frozen=True)
class Config:
    """One run of one of five experiments.

    - "pathways": two pathways on the hierarchical task; b is gated for `length` steps from `start`,
      in the share `probability` of them; a never expresses the mode `blocked`.
    - "modes": the flow of one mode of singular value `s`, one case for each of `starts` and
      `lengths`, `trajectories` random starts (mean, spread and shared as in `ModeCompetition`).
    - "completion": matrices of `size`, rank `rank1` (`n1` entries) before the switch and `rank2`
      (`n2`) after, the same matrix if `same`; the switch comes after each of `removals`, then `post`
      steps. These count the paper's steps: `speedup` divides them and multiplies `rate`.
    - "spectral": `steps` of descent and of the flow of the product, switching tasks half-way.
    - "views": halves of the images of `data`, one pathway each; a deficit of `kind` and `strength`
      of pathway b for `length` steps from each of `onsets`.
    """

    experiment: Literal["pathways", "modes", "completion", "spectral", "views"] = "pathways"
    depth: int = 4
    rate: float = 0.01
    steps: int = 1000

    start: int = 0
    length: int = 150
    probability: float = 1.0
    blocked: int | None = None
    activation: Activation = "identity"
    width: int = 100

    s: float = 10.0
    constant: float = 0.0
    starts: tuple[int, ...] = (0,)
    lengths: tuple[int, ...] = (0,)
    mean: float = 0.0
    spread: float = 0.1
    shared: bool = True
    trajectories: int = 1

    size: int = 100
    rank1: int = 10
    rank2: int = 5
    n1: int = 2000
    n2: int = 2000
    same: bool = False
    removals: tuple[int, ...] = REMOVALS
    post: int = 30_000
    init_scale: float = 1e-3
    speedup: int = 1

    data: str = "digits"
    kind: Kind = "gate"
    strength: float = 1.0
    onsets: tuple[int, ...] = (0, 100, 200, 400, 800, 1200)
    batch_size: int = 64

    rows: int = 70


def make_process(config: Config) -> Process:
    if config.experiment == "pathways":
        return TwoPathways(
            hierarchy(), depth=config.depth, start=config.start, length=config.length,
            blocked=config.blocked, probability=config.probability, rate=config.rate,
            spread=config.spread, width=config.width, activation=config.activation,
        )  # fmt: skip
    if config.experiment == "modes":
        return ModeCompetition(
            config.s, config.depth, config.starts, config.lengths, dt=config.rate,
            mean=config.mean, spread=config.spread, constant=config.constant, shared=config.shared,
            trajectories=config.trajectories,
        )  # fmt: skip
    tasks = LowRankTasks(
        size=config.size, rank1=config.rank1, rank2=config.rank2, n1=config.n1, n2=config.n2,
        same=config.same,
    )  # fmt: skip
    if config.experiment == "completion":
        removals = [steps // config.speedup for steps in config.removals]
        return DeficitSweep(
            tasks, removals, config.post // config.speedup, depth=config.depth,
            rate=config.rate * config.speedup, init_scale=config.init_scale,
        )  # fmt: skip
    if config.experiment == "spectral":
        return SpectralFlow(tasks, config.steps // 2, depth=config.depth, rate=config.rate)
    views = halves(load(config.data))
    widths = (config.width,) * (config.depth - 1)
    return DeprivedTraining(
        model=partial(mlp_pathways, views.train, widths, 10), data=views,
        deficit=Deficit(config.kind, 1, 0, config.length, config.strength), onsets=config.onsets,
        optimiser=_sgd, hyper={"rate": config.rate}, batch_size=config.batch_size,
        loss=optax.softmax_cross_entropy_with_integer_labels,
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    steps = config.steps
    if config.experiment == "completion":
        steps = (config.removals[-1] + len(config.removals) * config.post) // config.speedup
    if config.experiment == "modes" and steps > 10_000:
        return log_steps(steps, 15)
    return np.unique(np.linspace(0, steps, min(steps, config.rows) + 1).astype(int))


def _sgd(rate: Array) -> optax.GradientTransformation:
    return optax.sgd(rate)


def _modes(depth: int, strength: float, **more: object) -> Config:
    """A mode that starts at `strength` in both pathways, up to 10 %."""
    base = Config("modes", depth, mean=strength ** (1 / depth), s=15**0.5)
    return replace(base, **more)  # pyright: ignore


def _completion(depth: int = 3, **more: object) -> Config:
    return replace(Config("completion", depth, rate=0.2), **more)  # pyright: ignore


PORTRAITS, SMALL, SHORT, DEEPER = (2, 5, 8, 13), (2, 3, 4), (2, 3, 4, 6), (2, 4, 6)
RANKS, OBSERVED, SUBSETS = (2, 5, 15), (1000, 1500, 3000, 4000), (1250, 1750, 2000)
SCALES = {"0.1": 0.1, "0.01": 0.01, "1e-4": 1e-4}
KINDS: dict[Kind, float] = {"gate": 1.0, "remove": 1.0, "noise": 2.0}
LINEAR, LATE = Config(), {"start": 750}
GUILLERY = Config(depth=3, length=200, blocked=1)
VIEWS = Config("views", 3, rate=0.2, steps=2000, length=400, width=64)
PORTRAIT = Config(
    "modes", rate=0.001, constant=1.0, starts=(0, 100, 0), lengths=(15, 15, 0), spread=0.01,
    shared=False, trajectories=100,
)  # fmt: skip
ARMS: dict[str, Config] = {
    "no-deficit": replace(LINEAR, length=0),
    "early": LINEAR,
    "middle": replace(LINEAR, start=400),
    "late": replace(LINEAR, **LATE),
    "sometimes": replace(LINEAR, probability=0.9),
    "half-rate": replace(LINEAR, rate=0.005, length=300, steps=2000),
    **{f"short-{d}": replace(LINEAR, depth=d, length=8) for d in SHORT},
    "guillery": GUILLERY,
    "blocked-only": replace(GUILLERY, length=0),
    **{f"{act}-{name}": replace(LINEAR, depth=3, activation=act, **more)  # pyright: ignore
       for act in ("relu", "tanh") for name, more in (("early", {}), ("late", LATE))},
    "relu-guillery": replace(GUILLERY, activation="relu"),
    "tanh-guillery": replace(GUILLERY, activation="tanh"),
    **{f"portrait-{d}": replace(PORTRAIT, depth=d) for d in PORTRAITS},
    **{f"small-{d}": Config("modes", d, steps=1_000_000, starts=(0, 500_000), lengths=(5, 10_000),
                            mean=0.005, spread=0.0) for d in SMALL},
    **{f"windows-{d}": _modes(d, 0.01, lengths=(0, 2, 5, 10, 20, 40, 80)) for d in SHORT},
    **{f"onsets-{d}": _modes(d, 0.01, starts=tuple(range(0, 301, 20)), lengths=(8,)) for d in DEEPER},
    "depth-1": _completion(1),
    "depth-2": _completion(2),
    "depth-3": _completion(3, rows=300),
    **{f"rank-{r}": _completion(rank1=r) for r in RANKS},
    **{f"observed-{n}": _completion(n1=n, n2=n) for n in OBSERVED},
    **{f"init-{name}": _completion(init_scale=x, post=50_000) for name, x in SCALES.items()},
    **{f"subset-depth-{d}": _completion(d, n1=1000, n2=1500, same=True) for d in (1, 2, 3)},
    **{f"subset-{n}": _completion(n1=1000, n2=n, same=True) for n in SUBSETS},
    "spectral": Config("spectral", 3, rate=0.25, steps=20_000, rank1=8, rank2=2, n1=5000, n2=5000),
    **{f"views-{kind}": replace(VIEWS, kind=kind, strength=x) for kind, x in KINDS.items()},
}  # fmt: skip


S = np.linalg.svd(hierarchy(), compute_uv=False)
ENDS = {mode: final("dominance", mode=mode) for mode in range(1, len(S) + 1)}
OTHERS = [ENDS[mode] for mode in ENDS if mode != 2]  # a cannot express mode 2
least, largest = lowest(ENDS.values()), highest(abs(end) for end in ENDS.values())
least_other, largest_other = lowest(OTHERS), highest(abs(end) for end in OTHERS)


def held(mode: int, by: float) -> Measure:
    """Share of a mode that pathway b holds at the end."""
    return final("strength", mode=mode, path="b") / by


relearnt = held(2, np.sqrt(7))
lack = held(2, S[1]) - highest(held(mode, S[mode - 1]) for mode in ENDS if mode != 2)


@measure("area under dominance against log(1 + length)")
def area(trace: xr.Dataset) -> np.ndarray:
    return np.trapezoid(final_dominance(trace), np.log1p(setting(trace, "lengths")), axis=1)


def without_deficit(ode: str) -> Effect:
    """How far the network is from the ODE of one without a deficit."""

    @effect(f"largest distance from {ode} without a deficit / s", "early", "no-deficit")
    def of(traces: Traces) -> np.ndarray:
        return peak(gap(ode, S))(traces["early"].assign({ode: traces["no-deficit"][ode]}))

    return of


def error(removal: int) -> Measure:
    """Reconstruction error at the end after a deficit of `removal` of the paper's steps."""

    def of(trace: xr.Dataset) -> np.ndarray:
        return final("final_error", removal=removal // setting(trace, "speedup"))(trace)

    return Measure(f"final error after {removal:,} steps of the first task", of)


@measure("rank correlation of the final error with the length of the deficit")
def longer(trace: xr.Dataset) -> np.ndarray:
    errors = trace.final_error.isel(step=-1).sel(removal=slice(None, LONG // setting(trace, "speedup")))  # fmt: skip
    return np.array([stats.spearmanr(errors.removal, row)[0] for row in errors.values])


def early_less_late(activation: str, of: Measure) -> Effect:
    return of[f"{activation}-early"] - abs(of[f"{activation}-late"])


harm, most = error(LONG) - error(0), error(100_000) - error(0)
over_fill, fit = error(0) / final("fill_error"), final("fit_dominance")
halving = peak(gap("flow", S))["early"] / peak(gap("flow", S))["half-rate"]
by_length = [area[f"windows-{d}"] for d in SHORT]
TWO, SHARE, ERROR = "(K_a - K_b) / (K_a + K_b)", "share of s", "mean squared error"
NEGLIGIBLE, NEW, FIT = "negligible effect", "not in the paper", "share of the fit"
DEPTH, ALIKE = "the effect grows with depth", "nonlinear networks behave alike"
LATER = "dominance, early - |late|"
CLAIMS = (
    Claim("C1.early", "An early deficit of b gives every mode to a, for good (smallest dominance)",
          "the other pathway wins the features permanently", least["early"], "> 0.8", TWO, null=least["no-deficit"]),
    Claim("C1.late", "The same deficit after learning changes nothing (largest |dominance|)",
          NEGLIGIBLE, largest["late"], "< 0.1", TWO, null=largest["early"]),
    Claim("C1.none", "Without a deficit both pathways hold as much of every mode", "(control)",
          largest["no-deficit"], "< 0.1", TWO, null=largest["early"]),
    Claim("C1.middle", "Nor does it change the strongest mode once that is learnt",
          "modes learnt before the deficit are safe", abs(ENDS[1])["middle"], "< 0.1", TWO, null=abs(ENDS[1])["early"]),
    Claim("C1.sometimes", "Gating nine early steps in ten does the same", "probabilistic gating",
          least["sometimes"], "> 0.8", TWO, null=least["no-deficit"]),
    Claim("C2.networks", "A short early deficit gives the strongest mode to a the more, the deeper",
          DEPTH, slope(SHORT, [ENDS[1][f"short-{d}"] for d in SHORT]), "> 0", "dominance a layer"),
    Claim("C2.area", "So does one of any length: the area under dominance grows with every depth",
          DEPTH, lowest(b - a for a, b in pairwise(by_length)), "> 0", "least gain in area"),
    Claim("C2.large", "And from large initial weights, depths 2 to 13",
          DEPTH, slope(PORTRAITS, [due(0)[f"portrait-{d}"] for d in PORTRAITS]), "> 0", "dominance a layer"),
    Claim("C2.large-late", "There too a late deficit has next to no effect, at any depth",
          NEGLIGIBLE, highest(abs(due(1))[f"portrait-{d}"] for d in PORTRAITS), "< 0.1", "change of dominance",
          null=highest(abs(due(0))[f"portrait-{d}"] for d in PORTRAITS)),
    Claim("C3.steps", "Gradient descent follows the ODE, integrated in steps of the learning rate",
          "the ODE matches the network", peak(gap("euler", S))["early"], "< 0.02", SHARE, null=without_deficit("euler")),
    Claim("C3.flow", "Gradient descent follows the ODE, integrated exactly",
          "the ODE matches the network", peak(gap("flow", S))["early"], "< 0.02", SHARE, null=without_deficit("flow")),
    Claim("C3.order", "The distance to the exact ODE shrinks in proportion to the learning rate",
          "(theory: order 1)", combined("log2", np.log2, halving), "> 0.8", "order", null=0.0),  # as far at any rate
    Claim("C3.product", "Singular values of a product of matrices follow the spectral ODE",
          "the ODE matches gradient descent", average("distance")["spectral"], "< 0.02",
          "mean distance / largest", null=terms.at_rest["spectral"]),
    Claim("C4.relearns", "If a cannot express a mode, the deprived pathway b learns that mode later",
          "b learns the critical segment", relearnt["guillery"], "> 0.8", SHARE, null=relearnt["early"]),
    Claim("C4.others", "While a keeps all other modes", "a wins all other modes", least_other["guillery"], "> 0.8",
          TWO, null=least_other["blocked-only"]),
    Claim("C4.control", "Without the gate both pathways share all other modes", "(control)",
          largest_other["blocked-only"], "< 0.1", TWO, null=largest_other["guillery"]),
    Claim("C5.harm", "Depth 3: 60,000 steps of the wrong task first leave a larger final error",
          "final error grows with the deficit", harm["depth-3"], "> 0", ERROR),
    Claim("C5.depth", "Depth 3 suffers more than depth 2", "deeper networks suffer more",
          harm["depth-3"] - harm["depth-2"], "> 0", ERROR),
    Claim("C5.control", "Depth 1 suffers less than a tenth of what depth 3 does", "(control)",
          harm["depth-1"] - 0.1 * harm["depth-3"], "< 0", ERROR),
    Claim("C5.saturates", "Less than a quarter of the harm of 100,000 steps comes after 60,000",
          "the error saturates", ((most - harm) / most)["depth-3"], "< 0.25", "share of the harm",
          null=0.4),  # in proportion to the length
    Claim("C5.baseline", "Without a deficit, depth 3 is far ahead of the least-norm solution",
          "(control)", over_fill["depth-3"], "< 0.1", "ratio of errors", null=over_fill["depth-1"]),
    Claim("C6.rank", "A first task of rank 15 does more harm than one of rank 2",
          "the rank of the first task matters", harm["rank-15"] - harm["rank-2"], "> 0", ERROR),
    Claim("C6.observed", "With 1,000 entries observed the harm is larger than with 4,000",
          "fewer observations, more harm", harm["observed-1000"] - harm["observed-4000"], "> 0", ERROR),
    Claim("C6.many", "With 4,000 entries it is less than a tenth of that with 2,000",
          "many observations, no harm", harm["observed-4000"] - 0.1 * harm["depth-3"], "< 0", ERROR),
    Claim("C7.harm", "60,000 steps with 1,000 of the 1,500 entries first leave a larger error",
          "training on less data first does harm", harm["subset-depth-3"], "> 0", ERROR),
    Claim("C7.longer", "The longer, the larger (up to 60,000 steps)", "harm grows with the deficit",
          longer["subset-depth-3"], "> 0.5", "Spearman", null=longer["subset-depth-1"]),
    Claim("C7.depth", "Depth 3 suffers more from it than depth 2", "deeper networks suffer more",
          harm["subset-depth-3"] - harm["subset-depth-2"], "> 0", ERROR),
    Claim("C8.relu", "ReLU networks: an early deficit gives the fit to a, a late one does not", ALIKE,
          early_less_late("relu", fit), "> 0.5", LATER, budget="thorough",
          null=early_less_late("relu", at("fit_dominance", 0))),
    Claim("C8.tanh", "Tanh networks: the same", ALIKE, early_less_late("tanh", fit), "> 0.5", LATER,
          budget="thorough", null=early_less_late("tanh", at("fit_dominance", 0))),
    Claim("C8.relu-lack", "ReLU: the deprived pathway relearns the blocked mode before all others", ALIKE,
          lack["relu-guillery"], "> 0.2", SHARE, budget="thorough", null=lack["relu-early"]),
    Claim("C8.tanh-lack", "Tanh: the same", ALIKE, lack["tanh-guillery"], "> 0.2", SHARE, budget="thorough",
          null=lack["tanh-early"]),
    *(Claim(f"C8.views-{kind}", text, NEW, terms.first_over_last(1)[f"views-{kind}"], "> 0.1", FIT, budget="thorough",
            null=0.0)  # no matter when
      for kind, text in (("gate", "Halves of digits: gating b first costs it more of the fit than gating it last"),
                         ("remove", "So does closing its eye"), ("noise", "So does noise"))),
)  # fmt: skip


GREY = style.colours[6]
SHADE = {"color": GREY, "alpha": 0.16, "linewidth": 0}
# One of each size.
SHOWN_MODES: dict[int, str] = dict(zip((1, 2, 3, 5), style.colours, strict=False))
DASHES = {"a": "-", "b": (0, (4, 2))}
LINES = {f"{'_' * (path == 'b')}mode {mode}": (mode, path) for path in DASHES for mode in SHOWN_MODES}  # fmt: skip


def shade_and_ode(ax: Axes, trace: xr.Dataset) -> None:
    """The deficit shaded; the exact ODE as dots, where the network has one."""
    start, length, act = (setting(trace, name) for name in ("start", "length", "activation"))
    ax.axvspan(start, start + length, **SHADE)
    for path, dashes in DASHES.items():
        ax.plot([], [], linestyle=dashes, color=GREY, label=f"pathway {path}")
    if act == "identity":
        flow = trace.flow.isel(seed=0, step=slice(None, None, 3))
        for mode, colour in SHOWN_MODES.items():
            ax.plot(flow.step, flow.sel(mode=mode), ".", color=colour, markersize=4)
        ax.plot([], [], ".", color=GREY, label="exact ODE")


def pathways(titles: Mapping[str, str], **more: Any) -> pictures.Picture:
    """Strengths of both pathways in four modes of the first seed; arm -> title."""
    return pictures.observables(
        {label: curve("strength", mode=mode, path=path) for label, (mode, path) in LINES.items()}, titles,
        look={label: {"colour": SHOWN_MODES[mode], "linestyle": DASHES[path]} for label, (mode, path) in LINES.items()},
        each=shade_and_ode, as_drawn=lambda trace: trace.isel(seed=[0]), height=2.9, **more)  # fmt: skip


@pictures.by_hand(8, 4, width=12, height=2.9, sharex=True, sharey=True)
def draw_portrait(traces: Traces, *axes: Axes) -> None:
    """Trajectories in the plane of both strengths, early and late deficit, depths across."""
    for place, ax in enumerate(axes):
        case, depth = place // 4, PORTRAITS[place % 4]
        one = traces[f"portrait-{depth}"].strength.isel(seed=0, case=case)
        paths = one.transpose("trajectory", "step", "path").values
        draw_flow(ax, 10, depth, constant=1.0, color=style.colours[3])
        ax.plot([0, 10], [10, 0], color=style.colours[0], linewidth=1.5)
        ax.plot(*paths.T, color=style.INK, linewidth=0.5, alpha=0.5)
        ax.plot(*paths[:, -1].T, ".", color=style.colours[1], markersize=5)
        ax.set(xlim=(-0.3, 10.3), ylim=(-0.3, 10.3), aspect="equal")
        ax.grid(False)
    for ax, when in zip(axes[::4], ("early", "late"), strict=True):
        ax.set_ylabel(f"{when} deficit\n$K_b$")
    for above, below, depth in zip(axes[:4], axes[4:], PORTRAITS, strict=True):
        above.set_title(f"depth {depth}")
        below.set_xlabel("$K_a$")


def against(levels: tuple[int, ...], arm: str) -> tuple[tuple[int, ...], list[Effect]]:
    return levels, [of_case(case)[arm] for case in range(len(levels))]


LENGTHS, ONSETS = ARMS["windows-2"].lengths, ARMS["onsets-2"].starts
deprived = pictures.trend(
    ("length", {f"depth {d}": against(LENGTHS, f"windows-{d}") for d in SHORT}),
    ("depth", {
        "early, large init": (PORTRAITS, [due(0)[f"portrait-{d}"] for d in PORTRAITS]),
        "late, large init": (PORTRAITS, [due(1)[f"portrait-{d}"] for d in PORTRAITS]),
        "early, small init": (SHORT, [ENDS[1][f"short-{d}"] for d in SHORT]),
        "early, tiny init": (SMALL, [of_case(0)[f"small-{d}"] for d in SMALL]),
    }),
    ("onset", {f"depth {d}": against(ONSETS, f"onsets-{d}") for d in DEEPER}),
    own={"length": {"xlabel": "length of an early deficit in steps", "xscale": "symlog", "ticks": LENGTHS,
                    "xlim": (-0.5, 100)},
         "depth": {"xlabel": "depth"}, "onset": {"xlabel": "onset of an 8-step deficit"}},
    ylabel="final dominance of a", ylim=(-0.1, 1.05),
)  # fmt: skip


def draw_depth(traces: Traces) -> MatplotlibFigure:
    """Final dominance against the window's length, depth, and onset with the end of the critical period."""
    figure = deprived(traces)
    windows = [critical_window(ONSETS, final_dominance(traces[f"onsets-{d}"])) for d in DEEPER]
    for window in windows:
        figure.axes[2].axvspan(window.low, window.high, color=GREY, alpha=0.25, linewidth=0)
        pictures.vertical(figure.axes[2], window.closes)
    figure.axes[2].set_title(f"half by {', '.join(f'{window.closes:.0f}' for window in windows)}")
    return figure


@pictures.by_hand(width=6.4, legend=True)
def draw_spectral(traces: Traces, ax: Axes) -> None:
    one = traces["spectral"].isel(seed=0)
    ax.plot(one.step, one.descent, color=style.colours[0], linewidth=1.5)
    ax.plot(one.step, one.flow, ".", color=style.colours[1], markersize=4)
    ax.plot([], [], color=style.colours[0], label="gradient descent")
    ax.plot([], [], ".", color=style.colours[1], label="spectral ODE")
    pictures.vertical(ax, one.step.values[-1] // 2, "the task changes")
    ax.set(xlabel="step", ylabel="singular values of the product")


def in_time(trace: xr.Dataset) -> xr.Dataset:
    return trace.assign_coords(step=trace.step * setting(trace, "rate"))


def by_removal(trace: xr.Dataset) -> xr.Dataset:
    """Final errors by thousands of the paper's steps of the first task."""
    errors = trace.final_error.isel(step=-1, drop=True).rename(removal="step")
    return errors.assign_coords(step=errors.step * setting(trace, "speedup") / 1000).to_dataset()


def by_onset(trace: xr.Dataset) -> xr.Dataset:
    """What is held and done at the end by the onset of the deficit."""
    return outcomes(trace, 1).drop_sel(onset=NEVER).rename(onset="step")


COMPLETION_PANELS = {  # title -> label, arms
    "rank 10, then rank 5": ("depth {depth}", ("depth-1", "depth-2", "depth-3")),
    "rank of the first task": ("rank {rank1}", ("rank-2", "rank-5", "depth-3", "rank-15")),
    "entries observed": ("{n1:,}", ("observed-1000", "observed-1500", "depth-3", "observed-3000", "observed-4000")),
    "1,000, then 1,500 entries": ("depth {depth}", tuple(f"subset-depth-{d}" for d in (1, 2, 3))),
    "1,000, then n entries": ("{n2:,}", ("subset-1250", "subset-depth-3", "subset-1750", "subset-2000")),
    "initial scale": ("{init_scale:g}", ("init-0.1", "init-0.01", "depth-3", "init-1e-4")),
}  # fmt: skip


def draw_completion(traces: Traces) -> MatplotlibFigure:
    shown = [(title, {arm: label for arm in arms if arm in traces})
             for title, (label, arms) in COMPLETION_PANELS.items()]  # fmt: skip
    return pictures.curves(
        "final_error", *((title, arms) for title, arms in shown if len(arms) > 1), as_drawn=by_removal,
        markers=True, ylim=(0, None), xlabel="steps of the first task in thousands",
        ylabel="final reconstruction error",
    )(traces)  # fmt: skip


@pictures.by_hand(3, width=13.8)
def draw_spectra(traces: Traces, left: Axes, middle: Axes, right: Axes) -> None:
    """What the product's singular values do before and after the switch."""
    trace = traces["depth-3"]
    speedup = setting(trace, "speedup")
    last = trace.sizes["removal"] - 1
    for ax, branch, title in ((left, 0, "no deficit"), (middle, last, "after the longest deficit")):
        run = run_of(trace.isel(seed=0), branch)
        ax.plot(run.step * speedup / 1000, run.spectrum, color=style.colours[0], linewidth=1.2)
        ax.axvspan(0, trace.removal.values[branch] * speedup / 1000, **SHADE)
        ax.set(title=title, xlabel="thousand steps", ylabel="singular values of the product")
    for place, index in enumerate((0, -2, -1)):
        steps = int(trace.removal.values[index]) * speedup
        ends = trace.final_spectrum.isel(step=-1, removal=index).transpose("seed", "rank")
        right.plot(ends["rank"], ends.mean("seed"), "o-", markersize=4, color=style.colours[place],
                   label=f"{steps:,} steps of task 1")  # fmt: skip
    right.axvline(5.5, ymin=0.4, color=style.colours[6], linestyle=":")
    right.set(title="at the end (dotted: true rank)", xlabel="rank", ylabel="singular value",
              yscale="log", ylim=(1e-2, None))  # fmt: skip
    right.legend()


EYES = {"views-gate": "gated", "views-remove": "eye closed", "views-noise": "noise"}
SHOWN = {"share of the fit held by b": "share", "test accuracy of b alone": "alone", "test accuracy of both": "metric"}  # fmt: skip
onsets = pictures.curves(
    SHOWN, ("", EYES), as_drawn=by_onset, markers=True, xlabel="onset of the deficit in steps"
)


def draw_views(traces: Traces) -> MatplotlibFigure:
    """Sensitivity curves of the two-view network: share of the fit, and accuracies."""
    figure = onsets(traces)
    without = outcomes(traces["views-gate"], 1).sel(onset=NEVER).mean()
    for ax, name in zip(figure.axes, SHOWN.values(), strict=True):
        pictures.horizontal(ax, float(without[name]), "no deficit")
    for place, arm in enumerate(EYES):
        if arm in traces:
            window = Sensitivity(traces[arm], pathway=1).window()
            if window.harmful and np.isfinite(window.closes):
                figure.axes[0].axvline(window.closes, color=style.colours[place], linestyle="--")
    return figure


STRENGTH = "pathway singular value K"
ODES = {"distance from the exact ODE": "flow", "from Euler steps": "euler"}
# The paper's problem at 40 times the step size, for fewer lengths of the first task.
BASE_REMOVALS = (0, 1000, 5000, 20_000, 60_000, 100_000)
SETTINGS: dict[str, dict[str, object]] = {
    arm: {"removals": BASE_REMOVALS if arm.startswith("depth") else (0, 5000, 20_000, 60_000), "speedup": 40}
    for arm, config in ARMS.items() if config.experiment == "completion"
}  # fmt: skip
SETTINGS["spectral"] = {"size": 40, "n1": 800, "n2": 800, "rate": 0.5, "steps": 5000}
FOR_FIGURES = (*(a for a in ARMS if a.startswith(("small", "onsets"))), "rank-5", "subset-2000")
SMOKE = {
    "completion": {"size": 12, "n1": 60, "n2": 90, "rank1": 4, "rank2": 2, "speedup": 1000,
                   "rate": 2e-3, "removals": BASE_REMOVALS},
    "pathways": {"steps": 20, "start": 0, "width": 10},
    "modes": {"steps": 20, "trajectories": 3},
    "spectral": {"size": 9, "n1": 60, "n2": 60, "steps": 10, "rate": 2.0},
    "views": {"steps": 10, "length": 3, "onsets": (0, 4), "width": 8},
}  # fmt: skip
SMOKE_ARMS = ("early", "half-rate", "windows-2", "depth-3", "spectral", "views-gate")

study = Study(
    paper=Paper(
        "critical-periods", "Critical Learning Periods Emerge Even in Deep Linear Networks",
        "Michael Kleinman, Alessandro Achille, Stefano Soatto", "ICLR", 2024, "2308.12221",
        "mjkleinman/CriticalPeriodDeepLinearNets",
    ),
    family="critical_periods",
    question="Why does a deficit early in training do lasting harm, when the same deficit later does "
    "none?",
    symptoms=(
        "one input stream or modality is ignored for good after a bad start",
        "a sensor or modality that came late never catches up",
        "pre-training on other data makes the final result worse",
        "starting from a model trained on less data is worse than from scratch",
        "warm start hurts generalisation",
        "which part of training is the critical period",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, SMOKE_ARMS, {}, {arm: SMOKE[ARMS[arm].experiment] for arm in SMOKE_ARMS}),
        "quick": Budget(6, arm_settings=SETTINGS, also=FOR_FIGURES),
        "thorough": Budget(6, arm_settings=SETTINGS, also=FOR_FIGURES),
        "full": Budget(20),
    },
    claims=CLAIMS,
    figures=(
        Figure("windows", "Strength of both pathways in four modes, with a deficit of pathway b (grey) "
               "at three times; depth 4, one seed.",
               pathways({arm: f"deficit {arm}" for arm in ("early", "middle", "late")}, ylabel=STRENGTH),
               ("early", "middle", "late")),
        Figure("guillery", "Pathway a can never express mode 2 and pathway b is gated at first (grey). "
               "Afterwards b learns what a lacks.",
               pathways({arm: f"{name}: a cannot express mode 2" for arm, name in (
                   ("guillery", "linear"), ("relu-guillery", "ReLU"), ("tanh-guillery", "tanh"))}, ylabel=STRENGTH), ("guillery",)),
        Figure("portrait", "The plane of both strengths in one mode, 100 random starts, large initial "
               "weights. Orange: where they end. Blue line: the task is learnt.", draw_portrait,
               tuple(f"portrait-{d}" for d in PORTRAITS)),
        Figure("depth", "Final dominance of pathway a by length, depth and onset of the deficit. Bands "
               "in the right panel: 95 % interval of the end of the critical period.", draw_depth,
               (*(f"windows-{d}" for d in SHORT), *(f"short-{d}" for d in SHORT),
                *(f"portrait-{d}" for d in PORTRAITS), *(f"onsets-{d}" for d in DEEPER))),
        Figure("ode", "How far gradient descent is from the equations of its modes: largest |K - K of the ODE| / s.",
               pictures.curves({name: at_least(gap(ode, S), 1e-8) for name, ode in ODES.items()},
                               ("", {"early": "rate {rate:g}", "half-rate": "rate {rate:g}"}), as_drawn=in_time,
                               levels={name: {"0.02": 0.02} for name in ODES}, yscale="log", ylim=(1e-9, 1),
                               xlabel="time (steps × rate)"), ("early", "half-rate")),
        Figure("spectral", "Singular values of three factors, rank 8 then 2: gradient descent against the spectral "
               "ODE; one seed.", draw_spectral, ("spectral",)),
        Figure("completion", "Matrix completion: final error after the first task was learnt for a "
               "while, always with the same number of steps afterwards. Bands span the seeds.",
               draw_completion, ("depth-1", "depth-2", "depth-3", "rank-2", "rank-15")),
        Figure("spectra", "Singular values of the product of three factors, rank 10 then rank 5.",
               draw_spectra, ("depth-3",)),
        Figure("nonlinear", "The same networks with an activation after every layer, depth 3.",
               pathways({f"{act}-{when}": f"{name}, deficit {when}" for act, name in (("relu", "ReLU"), ("tanh", "tanh"))
                         for when in ("early", "late")}, columns=2, ylabel="strength $u^T \\Omega v$"),
               ("relu-early", "relu-late", "tanh-early", "tanh-late")),
        Figure("views", "A two-pathway network on halves of digits, pathway b deprived for 400 steps. "
               "Dashed: where the harm has fallen to half.", draw_views, tuple(EYES)),
    ),
    data="synthetic (hierarchical attributes, low-rank matrices); scikit-learn digits",
    watch="error",
    notes="Below the full budget completion runs the paper's problem (100 x 100) with the step size times 40 and all "
    "numbers of steps divided by 40, which changes final errors by 0.3 % (compared on one seed); fewer "
    "lengths; the spectral ODE on 40 x 40 matrices. The deficit lasts exactly the stated steps (the "
    "published code adds one). C2.networks uses windows of 8 steps, C2.area windows from 0 to 80, since "
    "with the paper's 150 even depth 2 is decided entirely. Scales of the two-view network, lengths "
    "of deficits and the choice of share as its measure were settled on other seeds; so were C3.product "
    "as a mean over rates, the lengths up to 100,000 of C5.saturates, the direction of C6.rank, and all "
    "thresholds of C8.",
)  # fmt: skip
