"""Sub-networks of tasks on a small world: gradients, prunings and growths by hand in NumPy, and no forgetting."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_world import (
    ALL,
    CLASSES,
    DATA,
    EXAMS,
    FEATURES,
    ORDER,
    RATE,
    STREAM,
    X,
    Y,
    arrays,
    batch,
    entropy,
    logits,
    network,
    sgd,
    stream,
    task,
    walk,
)

from latebloom import nn, unfold
from latebloom.core.calling import call
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.penalties import L2
from latebloom.methods.forgetting.subnetwork_rivals import (
    GradualPruning,
    LookingAhead,
    PackNet,
    SeparateNetworks,
)
from latebloom.methods.forgetting.subnetworks import Subnetworks
from latebloom.methods.forgetting.topology import Topology, stepped_adam


def adam(rate):
    return optax.adam(rate)


def subnetworks(topology, kind=Subnetworks, **more):
    settings = {"model": network, "data": DATA, "stream": stream, "optimiser": sgd, "hyper": {"rate": RATE}}  # fmt: skip
    return kind(topology=topology, **(settings | more))


def flags(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def weights(model):
    a, _, c, _ = arrays(model)
    return [a, c]


def kept(params, masks):
    a, b, c, d = params
    return [np.where(masks[0], a, 0), b, np.where(masks[1], c, 0), d]


GRADIENT = Topology(0.6, "uniform", "gradient", updates=2)
RANDOM = Topology(0.8, "uniform", "random", updates=2, drop=0.9)


def test_a_step_follows_the_gradient_of_the_subnetwork_where_it_is_its_own():
    for what, before, after, _ in walk(subnetworks(GRADIENT)):
        if what != "step":
            continue
        x, y = batch(before)
        allowed = np.asarray(STREAM.classes)[task(before)]
        mask, used = flags(before.own.mask), flags(before.own.used)
        _, slope = entropy(kept(arrays(before.model), mask), x, y, allowed)
        move = [mask[0] & ~used[0], 1, mask[1] & ~used[1], 1]
        for old, new, g, m in zip(
            arrays(before.model), arrays(after.model), slope, move, strict=True
        ):
            np.testing.assert_allclose(new, old - RATE * g * m, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("growth", ["gradient", "momentum"])
def test_an_update_prunes_the_smallest_and_grows_by_the_dense_gradient(growth):
    process = subnetworks(
        Topology(0.6, "uniform", growth, updates=2), optimiser=adam, hyper={"rate": 0.1}
    )
    updates = set(process.turns()) - set(process.starts)
    assert len(updates) == 6
    seen = 0
    for what, before, after, _ in walk(process):
        if what != "turn" or int(before.step) not in updates:
            continue
        mask, used, new = (flags(t) for t in (before.own.mask, before.own.used, after.own.mask))
        x, y = batch(before._replace(step=before.step - 1))
        allowed = np.asarray(STREAM.classes)[task(before._replace(step=before.step - 1))]
        slope = entropy(kept(arrays(before.model), mask), x, y, allowed)[1]
        moments = before.optimiser[0]
        start = max(s for s in process.starts if s < before.step)
        end = min([*[s for s in process.starts if s >= before.step], 10])
        rate = 0.005 + 0.495 * (1 + np.cos(np.pi * (before.step - start) / (end - start))) / 2
        for i, weight in enumerate(weights(before.model)):
            count = int(np.ceil(rate * mask[i].sum() * (1 - 3e-7)))
            order = np.argsort(np.where(mask[i], np.abs(weight), np.inf), axis=None)
            left = mask[i].copy()
            left.flat[order[:count]] = False
            if growth == "gradient":
                score = np.abs(np.where(used[i], 0, slope[2 * i]))
            else:
                m, v = (np.asarray(t.layers[i].weight, float) for t in (moments.mu, moments.nu))
                score = np.abs(m / (np.sqrt(v) + 1e-8))
            score = np.where(left, -1, score)
            cut = np.sort(score, axis=None)[-count]
            grown = new[i] & ~left
            assert grown.sum() == count and new[i].sum() == mask[i].sum()
            assert (score[grown] >= cut * (1 - 1e-4)).all()
            assert (new[i] & mask[i] & ~grown == left).all()
            # What was not there starts at 0, or has the value that an earlier task gave it.
            now = weights(after.model)[i]
            np.testing.assert_array_equal(now[grown & ~used[i] & ~mask[i]], 0)
            np.testing.assert_array_equal(now[used[i]], weight[used[i]])
            np.testing.assert_array_equal(now[mask[i] & new[i]], weight[mask[i] & new[i]])
            seen += 1
    assert seen == 12


def test_moments_know_the_dense_gradient_but_none_of_frozen_weights():
    process = subnetworks(GRADIENT, optimiser=adam, hyper={"rate": 0.1})
    outside = []
    for what, before, after, _ in walk(process):
        if what == "turn" and int(before.step) in process.starts:
            assert all(not np.asarray(x).any() for x in jax.tree.leaves(after.optimiser[0].mu))
        if what == "step":
            mask, used = flags(before.own.mask), flags(before.own.used)
            for i, layer in enumerate(after.optimiser[0].mu.layers):
                held = np.asarray(layer.weight)
                assert not held[used[i]].any()
                if i == 0:  # of the readout other tasks' outputs have no gradient
                    outside.append(held[~mask[i] & ~used[i]])
    assert all(h.any() for h in outside[:3])  # of the first task, in which all units are connected


def test_a_task_that_diverges_harms_none_before_it():
    """Its gradients are not finite, frozen weights' neither: these stay, and so do answers."""
    beyond = np.asarray(DATA.x_train).copy()
    beyond[np.isin(DATA.y_train, [0, 5])] = (
        1e30  # the second task's, of which the network makes infinity
    )

    def overflowing(model, x, key, train):
        return call(model, jnp.where(x > 1e29, jnp.inf, x), key, train)

    process = subnetworks(GRADIENT, data=replace(DATA, x_train=jnp.asarray(beyond)), optimiser=adam, hyper={"rate": 0.1}, apply=overflowing)  # fmt: skip
    first, second = ends(process)[:2]
    assert np.isnan(np.asarray(second.model.layers[0].weight)).any()
    for old, new, used in zip(weights(first.model), weights(second.model), flags(second.own.used), strict=True):  # fmt: skip
        np.testing.assert_array_equal(old[used], new[used])
    of = eqx.filter_jit(lambda s: process.network(s, 0)(jnp.asarray(X)))
    np.testing.assert_array_equal(of(first), of(second))


