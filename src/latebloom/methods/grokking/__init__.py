"""Abilities that appear late: what delays generalisation, and what brings it about."""

from latebloom.methods.grokking.diagnosis import Diagnosis, Finding, diagnose
from latebloom.methods.grokking.interventions import Interruptible, without_true_class_gradient

__all__ = ["Diagnosis", "Finding", "Interruptible", "diagnose", "without_true_class_gradient"]
