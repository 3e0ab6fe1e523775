"""Lottery tickets: iterative magnitude pruning with rewinding, its baselines and its stabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.dataset import Dataset
from latebloom.core.process import Process, Quantity
from latebloom.core.training import (
    Supervised,
    SupervisedState,
    accuracy,
    step_key,
    trainable,
    update,
)
from latebloom.nn.masks import (
    Masks,
    as_ratio,
    ceil_share,
    dense_masks,
    density,
    kept,
    layer_densities,
    layer_names,
    masked,
    prune_smallest,
    pruned_count,
    shuffled_masks,
)

CONTROLS = ("order", "random", "random-order", "reinit")


class StepSchedule(eqx.Module):
    """What the learning rate is multiplied by at a step: `factor` for every drop passed so far,
    after a linear warm-up over the first `warmup` steps (whose step 0 has rate 0)."""

    drops: Int[Array, " drops"]
    factor: Float[Array, ""]
    warmup: Int[Array, ""]

    def __init__(self, drops: Sequence[int] = (), factor: float = 0.1, warmup: int = 0):
        if list(drops) != sorted(drops) or warmup < 0 or factor <= 0:
            raise ValueError(
                f"drops must increase, warmup be at least 0 and factor positive, not {list(drops)}, "
                f"{warmup} and {factor}"
            )
        self.drops, self.factor = jnp.asarray(drops, jnp.int32), jnp.float32(factor)
        self.warmup = jnp.int32(warmup)

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        rising = jnp.minimum(1.0, step / jnp.maximum(self.warmup, 1))
        rising = jnp.where(self.warmup == 0, 1.0, rising)
        return rising * self.factor ** jnp.sum(step >= self.drops)


class MaskedTraining(Supervised):
    """`Supervised` with a schedule that scales the updates, and masks under which it can train.

    The schedule is read at the step of the run, not at the age of the optimiser: a run that is begun
    anew at step k goes on where the schedule stood, with fresh momentum.
    """

    schedule: StepSchedule

    def __init__(self, *, schedule: StepSchedule | None = None, **more: Any):
        super().__init__(**more)
        self.schedule = StepSchedule() if schedule is None else schedule

    def step(self, state: SupervisedState, masks: Masks | None = None) -> SupervisedState:
        """One update; neither gradients nor updates reach weights that `masks` prunes."""
        x, y = self.batch(state)

        def keep(tree: Any) -> Any:
            return tree if masks is None else masked(tree, masks)

        def change(updates: Any) -> Any:
            scale = self.schedule(state.step)
            return keep(jax.tree.map(lambda update: scale * update, updates))

        key = step_key(state.key, state.step)
        slopes, seen = self.gradients(state.model, x, y, key, state.step)
        slopes, rule = keep(slopes), self.optimiser(**self.hyper)
        model, optimiser = update(rule, slopes, state.optimiser, state.model, seen, change)
        return state._replace(model=model, optimiser=optimiser, step=state.step + 1)

    def train(
        self, model: Any, masks: Masks, key: PRNGKeyArray, begin: int | Array, end: int | Array
    ) -> Any:
        """The masked model after steps `begin` to `end` of a run, with a fresh optimiser.

        `key` fixes the data order: equal keys see equal batches at equal steps.
        """
        optimiser = self.optimiser(**self.hyper).init(trainable(model))
        start = SupervisedState(masked(model, masks), optimiser, None, key, jnp.int32(begin))
        arrays, rest = eqx.partition(start, eqx.is_array)

        def step(_: Array, arrays: Any) -> Any:
            return eqx.filter(self.step(eqx.combine(arrays, rest), masks), eqx.is_array)

        return eqx.combine(jax.lax.fori_loop(begin, end, step, arrays), rest).model


class LotteryState(NamedTuple):
    rewound: Any  # W_k; before the first round W_0
    dense: Any  # the dense network, trained
    runs: Any  # trained networks, stacked: the ticket and its controls
    masks: Masks  # of the ticket
    random: Masks  # of the random controls
    key: PRNGKeyArray
    level: Int[Array, ""]  # of `runs`; -1 before the first round


class LotteryTicket(Process):
    """Iterative magnitude pruning with rewinding. A step is a round; step n is level n - 1.

    The first round trains W_0 to W_k, and W_k to the dense W_T. Every later one prunes `fraction` of
    the weights left by the magnitudes of W_T, puts the survivors (biases, batch norms and their
    statistics too) back to W_k, the same in every round, and trains from step k to T: same data order,
    the schedule goes on at k, momentum starts at 0 (in the dense run as well).

    - `training`: network, data, optimiser, schedule; its data are shared by all seeds.
    - `steps` is T, `rewind` is k: 0 is the original lottery ticket, T pruning without retraining.
    - `one_shot`: each level prunes the dense W_T at once to the density that the rounds would reach.
    - `keep_weights`: survivors keep the values of W_T. With the schedule from k that is learning-rate
      rewinding (Renda et al. 2020); with `retraining`, the schedule of all levels but the dense one,
      dropped from step 0 on, it is fine-tuning.
    - `controls_at`: levels at which four more networks are trained: the ticket in another data order,
      random masks of the same layer densities from W_k in both orders, and fresh initial weights
      (from step k too) under the ticket's masks. `controlled=False` leaves them out of the program.
    - `ignore`: layers that are not pruned (`dense_masks`). `count_ignored`: their weights count among
      those of which `fraction` is pruned, as in the authors' code; here they do not.

    Observed, where `masks` is ticket or random, and NaN for controls that were not trained:
    `density`, `layer_density`; `test_accuracy`, `train_accuracy`, `random_accuracy`,
    `reinit_accuracy`; `pruning_distance` (L2, of the unpruned weights, between the subnetwork trained
    alone and as part of the dense one), `order_distance` (between two data orders),
    `travelled` (from W_k to W_T) and the angles `pruning_angle`, `order_angle` in degrees.

    Raises `ValueError` where `rewind` is not in 0..steps, for fraction outside (0, 1), and for data
    that each seed draws.

    Source: Frankle, Dziugaite, Roy, Carbin 2019 (arXiv 1903.01611), sections 3 to 5.
    """

    training: MaskedTraining
    retraining: StepSchedule
    steps: Int[Array, ""]
    rewind: Int[Array, ""]
    fraction: Float[Array, ""]
    ratio: Int[Array, 2]  # the same as numerator and denominator; 0, 0 where it is none
    keep_weights: Bool[Array, ""]
    one_shot: Bool[Array, ""]
    controls_at: Int[Array, " controlled"]
    ignore: tuple[str, ...] = eqx.field(static=True)
    count_ignored: bool = eqx.field(static=True)
    controlled: bool = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, training: MaskedTraining, *, steps: int, rewind: int, fraction: float = 0.2,
        keep_weights: bool = False, one_shot: bool = False, retraining: StepSchedule | None = None,
        controls_at: Sequence[int] = (), controlled: bool = True, ignore: Sequence[str] = (),
        count_ignored: bool = False,
    ):  # fmt: skip
        if not 0 <= rewind <= steps or steps < 1:
            raise ValueError(f"rewind must be from 0 to steps, not {rewind} of {steps}")
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must be between 0 and 1, not {fraction}")
        if not isinstance(training.data, Dataset):
            raise ValueError("the data must be a Dataset that all seeds share")
        self.training = training
        self.retraining = training.schedule if retraining is None else retraining
        self.steps, self.rewind = jnp.int32(steps), jnp.int32(rewind)
        self.fraction, self.keep_weights = jnp.float32(fraction), jnp.asarray(keep_weights)
        self.ratio = jnp.asarray(as_ratio(fraction) or (0, 0), jnp.int32)
        self.one_shot = jnp.asarray(one_shot)
        self.controls_at = jnp.asarray(controls_at, jnp.int32)
        self.ignore, self.controlled = tuple(ignore), controlled
        self.count_ignored = count_ignored
        self.seeds_by = training.seeds_by

    @property
    def controls(self) -> tuple[str, ...]:
        return CONTROLS if self.controlled else ()

    def init(self, key: PRNGKeyArray) -> LotteryState:
        model_key, key = jax.random.split(key)
        model = self.training.model(model_key)
        masks = dense_masks(model, self.ignore)
        runs = _stack([model] * (1 + len(self.controls)))
        return LotteryState(model, model, runs, masks, masks, key, jnp.int32(-1))

    def to_prune(self, masks: Masks, level: Array) -> Int[Array, ""]:
        """How many of the weights that `masks` leave go at a level."""
        left = jnp.int32(sum(flag.sum() for flag in jax.tree.leaves(masks)))
        if self.count_ignored:
            model = eqx.filter_eval_shape(self.training.model, jax.random.key(0))
            sizes = [
                sum(mark.size for mark in jax.tree.leaves(eqx.filter_eval_shape(dense_masks, model, layers)))
                for layers in ((), self.ignore)
            ]  # fmt: skip
            left += sizes[0] - sizes[1]
        at_once = pruned_count(left, 1 - (1 - self.fraction) ** level)
        of_ratio = ceil_share(left, self.ratio[0], jnp.maximum(self.ratio[1], 1))
        by_round = jnp.where(self.ratio[1] > 0, of_ratio, pruned_count(left, self.fraction))
        return jnp.where(self.one_shot, at_once, by_round)

    def step(self, state: LotteryState) -> LotteryState:
        level = state.level + 1
        first, last = level == 0, _at(state.runs, 0)
        whole = jax.tree.map(jnp.ones_like, state.masks)
        there = _where(self.one_shot, whole, state.masks)
        pruned = prune_smallest(
            _where(self.one_shot, state.dense, last), there, self.to_prune(there, level)
        )
        masks = _where(first, whole, pruned)
        random = shuffled_masks(masks, jax.random.fold_in(state.key, level))
        fresh = self.training.model(jax.random.fold_in(state.key, 0xF0E5 + level))
        schedule = _where(first, self.training.schedule, self.retraining)
        training = eqx.tree_at(lambda t: t.schedule, self.training, schedule)
        # Runs of this round: 0 is W_0 to W_k (the first time only), 1 the ticket, then its controls.
        wanted, count = jnp.isin(level, self.controls_at), 2 + len(self.controls)
        to_rewind = jnp.where(first, self.rewind, 0)
        begins = jnp.array([0, *[self.rewind] * (count - 1)])
        until = jnp.where(wanted, self.steps, self.rewind)
        ends = jnp.array([to_rewind, self.steps, *[until] * (count - 2)])
        thinned = _stack([whole, masks, masks, random, random, masks][:count])

        def run(rewound: Any, task: tuple) -> tuple[Any, Any]:
            number, masks, begin, end = task
            start = _where((number == 1) & self.keep_weights & ~first, last, rewound)
            start = _where(number == 5, fresh, start)
            other_order = (number == 2) | (number == 4)
            order = jax.random.fold_in(state.key, jnp.where(other_order, 1, 0))
            model = training.train(start, masks, order, begin, end)
            return _where(number == 0, model, rewound), model

        tasks = jnp.arange(count), thinned, begins, ends
        rewound, runs = _scan(run, state.rewound, tasks)
        runs = jax.tree.map(lambda leaf: leaf[1:] if eqx.is_array(leaf) else leaf, runs)
        dense = _where(first, _at(runs, 0), state.dense)
        return LotteryState(rewound, dense, runs, masks, random, state.key, level)

    def observe(self, state: LotteryState) -> dict[str, Array]:
        data: Dataset = self.training.data  # pyright: ignore
        wanted = jnp.isin(state.level, self.controls_at)
        arrays, rest = eqx.partition(state.runs, eqx.is_array)

        def score(arrays: Any) -> Array:
            model = eqx.combine(arrays, rest)
            return accuracy(self.training.apply(model, data.x_test, None, False), data.y_test)

        def apart(masks: Masks, number: int) -> Array:
            """What run `number` is compared with: the dense network, W_k, the run in another order."""
            nets = _at(state.runs, number), state.dense, state.rewound
            own, whole, start = (_vector(net, masks) for net in nets)
            found = [*distance_and_angle(own, whole), jnp.linalg.norm(own - start)]
            if self.controlled:
                other = _vector(_at(state.runs, number + 1), masks)
                found += list(_or_gap(wanted, distance_and_angle(own, other)))
            return jnp.stack(found)

        scores, ticket = jax.lax.map(score, arrays), _at(state.runs, 0)
        on_train = self.training.apply(ticket, data.x_train, None, False)
        seen = {
            "level": state.level,
            "density": density(state.masks),
            "layer_density": jnp.stack(list(layer_densities(state.masks).values())),
            "test_accuracy": scores[0],
            "train_accuracy": accuracy(on_train, data.y_train),
        }
        rows = [apart(state.masks, 0)]
        if self.controlled:
            rows.append(_or_gap(wanted, apart(state.random, 2)))
            seen["random_accuracy"] = _or_gap(wanted, scores[2])
            seen["reinit_accuracy"] = _or_gap(wanted, scores[4])
        names = "pruning_distance", "pruning_angle", "travelled", "order_distance", "order_angle"
        return seen | dict(zip(names, jnp.stack(rows, 1), strict=False))

    def quantities(self) -> dict[str, Quantity]:
        names = layer_names(
            dense_masks(eqx.filter_eval_shape(self.training.model, jax.random.key(0)), self.ignore)
        )
        masks = ("masks",), {"masks": ["ticket", "random"] if self.controlled else ["ticket"]}
        return {
            "level": Quantity("rounds of pruning"),
            "density": Quantity("1", about="share of the weights left"),
            "layer_density": Quantity("1", ("layer",), {"layer": names}, "share left of a layer"),
            "test_accuracy": Quantity("1", about="test accuracy"),
            "train_accuracy": Quantity("1", about="training accuracy"),
            "random_accuracy": Quantity("1", about="test accuracy, random masks", gaps=True),
            "reinit_accuracy": Quantity("1", about="test accuracy, fresh initial weights", gaps=True),
            "pruning_distance": Quantity("L2", *masks, "distance to the dense network", gaps=True),
            "order_distance": Quantity("L2", *masks, "distance of two data orders", gaps=True),
            "pruning_angle": Quantity("degrees", *masks, "angle to the dense network", gaps=True),
            "order_angle": Quantity("degrees", *masks, "angle of two data orders", gaps=True),
            "travelled": Quantity("L2", *masks, "distance from the rewinding point", gaps=True),
        }  # fmt: skip


def fine_tuning(schedule: StepSchedule) -> StepSchedule:
    """The schedule that stays where the given one ends."""
    drops, warmup = jnp.zeros_like(schedule.drops), jnp.zeros_like(schedule.warmup)
    return eqx.tree_at(lambda s: (s.drops, s.warmup), schedule, (drops, warmup))


def distance_and_angle(one: Float[Array, " n"], other: Float[Array, " n"]) -> Float[Array, 2]:
    """L2 distance of two vectors of weights, and the angle between them in degrees.

    The angle by Kahan's formula, which is exact for small ones.
    """
    norms = jnp.linalg.norm(one), jnp.linalg.norm(other)
    a, b = one * norms[1], other * norms[0]
    angle = 2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b))
    return jnp.stack([jnp.linalg.norm(one - other), jnp.degrees(angle)])


def matching(
    accuracies: np.ndarray, dense: np.ndarray, tolerance: float | None = None
) -> Bool[np.ndarray, " levels"]:
    """At which levels a subnetwork matches the dense network, from accuracies [seed, level], [seed].

    Its mean is at least the dense mean minus `tolerance`, one standard deviation of the dense
    accuracies over seeds unless given.
    """
    slack = dense.std(ddof=1) if tolerance is None else tolerance
    # Rounding must not keep what is exactly at the tolerance from matching.
    return accuracies.mean(axis=0) >= dense.mean() - slack - 1e-6


def _vector(model: Any, masks: Masks) -> Float[Array, " n"]:
    return jnp.concatenate([tensor.ravel() for tensor in kept(model, masks)])


def _or_gap(wanted: Array, value: Array) -> Array:
    return jnp.where(wanted, value, jnp.nan)


def _where(choose: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(choose, a, b) if eqx.is_array(a) else a, one, other)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs) if eqx.is_array(xs[0]) else xs[0], *trees)


def _at(tree: Any, place: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[place] if eqx.is_array(leaf) else leaf, tree)


def _scan(function: Any, carry: Any, tasks: Any) -> tuple[Any, Any]:
    """`lax.scan` over a carry and outputs that are networks, functions among their leaves."""
    first, rest = eqx.partition(carry, eqx.is_array)

    def body(arrays: Any, task: Any) -> tuple[Any, Any]:
        new, out = function(eqx.combine(arrays, rest), task)
        return eqx.filter(new, eqx.is_array), eqx.filter(out, eqx.is_array)

    last, outs = jax.lax.scan(body, first, tasks)
    return eqx.combine(last, rest), eqx.combine(outs, rest)
