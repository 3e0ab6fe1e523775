"""Probes: functions that look at a network without changing it."""

from latebloom.probes.adversarial import pgd, robust_accuracy, survives_pgd
from latebloom.probes.collapse import (
    cosines,
    logit_scaling,
    norms,
    softmax_collapse,
    stalled,
    tensor_names,
    weight_norm,
)
from latebloom.probes.linearised import Centred, Linearised
from latebloom.probes.local_complexity import (
    cross_polytope,
    decision_boundary_points,
    local_complexity,
    random_frames,
    switching_units,
)
from latebloom.probes.ntk import (
    empirical_ntk,
    kernel_alignment,
    kernel_movement,
    kernel_regression,
    parameter_movement,
    task_spectrum,
)
from latebloom.probes.regions import Plane, RegionSlice, plane_through, slice_regions, square_around

__all__ = [
    "Centred",
    "Linearised",
    "Plane",
    "RegionSlice",
    "cosines",
    "cross_polytope",
    "decision_boundary_points",
    "empirical_ntk",
    "kernel_alignment",
    "kernel_movement",
    "kernel_regression",
    "local_complexity",
    "logit_scaling",
    "norms",
    "parameter_movement",
    "pgd",
    "plane_through",
    "random_frames",
    "robust_accuracy",
    "slice_regions",
    "softmax_collapse",
    "square_around",
    "stalled",
    "survives_pgd",
    "switching_units",
    "task_spectrum",
    "tensor_names",
    "weight_norm",
]
