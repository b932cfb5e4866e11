"""What a start loads: counted, never timed. `test_budgets` has the same for the Lambda handler."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import detent
import pytest

from tests.support.source_code import parsed

IMPORT, HELP, RUNS = 90, 200, 460
"""Modules that may be loaded. In December 2026 they were 62, 192 and 452."""
HEAVY = {"pydantic", "asyncio", "boto3", "rich", "logging", "sqlite3"}


def loaded(code: str, directory: Path) -> list[str]:
    """The modules that a fresh interpreter has loaded behind the code."""
    script = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def command(*arguments: str) -> str:
    return f"from detent.cli import main\nassert main({list(arguments)!r}) == 0"


def test_import_detent_loads_nothing_of_weight(tmp_path: Path) -> None:
    names = loaded("import detent", tmp_path)
    assert not HEAVY & set(names)
    assert [name for name in names if name.startswith("detent")] == ["detent"]
    assert len(names) <= IMPORT, names


def test_help_loads_neither_models_nor_an_event_loop(tmp_path: Path) -> None:
    names = loaded(command("--help"), tmp_path)
    assert not (HEAVY - {"logging"}) & set(names)
    assert len(names) <= HELP, names


def test_a_list_of_runs_loads_no_engine(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    start = (
        "from detent import App\n"
        f"app = App(url={url!r})\n"
        "@app.task\n"
        "def double(n: int) -> int: return 2 * n\n"
        "double.start(1)\n"
    )
    subprocess.run([sys.executable, "-c", start], cwd=tmp_path, check=True, env=os.environ)
    names = loaded(command("runs", "--url", url), tmp_path)
    assert not {"boto3", "detent.app", "detent_infra.engine", "detent_infra.worker"} & set(names)
    assert len(names) <= RUNS, (len(names), names)


# ---- names on demand ------------------------------------------------------------------------------------------


def test_a_name_is_loaded_from_where_type_checkers_find_it() -> None:
    page = parsed(Path(str(detent.__file__)).read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in page.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(typed) == sorted(detent.__all__)
    for name, module in typed.items():
        assert getattr(detent, name) is getattr(sys.modules[str(module)], name), name


def test_a_name_that_is_not_there_is_refused_as_by_any_module() -> None:
    wrong = "Workflows"
    with pytest.raises(AttributeError, match="module 'detent' has no attribute 'Workflows'"):
        getattr(detent, wrong)


def test_every_name_is_listed_before_it_was_loaded(tmp_path: Path) -> None:
    listed = "import detent\nassert set(detent.__all__) <= set(dir(detent))\nassert 'pydantic' not in sys.modules"
    assert loaded(listed, tmp_path)
