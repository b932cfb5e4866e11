"""The program counts what it should, and finds out what must not be; and it holds in a short run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from detent_state_machine.status import RunStatus

from tests.kills.__main__ import main
from tests.kills.app import PATHS, WORKFLOWS, expected_output
from tests.kills.ledger import Entries, Ledger, Start
from tests.kills.tally import Fate, judge

START = Start("exactly_once", 7, "r1")
COMPLETED = Fate(
    START,
    RunStatus.COMPLETED,
    output=expected_output(7),
    completed=frozenset(PATHS),
    committed=dict.fromkeys(PATHS, 1),
)
INTERRUPTED = replace(
    COMPLETED, status=RunStatus.FAILED, error="Interrupted", completed=frozenset({"first"}), committed={"first": 1}
)


def in_delivery(fate: Fate, delivery: str) -> Fate:
    return replace(fate, start=replace(fate.start, workflow=delivery), committed={})


def bodies(times: Mapping[str, int] | None = None) -> Entries:
    """A ledger in which each body began and was done so often; once if nothing is said."""
    lines = [
        f"{event} r1 {path} 1"
        for path in PATHS
        for event in ("begun", "done")
        for _ in range((times or {}).get(path, 1))
    ]
    return Entries.of(lines)


@pytest.mark.parametrize("delivery", WORKFLOWS)
def test_a_run_that_ended_as_it_should_breaks_no_promise(delivery: str) -> None:
    fate = COMPLETED if delivery == "exactly_once" else in_delivery(COMPLETED, delivery)
    report = judge(bodies(), [fate])
    assert report.broken == []
    [row] = [row for row in report.rows if row.started]
    assert (row.delivery, row.started, row.finished, row.effects_due, row.bodies) == (delivery, 1, 1, 4, 4)
    assert (row.effects_lost, row.effects_duplicated, row.bodies_cut, row.bodies_repeated) == (0, 0, 0, 0)


BROKEN: dict[str, tuple[Fate, Entries, str]] = {
    "a start that was acknowledged and is unknown": (Fate(START, None), bodies(), "never ended (it is unknown)"),
    "a run that stays live": (replace(COMPLETED, status=RunStatus.RUNNING), bodies(), "never ended (RUNNING)"),
    "a wrong output": (replace(COMPLETED, output=0), bodies(), "ended with 0"),
    "a step that was left out": (replace(COMPLETED, completed=frozenset({"first"})), bodies(), "having completed"),
    "a failure that no kill explains": (replace(INTERRUPTED, error="KeyError"), bodies(), "FAILED with KeyError"),
    "a run that gave up": (INTERRUPTED, bodies(), "killed too often"),
    "a dead letter that failed a sound step": (replace(INTERRUPTED, error="DeadLetter"), bodies(), "killed too often"),
    "a commit that is lost": (replace(COMPLETED, committed={"first": 1}), bodies(), "without its effect"),
    "a commit that is applied twice": (
        replace(COMPLETED, committed=dict.fromkeys(PATHS, 2)),
        bodies(),
        "had its effect 2 times",
    ),
    "a commit without its step": (
        replace(INTERRUPTED, committed={"first": 1, "left": 1}),
        bodies(),
        "had its effect and is not COMPLETED",
    ),
    "a body that at_least_once never ran": (
        in_delivery(COMPLETED, "at_least_once"),
        bodies({"last": 0}),
        "last is COMPLETED without its effect",
    ),
    "a body that at_most_once ran twice": (
        in_delivery(COMPLETED, "at_most_once"),
        bodies({"left": 2}),
        "left had its effect 2 times",
    ),
}


@pytest.mark.parametrize(("fate", "entries", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_promise_is_found_out(fate: Fate, entries: Entries, said: str) -> None:
    assert any(said in each for each in judge(entries, [fate]).broken)


def test_what_at_least_once_allows_is_counted_and_breaks_nothing() -> None:
    report = judge(bodies({"left": 3}), [in_delivery(COMPLETED, "at_least_once")])
    assert report.broken == []
    assert (report.rows[0].effects_duplicated, report.rows[0].bodies_repeated) == (1, 2)


@pytest.mark.parametrize("error", ["Interrupted", "DeadLetter"])
def test_an_at_most_once_run_that_was_given_up_is_counted_apart(error: str) -> None:
    entries = Entries.of(["begun r1 first 1", "done r1 first 1", "begun r1 left 1"])
    report = judge(entries, [in_delivery(replace(INTERRUPTED, error=error), "at_most_once")])
    assert report.broken == []
    [row] = [row for row in report.rows if row.started]
    assert (row.interrupted, row.effects_due, row.bodies, row.bodies_cut) == (1, 1, 2, 1)


def test_a_ledger_comes_back_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.txt")
    assert ledger.read().starts == []
    ledger.append("started", "exactly_once", 7, "r1")
    ledger.append("begun", "r1", "first", 42)
    assert ledger.read().starts == [START]
    assert ledger.read().begun == {"r1": {"first": 1}}
    assert ledger.read().at_work == {42: 1}
    ledger.append("nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        ledger.read()


@pytest.mark.slow
def test_workers_and_starters_are_killed_and_no_promise_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "counts.json"
    code = main(["--minutes", "0.06", "--workers", "2", "--kill-every", "0.7", "--json", str(stored)])
    said = capsys.readouterr().out
    assert code == 0, said
    counts: dict[str, Any] = json.loads(stored.read_text())
    assert counts["broken"] == []
    assert counts["counts"]["workers_killed"] > 0
    assert [row["delivery"] for row in counts["rows"]] == list(WORKFLOWS)
    for row in counts["rows"]:
        assert row["started"] == row["finished"] + row["interrupted"] > 0
        assert f"{row['delivery']:<14}|{row['started']:>8} |" in said
