"""`detent worker` and `detent dev`, and commands on a terminal: real processes, real signals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
from detent.cli.commands.dev import restart_pause

from tests.support.cli_project import PATIENCE, Project, command
from tests.support.waiting import until


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path, monkeypatch, capsys)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, project: Project, *arguments: str, columns: int = 60) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=project.path,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""

    def until(self, words: str) -> str:
        """What it has printed once these words are among it."""
        end = time.monotonic() + PATIENCE
        while words not in self.text:
            assert time.monotonic() < end, self.text
            self._read()
        return self.text

    def ended(self) -> int:
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text
            self._read()
        while self._read():
            pass
        os.close(self._master)
        return self.process.returncode

    def _read(self) -> bool:
        """Whether there was something to read."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return False
        try:
            read = os.read(self._master, 65_536)
        except OSError:  # Linux says so when the other side has closed.
            return False
        self.text += read.decode(errors="replace")
        return bool(read)


# ---- worker ---------------------------------------------------------------------------------------------------


def test_a_run_is_followed_to_its_end_while_a_worker_drives_it(project: Project) -> None:
    with project.background("worker") as worker:
        worker.says("detent worker: orders, hello on sqlite:///")
        result = project.run("run", "orders", '{"id": "a", "total": 2}', "--follow")
        assert (result.code, result.out) == (0, '"a for 2.0"\n')
        assert project.run("run", "orders", '{"id": "refused", "total": 2}', "--follow").code == 1
        assert project.run("retry", "last", "--follow").code == 1
        until(lambda: "a worker took our message" in project.call("doctor").out)  # a busy one may be late once
        assert worker.stop(signal.SIGTERM) == 0


def test_an_interrupted_worker_exits_with_130_and_says_nothing(project: Project) -> None:
    with project.background("worker") as worker:
        before = worker.says("Ctrl-C stops it.")
        assert worker.stop(signal.SIGINT) == 130
        assert worker.output.read_text() == before


def test_a_second_signal_does_not_wait_for_steps_in_progress(project: Project) -> None:
    project.call("run", "orders", '{"id": "slow", "total": 2}')

    def ended_by(signal_: signal.Signals) -> int | None:
        worker.process.send_signal(signal_)
        with suppress(subprocess.TimeoutExpired):
            return worker.process.wait(2)
        return None

    with project.background("worker", "--grace", "60") as worker:
        worker.says("Ctrl-C stops it.")
        until(lambda: _statuses(project)["charge"] == "RUNNING")
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        assert worker.process.poll() is None, "it waits for the step"
        # Once more where a busy worker came to see both at the same moment, and took them for one.
        assert until(lambda: ended_by(signal.SIGTERM)) == 128 + signal.SIGTERM


def test_following_without_a_worker_says_so_and_how_to_start_one(project: Project) -> None:
    with project.background("run", "orders", '{"id": "a"}', "--follow") as following:
        text = following.says("no worker seems to be running")
        assert "`detent worker`" in text
        with project.background("worker"):
            assert following.process.wait(PATIENCE) == 0


def _statuses(project: Project) -> dict[str, str]:
    run = project.call("show", "last", "--json").json
    assert isinstance(run, dict)
    return {each["step"]: each["status"] for each in run["steps"]}


# ---- dev ------------------------------------------------------------------------------------------------------


def test_dev_shows_what_happens_and_starts_afresh_when_the_code_changes(project: Project) -> None:
    source = project.path / "shop.py"
    with project.background("dev") as dev:
        text = dev.says("Ctrl-C stops.")
        assert "orders  reserve charge ship undo" in text
        project.call("run", "orders", '{"id": "flaky", "total": 2}')
        text = dev.says("run completed in")
        assert "· charge charging the card total=2.0" in text
        assert re.search(r"↻ charge attempt 1 failed, again in [\d.]+ m?s: ValueError: the card was refused\n", text)
        assert "✓ ship" in text

        source.write_text(source.read_text().replace('return "hello"', 'return "hello again"'))
        dev.says("shop.py changed: starting afresh.")
        dev.says("Ctrl-C stops.", 2)
        assert project.run("run", "hello", "--follow").out == '"hello again"\n'

        good = source.read_text()
        source.write_text(good + "x = (\n")
        assert "SyntaxError" in dev.says("Waiting for a change")
        source.write_text(good)
        dev.says("Ctrl-C stops.", 4)
        assert dev.stop(signal.SIGINT) == 130


LOUD = """
import logging, os, sys, threading

from detent import App

app = App("loud")
w = app.workflow("w", input=int)


@w.step
def f(n: int) -> int:
    print("one, ", end="")
    logging.getLogger("mine").warning("by logging")
    print("two\\nthree")
    thread = threading.Thread(target=lambda: print("of a thread"))
    thread.start()
    thread.join()
    sys.stderr.write("half on standard error")
    print("half a line", end="")
    return n
"""


