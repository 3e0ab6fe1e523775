"""Optimiser ideas as Optax gradient transformations."""

from latebloom.optim.perp_grad import perp_grad

__all__ = ["perp_grad"]
