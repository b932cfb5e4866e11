"""The lock: every dependency in one version, with the hash of every file of it, for every platform.

It is a requirements file, so that others can read it too. Its second line tells what it was made from, so that a
pyproject.toml that has changed since is noticed, whatever the files' times say after a checkout.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from detent_state_machine.errors import ConfigurationError

from detent_infra.ops.packaging.project import Project
from detent_infra.ops.packaging.reading import read
from detent_infra.ops.packaging.target import Target
from detent_infra.ops.packaging.uv import uv

LOCK = "requirements.lock"
"""The lock's name, in the project's root. It belongs into version control."""

_HEAD = "# What the Lambda folder is made of. Written by `detent package --lock`; do not edit."
_MADE_FROM = "# made from: "


def write_lock(project: Project, target: Target, *, upgrade: bool) -> Path:
    """Writes the lock anew and returns its path. Versions stay as they are, unless `upgrade`, where they still fit.

    Raises `InputError` if the dependencies cannot be resolved, or only by building one from source.
    """
    path = project.root / LOCK
    with TemporaryDirectory(prefix="detent-lock-") as folder:
        made = Path(folder, LOCK)
        if path.is_file():
            made.write_bytes(path.read_bytes())
        # detent is the one that runs this. Whatever asks for a detent must not bring another.
        excluded = Path(folder, "excluded.txt")
        excluded.write_text("detent\n", encoding="utf-8")
        arguments = ["pip", "compile", "-", "--output-file", str(made), "--universal", "--generate-hashes"]
        arguments += ["--no-header", "--no-build", "--excludes", str(excluded)]
        arguments += ["--python", sys.executable, "--python-version", _oldest(project, target)]
        arguments += ["--upgrade"] if upgrade else []
        uv(arguments, cwd=project.root, doing="Locking the dependencies", stdin="\n".join(project.dependencies))
        text = f"{_HEAD}\n{_MADE_FROM}{_inputs(project, target)}\n{made.read_text(encoding='utf-8')}"
    beside = path.with_name(f".{LOCK}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
    return path


def read_lock(project: Project, target: Target) -> Path:
    """The lock's path. Raises `ConfigurationError` if there is none, or if it was made from other dependencies."""
    path = project.root / LOCK
    oldest = _oldest(project, target)
    if Target(oldest, target.architecture).version > target.version:
        raise ConfigurationError(
            f"pyproject.toml requires Python {oldest}, and the folder would be for {target.python}.",
            advice="Change one of them: requires-python there, or Runtime in template.yaml.",
        )
    lines = read(path, str.splitlines, advice="`detent package --lock`")
    if lines is None:
        raise ConfigurationError(
            f"There is no {LOCK} in {project.root}.", advice="Make it with `detent package --lock`, and commit it."
        )
    if f"{_MADE_FROM}{_inputs(project, target)}" not in lines[:2]:
        raise ConfigurationError(
            f"{LOCK} was made from other dependencies than pyproject.toml and detent {version('detent')} have now.",
            advice="Make it anew with `detent package --lock`, and commit it.",
        )
    return path


def locked(lock: Path) -> list[str]:
    """The names of the packages in the lock."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [line.partition("==")[0].strip() for line in lines if line[:1].isalnum()]


def digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _oldest(project: Project, target: Target) -> str:
    """One lock serves every Python that the project says it supports."""
    return project.oldest_python or target.python


def _inputs(project: Project, target: Target) -> str:
    text = json.dumps([_oldest(project, target), *project.dependencies])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
