"""Methods by family, named by the field's terms."""

import importlib
import pkgutil
from typing import Any

FAMILIES = sorted(module.name for module in pkgutil.iter_modules(__path__))


def __getattr__(name: str) -> Any:
    """Import a family when it is first asked for: `latebloom.methods.grokking.diagnose`."""
    if name in FAMILIES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
