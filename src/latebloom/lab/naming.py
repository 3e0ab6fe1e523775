"""Names and numbers of things as messages say them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" or "; there are: a, b", to end an error message with."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"


def counted(count: int, what: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def said(error: Exception) -> str:
    """What an error says, after its kind where that is not plain bad input."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
