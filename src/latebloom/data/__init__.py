"""Data sets: algorithmic ones drawn from a key, and real digits and images from packages."""

from latebloom.data.algorithmic import (
    ModularArithmetic,
    SparseParity,
    modular_arithmetic,
    random_binary_codes,
    split,
)
from latebloom.data.dataset import Dataset
from latebloom.data.images import DataError, Images, fetch, find, load, names, read_idx

__all__ = [
    "DataError",
    "Dataset",
    "Images",
    "ModularArithmetic",
    "SparseParity",
    "fetch",
    "find",
    "load",
    "modular_arithmetic",
    "names",
    "random_binary_codes",
    "read_idx",
    "split",
]
