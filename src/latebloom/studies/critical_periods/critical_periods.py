"""Critical learning periods emerge even in deep linear networks.

Kleinman, Achille, Soatto (ICLR 2024, arXiv 2308.12221).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from scipy import stats

from latebloom.core.process import Process, log_steps
from latebloom.data import load
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.critical_periods import (
    Deficit,
    DeficitSweep,
    DeprivedTraining,
    LowRankTasks,
    ModeCompetition,
    Pathways,
    SpectralFlow,
    TwoPathways,
    Views,
    critical_window,
    dominance,
    hierarchy,
    lasting_harm,
)
from latebloom.methods.critical_periods.deficits import Kind
from latebloom.methods.critical_periods.pathways import Activation
from latebloom.nn import MLP

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
    return DeprivedTraining(
        model=partial(_network, config), data=_views(config.data),
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


class _Flat(eqx.Module):
    """A network of flattened images."""

    network: MLP

    def __call__(self, x: Array) -> Array:
        return self.network(x.reshape(len(x), -1))


def _network(config: Config, key: PRNGKeyArray) -> Pathways:
    views = _views(config.data).train
    keys = jax.random.split(key, len(views))
    widths = (config.width,) * (config.depth - 1)
    pairs = zip(views, keys, strict=True)
    return Pathways(tuple(_Flat(MLP(view[0].size, widths, 10, key=k)) for view, k in pairs))


def _sgd(rate: Array) -> optax.GradientTransformation:
    return optax.sgd(rate)


@functools.cache
def _views(data: str) -> Views:
    """Left and right halves of the images, pixels from 0 to 1."""
    images = load(data)

    def halves(x: np.ndarray) -> tuple[Array, Array]:
        scaled, middle = jnp.asarray(x, jnp.float32) / 255, x.shape[2] // 2
        return scaled[:, :, :middle], scaled[:, :, middle:]

    labels = (jnp.asarray(y, jnp.int32) for y in (images.y_train, images.y_test))
    y_train, y_test = labels
    return Views(halves(images.x_train), y_train, halves(images.x_test), y_test)


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
    **{
        f"{act}-{name}": replace(LINEAR, depth=3, activation=act, **more)  # pyright: ignore
        for act in ("relu", "tanh")
        for name, more in (("early", {}), ("late", LATE))
    },
    "relu-guillery": replace(GUILLERY, activation="relu"),
    "tanh-guillery": replace(GUILLERY, activation="tanh"),
    **{f"portrait-{d}": replace(PORTRAIT, depth=d) for d in PORTRAITS},
    **{
        f"small-{d}": Config("modes", d, steps=1_000_000, starts=(0, 500_000), lengths=(5, 10_000),
                             mean=0.005, spread=0.0)
        for d in SMALL
    },
    **{f"windows-{d}": _modes(d, 0.01, lengths=(0, 2, 5, 10, 20, 40, 80)) for d in SHORT},
    **{
        f"onsets-{d}": _modes(d, 0.01, starts=tuple(range(0, 301, 20)), lengths=(8,))
        for d in DEEPER
    },
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


def final_dominance(traces: Traces, arm: str) -> np.ndarray:
    """Of every mode at the end, [seed, mode]."""
    return traces[arm].dominance.isel(step=-1).values


def early(traces: Traces) -> np.ndarray:
    return final_dominance(traces, "early").min(axis=1)


def late(traces: Traces) -> np.ndarray:
    return np.abs(final_dominance(traces, "late")).max(axis=1)


def undisturbed(traces: Traces) -> np.ndarray:
    return np.abs(final_dominance(traces, "no-deficit")).max(axis=1)


def middle(traces: Traces) -> np.ndarray:
    return np.abs(final_dominance(traces, "middle")[:, 0])


def sometimes(traces: Traces) -> np.ndarray:
    return final_dominance(traces, "sometimes").min(axis=1)


def slope(values: np.ndarray, depths: Sequence[int]) -> np.ndarray:
    """Least-squares slope of [depth, seed] on depth, for each seed."""
    return np.polyfit(depths, values, 1)[0]


def depth_slope(traces: Traces) -> np.ndarray:
    rows = [final_dominance(traces, f"short-{d}")[:, 0] for d in SHORT]
    return slope(np.stack(rows), SHORT)


def case_dominance(traces: Traces, arm: str) -> np.ndarray:
    """Final dominance of a mode's flow, mean over its trajectories, [seed, case]."""
    final = traces[arm].strength.isel(step=-1).transpose("seed", "case", "trajectory", "path")
    return np.asarray(dominance(final.values)).mean(axis=2)


def areas(traces: Traces) -> np.ndarray:
    """Area under dominance against the log of one plus the window, [depth, seed]."""
    lengths = np.array(ARMS["windows-2"].lengths)
    rows = [case_dominance(traces, f"windows-{d}") for d in SHORT]
    return np.stack([np.trapezoid(row, np.log1p(lengths), axis=1) for row in rows])


