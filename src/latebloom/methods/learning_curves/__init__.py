"""Learning curves: what accuracy more training data will bring, from curves measured on little.

Vilares Ferro, Darriba Bilbao, Ribadas Pena, "Modeling of learning curves with applications to POS
tagging" (Computer Speech and Language 41, 2017; arXiv 2402.02515).
"""

from latebloom.methods.learning_curves.estimator import (
    Forecast,
    LearningCurve,
    Requirement,
    train_until,
)
from latebloom.methods.learning_curves.metrics import (
    mape,
    percentage_error,
    reliability,
    robustness,
)
from latebloom.methods.learning_curves.scheme import LearningScheme, make_tagger
from latebloom.methods.learning_curves.traces import Frame, Trace, learning_trace
from latebloom.methods.learning_curves.trends import FAMILIES, Trends, fit

__all__ = [
    "FAMILIES",
    "Forecast",
    "Frame",
    "LearningCurve",
    "LearningScheme",
    "Requirement",
    "Trace",
    "Trends",
    "fit",
    "learning_trace",
    "make_tagger",
    "mape",
    "percentage_error",
    "reliability",
    "robustness",
    "train_until",
]
