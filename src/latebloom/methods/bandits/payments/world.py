"""Card payments that a bank authorises or declines, depending on how they are sent to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Environment, Outcome, View

CARDS, REGIONS, HOURS, FACTORS = 5, 6, 24, 4


class Features(NamedTuple):
    """A context: `categories` (codes of each categorical column) and `numbers`."""

    categories: Int[Array, "*b c"]
    numbers: Float[Array, "*b m"]


class Instance(NamedTuple):
    """What is drawn once for a seed. `issuer` [generation, issuers, 4] is the path of the drift."""

    merchant: Float[Array, " merchants"]
    issuer: Float[Array, "generations issuers f"]
    action: Float[Array, "f k"]
    card: Float[Array, "cards k"]
    region: Float[Array, "regions k"]
    daily: Float[Array, " k"]
    phase: Float[Array, " k"]
    allowed: Bool[Array, "cards regions merchants k"]


class PaymentWorld(Environment):
    """Transactions in batches of `batch`, one batch a day; the reward is 1 if authorised.

    P(authorised) = sigmoid(base + merchant + issuer . v_a + w_a . (card, region)
    + c_a sin(2π (hour - phase_a) / 24) - 0.15 (log amount - 3.5) + 0.5 recurring), with Zipf merchants and
    issuers. Action 0 is always allowed, any other with probability 0.6 for each combination of card
    type, region and merchant.

    - `base`: the intercept; 1.85 authorises 83 % of uniformly played transactions.
    - `lift`: standard deviation of v_a, that is, how much there is to be won.
    - `persistence`: ρ of the issuers' drift u <- ρ u + sqrt(1 - ρ²) N(0, I) from one batch to the
      next; 1 is a world that stands still.
    - `delay`, `decline_delay`: mean hours until an approval and a decline are known (geometric in
      minutes); 0 is at once. A reward is under way at the end of the day if it comes later.
    - `generations`: batches the drift is drawn for.

    Features: categories (merchant, issuer, card, region, hour), numbers (log amount - 3.5,
    recurring). Rounds within a batch are in order of time, dense where the day is busy.
    """

    batch: int = eqx.field(static=True, default=20_000)
    actions: int = eqx.field(static=True, default=24)
    merchants: int = eqx.field(static=True, default=50)
    issuers: int = eqx.field(static=True, default=200)
    generations: int = eqx.field(static=True, default=12)
    base: float = 1.85
    lift: float = 0.35
    persistence: float = 1.0
    delay: float = 2.0
    decline_delay: float = 2.0

    memoryless: ClassVar[bool] = True  # pyright: ignore

    def __check_init__(self) -> None:
        if min(self.batch, self.actions - 1, self.merchants, self.issuers, self.generations) < 1:
            raise ValueError("a world needs rounds, merchants, issuers, and at least two actions")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Levels of each category."""
        return (self.merchants, self.issuers, CARDS, REGIONS, HOURS)

    def init(self, key: PRNGKeyArray) -> Instance:
        k, cells = self.actions, (CARDS, REGIONS, self.merchants, self.actions)
        normal, uniform = jax.random.split(key)
        # Two draws for all: every further call of a generator costs a second of compilation.
        merchant, issuer, action, card, region, daily = _parts(
            partial(jax.random.normal, normal), (self.merchants,),
            (self.generations + 1, self.issuers, FACTORS), (FACTORS, k), (CARDS, k), (REGIONS, k),
            (k,),
        )  # fmt: skip
        cell, card_lot, region_lot, phase = _parts(
            partial(jax.random.uniform, uniform), cells, (CARDS, k), (REGIONS, k), (k,)
        )
        return Instance(
            0.5 * merchant, self._path(issuer[0], issuer[1:]), self.lift * action,
            jnp.where(card_lot < 0.5, 0.3 * card, 0.0),
            jnp.where(region_lot < 0.5, 0.3 * region, 0.0), 0.2 * daily, 24 * phase,
            (cell < 0.6).at[..., 0].set(True),
        )  # fmt: skip

    def _path(self, start: Array, noise: Array) -> Array:
        rho = jnp.asarray(self.persistence)

        def move(u: Array, e: Array) -> tuple[Array, Array]:
            u = rho * u + jnp.sqrt(1 - rho**2) * e
            return u, u

        return jnp.concatenate([start[None], jax.lax.scan(move, start, noise)[1]])

    def look(self, state: Instance, key: PRNGKeyArray, round: Int[Array, ""]) -> View:
        """A transaction; its time of day follows from its place in the batch."""
        features = self.context(key, self.time_of_day(self._place(round)))
        return View(features, self.allowed(state, features))

    def context(self, key: PRNGKeyArray, time: Float[Array, ""]) -> Features:
        """A transaction at `time` (hours)."""
        lots = jax.random.uniform(key, (6,))
        merchant = jnp.searchsorted(_zipf(self.merchants), lots[0]).astype(jnp.int32)
        issuer = jnp.searchsorted(_zipf(self.issuers), lots[1]).astype(jnp.int32)
        card = (lots[2] * CARDS).astype(jnp.int32)
        region = (lots[3] * REGIONS).astype(jnp.int32)
        hour = jnp.clip(time.astype(jnp.int32), 0, HOURS - 1)
        amount = jax.scipy.special.ndtri(jnp.clip(lots[4], 1e-6, 1 - 1e-6))
        recurring = (lots[5] < 0.3).astype(jnp.float32)
        categories = jnp.stack([merchant, issuer, card, region, hour])
        return Features(categories, jnp.stack([amount, recurring]))

    def allowed(self, state: Instance, features: Features) -> Bool[Array, " k"]:
        merchant, _, card, region, _ = features.categories
        return state.allowed[card, region, merchant]

    def means(
        self, state: Instance, features: Features, generation: Int[Array, ""]
    ) -> Float[Array, " k"]:
        """P(authorised) under each action, allowed or not."""
        merchant, issuer, card, region, hour = features.categories
        amount, recurring = features.numbers
        last = self.generations
        u = state.issuer[jnp.minimum(generation, last), issuer]
        daily = state.daily * jnp.sin(2 * jnp.pi * (hour - state.phase) / 24)
        common = self.base + state.merchant[merchant] + 0.5 * recurring
        common -= 0.15 * amount
        own = u @ state.action + state.card[card] + state.region[region] + daily
        return jax.nn.sigmoid(common + own)

    def step(
        self, state: Instance, view: View, decision: Decision, key: PRNGKeyArray,
        round: Int[Array, ""],
    ) -> tuple[Instance, Outcome]:  # fmt: skip
        means = self.means(state, view.features, round // self.batch)
        noise, wait = jax.random.uniform(key, (2,), minval=1e-7)
        mean = means[decision.action]
        reward = (noise < mean).astype(jnp.float32)
        best = jnp.where(view.allowed, means, -jnp.inf).max()
        delay = self._delay(wait, self._place(round), reward)
        return state, Outcome(reward, reward, mean, best, delay)

    def time_of_day(self, place: Float[Array, "*b"] | np.ndarray) -> Float[Array, "*b"]:
        """Hour at which a share `place` of the day's transactions has passed."""
        return jnp.interp(jnp.asarray(place, jnp.float32), _PASSED, _GRID.astype(np.float32))

    def _place(self, round: Array) -> Array:
        return (round % self.batch + 0.5) / self.batch

    def _delay(self, lot: Array, place: Array, reward: Array) -> Array:
        """Rounds that pass until the reward is known, in a day whose density repeats."""
        hours = jnp.where(reward > 0, self.delay, self.decline_delay)
        stay = jnp.log1p(-1 / jnp.maximum(60 * hours, 1.0001))
        minutes = jnp.where(hours > 0, jnp.ceil(jnp.log(lot) / stay), 0.0)
        days, time = jnp.divmod(self.time_of_day(place) + minutes / 60, 24.0)
        arrival = days + _cumulative(time)
        rounds = jnp.ceil(self.batch * (arrival - place)).astype(jnp.int32)
        return jnp.where(hours > 0, jnp.maximum(rounds, 0), 0)


def _parts(draw: Callable[[tuple[int, ...]], Array], *shapes: tuple[int, ...]) -> list[Array]:
    """Draws of several shapes, cut from one."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    flat = jnp.split(draw((int(ends[-1]),)), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(flat, shapes, strict=True)]


def _zipf(count: int, power: float = 1.1) -> np.ndarray:
    weights = np.arange(1, count + 1) ** -power
    total = np.cumsum(weights / weights.sum())
    total[-1] = 1.0
    return total.astype(np.float32)


_GRID = np.linspace(0, 24, 24 * 12 + 1)
_DENSITY = 1 + 0.6 * np.sin(2 * np.pi * (_GRID - 9) / 24)  # busiest at 15 h, quietest at 3 h
_PASSED = np.concatenate([[0], np.cumsum((_DENSITY[1:] + _DENSITY[:-1]) / 2)])
_PASSED = (_PASSED / _PASSED[-1]).astype(np.float32)


def _cumulative(time: Array) -> Array:
    return jnp.interp(time, _GRID.astype(np.float32), _PASSED)
