"""Probes: functions that look at a network without changing it."""

from latebloom.probes.collapse import (
    cosines,
    logit_scaling,
    norms,
    softmax_collapse,
    tensor_names,
    weight_norm,
)

__all__ = [
    "cosines",
    "logit_scaling",
    "norms",
    "softmax_collapse",
    "tensor_names",
    "weight_norm",
]
