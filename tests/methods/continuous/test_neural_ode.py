"""A small neural ODE learns digits, says what it costs, and takes any network as its field."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from zoo import ZOO

from latebloom import data, unfold
from latebloom.core.odes import solve
from latebloom.core.training import Dataset, gradients
from latebloom.losses import cross_entropy
from latebloom.methods.continuous.neural_ode import (
    NetworkField,
    NeuralODE,
    NeuralODELearner,
    TanhField,
    as_field,
    classifier,
)


def sgd(learning_rate):
    return optax.sgd(learning_rate, momentum=0.9)


def learner(examples, build, **given):
    return NeuralODELearner(model=build, data=examples, optimiser=sgd, hyper={"learning_rate": 0.1},
                            loss=cross_entropy, **given)  # fmt: skip


def test_digits_are_learned_and_cost_is_told():
    digits = data.scaled(data.load("digits"), flat=True)
    build = classifier(64, 24, 10, rtol=1e-4, atol=1e-4, max_steps=64)
    process = learner(digits, build, batch_size=128, penalty="error", strengths=(1.0, 0.1), horizon_steps=30)  # fmt: skip
    told = unfold(process, seeds=1, steps=30, every=30, progress=False)
    assert told.test_accuracy.values[0, -1] > 0.8 > told.test_accuracy.values[0, 0]
    assert np.isfinite(told.penalty.values[0, 1:]).all() and (told.train_evaluations.values[0, 1:] >= 8).all()  # fmt: skip
    start = process.init(jax.random.key(0)).model
    assert start(digits.x_test[:5]).shape == (5, 10)
    evaluations = told.evaluations.values[0]
    assert (evaluations == 2 + 6 * (told.steps.values + told.rejected.values)[0]).all()


def small():
    x = jax.random.normal(jax.random.key(5), (24, 3))
    return Dataset(x[:16], jnp.arange(16) % 2, x[16:], jnp.arange(8) % 2)


PENALTIES = ["none", "stiffness", "error_squared", "error_and_stiffness", "local_error", "local_stiffness", "taylor", "kinetic"]  # fmt: skip


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_step_costs_the_loss_and_the_penalty(penalty):
    examples = small()
    process = learner(examples, classifier(3, 4, 2, max_steps=32), penalty=penalty, strengths=3.0,
                      sampler="biased", taylor_order=2)  # fmt: skip
    model = classifier(3, 4, 2, max_steps=32)(jax.random.key(1))
    x, y = examples.x_train, examples.y_train
    cost = eqx.filter_jit(process.cost)
    total, told = cost(model, x, y, jax.random.key(2), jnp.int32(0))
    evaluations, extra = told.evaluations, told.penalty
    plain = cross_entropy(model(x), y).mean()
    np.testing.assert_allclose(total - plain, 3 * extra, rtol=1e-3, atol=1e-5)
    assert (extra > 0) == (penalty != "none")
    # 8 more, of which 6 are a step's
    assert int(evaluations) % 6 == (4 if penalty.startswith("local") else 2)
    # work: two orders of derivatives are three products more; of a row of the Jacobian, its gradient's
    more = float(told.work / evaluations)
    assert (more > 1.1) == (penalty in ("taylor", "kinetic")) and (more == 1 or more < 6)


def test_random_ends_change_the_step_and_not_the_exam():
    process = learner(small(), classifier(3, 4, 2, max_steps=32), end_width=0.5)
    model = classifier(3, 4, 2, max_steps=32)(jax.random.key(1))
    x, y = process.data.x_train, process.data.y_train
    cost = eqx.filter_jit(process.cost)
    one, other = (cost(model, x, y, jax.random.key(i), jnp.int32(0))[0] for i in (0, 1))
    assert one != other
    end_key = jax.random.split(jax.random.key(0), 3)[0]
    end = 1 + 0.5 * float(jax.random.uniform(end_key, (), minval=-1, maxval=1))
    state = solve(model.field, 0.0, end, x, rtol=1e-5, atol=1e-5).y
    np.testing.assert_allclose(one, cross_entropy(model.head(state), y).mean(), rtol=1e-4)


def test_any_network_is_a_field():
    build, x = ZOO["frozen"]
    x = jnp.asarray(x)
    network = build(jax.random.key(0))
    narrow = eqx.nn.Linear(
        2, 6, key=jax.random.key(1)
    )  # the state and time, to what the network takes
    wide = eqx.nn.Linear(3, 1, key=jax.random.key(2))

    class Chain(eqx.Module):
        parts: tuple

        def __call__(self, x, key=None):
            for part in self.parts:
                x = part(x)
            return x

    field = NetworkField(Chain((narrow, eqx.nn.Dropout(0.5), network, wide)))
    model = NeuralODE(field, eqx.nn.Linear(1, 3, key=jax.random.key(3)), max_steps=64)
    states = x[:8, :1].astype(jnp.float32)

    @eqx.filter_jit
    def slopes(model):
        return gradients(lambda model: cross_entropy(model(states), jnp.arange(8) % 3).mean(), model)[0]  # fmt: skip

    for slope in jax.tree.leaves(slopes(model)):
        assert np.isfinite(slope).all()
    np.testing.assert_array_equal(model(states), model(states))  # dropout is off


def test_fields_of_others_are_fields():
    z = jnp.asarray([[0.5, -1.0], [2.0, 0.1]])
    linear = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    timed = eqx.nn.Linear(3, 2, key=jax.random.key(1))

    class Term:
        vector_field = staticmethod(lambda t, y, args: args * y)

        def vf(self, t, y, args):
            return self.vector_field(t, y, args)

    np.testing.assert_allclose(as_field(Term(), args=2.0)(0.0, z), 2 * z)
    np.testing.assert_allclose(as_field(lambda t, y, args: args * y * t, args=3.0)(2.0, z), 6 * z)
    np.testing.assert_allclose(as_field(lambda t, y: y * t)(2.0, z), 2 * z)
    np.testing.assert_allclose(as_field(linear)(7.0, z), jax.vmap(linear)(z))
    both = jnp.concatenate([z, jnp.full((2, 1), 7.0)], axis=1)
    np.testing.assert_allclose(as_field(timed, time=True)(7.0, z), jax.vmap(timed)(both))
    with pytest.raises(TypeError, match="callable or a term, not dict"):
        as_field({})
    with pytest.raises(TypeError, match=r"not \(a, b, c, d\)"):
        as_field(lambda a, b, c, d: a)


def test_steps_are_shown():
    process = learner(small(), classifier(3, 4, 2, max_steps=32), show=12)
    seen = process.observe(process.init(jax.random.key(0)))
    n = int(seen["steps"])
    assert seen["length"].shape == (12,) and np.isnan(seen["length"][n:]).all()
    assert float(seen["length"][:n].sum()) == pytest.approx(1, rel=1e-5)
    assert (seen["local_error"][:n] <= 1).all()


def test_a_field_is_what_the_papers_say():
    field = TanhField(3, 4, key=jax.random.key(0))
    z, t = np.array([[0.3, -1.0, 2.0]]), 0.6
    with_t = lambda x: np.append(x, [[t]], axis=1)  # noqa: E731
    w1, b1, w2, b2 = (np.asarray(a) for a in (field.first.weight, field.first.bias, field.second.weight, field.second.bias))  # fmt: skip
    inner = with_t(np.tanh(with_t(z) @ w1 + b1)) @ w2 + b2
    np.testing.assert_allclose(field(t, jnp.asarray(z, jnp.float32)), np.tanh(inner), rtol=1e-5)
    free = TanhField(3, 4, key=jax.random.key(0), bounded=False)
    np.testing.assert_allclose(free(t, jnp.asarray(z, jnp.float32)), inner, rtol=1e-5)


BAD = [
    (dict(penalty="errors"), "penalty must be"), (dict(aggregate="median"), "aggregate"), (dict(strengths=0.0), "strengths"),
    (dict(end_width=1.0), "end_width"), (dict(sampler="no"), "sampler"),
]  # fmt: skip


@pytest.mark.parametrize("options, said", BAD, ids=[said for _, said in BAD])
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        learner(small(), classifier(3, 4, 2), **options)
