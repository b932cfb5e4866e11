"""How long the Lambda worker hides its batch's messages, by what it asks of a mocked SQS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from detent_functions import worker
from detent_functions.batches import SqsEvent
from detent_functions.runtime import runtime
from detent_infra.ports import Timing
from detent_infra.runs.lifecycle import Lifecycle
from detent_state_machine.status import RunStatus

from tests.support.aws_stack import Call, answering, recorded_calls
from tests.support.lambda_stack import Context, Deployed, deployed
from tests.support.waiting import until


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    with deployed(monkeypatch) as stack:
        yield stack


HIDES = "ChangeMessageVisibilityBatch"


def meetings(stack: Deployed, count: int) -> SqsEvent:
    """A batch of as many runs, each with one step."""
    for _ in range(count):
        stack.start("meeting")
    event: SqsEvent = {"Records": []}
    while len(event["Records"]) < count:
        event["Records"] += stack.receive()["Records"]
    return event


def hides(calls: list[Call]) -> list[Call]:
    return [call for call in calls if call.operation == HIDES]


async def has_hidden(calls: list[Call], times: int = 1) -> None:
    while len(hides(calls)) < times:  # noqa: ASYNC110 - another thread adds them
        await asyncio.sleep(0.01)


def test_a_batch_that_is_still_at_work_is_hidden_for_a_lease_in_one_request(stack: Deployed) -> None:
    """So a function that dies from here on is missed half a minute later, and not when the queue stops hiding it."""
    event = meetings(stack, 3)
    with recorded_calls() as calls:
        stack.bodies.meet = lambda: has_hidden(calls)
        assert worker.handler(event, Context()) == {"batchItemFailures": []}
    hidden = hides(calls)[0].params["Entries"]
    assert [(entry["ReceiptHandle"], entry["VisibilityTimeout"]) for entry in hidden] == [
        (record["receiptHandle"], 30) for record in event["Records"]
    ]


def test_a_short_batch_pays_for_no_visibility(stack: Deployed) -> None:
    here = runtime()
    here.__dict__["backend"] = replace(here.backend, timing=Timing(short_batch=600.0))  # however slow this machine is
    event = meetings(stack, 3)
    with recorded_calls() as calls:
        assert worker.handler(event, Context()) == {"batchItemFailures": []}
    assert {call.operation for call in calls if call.service == "sqs"} == set()


def test_a_batch_is_hidden_while_a_body_blocks_its_event_loop(stack: Deployed) -> None:
    event = meetings(stack, 1)
    here = runtime()
    here.__dict__["backend"] = replace(here.backend, timing=Timing(visibility=1.0))

    async def block() -> None:
        until(lambda: len(hides(calls)) >= 3)

    with recorded_calls() as calls:
        stack.bodies.meet = block
        worker.handler(event, Context())
    assert len(hides(calls)) >= 3


def test_what_is_done_with_is_not_hidden_again(stack: Deployed) -> None:
    quick, event = stack.start(), meetings(stack, 1)
    here = runtime()
    here.__dict__["backend"] = replace(here.backend, timing=Timing(visibility=1.0))

    async def others_ended() -> None:
        while (await Lifecycle(here.backend).get(quick)).status is RunStatus.RUNNING:  # noqa: ASYNC110 - the table tells nobody
            await asyncio.sleep(0.01)
        await has_hidden(calls, len(hides(calls)) + 2)  # the first of them may have been under way

    with recorded_calls() as calls:
        stack.bodies.meet = others_ended
        assert worker.handler(event, Context()) == {"batchItemFailures": []}
    [left] = [record["receiptHandle"] for record in event["Records"] if quick not in record["body"]]
    assert [entry["ReceiptHandle"] for entry in hides(calls)[-1].params["Entries"]] == [left]


def test_a_refused_change_of_visibility_ends_nothing_and_is_made_again(
    stack: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    event = meetings(stack, 1)
    here = runtime()
    here.__dict__["backend"] = replace(here.backend, timing=Timing(visibility=1.0))
    partly = 200, {"Successful": [], "Failed": [{"Id": "0", "SenderFault": False, "Code": "InternalError"}]}
    denied = 403, {"__type": "AccessDenied", "message": "not authorized"}
    with answering(f"sqs.{HIDES}", partly, denied), recorded_calls() as calls:
        stack.bodies.meet = lambda: has_hidden(calls, 3)
        assert worker.handler(event, Context()) == {"batchItemFailures": []}
    told = [record.message for record in caplog.records if "visibility of a batch" in record.message]
    assert len(told) >= 2
    assert "1 of 1 messages: InternalError" in told[0]
