"""Runs that wait, as a user of the command line sees them: `runs --waiting`, `show`, `why`, `publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_project import Project
from tests.support.waiting import until

WAITS = """

from datetime import timedelta

payments = app.event("payment", type=Order)
bills = app.workflow("bills", input=Order, output=str)
paid = bills.event("paid", payments, key=bills.input.id, timeout=timedelta(days=3))


@bills.step
def book(order: Order, payment: Order | None = paid.output) -> str:
    return f"{order.id}: {payment.total if payment else 'nothing'}"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    made = Project(tmp_path, monkeypatch, capsys)
    shop = made.path / "shop.py"
    shop.write_text(shop.read_text() + WAITS)
    return made


def waiting(project: Project) -> str:
    """A run that waits for its payment."""
    run = project.call("run", "bills", '{"id": "A-17"}').out.strip()
    until(lambda: worked(project) and "WAITING" in project.call("show", run, "--json").out)
    return run


def as_json(project: Project, *command: str) -> Any:
    return project.call(*command).json


def worked(project: Project) -> bool:
    """A worker was there for as long as another run took."""
    return project.call("run", "hello", "--here").code == 0


def test_a_run_that_waits_is_listed_shown_and_explained(project: Project) -> None:
    run = waiting(project)
    ready = project.call("run", "orders", '{"id": "b"}').out.strip()
    assert [each["run_id"] for each in as_json(project, "runs", "--waiting", "--json")["runs"]] == [run]
    assert {each["run_id"] for each in as_json(project, "runs", "--status", "running", "--json")["runs"]} == {
        run,
        ready,
    }
    told = project.call("show", run).out
    assert "paid  waiting for event 'payment' with key 'A-17', until 20" in told
    assert f"detent why {run}" in told
    [paid, book] = as_json(project, "show", run, "--json")["steps"]
    assert (paid["waits_for"], paid["met_by"], book["waits_for"]) == ("event 'payment' with key 'A-17'", None, None)
    assert paid["due"] is not None
    said = project.call("why", run)
    assert said.out.startswith(f"Run {run} is running: step 'paid' waits for event 'payment' with key 'A-17', until 20")
    assert said.out.count("\n") == 1
    report = as_json(project, "why", run, "--json")
    assert [(each["step"], each["cause"], each["until"]) for each in report["steps"]] == [
        ("paid", "waiting", paid["due"])
    ]
    assert "is ready, and no worker has begun it." in project.call("why", ready).out


def test_an_event_from_the_command_line_ends_the_wait_and_show_names_it(project: Project) -> None:
    run = waiting(project)
    published = project.call("publish", "payment", '{"id": "p", "total": 12.5}', "--key", "A-17", "--id", "bank-1")
    assert (published.code, published.out) == (0, "bank-1\n")
    until(lambda: worked(project) and as_json(project, "show", run, "--json")["status"] == "COMPLETED")
    shown = as_json(project, "show", run, "--json")
    assert (shown["output"], shown["steps"][0]["met_by"]) == ("A-17: 12.5", "bank-1")
    assert "paid  event 'payment' with key 'A-17' came: bank-1" in project.call("show", run).out
    assert project.call("why", run).out == f"Run {run} has ended: it is COMPLETED.\n"
    again = project.call(
        "publish", "payment", '{"id": "p", "total": 12.5}', "--key", "A-17", "--id", "bank-1", "--json"
    )
    assert again.json == {"event": "payment", "key": "A-17", "id": "bank-1"}


@pytest.mark.parametrize(
    ("payload", "more", "said"),
    [
        ('{"id": "p", "total": "much"}', (), "$.total"),
        ("{", (), "JSON"),
        ('{"id": "p"}', ("--id", ""), "id"),
        ('{"id": "p"}', ("--key", "k" * 2_000), "key"),
    ],
)
def test_an_event_that_cannot_be_is_refused_in_one_line(
    project: Project, payload: str, more: tuple[str, ...], said: str
) -> None:
    refused = project.call("publish", "payment", payload, *more)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert "Traceback" not in refused.err


def test_why_of_a_run_that_is_not_there_is_an_error(project: Project) -> None:
    waiting(project)
    refused = project.call("why", "0" * 26)
    assert (refused.code, "No run" in refused.err) == (2, True)
