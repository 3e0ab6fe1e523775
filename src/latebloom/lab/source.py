"""Hashes of the source that a result depends on, blind to comments, docstrings and layout.

The unit is the definition: a function, a class, a module-level assignment. From the roots the
hash follows every name to the definition it stands for, through imports and re-exports, within
this package. A method added beside another one therefore makes no result of the other stale.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "latebloom"
_NOT_RESULTS = (f"{PACKAGE}.lab", f"{PACKAGE}.cli", f"{PACKAGE}.core.progress")
_SCOPES = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda
LOOSE = ""  # what a module does on import besides defining names

Place = tuple[str, str]  # module, name


@dataclass(frozen=True)
class _Module:
    definitions: dict[str, ast.stmt]
    imports: dict[str, Place]  # bound name -> (module, name in it, or LOOSE for the module itself)
    loose: list[ast.stmt] = field(default_factory=list)


def source_hash(module: ModuleType, roots: Iterable[Callable[..., Any] | type]) -> str:
    """Hash of `roots`, of all definitions that they reach, and of the loop that runs them.

    Roots are functions or classes defined in `module` (others do not count); of a function made
    by another one, or a partial, the maker counts and the plain values that it was given. What
    nothing among them names, such as claims and figures, does not count.
    """
    own = _parse(inspect.getsource(module))
    names, given = [], []
    for root in roots:
        values = _given(root)
        while isinstance(root, functools.partial):
            root = root.func
        if root.__module__ == module.__name__:
            names.append(root.__qualname__.split(".")[0])
            given += values
    found = _reach(module.__name__, own, [name for name in names if name in own.definitions])
    # The name of the module itself is left out: a study may move.
    text = [("" if m == module.__name__ else m, name, code) for (m, name), code in found.items()]
    whole = repr((sorted(text), given)) if given else repr(sorted(text))
    return hashlib.sha256(whole.encode()).hexdigest()


def _given(root: Any) -> list[str]:
    """The plain values that a partial or a closure was made with."""
    values: list[Any] = []
    while isinstance(root, functools.partial):
        values += [*root.args, *sorted(root.keywords.items())]
        root = root.func
    values += [cell.cell_contents for cell in getattr(root, "__closure__", None) or ()]
    return [repr(v) for v in values if isinstance(v, str | int | float | tuple | None)]


def _reach(name: str, own: _Module, roots: list[str]) -> dict[Place, str]:
    """Every definition that the roots depend on, as normalised source."""

    def module(place: str) -> _Module | None:
        return own if place == name else _module(place)

    todo: list[Place] = [(name, root) for root in roots] + [(f"{PACKAGE}.core.unfold", "unfold")]
    found: dict[Place, str] = {}
    while todo:
        place = todo.pop()
        here = module(place[0])
        if place in found or here is None or place[0].startswith(_NOT_RESULTS):
            continue
        nodes = here.loose if place[1] == LOOSE else [here.definitions[place[1]]]
        found[place] = repr([ast.dump(node) for node in nodes])
        todo.append((place[0], LOOSE))
        for node in nodes:
            bound = here.imports | _imports_of(ast.walk(node))
            for chain in _chains(node):
                todo += _resolve(place[0], here, bound, chain, module)
    return found


def _resolve(
    name: str, here: _Module, bound: dict[str, Place], chain: list[str],
    module: Callable[[str], _Module | None],
) -> list[Place]:  # fmt: skip
    """The definitions that a dotted name stands for in a module: none, one, or a whole module's."""
    head, rest = chain[0], chain[1:]
    if head in here.definitions:
        return [(name, head)]
    if head not in bound:
        return []
    target, attribute = bound[head]
    if attribute != LOOSE:
        rest = [attribute, *rest]
    while rest and module(f"{target}.{rest[0]}") is not None:
        target, rest = f"{target}.{rest[0]}", rest[1:]
    there = module(target)
    if there is None:
        return []
    if not rest:
        return [(target, every) for every in [*there.definitions, LOOSE]]
    return _resolve(target, there, there.imports, rest, module)


def _chains(node: ast.AST) -> Iterator[list[str]]:
    """Every name in the code, with the attributes taken of it: `data.load` -> ["data", "load"]."""
    inner = set()
    for child in ast.walk(node):
        chain, at = [], child
        while isinstance(at, ast.Attribute):
            chain.append(at.attr)
            at = at.value
            inner.add(at)
        if isinstance(at, ast.Name) and child not in inner:
            yield [at.id, *reversed(chain)]


def _parse(text: str) -> _Module:
    tree = _strip_docstrings(ast.parse(text))
    # An import under `if TYPE_CHECKING` tells where a name that is imported late comes from.
    blocks = [tree, *(node for node in tree.body if isinstance(node, ast.If))]
    found = _Module({}, _imports_of(n for block in blocks for n in ast.iter_child_nodes(block)))
    for node in tree.body:
        names = list(_names_bound_by(node))
        found.definitions.update(dict.fromkeys(names, node))
        if not names and not isinstance(node, ast.Import | ast.ImportFrom | ast.Pass):
            found.loose.append(node)
    return found


def _names_bound_by(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement of a module binds there, not those of scopes within it."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif not isinstance(node, _SCOPES | ast.AugAssign):
            todo += ast.iter_child_nodes(node)


def _imports_of(nodes: Iterable[ast.AST]) -> dict[str, Place]:
    found: dict[str, Place] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or whole] = (whole, LOOSE)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module, alias.name)
    return {n: p for n, p in found.items() if p[0].split(".")[0] == PACKAGE}


@functools.cache
def _module(name: str) -> _Module | None:
    """A module of this package, or None if there is none of that name."""
    if name.split(".")[0] != PACKAGE:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return _parse(Path(spec.origin).read_text())


def _strip_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
