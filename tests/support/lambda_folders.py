"""Lambda folders for tests, each made once per run of the suite, by the real command."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import pytest
from detent_infra.ops.packaging import Target, read_target

from tests.support.cli_project import command
from tests.support.runtime_api import Runtime

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
APP = "examples.orders.app:app"
UNREACHED = ("error sending request", "dns error", "Failed to fetch", "Could not connect", "network timeout")


@dataclass(frozen=True)
class Interpreter:
    """A Python without what is installed in it, and its minor version as in `3.13`."""

    path: Path
    version: str


def own() -> Interpreter:
    """The one that runs the tests; not its virtual environment's, whose packages nothing may find."""
    return Interpreter(Path(sys.base_prefix, "bin", "python3"), f"{sys.version_info[0]}.{sys.version_info[1]}")


def templates() -> Interpreter | None:
    """One of the version that template.yaml names, if this machine has it on its PATH or in pyenv."""
    wanted = read_target(ROOT / "template.yaml").python
    name = f"python{wanted}"
    found = [shutil.which(name), *sorted(map(str, Path.home().glob(f".pyenv/versions/{wanted}.*/bin/{name}")))]
    for program in filter(None, found):
        if subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0:
            return Interpreter(Path(program), wanted)
    return None


@dataclass(frozen=True)
class Folders:
    """Makes what a test asks for, or finds what another test had made. `place` is shared by all processes of a run."""

    place: Path

    def orders(self, target: Target, compiler: Path | None = None) -> Path:
        """The folder of this checkout's example."""
        return self.of(ROOT, APP, target, compiler)

    def of(self, project: Path, app: str, target: Target, compiler: Path | None = None) -> Path:
        name = f"{app.partition(':')[0]}-{target.python}-{target.architecture}-{'compiled' if compiler else 'plain'}"
        how = ["--bytecode", "--compile-with", str(compiler)] if compiler else ["--no-bytecode"]
        return self._once(name, lambda out: package(project, "--app", app, *options(target), *how, "--out", str(out)))

    def runtime(self, interpreter: Interpreter) -> Runtime:
        """AWS's runtime client for the interpreter, in a folder of its own."""
        client = f"awslambdaric=={version('awslambdaric')}"
        asked = ["--python-version", interpreter.version, "--python", sys.executable, "--only-binary", ":all:"]
        program = str(Path(sys.executable).with_name("uv"))
        made = self._once(
            f"runtime-{interpreter.version}",
            lambda out: reached([program, "pip", "install", "--quiet", "--target", str(out), *asked, client], ROOT),
        )
        return Runtime(interpreter.path, made)

    def _once(self, name: str, make: Callable[[Path], object]) -> Path:
        made = self.place / name
        with (self.place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                part = made.with_name(f"{name}.part")
                shutil.rmtree(part, ignore_errors=True)
                make(part)
                part.rename(made)
        return made


def options(target: Target) -> list[str]:
    return ["--python-version", target.python, "--architecture", target.architecture]


def package(project: Path, *arguments: str) -> dict[str, Any]:
    """What `detent package --json` says of the folder it made."""
    said: dict[str, Any] = json.loads(reached([*command("package"), "--json", *arguments], project))
    return said


def reached(arguments: list[str], cwd: Path, **environment: str) -> str:
    """The output of a command that must succeed. Skips without a network, but fails where CI is set."""
    done = patiently(
        lambda: subprocess.run(
            arguments, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        ),
        lambda done: done.stderr if done.returncode else "",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def patiently(ask: Callable[[], T], complaint: Callable[[T], str]) -> T:
    """The answer, if an index of packages was reached.

    Where CI is set, one that does not answer is asked again, twice, and then it is an error; elsewhere it is a skip.
    """

    def unreached() -> bool:
        return any(words in complaint(answer) for words in UNREACHED)

    answer = ask()
    if not os.environ.get("CI"):
        if unreached():
            pytest.skip(f"packages are fetched from an index, which does not answer: {complaint(answer)[-300:]}")
        return answer
    for pause in (5.0, 15.0):
        if not unreached():
            break
        time.sleep(pause)
        answer = ask()
    return answer


def contents(folder: Path) -> Iterator[tuple[str, int, float, bytes]]:
    """Every file with its mode, time and bytes, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            about = path.stat()
            yield path.relative_to(folder).as_posix(), about.st_mode & 0o777, about.st_mtime, path.read_bytes()
