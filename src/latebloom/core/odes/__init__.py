"""Ordinary differential equations: embedded Runge-Kutta methods with steps of their own length, and their gradients."""

from latebloom.core.odes.adjoint import solve_by_adjoint
from latebloom.core.odes.solving import (
    Controller,
    Solution,
    first_length,
    one_step,
    solve,
    solve_each,
)
from latebloom.core.odes.tableaus import DOPRI5, TSIT5, Tableau
from latebloom.core.odes.terms import WithArguments

__all__ = [
    "DOPRI5", "TSIT5", "Controller", "Solution", "Tableau", "WithArguments", "first_length", "one_step", "solve",
    "solve_by_adjoint", "solve_each",
]  # fmt: skip
