"""The modules of this repository, as text and as syntax trees: for rules that no linter knows."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ("functions", "infra", "sdk/python", "state_machine")
ALSO_OURS = ("bench", "examples", "tests")


def modules(folders: tuple[str, ...]) -> list[Path]:
    found = [path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if "build" not in path.parts)


@cache
def text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return parsed(text(path))


def parsed(source: str) -> ast.Module:
    # A collection in the middle can run a finalizer that logs a traceback. Python 3.11 parses to show one, and a parse
    # in a parse fails with "AST constructor recursion depth mismatch".
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        gc.enable()


def imported(path: Path) -> Iterator[str]:
    """The top-level modules that a module imports, anywhere in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0]


SHIPPED_MODULES = modules(SHIPPED)
EVERY_MODULE = modules((*SHIPPED, *ALSO_OURS))
