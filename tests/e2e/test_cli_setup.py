"""The app and the backend a command is about, `graph`, `doctor`, and what is said when something is wrong."""

from __future__ import annotations

import inspect
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from detent.cli import main
from detent.cli.commands import COMMANDS, function_of

from tests.support.aws_stack import REGION, named_stack
from tests.support.cli_project import PATIENCE, Project, command


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path, monkeypatch, capsys)


def checks(project: Project, *arguments: str) -> dict[str, Any]:
    """The doctor's findings by name; of several with one name, the last."""
    result = project.call("doctor", "--json", *arguments)
    report: Any = result.json
    assert result.code == (0 if report["ok"] else 2)
    return {check["name"]: check for check in report["checks"]}


# ---- help -----------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_hides_none_but_its_own_tools(project: Project) -> None:
    result = project.run("--help")
    assert result.code == 0
    for name in ("dev", "worker", "run", "runs", "show", "logs", "cancel", "retry", "graph", "doctor"):
        assert f"\n  {name} " in result.out
    assert "dev-worker" not in result.out
    assert project.call().out == result.out.replace("python -m detent.cli", "detent")


def test_help_loads_neither_rich_nor_boto3(project: Project) -> None:
    loaded = "[name for name in ('rich', 'boto3') if name in sys.modules]"
    code = f"import sys; from detent.cli import main; main(['--help']); print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith("[]\n")


def test_a_command_that_is_called_is_the_only_one_that_is_loaded() -> None:
    loaded = "[name for name in sys.modules if name.startswith('detent.cli.commands.')]"
    code = f"import sys; from detent.cli import main; main(['runs', '--help']); print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith("['detent.cli.commands.runs']\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_begins_with_the_line_of_the_table(name: str) -> None:
    first, _, _ = (inspect.getdoc(function_of(name)) or "").partition("\n\n")
    assert first == COMMANDS[name].help


def test_the_sdk_does_not_load_the_command_line() -> None:
    code = "import sys, detent; print([name for name in ('detent.cli', 'typer', 'rich') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bogus",), "No such command 'bogus'"),
        (("runs", "--bogus"), "--bogus"),
        (("show",), "detent show --help"),
        (("worker", "--concurrency", "0"), "--concurrency"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(project: Project, arguments: tuple[str, ...], said: str) -> None:
    project.call(*arguments).refused(said)


def test_a_reader_that_goes_away_is_no_error_message(project: Project) -> None:
    for number in range(3):
        project.call("run", "orders", f'{{"id": "{number}"}}')
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command("runs", "--json"), cwd=project.path, stdout=writer, stderr=subprocess.PIPE, timeout=PATIENCE
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"the module prints\n")


# ---- app and url ----------------------------------------------------------------------------------------------


def test_the_app_is_named_by_option_then_environment_then_pyproject(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks(project)["app"]["message"] == "shop:app (from pyproject.toml), named 'shop'"
    monkeypatch.setenv("DETENT_APP", "shop:app")
    assert "(from DETENT_APP)" in checks(project)["app"]["message"]
    assert "(from --app)" in checks(project, "--app", "shop:app")["app"]["message"]


def test_the_url_is_the_option_s_then_the_app_s_then_the_environment_s(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_URL", "sqlite:///env.db")
    own = (project.path / "shop.py").read_text().replace('App("shop")', 'App("shop", url="sqlite:///own.db")')
    (project.path / "shop.py").write_text(own)
    assert checks(project)["url"]["message"] == "sqlite:///own.db (from app 'shop')"
    assert checks(project, "--url", "sqlite:///x.db")["url"]["message"] == "sqlite:///x.db (from --url)"
    (project.path / "pyproject.toml").unlink()
    assert checks(project)["url"]["message"] == "sqlite:///env.db (from DETENT_URL)"


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("shop", "module:attribute"),
        ("shop.py:app", "module:attribute"),
        ("nowhere:app", "no module 'nowhere'"),
        ("shop:missing", "It has 'app'."),
        ("shop:orders", "is a Workflow, not an App"),
    ],
)
def test_an_app_that_is_not_there_is_told(project: Project, app: str, said: str) -> None:
    project.call("graph", "orders", "--app", app).refused(said)


