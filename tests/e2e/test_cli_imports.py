"""What an author's module does while a command imports it is told on one line, with file and line, and exit code 2."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from detent.cli import app_import

from tests.support.cli_project import PATIENCE, Project, command
from tests.support.waiting import until

HELLO = """
from detent import App

app = App("late")
w = app.workflow("w", input=int)


@w.step
def f(n: int) -> int:
    return n
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("import sys\nsys.exit(0)", 2, "SystemExit: 0."),
        ("import sys\nsys.exit('no license')", 2, "SystemExit: no license."),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt."),
        ("import asyncio\nraise asyncio.CancelledError('x')", 2, "CancelledError: x."),
        ("class Stop(BaseException): ...\nraise Stop('two\\nlines')", 2, "Stop: two lines."),
        ("raise BaseExceptionGroup('all', [SystemExit(1)])", 1, "BaseExceptionGroup: all (1 sub-exception)."),
        (
            "class Odd(Exception):\n    def __str__(self): raise OSError\nraise Odd",
            3,
            "Odd: (its message cannot be shown",
        ),
        ("import warnings\nwarnings.warn('old')", 2, "UserWarning: old."),
        ("import asyncio\nasyncio.run(asyncio.sleep(0))\n1 / 0", 3, "ZeroDivisionError: division by zero."),
        ("import threading\nthreading.Thread(target=print, args=('t',)).start()\n1 / 0", 3, "ZeroDivisionError"),
        ("import sys\nsys.stdout.close()\nsys.stderr.close()\n1 / 0", 4, "ZeroDivisionError"),
        ("raise ModuleNotFoundError('odd')", 1, "ModuleNotFoundError: odd."),
        ("import nowhere_at_all", 1, "imports 'nowhere_at_all', which is not there"),
        ("import json\n\napp = (", 3, "SyntaxError: '(' was never closed."),
        ("x = '\udcff'", None, "SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xff"),
        ("x = 1\0", None, "null bytes"),
    ],
)
def test_what_a_module_raises_is_one_line_with_file_and_line(
    source: str, line: int | None, said: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.path / "odd.py").write_bytes(source.encode("utf-8", "surrogateescape"))
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    result = project.call("run", "orders", "1", "--app", "odd:app")
    told = [each for each in result.err.splitlines() if each.startswith("detent: ")]
    assert (result.code, result.out, len(told)) == (2, "", 1), result
    assert said in told[0]
    assert f"(odd.py, line {line})" in told[0] if line else "(odd.py" in told[0] or "null bytes" in told[0]


def test_half_a_line_that_a_module_prints_does_not_hide_the_error(project: Project) -> None:
    (project.path / "half.py").write_text("import sys\nprint('loading', end='')\nsys.stderr.write(' … ')\n1 / 0\n")
    err = project.call("runs", "--app", "half:app").err
    assert err.splitlines()[-1].startswith("detent: App 'half:app'")


@pytest.mark.parametrize("app", ["uuid:app", "queue.workflows:app", "types:app"])
def test_an_app_with_the_name_of_python_s_own_module_is_told(app: str, project: Project) -> None:
    (project.path / "uuid.py").write_text(HELLO)
    project.call("graph", "--app", app).refused("Python's own module", "Rename")


def test_a_failing_import_names_a_file_beside_it_that_hides_python_s_own_module(project: Project) -> None:
    (project.path / "queue.py").write_text("")
    (project.path / "odd.py").write_text("raise AttributeError(\"module 'queue' has no attribute 'Queue'\")")
    sys.modules.pop("odd", None)
    project.call("graph", "--app", "odd:app").refused("odd.py, line 1", "queue.py", "rename")


def test_an_attribute_that_cannot_be_read_is_told(project: Project) -> None:
    (project.path / "odd.py").write_text("def __getattr__(name): raise RuntimeError('lazy')")
    sys.modules.pop("odd", None)
    project.call("graph", "--app", "odd:app").refused("RuntimeError: lazy")