def ends(process):
    """The state at each task's end, and that at the end of all."""
    states = [before for what, before, _, _ in walk(process) if what == "turn" and int(before.step) in process.starts]  # fmt: skip
    return [*states, walk(process)[-1][2]]


TOPOLOGIES = [
    RANDOM, GRADIENT, Topology(0.5, "erk", "unfired", updates=2), Topology(0.6, "adaptive", "bandit", updates=1),
    Topology(0.7, "erk", "momentum", updates=2, prune="set", refill=1.0), Topology(0.7, growth="gradient", updates=2, prune="taylor", keep="best"),
]  # fmt: skip


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_logits_at_the_end_of_training_are_those_after_all_tasks_to_the_bit(topology):
    process = subnetworks(topology, optimiser=adam, hyper={"rate": 0.1})
    states = ends(process)
    of = eqx.filter_jit(lambda s, t, x: process.network(s, t)(x))
    for i, state in enumerate(states):
        now = of(state, i, jnp.asarray(X))
        if topology.keep == "last":  # as it was trained: weights outside of the mask count 0
            ours = logits(kept(arrays(state.model), flags(state.own.mask)), X.astype(float))
            np.testing.assert_allclose(now, ours, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(now, of(states[-1], i, jnp.asarray(X)))


def test_accuracies_do_not_change_with_batch_normalisation_either():
    def normalised(key):
        return nn.MLP(FEATURES, (5,), CLASSES, key=key, norm="batch")

    process = subnetworks(RANDOM, model=normalised, optimiser=adam, hyper={"rate": 0.1})
    trace = unfold(process, seeds=2, at=[3, 7, 10], progress=False)
    assert (metrics.forgetting(trace).sel(task=[0, 1]) == 0).all()
    for i in range(2):
        assert (trace.accuracy[:, -1, i] == trace.accuracy[:, i, i]).all()
    assert trace.free.dims == ("seed", "step", "layer")
    assert trace.layer.values.tolist() == ["layers[0]", "layers[1]"]


def test_a_frozen_weight_that_goes_and_comes_back_has_one_value_in_training_and_exam():
    """The authors' code trains with 0 there and fills the old value in when it merges."""
    process, came_back = subnetworks(RANDOM), 0
    for seed in range(3):
        gone: list = []
        for what, before, after, _ in walk(process, seed):
            if what != "turn":
                continue
            used, mask, new = (flags(t) for t in (before.own.used, before.own.mask, after.own.mask))
            if int(before.step) in process.starts:
                gone = [np.zeros_like(u) for u in used]
                continue
            back = [g & n & u for g, n, u in zip(gone or new, new, used, strict=True)]
            gone = [m & ~n & u for m, n, u in zip(mask, new, used, strict=True)]
            if not any(b.any() for b in back):
                continue
            came_back += 1
            here = process.network(after, task(before._replace(step=before.step - 1)))
            for b, w, exam in zip(back, weights(after.model), weights(here), strict=True):
                np.testing.assert_array_equal(w[b], exam[b])
                assert w[b].any()
            released = kept(arrays(after.model), [n & ~b for n, b in zip(new, back, strict=True)])
            assert not np.allclose(logits(released, X), np.asarray(here(jnp.asarray(X))))
    assert came_back


def test_frozen_weights_stay_and_free_ones_outside_of_the_mask_are_0():
    for topology in (RANDOM, GRADIENT):
        for _, before, after, _ in walk(subnetworks(topology)):
            mask, used = flags(after.own.mask), flags(after.own.used)
            frozen = flags(before.own.used)
            for i, (old, new) in enumerate(
                zip(weights(before.model), weights(after.model), strict=True)
            ):
                np.testing.assert_array_equal(old[frozen[i]], new[frozen[i]])
                assert not new[~mask[i] & ~used[i]].any()


def test_a_task_starts_from_0_in_free_weights_or_from_new_values():
    for refill, zero in ((0.0, True), (1.0, False)):
        process = subnetworks(Topology(0.5, updates=1, refill=refill))
        for what, before, after, _ in walk(process):
            if what == "turn" and int(before.step) in process.starts:
                own = after.own
                new = [w[m & ~u] for w, m, u in zip(weights(after.model), flags(own.mask), flags(own.used), strict=True)]  # fmt: skip
                assert all((w == 0).all() == zero for w in new if len(w))
                taken = [u | m for u, m in zip(flags(before.own.used), flags(before.own.mask), strict=True)]  # fmt: skip
                for a, b in zip(taken, flags(own.used), strict=True):
                    np.testing.assert_array_equal(a, b)


def test_what_is_told_of_layers():
    process = subnetworks(RANDOM)
    first, second = ends(process)[:2]
    told = eqx.filter_jit(lambda s: process.observe(s))(second)
    mask, used, fired = (flags(t) for t in (second.own.mask, second.own.used, second.own.fired))
    for i in range(2):
        wanted = {
            "free": 1 - (mask[i] | used[i]).mean(), "used": (mask[i] | used[i]).mean(), "active": mask[i].mean(),
            "shared": (mask[i] & used[i]).sum() / mask[i].sum(), "fired": fired[i].mean(),
        }  # fmt: skip
        for name, value in wanted.items():
            np.testing.assert_allclose(told[name][i], value, rtol=1e-5, err_msg=name)
    assert (fired[0] & ~mask[0]).any() and not (mask[0] & ~fired[0]).any()
    assert not any(u.any() for u in flags(first.own.used))


def test_static_masks_do_not_move():
    for what, before, after, _ in walk(subnetworks(Topology(0.5, drop=0.0, updates=2))):
        if what == "turn" and int(before.step) not in (3, 7):
            for a, b in zip(flags(before.own.mask), flags(after.own.mask), strict=True):
                np.testing.assert_array_equal(a, b)


def test_masks_start_as_dense_as_asked_and_adapt_to_what_is_free():
    wide = {"model": lambda key: nn.MLP(FEATURES, (400,), CLASSES, key=key, activation="tanh")}
    sizes = np.array([FEATURES * 400, 400 * CLASSES])
    init = eqx.filter_jit(lambda p, key: p.init(key))
    for kind in ("uniform", "erk", "adaptive"):
        own = init(subnetworks(Topology(0.3, kind, updates=1), **wide), jax.random.key(1)).own
        share = np.array([m.mean() for m in flags(own.mask)])
        assert abs((share * sizes).sum() / sizes.sum() - 0.3) < 5 * np.sqrt(0.21 / sizes.sum())


def test_erk_until_half_is_taken():
    def model(key):
        return nn.MLP(FEATURES, (40, 6), CLASSES, key=key)

    process = subnetworks(Topology(0.3, "adaptive"), model=model)
    empty = process.init(jax.random.key(0)).own.used
    full = jax.tree.map(jnp.ones_like, empty)
    keys = jax.random.split(jax.random.key(1), 200)
    share = [
        np.array([np.mean(m) for m in flags(jax.vmap(lambda k, u=used: process._first_mask(u, k))(keys))])
        for used in (empty, full)
    ]  # fmt: skip
    assert share[0].max() - share[0].min() > 0.2 and np.ptp(share[1]) < 0.03


def test_a_bandit_tries_every_rule_and_then_the_best():
    process = subnetworks(
        Topology(growth="bandit", exploration=0.0), optimiser=adam, hyper={"rate": 0.1}
    )
    tries, gains, seen = np.zeros(4, np.float32), np.zeros(4, np.float32), []
    pick = jax.jit(lambda tries, gains, key: process._rule(tries, gains, key))
    for i in range(6):
        rule = int(pick(jnp.asarray(tries), jnp.asarray(gains), jax.random.key(i)))
        seen.append(rule)
        tries[rule] += 1
        gains[rule] += [0.2, 0.3, 0.9, 0.5][rule]
    assert sorted(seen[:4]) == [0, 1, 2, 3] and seen[4:] == [2, 2]
    fixed = subnetworks(Topology(growth="unfired"))
    assert int(fixed._rule(jnp.asarray(tries), jnp.asarray(gains), jax.random.key(0))) == 1
    bold = subnetworks(
        Topology(growth="bandit", exploration=10.0), optimiser=adam, hyper={"rate": 0.1}
    )
    assert int(bold._rule(jnp.asarray([9.0, 1, 9, 9]), gains, jax.random.key(0))) == 1


def test_the_best_network_of_a_task_is_kept():
    topology = Topology(0.8, growth="gradient", updates=2, keep="best")
    process, tasks_seen = subnetworks(topology, hyper={"rate": 8.0}), 0
    found = walk(process)
    best, right = None, []
    for what, before, after, _ in found:
        if what == "step":
            right.append(int(after.own.right - before.own.right))
            count = int(after.own.count)
        elif int(before.step) not in process.starts:
            score = sum(right[-(count // 5) :]) / count
            if best is None or score >= best[0]:
                best = score, kept(arrays(before.model), flags(before.own.mask))
            assert int(after.own.count) == 0
        else:
            score = sum(right[-(count // 5) :]) / count
            if best is None or score >= best[0]:
                best = score, kept(arrays(before.model), flags(before.own.mask))
            i = task(before._replace(step=before.step - 1))
            for a, b in zip(arrays(process.network(after, i)), best[1], strict=True):
                np.testing.assert_array_equal(a, b)
            best, tasks_seen = None, tasks_seen + 1
    assert tasks_seen == 2


def test_packnet_keeps_equal_parts():
    process = subnetworks(Topology(), kind=PackNet)
    assert process.turns() == (1, 3, 5, 7, 8)
    for what, before, after, _ in walk(process):
        own = after.own
        if what == "turn" and int(before.step) in process.starts:
            assert all(m.all() for m in flags(own.mask))
        elif what == "turn":
            for weight, used, mask in zip(
                weights(before.model), flags(own.used), flags(own.mask), strict=True
            ):
                new = mask & ~used
                assert new.sum() == weight.size // 3 and (mask & used == used).all()
                left = np.abs(weight[~mask])
                assert not len(left) or np.abs(weight[new]).min() >= left.max()
    states = ends(process)
    of = eqx.filter_jit(lambda s, t: process.network(s, t)(jnp.asarray(X)))
    np.testing.assert_array_equal(of(states[0], 0), of(states[-1], 0))


def test_gradual_pruning_keeps_ever_fewer_of_the_largest():
    process = subnetworks(Topology(0.3, updates=2), kind=GradualPruning, optimiser=adam, hyper={"rate": 0.1})  # fmt: skip
    starts, ends_, seen = (0, 3, 7), (3, 7, 10), []
    assert process.turns() == (
        2,
        3,
        5,
        6,
        7,
        9,
    )  # after 0.7 and 0.9 of a task's steps, rounded down
    for what, before, after, _ in walk(process):
        if what != "turn" or int(before.step) in process.starts:
            assert what == "step" or all(m.all() for m in flags(after.own.mask))
            continue
        step = int(before.step)
        i = max(k for k in range(3) if starts[k] < step)
        done = np.clip(((step - starts[i]) / (ends_[i] - starts[i]) - 0.5) / 0.4, 0, 1)
        share = 1 - 0.7 * (1 - (1 - done) ** 3)
        for weight, now, old, new, used in zip(
            weights(before.model), weights(after.model),
            *(flags(t) for t in (before.own.mask, after.own.mask, before.own.used)), strict=True,
        ):  # fmt: skip
            count = round(share * new.size)
            assert new.sum() == min(count, old.sum()) and not (new & ~old).any()
            assert np.abs(weight[new]).min() >= np.abs(weight[old & ~new]).max(initial=0)
            np.testing.assert_array_equal(now[new | used], weight[new | used])
            assert not now[~new & ~used].any()
        seen.append(share)
    assert len(seen) == 4 and seen[2] < 0.35
    states = ends(process)
    of = eqx.filter_jit(lambda s, t: process.network(s, t)(jnp.asarray(X)))
    for i, state in enumerate(states):
        np.testing.assert_array_equal(of(state, i), of(states[-1], i))


def test_looking_ahead_answers_with_the_outputs_of_the_task_that_is_learned():
    process = subnetworks(GRADIENT, kind=LookingAhead, optimiser=adam, hyper={"rate": 0.1})
    trace = unfold(process, seeds=2, at=[0, 3, 7, 10], progress=False)
    assert np.isnan(trace.ahead.values[:, 3]).all() and trace.ahead.dims == trace.accuracy.dims
    assert np.isfinite(trace.ahead.values[:, :2, 1:]).all() and np.isnan(trace.ahead.values[:, 2, :2]).all()  # fmt: skip
    order, test = np.sort(ORDER, axis=1), [(X[42:][rows], Y[42:][rows]) for rows in EXAMS]
    look = eqx.filter_jit(lambda s: process.observe(s)["ahead"])
    for learned, state in enumerate(ends(process)[:2]):
        mine = kept(arrays(state.model), flags(state.own.mask))
        found = np.asarray(look(state))
        for other in range(3):
            x, y = test[other]
            chosen = logits(mine, x)[:, order[learned]].argmax(axis=1)
            right = (order[other][chosen] == y).mean()
            np.testing.assert_allclose(found[other], right if other > learned else np.nan)


def test_looking_ahead_needs_an_exam_for_each_task():
    exams = replace(
        STREAM.exams, rows=jnp.concatenate([STREAM.exams.rows] * 2), task=jnp.tile(jnp.arange(3), 2), since=jnp.tile(STREAM.exams.since, 2)
    )  # fmt: skip
    with pytest.raises(ValueError, match="one exam for each of the 3 tasks, not 6"):
        subnetworks(GRADIENT, kind=LookingAhead, stream=lambda key: replace(STREAM, exams=exams))


def test_separate_networks_share_nothing():
    process = subnetworks(GRADIENT, kind=SeparateNetworks)
    states = ends(process)
    of = eqx.filter_jit(lambda s, t: process.network(s, t)(jnp.asarray(X)))
    for i, state in enumerate(states):
        np.testing.assert_array_equal(of(state, i), of(states[-1], i))
    begun = next(after for what, before, after, _ in walk(process) if what == "turn" and int(before.step) == 3)  # fmt: skip
    held = [w[m] for w, m in zip(weights(begun.model), flags(begun.own.mask), strict=True)]
    assert all((w != 0).all() for w in held)


def test_what_forgets_is_told_from_what_does_not():
    """Shared biases, and weights that are not frozen: the ablations do what they say."""
    for topology in (
        Topology(0.9, growth="gradient", updates=2, own_biases=False),
        Topology(0.9, growth="gradient", updates=2, isolate=False),
    ):
        process = subnetworks(topology)
        states = ends(process)
        of = eqx.filter_jit(lambda s, t, p=process: p.network(s, t)(jnp.asarray(X)))
        assert not np.array_equal(of(states[0], 0), of(states[-1], 0))


def test_layers_can_be_left_whole():
    process = subnetworks(Topology(0.5, updates=1, ignore=("layers[1]",)))
    assert process.sparse_layers == ("layers[0]",)
    states = ends(process)
    of = eqx.filter_jit(lambda s, t: process.network(s, t)(jnp.asarray(X)))
    np.testing.assert_array_equal(of(states[0], 0), of(states[-1], 0))


def test_numbers_may_be_arrays_and_make_no_other_program():
    a, b = (
        subnetworks(Topology(d, updates=1, drop=r, refill=f))
        for d, r, f in ((0.3, 0.4, 0.0), (jnp.float32(0.3), np.float32(0.4), jnp.zeros(())))
    )
    assert eqx.tree_equal(eqx.filter(a.topology, eqx.is_array), eqx.filter(b.topology, eqx.is_array))  # fmt: skip


def test_half_precision_stays_half_precision():
    process = subnetworks(
        GRADIENT,
        model=lambda key: nn.MLP(FEATURES, (5,), CLASSES, key=key, dtype=jnp.bfloat16),
    )
    end = walk(process, steps=4)[-1][2]
    assert end.model.layers[0].weight.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Topology(0.0), "density of Topology must be"),
        (lambda: Topology(float("nan")), "density of Topology must be"),
        (lambda: Topology(1.2), "density of Topology must be"),
        (lambda: Topology(drop=-0.1), "drop of Topology must be"),
        (lambda: Topology(refill=-1.0), "refill of Topology must be"),
        (lambda: Topology(exploration=float("nan")), "exploration of Topology must be"),
        (lambda: Topology(updates=-1), "updates must be a whole number from 0 on, not -1"),
        (lambda: Topology(init="ERK"), "init must be one of uniform, erk, adaptive, not 'ERK'"),  # pyright: ignore
        (lambda: Topology(growth="rigl"), "growth must be one of random, unfired"),  # pyright: ignore
        (lambda: Topology(prune="small"), "prune must be one of"),  # pyright: ignore
        (lambda: Topology(keep="all"), "keep must be one of last, best"),  # pyright: ignore
        (lambda: subnetworks(Topology(growth="momentum")), "growth by momentum needs an optimiser with momentum"),
        (lambda: subnetworks(Topology(growth="bandit")), "growth by momentum needs"),
        (lambda: subnetworks(Topology(), method=L2()), "leave method, replay and head out"),
        (lambda: subnetworks(Topology(), head="all"), "leave method, replay and head out"),
        (lambda: subnetworks(Topology(), method=Method(), replay=Replay(5, 5)), "leave method, replay"),
        (lambda: subnetworks(Topology(ignore=("layers[7]",))), "no layer 'layers"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_adams_rate_falls_twice():
    rule = stepped_adam(0.1, 8)
    state, moves = rule.init(jnp.zeros(1)), []
    for _ in range(8):
        move, state = rule.update(jnp.ones(1), state)
        moves.append(-float(move[0]))
    np.testing.assert_allclose(moves, [0.1] * 4 + [0.01] * 2 + [0.001] * 2, rtol=1e-4)
    assert ALL.all()
