"""Small runs of learning delays, against what is known of them by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom import unfold
from latebloom.data.timed_patterns import TimedPatterns
from latebloom.methods.recurrence.delay_learning import DelayLearner, Sequences, TeacherRecovery
from latebloom.methods.recurrence.spiking import (
    SpikingDelays,
    SpikingRecurrent,
    delays_of,
    votes,
    whole,
)
from latebloom.nn.delays import Delays

HYPER = {"rate": 2e-2, "delay_rate": 0.3, "sigma": 4.0}


def drawn(key):
    keys = jax.random.split(key, 4)
    patterns = TimedPatterns(
        4, 6, key=keys[0], span=10, shift=4, jitter=0.3, lost=0.0, noise=0.0, burst=2
    )
    exams = {name: patterns.draw(k, 40) for name, k in zip(("valid", "test"), keys[1:], strict=False)}  # fmt: skip
    return Sequences(*patterns.draw(keys[3], 60), exams)


def network(key):
    return SpikingDelays((6, 8, 4), 9, key=key)


def learner(**more):
    same = {"network": network, "data": drawn, "hyper": HYPER, "epochs": 12, "batch": 20}
    return DelayLearner(**same | more)


def test_learned_delays_tell_patterns_and_are_recorded():
    process = learner(show=True, epochs=32)
    trace = unfold(process, seeds=2, at=[0, 3, 96], progress=False)
    told = trace.accuracy.sel(exam="test").mean("seed").values
    assert told[-1] > 0.6 > 0.45 > told[0]
    assert trace.sigma.values[0].tolist() == pytest.approx([4.0, 4 * (0.23 / 4) ** (1 / 8), 0.23])
    assert (trace.moved.values[:, 0] == 0).all() and (trace.moved.values[:, -1] > 0.2).all()
    np.testing.assert_allclose(trace.delays.sum("delay"), 1, rtol=1e-5)
    assert trace.sizes["delay"] == 9 and trace.raster.sizes["later"] == 18 + 4
    assert trace.events.values[0, -1] == pytest.approx(trace.rate.values[0, -1, 0] * 8 * 22, rel=1e-4)  # fmt: skip


def test_fixed_delays_are_whole_and_stay():
    process = learner(fixed=True)
    state = process.init(jax.random.key(0))
    first = [np.asarray(layer.delay) for layer in delays_of(state.model)]
    assert all((d == np.round(d)).all() for d in first)
    after = process.step(process.step(state))
    for layer, was in zip(delays_of(after.model), first, strict=True):
        np.testing.assert_array_equal(layer.delay, was)
    weight = after.model.layers[0].weight
    assert not np.allclose(weight, state.model.layers[0].weight)
    seen = process.observe(after)
    for name in ("accuracy_real", "accuracy_rounded"):  # there is no other kernel
        np.testing.assert_allclose(seen["accuracy"], seen[name])


def test_in_the_last_part_delays_are_whole_and_weights_alone_learn():
    process = learner(finish=0.5)
    assert process.turns() == (18,) and float(process.sigma(jnp.int32(17))) > 0 > float(process.sigma(jnp.int32(18)))  # fmt: skip
    state = process.init(jax.random.key(0))._replace(step=jnp.int32(17))
    state = process.turn(process.step(state))
    first = [np.asarray(layer.delay) for layer in delays_of(state.model)]
    assert all((d == np.round(d)).all() for d in first)
    after = process.step(process.step(state))
    for layer, before, was in zip(after.model.layers, state.model.layers, first, strict=True):
        np.testing.assert_array_equal(layer.delay, was)
        assert not np.allclose(layer.weight, before.weight)
    x = state.data.x[:5]
    np.testing.assert_allclose(after.model(x, jnp.float32(-1)), after.model(x, None), atol=1e-5)


def test_a_delay_never_leaves_its_range():
    process = DelayLearner(network=network, data=drawn, hyper=HYPER | {"delay_rate": 50.0}, epochs=2, batch=20)  # fmt: skip
    state = process.step(process.init(jax.random.key(0)))
    at = np.concatenate([np.ravel(d.delay) for d in delays_of(state.model)])
    assert at.min() == 0 and at.max() == 8 and np.isin(at, [0, 8]).mean() > 0.9


def test_data_may_be_shared_and_networks_without_delays_learn_too():
    data = drawn(jax.random.key(3))
    process = DelayLearner(
        network=lambda key: SpikingRecurrent((6, 8, 4), key=key), data=data, hyper=HYPER, epochs=2, batch=30
    )  # fmt: skip
    seen = process.observe(process.step(process.init(jax.random.key(0))))
    assert {"accuracy", "rate"} <= set(seen) and "delays" not in seen
    assert tuple(process.quantities()["accuracy"].coords["exam"]) == ("test", "valid")
    for wrong in ({"epochs": 0}, {"batch": 61}):
        with pytest.raises(ValueError, match=r"epochs must|batch must be from 1 to the 60"):
            DelayLearner(**{"network": network, "data": data, "hyper": HYPER, "epochs": 2} | wrong)


class Late(eqx.Module):
    """A model of a user's: two layers of delays of unlike length."""

    first: Delays
    second: Delays

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.first, self.second = Delays(6, 5, 3, key=one), Delays(5, 4, 7, key=two)

    def __call__(self, x, sigma, *, key=None, train=False):
        return self.second(self.first(x, sigma), sigma)


def test_layers_may_have_delays_of_unlike_length():
    process = learner(network=Late)
    seen = process.observe(process.init(jax.random.key(0)))
    assert seen["delays"].shape == (2, 7)
    np.testing.assert_allclose(seen["delays"].sum(1), 1, rtol=1e-6)


