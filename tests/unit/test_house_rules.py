"""Rules of the house that no linter knows: sizes, names, one place for the environment, nothing that runs text."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Callable
from pathlib import Path

import detent
import pytest

from tests.support.source_code import (
    EVERY_MODULE,
    ROOT,
    SHIPPED,
    SHIPPED_MODULES,
    imported,
    modules,
    text,
    tree,
)

MAX_MODULE = 500
MAX_FUNCTION = 80
VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
IMPURE = {
    "asyncio", "boto3", "botocore", "logging", "os", "random", "secrets", "socket", "sqlite3", "subprocess", "sys",
    "tempfile", "threading", "time", "uuid",
}  # fmt: skip
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
ENVIRONMENT = {
    "functions/detent_functions/settings.py",
    "sdk/python/detent/settings.py",
    "sdk/python/detent/cli/output.py",  # what every terminal program is told: NO_COLOR, FORCE_COLOR, COLUMNS
}


KIND = Path("state_machine/detent_state_machine/kinds/call.py")
Offences = dict[str, object]


def offences(paths: list[Path], look: Callable[[Path], object]) -> Offences:
    """What the look finds, by module; nothing for those it finds nothing in."""
    found = {str(path): look(path) for path in paths}
    return {path: what for path, what in found.items() if what}


def test_there_is_something_to_look_at() -> None:
    assert len(SHIPPED_MODULES) > 40
    assert all((ROOT / folder).is_dir() for folder in SHIPPED)
    assert offences(SHIPPED_MODULES, lambda path: "json" in imported(path))  # a rule can be broken


def test_a_module_can_be_read_in_one_sitting() -> None:
    def too_long(path: Path) -> int | None:
        lines = len(text(path).splitlines())
        return lines if lines >= MAX_MODULE else None

    assert offences(EVERY_MODULE, too_long) == {}


def test_a_function_fits_a_screen() -> None:
    def long(path: Path) -> list[str]:
        return [
            f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.end_lineno is not None
            and node.end_lineno - node.lineno >= MAX_FUNCTION
        ]

    assert offences(EVERY_MODULE, long) == {}


def test_a_module_is_named_after_what_it_is_about() -> None:
    def vague(path: Path) -> set[str]:
        return VAGUE & {*path.with_suffix("").parts, *path.stem.split("_")}

    assert offences(EVERY_MODULE, vague) == {}


def test_a_module_says_what_it_is_about() -> None:
    assert offences(SHIPPED_MODULES, lambda path: not (ast.get_docstring(tree(path)) or "").strip()) == {}


def test_nothing_that_ships_runs_text_or_unpickles() -> None:
    def runs_text(path: Path) -> set[str]:
        calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        return (RUNS_TEXT & {call.id for call in calls if isinstance(call, ast.Name)}) | (PICKLES & set(imported(path)))

    assert offences(modules((*SHIPPED, "bench", "examples")), runs_text) == {}
    assert offences(modules(("tests",)), lambda path: PICKLES & set(imported(path))) == {}


def test_the_state_machine_has_no_clock_no_chance_and_no_environment() -> None:
    def impure(path: Path) -> set[str]:
        nodes = list(ast.walk(tree(path)))
        asked = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        clocks = {"now", "today", "utcnow", "environ", "getenv"}
        return (IMPURE & set(imported(path))) | (clocks & asked) | ({"open", "print", "input"} & called)

    assert offences(modules(("state_machine",)), impure) == {}


ENGINE = modules(("infra/detent_infra/engine",))


def test_the_engine_can_be_read_in_one_sitting() -> None:
    assert sum(len(text(path).splitlines()) for path in ENGINE) <= 700


def test_the_engine_decides_nothing() -> None:
    """It compares no status and builds no transition: `begin`, `settle` and `follow` do, each once."""
    deciding = {
        "detent_state_machine.status",
        "detent_state_machine.transitions",
        "detent_state_machine.run_transitions",
    }
    asked = {"status", "takeovers", "errors", "due", "delivery"}

    def decides(path: Path) -> set[str]:
        nodes = list(ast.walk(tree(path)))
        named = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        looked_at = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        return (
            (deciding & modules) | ({"StepStatus", "RunStatus", "UpdateItem", "PutItem"} & named) | (asked & looked_at)
        )

    assert offences(ENGINE, decides) == {}
    assert "status" in {node.attr for node in ast.walk(tree(KIND)) if isinstance(node, ast.Attribute)}  # can be broken


def test_no_other_module_takes_a_path_apart_or_puts_one_together() -> None:
    """What would: a split at, or a text built with, one of the characters that tell step runs apart."""
    splits = re.compile(r"""\.(?:r?split|r?partition)\(["'][/#@\[]["']""")
    about_paths = re.compile(r"""(?:\bpath|_path|\bstep_run)\.(?:r?split|r?partition|rfind|find|index)\(""")
    inside = [
        path
        for path in modules(("infra/detent_infra/engine", "infra/detent_infra/runs", "state_machine"))
        if path.name not in ("step_path.py", "keys.py")
    ]
    assert offences(inside, lambda path: [*splits.findall(text(path)), *about_paths.findall(text(path))]) == {}


def test_the_environment_is_read_in_the_settings_and_nowhere_else() -> None:
    def reads(path: Path) -> list[int]:
        return [
            node.lineno
            for node in ast.walk(tree(path))
            if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
            or (isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & {"environ", "getenv"})
        ]

    assert set(offences(SHIPPED_MODULES, reads)) <= ENVIRONMENT


def test_exceptions_to_the_checkers_say_which() -> None:
    bare = re.compile(r"type:\s*ignore(?!\[)|pyright:\s*ignore(?!\[)|noqa(?!:)")

    def said(path: Path) -> list[str]:
        tokens = tokenize.generate_tokens(io.StringIO(text(path)).readline)
        return [token.string for token in tokens if token.type == tokenize.COMMENT and bare.search(token.string)]

    assert offences(EVERY_MODULE, said) == {}


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")

    def left(path: Path) -> list[int]:
        return [number for number, line in enumerate(text(path).splitlines(), 1) if words.search(line)]

    assert offences(EVERY_MODULE, left) == {}


def test_an_id_is_not_cut_short() -> None:
    """Its beginning is the time: two that are made one after the other begin alike."""

    def cut(path: Path) -> list[int]:
        slices = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Subscript)]
        return [node.lineno for node in slices if ast.unparse(node.value) == "new_id()"]

    assert set(offences(EVERY_MODULE, cut)) == {"tests/support/fresh_names.py"}  # which takes the end


