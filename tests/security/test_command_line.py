"""The command line, given anything: exit code 0, 1 or 2, one line on standard error, and no trace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from detent.cli.commands import COMMANDS as TABLE
from detent.cli.commands import command_line
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.security.json_values import FEW, HOSTILE, UNPRINTABLE, any_text, json_values
from tests.support.cli_project import Project, Result


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    project = Project(tmp_path, monkeypatch, capsys)
    assert project.call("run", "hello", "--here").code == 0
    return project


def behaves(result: Result) -> None:
    assert result.code in (0, 1, 2), result
    assert "Traceback" not in result.err
    assert "Traceback" not in result.out
    lines = result.err.removeprefix("the module prints\n").splitlines()
    if result.code:
        assert len(lines) == 1, result.err
        assert lines[0].startswith("detent: ")
        assert lines[0].isprintable()
        assert len(lines[0]) < 20_000


_group = typer.main.get_command(command_line(TABLE))
assert isinstance(_group, typer.core.TyperGroup)
COMMANDS = _group.commands
NOT_SERVED = ("dev", "worker", "dev-worker")
"""They work until they are stopped; what is wrong with their options is tried below."""
UNENDING = {"--here", "--follow", "-f", "-"}
"""What would work or wait until it is stopped, or would read this process's standard input."""
words = any_text.filter(lambda text: text not in NOT_SERVED and "\x00" not in text)
json_texts = (
    words | json_values.map(json.dumps) | st.sampled_from(["-", "@", "@/", "@missing", "@shop.py", "@.", "[" * 99_999])
)
folders = words.filter(lambda text: "/" not in text)
"""Places in the project: what is made must not lie about outside of it."""
numbers = st.sampled_from(["0", "1", "-1", "128", "9" * 5_000, "1e9", "3.12"])
runs_named = st.sampled_from(["last", *HOSTILE]) | words

Words = st.SearchStrategy[list[str]]
ARGUMENTS: dict[str, Words] = {
    "cancel": st.tuples(runs_named).map(list),
    "cost": st.lists(runs_named, max_size=1),
    "dead": st.tuples(words).map(list),
    "deploy": st.sampled_from([["--yes"], ["--yes", "--stack", "shop"]]),
    "doctor": st.just([]),
    "failed-starts": st.just([]),
    "graph": st.lists(words, max_size=1),
    "init": st.lists(folders, min_size=1, max_size=1),
    "logs": st.lists(runs_named, max_size=1),
    "package": st.just([]),
    "publish": st.tuples(words, json_texts).map(list),
    "retry": st.tuples(runs_named).map(list),
    "run": st.tuples(st.sampled_from(["hello", "orders"]) | words, json_texts).map(list),
    "runs": st.just([]),
    "send": st.tuples(st.sampled_from(["inbox", "inbox.fifo"]) | words, json_texts).map(list),
    "show": st.tuples(runs_named).map(list),
    "why": st.tuples(runs_named).map(list),
}
"""Every command that ends by itself, with its arguments."""


def option(command: str) -> Words:
    """One of the command's own options, with a value that it may not expect; sometimes one of another command."""
    own = [name for parameter in COMMANDS[command].params for name in parameter.opts if name[:1] == "-"]
    value = folders if command == "package" else words
    return st.one_of(
        st.tuples(st.sampled_from([*own, "--help"]), value | numbers | st.sampled_from(["1h", "debug", "a=b"])).map(
            list
        ),
        st.sampled_from([*own, "--version", "--", "-x", ""]).map(lambda name: [name]),
        value.map(lambda word: [word]),
    )


def line(command: str) -> Words:
    more = st.lists(option(command), max_size=3).map(lambda found: [word for each in found for word in each])
    return st.builds(lambda given, options: [command, *given, *options], ARGUMENTS[command], more)


def given_here(arguments: list[str]) -> bool:
    return not UNENDING & set(arguments) and arguments[:1] not in [[word] for word in NOT_SERVED]


