"""Contextual bandits on online neural regression, and what they are measured against."""

from latebloom.bandits.neural.ee_net import EENet
from latebloom.bandits.neural.effective_dimension import (
    effective_dimension,
    log_det_growth,
    tangent_gram,
)
from latebloom.bandits.neural.hindsight import BestInHindsight
from latebloom.bandits.neural.linear import KernelRegression, LinearRegression
from latebloom.bandits.neural.network import ArmNetwork
from latebloom.bandits.neural.policy import OraclePolicy
from latebloom.bandits.neural.regression import NeuralRegression, Perturbation, Replay
from latebloom.bandits.neural.rules import (
    Choice,
    EpsilonGreedy,
    Greedy,
    InverseGap,
    LowerBound,
    SmallLossInverseGap,
    Thompson,
    Uniform,
)
from latebloom.bandits.neural.worlds import ClassificationBandit, SyntheticBandit, contexts

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
