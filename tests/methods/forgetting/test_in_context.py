"""A learner of roles: how answers are judged, and what its exams, resets and noise do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import unfold
from latebloom.data.roles import Roles
from latebloom.methods.forgetting.embeddings import Forgetting
from latebloom.methods.forgetting.in_context import (
    NOVEL,
    RoleLearner,
    judged,
    linear_probe,
    with_constant,
)
from latebloom.nn.masked_lm import MaskedLM
from latebloom.optim.parts import OTHERS, PART

WORDS = 20


def network(vocabulary, key, **more):
    return MaskedLM(vocabulary, 7, key=key, **{"size": 8, "hidden": 8, "layers": 1} | more)


def learner(**more) -> RoleLearner:
    settings = {
        "network": network, "roles": lambda key: Roles(WORDS, key=key),
        "optimiser": lambda rate: optax.adamw(rate, weight_decay=0.01), "hyper": {"rate": 0.01},
        "steps": 8, "batch": 8, "exam": 30, "head": 3, "tail": 2,
    }  # fmt: skip
    return RoleLearner(**settings | more)


def test_answers_are_taken_as_they_are():
    roles = Roles(WORDS, key=jax.random.key(0), share=0.0)
    of = roles.ranked(jax.random.key(1), 40, 0, 10, switched=True)
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 40)  # 0: in context, 1: in weights, 2: a word of neither
    logits = rng.normal(size=(40, 3, roles.vocabulary)).astype(np.float32)
    for i in range(40):
        told = {0: of.in_context[i], 1: of.in_weights[i], 2: jnp.full(3, roles.vocabulary - 1)}[
            kind[i]
        ]
        logits[i, np.arange(3), np.asarray(told)] += 20
    found = judged(jnp.asarray(logits), of)
    assert float(found.in_context) == pytest.approx(np.mean(kind == 0), abs=1e-6)
    assert float(found.in_weights) == pytest.approx(np.mean(kind == 1), abs=1e-6)
    right = []
    for i in range(40):  # of the two words of the context alone
        two = sorted({int(t) for t in np.asarray(of.tokens[i, :3])} - {WORDS})
        best = [two[int(np.argmax(logits[i, k, two]))] for k in range(3)]
        right.append(best == list(np.asarray(of.in_context[i])))
    assert float(found.chosen) == pytest.approx(np.mean(right), abs=1e-6)
    assert 0 < np.mean(right) < 1


def test_exams_are_in_the_order_of_their_names():
    """A network that answers everything in weights is caught at the exams of switched words alone."""
    process = learner(roles=lambda key: Roles(WORDS, key=key, share=0.0))
    state = process.init(jax.random.key(2))
    names = process.names()
    assert names[: len(NOVEL)] == NOVEL and set(state.exams) == {"novel", *names[len(NOVEL) :]}

    class ByIdentity(MaskedLM):
        def __call__(self, x, *, key=None, train=False, at=slice(None)):
            kind = x[:, :3] // (WORDS // 2)  # 0 a noun, 1 an adjective, 2 and more another token
            adjective = jnp.where(kind == 1, x[:, :3], 0).sum(axis=1)
            told = jnp.stack([adjective, x[:, 3], x[:, 3]], axis=1)
            return jax.nn.one_hot(told, len(self.embedding))

    model = ByIdentity(WORDS + 4, 7, key=jax.random.key(0), size=8, hidden=8, layers=1)
    found = process.observe(state._replace(model=model))
    for i, name in enumerate(names):
        if name in NOVEL:
            continue
        switched = name.endswith("/switched")
        assert float(found["in_context"][i]) == (0.0 if switched else 1.0), name
        told = float(found["in_weights"][i])
        assert told == 1.0 if switched else np.isnan(told), (
            name
        )  # where nothing tells the two apart
    also = learner(roles=lambda key: Roles(WORDS, key=key, share=0.0), same_answers=True)
    assert (np.asarray(also.observe(state._replace(model=model))["in_weights"])[len(NOVEL) :] == 1).all()  # fmt: skip


def test_a_network_that_repeats_the_query_has_half_of_each_exam_right():
    process = learner(roles=lambda key: Roles(WORDS, key=key, share=0.0), exam=400)
    state = process.init(jax.random.key(2))

    class Repeats(MaskedLM):
        def __call__(self, x, *, key=None, train=False, at=slice(None)):
            return jax.nn.one_hot(jnp.repeat(x[:, 3:4], 3, axis=1), len(self.embedding))

    model = Repeats(WORDS + 4, 7, key=jax.random.key(0), size=8, hidden=8, layers=1)
    found = process.observe(state._replace(model=model))
    for i, name in enumerate(process.names()):
        for of in ("in_context", "in_weights", "chosen"):
            told = float(found[of][i])
            if of == "in_weights" and not name.endswith("/switched"):
                assert np.isnan(told)
            else:
                assert told == pytest.approx(0.5, abs=0.09), (name, of)


def test_a_run_may_tell_nothing_of_weights_where_words_are_not_switched():
    trace = unfold(learner(), seeds=1, steps=2, every=1, progress=False)
    assert np.isnan(trace.in_weights.sel(exam="seen")).all() and not (trace.diverged_at >= 0).any()
    assert np.isfinite(trace.in_weights.sel(exam="head/switched")).all()


def test_exams_on_novel_words_leave_the_network_as_it_is():
    process = learner()
    state = process.init(jax.random.key(3))
    told = process.on_novel(state)
    assert told.chosen.shape == (len(NOVEL),)
    # What training did to the embeddings of novel words is no matter.
    pushed = state.model.embedding.at[WORDS + 2 :].add(100.0)
    same = process.on_novel(
        state._replace(model=eqx.tree_at(lambda m: m.embedding, state.model, pushed))
    )
    first = [a[:-1] for a in told]  # but for the exam of them as they are
    assert NOVEL[-1] == "novel/left"
    assert all(np.array_equal(a, b[:-1]) for a, b in zip(first, same, strict=True))


@pytest.mark.parametrize("moments", [True, False])
def test_a_turn_forgets_embeddings_and_nothing_else(moments):
    process = learner(forgetting=Forgetting(2, 7, 1.0, moments))
    assert list(process.turns()) == [2, 4, 6]
    state = process.step(process.init(jax.random.key(4)))
    after = process.turn(state)
    assert np.std(after.model.embedding) == pytest.approx(1.0, rel=0.15)
    assert np.array_equal(after.model.blocks[0].up.weight, state.model.blocks[0].up.weight)
    kept = (jax.tree.leaves(t.moments.inner_states[OTHERS]) for t in (state, after))
    assert all(np.array_equal(a, b) for a, b in zip(*kept, strict=True))
    own = jax.tree.leaves(after.moments.inner_states[PART])
    counts = [x for x in own if x.dtype == jnp.int32]
    assert all(int(c) == (0 if moments else 1) for c in counts) and counts
    assert np.std(state.novel) == pytest.approx(1.0, rel=0.3)  # drawn as a reset draws


def test_frozen_embeddings_stay_and_decay_shrinks_them():
    frozen = learner(embeddings="frozen")
    state = frozen.init(jax.random.key(5))
    after = frozen.step(state)
    assert np.array_equal(after.model.embedding, state.model.embedding)
    assert not np.array_equal(after.model.dense.weight, state.model.dense.weight)
    state = learner().init(jax.random.key(5))
    plain, shrunk = (learner(decay=d).step(state) for d in (0.0, 5.0))
    change = shrunk.model.embedding - plain.model.embedding
    assert np.allclose(change, -0.01 * 5.0 * state.model.embedding, atol=1e-7)


def test_words_of_noise_learn_nothing_but_by_weight_decay():
    process = learner(noise=1.0, noise_until=1, optimiser=lambda rate: optax.sgd(rate))
    state = process.init(jax.random.key(6))
    batch = state.roles.training(jax.random.key(7), 8)
    chance = np.asarray(process._chances(state, batch))
    words = np.unique(np.asarray(batch.tokens))
    assert (chance[words[words < WORDS]] == 1).all() and chance.sum() == (words < WORDS).sum()
    assert not np.asarray(process._chances(state._replace(step=jnp.int32(1)), batch)).any()
    after = process.step(state)
    still = (np.asarray(after.model.embedding) == np.asarray(state.model.embedding)).all(axis=1)
    assert 1 <= still[:WORDS].sum() < WORDS  # those of the batch
    assert not still[WORDS:].any()  # copula and mask are never noise


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"exam": 0}, "exam"),
        ({"embeddings": "fixed"}, "embeddings"),
        ({"noise": 1.5}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"decay": -1.0}, "decay"),
        ({"decay": float("nan")}, "decay"),
        ({"noise_until": 3}, "noise_until"),
        ({"forgetting": Forgetting(0)}, "every"),
    ],
)
def test_bad_settings_are_named(bad, said):
    with pytest.raises(ValueError, match=said):
        learner(**bad)


def test_more_head_than_words_is_told():
    with pytest.raises(ValueError, match="at most 10"):
        learner(head=11).init(jax.random.key(0))


def test_a_linear_probe_is_ridge_regression_on_scaled_features():
    rng = np.random.default_rng(0)
    x, fit = 3 * rng.normal(size=(80, 5)).astype(np.float32), rng.uniform(size=80) < 0.5
    y = np.sign(x @ [1, -2, 0, 0, 0] + 0.5).astype(np.float32)
    found = np.asarray(linear_probe(jnp.asarray(x), jnp.asarray(y), jnp.asarray(fit)), np.float64)
    scale = np.sqrt(np.square(x[fit]).mean())
    design = np.concatenate([x[fit] / scale, np.ones((fit.sum(), 1))], axis=1)
    stacked = np.concatenate([design / np.sqrt(fit.sum()), np.sqrt(1e-3) * np.eye(6)])
    expected = np.linalg.lstsq(
        stacked, np.append(y[fit] / np.sqrt(fit.sum()), np.zeros(6)), rcond=None
    )[0]
    np.testing.assert_allclose(
        found, expected / np.append(np.full(5, scale), 1), rtol=1e-3, atol=1e-5
    )
    told = np.asarray(with_constant(jnp.asarray(x)) @ linear_probe(*map(jnp.asarray, (x, y, fit))))
    assert np.mean((told > 0) == (y > 0)) > 0.9
    np.testing.assert_array_equal(linear_probe(jnp.zeros((4, 2)), jnp.ones(4), jnp.ones(4, bool))[:2], 0)  # fmt: skip


def test_a_probe_tells_kinds_that_embeddings_hold_and_no_others():
    process = learner(roles=lambda key: Roles(WORDS, key=key, share=0.0))
    state = process.init(jax.random.key(2))
    marked = state.model.embedding.at[: WORDS // 2, 0].set(5.0)  # nouns, all of them
    seen = process.probed(state._replace(model=eqx.tree_at(lambda m: m.embedding, state.model, marked)))  # fmt: skip
    assert seen["probe"].shape == (2,)
    assert seen["probe"][0] == 1 and seen["probe_switched"][0] == 1
    alone = state.model.embedding.at[: WORDS // 2 : 2, 0].set(
        5.0
    )  # those that the probe is fitted to
    seen = process.probed(state._replace(model=eqx.tree_at(lambda m: m.embedding, state.model, alone)))  # fmt: skip
    assert seen["probe"][0] < 0.8


def test_noise_begins_and_ends_when_it_is_said():
    process = learner(noise=1.0, noise_from=2, noise_until=4)
    state = process.init(jax.random.key(0))
    batch = state.roles.training(jax.random.key(1), 8)
    noisy = [float(process._chances(state._replace(step=jnp.int32(i)), batch).max()) for i in range(6)]  # fmt: skip
    assert noisy == [0, 0, 1, 1, 0, 0]
    for given, says in (({"noise_from": 2}, "are of noise"), ({"noise": 0.1, "noise_from": 3, "noise_until": 3}, "must be above")):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            learner(**given)
