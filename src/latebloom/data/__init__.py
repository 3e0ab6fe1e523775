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
from latebloom.data.sources import DataError
from latebloom.data.standardising import Standardiser
from latebloom.data.stroke_glyphs import ClassSplit, Hand, class_split, glyph_images, glyphs
from latebloom.data.subsets import Subset, TrainingSubset
from latebloom.data.tables import Table, load_table

__all__ = [
    "ClassSplit",
    "DataError",
    "Dataset",
    "Examples",
    "Hand",
    "Images",
    "ModularArithmetic",
    "SparseParity",
    "Standardiser",
    "Subset",
    "Table",
    "TaggedText",
    "TrainingSubset",
    "block_means",
    "class_split",
    "coloured",
    "fetch",
    "find",
    "glyph_images",
    "glyphs",
    "load",
    "load_brown",
    "load_examples",
    "load_open_bandit",
    "load_scaled",
    "load_table",
    "modular_arithmetic",
    "names",
    "noisy",
    "occluded",
    "random_binary_codes",
    "read_idx",
    "read_tagged",
    "scaled",
    "split",
    "standardised",
]
