"""A study small enough to check by hand: lines that begin at their seed and rise."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latebloom.core.process import HostProcess
from latebloom.lab import Budget, Claim, Figure, Paper, Study, style
from latebloom.measures import final


@dataclass(frozen=True)
class Config:
    slope: float = 1.0
    steps: int = 4
    tag: str | None = None


class Line(HostProcess):
    """Observes seed + slope * step."""

    def __init__(self, slope):
        self.slope = slope

    def init(self, seed):
        return (seed, 0)

    def step(self, state):
        return (state[0], state[1] + 1)

    def observe(self, state):
        return {"height": float(state[0] + self.slope * state[1])}


def make_process(config):
    return Line(config.slope)


def schedule(config):
    return np.arange(config.steps + 1)


height = final("height")
lead = height["steep"] - height["flat"]


def draw(traces):
    figure, ax = style.figure()
    style.band(ax, traces["steep"], "height", label="steep")
    ax.set_xlabel("step")
    return figure


def claim(holds, effect=lead, **more):
    return Claim("C1", "steep ends above flat", "by 8", effect, holds, "m", **more)


def make_study(*claims, **changes):
    options = dict(
        paper=Paper("lines", "On Lines", "A. Euclid", "Elements", -300, "0000.00000"),
        family="geometry", question="Which line ends higher?", symptoms=("my line is flat",),
        arms={"steep": Config(2.0), "flat": Config(0.0)}, process=make_process, schedule=schedule,
        budgets={"smoke": Budget(2, ("steep",), {"steps": 2}), "quick": Budget(3)},
        claims=claims or (claim("> 5"),), watch="height",
        figures=(Figure("lines", "Heights.", draw, ("steep",)),),
    )  # fmt: skip
    return Study(**(options | changes))


study = make_study()


# A study in a file of its own, with what it is about beside it.
OWN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from lines import Config, Line, claim, make_study
def make(config): return Line(config.slope)
study = make_study(claim("> 5"), process=make)
"""


def ending(arms: str, also: tuple[str, ...], more: str = "") -> str:
    """How a file of lines of its own ends, after its imports, `Config` and `make_process`."""
    return f"""

def schedule(config):
    return np.arange(5)


height = final("height")

study = Study(
    paper=Paper("lines", "On Lines", "A. Euclid", "Elements", -300, "0000.00000"),
    family="geometry", question="Which line ends higher?", symptoms=("my line is flat",),
    arms={{{arms}}},
    process=make_process, schedule=schedule,
    budgets={{"quick": Budget(9, also={also})}},
    claims=(Claim("C1", "steep ends above flat", "by 8", height["steep"] - height["flat"], "> 5", "m"),),
    watch="height", {more}
)
"""
