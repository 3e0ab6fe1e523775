"""Named tasks with networks and arrays of one's own: answers that stay, capacity, packed masks, exports."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import nn
from latebloom.core.checkpoint import DamagedFile
from latebloom.methods.forgetting.sparse_learner import SparseContinualNet
from latebloom.methods.forgetting.topology import Topology
from latebloom.nn.masks import named_masks

rng = np.random.default_rng(0)
CENTRES = rng.normal(size=(6, 12)) * 3


def examples(classes, n=60):
    y = np.arange(n) % len(classes)
    return (CENTRES[list(classes)][y] + rng.normal(size=(n, 12))).astype(np.float32), y


A, B = examples((0, 1, 2)), examples((3, 4))
NAMES = np.array(["wren", "owl"])


def network(seed=0):
    return eqx.nn.MLP(12, 5, 24, 1, key=jax.random.key(seed))  # one example at a time


@pytest.fixture(scope="module")
def learner():
    net = SparseContinualNet(network(), Topology(0.4, "erk", "gradient", updates=3), seed=1)
    assert net.learn("digits", *A, epochs=6, batch_size=16) > 0.5
    before = net.scores("digits", A[0])
    net.learn("birds", B[0], NAMES[B[1]], epochs=6, batch_size=16)
    return net, before


def test_both_tasks_are_known_and_the_first_answers_to_the_bit_as_before(learner):
    net, before = learner
    np.testing.assert_array_equal(net.scores("digits", A[0]), before)
    assert (net.predict("digits", A[0]) == A[1]).mean() > 0.9
    assert (net.predict("birds", B[0]) == NAMES[B[1]]).mean() > 0.9
    assert set(net.predict("birds", A[0][:1])) <= set(NAMES)


def test_capacity_counts_each_weight_once(learner):
    net, _ = learner
    table = net.capacity()
    np.testing.assert_allclose(table[["free", "used once", "shared"]].sum(axis=1), 1)
    one, two = (named_masks(net.tasks[t].mask) for t in ("digits", "birds"))
    for name, row in table.iterrows():
        assert row["weights"] == one[name].size
        np.testing.assert_allclose(row["shared"], np.mean(one[name] & two[name]))
        np.testing.assert_allclose(row["free"], np.mean(~(one[name] | two[name])))


def test_packed_masks_and_exports_make_the_network_again(learner):
    net, before = learner
    packed, out = net.packed("digits"), net.export("digits")
    for name, mask in named_masks(net.tasks["digits"].mask).items():
        bits = np.unpackbits(packed[name], count=mask.size).reshape(mask.shape)
        np.testing.assert_array_equal(bits, mask)
        assert out[name].nnz <= bits.sum() and packed[name].nbytes == -(-mask.size // 8)
    biases = [np.asarray(layer.bias) for layer in net.network("digits").layers]
    first, second = out.values()
    hidden = np.maximum(A[0] @ first.T + biases[0], 0)
    scores = hidden @ second.T + biases[1]
    np.testing.assert_allclose(scores[:, :3], before, rtol=1e-4, atol=1e-4)
    assert net.sizes().loc["digits", "mask"] == sum(p.nbytes for p in packed.values()) / 1024


def test_convolutions_and_a_batch_of_one():
    def model(key):
        a, b = jax.random.split(key)
        layers = [
            eqx.nn.Conv2d(1, 3, 3, key=a),
            jax.nn.relu,
            jnp.ravel,
            eqx.nn.Linear(12, 2, key=b),
        ]
        return eqx.nn.Sequential(
            [x if isinstance(x, eqx.Module) else eqx.nn.Lambda(x) for x in layers]
        )

    x = np.asarray(jax.random.normal(jax.random.key(0), (1, 1, 4, 4)))
    net = SparseContinualNet(model(jax.random.key(0)), Topology(0.5, updates=1))
    net.learn(1, x, [7], epochs=1, batch_size=100)
    net.learn(2, -x, [8], epochs=1)
    assert [m.shape for m in net.export(1).values()] == [(3 * 1 * 3, 3), (2, 12)]
    assert net.predict(2, np.concatenate([x, x])).tolist() == [8, 8]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda net: net.learn("digits", *A), "task 'digits' was learned before"),
        (lambda net: net.learn("more", *A), "has 3 classes, but only 0 of the network's 5 outputs"),
        (lambda net: net.learn("more", A[0], A[1][:-1]), "x must be \\[n, ...\\] and y its n classes"),
        (lambda net: net.learn("more", A[0][:0], A[1][:0]), "x must be"),
        (lambda net: net.learn("more", np.where(A[0] > 2, np.nan, A[0]), A[1]), "x is not finite in row"),
        (lambda net: net.learn("more", np.where(A[0] > 2, np.float64(1e300), A[0]), A[1]), "x is not finite in row .*, as float32"),
        (lambda net: net.learn("more", jnp.asarray(A[0], jnp.bfloat16).at[3].set(jnp.nan), A[1]), "not finite in row 3, as bfloat16"),
        (lambda net: net.learn("more", A[0].astype(object), A[1]), "x must be examples .* of real numbers, not .* of object"),
        (lambda net: net.predict("birds", A[0] + 1j), "of real numbers, not .* of complex64"),
        (lambda net: net.learn(["more"], *A), "task must be a name or a number, not \\['more'\\]"),
        (lambda net: net.learn("more", A[0], np.array([None, "owl"] * 30, object)), "y mixes NoneType, str"),
        (lambda net: net.predict("birds", np.where(A[0] > 2, np.nan, A[0])), "x is not finite in row"),
        (lambda net: net.predict("fish", A[0]), "no task 'fish' was learned; there are: 'digits', 'birds'"),
        (lambda net: SparseContinualNet(network(), rate=float("nan")), "rate must be a number above 0"),
        (lambda net: SparseContinualNet(jnp.tanh), "nothing to prune"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(learner, call, says):
    with pytest.raises(ValueError, match=says):
        call(learner[0])


@pytest.mark.parametrize("epochs", [0, 1.5])
def test_epochs_are_whole_numbers_from_one_on(epochs):
    says = f"epochs and batch_size must be whole numbers, at least 1, not {epochs} and 32"
    with pytest.raises(ValueError, match=says):
        SparseContinualNet(network()).learn("a", *A, epochs=epochs)


def half_normalised(seed):
    return nn.MLP(12, (6,), 5, key=jax.random.key(seed), norm="batch", dtype=jnp.bfloat16)


@pytest.mark.parametrize(
    ("model", "topology", "tasks"),
    [
        (network, Topology(0.4, "adaptive", "bandit", updates=2, refill=1.0), ("digits", ("birds", 2))),
        (half_normalised, Topology(0.5, growth="gradient", updates=1), (1, None)),
        (network, Topology(0.4, updates=1, own_biases=False), ("a", "b")),
    ],
)  # fmt: skip
def test_a_learner_that_is_read_from_a_file_goes_on_to_the_bit(tmp_path, model, topology, tasks):
    first, second = tasks
    net = SparseContinualNet(model(0), topology, seed=3)
    net.learn(first, A[0], np.array(["x", "yes", "z"], object)[A[1]], epochs=2)
    net.save(tmp_path / "net")
    again = SparseContinualNet(model(7), topology, seed=8).load(tmp_path / "net")
    for one in (net, again):
        one.learn(second, B[0], NAMES[B[1]], epochs=2)
    again.save(tmp_path / "net")
    last = SparseContinualNet(model(7), topology).load(tmp_path / "net")
    for other in (again, last):
        assert eqx.tree_equal(net.model, other.model) and list(other.tasks) == list(tasks)
        assert net.capacity().equals(other.capacity())
        for task in tasks:
            mine, its = net.tasks[task], other.tasks[task]
            assert eqx.tree_equal(mine.mask, its.mask) and eqx.tree_equal(mine.kept, its.kept)
            assert mine.fitted == its.fitted and mine.classes.dtype == its.classes.dtype
            np.testing.assert_array_equal(net.scores(task, A[0]), other.scores(task, A[0]))
            assert net.predict(task, A[0]).tolist() == other.predict(task, A[0]).tolist()
        with pytest.raises(ValueError, match="has 3 classes, but only 0 of the network's 5"):
            other.learn("more", *A)


def test_what_cannot_be_read_or_saved_is_said(tmp_path, learner):
    net, topology = learner[0], Topology(0.4, "erk", "gradient", updates=3)
    net.save(tmp_path / "net")
    with pytest.raises(ValueError, match=r"was saved with density=0.4\d*, .* has density=0.2"):
        SparseContinualNet(network(), Topology()).load(tmp_path / "net")
    wider = SparseContinualNet(eqx.nn.MLP(12, 5, 25, 1, key=jax.random.key(0)), topology)
    with pytest.raises(ValueError, match="was saved of another network"):
        wider.load(tmp_path / "net")
    assert not wider.tasks
    (tmp_path / "net").write_bytes((tmp_path / "net").read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="is damaged"):
        SparseContinualNet(network(), topology).load(tmp_path / "net")
    named = SparseContinualNet(network(), Topology(updates=0))
    named.learn(frozenset("a"), *B, epochs=1)
    with pytest.raises(
        ValueError, match=r"frozenset\(\{'a'\}\) cannot be saved: tasks and classes"
    ):
        named.save(tmp_path / "named")
    assert not (tmp_path / "named").exists()


def test_weights_of_numpy_learn():
    read = jax.tree.map(lambda x: np.asarray(x) if eqx.is_array(x) else x, network())
    nets = [SparseContinualNet(m, Topology(0.4, "erk", "gradient", updates=3)) for m in (read, network())]  # fmt: skip
    assert len({net.learn("a", *A, epochs=6, batch_size=16) for net in nets}) == 1
    assert (nets[0].predict("a", A[0]) == A[1]).mean() > 0.9
    np.testing.assert_array_equal(nets[0].scores("a", A[0]), nets[1].scores("a", A[0]))


class Pretrained(eqx.Module):
    """A first layer that is frozen as Equinox's documentation has it."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __call__(self, x):
        return self.second(jax.nn.relu(jax.lax.stop_gradient(self.first)(x)))


