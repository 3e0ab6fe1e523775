import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree

from latebloom.core.checkpoint import is_key
from latebloom.core.dataset import Dataset
from latebloom.core.training import per_example
from latebloom.methods.compression.initialisation import as_published
from latebloom.methods.compression.lottery import (
    LotteryTicket,
    MaskedTraining,
    StepSchedule,
    distance_and_angle,
    fine_tuning,
    matching,
)
from latebloom.methods.compression.tickets import (
    EmptyLayerWarning,
    find_ticket,
    load_masks,
    load_sparse,
    save_masks,
    save_sparse,
    sparse_layers,
)
from latebloom.nn import MLP, BatchNorm, Conv, Linear
from latebloom.nn.masks import (
    dense_masks,
    density,
    layer_densities,
    masked,
    prune_by_magnitude,
)

T, K, RATE, MOMENTUM, DECAY, BATCH = 24, 6, 0.2, 0.9, 1e-3, 8
SCHEDULE = StepSchedule((10, 18), factor=0.5, warmup=4)


def examples(n, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, 6)) * 1.5
    y = rng.integers(0, 3, n)
    return jnp.asarray(centres[y] + rng.normal(size=(n, 6)), jnp.float32), jnp.asarray(y, jnp.int32)


DATA = Dataset(*examples(40, 0), *examples(60, 1))


def sgd(rate, decay):
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum=MOMENTUM))


def drawn(make):
    """A network with normal weights, made without compiling anything."""
    rng, shapes = np.random.default_rng(0), eqx.filter_eval_shape(make, jax.random.key(0))
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.4, x.dtype) if hasattr(x, "shape") else x,
        shapes,
    )  # fmt: skip


BASE = drawn(lambda key: MLP(6, (9,), 3, key=key, norm="batch"))
BASE = eqx.tree_at(lambda m: m.norms, BASE, (BatchNorm(9),))


def network(key):
    """Fresh weights in one draw, which compiles faster than a draw for each layer."""
    flat, unflatten = ravel_pytree(BASE.layers)
    layers = unflatten(0.4 * jax.random.normal(key, flat.shape))
    return eqx.tree_at(lambda m: m.layers, BASE, layers)


def make(seeds_by="map", **more):
    training = MaskedTraining(
        model=network, data=DATA, optimiser=sgd, hyper={"rate": RATE, "decay": DECAY},
        loss=optax.softmax_cross_entropy_with_integer_labels, batch_size=BATCH, seeds_by=seeds_by,
        schedule=SCHEDULE,
    )  # fmt: skip
    given = {"steps": T, "rewind": K, "fraction": 0.3, "controls_at": (2,), **more}
    return LotteryTicket(training, **given)


SEEDS = jax.vmap(jax.random.key)(np.array([3, 1], np.uint32))
_start = eqx.filter_jit(eqx.filter_vmap(lambda key, process: process.init(key), in_axes=(0, None)))


@eqx.filter_jit
def after(process, states):
    return eqx.filter_vmap(process.step)(states)


def play(process, rounds):
    """The states after 0, 1, ... rounds of two seeds side by side, as NumPy's arrays."""
    state, kept = _start(SEEDS, process), []
    for number in range(rounds + 1):
        state = after(process, state) if number else state
        kept.append(jax.tree.map(_numpy, state))
    return kept


def of_seed(states, place):
    return [jax.tree.map(lambda x: x[place] if eqx.is_array(x) else x, s) for s in states]


def _numpy(leaf):
    return leaf if not eqx.is_array(leaf) or is_key(leaf) else np.asarray(leaf)


def seen_at(process, state):
    return {
        name: np.asarray(value) for name, value in eqx.filter_jit(process.observe)(state).items()
    }


@pytest.fixture(scope="module")
def both():
    """Of three rounds: dense, 70 % and 49 % of the weights."""
    return play(make(), 3)


@pytest.fixture(scope="module")
def states(both):
    return of_seed(both, 0)