def test_a_module_that_changes_the_directory_is_told_and_its_database_is_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.path / "data").mkdir()
    (project.path / "moving.py").write_text(f"import os\nos.chdir('data')\n{HELLO}")
    done = project.run("run", "w", "1", "--app", "moving:app")
    assert done.code == 0
    assert f"changed the directory to {project.path / 'data'}" in done.err
    assert (project.path / "data/.detent/detent.db").exists()
    (project.path / "gone.py").write_text("import os, tempfile\nwith tempfile.TemporaryDirectory() as d: os.chdir(d)\n")
    project.call("run", "w", "1", "--app", "gone:app").refused("a directory that is gone")


def test_an_import_that_takes_long_is_told_with_the_line_that_it_is_at(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app_import.SLOW == 10.0
    monkeypatch.setattr(app_import, "SLOW", 0.1)
    source = (
        "import threading, time\n"
        "while any(isinstance(each, threading.Timer) for each in threading.enumerate()):\n"
        "    time.sleep(0.01)\n"
    )
    (project.path / "slow.py").write_text(source + HELLO)
    monkeypatch.delitem(sys.modules, "slow", raising=False)
    result = project.call("graph", "--app", "slow:app")
    assert result.code == 0
    assert re.search(r"App 'slow:app' .* is still being imported after 0.1 s \(slow.py, line [23]\)", result.err)


def test_threads_that_a_module_starts_keep_no_command_from_ending(project: Project) -> None:
    (project.path / "busy.py").write_text(
        f"import threading\nthreading.Thread(target=threading.Event().wait).start()\n{HELLO}"
    )
    done = project.run("graph", "--app", "busy:app")
    assert (done.code, "f" in done.out) == (0, True)


# ---- streams --------------------------------------------------------------------------------------------------


def shell(project: Project, text: str) -> int:
    """The exit code of a shell's line, in which `detent` is the command."""
    named = f'detent() {{ {shlex.join(command())} "$@"; }}\n{text}'
    done = subprocess.run(["bash", "-c", named], cwd=project.path, timeout=PATIENCE, check=False)
    return done.returncode


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "detent runs > /dev/full 2> err; rc=$?; grep -q 'No space' err && ! grep -q Traceback err && exit $rc",
            2,
        ),
        ("detent runs --json > /dev/full 2> /dev/full", 2),
        ("detent runs >&- 2> err; rc=$?; [ ! -s err ] && exit $rc", 0),
        ("detent runs 2>&- >&-", 0),
        ("detent nothing 2> /dev/full", 2),
        ("detent runs --limit 0 2>&-", 2),
        ("detent logs 2>/dev/null | true; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_a_stream_that_is_closed_or_full_ends_a_command_cleanly(text: str, code: int, project: Project) -> None:
    project.call("run", "hello")
    (project.path / "shop.py").write_text(
        (project.path / "shop.py").read_text().replace('print("the module prints")', "")
    )
    assert shell(project, text) == code


@pytest.mark.parametrize("streams", ["> /dev/full 2> /dev/full", ">&- 2>&-", "> fifo 2>&1"])
def test_a_worker_goes_on_whoever_reads_its_output(streams: str, project: Project) -> None:
    loud = HELLO.replace("return n", "print('x' * 100_000); import sys; print('y', file=sys.stderr); return n")
    (project.path / "loud.py").write_text(loud)
    os.mkfifo(project.path / "fifo")
    reader = os.open(project.path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    line = f"exec {shlex.join(command('worker', '--app', 'loud:app'))} {streams}"
    worker = subprocess.Popen(["bash", "-c", line], cwd=project.path)
    try:
        if "fifo" in streams:
            until(lambda: readable(reader))
        os.close(reader)  # as `head` does once it has what it wants
        for number in range(2):
            done = project.run("run", "w", str(number), "--app", "loud:app", "--follow")
            assert (done.code, done.out) == (0, f"{number}\n"), done
        assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait()


def readable(descriptor: int) -> bool:
    try:
        return bool(os.read(descriptor, 1))
    except BlockingIOError:
        return False
