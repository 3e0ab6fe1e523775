"""Contextual bandits on online neural regression, and what they are measured against."""

from latebloom.methods.bandits.neural.ee_net import EENet
from latebloom.methods.bandits.neural.effective_dimension import (
    effective_dimension,
    log_det_growth,
    tangent_gram,
)
from latebloom.methods.bandits.neural.hindsight import BestInHindsight
from latebloom.methods.bandits.neural.linear import KernelRegression, LinearRegression
from latebloom.methods.bandits.neural.network import ArmNetwork
from latebloom.methods.bandits.neural.policy import OraclePolicy
from latebloom.methods.bandits.neural.regression import NeuralRegression, Perturbation, Replay
from latebloom.methods.bandits.neural.rules import (
    Choice,
    EpsilonGreedy,
    Greedy,
    InverseGap,
    LowerBound,
    SmallLossInverseGap,
    Thompson,
    Uniform,
)
from latebloom.methods.bandits.neural.worlds import ClassificationBandit, SyntheticBandit, contexts

__all__ = [
    "ArmNetwork",
    "BestInHindsight",
    "Choice",
    "ClassificationBandit",
    "EENet",
    "EpsilonGreedy",
    "Greedy",
    "InverseGap",
    "KernelRegression",
    "LinearRegression",
    "LowerBound",
    "NeuralRegression",
    "OraclePolicy",
    "Perturbation",
    "Replay",
    "SmallLossInverseGap",
    "SyntheticBandit",
    "Thompson",
    "Uniform",
    "contexts",
    "effective_dimension",
    "log_det_growth",
    "tangent_gram",
]
