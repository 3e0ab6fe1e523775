"""Dynamical linear bandits: what an action brings comes later, through a hidden linear state.

Mussi, Metelli, Restelli (ICML 2023, arXiv:2211.08997).
"""

from latebloom.methods.bandits.dynamical_linear.advisor import Advisor
from latebloom.methods.bandits.dynamical_linear.baselines import (
    AR2,
    Constant,
    Exp3,
    ar2,
    batch_size,
    exp3,
)
from latebloom.methods.bandits.dynamical_linear.environment import (
    Fixed,
    HeldLinearSystem,
    RandomDynamics,
)
from latebloom.methods.bandits.dynamical_linear.epochs import Epochs, growing_epochs
from latebloom.methods.bandits.dynamical_linear.identification import (
    Identification,
    Identified,
    ho_kalman,
    identify,
)
from latebloom.methods.bandits.dynamical_linear.optimistic import (
    Bounds,
    DLinUCB,
    OptimisticLinear,
    d_lin_ucb,
    dynlin_ucb,
    exact_bounds,
    lin_ucb,
    stateless_lin_ucb,
    undiscounted_d_lin_ucb,
)
from latebloom.methods.bandits.dynamical_linear.recommendation import (
    Recommendation,
    budget_grid,
    recommend,
)
from latebloom.methods.bandits.dynamical_linear.system import (
    LinearSystem,
    advertising_system,
    budget_splits,
    expert_split,
    synthetic_system,
)

__all__ = [
    "AR2",
    "Advisor",
    "Bounds",
    "Constant",
    "DLinUCB",
    "Epochs",
    "Exp3",
    "Fixed",
    "HeldLinearSystem",
    "Identification",
    "Identified",
    "LinearSystem",
    "OptimisticLinear",
    "RandomDynamics",
    "Recommendation",
    "advertising_system",
    "ar2",
    "batch_size",
    "budget_grid",
    "budget_splits",
    "d_lin_ucb",
    "dynlin_ucb",
    "exact_bounds",
    "exp3",
    "expert_split",
    "growing_epochs",
    "ho_kalman",
    "identify",
    "lin_ucb",
    "recommend",
    "stateless_lin_ucb",
    "synthetic_system",
    "undiscounted_d_lin_ucb",
]
