"""latebloom: learning under delay, as reusable JAX code and claims you can re-check."""

from latebloom.process import (
    DivergenceWarning,
    HostProcess,
    Process,
    Quantity,
    log_steps,
    unfold,
)

__all__ = ["DivergenceWarning", "HostProcess", "Process", "Quantity", "log_steps", "unfold"]
