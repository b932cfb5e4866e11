"""The Makefile, in a checkout with a space in its path. Installing is only recorded, so no test needs a network."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile with what `make demo` touches, under a path that a careless recipe would split."""
    folder = tmp_path / "a check out"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DETENT_", "ORDERS_", "MAKE", "MFLAGS"))}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=120)


def script(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def recording_python(folder: Path, *, works: bool = True) -> Path:
    """Stands for .venv/bin/python: writes down what pip is asked, and is this test's own Python for all else."""
    here, asked = shlex.quote(sys.executable), shlex.quote(str(folder / "pip.txt"))
    pip = f'if [ "$1 $2" = "-m pip" ]; then echo "$*" >> {asked}; exit {0 if works else 1}; fi'
    return script(folder / ".venv/bin/python", f'{pip}\nexec {here} "$@"')


def asked(folder: Path) -> list[str]:
    """What pip was asked to install."""
    file = folder / "pip.txt"
    return [line.partition(" install ")[2] for line in file.read_text().splitlines()] if file.exists() else []


def test_make_alone_lists_every_target_with_what_it_does(checkout: Path) -> None:
    listed = make(checkout)
    assert listed.returncode == 0
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    described = dict(re.findall(r"^  make ([\w-]+) +(\S.*)$", listed.stdout, re.MULTILINE))
    assert sorted(described) == sorted(phony[1].split())


def test_demo_installs_what_it_runs_with_once_and_then_needs_no_network(checkout: Path) -> None:
    recording_python(checkout)
    first = make(checkout, "demo", "ARGS=--limit 20")
    assert first.returncode == 0, first.stdout + first.stderr
    assert asked(checkout) == ["--editable ."]
    assert (checkout / ".detent/orders.db").exists()
    second = make(checkout, "demo", "ARGS=--limit 20")
    assert second.returncode == 0
    assert asked(checkout) == ["--editable ."]
    assert second.stdout.startswith("All 20 orders were done before")


def test_a_changed_pyproject_is_installed_again(checkout: Path) -> None:
    recording_python(checkout)
    make(checkout, "demo", "ARGS=--limit 5")
    later = (checkout / ".venv/.runtime-installed").stat().st_mtime + 10
    os.utime(checkout / "pyproject.toml", (later, later))
    assert make(checkout, "demo", "ARGS=--limit 5").returncode == 0
    assert asked(checkout) == ["--editable .", "--editable ."]


def test_test_installs_the_dev_extra_which_demo_then_finds(checkout: Path) -> None:
    recording_python(checkout)
    assert make(checkout, "test", "ARGS=--version").returncode == 0
    assert make(checkout, "demo", "ARGS=--limit 5").returncode == 0
    assert asked(checkout) == ["--editable .[dev]"]


def test_a_failed_installation_is_tried_again_the_next_time(checkout: Path) -> None:
    recording_python(checkout, works=False)
    assert make(checkout, "demo").returncode != 0
    recording_python(checkout)
    assert make(checkout, "demo", "ARGS=--limit 5").returncode == 0
    assert asked(checkout) == ["--editable .", "--editable ."]


def test_the_exit_code_of_the_demo_is_that_of_make(checkout: Path) -> None:
    recording_python(checkout)
    failed = make(checkout, "demo", "ARGS=--url mysql://x")
    assert failed.returncode != 0
    assert "mysql://x" in failed.stdout


def test_a_python_that_is_too_old_is_refused_with_what_to_do(checkout: Path) -> None:
    old = script(checkout / "old python", "exit 1")
    refused = make(checkout, "demo", f"PYTHON={old}")
    assert refused.returncode != 0
    assert f"detent needs Python 3.11 or newer, and {old} is not one." in refused.stderr
    assert "make PYTHON=" in refused.stderr
    assert not (checkout / ".venv").exists()


def test_the_venv_is_made_with_the_python_that_is_named(checkout: Path) -> None:
    venv = f"mkdir -p .venv/bin && cp {shlex.quote(str(recording_python(checkout / 'stock')))} .venv/bin/python"
    named = script(checkout / "my python", f'if [ "$1 $2 $3" = "-m venv .venv" ]; then {venv}; fi')
    made = make(checkout, "demo", f"PYTHON={named}", "ARGS=--limit 5")
    assert made.returncode == 0, made.stdout + made.stderr
    assert asked(checkout / "stock") == ["--editable ."]


def test_clean_leaves_the_databases(checkout: Path) -> None:
    recording_python(checkout)
    make(checkout, "demo", "ARGS=--limit 5")
    assert make(checkout, "clean").returncode == 0
    assert not (checkout / ".venv").exists()
    assert (checkout / ".detent/orders.db").exists()
    assert not list(checkout.rglob("__pycache__"))


def test_ci_runs_make_check_from_wherever_it_is_called(tmp_path: Path) -> None:
    called = script(tmp_path / "bin/make", 'echo "$PWD: make $*"')
    done = subprocess.run(
        [ROOT / ".ci/run"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{called.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{ROOT}: make check\n"
    assert done.returncode == 0
