"""Networks as batch-first Equinox modules: model(x, *, key=None, train=False) -> outputs."""

from latebloom.nn.mlp import MLP, Linear
from latebloom.nn.norm import BatchNorm, batch_statistics, update_statistics
from latebloom.nn.transformer import LayerNorm, Transformer

__all__ = [
    "MLP",
    "BatchNorm",
    "LayerNorm",
    "Linear",
    "Transformer",
    "batch_statistics",
    "update_statistics",
]
