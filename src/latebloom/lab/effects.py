"""Hashes of what claims compute from traces, so that it is known when a check has changed."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator
from types import MethodType, ModuleType
from typing import Any

import numpy as np

from latebloom.lab import source
from latebloom.lab.registry import module_of
from latebloom.lab.study import Claim, Study


def effect_hash(study: Study, claim: Claim) -> str:
    """Hash of a claim's check: the arms, functions and values of its effect, null and needs.

    Blind to comments, docstrings, layout and the claim's words. It follows names through the
    study's module and this package, as the hash of a study's traces does.
    """
    terms = [claim.effect, claim.null, *((n.effect, n.holds) for n in claim.needs)]
    own = module_of(study)
    parts = [repr(part) for term in terms for part in _parts(term, own)]
    return hashlib.sha256(repr((claim.holds, parts)).encode()).hexdigest()


def object_hash(value: Any) -> str:
    """Hash of an object: the source that its class reaches, and what it holds, however deep.

    "" where that cannot be told, as of a class that was typed in, or of what holds itself.
    """
    try:
        parts = [repr(part) for part in _parts(value, sys.modules[type(value).__module__])]
    except Exception:  # objects of the user's own may do anything when they are looked at
        return ""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def _parts(value: Any, own: ModuleType) -> Iterator[Any]:
    """Arms, plain values, and the source of functions that a term holds, however deep."""
    if isinstance(value, str | int | float | None):
        yield value
    elif isinstance(value, np.ndarray | np.generic):
        large = value.size > 1000 and value.dtype != object
        yield hashlib.sha256(value.tobytes()).hexdigest() if large else value.tolist()
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item, own)
    elif isinstance(value, dict):
        yield from _parts(list(value.items()), own)
    elif isinstance(value, functools.partial):
        yield from _parts([value.func, value.args, value.keywords], own)
    elif hasattr(value, "of") and hasattr(value, "text"):  # a term of the vocabulary
        yield from _parts([getattr(value, "arms", ()), value.of], own)
    elif isinstance(value, set | frozenset):
        yield from sorted(repr([*_parts(item, own)]) for item in value)
    elif isinstance(value, MethodType):
        yield from _parts([value.__func__, value.__self__], own)
    elif callable(value) and (hasattr(value, "__qualname__") or hasattr(value, "__name__")):
        yield from _source(value, own)
        cells = getattr(value, "__closure__", None) or ()
        given = [getattr(value, name, None) for name in ("__defaults__", "__kwdefaults__")]
        yield from _parts([cell.cell_contents for cell in cells] + given, own)
    elif isinstance(value, ModuleType):
        yield value.__name__
    else:  # an object: its class, and what it holds
        yield from _source(type(value), own)
        held = getattr(value, "__dict__", None)
        yield from _parts(pickle.dumps(value).hex() if held is None else held, own)


def _source(function: Callable[..., Any], own: ModuleType) -> list[Any]:
    place = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", "")
    if place != own.__name__ and not source.is_followed(place):
        return [place, name]
    code = getattr(function, "__code__", None)
    return _reached(sys.modules[place], name.split(".")[0], code.co_firstlineno if code else 0)


@functools.cache
def _reached(module: ModuleType, name: str, line: int) -> list[Any]:
    """The definitions that one of a module reaches, without those of the loop that runs studies."""
    text = inspect.getsource(module)
    parsed = source._parse(text)
    if name == "<lambda>":  # of no name: those that begin on its line stand for it
        here = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Lambda)]
        body = ast.Expr(ast.Tuple([n for n in here if n.lineno == line], ast.Load()))
        named = parsed.definitions | {name: [body]}
        parsed = dataclasses.replace(parsed, definitions=named, known={})
    root, folder = (module.__name__, name), source.folder_of(module)
    found = source._reach(module.__name__, parsed, [root], folder)
    return sorted((place[1], code) for place, code in found.items() if place not in _loop())


@functools.cache
def _loop() -> set[source.Place]:
    loop = (f"{source.PACKAGE}.core.unfold", "unfold")
    return set(source._reach("", source._Module({}, {}), [loop]))
