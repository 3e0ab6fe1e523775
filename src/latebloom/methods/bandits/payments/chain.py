"""A chain of policy generations, each trained on the logs of the one before, and its true value."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from latebloom.core.interaction import Interaction, InteractionState
from latebloom.core.process import Process, Quantity
from latebloom.methods.bandits import exploration
from latebloom.methods.bandits.payments import diagnostics
from latebloom.methods.bandits.payments.policy import LogReport, Retrained
from latebloom.methods.bandits.payments.rules import Prediction
from latebloom.methods.bandits.payments.world import Features, PaymentWorld


class ChainState(NamedTuple):
    interaction: InteractionState
    contexts: Features
    allowed: Bool[Array, "m k"]


class Chain(Process):
    """One step is one generation: a batch is served, what arrived is joined, the model retrained.

    At step g the model trained on log g is looked at, on `contexts` transactions that are the same
    for all policies that run on a seed, with the true probabilities of the batch that it serves
    next. So its value has no noise of rewards or actions.

    - `waiting`: rewards that may arrive after the batch they belong to and are joined to the next
      log; 0 drops them.
    """

    world: PaymentWorld
    policy: Retrained
    contexts: int = eqx.field(static=True, default=4000)
    waiting: int = eqx.field(static=True, default=0)

    seeds_by: ClassVar[Literal["vmap", "map"]] = "map"

    def __check_init__(self) -> None:
        if self.policy.rows != self.world.batch + self.waiting:
            raise ValueError(
                f"the policy keeps {self.policy.rows} rows a log, but a log has "
                f"{self.world.batch} + {self.waiting}"
            )

    @property
    def interaction(self) -> Interaction:
        return Interaction(self.world, self.policy, block=self.world.batch, waiting=self.waiting)

    def init(self, key: PRNGKeyArray) -> ChainState:
        run, look = jax.random.split(key)
        state = self.interaction.init(run)
        rounds = (jnp.arange(self.contexts) * self.world.batch) // self.contexts
        view = jax.vmap(lambda k, r: self.world.look(state.environment, k, r))(
            jax.random.split(look, self.contexts), rounds
        )
        return ChainState(state, view.features, view.allowed)

    def step(self, state: ChainState) -> ChainState:
        return state._replace(interaction=self.interaction.step(state.interaction))

    def observe(self, state: ChainState) -> dict[str, Array]:
        policy, allowed = state.interaction.policy, state.allowed
        seen = self.policy.predict(policy, state.contexts)
        chosen = self.policy.probabilities(policy, state.contexts, allowed)
        means = jax.vmap(
            lambda f: self.world.means(state.interaction.environment, f, policy.generation)
        )(state.contexts)
        served = {
            "served_reward": state.interaction.reward.value,
            "served_regret": state.interaction.regret.value,
        }
        return served | judged(seen, chosen, means, allowed) | reported(policy.report)

    def quantities(self) -> dict[str, Quantity]:
        return quantities(self.world.actions)


def judged(
    seen: Prediction, chosen: Float[Array, "m k"], means: Float[Array, "m k"],
    allowed: Bool[Array, "m k"],
) -> dict[str, Array]:  # fmt: skip
    """A policy and its model against the true probabilities of all actions."""
    even, best = exploration.uniform(allowed), exploration.greedy(seen.mean, allowed)
    value, greedy_value, floor = ((p * means).sum(-1).mean() for p in (chosen, best, even))
    ceiling = jnp.where(allowed, means, -jnp.inf).max(-1).mean()
    there = allowed.astype(jnp.float32)
    unplayed = there - chosen
    played_auc, unplayed_auc = diagnostics.auc_by_action(seen.mean, means, chosen, unplayed)
    return {
        "value": value,
        "greedy_value": greedy_value,
        "gain": (value - floor) / (ceiling - floor),
        "greedy_gain": (greedy_value - floor) / (ceiling - floor),
        "uniform_value": floor,
        "oracle_value": ceiling,
        "entropy": diagnostics.entropy(chosen, allowed),
        "least_propensity": jnp.where(allowed, chosen, 1.0).min(-1).mean(),
        "greedy_optimism": (best * (seen.mean - means)).sum(-1).mean(),
        "rmse_played": diagnostics.root_mean_square(seen.mean, means, chosen),
        "rmse_unplayed": diagnostics.root_mean_square(seen.mean, means, unplayed),
        "excess_loss_played": diagnostics.divergence(seen.mean, means, chosen),
        "excess_loss_unplayed": diagnostics.divergence(seen.mean, means, unplayed),
        "auc_played": played_auc,
        "auc_unplayed": unplayed_auc,
        "action_share": chosen.mean(0),
    }


def reported(report: LogReport) -> dict[str, Array]:
    """The report on the last log, flat, with `<estimator>_value` and `<estimator>_error`.

    What the log cannot say is NaN.
    """
    seen = {name: value for name, value in report._asdict().items() if name != "evaluation"}
    told = report.evaluation.mean_weight > 0
    evaluation = jax.tree.map(lambda x: jnp.where(told, x, jnp.nan), report.evaluation)
    for name in ("direct", "ips", "snips", "dr"):
        estimate = getattr(evaluation, name)
        seen |= {f"{name}_value": estimate.value, f"{name}_error": estimate.error}
    return seen | {
        "effective_size": evaluation.effective_size,
        "mean_weight": evaluation.mean_weight,
    }


def quantities(actions: int) -> dict[str, Quantity]:
    reward, share = Quantity("reward"), Quantity("1")
    by_action = {"dims": ("action",), "coords": {"action": range(actions)}}
    maybe = {
        f"{name}_{what}": Quantity(
            "reward", about=f"{name.upper()} of the greedy policy", gaps=True
        )
        for name in ("direct", "ips", "snips", "dr")
        for what in ("value", "error")
    }
    return maybe | {
        "served_reward": Quantity("reward", about="cumulative reward"),
        "served_regret": Quantity("reward", about="cumulative pseudo-regret"),
        "value": Quantity("reward", about="true mean reward of the policy"),
        "greedy_value": Quantity("reward", about="true mean reward of the model's best action"),
        "uniform_value": reward,
        "oracle_value": reward,
        "gain": Quantity("1", about="value between uniform (0) and oracle (1)"),
        "greedy_gain": Quantity("1", about="value of the greedy policy, uniform 0, oracle 1"),
        "entropy": Quantity("1", about="entropy of the policy relative to uniform"),
        "greedy_optimism": Quantity("reward", about="predicted less true reward, best action"),
        "rmse_played": reward,
        "rmse_unplayed": reward,
        "excess_loss_played": Quantity("nats"),
        "excess_loss_unplayed": Quantity("nats"),
        "negative_share": Quantity("1", about="declined share of the training set"),
        "negatives": Quantity("rows", about="declined rows of the training set"),
        "overlap": Quantity("1", about="effective share of the last log for the new policy"),
        "arrived": share,
        "auc_played": Quantity("1", **by_action),
        "auc_unplayed": Quantity("1", **by_action),
        "action_share": Quantity("1", **by_action),
        "mean_weight": Quantity("1", gaps=True),
        "effective_size": Quantity("rows", gaps=True),
    }
