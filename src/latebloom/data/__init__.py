"""Data sets: algorithmic ones and glyphs drawn from a seed; images, tables, logs and texts from packages."""

from latebloom.core.dataset import Dataset
from latebloom.data.algorithmic import (
    ModularArithmetic,
    SparseParity,
    modular_arithmetic,
    random_binary_codes,
    split,
)
from latebloom.data.bandit_logs import load_open_bandit
from latebloom.data.brown import TaggedText, load_brown, read_tagged
from latebloom.data.catalogue import fetch, find, names
from latebloom.data.corruptions import coloured, noisy, occluded
from latebloom.data.examples import Examples, load_examples
from latebloom.data.images import (
    Images,
    block_means,
    load,
    load_scaled,
    read_idx,
    scaled,
    standardised,
)
from latebloom.data.planar import Delaunays, Hulls, Problems, label_all
from latebloom.data.point_files import PointSets, read_points, read_tsplib
from latebloom.data.sources import DataError
from latebloom.data.spikes import Events, read_events, write_events
from latebloom.data.spoken_digits import SpokenDigits, load_spoken_digits
from latebloom.data.standardising import Standardiser
from latebloom.data.stroke_glyphs import ClassSplit, Hand, class_split, glyph_images, glyphs
from latebloom.data.subsets import Subset, TrainingSubset
from latebloom.data.tables import Table, load_table
from latebloom.data.timed_patterns import TimedPatterns
from latebloom.data.tours import Tours

__all__ = [
    "ClassSplit",
    "DataError",
    "Dataset",
    "Delaunays",
    "Events",
    "Examples",
    "Hand",
    "Hulls",
    "Images",
    "ModularArithmetic",
    "PointSets",
    "Problems",
    "SparseParity",
    "SpokenDigits",
    "Standardiser",
    "Subset",
    "Table",
    "TaggedText",
    "TimedPatterns",
    "Tours",
    "TrainingSubset",
    "block_means",
    "class_split",
    "coloured",
    "fetch",
    "find",
    "glyph_images",
    "glyphs",
    "label_all",
    "load",
    "load_brown",
    "load_examples",
    "load_open_bandit",
    "load_scaled",
    "load_spoken_digits",
    "load_table",
    "modular_arithmetic",
    "names",
    "noisy",
    "occluded",
    "random_binary_codes",
    "read_events",
    "read_idx",
    "read_points",
    "read_tagged",
    "read_tsplib",
    "scaled",
    "split",
    "standardised",
    "write_events",
]