def run_of(state, number):
    return jax.tree.map(lambda leaf: leaf[number], eqx.filter(state.runs, eqx.is_array))


def halved(step):
    return min(1, step / 4) * 0.5 ** ((step >= 10) + (step >= 18))


@eqx.filter_jit
def batch(training, order, step):
    return training.batch(types.SimpleNamespace(key=order, step=step, data=None))


def numpy_run(model, masks, order, begin, end, schedule=halved):
    """Masked SGD with momentum, written out, of a two-layer ReLU network with a batch norm.

    Returns W1, b1, W2, b2, scale, shift, running mean, running variance.
    """
    training, start = make().training, parts(model)
    *w, mean, var = [np.array(v, np.float64) for v in start]
    held = [masks[0], 1, masks[1], 1, 1, 1]
    w = [v * m for v, m in zip(w, held, strict=True)]
    pace = [np.zeros_like(v) for v in w]
    for step in range(begin, end):
        x, y = batch(training, order, jnp.int32(step))
        x, y = np.asarray(x, np.float64), np.asarray(y)
        before = x @ w[0] + w[1]
        m, v = before.mean(0), before.var(0)
        unit = (before - m) / np.sqrt(v + 1e-5)
        hidden = unit * w[4] + w[5]
        logits = np.maximum(hidden, 0) @ w[2] + w[3]
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        up = p / len(y)
        down = (up @ w[2].T) * (hidden > 0)
        to_unit = down * w[4]
        centred = to_unit - to_unit.mean(0) - unit * (to_unit * unit).mean(0)
        back = centred / np.sqrt(v + 1e-5)
        gradients = (
            x.T @ back, back.sum(0), np.maximum(hidden, 0).T @ up, up.sum(0),
            (down * unit).sum(0), down.sum(0),
        )  # fmt: skip
        pace = [MOMENTUM * a + g + DECAY * u for a, g, u in zip(pace, gradients, w, strict=True)]
        rate = RATE * schedule(step)
        w = [(u - rate * a) * k for u, a, k in zip(w, pace, held, strict=True)]
        mean, var = 0.9 * mean + 0.1 * m, 0.9 * var + 0.1 * v
    return [*w, mean, var]


def parts(model):
    affine = [v for layer in model.layers for v in (layer.weight, layer.bias)]
    norm = model.norms[0]
    return [np.asarray(v) for v in (*affine, norm.scale, norm.shift, norm.mean, norm.variance)]


