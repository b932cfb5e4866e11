"""mypy --strict and pyright accept what is right and refuse what is wrong, line by line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[2]
ACCEPTED = sorted((ROOT / "tests/typing/accepted").glob("*.py"))
REFUSED = sorted((ROOT / "tests/typing/refused").glob("*.py"))
Lines: TypeAlias = set[tuple[str, int]]


def mypy(paths: list[Path]) -> Lines:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {(file, int(line)) for file, line in re.findall(r"(\w+\.py):(\d+): error", done.stdout)}


def pyright(paths: list[Path]) -> Lines:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {(Path(d["file"]).name, d["range"]["start"]["line"] + 1) for d in found if d["severity"] == "error"}


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_right_programs_are_accepted_and_their_types_are_known(checker) -> None:  # type: ignore[no-untyped-def]
    assert checker(ACCEPTED) == set()


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_wrong_programs_are_refused_at_the_line_that_is_wrong(checker) -> None:  # type: ignore[no-untyped-def]
    lines = [(path.name, *row) for path in REFUSED for row in enumerate(path.read_text().splitlines(), 1)]
    assert checker(REFUSED) == {(file, number) for file, number, line in lines if line.endswith("# refused")}
