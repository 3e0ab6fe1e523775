"""How fast is a generation (train on the last log, score the next batch) against peers?

    python benchmarks/payment_generation.py [--rows 20000] [--repeats 5]

One log of simulated payments, uniform, 24 actions. In turns: ours (crossed logistic regression, by
Newton and conjugate gradients), scikit-learn's LogisticRegression on the same features, sparse (the
same penalised likelihood, so that both end at the same predictions), and, if installed, Vowpal
Wabbit's online logistic regression on the same crosses (one pass, its own optimiser, the text
interface that its Python package offers). Medians of the seconds, and the true value of each model's greedy policy, uniform 0 and
oracle 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from latebloom.methods.bandits import exploration
from latebloom.methods.bandits.payments.model import CrossedLogistic, Rows
from latebloom.methods.bandits.payments.serving import keys_of, look, play
from latebloom.methods.bandits.payments.world import Features, PaymentWorld

RIDGE = 2.0


def batches(world: PaymentWorld) -> tuple[Rows, Any, np.ndarray]:
    """A log served uniformly, the next batch's view, and its true means."""
    keys = keys_of(100)
    instance = world.init(keys.instance)
    first, second = (look(world, instance, keys.world, jnp.int32(g)) for g in (0, 1))
    served = play(world, instance, keys, jnp.int32(0), first, exploration.uniform(first.allowed))
    f = served.feedback
    rows = Rows(f.features, f.allowed, f.action, f.propensity, f.reward, f.arrived.astype(float))
    means = jax.vmap(lambda x: world.means(instance, x, jnp.int32(1)))(second.features)
    return jax.block_until_ready(rows), second, np.asarray(means)


def ours(world: PaymentWorld, rows: Rows, view: Any) -> Callable[[], np.ndarray]:
    model = CrossedLogistic(world.sizes, 2, world.actions, ridge=RIDGE)

    @jax.jit
    def generation(rows: Rows, features: Features) -> Any:
        return model.predict(model.fit(rows), features)

    return lambda: np.asarray(generation(rows, view.features))


def design(world: PaymentWorld, features: Features, action: np.ndarray) -> sparse.csr_matrix:
    """The same features: one-hot categories and numbers, and all of them (and 1) by action."""
    codes, numbers = np.asarray(features.categories), np.asarray(features.numbers)
    codes = codes + np.cumsum((0, *world.sizes[:-1]))
    n, levels = len(codes), sum(world.sizes)
    width = levels + numbers.shape[1] + 1
    places = np.hstack([codes, np.tile(np.arange(levels, width), (n, 1))])
    values = np.hstack([np.ones(codes.shape), numbers, np.ones((n, 1))])
    crossed = places + width * (1 + action[:, None])
    # The shared constant is the intercept, which is not penalised.
    columns = np.hstack([places[:, :-1], crossed])
    data = np.hstack([values[:, :-1], values])
    starts = np.arange(0, data.size + 1, data.shape[1])
    shape = (n, width * (1 + world.actions))
    return sparse.csr_matrix((data.ravel(), columns.ravel(), starts), shape)


def scikit_learn(world: PaymentWorld, rows: Rows, view: Any) -> Callable[[], np.ndarray]:
    there = np.asarray(rows.weight) > 0
    n, k = world.batch, world.actions

    def generation() -> np.ndarray:
        x = design(world, rows.features, np.asarray(rows.action))[there]
        model = LogisticRegression(C=1 / RIDGE, max_iter=5000, tol=1e-5)
        model.fit(x, np.asarray(rows.reward)[there])
        every = [
            model.predict_proba(design(world, view.features, np.full(n, a)))[:, 1] for a in range(k)
        ]
        return np.stack(every, axis=1)

    return generation


def vowpal_wabbit(world: PaymentWorld, rows: Rows, view: Any) -> Callable[[], np.ndarray] | None:
    """cb_explore_adf with SquareCB, one online pass over the log, then the next batch's policy."""
    try:
        from vowpalwabbit import Workspace
    except ImportError:
        return None

    def lines(codes: np.ndarray, numbers: np.ndarray, actions: np.ndarray) -> list[str]:
        named = " ".join(f"{name}{code}" for name, code in zip("mickh", codes, strict=True))
        shared = f"shared |s {named} amount:{numbers[0]:.4f} recurring:{numbers[1]:.0f}"
        return [shared, *(f"|a {a}" for a in actions)]

    def generation() -> np.ndarray:
        learner = Workspace("--quiet --cb_explore_adf --squarecb --gamma_scale 1000 -q sa -b 18")
        columns = (*rows.features, rows.allowed, rows.action, rows.propensity, rows.reward,
                   rows.weight)  # fmt: skip
        for codes, numbers, allowed, action, propensity, reward, weight in zip(
            *map(np.asarray, columns), strict=True
        ):
            if weight:
                actions = np.flatnonzero(allowed)
                example = lines(codes, numbers, actions)
                place = 1 + int(np.searchsorted(actions, action))
                example[place] = f"0:{1 - reward:.0f}:{propensity:.6f} {example[place]}"
                learner.learn(example)
        policy = np.zeros((world.batch, world.actions))
        columns = (*view.features, view.allowed)
        for row, (codes, numbers, allowed) in enumerate(
            zip(*map(np.asarray, columns), strict=True)
        ):
            actions = np.flatnonzero(allowed)
            policy[row, actions] = learner.predict(lines(codes, numbers, actions))
        learner.finish()
        return policy

    return generation


def gain(scores: np.ndarray, view: Any, means: np.ndarray) -> float:
    allowed = np.asarray(view.allowed)
    best = np.where(allowed, scores, -np.inf).argmax(1)
    uniform = ((means * allowed).sum(1) / allowed.sum(1)).mean()
    oracle = np.where(allowed, means, 0).max(1).mean()
    return float((means[np.arange(len(best)), best].mean() - uniform) / (oracle - uniform))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    world = PaymentWorld(batch=chosen.rows)
    rows, view, means = batches(world)
    runs = {
        "latebloom": ours(world, rows, view),
        "scikit-learn": scikit_learn(world, rows, view),
        "vowpalwabbit": vowpal_wabbit(world, rows, view),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    scores: dict[str, np.ndarray] = {}
    started = time.perf_counter()
    runs["latebloom"]()  # pyright: ignore
    print(f"latebloom compiles and runs once in {time.perf_counter() - started:.1f} s")
    for _ in range(chosen.repeats):
        for name, run in runs.items():
            if run is not None:
                started = time.perf_counter()
                scores[name] = run()
                seconds[name].append(time.perf_counter() - started)
    for name, each in seconds.items():
        if each:
            median = float(np.median(each))
            print(
                f"{name:13s} {median:8.3f} s  {chosen.rows / median:10,.0f} rows/s  greedy value "
                f"{gain(scores[name], view, means):.3f}"
            )
        else:
            print(f"{name:13s} not installed")
    gap = np.abs(scores["latebloom"] - scores["scikit-learn"])
    print(f"ours and scikit-learn's predictions differ by {gap.mean():.5f} on average")


if __name__ == "__main__":
    main()
