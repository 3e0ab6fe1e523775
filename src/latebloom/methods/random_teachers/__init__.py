"""Students of random teachers: what distillation does when there is nothing to distil.

Sarnthein, Bachmann, Anagnostidis, Hofmann (ICML 2023, arXiv 2302.12091).
"""

from latebloom.methods.random_teachers.distillation import Distillation, divergence
from latebloom.methods.random_teachers.features import DistilledFeatures, distil_features
from latebloom.methods.random_teachers.gratings import gratings
from latebloom.methods.random_teachers.landscape import Landscape, Plane, on_grid, plane_through
from latebloom.methods.random_teachers.network import (
    Architecture,
    BottleneckHead,
    ConvEncoder,
    Distilled,
    start_near,
)
from latebloom.methods.random_teachers.probing import linear_probe, nearest_neighbours

__all__ = [
    "Architecture",
    "BottleneckHead",
    "ConvEncoder",
    "Distillation",
    "Distilled",
    "DistilledFeatures",
    "Landscape",
    "Plane",
    "distil_features",
    "divergence",
    "gratings",
    "linear_probe",
    "nearest_neighbours",
    "on_grid",
    "plane_through",
    "start_near",
]