@pytest.mark.parametrize("place", [0, 1])
def test_three_rounds_equal_a_program_in_numpy(both, place):
    states = of_seed(both, place)
    order = jax.random.fold_in(states[0].key, 0)
    ones = [np.ones((6, 9)), np.ones((9, 3))]
    wk = states[1].rewound
    for mine, theirs in zip(
        parts(wk), numpy_run(states[0].rewound, ones, order, 0, K), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    assert (np.abs(wk.norms[0].mean) > 0.01).any()  # so that it matters that norms are rewound
    masks = ones
    for level, state in enumerate(states[1:]):
        final = numpy_run(wk, masks, order, K, T)  # momentum from 0, the schedule from K
        for mine, theirs in zip(parts(run_of(state, 0)), final, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=5e-5)
        for mine, theirs in zip(jax.tree.leaves(state.masks), masks, strict=True):
            np.testing.assert_array_equal(mine, theirs.astype(bool))
        if (
            level == 2
        ):  # the ticket in another order is the one control that is as easily written out
            other = numpy_run(wk, masks, jax.random.fold_in(states[0].key, 1), K, T)
            for mine, theirs in zip(parts(run_of(state, 1)), other, strict=True):
                np.testing.assert_allclose(mine, theirs, atol=5e-5)
        left = np.sort(np.abs(np.concatenate([final[i][masks[i // 2] == 1] for i in (0, 2)])))
        threshold = left[int(np.ceil(0.3 * len(left) - 1e-9))]
        masks = [m * (np.abs(final[2 * i]) > threshold) for i, m in enumerate(masks)]


def test_every_round_comes_back_to_the_same_weights(states):
    for later in states[2:]:
        assert eqx.tree_equal(later.rewound, states[1].rewound)
    assert not eqx.tree_equal(states[0].rewound, states[1].rewound)


def test_pruned_weights_stay_zero_and_a_part_of_them_goes_each_round(states):
    left = [int(sum(m.sum() for m in jax.tree.leaves(s.masks))) for s in states[1:]]
    assert left == [81, 81 - 25 - 1, 55 - 17 - 1]
    for state in states[1:]:
        ticket = run_of(state, 0)
        for layer, mask in zip(ticket.layers, jax.tree.leaves(state.masks), strict=True):
            assert not layer.weight[~mask].any() and layer.weight[mask].all()


def test_controls_are_trained_at_their_levels_only(states):
    at_two, before = states[3], states[2]
    for number in range(1, 5):  # begun, but of no steps
        masks = before.random if number in (2, 3) else before.masks
        if number < 4:
            assert eqx.tree_equal(
                run_of(before, number), eqx.filter(masked(before.rewound, masks), eqx.is_array)
            )
    seen = seen_at(make(), before)
    for name in ("random_accuracy", "reinit_accuracy", "order_distance"):
        assert np.isnan(seen[name]).all()
    assert layer_densities(at_two.random) == layer_densities(at_two.masks)
    assert not eqx.tree_equal(at_two.random, at_two.masks)
    for number, masks in ((2, at_two.random), (3, at_two.random), (4, at_two.masks)):
        for layer, mask in zip(run_of(at_two, number).layers, jax.tree.leaves(masks), strict=True):
            assert not layer.weight[~mask].any()
    weights = [run_of(at_two, number).layers[0].weight for number in range(5)]
    assert len({w.tobytes() for w in map(np.asarray, weights)}) == 5


def test_stabilities_are_those_of_the_weights(states):
    state, seen = states[3], seen_at(make(), states[3])

    def vector(model, masks):
        pairs = zip(model.layers, jax.tree.leaves(masks), strict=True)
        return np.concatenate([np.asarray(l.weight * m, np.float64).ravel() for l, m in pairs])

    for place, masks, (one, other) in ((0, state.masks, (0, 1)), (1, state.random, (2, 3))):
        own, again = vector(run_of(state, one), masks), vector(run_of(state, other), masks)
        whole, start = vector(state.dense, masks), vector(state.rewound, masks)
        for name, a, b in (("pruning", own, whole), ("order", own, again)):
            angle = np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
            assert seen[f"{name}_distance"][place] == pytest.approx(np.linalg.norm(a - b), rel=1e-4)
            assert seen[f"{name}_angle"][place] == pytest.approx(angle, rel=1e-3)
        assert seen["travelled"][place] == pytest.approx(np.linalg.norm(own - start), rel=1e-4)
    right = (run_of(state, 0)(DATA.x_test).argmax(1) == DATA.y_test).mean()
    assert seen["test_accuracy"] == pytest.approx(float(right))
    assert seen["density"] == pytest.approx(37 / 81)


def test_late_rewinding_keep_weights_and_fine_tuning():
    late = of_seed(play(make(rewind=T, controls_at=(9,)), 2), 0)[-1]
    thinned = masked(late.dense, late.masks)  # pruned, and not trained again
    for mine, theirs in zip(parts(run_of(late, 0)), parts(thinned), strict=True):
        np.testing.assert_array_equal(mine, theirs)

    kept = of_seed(play(make(keep_weights=True, controls_at=(9,)), 2), 0)
    order = jax.random.fold_in(kept[0].key, 0)
    masks = [np.asarray(m, float) for m in jax.tree.leaves(kept[2].masks)]
    expected = numpy_run(run_of(kept[1], 0), masks, order, K, T)
    for mine, theirs in zip(parts(run_of(kept[2], 0)), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-5)

    slow = make(keep_weights=True, controls_at=(9,), retraining=fine_tuning(SCHEDULE))
    tuned = of_seed(play(slow, 2), 0)
    assert eqx.tree_equal(tuned[1].runs, kept[1].runs)  # the dense run has the schedule of all
    expected = numpy_run(run_of(kept[1], 0), masks, order, K, T, schedule=lambda _: 0.25)
    for mine, theirs in zip(parts(run_of(tuned[2], 0)), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-5)


def test_one_shot_prunes_the_dense_network_at_once():
    states = of_seed(play(make(one_shot=True, controls_at=(9,)), 3), 0)
    dense = states[1].dense
    weights = [np.abs(layer.weight) for layer in dense.layers]
    left = np.sort(np.concatenate([w.ravel() for w in weights]))
    for level, share in ((1, 0.3), (2, 0.51)):
        state = states[level + 1]
        assert eqx.tree_equal(state.dense, dense)
        threshold = left[int(np.ceil(share * 81))]
        for mine, weight in zip(jax.tree.leaves(state.masks), weights, strict=True):
            np.testing.assert_array_equal(mine, weight > threshold)


def test_the_schedule_is_read_at_the_step_of_the_run():
    schedule = StepSchedule((10, 18), factor=0.5, warmup=4)
    seen = [float(schedule(jnp.int32(t))) for t in (0, 1, 4, 9, 10, 17, 18, 30)]
    assert seen == [0, 0.25, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert float(StepSchedule()(jnp.int32(0))) == 1
    assert [float(fine_tuning(schedule)(jnp.int32(t))) for t in (0, 20)] == [0.25, 0.25]
    with pytest.raises(ValueError, match="drops must increase"):
        StepSchedule((5, 3))


def test_distance_and_angle_of_vectors_worked_by_hand():
    distance, angle = distance_and_angle(jnp.array([3.0, 0.0]), jnp.array([0.0, 4.0]))
    assert float(distance) == 5 and float(angle) == pytest.approx(90)
    near = distance_and_angle(jnp.array([1.0, 0.0]), jnp.array([1.0, 1e-4]))[1]
    assert float(near) == pytest.approx(np.degrees(1e-4), rel=1e-3)


def test_matching_is_within_one_standard_deviation_of_the_dense_networks():
    dense = np.array([0.90, 0.92])  # mean 0.91, sd 0.0141
    accuracies = np.array([[0.90, 0.89, 0.95], [0.90, 0.90, 0.95]])
    assert matching(accuracies, dense).tolist() == [True, False, True]
    assert matching(accuracies, dense, tolerance=0.001).tolist() == [False, False, True]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"rewind": 25}, "rewind must be from 0 to steps, not 25 of 24"),
        ({"rewind": -1}, "from 0 to steps"),
        ({"fraction": 1.0}, "fraction must be between 0 and 1"),
        ({"ignore": ("head",)}, "no layer 'head'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**wrong).init(jax.random.key(0))


USERS = drawn(lambda key: eqx.nn.MLP(6, 3, 12, 1, key=key))
X, Y = (
    np.concatenate([a, b]) for a, b in ((DATA.x_train, DATA.x_test), (DATA.y_train, DATA.y_test))
)
SHORT = {
    "rounds": 3, "epochs": 4, "batch_size": 16, "progress": False, "fraction": 0.4,
    "controls_at": (3,), "seeds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def ticket():
    return find_ticket(USERS, X, Y, rewind=0.2, tolerance=0.05, **SHORT)


def test_a_network_of_ones_own_is_pruned(ticket):
    assert list(ticket.table["level"]) == [0, 1, 2, 3]
    np.testing.assert_allclose(ticket.table["density"], [1, 0.6, 0.36, 0.216], atol=0.04)
    best = ticket.table.loc[ticket.table["matches"], "level"].max()
    assert ticket.level == best and ticket.table["matches"].iloc[0]
    assert float(density(ticket.masks)) == pytest.approx(ticket.layers.iloc[ticket.level][1:] @ [72, 36] / 108, abs=0.1)  # fmt: skip
    assert isinstance(ticket.model, eqx.nn.MLP)
    held = np.random.default_rng(0).permutation(len(X))[: len(X) // 5]
    right = (jax.vmap(ticket.model)(jnp.asarray(X[held])).argmax(1) == Y[held]).mean()
    assert abs(float(right) - ticket.table["accuracy"].iloc[ticket.level]) < 0.2
    assert ticket.table["random_accuracy"].notna().tolist() == [False, False, False, True]
    assert "reinit_accuracy" not in ticket.table
    assert eqx.tree_equal(masked(ticket.model, ticket.masks), ticket.model)
    assert eqx.tree_equal(masked(ticket.start, ticket.masks), ticket.start)


def test_masks_and_sparse_networks_survive_their_files(ticket, tmp_path):
    save_masks(tmp_path / "masks.npz", ticket.masks)
    assert eqx.tree_equal(load_masks(tmp_path / "masks.npz", USERS), ticket.masks)
    save_sparse(tmp_path / "net.npz", ticket.model, ticket.masks)
    assert eqx.tree_equal(load_sparse(tmp_path / "net.npz", USERS), ticket.model)
    layers = sparse_layers(ticket.model, ticket.masks)
    hidden = np.maximum(
        layers["layers[0]"] @ X.T + np.asarray(ticket.model.layers[0].bias)[:, None], 0
    )
    logits = layers["layers[1]"] @ hidden + np.asarray(ticket.model.layers[1].bias)[:, None]
    np.testing.assert_allclose(logits.T, jax.vmap(ticket.model)(jnp.asarray(X)), atol=1e-4)
    assert layers["layers[0]"].nnz == int(np.asarray(jax.tree.leaves(ticket.masks)[0]).sum())
    (tmp_path / "no.npz").write_text("nothing")
    with pytest.raises(ValueError, match="no.npz is not an NPZ"):
        load_masks(tmp_path / "no.npz", USERS)
    larger = drawn(lambda key: eqx.nn.MLP(6, 3, 13, 1, key=key))
    with pytest.raises(
        ValueError, match=r"has a mask bool\[12, 6\] of 'layers\[0\]'; the model's: \[13"
    ):
        load_masks(tmp_path / "masks.npz", larger)
    with pytest.raises(ValueError, match="build the same architecture"):
        load_sparse(tmp_path / "net.npz", larger)


def test_an_emptied_layer_is_told_and_not_chosen():
    trained = find_ticket(USERS, X, Y, **SHORT | {"rounds": 1, "controls_at": (), "tolerance": 1.0, "fraction": 0.01}).model  # fmt: skip
    head = trained.layers[1]  # logits of another size, the same classes
    lopsided = eqx.tree_at(
        lambda m: (m.layers[1].weight, m.layers[1].bias), trained, (1e-4 * head.weight, 1e-4 * head.bias)
    )  # fmt: skip
    with pytest.warns(EmptyLayerWarning, match=r"at level 1 nothing is left of layers\[1\]"):
        found = find_ticket(
            lopsided,
            X,
            Y,
            rewind=1.0,
            rate=1e-6,
            tolerance=1.0,
            **{**SHORT, "rounds": 1, "controls_at": ()},
        )
    assert found.level == 0 and isinstance(found.table, pd.DataFrame)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"y": Y[:-1]}, "x and y must be"),
        ({"y": Y / 2}, "class indices"),
        ({"x": np.where(X > 2, np.nan, X)}, "finite numbers"),
        ({"x_test": X}, "both x_test and y_test"),
        ({"x_test": X[:, :5], "y_test": Y}, r"like x and y, not \[100, 5\] and \[100\]"),
        ({"batch_size": 500}, "batch_size must be from 1 to the 80"),
        ({"rewind": 2.0}, r"rewind is a share of the training in \[0, 1\]"),
        ({"rounds": 0}, "at least 1"),
        ({"controls_at": (9,)}, r"levels from 1 to the \d rounds, not \[9\]"),
        ({"tolerance": -0.1}, "tolerance must not be negative"),
        ({"rate": 1e-9}, "it has not learned, so that a match would mean nothing"),
        ({"y": Y + 2}, "the train labels must be from 0 to 2"),
        ({"model": BatchNorm(6)}, "nothing to prune"),
        ({"model": eqx.nn.Sequential([USERS, eqx.nn.BatchNorm(3, "batch", mode="batch")])}, "use latebloom.nn.BatchNorm"),
        ({"ignore": ("head",)}, "no layer 'head'"),
        ({"apply": lambda model, x, key, train: x[:, :2]}, "the train labels must be from 0 to 1"),
        ({"apply": lambda model, x, key, train: x[:, 0]}, r"outputs \[20\] for 20 examples of 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_pruned_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        find_ticket(**{"model": USERS, "x": X, "y": Y, **SHORT, **wrong})


def test_a_training_that_diverges_is_told():
    with pytest.raises(ValueError, match="diverged at level 0"):
        find_ticket(USERS, X * 1e18, Y, rate=1e6, **{**SHORT, "rounds": 1, "controls_at": ()})


def test_a_clipped_step_counts_the_gradients_of_the_subnetwork_alone():
    training = MaskedTraining(
        model=lambda key: Linear(6, 3, key=key), data=DATA, hyper={"most": 1e-3}, batch_size=BATCH,
        optimiser=lambda most: optax.chain(optax.clip_by_global_norm(most), optax.sgd(1.0)),
        loss=optax.softmax_cross_entropy_with_integer_labels, apply=per_example,
    )  # fmt: skip
    before = drawn(training.model)
    masks = eqx.tree_at(lambda m: m.weight, dense_masks(before), np.arange(18).reshape(6, 3) > 8)
    after = eqx.filter_jit(training.train)(before, masks, jax.random.key(1), 0, 1)
    weight, bias = (np.asarray(v, np.float64) for v in (after.weight, after.bias))
    assert not weight[:3].any()
    moved = [weight[3:] - np.asarray(before.weight[3:]), bias - np.asarray(before.bias)]
    norm = np.sqrt(sum(np.square(change).sum() for change in moved))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_networks_start_as_the_authors_do():
    key = jax.random.key(0)
    like = eqx.filter_eval_shape(lambda key: (Conv(8, 64, 3, key=key), BatchNorm(500)), key)
    like = jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), like)
    conv, norm = eqx.filter_jit(as_published)(like, key)
    assert np.asarray(conv.weight).std() == pytest.approx(np.sqrt(2 / (9 * 8)), rel=0.05)
    assert (np.asarray(conv.bias) == 0.5).all()  # left alone
    scales = np.asarray(norm.scale)
    assert (
        0 <= scales.min() < 0.02
        and 0.98 < scales.max() <= 1
        and (np.asarray(norm.shift) == 0.5).all()
    )


def test_ignored_layers_may_count_in_what_the_fraction_is_taken_of():
    """As in the authors' code: entry ceil(f (all weights left)) of the sorted ones that may go."""
    for count_ignored in (False, True):
        process = make(ignore=("layers[1]",), count_ignored=count_ignored)
        masks = dense_masks(BASE, ("layers[1]",))
        left, other = BASE.layers[0].weight.size, BASE.layers[1].weight.size
        found = process.to_prune(masks, jnp.int32(1))
        assert int(found) == int(np.ceil(0.3 * (left + other * count_ignored)))
        assert int(found) == int(prune_count(BASE, masks, 0.3, other * count_ignored))


def prune_count(model, masks, fraction, also):
    """One less than what `prune_by_magnitude` takes away."""
    after = prune_by_magnitude(model, masks, fraction, also=also)
    return sum(int(m.sum()) for m in jax.tree.leaves(masks)) - sum(int(m.sum()) for m in jax.tree.leaves(after)) - 1  # fmt: skip
