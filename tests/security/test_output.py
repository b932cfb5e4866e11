"""What is printed: no text of a run forges a line of ours or commands the terminal, and no secret is shown."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from detent_infra.connect import connect, redacted
from detent_infra.ports import Backend, LogLine
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.start import NewRun
from detent_infra.sqlite import sqlite_backend
from detent_state_machine.definition import Definition, StepDefinition
from detent_state_machine.errors import ConfigurationError
from detent_state_machine.keys import run_key, step_key
from detent_state_machine.records import ErrorInfo, PastAttempt, history_json
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import PutItem, UpdateItem, Value
from hypothesis import given
from hypothesis import strategies as st

from tests.security.json_values import MANY
from tests.support.cli_project import Project

T = TypeVar("T")

FORGED = "FORGED"
EVIL = f"e\r\n{FORGED}\x1b[2J\x1b]0;title\x07\x9b31m\u202e\u2028{FORGED}\x00\x7f\u2066"
"""Ends our line and begins its own, clears the screen, names the window, turns the writing round."""
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
SECRET = "hunter2-s3cr3t"


@pytest.fixture
def project(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path, monkeypatch, capsys)


def done(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def forge(backend: Backend) -> str:
    """A failed run in which everything that can hold a text holds the evil one, its names too."""
    lifecycle = Lifecycle(backend)
    definition = Definition(
        name=f"w{EVIL}",
        description=EVIL,
        steps=(StepDefinition(name=f"s{EVIL}", description=EVIL), StepDefinition(name="t", parents=())),
    )
    new = NewRun(json.dumps({EVIL: EVIL}), key=f"k{EVIL}", metadata={f"m{EVIL}": EVIL})
    run_id = await lifecycle.start(definition, new)
    error = ErrorInfo(f"E{EVIL}", f"{EVIL}\n{FORGED}", f"Traceback\n{FORGED}\n{EVIL}")
    step: dict[str, Value] = {
        "v": 1, "status": "FAILED", "owner": "o", "inline": False, "started": 1, "ended": 2, "errors": 2,
        "error": error.to_json(),
        "history": history_json((PastAttempt(1, 2, EVIL), PastAttempt(1, 2, f"{FORGED}\n{EVIL}"))),
    }  # fmt: skip
    await backend.table.write(PutItem(step_key(run_id, StepPath(f"s{EVIL}")), step))
    failed: dict[str, Value] = {
        "status": "FAILED",
        "failed_step": f"s{EVIL}",
        "error": error.to_json(),
        "ended": backend.clock(),
    }
    await backend.table.write(UpdateItem(run_key(run_id), None, failed))
    fields = json.dumps({EVIL: EVIL, "more": [EVIL]})
    await backend.logs.append([LogLine(backend.clock(), f"I{EVIL}", f"{EVIL}\n{FORGED}", run_id, EVIL, 1, fields)])
    return run_id


COMMANDS = [
    "runs", "runs --json", "show last", "show last --json", "logs last", "logs last --json", "graph --list", "graph",
    "graph --mermaid", "graph --json", "doctor", "cancel last", "run nothing", "show nothing", "retry last --follow",
]  # fmt: skip


@pytest.mark.parametrize("command", [each for each in COMMANDS if "--follow" not in each])
def test_nothing_that_a_run_holds_forges_a_line_or_commands_the_terminal(project: Project, command: str) -> None:
    (project.path / "pyproject.toml").write_text("")
    backend = sqlite_backend(project.path / ".detent" / "detent.db")
    run_id = done(forge(backend))
    backend.close()
    result = project.call(*command.replace("last", run_id).split(), columns=100)
    text = result.out + result.err
    assert OBEYED.findall(text) == []
    assert [line for line in text.splitlines() if line.startswith(FORGED)] == []
    if "--json" in command:
        assert FORGED in json.dumps(json.loads(result.out), ensure_ascii=False)


@MANY
@given(st.text(st.characters(), max_size=60))
def test_json_output_is_the_value_whatever_it_holds(text: str) -> None:
    import contextlib
    import io

    from detent.cli.output import write_json

    class Utf8(io.StringIO):
        encoding = "utf-8"

    with contextlib.redirect_stdout(Utf8()) as out:
        write_json({text: text}, lines=True)
    assert json.loads(out.getvalue()) == {text: text}
    assert OBEYED.findall(out.getvalue()[:-1]) == []
    out.getvalue().encode()


def test_a_worker_on_a_terminal_prints_a_poisonous_message_as_text(project: Project) -> None:
    backend = sqlite_backend(project.path / ".detent" / "detent.db")
    poison = json.dumps({"v": 1, "kind": "drive", "run": f"r{EVIL}", "path": EVIL})
    done(backend.queue.send([poison, EVIL, json.dumps({"v": 9, "kind": EVIL})]))
    backend.close()
    with project.background("worker") as worker:
        text = worker.says("which is not stored")
        assert OBEYED.findall(text) == []
        assert [line for line in text.splitlines() if line.startswith(FORGED)] == []


# ---- secrets ------------------------------------------------------------------------------------------------------

SECRET_URLS = [
    f"postgres://user:{SECRET}@host/db",
    f"aws://user:{SECRET}@stack",
    f"aws://{SECRET}@stack?region=eu-west-1",
    f"aws://stack?token={SECRET}",
    f"aws://stack?{SECRET}",
    f"aws://stack?region=eu-west-1&endpoint=http://user:{SECRET}@localhost",
    f"aws://stack?region={SECRET}@",
    f"sqlite://user:{SECRET}@host/file.db",
    f"memory://user:{SECRET}@host",
    f"https://user:a/{SECRET}@host",
    f"aws://user:{SECRET}\u2100@stack",
    f"aws://[{SECRET}@",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_secret_in_a_url_is_not_repeated(project: Project, url: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError) as refused:
        connect(url)
    assert SECRET not in str(refused.value)
    for command in ("runs", "doctor", "doctor --json", "show last", "run hello", "graph --list"):
        result = project.call(*command.split(), "--url", url)
        assert SECRET not in result.out + result.err, command
    assert SECRET not in caplog.text


def test_a_url_without_a_secret_is_shown_as_it_is() -> None:
    for url in (
        "sqlite:////home/a@b/x.db", "sqlite:///.detent/detent.db", "memory://", "aws://shop", "aws://shop?region=eu-west-1",
        "aws://shop?region=eu-west-1&endpoint=http://localhost:4566",
    ):  # fmt: skip
        assert redacted(url) == url


def test_a_worker_does_not_show_the_secret_in_its_url(project: Project) -> None:
    url = f"aws://user:{SECRET}@stack"
    result = project.run("worker", "--url", url)
    assert result.code == 2
    assert SECRET not in result.out + result.err


def test_credentials_in_the_environment_are_in_no_error_and_in_no_log(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIA-hunter2-id",
        "AWS_SECRET_ACCESS_KEY": f"{SECRET}-key",
        "AWS_SESSION_TOKEN": f"{SECRET}-token",
        "AWS_ENDPOINT_URL": f"http://user:{SECRET}-endpoint@127.0.0.1:9",
        "SOME_PASSWORD": f"{SECRET}-other",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with caplog.at_level(logging.INFO):
        for command in ("doctor", "runs"):
            result = project.call(command, "--url", "aws://shop?region=us-east-1")
            assert result.code == 2
            assert "hunter2" not in result.out + result.err
    assert "hunter2" not in caplog.text


def test_the_functions_settings_show_no_value_of_the_environment() -> None:
    from detent_functions.settings import from_environment

    with pytest.raises(ConfigurationError) as missing:
        from_environment({"DETENT_QUEUE_URL": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET})
    assert SECRET not in str(missing.value)


def test_nothing_that_is_stored_is_decompressed() -> None:
    """A blob is what was put: no small one becomes a large one when it is read."""
    from tests.support.source_code import SHIPPED_MODULES, imported

    unpacking = {"bz2", "gzip", "lzma", "shutil", "tarfile", "zipfile", "zlib"}
    found = {str(path): unpacking & set(imported(path)) for path in SHIPPED_MODULES}
    allowed = {"infra/detent_infra/ops/doctor/backend_checks.py": {"shutil"}}  # for the free space of a disk
    packs = "infra/detent_infra/ops/packaging/"  # makes the Lambda folder; reads nothing that is stored
    refused = {path: names - allowed.get(path, set()) for path, names in found.items() if not path.startswith(packs)}
    assert {path: names for path, names in refused.items() if names} == {}