def test_a_module_that_fails_is_told_with_its_line(project: Project) -> None:
    (project.path / "shop.py").write_text("\n\nraise ValueError('no key')\n")
    project.call("worker").refused("shop.py, line 3", "ValueError: no key. `python -c")
    (project.path / "shop.py").write_text("from detent import Retry\nRetry(attempt=3)\n")
    project.call("worker").refused("shop.py, line 2", "no option 'attempt'. Did you mean 'attempts'? `python -c")
    (project.path / "shop.py").write_text("import missing_package\n")
    project.call("worker").refused("imports 'missing_package'")
    (project.path / "shop.py").write_text("x = (\n")
    project.call("worker").refused("shop.py, line 1", "SyntaxError")


def test_a_worker_needs_an_app_with_workflows(project: Project) -> None:
    (project.path / "shop.py").write_text("from detent import App\napp = App('empty')\n")
    project.call("worker").refused("declares no workflow")
    (project.path / "pyproject.toml").write_text("[tool.detent]\napp = 3\n")
    project.call("worker").refused("not text")
    (project.path / "pyproject.toml").unlink()
    project.call("worker").refused("No app is named")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x", "not the URL of a backend"),
        ("memory://", "one process"),
        ("sqlite:///missing.db", "no database"),
        ("sqlite:///shop.py", "not a database"),
    ],
)
def test_a_backend_that_cannot_be_used_is_told_by_commands_that_only_look(
    project: Project, url: str, said: str
) -> None:
    for name in (("runs",), ("show", "last"), ("logs", "last"), ("cancel", "x"), ("retry", "x")):
        project.call(*name, "--url", url).refused(said)
    assert sorted(path.name for path in project.path.iterdir() if path.suffix == ".db") == []


def test_an_unreachable_endpoint_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    url = "aws://shop?region=us-east-1&endpoint=http://127.0.0.1:9"
    project.call("runs", "--url", url).refused("127.0.0.1")
    assert checks(project, "--url", url)["backend"]["verdict"] == "fail"


# ---- graph ----------------------------------------------------------------------------------------------------


def test_graph_draws_the_app_s_workflow(project: Project) -> None:
    result = project.run("graph", "orders")
    assert result.code == 0
    assert "│ reserve │" in result.out
    assert project.call("graph", "orders", "--mermaid").out.startswith("flowchart TD\n")
    definition: Any = project.call("graph", "orders", "--json").json
    assert [step["name"] for step in definition["steps"]] == ["reserve", "charge", "ship", "undo"]
    assert definition["version"]


def test_graph_lists_the_workflows_and_asks_which_one(project: Project) -> None:
    listed: Any = project.call("graph", "--list", "--json").json
    assert [entry["workflow"] for entry in listed] == ["hello", "orders"]
    assert "Reserve, charge and ship." in project.call("graph", "--list").out
    project.call("graph").refused("hello, orders")
    project.call("graph", "ordrs").refused("Did you mean 'orders'?")


def test_graph_without_an_app_draws_what_is_registered(project: Project) -> None:
    project.call("run", "orders", '{"id": "a"}')
    with_app = project.call("graph", "orders").out
    (project.path / "pyproject.toml").unlink()
    assert project.call("graph").out == with_app, "there is only one, so it need not be named"


# ---- doctor ---------------------------------------------------------------------------------------------------


def test_the_doctor_makes_no_database(project: Project) -> None:
    assert "does not exist yet" in checks(project)["database"]["message"]
    assert not (project.path / ".detent").exists()


def test_the_doctor_checks_a_database_and_leaves_nothing_behind(project: Project) -> None:
    project.call("run", "hello", "--here")
    before = _contents(project)
    found = checks(project)
    assert {name for name, check in found.items() if check["verdict"] != "ok"} == {"worker"}
    assert "detent worker" in found["worker"]["fix"]
    assert "write-ahead log" in found["database"]["message"]
    assert _contents(project) == before
    assert project.run("doctor").out.splitlines()[-2].startswith("warn  worker")


