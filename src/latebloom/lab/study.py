"""What a study is: a paper's question as arms, budgets, claims and figures."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latebloom.lab.naming import nearest
from latebloom.lab.settings import override
from latebloom.measures import Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

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
    """How much is run: seeds, and settings laid over the arms' configs where these have them.

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
    """A regime that the paper speaks in, reached where the effect's mean is beyond a threshold.

    It is not shown to be reached where more than a quarter of the seeds cannot say (are NaN).
    """

    effect: Effect
    holds: str
    reason: str  # what was not reached, where it was not

    def __post_init__(self) -> None:
        bound(self.holds, f"the need {self.reason!r}")
        _check_effect(self.effect, f"the need {self.reason!r}: its effect")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, as a per-seed effect and the threshold that it must pass.

    `effect(traces)` returns one number a seed, NaN where a seed cannot say; `holds` is "> x" or
    "< x", x finite.

    - `budget`: the least of quick, thorough and full that judges it.
    - `null`: what scores without the thing claimed (untrained, shuffled, a trivial measure), as an
      effect or a number. Where it passes the same threshold there is no evidence for a claim that
      holds.
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
        _check_effect(self.effect, f"claim {self.id}: its effect")
        if self.null is not None and not isinstance(self.null, Real):
            _check_effect(self.null, f"claim {self.id}: its null")
        if self.budget not in BUDGETS:
            raise ValueError(
                f"claim {self.id}: its budget is one of {', '.join(BUDGETS)}, not {self.budget!r}"
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it reads, for its effect, its null and its needs."""
        read = [self.effect, self.null, *(need.effect for need in self.needs)]
        return tuple(dict.fromkeys(arm for e in read for arm in getattr(e, "arms", ())))


thorough = partial(Claim, budget="thorough")  # a claim that the thorough budget judges


def tuned_beside(study: str) -> Any:
    """What a tuning script wrote beside a study: `tuned_beside(__file__)` is study.json of study.py.

    Raises `FileNotFoundError` if there is none.
    """
    return json.loads(Path(study).with_suffix(".json").read_text(encoding="utf-8"))


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
        if not re.fullmatch("[a-z0-9][a-z0-9-]*", self.slug):
            raise ValueError(
                f"a study's slug has lowercase letters, digits and hyphens, unlike {self.slug!r}"
            )
        for arm, config in self.arms.items():
            if not dataclasses.is_dataclass(config) or isinstance(config, type):
                raise ValueError(f"{self.slug}, arm {arm}: its config must be a dataclass")
        for figure in self.figures:
            if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", figure.name):
                raise ValueError(
                    f"{self.slug}: a figure's name has letters, digits and hyphens, unlike {figure.name!r}"
                )
        for claim, count in Counter(claim.id for claim in self.claims).items():
            if count > 1:
                raise ValueError(f"{self.slug}: {count} claims are called {claim!r}")
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
            known = {setting for config in self.arms.values() for setting in _settings(config)}
            self._check_settings(name, budget.settings, known)
            for arm, settings in budget.arm_settings.items():
                self._check_settings(f"{name}, arm {arm}", settings, _settings(self.arms[arm]))

    def _check_settings(
        self, budget: str, settings: Mapping[str, Any], known: Collection[str]
    ) -> None:
        for setting in settings:
            if setting not in known:
                raise ValueError(
                    f"{self.slug}, budget {budget}: there is no setting "
                    f"{setting!r}{nearest(setting, known)}"
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

        A setting is laid over the configs that have it. Raises `ValueError` for an arm that does not
        exist, a setting that none of them has, or a value of the wrong type.
        """
        asked, configs = self.budget(budget), {}
        for arm in arms or self.arms_of(budget):
            if arm not in self.arms:
                raise ValueError(f"{self.slug} has no arm {arm!r}{nearest(arm, self.arms)}")
            config = self.arms[arm]
            own = {k: v for k, v in asked.settings.items() if k in _settings(config)}
            configs[arm] = dataclasses.replace(config, **{**own, **asked.arm_settings.get(arm, {})})
        for name, text in (overrides or {}).items():
            having = [arm for arm, config in configs.items() if name in _settings(config)]
            for arm in having or configs:
                configs[arm] = override(configs[arm], name, text)
        return configs


def _settings(config: Any) -> list[str]:
    return [setting.name for setting in dataclasses.fields(config)]


def _check_effect(term: Any, whose: str) -> None:
    if not isinstance(term, Effect):
        raise ValueError(
            f"{whose} must be an effect, as in final('loss')['arm'], not a {type(term).__name__}"
        )


def bound(holds: str, whose: str = "the threshold") -> tuple[int, float]:
    """A threshold "> x" or "< x", x finite, as (1 or -1, x). Raises `ValueError` for all else."""
    sign, _, limit = str(holds).partition(" ")
    try:
        if math.isfinite(number := float(limit)):
            return {">": 1, "<": -1}[sign], number
    except (KeyError, ValueError):
        pass
    raise ValueError(f"{whose}: holds must read '> x' or '< x' with x finite, not {holds!r}")
