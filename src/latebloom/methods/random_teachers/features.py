"""Features without labels in one call: a student of a random teacher on one's own images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.calling import builder, call
from latebloom.core.dataset import Dataset, check_labels
from latebloom.core.process import Quantity
from latebloom.core.unfold import unfold
from latebloom.core.vectors import set_weights, weights
from latebloom.data import Standardiser
from latebloom.methods.random_teachers.distillation import (
    Distillation,
    DistillationState,
    divergence,
)
from latebloom.methods.random_teachers.network import BottleneckHead, ConvEncoder, Distilled
from latebloom.methods.random_teachers.probing import linear_probe, nearest_neighbours

FEWEST = 20
PROBE_STEPS, PROBE_BATCH = 2000, 64


@dataclass(frozen=True)
class DistilledFeatures:
    """An encoder that was distilled from a random one.

    - `encoder`: the student's; `teacher`: the random encoder it learned from.
    - `divergence`: KL in nats between student and teacher at the start and at the end. A student that
      starts next to its teacher first moves away from it.
    - `probes`: where labels were given, the accuracy on a held-out fifth of a linear probe and of the
      nearest neighbours (rows) on features of the student, of the teacher, and on the input (columns).
    """

    encoder: Any
    teacher: Any
    divergence: tuple[float, float]
    probes: pd.DataFrame | None
    prepare: Standardiser

    def features(self, x: np.ndarray) -> np.ndarray:
        """What the encoder makes of examples [n, ...] like those it was distilled on: [n, features]."""
        return np.asarray(_encoded(self.encoder, self.prepare(x)))


def distil_features(
    x: np.ndarray, y: np.ndarray | None = None, *, encoder: Any = None, steps: int = 1000,
    alpha: float = 1e-3, batch_size: int = 64, rate: float = 1e-3, hidden: int = 256,
    bottleneck: int = 64, outputs: int = 1024, seed: int = 0, progress: Any = None,
) -> DistilledFeatures:  # fmt: skip
    """Distil a network with random weights into one that starts next to it, on images without labels.

    - `x`: images [n, height, width] or [n, height, width, channels], standardised as a whole whatever
      their range, or what an encoder of one's own takes. `y` [n]: class indices, for the probes alone.
    - `encoder`: a `ConvEncoder` of widths 16, 32, 64 unless given; an Equinox model or `model(key)` that
      makes features [features] of an example, or [batch, features] of a batch. A model at hand, trained
      or not, is the teacher itself.
    - `steps` of Adam at `rate`; `alpha`: how far from the teacher the student starts (`start_near`).
    - `hidden`, `bottleneck`, `outputs`: of the head that is thrown away. `progress` as in `unfold`.

    Raises `ValueError` for examples that are not finite or fewer than 20, labels that are no class
    indices, settings out of their range, and an encoder that does not make features.

    Source: Sarnthein, Bachmann, Anagnostidis, Hofmann 2023 (arXiv 2302.12091), section 3.
    """
    prepare = Standardiser.of(x)
    inputs = prepare(x)
    if len(inputs) < FEWEST:
        raise ValueError(f"there are {len(inputs)} examples where at least {FEWEST} are needed")
    if steps < 1 or not rate > 0:
        raise ValueError(f"steps must be at least 1 and rate above 0, not {steps} and {rate}")
    if encoder is None and inputs.ndim != 4:
        raise ValueError(f"x must be images [n, height, width, ...], not {list(np.shape(x))}: or give an encoder")  # fmt: skip
    build = partial(_conv, inputs.shape[-1]) if encoder is None else builder(encoder)
    shape = eqx.filter_eval_shape(
        lambda key, x: call(build(key), x), jax.random.key(0), inputs[:2]
    ).shape
    if len(shape) != 2:
        raise ValueError(f"an encoder must make [n, features] of n examples, not {list(shape)}")
    process = _Kept(  # pyright: ignore
        model=partial(_network, build, (shape[1], hidden, bottleneck, outputs)),
        data=Dataset(inputs, jnp.zeros(len(inputs), jnp.int32), inputs[:256], jnp.zeros(len(inputs[:256]), jnp.int32)),
        optimiser=optax.adam, hyper={"learning_rate": rate}, alpha=alpha,
        batch_size=min(batch_size, len(inputs)),
    )  # fmt: skip
    trace = unfold(process, seeds=[seed], steps=steps, progress=progress)
    if (trace.diverged_at >= 0).any():
        raise ValueError(f"training diverged: take a lower rate than {rate:g}")
    last = trace.isel(step=-1, seed=0)
    start = process.init(jax.random.key(seed)).teacher.encoder  # with what is no weight, too
    student, teacher = (
        set_weights(start, jnp.asarray(last[name].values), running=True)
        for name in ("student", "teacher")
    )
    apart = trace.divergence.values[0]
    probes = None if y is None else _probed(inputs, np.asarray(y), student, teacher, seed)
    return DistilledFeatures(student, teacher, (float(apart[0]), float(apart[-1])), probes, prepare)


class _Kept(Distillation):
    """Observes the encoders themselves, and no labels."""

    def observe(self, state: DistillationState) -> dict[str, Array]:
        test = self.data.x_test
        both = state.teacher(test, train=False), state.student(test, train=False)
        return {
            "divergence": divergence(*both).mean(),
            "student": weights(state.student.encoder, running=True),
            "teacher": weights(state.teacher.encoder, running=True),
        }

    def quantities(self) -> dict[str, Quantity]:
        return {"divergence": Quantity("nats", about="KL of teacher and student")}


def _conv(channels: int, key: PRNGKeyArray) -> ConvEncoder:
    return ConvEncoder(channels, (16, 32, 64), key=key)


def _network(build: Any, sizes: tuple[int, int, int, int], key: PRNGKeyArray) -> Distilled:
    one, two = jax.random.split(key)
    features, hidden, bottleneck, outputs = sizes
    head = BottleneckHead(features, hidden=hidden, bottleneck=bottleneck, out_size=outputs, key=two)
    return Distilled(build(one), head)


@eqx.filter_jit
def _encoded(encoder: Any, x: Array) -> Array:
    return call(encoder, x)


def _probed(x: Array, y: np.ndarray, student: Any, teacher: Any, seed: int) -> pd.DataFrame:
    classes = int(y.max()) + 1 if y.size and y.dtype.kind in "iu" else 1
    check_labels(y, classes, "y")
    if len(y) != len(x):
        raise ValueError(f"there are {len(x)} examples and {len(y)} labels")
    order = np.random.default_rng(seed).permutation(len(x))
    held, rest = order[: len(x) // 5], order[len(x) // 5 :]
    labels = jnp.asarray(y, jnp.int32)
    epochs = -(-PROBE_STEPS // max(len(rest) // PROBE_BATCH, 1))
    probing: dict[str, Any] = {"classes": classes, "epochs": epochs, "batch_size": PROBE_BATCH, "rate": 1e-2, "standardise": True}  # fmt: skip
    columns = {}
    looks = {"student": _encoded(student, x), "teacher": _encoded(teacher, x), "input": x.reshape(len(x), -1)}  # fmt: skip
    for name, seen in looks.items():
        given = seen[rest], labels[rest], seen[held], labels[held]
        probe = jax.jit(partial(linear_probe, **probing))
        near = jax.jit(partial(nearest_neighbours, classes=classes))
        columns[name] = {
            "linear probe": float(probe(*given, jax.random.key(seed))),
            "nearest neighbours": float(near(*given)),
        }
    return pd.DataFrame(columns)
