"""Stochastic differential equations of diagonal noise: stochastic Runge-Kutta methods with steps of their own length."""

from latebloom.core.sdes.solving import first_length, one_step, solve_sde
from latebloom.core.sdes.tableaus import SOSRI, SOSRI2, SRIW1, StochasticTableau

__all__ = ["SOSRI", "SOSRI2", "SRIW1", "StochasticTableau", "first_length", "one_step", "solve_sde"]
