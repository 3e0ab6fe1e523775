"""Does `Supervised` inside `unfold` cost more than a scan written by hand?

    python benchmarks/supervised_overhead.py

Both train the same 64-128-128-10 MLP by Adam on the same batches of 64; the ratio should be within
5 % of 1.
"""

import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from latebloom import losses, nn, unfold
from latebloom.supervised import Dataset, Supervised, shuffled

STEPS, N, BATCH = 20_000, 2048, 64
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


def by_hand():
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
    start = time.perf_counter()
    jax.block_until_ready(train(carry))
    return time.perf_counter() - start


if __name__ == "__main__":
    by_unfold()
    pairs = [(by_unfold(), by_hand()) for _ in range(7)]
    ours, hand = (statistics.median(v) for v in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"unfold {ours / STEPS * 1e6:.1f} us a step, by hand {hand / STEPS * 1e6:.1f} us; ratio {ratio:.3f}"
    )
