"""latebloom: learning under delay, as reusable JAX code and claims you can re-check."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latebloom import (
        bandits,
        data,
        federated,
        grokking,
        lab,
        losses,
        nn,
        optim,
        probes,
        supervised,
        timing,
    )
    from latebloom.process import HostProcess, Process, Quantity, log_steps
    from latebloom.unfolding import DivergenceWarning, unfold

__all__ = [
    "DivergenceWarning",
    "HostProcess",
    "Process",
    "Quantity",
    "bandits",
    "data",
    "federated",
    "grokking",
    "lab",
    "log_steps",
    "losses",
    "nn",
    "optim",
    "probes",
    "supervised",
    "timing",
    "unfold",
]
_HOMES = {
    "DivergenceWarning": "unfolding",
    "HostProcess": "process",
    "Process": "process",
    "Quantity": "process",
    "log_steps": "process",
    "unfold": "unfolding",
}


def __getattr__(name: str) -> Any:
    """Import a part when it is first asked for, so that the command line starts without JAX."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
