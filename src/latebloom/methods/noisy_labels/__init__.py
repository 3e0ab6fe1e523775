"""Learning from noisy labels: what is learned early is kept, what is wrong is not memorised.

Liu, Niles-Weed, Razavian, Fernandez-Granda (NeurIPS 2020, arXiv 2007.00151), and what it is compared
with.
"""

from latebloom.methods.noisy_labels.co_teaching import CoTeaching, small_loss
from latebloom.methods.noisy_labels.early_learning import (
    EarlyLearning,
    EarlyLearningLoss,
    Method,
    RobustLoss,
)
from latebloom.methods.noisy_labels.early_learning_plus import EarlyLearningPlus, mixed, ramp
from latebloom.methods.noisy_labels.label_errors import (
    LabelErrors,
    NotLearned,
    find_label_errors,
)
from latebloom.methods.noisy_labels.losses import (
    elr_gradient,
    elr_loss,
    elr_term,
    estimate_transition,
    forward_loss,
    generalised_cross_entropy,
    hard_bootstrap,
    soft_bootstrap,
    symmetric_cross_entropy,
    update_targets,
)
from latebloom.methods.noisy_labels.memorisation import auroc, memorisation
from latebloom.methods.noisy_labels.noise import (
    CIFAR10_PAIRS,
    MNIST_PAIRS,
    LabelNoise,
    NoisyData,
    NoisyLabels,
    held_out,
    superclass_pairs,
)
from latebloom.methods.noisy_labels.suspects import suspects
from latebloom.methods.noisy_labels.two_gaussians import TwoGaussians, side_by_side

__all__ = [
    "CIFAR10_PAIRS",
    "MNIST_PAIRS",
    "CoTeaching",
    "EarlyLearning",
    "EarlyLearningLoss",
    "EarlyLearningPlus",
    "LabelErrors",
    "LabelNoise",
    "Method",
    "NoisyData",
    "NoisyLabels",
    "NotLearned",
    "RobustLoss",
    "TwoGaussians",
    "auroc",
    "elr_gradient",
    "elr_loss",
    "elr_term",
    "estimate_transition",
    "find_label_errors",
    "forward_loss",
    "generalised_cross_entropy",
    "hard_bootstrap",
    "held_out",
    "memorisation",
    "mixed",
    "ramp",
    "side_by_side",
    "small_loss",
    "soft_bootstrap",
    "superclass_pairs",
    "suspects",
    "symmetric_cross_entropy",
    "update_targets",
]
