"""`detent send` and `detent dead`, and the queues that `dev` and `worker` listen to."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import cast

import pytest

from tests.support.cli_project import SHOP, Project

LISTENING = SHOP.replace(
    "output=str, description", 'output=str, on_queue=Queue("inbox", when="kind != `1`"), description'
)
LISTENING = LISTENING.replace("Failure, Retry", "Failure, Queue, Retry")
ORDER = '{"id": "a", "total": 2}'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    project = Project(tmp_path, monkeypatch, capsys)
    (tmp_path / "shop.py").write_text(LISTENING)
    return project


def listed(project: Project, *arguments: str) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", project.call(*arguments, "--json").json)


def runs(project: Project) -> list[dict[str, object]]:
    return cast("dict[str, list[dict[str, object]]]", project.call("runs", "--json").json)["runs"]


def test_a_message_that_is_sent_twice_starts_one_run_in_a_worker_that_says_what_it_listens_to(project: Project) -> None:
    with project.background("worker") as worker:
        worker.says(", listening to inbox. Ctrl-C stops it.")
        for _ in range(2):
            sent = project.run("send", "inbox", "-", "--id", "m-1", stdin=ORDER)
            assert (sent.code, sent.out) == (0, "m-1\n")
        refused = project.call("send", "inbox", '{"total": 1}', "--unchecked", "--json").json
        assert isinstance(refused, dict)
        worker.says(f"message {refused['message_id']} of the queue 'inbox' refused, now a dead letter")
        assert worker.stop(signal.SIGTERM) == 0
    [run] = runs(project)
    assert (run["workflow"], run["key"]) == ("orders", "inbox/m-1")


def test_dev_says_which_queue_starts_which_workflow_and_how_to_send_to_it(project: Project) -> None:
    with project.background("dev") as dev:
        dev.says("Listening to queue inbox, which starts orders: `detent send inbox JSON`.")
        project.call("send", "inbox", ORDER)
        dev.says("run completed")


def test_what_was_refused_is_shown_with_its_reason_and_can_be_moved_back(project: Project) -> None:
    body = '{"id": "\\u001b[31m", "total": "x"}'
    project.call("send", "inbox", body, "--unchecked", "--id", "m-1", "--attribute", "shop=Berlin")
    with project.background("worker") as worker:
        worker.says("now a dead letter")
    shown = project.call("dead", "inbox")
    assert shown.code == 0
    assert "m-1" in shown.out
    assert "InputError: orders: The input of workflow 'orders' does not fit Order: $.total" in shown.out
    assert "\x1b" not in shown.out
    [letter] = listed(project, "dead", "inbox")
    assert {name: letter[name] for name in ("message_id", "queue", "error", "attributes", "body")} == {
        "message_id": "m-1",
        "queue": "inbox",
        "error": "InputError",
        "attributes": {"shop": "Berlin"},
        "body": body,
    }
    assert project.call("dead", "inbox", "--redrive").out == "Moved 1 dead letter back into inbox.\n"
    assert project.call("dead", "inbox", "--redrive", "--json").json == {"queue": "inbox", "moved": 0}
    assert project.call("dead", "inbox", "--json").json == []
    assert project.call("dead", "inbox").err == "the module prints\nQueue inbox has no dead letters.\n"


def test_a_message_that_would_start_nothing_is_refused_before_anything_is_made(project: Project) -> None:
    project.call("send", "inbox", '{"total": 1}').refused("$.id: Field required", "--unchecked")
    project.call("send", "inbox", '{"id": "a", "kind": 1}').refused("`when` is false for orders", "--unchecked")
    project.call("send", "inbox", "{no").refused("not JSON")
    project.call("send", "other", ORDER).refused("No workflow of app 'shop' listens", "inbox")
    project.call("dead", "other").refused("listens to a queue 'other'", "inbox")
    project.call("send", "inbox", ORDER, "--attribute", "shop").refused("--attribute 'shop' is not a name with a value")
    project.call("send", "inbox", ORDER, "--attribute", "detent-id=m").refused("'detent-id'")
    project.call("send", "inbox", ORDER, "--id", "").refused("A message's id has 1 to 100")
    assert project.call("runs").code == 2, "there is still no database"


def test_unchecked_sends_any_text_as_it_is_so_that_what_becomes_of_it_can_be_seen(project: Project) -> None:
    project.call("send", "inbox", "plain text").refused("not JSON")
    assert project.call("send", "inbox", "plain text", "--unchecked", "--id", "m-1").out == "m-1\n"
    assert project.run("send", "inbox", "-", "--unchecked", "--id", "m-2", stdin="{no").out == "m-2\n"
    project.call("send", "inbox", "", "--unchecked").refused("A message is empty")
    with project.background("worker") as worker:
        worker.says("message m-1 of the queue 'inbox' refused, now a dead letter")
        worker.says("message m-2 of the queue 'inbox' refused, now a dead letter")
    letters = {letter["message_id"]: letter for letter in listed(project, "dead", "inbox")}
    assert {id: letter["body"] for id, letter in letters.items()} == {"m-1": "plain text", "m-2": "{no"}
    assert all("is not JSON" in str(letter["reason"]) for letter in letters.values())


def test_an_app_that_listens_to_nothing_says_how_it_would(project: Project) -> None:
    (project.path / "shop.py").write_text(SHOP)
    project.call("send", "inbox", ORDER).refused('Declare one with `on_queue="…"`.')


def test_without_an_app_a_message_is_sent_as_it_is_to_a_database_that_is_there(project: Project) -> None:
    (project.path / "pyproject.toml").unlink()
    project.call("send", "inbox", '{"total": 1}').refused("There is no database")
    project.call("run", "hello", "--app", "shop:app")
    assert project.call("send", "inbox", '{"total": 1}', "--id", "m-1").out == "m-1\n"


def test_memory_is_refused_for_nobody_else_would_see_the_message(project: Project) -> None:
    project.call("send", "inbox", ORDER, "--url", "memory://").refused("memory:// lives inside one process")
