"""Diagnostics and the Open Bandit comparison against scikit-learn, brute force and plain NumPy."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from latebloom import unfold
from latebloom.data import DataError, load_open_bandit
from latebloom.methods.bandits.payments import diagnostics
from latebloom.methods.bandits.payments.open_bandit import OpenBanditCheck, compare


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 4)), min_size=4, max_size=12
    ).filter(lambda rows: len({label for _, label, _ in rows}) == 2)
)
@settings(max_examples=50)
def test_auc_is_scikit_learns_ties_included(rows):
    padded = rows + [(0, False, 0)] * (12 - len(rows))
    score, label, weight = (np.float32(c) for c in zip(*padded, strict=True))
    theirs = roc_auc_score(*(np.array([r[i] for r in rows]) for i in (1, 0)),
                           sample_weight=[r[2] for r in rows])  # fmt: skip
    assert diagnostics.auc(score, label, weight) == pytest.approx(theirs, abs=1e-5)


def test_auc_of_probabilities_is_that_expected_over_labels():
    score, mean = np.array([0.1, 0.7, 0.7, 0.9]), np.array([0.2, 0.5, 0.9, 0.4])
    won = pairs = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                both = mean[i] * (1 - mean[j])
                won += both * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
                pairs += both
    found = diagnostics.auc(jnp.asarray(score), jnp.asarray(mean), jnp.ones(4))
    assert found == pytest.approx(won / pairs, abs=1e-5)
    assert diagnostics.auc(jnp.ones(3), jnp.ones(3), jnp.ones(3)) == 0.5


def test_other_diagnostics_by_hand():
    allowed = jnp.array([[True, True, False], [True, True, True]])
    even = allowed / allowed.sum(1, keepdims=True)
    assert diagnostics.entropy(even, allowed) == pytest.approx(1.0)
    assert diagnostics.entropy(jnp.array([[1.0, 0, 0], [0, 1.0, 0]]), allowed) == 0
    assert diagnostics.overlap(jnp.array([1.0, 3.0, 9.0]), jnp.array([1, 1, 0])) == pytest.approx(
        16 / 10 / 2
    )
    shift = diagnostics.action_shift(
        jnp.array([0.5, 0.5, 0.0]), jnp.array([0, 0, 2, 1]), jnp.array([1.0, 1, 1, 0])
    )
    assert shift == pytest.approx(0.5)
    kl = diagnostics.divergence(jnp.array([0.5]), jnp.array([0.8]), jnp.ones(1))
    assert kl == pytest.approx(0.8 * np.log(1.6) + 0.2 * np.log(0.4), abs=1e-5)
    assert diagnostics.divergence(jnp.array([0.3]), jnp.array([0.3]), jnp.ones(1)) < 1e-6


def test_a_policy_is_compared_with_its_own_log_by_hand():
    logged = pd.DataFrame(
        {"action": [0, 1, 0, 1, 1, 0], "position": [1, 1, 1, 1, 2, 2], "propensity": [0.5] * 6,
         "reward": [1, 0, 0, 1, 1, 0]}
    )  # fmt: skip
    own = pd.DataFrame(
        {"action": [0, 0, 0, 1, 1, 1], "position": [1, 1, 1, 1, 2, 2], "propensity": [0.9] * 6,
         "reward": [1, 0, 1, 0, 0, 1]}
    )  # fmt: skip
    found = compare(logged, own, prior=1e9)
    # Its frequencies: 3/4, 1/4 at position 1; 0, 1 at position 2. Weights 1.5, .5, 1.5, .5, 2, 0.
    assert found.estimates.ips.value == pytest.approx((1.5 + 0.5 + 2) / 6)
    assert found.estimates.snips.value == pytest.approx(4 / 6)
    # The model knows only the other half's mean: rewards 0, 1, 0 (odd rows) and 1, 0, 1 (even rows).
    model = np.array([1 / 3, 2 / 3] * 3)
    w, r = np.array([1.5, 0.5, 1.5, 0.5, 2, 0]), np.array([1, 0, 0, 1, 1, 0])
    assert found.estimates.dr.value == pytest.approx((model + w * (r - model)).mean(), abs=1e-5)
    assert found.on_policy == pytest.approx(0.5)
    assert found.on_policy_error == pytest.approx(np.std(own.reward, ddof=1) / np.sqrt(6))
    assert found.covered("ips")
    with pytest.raises(ValueError, match="position 3"):
        compare(logged.assign(position=3), own)


def test_seeds_take_disjoint_parts_of_the_logs():
    rng = np.random.default_rng(0)
    log = pd.DataFrame({"action": rng.integers(0, 3, 90), "position": 1, "propensity": 1 / 3,
                        "reward": rng.integers(0, 2, 90)})  # fmt: skip
    check = OpenBanditCheck({"a": (log, log), "b": (log, log)}, parts=3)
    trace = unfold(check, seeds=4, at=[1, 2], progress=False)
    assert np.isfinite(trace.snips_value.values[:3]).all()
    assert np.isnan(trace.snips_value.values[3]).all()
    part = compare(log.iloc[1::3], log.iloc[1::3])
    assert trace.snips_value.values[1, 0] == pytest.approx(float(part.estimates.snips.value))
    mean = trace.on_policy.values[:3, 0].mean()
    assert mean == pytest.approx(log.reward.mean(), abs=1e-6)


def test_estimates_on_the_open_bandit_logs_are_those_of_plain_numpy():
    try:
        logged, own = load_open_bandit("random", "men"), load_open_bandit("bts", "men")
    except DataError as absent:
        pytest.skip(str(absent))
    r, p = logged.reward.to_numpy(float), logged.propensity.to_numpy(float)
    a, place = logged.action.to_numpy(), logged.position.to_numpy()
    played = {(s, k): 0 for s in (1, 2, 3) for k in range(34)}
    for s, k in zip(own.position, own.action, strict=True):
        played[s, k] += 1
    size = {s: (own.position == s).sum() for s in (1, 2, 3)}
    policy = np.array([[played[s, k] / size[s] for k in range(34)] for s in place])
    n = np.arange(len(r))
    w = policy[n, a] / p
    model = np.zeros((len(r), 34))
    for half in (0, 1):
        others = n % 2 != half
        for k in range(34):
            of = others & (a == k)
            model[n % 2 == half, k] = (r[of].sum() + 50 * r[others].mean()) / (of.sum() + 50)
    terms = (policy * model).sum(1) + w * (r - model[n, a])
    expected = {"ips": (w * r).mean(), "snips": (w * r).sum() / w.sum(), "dr": terms.mean()}
    found = compare(logged, own).estimates
    for name, value in expected.items():
        assert getattr(found, name).value == pytest.approx(value, rel=1e-4), name
    assert found.ips.error == pytest.approx((w * r).std(ddof=1) / np.sqrt(len(r)), rel=1e-3)
    assert found.dr.error == pytest.approx(terms.std(ddof=1) / np.sqrt(len(r)), rel=1e-3)
    assert found.effective_size == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-4)
    assert found.mean_weight == pytest.approx(w.mean(), rel=1e-4)
