"""Whether another policy is better: how often the verdict is false, and what it refuses to judge."""

from collections import Counter

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from latebloom.methods.bandits.judging import judge, leaking_columns


def verdicts(count, *, n=400, k=2, lift=0.0, wrong=1.0, model=0.3):
    """Of logs whose actions pay 0.3, the first `lift` more; the target prefers the first; propensities
    are told `wrong` times what they were."""
    found = Counter()
    for seed in range(count):
        rng = np.random.default_rng(seed)
        b = 0.9 * rng.dirichlet(np.full(k, 5.0), n) + 0.1 / k
        a, rows = (b.cumsum(1) < rng.random((n, 1))).sum(1), np.arange(n)
        r = rng.random(n) < 0.3 + lift * (a == 0)
        t = np.full((n, k), 0.1 / (k - 1))
        t[:, 0] = 0.9
        parts = (
            r,
            np.minimum(b[rows, a] * wrong, 1),
            t[rows, a],
            np.full(n, model),
            np.full(n, model),
        )
        found[judge(*(jnp.asarray(x, jnp.float32) for x in parts)).verdict] += 1
    return found


@pytest.mark.parametrize("model", [0.3, 0.0])
def test_of_noise_it_says_better_or_worse_as_seldom_as_95_percent_promise(model):
    found = verdicts(150, model=model)
    assert found["better"] <= 8 and found["worse"] <= 10 and found["not covered"] <= 8


def test_what_is_better_is_said_to_be_and_what_is_worse_too():
    assert verdicts(30, lift=0.3)["better"] >= 27
    assert verdicts(30, lift=-0.2)["worse"] >= 27


@pytest.mark.parametrize("wrong", [0.5, 0.8, 1.4])
def test_propensities_that_are_wrong_are_noticed(wrong):
    assert verdicts(30, wrong=wrong)["not covered"] >= 27


def test_a_log_worth_few_rows_is_not_judged():
    assert verdicts(10, n=35)["not covered"] == 10


def test_columns_that_tell_the_reward_are_found_and_others_are_not():
    rng = np.random.default_rng(0)
    reward = rng.integers(0, 2, 400).astype(float)
    table = pd.DataFrame({
        "score": reward + 0.01 * rng.normal(size=400),
        "status": np.where(reward == 1, "paid", rng.choice(["refused", "stopped"], 400)),
        "amount": rng.gamma(2, 10, 400),
        "helpful": reward + rng.normal(size=400),
        "id": [f"u{i}" for i in range(400)],
    })  # fmt: skip
    assert leaking_columns(table, list(table), reward) == ["score", "status"]
    assert leaking_columns(table, list(table), np.ones(400)) == []