def least_gain(traces: Traces) -> np.ndarray:
    return np.diff(areas(traces), axis=0).min(axis=0)


def portrait_excess(traces: Traces, case: int) -> np.ndarray:
    """Mean dominance with a deficit minus that without, from the same starts, [depth, seed]."""
    rows = [case_dominance(traces, f"portrait-{d}") for d in PORTRAITS]
    return np.stack([row[:, case] - row[:, 2] for row in rows])


def portrait_slope(traces: Traces) -> np.ndarray:
    return slope(portrait_excess(traces, 0), PORTRAITS)


def portrait_late(traces: Traces) -> np.ndarray:
    return np.abs(portrait_excess(traces, 1)).max(axis=0)


def distance(traces: Traces, ode: str, arm: str = "early") -> np.ndarray:
    """Largest |K - K of the ODE| / s over time, modes and pathways."""
    trace = traces[arm]
    s = np.linalg.svd(hierarchy(), compute_uv=False)
    gap = np.abs(trace.strength - trace[ode]).transpose("seed", "step", "path", "mode")
    return (gap.values / s).max(axis=(1, 2, 3))


def order(traces: Traces) -> np.ndarray:
    """log2 of how much nearer the flow is at half the learning rate."""
    return np.log2(distance(traces, "flow") / distance(traces, "flow", "half-rate"))


def spectral_distance(traces: Traces) -> np.ndarray:
    return traces["spectral"].distance.mean("step").values


def relearnt(traces: Traces) -> np.ndarray:
    """Share of the blocked mode that pathway b holds at the end."""
    final = traces["guillery"].strength.isel(step=-1, mode=1).sel(path="b")
    return final.values / np.sqrt(7)


def others(traces: Traces) -> np.ndarray:
    return np.delete(final_dominance(traces, "guillery"), 1, axis=1).min(axis=1)


def others_ungated(traces: Traces) -> np.ndarray:
    return np.abs(np.delete(final_dominance(traces, "blocked-only"), 1, axis=1)).max(axis=1)


def only_the_lack(traces: Traces, arm: str) -> np.ndarray:
    """Share of the blocked mode that b holds, minus its largest share of any other."""
    final = traces[arm].strength.isel(step=-1).sel(path="b").values
    held = final / np.linalg.svd(hierarchy(), compute_uv=False)
    return held[:, 1] - np.delete(held, 1, axis=1).max(axis=1)


