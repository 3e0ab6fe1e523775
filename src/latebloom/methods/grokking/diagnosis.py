"""Says in one call what holds a fitted network's generalisation back, and what to swap in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from latebloom.core.calling import call
from latebloom.core.dataset import Dataset, check_labels
from latebloom.core.statistics import trainable_leaves
from latebloom.core.training import trainable
from latebloom.losses import cross_entropy
from latebloom.probes.collapse import (
    logit_scaling,
    softmax_collapse,
    stalled,
    tensor_names,
)
from latebloom.probes.linearised import Linearised
from latebloom.probes.ntk import empirical_ntk, kernel_movement, parameter_movement

COLLAPSED = 0.01  # share of collapsed examples from which on a warning is due
SCALING = 0.5  # share of the squared gradient that only scales weights
LAZY = 0.2  # relative movement of the tangent kernel below which learning is lazy
FITTED = 0.99  # training accuracy from which on the first two can hold generalisation back


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

    - `model`: the trained network, called on a batch [n, ...] -> logits [n, classes] or on one example
      (`latebloom.core.calling.call`); its floating-point arrays are its parameters.
    - `data`: inputs and labels from 0 to classes - 1, training and test.
    - `initial`: the network before training; without it laziness cannot be told.
    - `loss(logits, labels)`: the loss of each example that it was trained with. It is this loss that is
      judged: nobody is told to leave softmax who has left it.
    - `precision`: the format of the softmax, where the loss is `latebloom.losses.cross_entropy`; `None`
      is that of the logits.
    - `kernel_points`: training points on which the tangent kernel is computed.

    **Returns:** a `Diagnosis`.

    - *softmax collapse*: probabilities have been rounded to 0 and 1, so the gradient of the true
      class is exactly zero (Prieto et al. 2025, arXiv 2501.04697, Def. 3). Of a loss that is no softmax
      cross-entropy it is called *vanished loss*: rightly classified examples whose loss has a gradient of
      exactly zero in the logit of their class;
    - *naive loss minimisation*: what gradient is left points along the weights and only scales the
      logits (ibid., Def. 5);
    - *laziness*: the tangent kernel has hardly moved since initialisation, so that the network is
      still a linear model in its parameters (Kumar et al. 2024, arXiv 2310.06110).

    **Raises:** `ValueError` for labels that are not class indices, a network that does not take such
    inputs or has no parameters, outputs that are not [n, classes], parameters that are not finite, an
    `initial` of another shape, and a precision of a loss that is not `cross_entropy`.
    """
    if precision is not None:
        if loss is not cross_entropy:
            raise ValueError(
                "precision is that of latebloom.losses.cross_entropy: give another loss in the precision "
                "of its own"
            )
        loss = partial(cross_entropy, precision=precision)
    params, rest = eqx.partition(model, trainable_leaves(model))
    _check(model, params, data)

    @eqx.filter_jit
    def look(params: Any, x: Array, y: Array) -> tuple[Array, dict[str, Array], Any]:
        def objective(p: Any) -> tuple[Array, Array]:
            logits = call(eqx.combine(p, rest), x)
            return loss(logits, y).mean(), logits

        gradients, logits = jax.grad(objective, has_aux=True)(params)
        shares = {
            "stalled_fraction": stalled(loss, logits, y),
            "zero_loss_fraction": (loss(logits, y) == 0).mean(dtype=jnp.float32),
            "largest_margin": softmax_collapse(logits, y)["largest_margin"],
        }
        return logits, shares, gradients

    logits, shares, gradients = look(params, data.x_train, data.y_train)
    test_logits = call(model, data.x_test)
    train_accuracy = float((logits.argmax(-1) == data.y_train).mean())
    fitted = train_accuracy >= FITTED
    return Diagnosis(
        train_accuracy,
        float((test_logits.argmax(-1) == data.y_test).mean()),
        (
            _collapse(
                loss, {name: float(x) for name, x in shares.items()}, logits.shape[1], fitted
            ),
            _scaling(params, gradients, fitted),
            _laziness(model, initial, data, kernel_points),
        ),
    )


def _check(model: Any, params: Any, data: Dataset) -> None:
    if not jax.tree.leaves(params):
        raise ValueError(
            "the model has no floating-point arrays: pass an Equinox module, or bind parameters with "
            "jax.tree_util.Partial(apply, params)"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not bool(jnp.isfinite(leaf).all()):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"model{name} is not finite: the run has diverged; lower the step size"
            )
    shape = eqx.filter_eval_shape(call, model, data.x_train).shape
    if len(shape) != 2:
        raise ValueError(f"model must map [n, ...] to logits [n, classes], but gives {list(shape)}")
    for part, y in (("y_train", data.y_train), ("y_test", data.y_test)):
        check_labels(y, shape[1], f"data.{part}")


def _collapse(loss: Any, shares: dict[str, float], classes: int, fitted: bool) -> Finding:
    share = shares["stalled_fraction"]
    present = fitted and share > COLLAPSED
    if _is_softmax(loss, classes):
        return Finding(
            "softmax collapse", present, shares,
            f"{share:.1%} of the training examples have probabilities rounded to exactly 0 and 1",
            "train with latebloom.losses.stablemax_cross_entropy, or compute the softmax in float64: "
            'cross_entropy(logits, labels, precision="float64")',
        )  # fmt: skip
    return Finding(
        "vanished loss", present, shares,
        f"{share:.1%} of the training examples are right and the loss has a gradient of exactly zero in "
        "the logit of their class",
        "train with a loss that keeps a slope, as latebloom.losses.stablemax_cross_entropy does",
    )  # fmt: skip


def _is_softmax(loss: Callable[[Array, Array], Array], classes: int) -> bool:
    """Whether a loss is the cross-entropy of the softmax, by what it gives."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, classes)), jnp.float32)
    labels = jnp.arange(8, dtype=jnp.int32) % classes
    return bool(
        jnp.allclose(loss(logits, labels), cross_entropy(logits, labels), rtol=0.02, atol=0.02)
    )


def _scaling(params: Any, gradients: Any, fitted: bool) -> Finding:
    cosines = np.asarray(logit_scaling(params, gradients), float)
    # In double precision: the square of a gradient that has nearly vanished is 0 in single.
    sizes = np.array([np.linalg.norm(np.asarray(g, float)) for g in jax.tree.leaves(gradients)])
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
    count = min(count, len(data.x_train))
    points = data.x_train[np.linspace(0, len(data.x_train) - 1, count).astype(int)]
    before, after = (empirical_ntk(m, points) for m in (initial, model))
    kernel = float(kernel_movement(after, before))
    twin = Linearised(initial)
    twin = eqx.tree_at(lambda t: t.params, twin, trainable(model))
    agree = float((twin(data.x_test).argmax(-1) == call(model, data.x_test).argmax(-1)).mean())
    return Finding(
        "laziness", kernel < LAZY,
        {"kernel_movement": kernel, "parameter_movement": moved, "agreement_with_linearised": agree},
        f"the tangent kernel has moved by {kernel:.0%} since initialisation; the linearised network "
        f"agrees on {agree:.0%} of the test points",
        suggestion,
    )  # fmt: skip
