"""Contextual bandits on online neural regression, and what they are measured against."""

from latebloom.methods.bandits.neural.by_name import linear_policy, neural_policy
from latebloom.methods.bandits.neural.ee_net import EENet
from latebloom.methods.bandits.neural.effective_dimension import (
    LogDet,
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
from latebloom.methods.bandits.neural.worlds import (
    ClassificationBandit,
    SyntheticBandit,
    contexts,
    draw_contexts,
    load_contexts,
    table_bandit,
)

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
    "LogDet",
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
    "draw_contexts",
    "effective_dimension",
    "linear_policy",
    "load_contexts",
    "log_det_growth",
    "neural_policy",
    "table_bandit",
    "tangent_gram",
]
