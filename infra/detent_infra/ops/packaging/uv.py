"""uv, which resolves and installs for another Python and another processor than this machine's.

pip would do for wheels, but it evaluates the markers of requirements for the interpreter it runs in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from detent_state_machine.errors import ConfigurationError, InputError

from detent_infra.ops.packaging.origin import installation

_LONGEST = 600
"""Characters of uv's output that an error repeats."""


def uv(arguments: Sequence[str], *, cwd: Path, doing: str, stdin: str = "") -> None:
    """Runs uv in the project, whose own settings of uv hold. Raises `InputError` with what uv says if it fails."""
    command = [_program(), "--quiet", "--no-python-downloads", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - uv, with arguments of ours
            command, cwd=cwd, input=stdin, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise ConfigurationError(f"uv cannot be run: {error}.", advice=installation()) from error
    if done.returncode:
        raise InputError(f"{doing} failed. uv says: {_said(done.stderr)}")


def _program() -> str:
    beside = Path(sys.executable).with_name("uv.exe" if os.name == "nt" else "uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise ConfigurationError("Packaging needs uv, which is not installed.", advice=installation())
    return found


def _said(text: str) -> str:
    """The error itself, on one line: no warnings before it, no hints after it."""
    lines = text.strip().splitlines()
    first = next((n for n, line in enumerate(lines) if line.lstrip().startswith("error:")), 0)
    kept: list[str] = []
    for line in lines[first:]:
        if line.startswith(("hint:", "warning:")):
            break
        kept.append(line)
    said = " ".join(" ".join(kept).split()).removeprefix("error: ")
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"
