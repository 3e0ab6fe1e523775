"""What a study is: a paper's question as arms, budgets, claims and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latebloom.lab.naming import nearest
from latebloom.lab.settings import override

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from latebloom.measures import Effect

Traces = Mapping[str, xr.Dataset]
BUDGETS = ("quick", "thorough", "full")  # from the least to the largest


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
    """How much is run: seeds, and settings laid over the arms' configs.

    Its arms are those that the claims of this budget read, and `also`, which only figures need;
    full runs all. Smoke names its `arms` one by one (None: all).
    """

    seeds: int
    arms: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    arm_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """A regime that the paper speaks in, reached where the effect's mean is beyond a threshold."""

    effect: Effect
    holds: str
    reason: str  # what was not reached, where it was not

    def __post_init__(self) -> None:
        bound(self.holds, f"the need {self.reason!r}")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, as a per-seed effect and the threshold that it must pass.

    `effect(traces)` returns one number a seed, NaN where a seed cannot say; `holds` is "> x" or
    "< x".

    - `budget`: the least of quick, thorough and full that judges it.
    - `null`: what scores without the thing claimed (untrained, shuffled, a trivial measure), as an
      effect or a number. Where it passes the same threshold there is no evidence for the claim.
    - `needs`: where one is not met the claim is out of reach, not contradicted.
    - `added`: "after results" if it was, or "".
    """

    id: str
    text: str
    paper: str
    effect: Effect
    holds: str
    unit: str = "1"
    budget: str = field(default="quick", kw_only=True)
    null: Effect | float | None = field(default=None, kw_only=True)
    needs: tuple[Need, ...] = field(default=(), kw_only=True)
    added: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        bound(self.holds, f"claim {self.id}")
        if self.budget not in BUDGETS:
            raise ValueError(
                f"claim {self.id}: its budget is one of {', '.join(BUDGETS)}, not {self.budget!r}"
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it reads, for its effect, its null and its needs."""
        read = [self.effect, self.null, *(need.effect for need in self.needs)]
        return tuple(dict.fromkeys(arm for e in read for arm in getattr(e, "arms", ())))


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
            if claim.budget not in self.budgets:
                raise ValueError(
                    f"{self.slug}, claim {claim.id}: there is no budget {claim.budget!r}"
                )
        for name, budget in self.budgets.items():
            for arm in (*(budget.arms or ()), *budget.also, *budget.arm_settings):
                if arm not in self.arms:
                    raise ValueError(f"{self.slug}, budget {name}: there is no arm {arm!r}")
            if name in BUDGETS and budget.arms is not None:
                raise ValueError(
                    f"{self.slug}, budget {name}: its arms are those that its claims read; "
                    "name what else figures need as `also`"
                )

    @property
    def slug(self) -> str:
        return self.paper.slug

    def budget(self, name: str) -> Budget:
        """The budget of that name, or a `ValueError` that names the nearest one."""
        if name not in self.budgets:
            raise ValueError(f"{self.slug} has no budget {name!r}{nearest(name, self.budgets)}")
        return self.budgets[name]

    def claims_of(self, budget: str) -> tuple[Claim, ...]:
        """The claims that a budget judges: its own and those of smaller ones; smoke tries all."""
        if budget not in BUDGETS:
            return self.claims
        judged = BUDGETS[: BUDGETS.index(budget) + 1]
        return tuple(claim for claim in self.claims if claim.budget in judged)

    def arms_of(self, budget: str) -> tuple[str, ...]:
        """The arms that a budget runs, in the study's order."""
        asked = self.budget(budget)
        if asked.arms is not None:
            return asked.arms
        if budget in ("smoke", "full"):
            return tuple(self.arms)
        read = {arm for claim in self.claims_of(budget) for arm in claim.arms} | {*asked.also}
        return tuple(arm for arm in self.arms if arm in read)

    def configs(
        self, budget: str, arms: tuple[str, ...] | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The config of each arm to run, with the budget's settings and the user's overrides.

        Raises `ValueError` for an arm or a setting that does not exist, or a value of the wrong
        type.
        """
        asked, configs = self.budget(budget), {}
        for arm in arms or self.arms_of(budget):
            if arm not in self.arms:
                raise ValueError(f"{self.slug} has no arm {arm!r}{nearest(arm, self.arms)}")
            config = dataclasses.replace(self.arms[arm], **asked.settings)
            config = dataclasses.replace(config, **asked.arm_settings.get(arm, {}))
            for name, text in (overrides or {}).items():
                config = override(config, name, text)
            configs[arm] = config
        return configs


def bound(holds: str, whose: str = "the threshold") -> tuple[int, float]:
    """A threshold "> x" or "< x" as (1 or -1, x). Raises `ValueError` for any other text."""
    sign, _, limit = holds.partition(" ")
    try:
        return {">": 1, "<": -1}[sign], float(limit)
    except (KeyError, ValueError):
        raise ValueError(f"{whose}: holds must read '> x' or '< x', not {holds!r}") from None
