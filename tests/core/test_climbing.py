"""Climbing a grid: against all of it, where there is one top; failures, ties, edges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.core.climbing import climb

GRID = (0.1, 1.0, 10.0, 100.0)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_it_finds_the_only_top(i, j, k, m):
    def score(a, b):
        return -abs(math.log10(a / GRID[i])) - abs(math.log10(b / GRID[j]))

    found = climb(score, (GRID, GRID), (GRID[k], GRID[m]))
    assert found.best == (GRID[i], GRID[j]) and found.score == pytest.approx(0)
    assert found.on_edge == (i in (0, 3), j in (0, 3))
    assert all(found.tried[place] == score(*place) for place in found.tried)


def test_what_fails_is_worse_than_anything_and_nothing_is_tried_twice():
    calls = []

    def score(a, b):
        calls.append((a, b))
        return math.nan if a > 1 else a

    found = climb(score, (GRID, (5.0,)), (100.0, 5.0))
    assert found.best == (100.0, 5.0) and math.isnan(found.score)  # nowhere to go from
    assert climb(score, (GRID, (5.0,)), (10.0, 5.0)).best == (1.0, 5.0)
    assert len(calls) == 2 + 4 and climb(score, (GRID, (5.0,)), (0.1, 5.0)).on_edge == (
        False,
        False,
    )
    assert climb(lambda a: 1.0, (GRID,), (1.0,)).best == (1.0,)
    with pytest.raises(ValueError, match="2 is not among"):
        climb(score, (GRID, (5.0,)), (2, 5.0))
