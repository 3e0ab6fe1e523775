"""Networks as batch-first Equinox modules: model(x, *, key=None, train=False) -> outputs."""

from latebloom.nn.conv import Conv, conv2d
from latebloom.nn.convnet import ConvFeatures, ConvNet
from latebloom.nn.hypernetwork import Hypernetwork
from latebloom.nn.lenet import LeNet
from latebloom.nn.mlp import MLP, Linear, OneHotLinear
from latebloom.nn.norm import BatchNorm
from latebloom.nn.projected import Projected
from latebloom.nn.prompts import DualPrompt, PromptPool
from latebloom.nn.resnet import ResNet
from latebloom.nn.smallcnn import SmallCNN
from latebloom.nn.stagenet import StageNet
from latebloom.nn.transformer import LayerNorm, Transformer
from latebloom.nn.unit import UnitLinear, UnitMLP
from latebloom.nn.vit import ViT

__all__ = [
    "MLP",
    "BatchNorm",
    "Conv",
    "ConvFeatures",
    "ConvNet",
    "DualPrompt",
    "Hypernetwork",
    "LayerNorm",
    "LeNet",
    "Linear",
    "OneHotLinear",
    "Projected",
    "PromptPool",
    "ResNet",
    "SmallCNN",
    "StageNet",
    "Transformer",
    "UnitLinear",
    "UnitMLP",
    "ViT",
    "conv2d",
]