def test_a_layer_that_no_gradient_reaches_is_told():
    first, second = network().layers
    model = Pretrained(first, second)
    with pytest.warns(UserWarning, match=r"^first did not learn.*Topology\(ignore=\('first',\)\)"):
        SparseContinualNet(model, Topology(0.4, updates=1)).learn("a", *A, epochs=1)
    net = SparseContinualNet(model, Topology(0.4, updates=1, ignore=("first",)))
    net.learn("a", *A, epochs=1)
    np.testing.assert_array_equal(net.model.first.weight, first.weight)


def test_the_seed_orders_the_examples():
    """Dense and static, so that nothing else is drawn."""
    nets = [SparseContinualNet(network(), Topology(1.0, drop=0.0, updates=0), seed=s) for s in (0, 1, 1)]  # fmt: skip
    for net in nets:
        net.learn("a", *A, epochs=1)
    one, two, same = (net.scores("a", A[0]) for net in nets)
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(two, same)


def test_a_full_network_warns():
    net = SparseContinualNet(network(), Topology(1.0, updates=0))
    net.learn("a", *B, epochs=1)
    with pytest.warns(UserWarning, match=r"only 0.00% of the weights are free: task 'b'"):
        net.learn("b", *B, epochs=1)


def frozen_first(params):
    def label(path, _):
        return "frozen" if "layers[0]" in jax.tree_util.keystr(path) else "learned"

    return jax.tree_util.tree_map_with_path(label, params)