def test_what_is_exported_is_sorted() -> None:
    def unsorted(path: Path) -> list[str]:
        for node in tree(path).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names: list[str] = ast.literal_eval(node.value)
                return [] if names == sorted(set(names)) else names
        return []

    assert offences(EVERY_MODULE, unsorted) == {}


def public_modules() -> list[str]:
    return ["detent", "detent.testing", "detent_infra.engine", "detent_infra.sqlite", "detent_infra.aws"]


@pytest.mark.parametrize("name", public_modules())
def test_every_exported_name_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    assert getattr(module, "__all__", None), f"{name} says what it exports"
    missing = [exported for exported in module.__all__ if not hasattr(module, exported)]
    assert missing == []


@pytest.mark.parametrize("name", detent.__all__)
def test_every_name_of_detent_is_documented(name: str) -> None:
    exported = getattr(detent, name)
    said = exported.__doc__ or ""
    generated = said.startswith(f"{name}(")  # by `dataclass`
    assert said.strip()
    assert not generated


@pytest.mark.parametrize("kind", [detent.App, detent.Client, detent.Context, detent.RunHandle, detent.Workflow])
def test_every_public_method_says_what_it_promises(kind: type) -> None:
    """An async twin (`aget` of `get`) and what its name says whole need no words of their own."""
    names = [name for name in vars(kind) if not name.startswith("_")]
    undocumented = [
        name
        for name in names
        if not inspect.getdoc(inspect.getattr_static(kind, name))
        and name.removeprefix("a") not in names
        and callable(getattr(kind, name))
    ]
    assert set(undocumented) <= {"status", "get"}


def test_what_suites_share_is_in_one_place() -> None:
    stray = {path.name for path in modules(("tests",)) if len(path.parts) == 2}
    assert stray == {"__init__.py", "conftest.py"}

    def of_another_suite(path: Path) -> set[str]:
        own = path.parts[1]
        shared = re.compile(r"^\s*from tests\.(?!support\b|service\b|localstack\b)(\w+)", re.MULTILINE)
        return set(shared.findall(text(path))) - {own}

    assert offences([path for path in modules(("tests",)) if len(path.parts) > 2], of_another_suite) == {}


def test_no_two_public_types_share_a_name() -> None:
    where: dict[str, set[str]] = {}
    for path in SHIPPED_MODULES:
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where.setdefault(node.name, set()).add(str(path))
    assert {name: paths for name, paths in where.items() if len(paths) > 1} == {}
