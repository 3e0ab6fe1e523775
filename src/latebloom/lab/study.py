"""What a study is: a paper's question as arms, budgets, claims and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.lab.naming import nearest
from latebloom.lab.settings import override

Traces = Mapping[str, xr.Dataset]


@dataclass(frozen=True)
class Paper:
    """Where the method comes from; `code` is the authors' repository as owner/name, or ""."""

    slug: str
    title: str
    authors: str
    venue: str
    year: int
    arxiv: str
    code: str = ""

    def citation(self) -> str:
        """One line to cite the paper by."""
        return f"{self.authors}. {self.title}. {self.venue}, {self.year}. arXiv:{self.arxiv}"


@dataclass(frozen=True)
class Budget:
    """How much is run: seeds, arms (None: all), and settings laid over the arms' configs."""

    seeds: int
    arms: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    arm_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, as a per-seed effect and the threshold that it must pass.

    `effect(traces)` returns one number a seed, NaN where a seed cannot say; `holds` is "> x" or
    "< x". `arms` are those the effect reads.
    """

    id: str
    text: str
    paper: str
    arms: tuple[str, ...]
    effect: Callable[[Traces], np.ndarray]
    holds: str
    unit: str = "1"

    def __post_init__(self) -> None:
        parts = self.holds.split()
        if len(parts) != 2 or parts[0] not in "<>" or not _is_number(parts[1]):
            raise ValueError(f"claim {self.id}: holds must read '> x' or '< x', not {self.holds!r}")

    @property
    def threshold(self) -> float:
        return float(self.holds.split()[1])

    @property
    def above(self) -> bool:
        """Whether the claim holds above its threshold (or else below it)."""
        return self.holds.startswith(">")


@dataclass(frozen=True)
class Figure:
    """A picture drawn from the traces; `arms` are those it needs."""

    name: str
    caption: str
    draw: Callable[[Traces], MatplotlibFigure]
    arms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """One paper re-checked: `process` and `schedule` turn an arm's config into a run.

    Both are functions defined in the study's module. `data` names what the verdicts stand on,
    `notes` what differs from the paper's set-up, `watch` the observable whose curve is shown live.
    `side_by_side`: a pass from the command line takes a process for each core, which pays where
    arms are plain Python, or each compiles a program of its own.
    """

    paper: Paper
    family: str
    question: str
    symptoms: tuple[str, ...]
    arms: Mapping[str, Any]
    process: Callable[[Any], Any]
    schedule: Callable[[Any], np.ndarray]
    budgets: Mapping[str, Budget]
    claims: tuple[Claim, ...]
    figures: tuple[Figure, ...] = ()
    data: str = "synthetic"
    notes: str = ""
    watch: str = "test_accuracy"
    side_by_side: bool = False

    def __post_init__(self) -> None:
        for claim in self.claims:
            for arm in claim.arms:
                if arm not in self.arms:
                    raise ValueError(f"{self.slug}, claim {claim.id}: there is no arm {arm!r}")
        for name, budget in self.budgets.items():
            for arm in (*(budget.arms or ()), *budget.arm_settings):
                if arm not in self.arms:
                    raise ValueError(f"{self.slug}, budget {name}: there is no arm {arm!r}")

    @property
    def slug(self) -> str:
        return self.paper.slug

    def budget(self, name: str) -> Budget:
        """The budget of that name, or a `ValueError` that names the nearest one."""
        if name not in self.budgets:
            raise ValueError(f"{self.slug} has no budget {name!r}{nearest(name, self.budgets)}")
        return self.budgets[name]

    def configs(
        self, budget: Budget, arms: tuple[str, ...] | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The config of each arm to run, with the budget's settings and the user's overrides.

        Raises `ValueError` for an arm or a setting that does not exist, or a value of the wrong
        type.
        """
        chosen = arms or budget.arms or tuple(self.arms)
        configs = {}
        for arm in chosen:
            if arm not in self.arms:
                raise ValueError(f"{self.slug} has no arm {arm!r}{nearest(arm, self.arms)}")
            config = dataclasses.replace(self.arms[arm], **budget.settings)
            config = dataclasses.replace(config, **budget.arm_settings.get(arm, {}))
            for name, text in (overrides or {}).items():
                config = override(config, name, text)
            configs[arm] = config
        return configs


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
