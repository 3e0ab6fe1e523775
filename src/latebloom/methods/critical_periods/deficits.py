"""Temporary deficits of one pathway of a network, of any kind, at any time.

    deficit = Deficit("blur", pathway=1, start=0, length=500, strength=2.0)
    outputs = pathway_outputs(model.paths, views, deficit, step, key)

"gate" lets the pathway speak but not learn (arXiv 2308.12221). No gradient flows into it then, which holds
it still under plain gradient descent; momentum, Adam and weight decay would move it all the same, and
`hold` undoes that. "remove" closes its eye; "noise",
"blur" and "mask" let it see badly (the cataract of Achille, Rovere, Soatto, ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

Kind = Literal["gate", "remove", "noise", "blur", "mask"]


class Deficit(eqx.Module):
    """What a pathway suffers from step `start` for `length` steps.

    `strength` is, by kind: "gate", the probability that a step is gated (1: always); "remove", the
    share by which inputs are dimmed (1: all dark); "noise", the standard deviation of the Gaussian
    noise that is added; "blur", the standard deviation of the Gaussian filter in pixels, for views
    [batch, height, width]; "mask", the share of input features that are set to 0, the same ones for
    the whole run.

    Raises `ValueError` for an unknown kind and strengths out of range.
    """

    kind: Kind = eqx.field(static=True)
    pathway: int = eqx.field(static=True)
    start: Int[Array, ""]
    length: Int[Array, ""]
    strength: Float[Array, ""]

    def __init__(
        self, kind: Kind, pathway: int = 1, start: ArrayLike = 0, length: ArrayLike = 0,
        strength: float = 1.0,
    ):  # fmt: skip
        if kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
        if strength < 0 or (kind in ("gate", "remove", "mask") and strength > 1):
            raise ValueError(
                f"the strength of a {kind!r} deficit is "
                f"{'at least 0' if kind in ('noise', 'blur') else 'between 0 and 1'}, not {strength}"
            )
        if pathway < 0:
            raise ValueError(f"pathway is an index from 0 on, not {pathway}")
        self.kind, self.pathway = kind, pathway
        self.start, self.length = jnp.asarray(start, jnp.int32), jnp.asarray(length, jnp.int32)
        self.strength = jnp.float32(strength)

    def at(self, start: ArrayLike, length: ArrayLike | None = None) -> Deficit:
        """The same deficit at another time."""
        times = jnp.asarray(start, jnp.int32), self.length
        if length is not None:
            times = times[0], jnp.asarray(length, jnp.int32)
        return eqx.tree_at(lambda d: (d.start, d.length), self, times)

    def active(self, step: int | Array) -> Array:
        """Whether `step` lies within the deficit."""
        return (step >= self.start) & (step < self.start + self.length)

    def on_input(self, x: Array, step: int | Array, key: PRNGKeyArray) -> Array:
        """What the pathway sees of `x` [batch, ...] at this step."""
        return jnp.where(self.active(step), self._degraded(x, step, key), x)

    def _degraded(self, x: Array, step: int | Array, key: PRNGKeyArray) -> Array:
        if self.kind == "remove":
            return (1 - self.strength) * x
        if self.kind == "noise":
            draw = jax.random.normal(jax.random.fold_in(key, step), x.shape, x.dtype)
            return x + self.strength * draw
        if self.kind == "mask":
            return x * (jax.random.uniform(key, x.shape[1:]) >= self.strength)
        if self.kind == "blur":
            return blur(x, self.strength)
        return x

    def gated(self, step: int | Array, key: PRNGKeyArray) -> Array:
        """Whether the pathway does not learn at this step."""
        if self.kind != "gate":
            return jnp.asarray(False)
        draw = jax.random.uniform(jax.random.fold_in(key, step))
        return self.active(step) & (draw < self.strength)

    def on_output(self, y: Array, step: int | Array, key: PRNGKeyArray) -> Array:
        """The pathway's output `y`, through which no gradient flows where it is gated."""
        if self.kind != "gate":
            return y
        return jnp.where(self.gated(step, key), jax.lax.stop_gradient(y), y)

    def hold(self, after: Any, before: Any, step: int | Array, key: PRNGKeyArray) -> Any:
        """`after` with the pathway as it was `before` where it is gated; bit for bit.

        For a `Pathways`, and for an optimiser's state on one: moments of the pathway (whatever lies under
        `.paths[pathway]`) stay too. Counts of steps go on, and with them schedules and the
        correction of Adam's bias. Call it with both after every update.
        """
        if self.kind != "gate":
            return after
        gated = self.gated(step, key)
        place = (jtu.GetAttrKey("paths"), jtu.SequenceKey(self.pathway))

        def keep(path: tuple[Any, ...], new: Any, old: Any) -> Any:
            within = any(path[i : i + 2] == place for i in range(len(path) - 1))
            return jnp.where(gated, old, new) if within and eqx.is_array(new) else new

        return jtu.tree_map_with_path(keep, after, before)


def blur(x: Float[Array, "batch height width"], sd: float | Array) -> Array:
    """Gaussian blur with standard deviation `sd` in pixels; weights are renormalised at the edges.

    Raises `ValueError` if `x` is not a batch of images.
    """
    if x.ndim != 3:
        raise ValueError(f"blur needs views [batch, height, width], not {list(x.shape)}")
    rows, columns = (_smoother(n, sd) for n in x.shape[1:])
    return jnp.einsum("ij,bjk,lk->bil", rows, x, columns)


def _smoother(n: int, sd: float | Array) -> Array:
    distance = jnp.arange(n)[:, None] - jnp.arange(n)
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(sd, 1e-3)) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def pathway_outputs(
    paths: Sequence[Callable[[Array], Array]], views: Sequence[Array], deficit: Deficit | None = None,
    step: int | Array = 0, key: PRNGKeyArray | None = None,
) -> list[Any]:  # fmt: skip
    """paths[i](views[i]) for every pathway, with what `deficit` does to one of them.

    Use it in the forward pass of a network of your own. `key`: the same for all steps of a run;
    needed where there is a deficit.

    Raises `ValueError` where paths and views do not match, or the deficit names none of them.
    """
    if len(paths) != len(views):
        raise ValueError(f"there are {len(paths)} pathways but {len(views)} views: give one each")
    if deficit is None:
        return [path(view) for path, view in zip(paths, views, strict=True)]
    if not deficit.pathway < len(paths):
        raise ValueError(
            f"the deficit is of pathway {deficit.pathway}, but there are only {len(paths)}, from 0 on"
        )
    if key is None:
        raise ValueError("a deficit needs a key, the same for all steps of a run")
    outputs = []
    for i, (path, view) in enumerate(zip(paths, views, strict=True)):
        hurt = i == deficit.pathway
        y = path(deficit.on_input(view, step, key) if hurt else view)
        outputs.append(deficit.on_output(y, step, key) if hurt else y)
    return outputs


class Pathways(eqx.Module):
    """A network whose output is the sum of its pathways' outputs, one pathway for each view.

    `paths` are batch-first: wrap a module that takes one example in `eqx.filter_vmap`.
    """

    paths: tuple[Callable[[Array], Array], ...]

    def __call__(
        self, views: Sequence[Array], deficit: Deficit | None = None, step: int | Array = 0,
        key: PRNGKeyArray | None = None,
    ) -> Array:  # fmt: skip
        return sum(pathway_outputs(self.paths, views, deficit, step, key))  # pyright: ignore
