"""Hashes of the source that a result depends on, blind to comments, docstrings and layout.

The unit is the definition: a function, a class, a module-level assignment. From the roots the
hash follows every name to the definition it stands for, through imports and re-exports, within
this package and code of the user's own: what is neither Python's nor installed. A method added beside
another one therefore makes no result of the other stale.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from latebloom.core.runs import LOOP_VERSION

PACKAGE = "latebloom"
_NOT_RESULTS = (f"{PACKAGE}.lab", f"{PACKAGE}.cli", f"{PACKAGE}.core.progress")
_SCOPES = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda
LOOSE = ""  # what a module does on import besides defining names

Place = tuple[str, str]  # module, name


@dataclass(frozen=True)
class _Module:
    definitions: dict[str, list[ast.stmt]]  # all statements that bind a name
    imports: dict[str, Place]  # bound name -> (module, name in it, or LOOSE for the module itself)
    loose: list[ast.stmt] = field(default_factory=list)
    known: dict[Place, tuple[str, list[Place]]] = field(default_factory=dict)  # by `_look`


def source_hash(module: ModuleType, roots: Iterable[Callable[..., Any] | type]) -> str:
    """Hash of `roots`, of all definitions that they reach, and the version of the loop that runs them.

    Roots are functions or classes; of a function made by another one, or a partial, the maker counts
    and the plain values that it was given; for one without a name, all of its module. What nothing
    among them names, such as claims and figures, does not count, nor do roots of installed packages.
    """
    own = _parse(inspect.getsource(module))
    places, given = [], []
    for root in roots:
        given += _given(root)
        while isinstance(root, functools.partial):
            root = root.func
        name = root.__qualname__.split(".")[0]
        named = [*own.definitions] if name == "<lambda>" else [name]
        places += [(root.__module__, each) for each in named]
    found = _reach(module.__name__, own, places, folder_of(module))
    # The name of the module itself is left out: a study may move.
    text = [("" if m == module.__name__ else m, name, code) for (m, name), code in found.items()]
    whole = repr((sorted(text), sorted(given), LOOP_VERSION))
    return hashlib.sha256(whole.encode()).hexdigest()


def _given(root: Any) -> list[str]:
    """The plain values that a partial or a closure was made with."""
    values: list[Any] = []
    while isinstance(root, functools.partial):
        values += [*root.args, *sorted(root.keywords.items())]
        root = root.func
    values += [cell.cell_contents for cell in getattr(root, "__closure__", None) or ()]
    return [repr(v) for v in values if isinstance(v, str | int | float | tuple | None)]


def folder_of(module: ModuleType) -> Path | None:
    """Where modules beside one of the user's own lie; None for one of the package's."""
    if module.__name__.split(".")[0] == PACKAGE:
        return None
    return Path(module.__file__).resolve().parent if module.__file__ else None


def _reach(
    name: str, own: _Module, roots: Iterable[Place], folder: Path | None = None
) -> dict[Place, str]:
    """Every definition that the roots depend on, as normalised source; `name` is that of `own`.

    Modules are looked for in the folder first, as when the study in it is loaded.
    """

    def module(place: str) -> _Module | None:
        return own if place == name else _module(place, folder)

    todo: list[Place] = list(roots)
    found: dict[Place, str] = {}
    while todo:
        place = todo.pop()
        here = module(place[0])
        if place in found or here is None or place[0].startswith(_NOT_RESULTS):
            continue
        if place[1] == LOOSE or place[1] in here.definitions:
            looked = here.known.get(place)
            if looked is None:
                looked = _look(place, here, module)
            if place[0].split(".")[0] == PACKAGE:  # the user's own may change while this runs
                here.known[place] = looked
            found[place] = looked[0]
            todo += looked[1]
    return found


def _look(
    place: Place, here: _Module, module: Callable[[str], _Module | None]
) -> tuple[str, list[Place]]:
    """A definition as normalised source, and the places of all that it names."""
    nodes = here.loose if place[1] == LOOSE else here.definitions[place[1]]
    further = [(place[0], LOOSE)]
    for node in nodes:
        bound = here.imports | _imports_of(ast.walk(node))
        for chain in _chains(node):
            further += _resolve(place[0], here, bound, chain, module)
    return repr([ast.dump(node) for node in nodes]), further


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


@functools.cache
def _parse(text: str) -> _Module:
    tree = _strip_docstrings(ast.parse(text))
    # An import under `if TYPE_CHECKING` tells where a name that is imported late comes from.
    blocks = [tree, *(node for node in tree.body if isinstance(node, ast.If))]
    found = _Module({}, _imports_of(n for block in blocks for n in ast.iter_child_nodes(block)))
    for node in tree.body:
        names = list(dict.fromkeys(_names_bound_by(node)))
        for name in names:
            found.definitions.setdefault(name, []).append(node)
        does = isinstance(node, ast.For | ast.While | ast.With)  # besides what names it binds
        if does or (not names and not isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)):
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
    return found


def _module(name: str, folder: Path | None = None) -> _Module | None:
    """A module of this package or of the user's own, or None if there is none of that name."""
    if name.split(".")[0] == PACKAGE:
        return _of_the_package(name)
    file = _in_folder(name, folder)
    if file is None and is_followed(name):
        file = _file_of(name)
    return None if file is None else _parse(file.read_text())


def _in_folder(name: str, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    path = folder.joinpath(*name.split("."))
    files = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _of_the_package(name: str) -> _Module | None:
    file = _file_of(name)
    return None if file is None else _parse(file.read_text())


def _file_of(name: str) -> Path | None:
    if (loaded := sys.modules.get(name)) is not None:
        origin = getattr(loaded, "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        origin = None if spec is None else spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None


def is_followed(name: str) -> bool:
    """Whether code of a module counts: this package's, or what nobody installed."""
    top = name.split(".")[0]
    return top == PACKAGE or _is_the_users(top)


@functools.cache
def _is_the_users(top: str) -> bool:
    if top in sys.stdlib_module_names or top == "__main__":
        return False
    file = _file_of(top)
    return file is not None and not any(place in file.parents for place in _installed())


@functools.cache
def _installed() -> tuple[Path, ...]:
    paths = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    prefixes = {Path(path) for path in paths}
    return tuple({*prefixes, *(path.resolve() for path in prefixes)})


def _strip_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
