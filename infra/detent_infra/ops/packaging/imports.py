"""What the application's modules import, read from their source: none of it is run.

Two things work on the author's machine and fail in Lambda, so they are told before the folder is made: a module with
the name of another one, which hides it, and a module of the project that is not in the folder.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

from detent_state_machine.errors import InputError

from detent_infra.ops.packaging.project import OWN_PACKAGES, Project, package_name

_DETENT = "detent"
_GUARDS = frozenset({"BaseException", "Exception", "ImportError", "ModuleNotFoundError"})


def must_not_hide(project: Project, modules: Mapping[str, Path], locked: Iterable[str]) -> None:
    """Raises `InputError` for a module in the project's root, or its `src`, that hides another one.

    `modules` are the application's, by their names in the folder; `locked` the packages that the folder gets.
    """
    beside = _beside(project)
    for name, place in {**{place.stem: place for place in modules.values()}, **beside}.items():
        if name in sys.stdlib_module_names:
            raise InputError(
                f"{_told(project, place)} has the name of Python's own module {name!r}, and hides it from whoever "
                "imports it.",
                advice="Rename it.",
            )
    known = {_DETENT, *map(package_name, locked)}
    own = {package_name(each) for each in (project.name,) if each}
    installed = {**packages_distributions(), **{name: [_DETENT] for name in OWN_PACKAGES}}
    for name, packages in installed.items():
        hidden = sorted({package_name(each) for each in packages} & known - own)
        if name in beside and hidden:
            raise InputError(
                f"{_told(project, beside[name])} has the name of a module of the dependency {hidden[0]!r}, and hides "
                "it.",
                advice="Rename it.",
            )


def hiding(folder: Path) -> list[str]:
    """The files in the folder that hide modules of Python's own."""
    return sorted(place.name for name, place in _modules_in(folder) if name in sys.stdlib_module_names)


def must_be_included(project: Project, modules: Mapping[str, Path]) -> None:
    """Raises `InputError` for an import of a module that is in the project, but not among the folder's `modules`."""
    inside = {place.stem for place in modules.values()}
    forgotten = {name: place for name, place in _beside(project, namespaces=True).items() if name not in inside}
    for source in sorted(file for place in modules.values() for file in _sources(place)):
        for line, name in _imports(source):
            if name in forgotten and name not in sys.stdlib_module_names:
                raise InputError(
                    f"{_told(project, source)}, line {line}, imports {name!r}, which is not in the folder: "
                    f"{_told(project, forgotten[name])} is in the project, but not part of the app.",
                    advice=f'Write `include = ["{name}"]` under [tool.detent] in pyproject.toml.',
                )


# ---- modules of the project -----------------------------------------------------------------------------------


def _beside(project: Project, *, namespaces: bool = False) -> dict[str, Path]:
    """The modules in the project's root and its `src`, by name."""
    found = [*_modules_in(project.root / "src", namespaces=namespaces)]
    found += _modules_in(project.root, namespaces=namespaces)
    return dict(found)


def _modules_in(folder: Path, *, namespaces: bool = False) -> Iterator[tuple[str, Path]]:
    """Modules and packages, with `namespaces` directories that hold Python files, too: those hide nothing."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.stem.isidentifier():
            continue
        if entry.suffix == ".py" and entry.is_file():
            yield entry.stem, entry
        elif not entry.suffix and ((entry / "__init__.py").is_file() or (namespaces and any(entry.glob("*.py")))):
            yield entry.name, entry


def _sources(place: Path) -> Iterator[Path]:
    """The module's files, without its tests, which no function runs."""
    if place.is_file():
        yield place
        return
    for file in place.rglob("*.py"):
        inner = file.relative_to(place)
        folders = inner.parts[:-1]
        is_test = file.name == "conftest.py" or file.stem.startswith("test_") or file.stem.endswith("_test")
        if not is_test and not any(part in ("test", "tests") or part.startswith(".") for part in folders):
            yield file


def _told(project: Project, place: Path) -> str:
    return str(place.relative_to(project.root) if place.is_relative_to(project.root) else place)


# ---- what a source imports ------------------------------------------------------------------------------------


def _imports(source: Path) -> Iterator[tuple[int, str]]:
    """Lines and the top-level modules that they import. What is guarded against their absence is left out."""
    try:
        parsed = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):  # it may be written for a newer Python; compiling it says so if it is not
        return
    yield from _imports_of(parsed.body)


def _imports_of(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        match node:
            case ast.Import(names):
                for alias in names:
                    yield node.lineno, alias.name.partition(".")[0]
            case ast.ImportFrom(str(module), _, 0):
                yield node.lineno, module.partition(".")[0]
            case ast.Call(
                ast.Name("__import__" | "import_module") | ast.Attribute(_, "import_module"),
                [ast.Constant(str(module)), *_],
            ) if not module.startswith("."):
                yield node.lineno, module.partition(".")[0]
            case ast.If(ast.Name("TYPE_CHECKING") | ast.Attribute(_, "TYPE_CHECKING"), _, otherwise):
                yield from _imports_of(otherwise)
            case ast.Try(_, handlers, otherwise, finally_) if any(map(_guards, handlers)):
                yield from _imports_of([*handlers, *otherwise, *finally_])
            case _:
                yield from _imports_of(ast.iter_child_nodes(node))


def _guards(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _GUARDS) for kind in kinds)
