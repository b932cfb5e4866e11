"""What the command line reads and writes, piece by piece."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from detent.cli import arguments
from detent.cli.events import LINES_PER_SECOND, Feed
from detent.cli.follow import on_the_way, worth_showing
from detent.cli.output import age, clean, duration, shortened
from detent_infra.runs.as_json import iso
from detent_state_machine.errors import InputError
from detent_state_machine.records import NULL, RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.step_path import StepPath
from rich.console import Console


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (-1, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.00 s"),
        (59_940, "59.9 s"),
        (59_999, "59.9 s"),
        (60_000, "1 min 00 s"),
        (3_599_999, "59 min 59 s"),
        (3_600_000, "1 h 00 min"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_durations_are_said_in_the_unit_that_fits(milliseconds: int, said: str) -> None:
    assert duration(milliseconds) == said


def test_ages_are_said_in_one_unit() -> None:
    assert [age(seconds * 1000) for seconds in (-5, 59, 60, 7199, 86_399, 864_000)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h",
        "23 h",
        "10 d",
    ]


def test_json_times_are_iso_in_utc_with_milliseconds() -> None:
    assert iso(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"
    assert iso(None) is None


def test_text_is_shortened_and_cleaned_of_what_a_terminal_obeys() -> None:
    assert shortened("one\n two   three", 8) == "one two…"
    assert clean("a\x1b[31mb\u202ec\td") == "a\\x1b[31mb\\u202ec\td"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("3d", 259_200), ("1w", 604_800)]
)
def test_since_takes_an_age(text: str, seconds: int) -> None:
    moment = arguments.since(text)
    assert moment is not None
    assert abs(datetime.now(UTC) - timedelta(seconds=seconds) - moment) < timedelta(seconds=5)


def test_since_takes_an_iso_time_with_or_without_a_zone() -> None:
    assert arguments.since("2026-01-31T08:00:00Z") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    local = arguments.since("2026-01-31")
    assert local is not None
    assert local.tzinfo is not None


@pytest.mark.parametrize("text", ["", "10", "10x", "-1h", "9999999999999d", "2026-13-01"])
def test_since_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match="10m"):
        arguments.since(text)


def test_metadata_may_hold_an_equals_sign() -> None:
    assert arguments.metadata(["query=a=b", "empty="]) == {"query": "a=b", "empty": ""}


def test_a_flood_of_events_is_counted_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr("detent.cli.events.time.time", lambda: now)
    feed = Feed(Console(file=io.StringIO(), width=100))
    for number in range(LINES_PER_SECOND + 1_234):
        feed.event(StepStatus.COMPLETED, "run", f"step {number}")
    now += 1
    feed.event(StepStatus.COMPLETED, "run", "the next second")
    assert isinstance(feed.out.file, io.StringIO)
    lines = feed.out.file.getvalue().splitlines()
    assert len(lines) == LINES_PER_SECOND + 2
    assert lines[-2].strip() == "… 1,234 more events"
    assert lines[-1].endswith("✓ the next second")


def test_a_large_workflow_shows_what_is_at_work_and_what_comes_next() -> None:
    def record(path: str, status: StepStatus) -> StepRecord:
        return StepRecord(StepPath(path), status, "owner", True)

    ended = [(f"ended {n}", record(f"ended {n}", StepStatus.COMPLETED)) for n in range(50)]
    running = [("running", record("running", StepStatus.RUNNING))]
    waiting = [(f"waiting {n}", None) for n in range(50)]
    kept = [path for path, _ in worth_showing([*ended, *running, *waiting], 4)]
    assert kept == ["running", "waiting 0", "waiting 1", "waiting 2"]
    assert [path for path, _ in worth_showing([*ended, *running], 3)] == ["ended 48", "ended 49", "running"]


def test_handlers_are_shown_once_the_run_fails() -> None:
    rows = [("work", None), ("undo", None)]
    run = RunRecord("id", "orders", "v", RunStatus.RUNNING, 0, NULL)
    failing = RunRecord("id", "orders", "v", RunStatus.FAILING, 0, NULL)
    assert on_the_way(run, rows, ["undo"]) == [("work", None)]
    assert on_the_way(failing, rows, ["undo"]) == rows
