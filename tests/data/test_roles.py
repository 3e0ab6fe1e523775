"""Sequences whose roles show twice, against an independent reading of them."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.data.roles import Roles

WORDS, NOVEL = 40, 6
COPULA, MASK = WORDS, WORDS + 1


def drawn(**more) -> Roles:
    return Roles(WORDS, key=jax.random.key(0), **{"novel": NOVEL, **more})


def read(tokens: np.ndarray) -> tuple[int, int]:
    """Adjective and noun of one sequence by their places: the adjective stands behind the copula."""
    first = list(tokens[:3])
    behind = first.index(COPULA) + 1
    noun = first[2] if behind == 1 else first[0]
    return first[behind], noun


def answer(adjective: int, query: int) -> list[int]:
    return [adjective, query, query]


@given(st.integers(0, 1000))
def test_answers_in_context_are_read_off_the_places(seed):
    found = drawn().training(jax.random.key(seed), 16)
    for tokens, told in zip(np.asarray(found.tokens), np.asarray(found.in_context), strict=True):
        adjective, noun = read(tokens)
        assert tokens[3] in (adjective, noun) and (tokens[4:] == MASK).all()
        assert list(told) == answer(adjective, tokens[3])
        assert max(tokens[:4]) <= COPULA  # nothing novel is trained on


def test_switched_words_have_another_answer_in_weights():
    roles = drawn(share=0.0)
    found = roles.ranked(jax.random.key(1), 400, 2, 5, switched=True)
    for tokens, context, weights in zip(*map(np.asarray, found), strict=True):
        adjective, noun = read(tokens)
        assert adjective < WORDS // 2 <= noun  # a noun where an adjective belongs
        assert 2 <= adjective < 5 and 2 <= noun - WORDS // 2 < 5
        assert list(context) == answer(adjective, tokens[3])
        assert list(weights) == answer(noun, tokens[3]) and list(weights) != list(context)
    plain = roles.ranked(jax.random.key(1), 50, 2, 5, switched=False)
    assert (np.asarray(plain.in_context) == np.asarray(plain.in_weights)).all()


def test_four_forms_come_as_often():
    found = drawn().training(jax.random.key(2), 8000)
    tokens = np.asarray(found.tokens)
    early = tokens[:, 0] == COPULA
    of_adjective = tokens[:, 3] == np.asarray(found.in_context)[:, 0]
    shares = [np.mean((early == a) & (of_adjective == b)) for a in (0, 1) for b in (0, 1)]
    assert np.allclose(shares, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 8000))


@pytest.mark.parametrize("alpha", [0.0, 1.0001, 1.5])
def test_words_come_by_the_law(alpha):
    half, n = WORDS // 2, 20_000
    roles = drawn(alpha=alpha, share=0.0)
    odds = np.arange(1, half + 1) ** -alpha
    odds /= odds.sum()
    for kind in (0, 1):
        seen = np.bincount(np.asarray(roles.word(jax.random.key(kind), n, kind)) - kind * half, minlength=half)  # fmt: skip
        assert (np.abs(seen / n - odds) < 5 * np.sqrt(odds / n) + 1e-4).all()


@pytest.mark.parametrize(("share", "each"), [(0.0, 0), (0.1, 1), (0.5, 2), (1.0, 4)])
def test_every_band_has_its_share_of_ambiguous_words(share, each):
    flags = np.asarray(drawn(share=share).ambiguous).reshape(2, 5, 4)
    assert (flags.sum(axis=2) == each).all()


def test_ambiguous_words_are_used_as_either_half_the_time():
    roles, n, half = drawn(share=0.5), 40_000, WORDS // 2
    used = np.asarray(roles.used(jax.random.key(3), n, 0))
    ambiguous = np.asarray(roles.ambiguous)
    odds = np.arange(1, half + 1) ** -1.0001
    odds /= odds.sum()
    crossed = used >= half
    assert ambiguous[used[crossed]].all()
    assert crossed.mean() == pytest.approx(0.5 * odds[ambiguous[:half]].sum(), abs=0.01)


def test_novel_sequences_have_two_novel_words():
    tokens = np.asarray(drawn().novel_sequences(jax.random.key(4), 300).tokens)
    pairs = np.array([read(t) for t in tokens])
    assert (pairs >= WORDS + 2).all() and (pairs < WORDS + 2 + NOVEL).all()
    assert (pairs[:, 0] != pairs[:, 1]).all() and len(np.unique(pairs)) == NOVEL


def test_exams_leave_ambiguous_words_out_unless_all_are():
    roles = drawn(share=0.5)
    words = np.asarray(roles.ranked(jax.random.key(5), 300, 0, 20, switched=False).tokens)[:, 3]
    assert not np.asarray(roles.ambiguous)[words].any()
    every = drawn(share=1.0).ranked(jax.random.key(5), 300, 0, 3, switched=False)
    assert len(np.unique(np.asarray(every.tokens)[:, 3])) == 6


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"words": 7}, "even"),
        ({"words": 2}, "at least 4"),
        ({"share": 1.1}, "share"),
        ({"share": float("nan")}, "share"),
        ({"bands": 21}, "bands"),
        ({"bands": 0}, "bands"),
        ({"novel": 1}, "novel"),
    ],
)
def test_bad_settings_are_named(bad, said):
    with pytest.raises(ValueError, match=said):
        Roles(**{"words": WORDS, "key": jax.random.key(0)} | bad)
    with pytest.raises(ValueError, match="ranks"):
        drawn().ranked(jax.random.key(0), 3, 5, 21, switched=False)