def final_error(traces: Traces, arm: str, removal: int) -> np.ndarray:
    """Reconstruction error at the end after a deficit of `removal` of the paper's steps."""
    trace = traces[arm]
    speedup = json.loads(trace.attrs["config"])["speedup"]
    return trace.final_error.isel(step=-1).sel(removal=removal // speedup).values


def harm(traces: Traces, arm: str, removal: int = LONG) -> np.ndarray:
    """What a deficit of that length adds to the final error."""
    return final_error(traces, arm, removal) - final_error(traces, arm, 0)


def harm_difference(one: str, other: str, traces: Traces) -> np.ndarray:
    return harm(traces, one) - harm(traces, other)


def beyond_tenth(small: str, large: str, traces: Traces) -> np.ndarray:
    """Harm in one arm minus a tenth of that in the other."""
    return harm(traces, small) - 0.1 * harm(traces, large)


def late_rise(traces: Traces) -> np.ndarray:
    """Share of the harm of 100,000 steps that comes after 60,000."""
    most = harm(traces, "depth-3", 100_000)
    return (most - harm(traces, "depth-3")) / most


def longer(arm: str, traces: Traces) -> np.ndarray:
    """Rank correlation of the final error with the length of the deficit, up to 60,000 steps."""
    trace = traces[arm]
    speedup = json.loads(trace.attrs["config"])["speedup"]
    errors = trace.final_error.isel(step=-1).sel(removal=slice(None, LONG // speedup))
    ranked = (stats.spearmanr(errors.removal, row) for row in errors.values)
    return np.array([rank for rank, _ in ranked])


def against_fill(traces: Traces) -> np.ndarray:
    """Error without a deficit over that of the least-norm solution."""
    fill = traces["depth-3"].fill_error.isel(step=-1).values
    return final_error(traces, "depth-3", 0) / fill


def still_early(activation: str, traces: Traces) -> np.ndarray:
    ends = {when: traces[f"{activation}-{when}"].fit_dominance for when in ("early", "late")}
    return (ends["early"] - np.abs(ends["late"])).isel(step=-1).values


def first_over_last(kind: Kind, traces: Traces) -> np.ndarray:
    """Share of the fit that the first onset costs pathway b beyond what the last one costs."""
    lost = lasting_harm(traces[f"views-{kind}"], 1, "share")
    return lost[:, 0] - lost[:, -1]


TWO, SHARE, ERROR = "(K_a - K_b) / (K_a + K_b)", "share of s", "mean squared error"
CLAIMS = (
    Claim("C1.early", "An early deficit of b gives every mode to a, for good (smallest dominance)",
          "the other pathway wins the features permanently", ("early",), early, "> 0.8", TWO),
    Claim("C1.late", "The same deficit after learning changes nothing (largest |dominance|)",
          "negligible effect", ("late",), late, "< 0.1", TWO),
    Claim("C1.none", "Without a deficit both pathways hold as much of every mode", "(control)",
          ("no-deficit",), undisturbed, "< 0.1", TWO),
    Claim("C1.middle", "Nor does it change the strongest mode once that is learnt",
          "modes learnt before the deficit are safe", ("middle",), middle, "< 0.1", TWO),
    Claim("C1.sometimes", "Gating nine early steps in ten does the same", "probabilistic gating",
          ("sometimes",), sometimes, "> 0.8", TWO),
    Claim("C2.networks", "A short early deficit gives the strongest mode to a the more, the deeper",
          "the effect grows with depth", tuple(f"short-{d}" for d in SHORT), depth_slope, "> 0",
          "dominance a layer"),
    Claim("C2.area", "So does one of any length: the area under dominance grows with every depth",
          "the effect grows with depth", tuple(f"windows-{d}" for d in SHORT), least_gain, "> 0",
          "least gain in area"),
    Claim("C2.large", "And from large initial weights, depths 2 to 13",
          "the effect grows with depth", tuple(f"portrait-{d}" for d in PORTRAITS), portrait_slope,
          "> 0", "dominance a layer"),
    Claim("C2.large-late", "There too a late deficit has next to no effect, at any depth",
          "negligible effect", tuple(f"portrait-{d}" for d in PORTRAITS), portrait_late, "< 0.1",
          "change of dominance"),
    Claim("C3.steps", "Gradient descent follows the ODE, integrated in steps of the learning rate",
          "the ODE matches the network", ("early",), partial(distance, ode="euler"), "< 0.02", SHARE),
    Claim("C3.flow", "Gradient descent follows the ODE, integrated exactly",
          "the ODE matches the network", ("early",), partial(distance, ode="flow"), "< 0.02", SHARE),
    Claim("C3.order", "The distance to the exact ODE shrinks in proportion to the learning rate",
          "(theory: order 1)", ("early", "half-rate"), order, "> 0.8", "order"),
    Claim("C3.product", "Singular values of a product of matrices follow the spectral ODE",
          "the ODE matches gradient descent", ("spectral",), spectral_distance, "< 0.02",
          "mean distance / largest"),
    Claim("C4.relearns", "If a cannot express a mode, the deprived pathway b learns that mode later",
          "b learns the critical segment", ("guillery",), relearnt, "> 0.8", SHARE),
    Claim("C4.others", "While a keeps all other modes", "a wins all other modes", ("guillery",),
          others, "> 0.8", TWO),
    Claim("C4.control", "Without the gate both pathways share all other modes", "(control)",
          ("blocked-only",), others_ungated, "< 0.1", TWO),
    Claim("C5.harm", "Depth 3: 60,000 steps of the wrong task first leave a larger final error",
          "final error grows with the deficit", ("depth-3",), partial(harm, arm="depth-3"), "> 0",
          ERROR),
    Claim("C5.depth", "Depth 3 suffers more than depth 2", "deeper networks suffer more",
          ("depth-3", "depth-2"), partial(harm_difference, "depth-3", "depth-2"), "> 0", ERROR),
    Claim("C5.control", "Depth 1 suffers less than a tenth of what depth 3 does", "(control)",
          ("depth-1", "depth-3"), partial(beyond_tenth, "depth-1", "depth-3"), "< 0", ERROR),
    Claim("C5.saturates", "Less than a quarter of the harm of 100,000 steps comes after 60,000",
          "the error saturates", ("depth-3",), late_rise, "< 0.25", "share of the harm"),
    Claim("C5.baseline", "Without a deficit, depth 3 is far ahead of the least-norm solution",
          "(control)", ("depth-3",), against_fill, "< 0.1", "ratio of errors"),
    Claim("C6.rank", "A first task of rank 15 does more harm than one of rank 2",
          "the rank of the first task matters", ("rank-15", "rank-2"),
          partial(harm_difference, "rank-15", "rank-2"), "> 0", ERROR),
    Claim("C6.observed", "With 1,000 entries observed the harm is larger than with 4,000",
          "fewer observations, more harm", ("observed-1000", "observed-4000"),
          partial(harm_difference, "observed-1000", "observed-4000"), "> 0", ERROR),
    Claim("C6.many", "With 4,000 entries it is less than a tenth of that with 2,000",
          "many observations, no harm", ("observed-4000", "depth-3"),
          partial(beyond_tenth, "observed-4000", "depth-3"), "< 0", ERROR),
    Claim("C7.harm", "60,000 steps with 1,000 of the 1,500 entries first leave a larger error",
          "training on less data first does harm", ("subset-depth-3",),
          partial(harm, arm="subset-depth-3"), "> 0", ERROR),
    Claim("C7.longer", "The longer, the larger (up to 60,000 steps)", "harm grows with the deficit",
          ("subset-depth-3",), partial(longer, "subset-depth-3"), "> 0.5", "Spearman"),
    Claim("C7.depth", "Depth 3 suffers more from it than depth 2", "deeper networks suffer more",
          ("subset-depth-3", "subset-depth-2"),
          partial(harm_difference, "subset-depth-3", "subset-depth-2"), "> 0", ERROR),
    Claim("C8.relu", "ReLU networks: an early deficit gives the fit to a, a late one does not",
          "nonlinear networks behave alike", ("relu-early", "relu-late"),
          partial(still_early, "relu"), "> 0.5", "dominance, early - |late|"),
    Claim("C8.tanh", "Tanh networks: the same", "nonlinear networks behave alike",
          ("tanh-early", "tanh-late"), partial(still_early, "tanh"), "> 0.5",
          "dominance, early - |late|"),
    Claim("C8.relu-lack", "ReLU: the deprived pathway relearns the blocked mode before all others",
          "nonlinear networks behave alike", ("relu-guillery",),
          partial(only_the_lack, arm="relu-guillery"), "> 0.2", SHARE),
    Claim("C8.tanh-lack", "Tanh: the same", "nonlinear networks behave alike", ("tanh-guillery",),
          partial(only_the_lack, arm="tanh-guillery"), "> 0.2", SHARE),
    Claim("C8.views-gate", "Halves of digits: gating b first costs it more of the fit than gating it last",
          "not in the paper", ("views-gate",), partial(first_over_last, "gate"), "> 0.1",
          "share of the fit"),
    Claim("C8.views-remove", "So does closing its eye", "not in the paper", ("views-remove",),
          partial(first_over_last, "remove"), "> 0.1", "share of the fit"),
    Claim("C8.views-noise", "So does noise", "not in the paper", ("views-noise",),
          partial(first_over_last, "noise"), "> 0.1", "share of the fit"),
)  # fmt: skip


SHADE = {"color": "#7F7F7F", "alpha": 0.16, "linewidth": 0}
SHOWN_MODES = (1, 2, 3, 5)  # one of each size


def _pathway_curves(ax: Axes, trace: xr.Dataset, title: str, ode: str = "flow") -> None:
    """Strengths of both pathways in four modes, the ODE as dots, the deficit shaded."""
    config = json.loads(trace.attrs["config"])
    ax.axvspan(config["start"], config["start"] + config["length"], **SHADE)
    one = trace.isel(seed=0)
    for place, mode in enumerate(SHOWN_MODES):
        for path, dashes in (("a", "-"), ("b", (0, (4, 2)))):
            colour, cell = style.colours[place], {"mode": mode, "path": path}
            label = f"mode {mode}" if path == "a" else None
            ax.plot(one.step, one.strength.sel(cell), linestyle=dashes, color=colour, label=label)
            if config["activation"] == "identity":
                ax.plot(one.step[::3], one[ode].sel(cell)[::3], ".", color=colour, markersize=4,
                        alpha=0.7)  # fmt: skip
    ax.set(title=title, xlabel="step")


def draw_windows(traces: Traces) -> MatplotlibFigure:
    figure, axes = style.figure(1, 3, sharey=True)
    for ax, arm in zip(axes, ("early", "middle", "late"), strict=True):
        _pathway_curves(ax, traces[arm], f"deficit {arm}")
    axes[0].set_ylabel("pathway singular value K")
    handles, labels = axes[0].get_legend_handles_labels()
    handles += [axes[0].plot([], [], color=style.colours[6], linestyle=d, marker=m)[0]
                for d, m in (("-", ""), ((0, (4, 2)), ""), ("", "."))]  # fmt: skip
    labels += ["pathway a", "pathway b", "ODE"]
    figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False)
    return figure


def draw_guillery(traces: Traces) -> MatplotlibFigure:
    arms = {"guillery": "linear", "relu-guillery": "ReLU", "tanh-guillery": "tanh"}
    shown = [arm for arm in arms if arm in traces]
    figure, axes = style.figure(1, len(shown), sharey=True, squeeze=False)
    for ax, arm in zip(axes[0], shown, strict=True):
        _pathway_curves(ax, traces[arm], f"{arms[arm]}: a cannot express mode 2")
    axes[0, 0].set_ylabel("pathway singular value K")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles += [axes[0, 0].plot([], [], color=style.colours[6], linestyle=d)[0]
                for d in ("-", (0, (4, 2)))]  # fmt: skip
    figure.legend(handles, [*labels, "pathway a", "pathway b"], loc="outside lower center",
                  ncols=6, frameon=False)  # fmt: skip
    return figure


def draw_nonlinear(traces: Traces) -> MatplotlibFigure:
    figure, axes = style.figure(2, 2, sharex=True, sharey=True, height=5.6)
    for row, act in zip(axes, ("relu", "tanh"), strict=True):
        for ax, when in zip(row, ("early", "late"), strict=True):
            label = {"relu": "ReLU", "tanh": "tanh"}[act]
            _pathway_curves(ax, traces[f"{act}-{when}"], f"{label}, deficit {when}")
        row[0].set_ylabel("strength $u^T \\Omega v$")
    axes[0, 0].set_xlabel("")
    axes[0, 1].set_xlabel("")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles += [axes[0, 0].plot([], [], color=style.colours[6], linestyle=d)[0]
                for d in ("-", (0, (4, 2)))]  # fmt: skip
    figure.legend(handles, [*labels, "pathway a", "pathway b"], loc="outside lower center",
                  ncols=6, frameon=False)  # fmt: skip
    return figure


def draw_portrait(traces: Traces) -> MatplotlibFigure:
    """Trajectories in the plane of both strengths, early and late deficit, depths across."""
    figure, axes = style.figure(2, 4, width=12, height=5.8, sharex=True, sharey=True)
    for column, depth in zip(axes.T, PORTRAITS, strict=True):
        one = traces[f"portrait-{depth}"].strength.isel(seed=0)
        for ax, case, when in zip(column, (0, 1), ("early", "late"), strict=True):
            paths = one.isel(case=case).transpose("trajectory", "step", "path").values
            _flow_lines(ax, depth)
            ax.plot([0, 10], [10, 0], color=style.colours[0], linewidth=1.5)
            ax.plot(*paths.T, color=style.INK, linewidth=0.5, alpha=0.5)
            ax.plot(*paths[:, -1].T, ".", color=style.colours[1], markersize=5)
            ax.set(xlim=(-0.3, 10.3), ylim=(-0.3, 10.3), aspect="equal")
            ax.grid(False)
            if depth == PORTRAITS[0]:
                ax.set_ylabel(f"{when} deficit\n$K_b$")
        column[0].set_title(f"depth {depth}")
        column[1].set_xlabel("$K_a$")
    return figure


def _flow_lines(ax: Axes, depth: int) -> None:
    """Directions of the flow from large initial weights, drawn where K_a and K_b are positive."""
    p = np.linspace(0, 3, 4001)
    k, grid = p * (p**2 + 1) ** ((depth - 1) / 2), np.linspace(0.05, 10, 24)
    root = np.interp(grid, k, p)
    speed = (root**2 + 1) ** (depth - 2) * (depth * root**2 + 1)
    gap = 10 - grid[None, :] - grid[:, None]
    ax.streamplot(grid, grid, speed[None, :] * gap, speed[:, None] * gap, density=0.55,
                  color=style.colours[3], linewidth=0.5, arrowsize=0.6)  # fmt: skip


def draw_depth(traces: Traces) -> MatplotlibFigure:
    """Final dominance against the window's length, depth, and onset."""
    figure, (left, middle, right) = style.figure(1, 3)
    for place, depth in enumerate(SHORT):
        cases = case_dominance(traces, f"windows-{depth}")
        left.plot(ARMS[f"windows-{depth}"].lengths, cases.mean(axis=0), "o-", markersize=4,
                  color=style.colours[place], label=f"depth {depth}")  # fmt: skip
    left.set(xscale="symlog", xlabel="length of an early deficit in steps",
             ylabel="final dominance of a", ylim=(-0.05, 1.05))  # fmt: skip
    left.set_xticks([0, 2, 5, 10, 20, 40, 80], ["0", "2", "5", "10", "20", "40", "80"])
    left.minorticks_off()
    left.legend()
    for case, when, colour in ((0, "early", 1), (1, "late", 0)):
        rows = portrait_excess(traces, case)
        middle.plot(PORTRAITS, rows, ".", color=style.colours[colour], alpha=0.4)
        middle.plot(PORTRAITS, rows.mean(axis=1), "-", color=style.colours[colour],
                    label=f"{when}, large init")  # fmt: skip
    rows = np.stack([final_dominance(traces, f"short-{d}")[:, 0] for d in SHORT])
    middle.plot(SHORT, rows.mean(axis=1), "s--", color=style.colours[2], label="early, small init")
    tiny = [case_dominance(traces, f"small-{d}")[:, 0].mean() for d in SMALL]
    middle.plot(SMALL, tiny, "^:", color=style.colours[3], label="early, tiny init")
    middle.set(xlabel="depth", ylabel="dominance due to the deficit", ylim=(-0.1, 1.05))
    middle.legend(loc="center right")
    for depth in DEEPER:
        arm = f"onsets-{depth}"
        cases, onsets = case_dominance(traces, arm), ARMS[arm].starts
        window = critical_window(onsets, cases)
        colour = style.colours[SHORT.index(depth)]
        right.plot(onsets, cases.mean(axis=0), "o-", markersize=3, color=colour,
                   label=f"depth {depth}: half by step {window.closes:.0f}")  # fmt: skip
        right.axvspan(window.low, window.high, color=colour, alpha=0.25, linewidth=0)
    right.set(
        xlabel="onset of an 8-step deficit", ylabel="final dominance of a", ylim=(-0.05, 1.05)
    )
    right.legend(loc="upper right")
    return figure


def draw_ode(traces: Traces) -> MatplotlibFigure:
    """Where descent and the exact ODE differ, and the spectral ODE."""
    figure, (left, right) = style.figure(1, 2, width=10)
    s = np.linalg.svd(hierarchy(), compute_uv=False)
    for place, (arm, label) in enumerate((("early", "rate 0.01"), ("half-rate", "rate 0.005"))):
        trace = traces[arm].isel(seed=0)
        time = trace.step * json.loads(trace.attrs["config"])["rate"]
        for ode, dashes in (("flow", "-"), ("euler", ":")):
            gap = np.abs(trace.strength - trace[ode]).max("path").transpose("step", "mode").values
            name = {"flow": "exact ODE", "euler": "Euler steps"}[ode]
            left.plot(time, np.maximum((gap / s).max(axis=1), 1e-8), dashes,
                      color=style.colours[place], label=f"{name}, {label}")  # fmt: skip
    left.axhline(0.02, color=style.colours[6], linewidth=0.8)
    left.set(yscale="log", xlabel="time (steps × rate)", ylabel="largest |K - K of the ODE| / s",
             title="two pathways")  # fmt: skip
    left.set_ylim(1e-11, 1)
    left.legend(loc="lower right", ncols=2)
    one = traces["spectral"].isel(seed=0)
    right.plot(one.step, one.descent, color=style.colours[0], linewidth=1.5)
    right.plot(one.step, one.flow, ".", color=style.colours[1], markersize=4)
    right.plot([], [], color=style.colours[0], label="gradient descent")
    right.plot([], [], ".", color=style.colours[1], label="spectral ODE")
    right.axvline(one.step.values[-1] // 2, color=style.colours[6], linestyle=":")
    right.set(xlabel="step (dotted: the task changes)", ylabel="singular values of the product",
              title="three factors, rank 8 then 2")  # fmt: skip
    right.legend()
    return figure


def _removal_curve(ax: Axes, trace: xr.Dataset, label: str, place: int) -> None:
    speedup = json.loads(trace.attrs["config"])["speedup"]
    errors = trace.final_error.isel(step=-1).transpose("seed", "removal")
    times, colour = errors.removal.values * speedup / 1000, style.colours[place]
    ax.plot(times, errors.mean("seed"), "o-", markersize=4, color=colour, label=label)
    ax.fill_between(times, errors.min("seed"), errors.max("seed"), color=colour, alpha=0.15,
                    linewidth=0)  # fmt: skip


COMPLETION_PANELS = (
    ("rank 10, then rank 5", {f"depth-{d}": f"depth {d}" for d in (1, 2, 3)}),
    ("rank of the first task", {
        "rank-2": "rank 2", "rank-5": "rank 5", "depth-3": "rank 10", "rank-15": "rank 15",
    }),
    ("entries observed", {
        "observed-1000": "1,000", "observed-1500": "1,500", "depth-3": "2,000",
        "observed-3000": "3,000", "observed-4000": "4,000",
    }),
    ("1,000, then 1,500 entries", {f"subset-depth-{d}": f"depth {d}" for d in (1, 2, 3)}),
    ("1,000, then n entries", {
        "subset-1250": "1,250", "subset-depth-3": "1,500", "subset-1750": "1,750",
        "subset-2000": "2,000",
    }),
    ("initial scale", {
        "init-0.1": "0.1", "init-0.01": "0.01", "depth-3": "0.001", "init-1e-4": "0.0001",
    }),
)  # fmt: skip


def draw_completion(traces: Traces) -> MatplotlibFigure:
    panels = [(title, {arm: label for arm, label in arms.items() if arm in traces})
              for title, arms in COMPLETION_PANELS]  # fmt: skip
    panels = [(title, arms) for title, arms in panels if len(arms) > 1]
    rows = (len(panels) + 2) // 3
    figure, axes = style.figure(rows, 3, width=12, height=3.2 * rows, squeeze=False)
    for ax, (title, arms) in zip(axes.flat, panels, strict=False):
        for place, (arm, label) in enumerate(arms.items()):
            _removal_curve(ax, traces[arm], label, place)
        ax.set(title=title, xlabel="steps of the first task in thousands", ylim=(0, None))
        ax.legend()
    for ax in axes[:, 0]:
        ax.set_ylabel("final reconstruction error")
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    return figure


def draw_spectra(traces: Traces) -> MatplotlibFigure:
    """What the product's singular values do before and after the switch."""
    figure, (left, middle, right) = style.figure(1, 3)
    trace = traces["depth-3"]
    speedup = json.loads(trace.attrs["config"])["speedup"]
    one = trace.isel(seed=0)
    last = int(one.sizes["removal"]) - 1
    for ax, branch, title in ((left, 0, "no deficit"), (middle, last, "after the longest deficit")):
        own = (one.branch == branch) | ((one.branch == -1) & (branch > 0))
        rows = one.isel(step=np.flatnonzero(own.values))
        rows = rows.sortby("age")
        ax.plot(rows.age * speedup / 1000, rows.spectrum, color=style.colours[0], linewidth=1.2)
        if branch:
            ax.axvspan(0, one.removal.values[-1] * speedup / 1000, **SHADE)
        ax.set(title=title, xlabel="thousand steps", ylabel="singular values of the product")
    for place, index in enumerate((0, -2, -1)):
        steps = int(one.removal.values[index]) * speedup
        final = trace.final_spectrum.isel(step=-1, removal=index).transpose("seed", "rank")
        right.plot(final["rank"], final.mean("seed"), "o-", markersize=4, color=style.colours[place],
                   label=f"{steps:,} steps of task 1")  # fmt: skip
    right.axvline(5.5, ymin=0.4, color=style.colours[6], linestyle=":")
    right.set(title="at the end (dotted: true rank)", xlabel="rank", ylabel="singular value",
              yscale="log", ylim=(1e-2, None))  # fmt: skip
    right.legend()
    return figure


def draw_views(traces: Traces) -> MatplotlibFigure:
    """Sensitivity curves of the two-view network: share of the fit, and accuracies."""
    figure, axes = style.figure(1, 3)
    names = {"gate": "gated", "remove": "eye closed", "noise": "noise"}
    for place, (kind, name) in enumerate(names.items()):
        trace, colour = traces[f"views-{kind}"], style.colours[place]
        final = trace.isel(step=-1).drop_sel(onset=-1)
        b = final.isel(path=1)
        for ax, values in zip(axes, (b.share, b.alone, final.metric), strict=True):
            ax.plot(final.onset, values.transpose("onset", "seed"), ".", color=colour, alpha=0.35)
            ax.plot(final.onset, values.mean("seed"), color=colour, label=name)
    without = traces["views-gate"].isel(step=-1).sel(onset=-1)
    b = without.isel(path=1)
    for ax, value in zip(axes, (b.share, b.alone, without.metric), strict=True):
        ax.axhline(float(value.mean()), color=style.INK, linestyle=":", label="no deficit")
        ax.set_xlabel("onset of the deficit in steps")
    for place, kind in enumerate(names):
        trace = traces[f"views-{kind}"]
        window = critical_window(trace.onset.values[1:], lasting_harm(trace, 1, "share"))
        if window.harmful and np.isfinite(window.closes):
            axes[0].axvline(window.closes, color=style.colours[place], linestyle="--", linewidth=1)
    axes[0].set_ylabel("share of the fit held by b")
    axes[1].set_ylabel("test accuracy of b alone")
    axes[2].set_ylabel("test accuracy of both")
    handles, labels = axes[0].get_legend_handles_labels()
    handles += axes[0].plot([], [], "--", color=style.colours[6], linewidth=1)
    figure.legend(handles, [*labels, "half of the harm (first panel)"], loc="outside lower center",
                  ncols=5, frameon=False)  # fmt: skip
    return figure


QUICK_REMOVALS, BASE_REMOVALS = (0, 5000, 20_000, 60_000), (0, 1000, 5000, 20_000, 60_000, 100_000)
FULL_ONLY = (
    *(f"init-{name}" for name in SCALES), "observed-1500", "observed-3000", "subset-1250",
    "subset-1750",
)  # fmt: skip


def _quick(nonlinear: bool) -> Budget:
    """What is linear, or all else: the budget "nonlinear"."""
    settings: dict[str, dict[str, object]] = {
        arm: {"removals": QUICK_REMOVALS, "speedup": 40}
        for arm, config in ARMS.items()
        if config.experiment == "completion"
    }
    for depth in (1, 2, 3):
        settings[f"depth-{depth}"]["removals"] = BASE_REMOVALS
    settings["spectral"] = {"size": 40, "n1": 800, "n2": 800, "rate": 0.5, "steps": 5000}
    apart = ("relu", "tanh", "views")
    arms = tuple(a for a in ARMS if a not in FULL_ONLY and a.startswith(apart) == nonlinear)
    return Budget(6, arms, {}, {arm: s for arm, s in settings.items() if arm in arms})


SMOKE = {
    "completion": {"size": 12, "n1": 60, "n2": 90, "rank1": 4, "rank2": 2, "speedup": 1000,
                   "rate": 2e-3, "removals": BASE_REMOVALS},
    "pathways": {"steps": 20, "start": 0, "width": 10},
    "modes": {"steps": 20, "trajectories": 3},
    "spectral": {"size": 9, "n1": 60, "n2": 60, "steps": 10, "rate": 2.0},
    "views": {"steps": 10, "length": 3, "onsets": (0, 4), "width": 8},
}  # fmt: skip


def _smoke() -> Budget:
    arms = ("early", "half-rate", "windows-2", "depth-3", "spectral", "views-gate")
    return Budget(2, arms, {}, {arm: SMOKE[ARMS[arm].experiment] for arm in arms})


study = Study(
    paper=Paper(
        slug="critical-periods",
        title="Critical Learning Periods Emerge Even in Deep Linear Networks",
        authors="Michael Kleinman, Alessandro Achille, Stefano Soatto",
        venue="ICLR",
        year=2024,
        arxiv="2308.12221",
        code="mjkleinman/CriticalPeriodDeepLinearNets",
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
        "smoke": _smoke(),
        "quick": _quick(nonlinear=False),
        "nonlinear": _quick(nonlinear=True),
        "full": Budget(20),
    },
    claims=CLAIMS,
    figures=(
        Figure("windows", "Strength of both pathways in four modes, with a deficit of pathway b (grey) "
               "at three times; depth 4, one seed. Dots: the exact ODE.", draw_windows,
               ("early", "middle", "late")),
        Figure("guillery", "Pathway a can never express mode 2 and pathway b is gated at first (grey). "
               "Afterwards b learns what a lacks.", draw_guillery, ("guillery",)),
        Figure("portrait", "The plane of both strengths in one mode, 100 random starts, large initial "
               "weights. Orange: where they end. Blue line: the task is learnt.", draw_portrait,
               tuple(f"portrait-{d}" for d in PORTRAITS)),
        Figure("depth", "Final dominance of pathway a by length, depth and onset of the deficit. Bands "
               "in the right panel: 95 % interval of the end of the critical period.", draw_depth,
               (*(f"windows-{d}" for d in SHORT), *(f"short-{d}" for d in SHORT),
                *(f"portrait-{d}" for d in PORTRAITS), *(f"small-{d}" for d in SMALL), *(f"onsets-{d}" for d in DEEPER))),
        Figure("ode", "Gradient descent against the equations it should follow.", draw_ode,
               ("early", "half-rate", "spectral")),
        Figure("completion", "Matrix completion: final error after the first task was learnt for a "
               "while, always with the same number of steps afterwards. Bands span the seeds.",
               draw_completion, ("depth-1", "depth-2", "depth-3", "rank-2", "rank-15")),
        Figure("spectra", "Singular values of the product of three factors, rank 10 then rank 5.",
               draw_spectra, ("depth-3",)),
        Figure("nonlinear", "The same networks with an activation after every layer, depth 3.",
               draw_nonlinear, ("relu-early", "relu-late", "tanh-early", "tanh-late")),
        Figure("views", "A two-pathway network on halves of digits, pathway b deprived for 400 steps. "
               "Dashed: where the harm has fallen to half.", draw_views,
               tuple(f"views-{kind}" for kind in KINDS)),
    ),
    data="synthetic (hierarchical attributes, low-rank matrices); scikit-learn digits",
    watch="error",
    notes="Quick: completion runs the paper's problem (100 x 100) with the step size times 40 and all "
    "numbers of steps divided by 40, which changes final errors by 0.3 % (compared on one seed); fewer "
    "lengths; the spectral ODE on 40 x 40 matrices. The deficit lasts exactly the stated steps (the "
    "published code adds one). C2.networks uses windows of 8 steps, C2.area windows from 0 to 80, since "
    "with the paper's 150 even depth 2 is decided entirely. Scales of the two-view network, lengths "
    "of deficits and the choice of share as its measure were settled on other seeds; so were C3.product "
    "as a mean over rates, the lengths up to 100,000 of C5.saturates, the direction of C6.rank, and all "
    "thresholds of C8.",
)  # fmt: skip
