"""latebloom: learning under delay, as reusable JAX code and claims you can re-check."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latebloom import core, data, lab, losses, methods, nn, optim, probes
    from latebloom.core.process import HostProcess, Process, Quantity, log_steps
    from latebloom.core.unfold import DivergenceWarning, unfold

__all__ = [
    "DivergenceWarning",
    "HostProcess",
    "Process",
    "Quantity",
    "core",
    "data",
    "lab",
    "log_steps",
    "losses",
    "methods",
    "nn",
    "optim",
    "probes",
    "unfold",
]
_HOMES = {
    "DivergenceWarning": "core.unfold",
    "HostProcess": "core.process",
    "Process": "core.process",
    "Quantity": "core.process",
    "log_steps": "core.process",
    "unfold": "core.unfold",
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
