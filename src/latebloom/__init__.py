"""latebloom: learning under delay, as reusable JAX code and claims you can re-check."""

from latebloom.process import HostProcess, Process, Quantity, log_steps
from latebloom.unfolding import DivergenceWarning, unfold

__all__ = ["DivergenceWarning", "HostProcess", "Process", "Quantity", "log_steps", "unfold"]
