"""The SAM CLI, as people run it: in a project of their own, against the place that the environment names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.stack.places import Place
from tests.support.lambda_folders import patiently
from tests.support.server import NoServer

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv-sam/bin/sam"
APP = "tests.stack.app:app"
MAKEFILE = """\
build-Worker:
\tdetent package --app {app} --out build/lambda {options}
\tcp -Rp build/lambda/. "$(ARTIFACTS_DIR)"
"""
OPTIONS = "DETENT_TEST_STACK_PACKAGE"
"""The environment variable with options of `detent package`, for a server that runs functions in another Python."""
PATIENCE = 1200.0
"""Seconds. An account takes minutes for what an emulator does in seconds."""


@dataclass(frozen=True)
class Project:
    """A user's project, as docs/deploy.md says one looks. What it says is ours, unedited."""

    folder: Path
    place: Place

    def sam(self, *arguments: str) -> str:
        """What the command printed. Raises `AssertionError` with it if the command failed."""
        return _said(self._run(*arguments))

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if not PROGRAM.exists():
            raise NoServer(f"{PROGRAM} is missing: `make sam` installs it.")
        environment = {
            **self.place.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SAM_CLI_TELEMETRY": "0",
            "NO_COLOR": "1",
        }
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def build(self) -> None:
        """Packages are fetched from an index, which may be asked again."""
        _said(patiently(lambda: self._run("build"), lambda done: done.stdout + done.stderr if done.returncode else ""))

    def deploy(self, stack: str, parameters: Mapping[str, str]) -> str:
        given = [f"{name}={value}" for name, value in parameters.items()]
        return self.sam(
            *("deploy", "--stack-name", stack, "--region", self.place.region, "--no-confirm-changeset"),
            *("--no-progressbar", "--parameter-overrides", *given),
        )

    def delete(self, stack: str) -> str:
        return self.sam("delete", "--stack-name", stack, "--region", self.place.region, "--no-prompts")

    def change_edition(self, edition: int) -> None:
        """Another edition of the application's code."""
        file = self.folder / "tests/stack/edition.py"
        file.write_text(re.sub(r"EDITION = \d+", f"EDITION = {edition}", file.read_text()))


def new_project(folder: Path, place: Place) -> Project:
    for name in ("template.yaml", "samconfig.toml", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    options = os.environ.get(OPTIONS, place.package)
    (folder / "Makefile").write_text(MAKEFILE.format(app=APP, options=options))
    (folder / "tests/stack").mkdir(parents=True)
    for name in ("__init__", "stack/__init__", "stack/app", "stack/edition", "stack/ledger"):
        shutil.copy(ROOT / f"tests/{name}.py", folder / f"tests/{name}.py")
    return Project(folder, place)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"sam {' '.join(done.args[1:])} ended with {done.returncode}\n{said}"
    return said
