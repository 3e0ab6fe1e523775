"""Says in one call what holds a fitted network's generalisation back, and what to swap in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from latebloom.core.dataset import Dataset
from latebloom.losses import cross_entropy
from latebloom.probes.collapse import logit_scaling, softmax_collapse, tensor_names
from latebloom.probes.linearised import Linearised
from latebloom.probes.ntk import empirical_ntk, kernel_movement, parameter_movement

COLLAPSED = 0.01  # share of collapsed examples from which on a warning is due
SCALING = 0.5  # share of the squared gradient that only scales weights
LAZY = 0.2  # relative movement of the tangent kernel below which learning is lazy
FITTED = 0.99  # training accuracy from which on the first two can hold generalisation back


class PerExample(eqx.Module):
    """Makes a module that takes one example take a batch."""

    model: Callable[..., Array]

    def __call__(self, x: Array) -> Array:
        return jax.vmap(self.model)(x)


@dataclass(frozen=True)
class Finding:
    """One possible obstacle: whether it is present, the numbers it rests on, what to do."""

    name: str
    present: bool | None  # None where it could not be told
    evidence: dict[str, float]
    says: str
    suggestion: str


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found. Printing it gives a page to read; the findings hold the numbers."""

    train_accuracy: float
    test_accuracy: float
    findings: tuple[Finding, ...]

    @property
    def causes(self) -> tuple[str, ...]:
        """Names of the obstacles that are present, the most specific first."""
        return tuple(f.name for f in self.findings if f.present)

    def __str__(self) -> str:
        marks = {True: "●", False: "○", None: "?"}
        lines = [
            f"training accuracy {self.train_accuracy:.3f}, test accuracy {self.test_accuracy:.3f}"
        ]
        for f in self.findings:
            lines += [f"{marks[f.present]} {f.name}: {f.says}"]
            lines += [
                f"    {name.replace('_', ' ')}: {value:.4g}" for name, value in f.evidence.items()
            ]
            lines += [f"    -> {f.suggestion}"] if f.present else []
        if not self.causes:
            lines.append("None of the three obstacles is present.")
        return "\n".join(lines)


def diagnose(
    model: Callable[..., Array],
    data: Dataset,
    *,
    initial: Callable[..., Array] | None = None,
    loss: Callable[[Array, Array], Array] = cross_entropy,
    precision: str | None = None,
    kernel_points: int = 64,
) -> Diagnosis:
    """Tell softmax collapse, naive loss minimisation and laziness apart in a trained classifier.

    **Arguments:**

    - `model`: the trained network, called on a batch [n, ...] -> logits [n, classes]; any module
      whose floating-point arrays are its parameters. Wrap an Equinox module that takes a single
      example as `PerExample(model)`.
    - `data`: inputs and integer labels, training and test.
    - `initial`: the network before training; without it laziness cannot be told.
    - `loss(logits, labels)`: the loss of each example that it was trained with.
    - `precision`: the format of the training's softmax; `None` is that of the logits.
    - `kernel_points`: training points on which the tangent kernel is computed.

    **Returns:** a `Diagnosis`.

    - *softmax collapse*: probabilities have been rounded to 0 and 1, so the gradient of the true
      class is exactly zero (Prieto et al. 2025, arXiv 2501.04697, Def. 3);
    - *naive loss minimisation*: what gradient is left points along the weights and only scales the
      logits (ibid., Def. 5);
    - *laziness*: the tangent kernel has hardly moved since initialisation, so that the network is
      still a linear model in its parameters (Kumar et al. 2024, arXiv 2310.06110).

    **Raises:** `ValueError` for labels that are not class indices, outputs that are not
    [n, classes], parameters that are not finite, and an `initial` of another shape.
    """
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    _check(model, params, data)

    @eqx.filter_jit
    def look(params: Any, x: Array, y: Array) -> tuple[Array, Any]:
        def objective(p: Any) -> tuple[Array, Array]:
            logits = eqx.combine(p, rest)(x)
            return loss(logits, y).mean(), logits

        gradients, logits = jax.grad(objective, has_aux=True)(params)
        return logits, gradients

    logits, gradients = look(params, data.x_train, data.y_train)
    test_logits = model(data.x_test)
    train_accuracy = float((logits.argmax(-1) == data.y_train).mean())
    fitted = train_accuracy >= FITTED
    return Diagnosis(
        train_accuracy,
        float((test_logits.argmax(-1) == data.y_test).mean()),
        (
            _collapse(logits, data.y_train, precision, fitted),
            _scaling(params, gradients, fitted),
            _laziness(model, initial, data, kernel_points),
        ),
    )


