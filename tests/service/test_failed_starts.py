"""An event that the start function could not start is kept by the stack, and started when somebody says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from detent import Client
from detent.cli import main

from tests.service.test_deployed import line
from tests.support.deployed import Deployed
from tests.support.service_stack import session
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def stack(stack: Deployed) -> Deployed:
    """With the workflows registered, which the tick may not have done yet."""
    stack.invoke(stack.outputs["StartFunctionName"], {"workflow": "orders", "input": line(9)})
    return stack


@pytest.fixture
def command(stack: Deployed, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main(["failed-starts", *arguments, "--url", stack.url, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


def aws(stack: Deployed, service: str) -> Any:
    made: Any = session()
    return made.client(service, endpoint_url=stack.server.endpoint)


def kept(stack: Deployed) -> int:
    """Messages in the queue that are visible."""
    url = stack.outputs["FailedStartsQueueUrl"]
    got = aws(stack, "sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(got["Attributes"]["ApproximateNumberOfMessages"])


def given_up(stack: Deployed, event: object, *, id: str) -> None:
    """Puts in what Lambda keeps of an event (developer guide, "Retaining records of asynchronous invocations")."""
    record = {
        "version": "1.0",
        "timestamp": "2026-11-22T21:00:00.000Z",
        "requestContext": {
            "requestId": id,
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:shop-Start-1:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": event,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorMessage": "The request failed inside detent.", "errorType": "StartFailed"},
    }
    aws(stack, "sqs").send_message(QueueUrl=stack.outputs["FailedStartsQueueUrl"], MessageBody=json.dumps(record))


@contextmanager
def without_a_table(stack: Deployed) -> Iterator[None]:
    """The start function cannot do its work."""
    client, name = aws(stack, "lambda"), stack.outputs["StartFunctionName"]
    found = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    client.update_function_configuration(
        FunctionName=name, Environment={"Variables": {**found, "DETENT_TABLE": "a-table-that-is-gone"}}
    )
    try:
        yield
    finally:
        client.update_function_configuration(FunctionName=name, Environment={"Variables": found})


def test_an_event_that_fails_three_times_is_kept_and_started_once_by_the_command(stack: Deployed, command: Any) -> None:
    event = {"workflow": "orders", "input": line(1), "key": "event-1", "metadata": {"from": "an event"}}
    with without_a_table(stack):
        aws(stack, "lambda").invoke(
            FunctionName=stack.outputs["StartFunctionName"], InvocationType="Event", Payload=json.dumps(event)
        )
        until(lambda: kept(stack) == 1)
    [seen] = command()
    assert (seen["workflow"], seen["key"], seen["run_id"], seen["error"]) == ("orders", "event-1", None, None)
    assert "failed inside detent" in seen["reason"]
    assert kept(stack) == 1, "looking at it takes nothing away"
    [started] = command("--redrive")
    client = Client(stack.url)
    assert client.handle(started["run_id"]).result(timeout=PATIENCE)
    run = client.get(started["run_id"])
    assert (run.key, run.metadata) == ("event-1", {"from": "an event"})
    assert command("--redrive") == command() == []


def test_an_event_that_was_started_by_a_try_whose_answer_was_lost_is_not_started_again(
    stack: Deployed, command: Any
) -> None:
    # As the function starts an event without a key, in the invocation with this id.
    first = Client(stack.url).start("orders", line(2), key="invocation-r-2").id
    for _ in range(2):
        given_up(stack, {"workflow": "orders", "input": line(2)}, id="r-2")
    assert [each["run_id"] for each in command("--redrive")] == [first, first]
    assert command() == []


def test_what_cannot_be_started_stays_with_the_reason_and_holds_up_nothing(stack: Deployed, command: Any) -> None:
    aws(stack, "sqs").send_message(QueueUrl=stack.outputs["FailedStartsQueueUrl"], MessageBody="no record")
    given_up(stack, {"workflow": "nobody"}, id="r-3")
    given_up(stack, {"detail-type": "of another shape"}, id="r-4")
    given_up(stack, {"workflow": "orders", "input": line(5)}, id="r-5")
    told = command("--redrive", code=2)
    assert [each["key"] for each in told if each["run_id"]] == ["invocation-r-5"]
    errors = " ".join(each["error"] for each in told if each["run_id"] is None)
    assert "'nobody'" in errors
    assert errors.count("It is not a request to start a run.") == 2
    assert {each["message_id"] for each in command()} == {each["message_id"] for each in told if each["error"]}
    assert len(command("-n", "2")) == 2


def test_where_no_function_starts_runs_there_are_no_failed_starts(
    stack: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["failed-starts", "--url", "sqlite:///none.db"]) == 2
    assert "has no start function" in capsys.readouterr().err
