"""The beam against a search through all sequences."""

from itertools import permutations, product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.methods.recurrence.pointer import AttentionSeq2Seq, PointerNetwork, uniform_start
from latebloom.methods.recurrence.pointer_decoding import write

KEY = jax.random.key(0)
POINTS = jax.random.uniform(KEY, (3, 4, 2))
COUNTS = jnp.array([4, 3, 1])
STEPS = 4
MODELS = {
    "pointer": uniform_start(PointerNetwork(6, key=KEY), KEY, 2.0),
    "attention": uniform_start(AttentionSeq2Seq(6, 5, key=KEY), KEY, 2.0),
}


@eqx.filter_jit
def of_all(model, points, count, sequences, lengths):
    """Log-probabilities of many sequences for one set."""
    many = len(sequences)
    scores = model(
        jnp.broadcast_to(points, (many, *points.shape)), jnp.full(many, count), sequences
    )
    log_p = jnp.take_along_axis(jax.nn.log_softmax(scores), sequences[..., None], axis=-1)[..., 0]
    return jnp.where(jnp.arange(sequences.shape[1]) < lengths[:, None], log_p, 0).sum(1)


def all_sequences(count, tours):
    """All that end, or are cut off, padded; and how many steps count."""
    if tours:
        found = {p: count for p in permutations(range(1, count + 1))}
    else:
        found = {}
        for s in product(range(count + 1), repeat=STEPS):
            end = s.index(0) + 1 if 0 in s else STEPS
            if not any(s[end:]):
                found[s] = end
    padded = np.zeros((625, STEPS), int)
    lengths = np.zeros(625, int)
    for i, (s, n) in enumerate(found.items()):
        padded[i, : len(s)], lengths[i] = s, n
    return padded, lengths, len(found)


@pytest.mark.parametrize(
    "kind, tours", [("pointer", False), ("pointer", True), ("attention", True)]
)
def test_a_wide_beam_finds_the_likeliest_of_all(kind, tours):
    model = MODELS[kind]
    points = POINTS.at[1, 3:].set(jnp.nan).at[2, 1:].set(jnp.nan)
    found = write(model, points, COUNTS, steps=STEPS, width=130, tours=tours)
    for b, count in enumerate(COUNTS.tolist()):
        sequences, lengths, many = all_sequences(count, tours)
        log_p = np.asarray(
            of_all(model, POINTS[b], count, jnp.asarray(sequences), jnp.asarray(lengths))
        )[:many]
        order = np.argsort(-log_p)[:130]
        shown = len(order)
        np.testing.assert_allclose(found.log_p[b, :shown], log_p[order], atol=1e-4)
        assert found.tokens[b, 0].tolist() == sequences[order[0]].tolist()
        assert len({tuple(s) for s in found.tokens[b, :shown].tolist()}) == shown  # none twice
        assert (found.log_p[b, shown:] == -jnp.inf).all()


def test_a_beam_of_one_is_greedy():
    model = MODELS["pointer"]
    found = write(model, POINTS, COUNTS, steps=STEPS)
    for b in range(3):
        context, state = model.encode(POINTS[b : b + 1], COUNTS[b : b + 1])
        token, tokens, total = jnp.array([-1]), [], 0.0
        for _ in range(STEPS):
            state, scores = STEP(model, context, state, token)
            token = scores.argmax(-1)
            total += float(jax.nn.log_softmax(scores).max())
            tokens.append(int(token[0]))
            if tokens[-1] == 0:
                break
        assert found.tokens[b, 0].tolist() == tokens + [0] * (STEPS - len(tokens))
        assert found.log_p[b, 0] == pytest.approx(total, abs=1e-4)


STEP = eqx.filter_jit(lambda model, *given: model.step(*given))


def test_tours_are_tours_whatever_the_model_and_wider_is_likelier():
    points = jax.random.uniform(KEY, (64, 6, 2))
    counts = jnp.arange(64) % 6 + 1
    likely = []
    for width in (1, 3):
        found = write(MODELS["pointer"], points, counts, steps=6, width=width, tours=True)
        best = np.asarray(found.tokens[:, 0])
        for tokens, n in zip(best, counts.tolist(), strict=True):
            assert sorted(tokens[:n]) == list(range(1, n + 1)) and not tokens[n:].any()
        likely.append(float(found.log_p[:, 0].mean()))
    assert likely[1] > likely[0]
    free = write(MODELS["pointer"], points, counts, steps=6)
    assert any(sorted(t[:n]) != list(range(1, n + 1)) for t, n in zip(np.asarray(free.tokens[:, 0]), counts, strict=True))  # fmt: skip


def test_bad_input_is_refused():
    for more, why in (
        ({"steps": 0}, "steps and width"), ({"steps": 4, "width": 0}, "steps and width"),
        ({"steps": 3, "tours": True}, "4 points takes 4 steps"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            write(MODELS["pointer"], POINTS, COUNTS, **more)
