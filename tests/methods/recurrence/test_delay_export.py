"""What is written does what the network does: a simulator of NIR's equations in NumPy, edge by edge."""

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.methods.recurrence.delay_export import (
    delay_table,
    folded,
    whole_delays,
    write_delays,
    write_nir,
)
from latebloom.methods.recurrence.spiking import SpikingDelays, SpikingRecurrent, whole
from latebloom.nn.recurrent import LIF

STEP = 4.0  # milliseconds


@pytest.fixture(scope="module")
def network():
    model = SpikingDelays((5, 7, 6, 3), 6, key=jax.random.key(0), tau=1.6, connections=3)
    keys = jax.random.split(jax.random.key(1), 4)
    norms = [
        eqx.tree_at(
            lambda n: (n.mean, n.variance, n.scale, n.shift), norm,
            (0.2 * jax.random.normal(k, (s,)), 0.3 + jax.random.uniform(k, (s,)), 1 + 0.2 * jax.random.normal(k, (s,)), 0.5 + jnp.zeros(s)),
        )
        for norm, k, s in zip(model.norms, keys, (7, 6), strict=False)
    ]  # fmt: skip
    return eqx.tree_at(lambda m: m.norms, model, tuple(norms))


def simulated(path, x, steps):
    """Potentials of the readout of a NIR file by Euler's rule, for x [time, inputs], over `steps` steps."""
    with h5py.File(path) as file:
        graph = file["node"]
        nodes = {name: {k: v[()] for k, v in node.items()} for name, node in graph["nodes"].items()}
        edges = [(a.decode(), b.decode()) for a, b in graph["edges"][()]]
    dt = STEP / 1e3
    kind = {name: node["type"].decode() for name, node in nodes.items()}
    into = {name: [a for a, b in edges if b == name] for name in nodes}
    order, left = ["input"], [n for n in nodes if n != "input"]
    while left:  # a node comes after all that feed it
        ready = next(n for n in left if all(a in order for a in into[n]))
        order.append(ready)
        left.remove(ready)
    out = {}
    for name in order:
        node = nodes[name]
        came = sum(out[a] for a in into[name]) if into[name] else None
        if kind[name] == "Input":
            out[name] = np.concatenate([x, np.zeros((steps - len(x), x.shape[1]))])
        elif kind[name] == "Delay":
            by = np.round(node["delay"] / dt).astype(int)
            late = np.zeros_like(came)
            for j, d in enumerate(by):
                late[d:, j] = came[: steps - d, j]
            out[name] = late
        elif kind[name] in ("Linear", "Affine"):
            out[name] = came @ node["weight"].T + node.get("bias", 0.0)
        elif kind[name] == "Output":
            out[name] = came
        else:
            v, seen = node["v_leak"].copy(), []
            for current in came:
                v = v + dt / node["tau"] * (node["v_leak"] - v + node["r"] * current)
                if kind[name] == "LIF":
                    fired = (v >= node["v_threshold"]).astype(float)
                    v = np.where(fired > 0, node["v_reset"], v)
                    seen.append(fired)
                else:
                    seen.append(v.copy())
            out[name] = np.array(seen)
    return out["output"]


def test_the_graph_does_what_the_network_does(network, tmp_path):
    check_graph(network, tmp_path)


@pytest.mark.parametrize("more", [{"decay_input": True, "threshold": 0.3}, {"rest": -0.4}])
def test_so_it_does_for_other_neurons(network, tmp_path, more):
    lif = LIF(1.6, **more)
    check_graph(eqx.tree_at(lambda m: m.neuron, network, lif, is_leaf=lambda n: isinstance(n, LIF)), tmp_path)  # fmt: skip


def check_graph(network, tmp_path):
    write_nir(network, tmp_path / "net.nir", STEP)
    x = np.random.default_rng(0).integers(0, 2, (12, 5))
    fired, v = whole(network).spikes(jnp.asarray(x[None]), None)
    assert all(0.02 < f.mean() < 0.9 for f in fired)
    expected = np.asarray(v[0])
    found = simulated(tmp_path / "net.nir", x, len(expected))
    sure = len(x) + 2  # then the network cuts its first layer off
    np.testing.assert_allclose(found[:sure], expected[:sure], atol=1e-4)
    assert not list(tmp_path.glob("*.part"))


def test_the_table_has_each_connection_in_milliseconds(network):
    table = delay_table(network, STEP)
    assert len(table) == 3 * (7 + 6 + 3)  # three inputs of each neuron
    delays, weights = whole_delays(network), folded(network)
    assert (table.milliseconds == STEP * table.steps).all()
    for row in table.sample(20, random_state=0).itertuples():
        assert delays[row.layer][row.input, row.output] == row.steps
        assert weights[row.layer][0][row.input, row.output] == row.weight
    assert table.steps.between(0, 5).all() and table.steps.nunique() > 3


def test_the_arrays_are_those_of_the_table(network, tmp_path):
    write_delays(network, tmp_path / "net.npz", STEP)
    with np.load(tmp_path / "net.npz") as file:
        assert file["step_ms"] == STEP
        for i in range(3):
            assert (file[f"milliseconds_{i}"] == file[f"delay_{i}"] * STEP).all()
            np.testing.assert_array_equal(file[f"weight_{i}"], folded(network)[i][0])


@pytest.mark.parametrize("write", [write_nir, write_delays])
def test_a_step_is_above_zero(network, tmp_path, write):
    with pytest.raises(ValueError, match="step_ms must be above 0"):
        write(network, tmp_path / "net", 0.0)
    with pytest.raises(ValueError, match="step_ms must be above 0"):
        delay_table(network, -1.0)
    with pytest.raises(ValueError, match="step_ms must be above 0"):
        delay_table(network, np.inf)


@pytest.mark.parametrize("call", [lambda m, p: delay_table(m), write_nir, write_delays])
def test_what_cannot_be_exported_is_said(network, tmp_path, call):
    with pytest.raises(TypeError, match="must be SpikingDelays, not SpikingRecurrent"):
        call(SpikingRecurrent((3, 4, 2), key=jax.random.key(0)), tmp_path / "net")
    lost = eqx.tree_at(lambda m: m.layers[1].delay, network, jnp.full((7, 6), jnp.nan))
    with pytest.raises(ValueError, match="layer 1 has a weight or a delay that is not finite"):
        call(lost, tmp_path / "net")


def test_a_soft_reset_is_not_of_nir(network, tmp_path):
    soft = eqx.tree_at(lambda m: m.neuron, network, LIF(1.6, reset="soft"), is_leaf=lambda n: isinstance(n, LIF))  # fmt: skip
    with pytest.raises(ValueError, match="soft reset"):
        write_nir(soft, tmp_path / "net.nir", STEP)