@pytest.mark.parametrize("columns", [40, 160])
def test_the_doctor_s_lines_fit_and_end_without_spaces(columns: int, project: Project) -> None:
    lines = project.call("doctor", columns=columns).out.splitlines()
    assert all(line == line.rstrip() and len(line) <= columns for line in lines)
    assert "thefirstrunorworkermakesit." in "".join("".join(lines).split())


def test_the_doctor_leaves_the_messages_of_others(project: Project) -> None:
    for number in range(3):
        project.call("run", "orders", f'{{"id": "{number}"}}')
    before = _contents(project)
    found = checks(project)
    assert (found["queue"]["verdict"], found["worker"]["verdict"]) == ("ok", "warn")
    assert _contents(project) == before
    assert before["visible messages"] == 3


def test_the_doctor_finds_what_is_wrong(project: Project) -> None:
    assert checks(project, "--app", "nowhere:app")["backend"]["verdict"] == "fail"
    assert checks(project, "--url", "ftp://x")["backend"]["verdict"] == "fail"
    assert checks(project, "--url", "sqlite:///shop.py/x.db")["database"]["verdict"] == "fail"
    assert "not a database" in checks(project, "--url", "sqlite:///shop.py")["backend"]["message"]
    broken = '\n@hello.step(after=["nowhere"])\ndef more() -> None: ...\n'
    with (project.path / "shop.py").open("a") as module:
        module.write(broken)
    result: Any = project.call("doctor", "--json").json
    assert [check["verdict"] for check in result["checks"] if check["name"] == "workflows"] == ["ok", "fail"]


def test_a_damaged_database_is_told_and_is_no_empty_one(project: Project) -> None:
    project.call("run", "hello", "--here")
    assert checks(project)["integrity"]["verdict"] == "ok"
    file = project.path / ".detent" / "detent.db"
    data = bytearray(file.read_bytes())
    for place in range(4096, len(data), 50):
        data[place] ^= 0xFF
    file.write_bytes(data)
    found = checks(project)
    assert found["integrity"]["verdict"] == "fail"
    assert "detent.db is damaged: " in found["integrity"]["message"]
    assert "restore a backup" in found["integrity"]["fix"]
    assert not {"table", "queue", "worker"} & found.keys(), "nothing is asked of a damaged file, or written to it"
    assert file.read_bytes() == data
    project.call("runs").refused("is damaged", "restore a backup")
    project.call("runs", "--json").refused("is damaged")
    project.call("show", "last").refused("is damaged")


def test_the_doctor_does_not_read_a_huge_database_through(project: Project) -> None:
    project.call("run", "hello", "--here")
    with (project.path / ".detent" / "detent.db").open("r+b") as file:
        file.truncate(1_000_001_536)  # a hole: it takes no space
    found = checks(project)["integrity"]
    assert found["verdict"] == "skip"
    assert found["command"].startswith("sqlite3 ")
    assert "PRAGMA quick_check" in found["command"]


def test_the_doctor_reaches_every_part_of_a_stack(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with named_stack("shop") as resources:
        code = main(["doctor", "--json", "--url", f"aws://shop?region={REGION}"])
        report = json.loads(capsys.readouterr().out)
        found = {check["name"]: check["verdict"] for check in report["checks"]}
        assert (code, report["ok"]) == (0, True)
        assert [found[name] for name in ("table", "table write", "blobs", "logs", "queue")] == ["ok"] * 5
        items = boto3.client("dynamodb").scan(TableName=resources.table)["Items"]
        assert items == []


def _contents(project: Project) -> dict[str, int]:
    connection = sqlite3.connect(project.path / ".detent" / "detent.db")
    try:
        tables = ("items", "messages", "blobs", "logs")
        found = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
        now = int(time.time() * 1000)
        (visible,) = connection.execute("SELECT count(*) FROM messages WHERE visible <= ?", (now,)).fetchone()
        return {**found, "visible messages": visible}
    finally:
        connection.close()
