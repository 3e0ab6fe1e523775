"""Online prototype learning for online continual learning: OnPro, on the losses of OCM.

Wei, Ye, Huang, Zhang, Shan (ICCV 2023, arXiv 2308.00301).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.augmentation import Augmented, Views
from latebloom.core.calling import call
from latebloom.core.dataset import Dataset
from latebloom.core.stream import Stream, class_incremental
from latebloom.data import coloured, load, load_scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.measures import Effect, Measure, Traces, best_on_others, combined, mean
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.method import Batch, Method
from latebloom.methods.forgetting.prototypes import OnPro, TwoViews, ocm
from latebloom.methods.forgetting.replay import DER, ER, ERACE, SCR
from latebloom.methods.forgetting.separation import Separation
from latebloom.nn import MLP, Projected, ResNet

Name = Literal["er", "erace", "der", "scr", "ins", "ocm", "onpro", "sham"]
Ground = Literal["plain", "cue", "any"]


@dataclass(frozen=True)
class Config:
    """A method on a stream of two new classes a task, seen once.

    - `method`: the baselines; "ins", ER with OCM's instance contrast; "ocm", with its distillation; "onpro";
      "sham", OnPro whose prototypes are of shuffled labels.
    - `rate` of Adam; `one`: ER's weight of the new, DER++'s alpha, SCR's temperature; `two`: DER++'s beta.
    - `views`: the baselines see random views in training (the others always do).
    - `new`, `seen`, `feedback`, `base`, `chance`: OnPro's parts.
    - `ground`: digits as they are, on a ground whose colour tells the two classes of a task ("cue"), or on one of
      "any" colour. `joint`: all classes from the start.
    - `tasks` of `steps` updates with `batch` new examples and `replay` of the `memory`.
    """

    method: Name = "onpro"
    memory: int = 50
    rate: float = 0.003
    one: float = 0.5
    two: float = 0.5
    views: bool = True
    new: float = 1.0
    seen: float = 1.0
    feedback: Literal["prototypes", "uniform", "off"] = "prototypes"
    base: float = 0.75
    chance: float = 0.6
    scale: float = 0.5
    ground: Ground = "plain"
    joint: bool = False
    tasks: int = 5
    steps: int = 80
    batch: int = 10
    replay: int = 20
    copies: int = 4
    net: Literal["mlp", "resnet"] = "mlp"
    width: int = 128
    features: int = 64
    projected: int = 32
    data: str = "mnist-5k"
    side: int = 14
    exam: int = 150
    mirrored: float = 0.0
    crop: float = 0.6


class Flat(eqx.Module):
    """Features of images by an MLP, not negative."""

    net: MLP

    def __call__(self, x: Array, *, train: bool = False) -> Array:
        return jax.nn.relu(self.net(x.reshape(len(x), -1), train=train))


class Sham(OnPro):
    """OnPro whose prototypes are of shuffled labels: as many groups, of anything."""

    def grouped(self, batch: Batch, key: PRNGKeyArray) -> Array:
        return jax.random.permutation(key, batch.y)


def method_of(config: Config) -> Method:
    view = views_of(config)
    one, two, new, seen, base, chance, scale = (
        jnp.asarray(x, jnp.float32)
        for x in (config.one, config.two, config.new, config.seen, config.base, config.chance, config.scale)
    )  # fmt: skip
    contrast = {"copies": config.copies, "scale": scale}
    kinds: dict[str, Callable[[], Method]] = {
        "er": lambda: ER(one), "erace": ERACE, "der": lambda: DER(one, two),
        "scr": lambda: TwoViews(SCR(_projections, one), view),
        "ins": lambda: ocm(view, distilled=False, **contrast), "ocm": lambda: ocm(view, **contrast),
        "onpro": lambda: OnPro(view, new if config.new else 0.0, seen if config.seen else 0.0, feedback=config.feedback,
                               base=base, chance=chance, **contrast),
        "sham": lambda: Sham(view, new, seen, feedback="off", **contrast),
    }  # fmt: skip
    return kinds[config.method]()


def views_of(config: Config) -> Views:
    return Views(config.mirrored, 0.25, (config.crop, 1.0))


def make_process(config: Config) -> Separation:
    data, shifted = images_of(config)
    seen = config.views and config.method in ("er", "erace", "der")
    return Separation(
        model=partial(_network, config, data.x_train.shape[1:]), data=data, stream=partial(_stream, config, data),
        method=method_of(config), replay=Replay(config.memory, config.replay), optimiser=_adam,
        hyper={"rate": config.rate}, apply=Augmented(views_of(config)) if seen else call,
        encode=_features, shifted=shifted, seeds_by="vmap" if config.net == "mlp" else "map",
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """The ends of tasks."""
    return np.arange(config.tasks + 1) * config.steps


def _network(config: Config, shape: tuple[int, ...], key: PRNGKeyArray) -> Projected:
    one, other = jax.random.split(key)
    pixels = int(np.prod(shape))
    encoder = (
        Flat(MLP(pixels, (config.width,), config.features, norm="batch", key=one))
        if config.net == "mlp"
        else ResNet(shape[-1], config.features, width=config.width, norm="batch", key=one)
    )
    example = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    return Projected.around(encoder, example, 10, config.projected, key=other)


def _features(model: Projected, x: Array) -> Array:
    return call(model.encoder, x)


def _projections(model: Projected, x: Array) -> Array:
    return model.projection(call(model.encoder, x))


def _adam(rate: Array) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(1e-4), optax.adam(rate, b1=0.9, b2=0.99))


def _stream(config: Config, data: Dataset, key: PRNGKeyArray) -> Stream:
    sizes: dict[str, Any] = {"batch_size": config.batch}
    if config.joint:
        sizes |= {"tasks": 1, "steps": config.tasks * config.steps, "exam_size": config.tasks * config.exam}  # fmt: skip
    else:
        sizes |= {"tasks": config.tasks, "steps": config.steps, "exam_size": config.exam}
    # The colour of a class is that of its place in its task.
    order = None if config.ground == "plain" else range(10)
    return class_incremental(data.y_train, data.y_test, key=key, order=order, **sizes)


def images_of(config: Config) -> tuple[Dataset, Array | None]:
    """The examples, and the test inputs with the cue broken."""
    if config.ground == "plain":
        return load_scaled(config.data, side=config.side), None
    return on_ground(config.data, config.side, config.ground)


@functools.lru_cache(maxsize=2)
def on_ground(name: str, side: int, ground: Ground) -> tuple[Dataset, Array]:
    images = load(name)

    def painted(x: np.ndarray, y: np.ndarray, seed: int, chance: float) -> Array:
        colour = coloured(x, y % 2, seed=seed, probability=chance).astype(np.float32) / 255
        block = x.shape[1] // side
        blocks = colour.reshape(len(x), side, block, side, block, 3)
        return jnp.asarray(blocks.mean(axis=(2, 4)))

    told = 1.0 if ground == "cue" else 0.0
    y_train, y_test = (jnp.asarray(y, jnp.int32) for y in (images.y_train, images.y_test))
    train = painted(images.x_train, images.y_train, 1, told)
    test = painted(images.x_test, images.y_test, 2, told)
    return Dataset(train, y_train, test, y_test), painted(images.x_test, images.y_test, 3, 0.0)


# What won on seeds 100 and 101 (benchmarks/onpro_tuning.py).
TUNED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text())