def test_a_users_delays_are_one_step_wide_in_the_last_part():
    process = learner(network=Late, finish=0.5)
    state = process.init(jax.random.key(0))._replace(step=jnp.int32(18))
    seen = process.observe(process.turn(state))
    np.testing.assert_array_equal(seen["accuracy"], seen["accuracy_real"])
    model, x = whole(state.model), drawn(jax.random.key(0)).x[:4]
    np.testing.assert_array_equal(model(x, process.sigma(state.step)), model(x, None))


def _with(data, **parts):
    return data._replace(**{name: change(getattr(data, name)) for name, change in parts.items()})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": lambda y: y + 1}, "labels of the training sequences must be from 0 to 3"),
        ({"y": lambda y: y - 1}, "labels of the training sequences must be from 0 to 3"),
        ({"y": lambda y: y.astype(float)}, "must be class indices"),
        ({"y": lambda y: np.array(list("abcd"))[y]}, "must be class indices"),
        ({"y": lambda y: y[:-1]}, "60 inputs and 59 labels"),
        ({"x": lambda x: x.astype(float).at[3, 2, 1].set(np.nan)}, "inputs of the training sequences must be finite"),
        ({"x": lambda x: x[:, 0]}, r"must be numbers, \[examples, time, channels\]"),
        ({"x": lambda x: x[..., :4]}, r"must be \[batch, time, 6\]"),
        ({"exams": lambda e: {"valid": e["valid"]}}, 'an exam "test", not valid'),
        ({"exams": lambda e: e | {"test": (e["test"][0], e["test"][1] + 9)}}, "labels of exam test must be from 0 to 3"),
        ({"exams": lambda e: e | {"test": (e["test"][0][:3], e["test"][1])}}, "exam test: 3 inputs and 40 labels"),
        ({"exams": lambda e: e | {"test": (jnp.full((40, 18, 6), jnp.inf), e["test"][1])}}, "inputs of exam test must be finite"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_learned_from_is_refused(changes, said):
    data = drawn(jax.random.key(3))
    with pytest.raises(ValueError, match=said):
        learner(data=_with(data, **changes))


def test_other_arguments_are_said():
    data = drawn(jax.random.key(3))
    with pytest.raises(TypeError, match="data must be Sequences"):
        learner(data=tuple(data))
    with pytest.raises(ValueError, match="hyper must have delay_rate, sigma"):
        learner(hyper={"rate": 0.1})
    with pytest.raises(ValueError, match=r"must give \[batch, steps, classes\], not \[1, 4\]"):
        learner(data=data, network=lambda key: lambda x, sigma, **more: jnp.ones((len(x), 4)))
    plain = Sequences(np.asarray(data.x).tolist(), np.asarray(data.y).tolist(), data.exams)
    process = learner(data=plain, epochs=2)
    assert int(process.step(process.init(jax.random.key(0))).step) == 1


def model_accuracy(v, y):
    return float((np.asarray(votes(v)).argmax(1) == np.asarray(y)).mean())


@pytest.mark.parametrize("shared", [True, False])
def test_exams_keep_their_names(shared):
    data = drawn(jax.random.key(3))
    model = network(jax.random.key(5))
    told = votes(whole(model)(data.x, None)).argmax(1)
    exams = {"valid": (data.x, told), "apart": (data.x, (told + 1) % 4), "test": (data.x[:30], told[:30])}  # fmt: skip
    data = data._replace(exams=exams)
    process = DelayLearner(network=lambda key: model, data=data if shared else lambda key: data, hyper=HYPER, epochs=1, batch=60)  # fmt: skip
    trace = unfold(process, seeds=1, at=[0], progress=False)
    wide = model_accuracy(whole(model)(data.x, jnp.float32(4.0)), told)
    assert float(trace.accuracy_rounded.sel(exam="valid").squeeze()) == pytest.approx(wide)
    found = {name: float(trace.accuracy.sel(exam=name).squeeze()) for name in exams}
    assert found == {"valid": 1.0, "apart": 0.0, "test": 1.0}


def test_a_teachers_delays_are_found_again():
    process = TeacherRecovery(
        hyper={"rate": 0.03, "delay_rate": 0.15, "sigma": 4.0}, updates=250, inputs=4, outputs=3, taps=9, steps=30, batch=8
    )  # fmt: skip
    trace = unfold(process, seeds=2, at=[0, 250], progress=False)
    assert (trace.chance.values == trace.chance.values[:, :1]).all() and trace.chance.values.max() < 0.7  # fmt: skip
    assert (trace.found.values[:, 0] == trace.chance.values[:, 0]).all()
    assert trace.found.values[:, -1].mean() > 0.8 and trace.signs.values[:, -1].mean() > 0.8
    assert trace.error.values[:, -1].mean() < 0.2 < trace.error.values[:, 0].mean()


def test_a_student_is_told_what_it_is_to_see():
    one = TeacherRecovery(
        hyper=HYPER, updates=5, seen="spikes", inputs=5, outputs=4, taps=7, steps=20
    )
    state = one.init(jax.random.key(0))
    x = jax.random.bernoulli(jax.random.key(1), 0.2, (3, 20, 5)).astype(jnp.float32)
    told = one.told(state.teacher, x, None)
    spikes = told[:, 1:] - told[:, :-1] * (1 - 1 / 3.0)  # undo the decay
    np.testing.assert_allclose(spikes, np.round(spikes), atol=1e-5)
    assert set(np.round(np.unique(spikes), 3)) == {0.0, 1.0} and told.shape == (3, 26, 4)
    assert (state.teacher.delay == jnp.round(state.teacher.delay)).all()
    with pytest.raises(ValueError, match="membrane"):
        TeacherRecovery(hyper=HYPER, updates=5, seen="all")
