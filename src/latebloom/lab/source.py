"""Hashes of the source that a result depends on, blind to comments, docstrings and layout."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "latebloom"
_NOT_RESULTS = (f"{PACKAGE}.lab", f"{PACKAGE}.cli", f"{PACKAGE}.progress")


def _strip_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


@functools.cache
def _module_tree(name: str) -> ast.Module | None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    tree = _strip_docstrings(ast.parse(Path(spec.origin).read_text()))
    assert isinstance(tree, ast.Module)
    return tree


def _imports(node: ast.AST) -> set[str]:
    """Modules of this package that the code imports."""
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            found |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom) and child.module:
            found.add(child.module)
            found |= {f"{child.module}.{alias.name}" for alias in child.names}
    ours = {name for name in found if name.split(".")[0] == PACKAGE}
    return {name for name in ours if not name.startswith(_NOT_RESULTS) and _exists(name)}


@functools.cache
def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@functools.cache
def _closure(names: frozenset[str]) -> dict[str, str]:
    """Module name -> normalised source, for the given modules and all they import."""
    found: dict[str, str] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found or name.startswith(_NOT_RESULTS):
            continue
        tree = _module_tree(name)
        found[name] = ast.dump(tree) if tree else ""
        todo += list(_imports(tree)) if tree else []
    found.pop(PACKAGE, None)
    return found


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id: node for t in targets if isinstance(t, ast.Name)}
    return found


def source_hash(module: ModuleType, roots: Iterable[Callable[..., Any] | type]) -> str:
    """Hash of `roots`, of all that they name in `module`, and of the package's modules behind it.

    Roots are functions or classes defined in `module`. What else stands there (claims, figures)
    does not count, so that redrawing a figure makes no result stale.
    """
    tree = _strip_docstrings(ast.parse(inspect.getsource(module)))
    assert isinstance(tree, ast.Module)
    definitions = _definitions(tree)
    todo = [root.__name__ for root in roots if root.__module__ == module.__name__]
    used: dict[str, str] = {}
    while todo:
        name = todo.pop()
        if name in used or name not in definitions:
            continue
        used[name] = ast.dump(definitions[name])
        names = {n.id for n in ast.walk(definitions[name]) if isinstance(n, ast.Name)}
        todo += sorted(names)
    behind = _closure(frozenset(_imports(tree) - {module.__name__}) | {f"{PACKAGE}.unfolding"})
    text = repr((sorted(used.items()), sorted(behind.items())))
    return hashlib.sha256(text.encode()).hexdigest()
