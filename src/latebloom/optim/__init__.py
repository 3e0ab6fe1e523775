"""Optimiser ideas as Optax gradient transformations and schedules."""

from latebloom.optim.descent import sgd
from latebloom.optim.either import Either
from latebloom.optim.parts import trained
from latebloom.optim.perp_grad import perp_grad
from latebloom.optim.schedules import schedule_values, tabulated
from latebloom.optim.tail_weights import last_iterate, tail_fractions

__all__ = [
    "Either",
    "last_iterate",
    "perp_grad",
    "schedule_values",
    "sgd",
    "tabulated",
    "tail_fractions",
    "trained",
]
