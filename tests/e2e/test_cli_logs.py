"""`detent logs`: the story of a run, of its retries, of all runs; chosen, followed, cut, and fit for programs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from detent_infra.ports import LogLine
from detent_infra.sqlite import sqlite_backend

from tests.support.aws_stack import REGION, Answer, answering, named_stack
from tests.support.cli_project import PATIENCE, Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path, monkeypatch, capsys)


def ended(project: Project, id: str) -> str:
    """A run that has ended; its id."""
    project.call("run", "orders", f'{{"id": "{id}", "total": 2.0}}', "--here")
    listed: Any = project.call("runs", "--json").json
    runs = listed["runs"]
    return str(runs[0]["run_id"])


def told(project: Project, *arguments: str) -> list[tuple[str, str, int | None]]:
    lines: list[Any] = project.call("logs", *arguments, "--json").json_lines
    return [(line["engine"] or line["message"], line["step"], line["attempt"]) for line in lines]


STORY = [
    ("run_started", None, None),
    ("step_completed", "reserve", 1),
    ("charging the card", "charge", 1),
    ("step_retrying", "charge", 1),
    ("step_started", "charge", 2),
    ("charging the card", "charge", 2),
    ("step_completed", "charge", 2),
    ("step_completed", "ship", 1),
    ("run_completed", None, None),
]


def test_the_log_of_a_run_is_its_story(project: Project) -> None:
    run = ended(project, "flaky")
    assert told(project, run) == STORY
    text = project.run("logs", run).out
    assert re.search(r"WARN  charge attempt 1 failed, again in \d+ ms: ValueError: the card was\n    refused\n", text)
    assert re.search(r"INFO  charge \(2\) charging the card total=2\.0\n", text)
    assert "engine" not in text
    assert all(not line.endswith(" ") for line in text.splitlines()), "no trailing noise in a pipe"


def test_lines_name_their_workflow_and_the_worker_that_wrote_them(project: Project) -> None:
    ended(project, "a")
    lines: list[Any] = project.call("logs", "last", "--json").json_lines
    names = ["time", "level", "message", "run_id", "workflow", "step", "attempt", "worker"]
    assert list(lines[0]) == [*names, "request_id", "trace_id", "engine", "attempt_over", "fields"]
    assert {(line["workflow"], line["worker"]) for line in lines} == {
        ("orders", f"{os.uname().nodename}-{os.getpid()}")
    }
    assert {line["request_id"] for line in lines} == {None}
    assert lines[-1]["fields"]["duration_ms"] >= 0


def test_a_step_a_level_and_a_time_choose_lines(project: Project) -> None:
    run = ended(project, "flaky")
    assert told(project, run, "--step", "charge") == [line for line in STORY if line[1] == "charge"]
    assert told(project, run, "--level", "warning") == [("step_retrying", "charge", 1)]
    assert told(project, run, "--filter", "{ $.engine NOT EXISTS && $.attempt > 1 }") == [STORY[5]]
    assert told(project, run, "--until", "1h") == []
    assert told(project, run, "--since", "1h", "--until", "2099-01-01") == STORY


def test_all_runs_are_read_without_a_run(project: Project) -> None:
    one, two = ended(project, "a"), ended(project, "b")
    project.call("run", "hello", "--here")
    lines: list[Any] = project.call("logs", "--json").json_lines
    assert {line["run_id"] for line in lines} > {one, two}
    orders: list[Any] = project.call("logs", "--workflow", "orders", "--json").json_lines
    assert {line["run_id"] for line in orders} == {one, two}
    assert project.call("logs", "--step", "charge", columns=160).out.count("charging the card") == 2
    assert one in project.call("logs", columns=160).out
    narrow = project.call("logs", columns=50).out
    assert one not in narrow
    assert one[-6:] in narrow
    assert not re.search(r"\d:\d\d\.\d{3}", narrow), "a narrow terminal has no room for milliseconds"


def test_the_retries_of_a_run_are_read_with_it(project: Project) -> None:
    old = ended(project, "refused")
    new = project.call("retry", old).out.strip()
    with project.background("logs", new, "--follow") as following, project.background("worker"):
        following.says("run failed")
    both: list[Any] = project.call("logs", old, "--children", "--json").json_lines
    assert {line["run_id"] for line in both} == {old, new}
    assert [line["message"] for line in both if line["engine"] == "run_started"] == [
        "run started",
        f"run started, a retry of {old}",
    ]
    alone: list[Any] = project.call("logs", old, "--json").json_lines
    assert {line["run_id"] for line in alone} == {old}


def test_a_log_that_is_cut_says_so_and_one_that_is_whole_does_not(project: Project) -> None:
    ended(project, "a")
    whole = len(project.call("logs", "last").out.splitlines())
    cut = project.call("logs", "last", "--limit", str(whole - 1))
    assert len(cut.out.splitlines()) == whole - 1
    assert f"Stopped after the first {whole - 1} lines." in cut.err
    on = re.search(r"--since (\S+)\.", cut.err)
    assert on is not None
    rest: list[Any] = project.call("logs", "last", "--since", on[1], "--json").json_lines
    assert rest[-1]["engine"] == "run_completed"
    assert len(rest) < whole
    assert "Stopped" not in project.call("logs", "last", "--limit", str(whole)).err


def test_what_makes_no_sense_is_refused_in_one_line(project: Project) -> None:
    ended(project, "a")
    project.call("logs", "last", "--step", "chrage").refused("no step 'chrage'", "Did you mean 'charge'?")
    project.call("logs", "last", "--level", "loud").refused("'loud'", "TRACE, DEBUG, INFO, WARN")
    project.call("logs", "last", "--workflow", "orders").refused("--workflow")
    project.call("logs", "--workflow", "nope").refused("nope")
    project.call("logs", "--children").refused("--children", "Name one")
    project.call("logs", "last", "--follow", "--until", "1m").refused("--until")
    project.call("logs", "last", "--until", "soon").refused("--until 'soon'")
    project.call("logs", "last", "--follow", "--timeout", "5").refused("--timeout")


def test_a_search_that_would_take_minutes_stops_and_says_how_to_go_on(project: Project) -> None:
    ends: Answer = (200, {"events": []})
    goes_on: Answer = (200, {"events": [], "nextToken": "more"})
    url = f"aws://shop?region={REGION}"
    with named_stack("shop"):
        with answering("logs.FilterLogEvents", ends, *[goes_on] * 100):
            stopped = project.call("logs", "--since", "5h", "--timeout", "1", "--json", "--url", url)
        stopped.refused("after 1 s of searching", "All before 20", "--timeout")
        reached = re.search(r"Go on with --since (\S+),", stopped.err)
        assert reached is not None
        done = datetime.now(UTC) - datetime.fromisoformat(reached[1])
        assert timedelta(hours=4) < done < timedelta(hours=4, minutes=5)
        with answering("logs.FilterLogEvents", *[goes_on] * 100):
            project.call("logs", "--timeout", "1", "--url", url).refused("more to search", "RUN, --since and --until")
        assert project.call("logs", "--since", reached[1], "--timeout", "1", "--url", url).code == 0


def test_following_a_run_that_has_ended_shows_it_all_and_ends(project: Project) -> None:
    run = ended(project, "flaky")
    assert told(project, run, "--follow") == STORY


def test_following_a_live_run_shows_its_lines_as_they_come_and_ends_with_it(project: Project) -> None:
    project.call("run", "hello", "--here")  # makes the database
    run = project.call("run", "orders", '{"id": "a", "total": 1}').out.strip()
    with project.background("logs", run, "--follow") as following, project.background("worker"):
        text = following.says("run completed")
        assert following.process.wait(PATIENCE) == 0
    assert "charging the card total=1.0" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("arguments", [("last", "--follow"), ("--follow",)], ids=["a run", "all"])
def test_ctrl_c_ends_following_quietly(project: Project, arguments: tuple[str, ...]) -> None:
    project.call("run", "hello", "--here")
    run = project.call("run", "orders", '{"id": "a", "total": 1}').out.strip()  # with no worker it stays live
    with closing(sqlite_backend(project.path / ".detent/detent.db")) as backend:
        asyncio.run(backend.logs.append([LogLine(backend.clock(), "INFO", "here I am", run)]))
    with project.background("logs", *arguments) as following:
        following.says("here I am")
        assert following.stop(signal.SIGINT) == 130
        assert "Traceback" not in following.output.read_text()


def test_a_worker_writes_from_the_level_on_that_it_is_told(project: Project) -> None:
    project.run("run", "hello", "--here", DETENT_LOG_LEVEL="DEBUG")
    assert "attempt 1 began" in project.call("logs", "last").out
    project.run("run", "hello", "--here", DETENT_LOG_LEVEL="error")
    assert project.call("logs", "last").out == ""
    refused = project.run("run", "hello", "--here", DETENT_LOG_LEVEL="loud")
    assert refused.code == 2
    assert "DETENT_LOG_LEVEL is 'LOUD'" in refused.err.splitlines()[-1]
