"""The lab: runs studies, judges claims with honest intervals, keeps what was found."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latebloom.lab.application import Application, Applied, apply
    from latebloom.lab.study import Budget, Claim, Figure, Need, Paper, Study
    from latebloom.lab.verdict import Verdict, judge

__all__ = [
    "Application",
    "Applied",
    "Budget",
    "Claim",
    "Figure",
    "Need",
    "Paper",
    "Study",
    "Verdict",
    "apply",
    "judge",
]
_STUDY = ("Budget", "Claim", "Figure", "Need", "Paper", "Study")
_HOMES: dict[str, str] = dict.fromkeys(_STUDY, "study")
_HOMES |= dict.fromkeys(("Application", "Applied", "apply"), "application")
_HOMES |= dict.fromkeys(("Verdict", "judge"), "verdict")


def __getattr__(name: str) -> Any:
    """Import a part when it is first asked for, so that the command line starts without JAX."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
