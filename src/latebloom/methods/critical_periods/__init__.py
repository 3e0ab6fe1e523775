"""Critical periods: early deficits do lasting harm, equal ones later do not, even in linear networks.

Kleinman, Achille, Soatto (ICLR 2024, arXiv 2308.12221).
"""

from latebloom.methods.critical_periods.deficits import Deficit, Pathways, blur, pathway_outputs
from latebloom.methods.critical_periods.factorisation import (
    Curriculum,
    DeficitSweep,
    GivenTasks,
    LowRankTasks,
    Task,
    gaussian_factors,
    product,
    run_of,
)
from latebloom.methods.critical_periods.halves import FlatMLP, halves, mlp_pathways
from latebloom.methods.critical_periods.modes import (
    ModeCompetition,
    age,
    dominance,
    drift,
    euler,
    final_dominance,
    runge_kutta,
    settle,
    strength,
    strength_velocity,
    weight,
)
from latebloom.methods.critical_periods.pathways import TwoPathways, aligned_layers, hierarchy
from latebloom.methods.critical_periods.sensitivity import (
    DeprivedTraining,
    Sensitivity,
    Views,
    Window,
    critical_window,
    lasting_harm,
    outcomes,
    sensitivity,
    shares,
)
from latebloom.methods.critical_periods.spectral import (
    SpectralFlow,
    end_to_end_velocity,
    spectral_velocity,
)

__all__ = [
    "Curriculum",
    "Deficit",
    "DeficitSweep",
    "DeprivedTraining",
    "FlatMLP",
    "GivenTasks",
    "LowRankTasks",
    "ModeCompetition",
    "Pathways",
    "Sensitivity",
    "SpectralFlow",
    "Task",
    "TwoPathways",
    "Views",
    "Window",
    "age",
    "aligned_layers",
    "blur",
    "critical_window",
    "dominance",
    "drift",
    "end_to_end_velocity",
    "euler",
    "final_dominance",
    "gaussian_factors",
    "halves",
    "hierarchy",
    "lasting_harm",
    "mlp_pathways",
    "outcomes",
    "pathway_outputs",
    "product",
    "run_of",
    "runge_kutta",
    "sensitivity",
    "settle",
    "shares",
    "spectral_velocity",
    "strength",
    "strength_velocity",
    "weight",
]
