"""The start function: over HTTP with signatures, and by direct invocation."""

from __future__ import annotations

import pytest

from tests.stack.stack import PATIENCE, Stack, until_on_stack


def test_a_run_is_started_watched_and_read_over_http(stack: Stack) -> None:
    status, started = stack.request("POST", "/workflows/flaky/runs", {"input": "by http", "metadata": {"from": "http"}})
    assert (status, list(started)) == (202, ["run_id"])
    path = f"/runs/{started['run_id']}"

    def result() -> object:
        status, said = stack.request("GET", f"{path}/result")
        assert status in (200, 202), said
        return said if status == 200 else None

    assert until_on_stack(result) == "by http in attempt 3"
    status, run = stack.request("GET", path)
    assert (status, run["status"], run["metadata"]) == (200, "COMPLETED", {"from": "http"})


def test_a_run_is_cancelled_over_http(stack: Stack) -> None:
    _, started = stack.request("POST", "/workflows/endless/runs", {"input": "by http"})
    status, run = stack.request("POST", f"/runs/{started['run_id']}/cancel")
    assert (status, run["status"]) == (200, "CANCELLED")


def test_a_request_without_a_signature_is_refused_before_it_reaches_detent(stack: Stack) -> None:
    if stack.place.kind in ("server", "localstack"):
        pytest.skip("LocalStack does not look at signatures, and a server that somebody else has started need not")
    status, said = stack.request("GET", "/runs/none", signed=False)
    assert (status, list(said)) == (403, ["Message"])
    status, said = stack.request("GET", "/runs/none")
    assert (status, said["error"]) == (404, "UnknownRun")


def test_an_event_starts_a_run_by_direct_invocation_and_once_by_its_key(stack: Stack) -> None:
    event = {"workflow": "flaky", "input": "an event", "key": "event-1"}
    first, again = stack.invoke(event), stack.invoke(event)
    assert first == again
    assert stack.client.handle(first["run_id"]).result(timeout=PATIENCE) == "an event in attempt 3"
    assert stack.client.get(first["run_id"]).key == "event-1"
    assert stack.invoke({"workflow": "nobody"})["status"] == 404
