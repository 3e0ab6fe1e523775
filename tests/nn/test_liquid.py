"""Liquid networks against ncps (benchmarks/recurrent_against_pytorch.py) and against a solver of differential equations."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from latebloom.nn.liquid import LTC, CfC

with np.load(Path(__file__).with_name("recurrent.npz")) as part:
    NCPS = {name: part[name] for name in part.files}

ORDER = ("weight", "steepness", "middle", "reversal")


def theirs(name):
    take = lambda part: jnp.asarray(NCPS[f"{name}/{part}"])  # noqa: E731
    if name == "cfc":
        layer = CfC(3, 4, key=jax.random.key(0), backbone=7)
        heads = ("ff1", "ff2", "time_a", "time_b")
        where = lambda l: [x for part in (l.backbone, *l.heads) for x in (part.weight, part.bias)]  # noqa: E731
        new = [x for part in ("backbone.0", *heads) for x in (take(f"{part}.weight").T, take(f"{part}.bias"))]  # fmt: skip
        return eqx.tree_at(where, layer, new)
    layer = LTC(3, 4, key=jax.random.key(0), positive="softplus" if name == "softplus" else "clip")
    where = lambda l: [  # noqa: E731
        l.leak, l.rest, l.capacity, *(getattr(l.synapses, p) for p in ORDER),
        *(getattr(l.sensory, p) for p in ORDER), l.input_scale, l.input_shift, l.output_scale, l.output_shift,
    ]  # fmt: skip
    synapses = ("w", "sigma", "mu", "erev")
    names = ("gleak", "vleak", "cm", *synapses, *(f"sensory_{s}" for s in synapses),
             "input_w", "input_b", "output_w", "output_b")  # fmt: skip
    return eqx.tree_at(where, layer, [take(n) for n in names])


@pytest.mark.parametrize("name", ["ltc", "softplus", "cfc"])
def test_they_are_those_of_ncps(name):
    layer, x = theirs(name), jnp.asarray(NCPS["x"])
    elapsed = jnp.asarray(NCPS["elapsed"])
    np.testing.assert_allclose(layer(x, elapsed=elapsed)[1], NCPS[f"{name}/outputs"], atol=3e-6)

    def weighed(x):
        return (layer(x, elapsed=elapsed)[1] * NCPS["liquid_weighing"]).sum()

    np.testing.assert_allclose(jax.grad(weighed)(x), NCPS[f"{name}/slopes"], atol=1e-5)


def test_many_euler_steps_solve_the_equation():
    layer = LTC(2, 3, key=jax.random.key(0), unfolds=4000)
    x, v = np.array([0.4, -1.0]), np.array([0.3, -0.5, 0.1])
    f = lambda a: np.asarray(a, float)  # noqa: E731

    def conductances(synapses, v):
        open_ = f(synapses.weight) / (1 + np.exp(-f(synapses.steepness) * (v[:, None] - f(synapses.middle))))  # fmt: skip
        return open_.sum(0), (open_ * f(synapses.reversal)).sum(0)

    def slope(_, v):
        own, own_towards = conductances(layer.synapses, v)
        into, towards = conductances(layer.sensory, x)
        gained = f(layer.leak) * (f(layer.rest) - v) + own_towards - own * v + towards - into * v
        return gained / f(layer.capacity)

    exact = solve_ivp(slope, (0, 1.7), v, rtol=1e-9, atol=1e-9).y[:, -1]
    given = (jnp.asarray(x, jnp.float32)[None, None], jnp.asarray(v, jnp.float32)[None])
    found, _ = eqx.filter_jit(layer)(*given, elapsed=1.7)
    np.testing.assert_allclose(found[0], exact, atol=2e-3)
    # The time constant is what v would relax with: capacity / what pulls at it.
    own, _ = conductances(layer.synapses, v)
    into, _ = conductances(layer.sensory, x)
    expected = f(layer.capacity) / (f(layer.leak) + own + into)
    np.testing.assert_allclose(layer.time_constants(given[0], given[1][None])[0, 0], expected, rtol=1e-5)  # fmt: skip


def test_what_is_not_there_has_no_part():
    wiring, senses = jnp.zeros((3, 3), bool).at[0, 1].set(True), jnp.zeros((2, 3), bool).at[1, 0].set(True)  # fmt: skip
    layer = LTC(2, 3, key=jax.random.key(0), wiring=wiring, senses=senses)
    x = jax.random.normal(jax.random.key(1), (1, 4, 2))
    seen = jax.jacobian(lambda x: layer(x)[1][0, -1])(x)[:, 0]  # [unit, time, in]
    assert not seen[:, :, 0].any() and not seen[2].any()
    assert np.abs(seen[:2, 0, 1]).min() > 0
    slope = eqx.filter_grad(lambda l: l(x)[1].sum())(layer).synapses.weight
    assert ((slope != 0) == wiring).all()


def test_a_step_that_takes_no_time_changes_nothing_and_none_is_negative():
    layer = LTC(2, 3, key=jax.random.key(0))
    v = jnp.array([[0.3, -0.2, 0.7]])
    state, _ = layer(jnp.ones((1, 1, 2)), v, elapsed=0.0)
    np.testing.assert_allclose(state, v, rtol=1e-6)
    worse = eqx.tree_at(lambda l: (l.leak, l.synapses.weight), layer, (layer.leak - 0.5, layer.synapses.weight - 0.5))  # fmt: skip
    mended = worse.clipped()
    assert mended.leak.min() == 0 and mended.synapses.weight.min() == 0
    assert (mended.sensory.weight == layer.sensory.weight).all()
    soft = LTC(2, 3, key=jax.random.key(0), positive="softplus")
    assert soft.clipped() is soft


def test_first_values():
    layer = LTC(40, 50, key=jax.random.key(0))
    for values, low, high in ((layer.leak, 0.001, 1), (layer.rest, -0.2, 0.2), (layer.capacity, 0.4, 0.6),
                              (layer.synapses.steepness, 3, 8), (layer.sensory.middle, 0.3, 0.8)):  # fmt: skip
        assert low <= values.min() and values.max() <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.15 * (high - low))
    assert set(np.unique(layer.synapses.reversal)) == {-1, 1}
    assert np.mean(layer.synapses.reversal == 1) == pytest.approx(2 / 3, abs=0.04)
    cfc = CfC(40, 50, key=jax.random.key(0))
    assert np.abs(cfc.backbone.weight).max() == pytest.approx(np.sqrt(6 / (90 + 128)), rel=0.01)


@pytest.mark.parametrize("make", [LTC, CfC])
def test_times_and_padding(make):
    layer = make(2, 3, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 2))
    whole = layer(x, elapsed=0.5)[1]
    np.testing.assert_allclose(layer(x, elapsed=jnp.full(4, 0.5))[1], whole, atol=1e-6)
    short = layer(x.at[1, 2:].set(jnp.nan), elapsed=0.5, lengths=jnp.array([4, 2]))
    np.testing.assert_allclose(short[1][0], whole[0], atol=1e-6)
    np.testing.assert_allclose(short[1][1, :2], whole[1, :2], atol=1e-6)
    assert layer(jnp.ones((1, 2, 2), jnp.int8))[1].dtype == jnp.float32
    with pytest.raises(ValueError, match=r"\[time\] or \[batch, time\]"):
        layer(x, elapsed=jnp.ones(3))


def test_what_is_refused():
    key = jax.random.key(0)
    for more, message in (({"unfolds": 0}, "at least 1"), ({"positive": "abs"}, "softplus"),
                          ({"wiring": jnp.ones((2, 3), bool)}, r"\[3, 3\], from and to")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            LTC(2, 3, key=key, **more)
