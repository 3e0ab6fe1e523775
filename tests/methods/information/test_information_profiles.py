"""The one call: tables of trained models."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.data import Dataset
from latebloom.methods.information import NATS_PER_BIT, Swag, Trained, information_profiles
from latebloom.methods.information.weights import cumulative_log_densities, stack


class Net(eqx.Module):
    layers: tuple

    def __init__(self, key, scale):
        keys = jax.random.split(key)
        self.layers = tuple(
            scale * jax.random.normal(k, s) for k, s in zip(keys, ((2, 4), (4, 2)), strict=True)
        )


def hidden(model, x):
    return [jnp.tanh(x @ model.layers[0])]


def logits(model, x):
    return hidden(model, x)[0] @ model.layers[1]


@pytest.fixture(scope="module")
def trained():
    found = []
    for instance in (0, 1):
        x = jax.random.normal(jax.random.key(instance), (60, 2))
        y = (x[:, 0] > 0).astype(int)
        data = Dataset(x[:40], y[:40], x[40:], y[40:])
        for place, scale in enumerate((0.5, 1.0, 2.0)):
            model = Net(jax.random.key(place), scale)
            swag = Swag.start(model)
            for t in range(3):
                swag = swag.collect(
                    jax.tree.map(lambda w, t=t: w + 0.1 * t + 0.01 * instance, model)
                )
            found.append(Trained(model, data, f"scale {scale}", instance, 0, swag))
    return found


def test_tables_of_trained_models(trained):
    found = information_profiles(trained, hidden, logits, least_accuracy=0.0)
    assert len(found.layers) == 6 and len(found.models) == 6
    row = found.layers.loc[0]
    assert row["combined, mc"] == pytest.approx(row["I(X;Z|Y), mc"] + row["I(S;θ)"])
    assert 0 <= row["I(X;Z|Y), mc"] <= row["I(X;Z), mc"] <= np.log2(40)
    pair = stack([trained[0].posterior, trained[3].posterior])
    log_q = np.asarray(cumulative_log_densities(pair, jax.random.key(0)))[0]
    own = np.einsum("itj,ij->it", log_q, np.eye(2))
    want = (own - log_q.mean(-1)).mean() / NATS_PER_BIT
    assert row["I(S;θ)"] == pytest.approx(want, rel=1e-4)
    one = found.models.loc[4]
    outputs = np.asarray(logits(trained[4].model, trained[4].data.x_test), float)
    log_p = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    loss = -log_p[np.arange(20), trained[4].data.y_test].mean()
    assert one.test_loss == pytest.approx(loss, rel=1e-5)
    assert one.gap == pytest.approx(one.test_loss - one.train_loss)
    assert one.parameters == 16 and one["m log m"] == 64
    assert {"min combined, mc", "last I(X;Z|Y), mc", "sum of norms"} <= set(
        found.correlations.index
    )
    assert {"kendall", "low", "high", "within", "partial"} <= set(found.correlations.columns)


def test_stochastic_layers_and_models_without_posteriors(trained):
    plain = [one._replace(posterior=None) for one in trained]

    def code(model, x):
        mean = hidden(model, x)[0]
        return [(mean, 0 * mean + 0.5)]

    found = information_profiles(plain, code, logits)
    assert np.isnan(found.layers["combined, mc"]).all() and (found.layers.sigma == 0.5).all()
    assert "min combined, mc" not in found.correlations.index


def test_the_two_estimates_have_names_of_their_own(trained):
    plain = [one._replace(posterior=None) for one in trained]

    def code(model, x):
        mean = hidden(model, x)[0]
        return [(mean, 0 * mean + 0.5)]

    rows = {
        how: information_profiles(plain, code, logits, how=how).layers for how in ("mc", "jensen")
    }
    # By NumPy, from the same draws of z.
    key = jax.random.fold_in(jax.random.key(0), 0)
    chosen = jax.random.permutation(jax.random.fold_in(key, 1), 40)[:400]
    mean = np.asarray(hidden(trained[0].model, trained[0].data.x_train[chosen])[0], float)
    z = mean + 0.5 * np.asarray(jax.random.normal(jax.random.fold_in(key, 0), mean.shape), float)
    log_p = -0.5 * ((z[:, None] - mean) ** 2).sum(-1) / 0.25
    marginal = {"mc": np.log(np.exp(log_p).mean(1)), "jensen": log_p.mean(1)}
    for how, table in rows.items():
        want = (np.diag(log_p) - marginal[how]).mean() / NATS_PER_BIT
        assert table[f"I(X;Z), {how}"][0] == pytest.approx(want, rel=1e-4)
        assert "I(X;Z)" not in table and "combined" not in table
    assert rows["jensen"]["I(X;Z), jensen"][0] > rows["mc"]["I(X;Z), mc"][0]


def test_what_cannot_be_compared(trained):
    with pytest.raises(ValueError, match="how must be 'mc' or 'jensen', not 'bins'"):
        information_profiles(trained, hidden, logits, how="bins")
    one = trained[0]._replace(
        data=eqx.tree_at(lambda d: d.y_test, trained[0].data, jnp.full(20, 5))
    )
    with pytest.raises(
        ValueError, match="the test labels of setting 'scale 0.5' must be from 0 to 1"
    ):
        information_profiles([one._replace(posterior=None)] * 3, hidden, logits)
    with pytest.raises(ValueError, match="at least 3 models, not 2"):
        information_profiles(trained[:2], hidden, logits)
    with pytest.raises(ValueError, match="setting 'scale 2.0', seed 0: .* 1 models on 1"):
        information_profiles(trained[:5], hidden, logits)
    with pytest.raises(ValueError, match="mixes stochastic layers"):
        information_profiles(
            [t._replace(posterior=None) for t in trained],
            lambda m, x: [*hidden(m, x), (x, x)], logits,
        )  # fmt: skip