def test_layers_that_the_optimiser_freezes_are_to_have_no_mask():
    rule = optax.multi_transform(
        {"frozen": optax.set_to_zero(), "learned": optax.adam(0.01)}, frozen_first
    )
    with pytest.raises(ValueError, match=r"leaves layers\[0\] out.*ignore=\('layers\[0\]',\)"):
        SparseContinualNet(network(), Topology(0.4, updates=1), optimiser=rule).learn("a", *A)
    net = SparseContinualNet(
        network(), Topology(0.4, updates=1, ignore=("layers[0]",)), optimiser=rule
    )
    net.learn("a", *A, epochs=1)
    np.testing.assert_array_equal(net.model.layers[0].weight, network().layers[0].weight)


def test_a_layer_of_integers_stays_as_it_is():
    whole = jnp.round(20 * network().layers[0].weight).astype(jnp.int8)
    model = eqx.tree_at(lambda m: m.layers[0].weight, network(), whole)
    net = SparseContinualNet(model, Topology(0.5, growth="gradient", updates=1))
    net.learn("a", *A, epochs=1)
    before = net.scores("a", A[0])
    net.learn("b", *B, epochs=1)
    np.testing.assert_array_equal(net.scores("a", A[0]), before)
    assert net.model.layers[0].weight.dtype == jnp.int8 and net.export("b").keys() == {"layers[1]"}
    np.testing.assert_array_equal(net.model.layers[0].weight, whole)


def test_a_task_that_diverges_leaves_the_others_as_they_were():
    net = SparseContinualNet(network(), Topology(0.4, updates=1), optimiser=optax.sgd(0.1))
    net.learn("a", *A, epochs=1)
    before, model = net.scores("a", A[0]), net.model
    net.optimiser = optax.sgd(float("inf"))
    with pytest.raises(
        ValueError, match="training of task 'b' diverged, its weights are not finite: take"
    ):
        net.learn("b", *B, epochs=2)
    assert list(net.tasks) == ["a"] and eqx.tree_equal(net.model, model)
    np.testing.assert_array_equal(net.scores("a", A[0]), before)
    net.optimiser = optax.sgd(0.1)
    net.learn("b", *B, epochs=1)


def test_biases_may_be_shared_and_names_may_be_pairs():
    net = SparseContinualNet(network(), Topology(0.4, updates=1, own_biases=False))
    net.learn(("a", 1), *A, epochs=1)
    weights = net.export(("a", 1))
    net.learn(("a", 2), *B, epochs=1)
    for name, weight in net.export(("a", 1)).items():
        np.testing.assert_array_equal(weight.toarray(), weights[name].toarray())
    first, second = (net.network(("a", i)).layers[0].bias for i in (1, 2))
    np.testing.assert_array_equal(first, second)
    sizes = net.sizes()
    assert sizes.index.tolist() == [("a", 1), ("a", 2)] and (sizes["own values"] == 0).all()