def test_what_a_step_prints_under_dev_is_a_line_of_its_own_marked_as_the_step_s(project: Project) -> None:
    (project.path / "loud.py").write_text(LOUD)
    with project.background("dev", "--app", "loud:app") as dev:
        dev.says("Ctrl-C stops")
        project.run("run", "w", "1", "--app", "loud:app")
        text = dev.says("completed in")
        assert dev.stop(signal.SIGINT) == 130
    printed = [line.partition(" f │ ")[2] for line in text.splitlines() if " f │ " in line]
    assert printed[:3] == ["one, two", "three", "of a thread"]
    assert sorted(printed[3:]) == ["half a line", "half on standard error"]
    assert text.count("by logging") == 1


def test_dev_says_that_its_worker_was_killed_and_starts_another(project: Project) -> None:
    with project.background("dev") as dev:
        dev.says("Ctrl-C stops")
        [worker] = _children(dev.process.pid)
        os.kill(worker, signal.SIGKILL)
        dev.says("The worker process was killed (SIGKILL). Starting another.")
        dev.says("Ctrl-C stops", times=2)
        project.run("run", "hello")
        dev.says("completed in")
        assert dev.stop(signal.SIGTERM) == 0


def test_dev_starts_another_worker_at_once_and_after_a_growing_pause_if_it_keeps_ending() -> None:
    assert [restart_pause(ends) for ends in range(9)] == [0, 0, 0.5, 1, 2, 4, 8, 10, 10]


def test_dev_waits_for_a_change_if_the_app_ends_its_process_while_it_is_loaded(project: Project) -> None:
    """`os._exit` cannot be told by the process that it ends."""
    good = (project.path / "shop.py").read_text()
    (project.path / "shop.py").write_text("import os\nos._exit(0)\n")
    with project.background("dev") as dev:
        dev.says("ended with exit code 0 while it loaded the app")
        dev.says("Waiting for a change")
        (project.path / "shop.py").write_text("import sys\nsys.exit(0)\n")
        dev.says("(shop.py, line 2): SystemExit: 0.")
        (project.path / "shop.py").write_text(good)
        dev.says("Ctrl-C stops. ".strip(), times=3)
        assert dev.stop(signal.SIGTERM) == 0


def test_an_app_s_own_logging_outlasts_the_worker_s(project: Project) -> None:
    """As `../logs.md` says: neither side's lines are lost, and the commands set up nothing of the app's."""
    setup = "import logging; logging.basicConfig(level='INFO', filename='app.log')\n"
    body = LOUD.replace('.warning("by logging")', '.info("by logging")')
    (project.path / "own.py").write_text(setup + body)
    with project.background("worker", "--app", "own:app") as worker:
        worker.says("Ctrl-C stops")
        run = project.run("run", "w", "1", "--app", "own:app", "--follow")
        assert run.code == 0
        assert worker.stop(signal.SIGTERM) == 0
    assert "by logging" in (project.path / "app.log").read_text()
    assert "by logging" in project.run("logs", "last", "--app", "own:app").out


def test_dev_ends_with_its_parent(project: Project) -> None:
    with project.background("dev") as dev:
        dev.says("Ctrl-C stops.")
        (child,) = _children(dev.process.pid)
        dev.process.kill()
        dev.process.wait()
        until(lambda: _state(child) == "Z")


def test_dev_keeps_off_a_deployed_stack(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_URL", "aws://shop")
    with project.background("dev") as dev:
        assert "--url aws://shop if you mean it" in dev.says("Waiting for a change")
        assert dev.stop(signal.SIGTERM) == 0


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return "Z"


# ---- on a terminal --------------------------------------------------------------------------------------------


def test_on_a_terminal_what_is_at_work_stands_under_the_lines_and_the_result_comes_last(project: Project) -> None:
    terminal = Terminal(project, "run", "orders", '{"id": "flaky", "total": 2}', "--here")
    assert terminal.ended() == 0
    assert "\x1b[1A" in terminal.text, "the cursor goes up to draw in place"
    assert "run completed in" in terminal.text
    assert terminal.text.rstrip().endswith('"flaky for 2.0"')


def test_control_c_while_following_exits_with_130_and_no_trace(project: Project) -> None:
    terminal = Terminal(project, "run", "orders", '{"id": "slow", "total": 2}', "--follow")
    terminal.until("· reserve")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.ended() == 130
    assert "Traceback" not in terminal.text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l"), "the cursor is shown again"
