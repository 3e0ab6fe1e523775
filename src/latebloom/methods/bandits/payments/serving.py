"""A batch served outside of a traced chain, with the very transactions and noise that a chain meets."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Feedback, View
from latebloom.methods.bandits import exploration
from latebloom.methods.bandits.payments.policy import Retrained
from latebloom.methods.bandits.payments.world import Instance, PaymentWorld


class Served(NamedTuple):
    """A batch: the feedback at the day's end, and the rounds until each reward is known."""

    feedback: Feedback
    delay: Int[Array, " n"]
    mean: Float[Array, " n"]


class Keys(NamedTuple):
    """The keys of a run, split as a chain on the same seed splits them."""

    instance: PRNGKeyArray
    world: PRNGKeyArray
    policy_init: PRNGKeyArray
    policy: PRNGKeyArray
    contexts: PRNGKeyArray


def keys_of(seed: int) -> Keys:
    run, contexts = jax.random.split(jax.random.key(seed))
    instance, world, policy_init, policy = jax.random.split(run, 4)
    return Keys(instance, world, policy_init, policy, contexts)


@eqx.filter_jit
def look(
    world: PaymentWorld, instance: Instance, key: PRNGKeyArray, generation: Int[Array, ""]
) -> View:
    """All transactions of a batch."""
    rounds = generation * world.batch + jnp.arange(world.batch)

    def one(round: Array) -> View:
        see, _ = jax.random.split(jax.random.fold_in(key, round))
        return world.look(instance, see, round)

    return jax.vmap(one)(rounds)


@eqx.filter_jit
def play(
    world: PaymentWorld, instance: Instance, keys: Keys, generation: Int[Array, ""], view: View,
    probabilities: Float[Array, "n k"],
) -> Served:  # fmt: skip
    """Actions drawn from the probabilities, and what they brought by the end of the batch."""
    rounds = generation * world.batch + jnp.arange(world.batch)

    def one(round: Array, view: View, p: Array) -> tuple[Decision, Array, Array, Array]:
        _, act = jax.random.split(jax.random.fold_in(keys.world, round))
        decision = Decision(*exploration.draw(jax.random.fold_in(keys.policy, round), p))
        _, outcome = world.step(instance, view, decision, act, round)
        return decision, outcome.reward, jnp.asarray(outcome.delay), outcome.mean

    decision, reward, delay, mean = jax.vmap(one)(rounds, view, probabilities)
    arrived: Bool[Array, " n"] = rounds + delay < (generation + 1) * world.batch
    feedback = Feedback(
        view.features, view.allowed, decision.action, decision.propensity, reward, rounds, arrived
    )
    return Served(feedback, delay, mean)


def simulate_log(
    world: PaymentWorld, policy: Retrained, generations: int, seed: int = 0,
    start: str = "2025-03-01",
) -> pd.DataFrame:  # fmt: skip
    """The log of a chain of generations, one a day, as a table in the format of `logs`.

    A reward that comes after its day's end is a gap: the policy was retrained without it.
    """
    if generations < 1:
        raise ValueError(f"generations must be at least 1, not {generations}")
    keys = keys_of(seed)
    instance, state = world.init(keys.instance), policy.init(keys.policy_init)
    probabilities, learn = jax.jit(policy.probabilities), jax.jit(policy.learn)
    days, first = [], pd.to_datetime(start, utc=True)
    for g in range(generations):
        view = look(world, instance, keys.world, jnp.int32(g))
        chosen = probabilities(state, view.features, view.allowed)
        served = play(world, instance, keys, jnp.int32(g), view, chosen)
        days.append(_day(world, served, g, first))
        state = learn(state, served.feedback)
    return pd.concat(days, ignore_index=True)


def _day(world: PaymentWorld, served: Served, generation: int, start: pd.Timestamp) -> pd.DataFrame:
    rows = served.feedback
    codes, numbers = np.asarray(rows.features.categories), np.asarray(rows.features.numbers)
    place = (np.arange(world.batch) + 0.5) / world.batch
    arrival = place + np.asarray(served.delay) / world.batch
    hours = [world.time_of_day(place), world.time_of_day(arrival % 1) + 24 * (arrival // 1)]
    sent, known = (
        start + pd.to_timedelta(24 * generation + np.asarray(h), unit="h") for h in hours
    )
    arrived = np.asarray(rows.arrived)
    allowed = np.asarray(rows.allowed)
    return pd.DataFrame(
        {
            "timestamp": sent.floor("s"),
            "generation": generation + 1,
            "merchant": [f"m{code}" for code in codes[:, 0]],
            "issuer": [f"i{code}" for code in codes[:, 1]],
            "card": [f"c{code}" for code in codes[:, 2]],
            "region": [f"r{code}" for code in codes[:, 3]],
            "amount": np.round(np.exp(numbers[:, 0] + 3.5), 2),
            "recurring": numbers[:, 1].astype(int),
            "allowed_actions": ["|".join(map(str, np.flatnonzero(row))) for row in allowed],
            "action": np.asarray(rows.action),
            "propensity": np.round(np.asarray(rows.propensity, float), 5),
            "reward": pd.array(np.asarray(rows.reward, int), dtype="Int64"),
            "reward_timestamp": known.floor("s"),
        }
    ).assign(
        reward=lambda t: t["reward"].where(arrived),
        reward_timestamp=lambda t: t["reward_timestamp"].where(arrived),
    )
