"""Runs in the deployed functions: started from outside, watched from outside."""

from __future__ import annotations

import json

import pytest
from detent import Delivery, RunCancelled, RunFailed, RunStatus

from tests.stack import app
from tests.stack.stack import PATIENCE, Stack, until_on_stack

PATHS = ("first", "left", "right", "last")


@pytest.mark.parametrize("delivery", Delivery)
def test_a_fork_and_its_join_run_once_each_in_every_delivery(stack: Stack, delivery: Delivery) -> None:
    handle = stack.client.start(app.DIAMONDS[delivery], 4)
    assert handle.result(timeout=PATIENCE) == 43
    done = {path: stack.ledger.count(handle.id)[f"{path} done"] for path in PATHS}
    assert done == dict.fromkeys(PATHS, 1)
    committed = [stack.client.read(app.EFFECTS, f"{handle.id}/{path}") for path in PATHS]
    assert committed == ([{"times": 1}] * 4 if delivery is Delivery.EXACTLY_ONCE else [None] * 4)


def test_a_step_that_fails_is_tried_again_until_it_does_not(stack: Stack) -> None:
    handle = stack.client.start(app.flaky, "through")
    assert handle.result(timeout=PATIENCE) == "through in attempt 3"
    assert stack.ledger.count(handle.id) == {"try_hard began": 3}
    record = stack.step(handle.id, "try_hard")
    assert record is not None
    assert [past.error for past in record.history] == [
        "ConnectionError: attempt 1 of 'through' did not get through",
        "ConnectionError: attempt 2 of 'through' did not get through",
    ]


def test_a_run_that_fails_runs_its_handler_and_goes_on_from_there_when_retried(stack: Stack) -> None:
    run_id = stack.run("repairable", "an order")
    with pytest.raises(RunFailed, match="no money for an order"):
        stack.client.handle(run_id).result(timeout=PATIENCE)
    assert stack.client.get(run_id).status is RunStatus.FAILED
    assert stack.ledger.count(run_id) == {"reserve done": 1, "released after charge: CardRefused": 1}
    stack.ledger.append("an order", "has money now")
    retried = stack.cli("retry", run_id, "--follow").strip()
    assert retried == '"an order reserved, charged"'
    [newest] = stack.client.runs("repairable", limit=1)
    assert newest.run_id != run_id
    assert stack.ledger.count(newest.run_id) == {"charge done": 1}


def test_a_cancelled_run_begins_no_further_step(stack: Stack) -> None:
    run_id = stack.run("endless", "long")
    until_on_stack(lambda: stack.ledger.count(run_id))
    stack.cli("cancel", run_id)
    with pytest.raises(RunCancelled):
        stack.client.handle(run_id).result(timeout=PATIENCE)
    # The worker learns of it by its next heartbeat, and then puts the step's end down.
    until_on_stack(lambda: (step := stack.step(run_id, "sit")) is not None and step.status.terminal)
    assert stack.ledger.count(run_id) == {"sit began": 1}
    assert stack.step(run_id, "afterwards") is None


def test_values_too_large_for_a_record_go_through_the_bucket(stack: Stack) -> None:
    text = "käse" * 20_000
    handle = stack.client.start(app.large, text)
    assert handle.result(timeout=PATIENCE) == (text * 10)[: app.LARGE][::-1]
    stored = stack.place.client("s3").list_objects_v2(Bucket=stack.outputs["BucketName"], Prefix="blobs/")
    assert sum(each["Size"] > app.LARGE for each in stored["Contents"]) >= 2


def test_the_same_key_starts_one_run_and_another_input_under_it_is_refused(stack: Stack) -> None:
    first = stack.run("flaky", "once", "--key", "k-1")
    assert stack.run("flaky", "once", "--key", "k-1") == first
    stack.cli("run", "flaky", json.dumps("other"), "--key", "k-1", code=2)
    stack.client.handle(first).result(timeout=PATIENCE)
    assert stack.ledger.count(first) == {"try_hard began": 3}


def test_what_functions_print_is_read_by_run(stack: Stack) -> None:
    if stack.place.kind == "localstack":
        pytest.skip("LocalStack leaves LoggingConfig alone: what functions print is not in the stack's log group")
    run_id = stack.client.start(app.talking, "five small words in all").id
    stack.client.handle(run_id).result(timeout=PATIENCE)

    def printed(*options: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in stack.cli("logs", run_id, "--json", *options).splitlines()]
        return [line for line in lines if line["message"] in ("said", "worried")]

    lines = until_on_stack(lambda: found if len(found := printed()) >= 2 else None)
    assert [(line["level"], line["message"]) for line in lines] == [("INFO", "said"), ("WARN", "worried")]
    assert lines[0]["fields"] == {"text": "five small words in all", "words": 5}
    assert {line["step"] for line in lines} == {"talk"}
    assert [line["message"] for line in printed("--filter", "{ $.level = WARN && $.path = talk }")] == ["worried"]