def _check(model: Any, params: Any, data: Dataset) -> None:
    if not jnp.issubdtype(data.y_train.dtype, jnp.integer) or data.y_train.ndim != 1:
        raise ValueError(
            f"data.y_train must be class indices, int [n], not {data.y_train.dtype}"
            f"{list(data.y_train.shape)}"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not bool(jnp.isfinite(leaf).all()):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"model{name} is not finite: the run has diverged; lower the step size"
            )
    shape = jax.eval_shape(model, data.x_train).shape
    if len(shape) != 2 or shape[0] != len(data.x_train):
        raise ValueError(f"model must map [n, ...] to logits [n, classes], but gives {list(shape)}")
    if int(data.y_train.max()) >= shape[1]:
        raise ValueError(
            f"a label is {int(data.y_train.max())}, but the model has {shape[1]} classes"
        )


def _collapse(logits: Array, labels: Array, precision: str | None, fitted: bool) -> Finding:
    found = {k: float(v) for k, v in softmax_collapse(logits, labels, precision).items()}
    present = fitted and found["collapsed_fraction"] > COLLAPSED
    share = found["collapsed_fraction"]
    return Finding(
        "softmax collapse", present, found,
        f"{share:.1%} of the training examples have probabilities rounded to exactly 0 and 1",
        "train with latebloom.losses.stablemax_cross_entropy, or compute the softmax in float64: "
        'cross_entropy(logits, labels, precision="float64")',
    )  # fmt: skip


def _scaling(params: Any, gradients: Any, fitted: bool) -> Finding:
    cosines = np.asarray(logit_scaling(params, gradients), float)
    sizes = np.array([float(jnp.linalg.norm(g)) for g in jax.tree.leaves(gradients)])
    names = tensor_names(params)
    total = float((sizes**2).sum())
    share = float((np.maximum(cosines, 0) ** 2 * sizes**2).sum() / total) if total > 0 else 0.0
    top = int(cosines.argmax())
    return Finding(
        "naive loss minimisation", fitted and share > SCALING,
        {"share_of_gradient_along_the_weights": share, f"largest_cosine ({names[top]})": cosines[top],
         "gradient_norm": total**0.5},
        f"{share:.0%} of the squared gradient only scales the weights and with them the logits",
        "put latebloom.optim.perp_grad() before the optimiser: optax.chain(perp_grad(), optax.adamw(...))",
    )  # fmt: skip


def _laziness(model: Any, initial: Any, data: Dataset, count: int) -> Finding:
    suggestion = (
        "leave the lazy regime: scale the outputs down (logit_scale below 1, with the step size "
        "divided by its square), use smaller initial weights, or train longer"
    )
    if initial is None:
        return Finding(
            "laziness", None, {}, "cannot be told without the network before training (initial=...)",
            suggestion,
        )  # fmt: skip
    moved = float(parameter_movement(model, initial)) ** 0.5
    points = data.x_train[np.linspace(0, len(data.x_train) - 1, count).astype(int)]
    before, after = (empirical_ntk(m, points) for m in (initial, model))
    kernel = float(kernel_movement(after, before))
    twin = Linearised(initial)
    twin = eqx.tree_at(lambda t: t.params, twin, eqx.filter(model, eqx.is_inexact_array))
    agree = float((twin(data.x_test).argmax(-1) == model(data.x_test).argmax(-1)).mean())
    return Finding(
        "laziness", kernel < LAZY,
        {"kernel_movement": kernel, "parameter_movement": moved, "agreement_with_linearised": agree},
        f"the tangent kernel has moved by {kernel:.0%} since initialisation; the linearised network "
        f"agrees on {agree:.0%} of the test points",
        suggestion,
    )  # fmt: skip