@pytest.fixture
def far_from_aws(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Nothing that is meant for AWS gets there, and no package index is asked: there is no uv."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setattr("sys.executable", str(project.path / "bin/python"))
    monkeypatch.setenv("PATH", str(project.path))
    (project.path / "template.yaml").write_text(
        "Parameters: {App: {Type: String}}\n"
        "Globals: {Function: {Runtime: python3.12, Architectures: [arm64]}}\n"
        "Resources: {Worker: {Type: 'AWS::Serverless::Function', Properties: {CodeUri: build/lambda}}}\n"
    )
    return project


def test_every_command_is_given_anything() -> None:
    assert {*ARGUMENTS, *NOT_SERVED} == COMMANDS.keys(), "a command without arguments to try it with"


@pytest.mark.parametrize("command", ARGUMENTS)
@settings(FEW, max_examples=15)
@given(data=st.data())
def test_any_options_of_a_command_are_obeyed_or_refused_in_one_line(
    far_from_aws: Project, command: str, data: st.DataObject
) -> None:
    arguments = data.draw(line(command).filter(given_here))
    result = far_from_aws.call(*arguments)
    if command == "doctor" and result.out:
        assert result.code in (0, 2)
        assert "Traceback" not in result.out + result.err
    else:
        behaves(result)


@settings(FEW, max_examples=40)
@example(["show", "\udcff"])
@example(["run", "\udcff", "1"])
@example(["run", "hello", "--key", "\udcff"])
@example(["logs", "last", "--filter", "\udcff"])
@example(["runs", "-m", "\udcff=\udcff"])
@example(["runs", "-w", "\udcff"])
@example(["runs", "--limit", "9" * 5_000])
@example(["runs", "--since", "9" * 5_000 + "d"])
@example(["run", "hello", "@" + "x" * 5_000])
@example(["run", "orders", '{"id": ' + "9" * 5_000 + "}"])
@example(["logs", "--until", "9" * 5_000 + "d"])
@example(["logs", "last", "--step", "\udcff"])
@example(["logs", "-w", "\udcff"])
@example(["dead", "\udcff"])
@example(["send", "\udcff", "1", "--id", "\udcff", "--attribute", "\udcff=\udcff"])
@example(["cost", "-w", "\udcff"])
@example(["package", "--out", "\udcff", "--architecture", "\udcff"])
@example(["init", "\udcff"])
@given(st.lists(words, max_size=4))
def test_any_words_are_obeyed_or_refused_in_one_line(far_from_aws: Project, arguments: list[str]) -> None:
    if given_here(arguments):
        behaves(far_from_aws.call(*arguments))


URLS = [
    "", ":", "://", "sqlite://", "sqlite:///", "sqlite:///.", "sqlite:///..", "sqlite:///\x00", "sqlite:///shop.py",
    "sqlite:///" + "x" * 5_000, "sqlite:///a?b", "sqlite:///\udcff.db", "sqlite:////proc/none/x.db", "memory://", "memory://x",
    "aws://", "aws://a b", "aws://x?region", "aws://x?region=%00", "aws://u:p@x", "aws://x/y", "aws://[", "aws://x?a=b",
    "http://x", "file:///etc/passwd", "postgres://u:p@h/d", "SQLITE:///x", "sqlite:///pyproject.toml", "aws://x:99999",
]  # fmt: skip


@settings(FEW, max_examples=40)
@given(
    st.sampled_from(["--url", "DETENT_URL"]),
    st.sampled_from(["runs", "show last", "doctor", "graph --list"]),
    st.builds(
        lambda scheme, rest: scheme + rest.replace("/", ""),
        st.sampled_from(["sqlite:///", "sqlite://", "", "x://", "aws:///"]),
        words,
    ),
)
def test_any_url_is_used_or_refused(project: Project, where: str, command: str, url: str) -> None:
    tries_url(project, where, command, url)


@pytest.mark.parametrize("where", ["--url", "DETENT_URL"])
def test_every_kind_of_wrong_url_is_refused(project: Project, where: str) -> None:
    for url in URLS:
        tries_url(project, where, "runs", url)
        tries_url(project, where, "doctor", url)


def tries_url(project: Project, where: str, command: str, url: str) -> None:
    arguments = command.split()
    with pytest.MonkeyPatch.context() as patch:
        if where == "--url":
            arguments += ["--url", url]
        elif "\x00" in url:
            return  # no environment can hold it
        else:
            (project.path / "pyproject.toml").write_text("")
            patch.setenv(
                "DETENT_URL", os.fsdecode(os.fsencode(url) if url.isascii() else url.encode("utf-8", "replace"))
            )
        result = project.call(*arguments)
    if command == "doctor":
        assert result.code in (0, 2)
        assert result.err.removeprefix("the module prints\n") == ""
        assert "Traceback" not in result.out
    else:
        behaves(result)


NO_APPS = [
    ":", "a", "a:", ":b", "shop:", "shop:nothing", "shop:orders", "..:x", ".:x", "../shop:app",
    "shop.py:app", "os:path", "json:dumps", "\udcff:x", "é:x", "a" * 3_000 + ":x", "shop:__class__.__mro__",
    "shop:app.app",
]  # fmt: skip


@pytest.mark.parametrize("command", ["worker", "runs", "doctor", "graph"])
def test_an_app_that_is_none_is_refused_in_one_line(project: Project, command: str) -> None:
    for app in (*NO_APPS, *UNPRINTABLE):
        if "\x00" in app:
            continue  # no argument can hold it
        result = project.call(*command.split(), "--app", app)
        if command == "doctor":
            assert result.code == 2
            assert "Traceback" not in result.out + result.err
        else:
            behaves(result)
            assert result.code == 2


@pytest.mark.parametrize(
    "text", ["\x00", "[", "[tool.detent]\napp = 5", "a = '\x07'", "[tool]\ndetent = 1", 'app = "x"' * 9_000]
)
def test_a_project_file_that_is_broken_is_told_in_one_line(project: Project, text: str) -> None:
    (project.path / "pyproject.toml").write_text(text)
    behaves(project.call("runs"))
    (project.path / "pyproject.toml").write_bytes(b"\xff\xfe")
    behaves(project.call("runs"))


def test_a_file_of_input_that_is_a_bomb_is_refused(project: Project) -> None:
    for number, text in enumerate(("[" * 1_000_000, "9" * 1_000_000, '{"id": "' + "x" * 70_000_000 + '"}')):
        (project.path / f"bomb{number}.json").write_text(text)
        result = project.call("run", "orders", f"@bomb{number}.json")
        behaves(result)
        assert result.code == 2
    assert json.loads(project.call("runs", "-w", "orders", "--json").out)["runs"] == []
