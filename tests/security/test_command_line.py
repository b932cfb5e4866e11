"""The command line, given anything: exit code 0, 1 or 2, one line on standard error, and no trace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.e2e.cli_project import Project, Result
from tests.security.json_values import FEW, HOSTILE, UNPRINTABLE, any_text, json_values


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


NOT_SERVED = ("dev", "worker", "dev-worker")
"""They work until they are stopped; what is wrong with their options is tried below."""
words = any_text.filter(lambda text: text not in NOT_SERVED and "\x00" not in text)
json_texts = (
    words | json_values.map(json.dumps) | st.sampled_from(["-", "@", "@/", "@missing", "@shop.py", "@.", "[" * 99_999])
)
options = st.one_of(
    st.builds(
        lambda name, value: [name, value],
        st.sampled_from(
            ["--key", "--metadata", "-m", "--status", "-s", "--since", "--limit", "-n", "-w", "--workflow", "--filter"]
        ),
        words,
    ),
    st.sampled_from([["--json"], ["--list"], ["--mermaid"], ["--help"], ["--version"], ["--"], ["-x"], [""]]),
    words.map(lambda word: [word]),
)
commands = st.one_of(
    st.builds(lambda name, text: ["run", name, text], st.sampled_from(["hello", "orders"]) | words, json_texts),
    st.builds(
        lambda command, run: [command, run],
        st.sampled_from(["show", "logs", "cancel", "retry"]),
        st.sampled_from(["last", *HOSTILE]) | words,
    ),
    st.builds(lambda command: [command], st.sampled_from(["runs", "graph", "run", "show", "logs", ""])),
    st.builds(lambda name: ["graph", name], words),
    st.lists(words, max_size=4),
)


def given_here(arguments: list[str]) -> bool:
    """Not what would work or wait until it is stopped, nor what would read this process's standard input."""
    return not {"--here", "--follow", "-f", "-"} & set(arguments) and arguments[:1] not in [
        [word] for word in NOT_SERVED
    ]


@settings(FEW, max_examples=150)
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
@given(
    st.builds(
        lambda command, more: [*command, *(word for each in more for word in each)],
        commands,
        st.lists(options, max_size=2),
    )
)
def test_any_arguments_are_obeyed_or_refused_in_one_line(project: Project, arguments: list[str]) -> None:
    if given_here(arguments):
        behaves(project.call(*arguments))


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
    assert json.loads(project.call("runs", "-w", "orders", "--json").out) == []
