"""Does `Supervised` inside `unfold` cost more than a scan written by hand?

    python benchmarks/supervised_overhead.py

Both train the same 64-128-128-10 MLP by Adam on the same batches of 64. Short runs in turns, the first
of each pair changing, because a shared machine is slower by tens of percent from one second to the next:
the ratio of the fastest runs says what the work costs, the median of the pairs what one meets.
"""

import statistics
import time
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from latebloom import losses, nn, unfold
from latebloom.core.training import Dataset, Supervised, shuffled

STEPS, TURNS, N, BATCH = 5_000, 30, 2048, 64
x = jax.random.normal(jax.random.key(0), (N, 64))
y = x[:, :10].argmax(1).astype(jnp.int32)
dataset = Dataset(x, y, x[:BATCH], y[:BATCH])


def model(key):
    return nn.MLP(64, (128, 128), 10, key=key)


def by_unfold():
    process = Supervised(
        model=model, data=dataset, optimiser=optax.adam, hyper={"learning_rate": 1e-3},
        loss=losses.cross_entropy, batch_size=BATCH,
    )  # fmt: skip
    return unfold(process, seeds=1, at=[STEPS]).attrs["run_seconds"]


@cache
def written_by_hand():
    params, static = eqx.partition(model(jax.random.key(1)), eqx.is_inexact_array)
    optimiser = optax.adam(1e-3)
    key = jax.random.key(2)

    def loss(params, rows):
        return losses.cross_entropy(eqx.combine(params, static)(x[rows]), y[rows]).mean()

    def step(carry, i):
        params, state = carry
        epoch, place = jnp.divmod(i, N // BATCH)
        rows = shuffled(jax.random.fold_in(key, epoch), place * BATCH + jnp.arange(BATCH), N)
        updates, state = optimiser.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(carry):
        return jax.lax.scan(step, carry, jnp.arange(STEPS))[0]

    carry = (params, optimiser.init(params))
    jax.block_until_ready(train(carry))
    return train, carry


def by_hand():
    train, carry = written_by_hand()
    start = time.perf_counter()
    jax.block_until_ready(train(carry))
    return time.perf_counter() - start


if __name__ == "__main__":
    arms = (by_unfold, by_hand)
    for arm in arms:
        arm()
    seconds = {by_unfold: [], by_hand: []}
    for turn in range(TURNS):
        for arm in arms if turn % 2 else reversed(arms):
            seconds[arm].append(arm())
    ours, hand = seconds.values()
    pairs = statistics.median(a / b for a, b in zip(ours, hand, strict=True))
    for name, values in (("unfold", ours), ("by hand", hand)):
        low, middle = (v / STEPS * 1e6 for v in (min(values), statistics.median(values)))
        print(f"{name}: fastest {low:.1f} us a step, median {middle:.1f}")
    print(f"ratio of the fastest {min(ours) / min(hand):.3f}, median of pairs {pairs:.3f}")
