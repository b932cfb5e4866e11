"""The roles in `template.yaml`, held to the calls that the functions make."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from detent_functions import dead_letters, queue_trigger, tick, worker
from detent_functions.batches import SqsEvent
from detent_functions.runtime import runtime
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.start import NewRun
from detent_state_machine import keys
from detent_state_machine.definition import Definition
from detent_state_machine.messages import Drive, encode
from detent_state_machine.writes import PutItem

from tests.support.aws_stack import UNSENT, answering, recorded_calls
from tests.support.iam_actions import actions
from tests.support.lambda_stack import KEEPING, LARGE, Context, Deployed, cool, deployed
from tests.support.sam_template import allowed
from tests.support.source_queues import create_queue

T = TypeVar("T")

BY_LAMBDA = {f"sqs:{name}" for name in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")}
"""Calls that the event source mapping makes with the function's role."""
IN_ITS_NAME = {("sqs:SendMessage", "FailedStarts")}
"""What Lambda does with the role when the function has failed."""
BY_RUNTIME = {"logs:CreateLogStream", "logs:PutLogEvents"}
UNSEEN = {"s3:ListBucket"}
"""Never called: without it S3 calls a missing object a denied one."""

OF_USERS = {"inbox": "TriggerQueueArn", "inbox-dead": "TriggerDeadLetterQueueArn"}


def test_each_role_allows_the_calls_its_function_makes_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with deployed(monkeypatch) as stack:
        for function, made in _made_by_each(stack).items():
            may = allowed(f"{function}Role")
            assert made - may == set(), f"{function} needs more"
            unused = {action for action, _ in may - made - IN_ITS_NAME}
            assert unused - BY_LAMBDA - BY_RUNTIME - UNSEEN == set(), f"{function} needs less"


def _made_by_each(stack: Deployed) -> dict[str, set[tuple[str, str]]]:
    """What each function calls, as (action, resource), in cold processes, when it does everything that it can do."""
    made: dict[str, set[tuple[str, str]]] = {}

    def watch(function: str, act: Callable[[], T]) -> T:
        cool()
        with recorded_calls() as calls:
            result = act()
        made.setdefault(function, set()).update(
            pair for call in calls for pair in actions(call, stack.resources, OF_USERS)
        )
        return result

    watch("Tick", lambda: tick.handler({}, Context("Tick")))
    run_id = watch("Start", lambda: stack.start("keeping", LARGE))
    for _ in range(10):  # deliveries; it takes three
        event = _redelivered(stack, stack.resources.queue_url)
        answer = watch("Worker", lambda event=event: worker.handler(event, Context()))  # type: ignore[misc]
        assert answer == {"batchItemFailures": []}
        stack.acknowledge(event)
    assert stack.status(run_id) == "COMPLETED"
    watch("Start", lambda: stack.http("GET", f"/runs/{run_id}/result"))
    watch("Start", lambda: stack.http("POST", f"/runs/{stack.start('keeping', LARGE)}/cancel"))

    old = _started_an_hour_ago(stack)
    watch("Tick", lambda: tick.handler({}, Context("Tick")))
    dead = stack.resources.dead_letter_url
    for _ in range(6):  # until the take-overs are used up
        stack.send(encode(Drive(old, "join")), encode(Drive(old, "keep")), url=dead)
        event = _redelivered(stack, dead)
        watch("DeadLetters", lambda event=event: dead_letters.handler(event, Context("DeadLetters")))  # type: ignore[misc]
        stack.acknowledge(event, dead)
    assert stack.status(old) == "FAILING"

    create_queue(stack.sqs, "inbox")
    inbox = stack.sqs.get_queue_url(QueueName="inbox")["QueueUrl"]
    stack.send(json.dumps({"name": LARGE}), "no JSON", url=inbox)  # one starts two runs, the other is refused
    event = stack.receive(inbox)
    assert (
        watch("QueueTrigger", lambda: queue_trigger.handler(event, Context("QueueTrigger")))["batchItemFailures"] == []
    )
    stack.send(json.dumps({"name": LARGE}), url=inbox)
    event = stack.receive(inbox)
    with answering("sqs.SendMessageBatch", UNSENT, UNSENT, UNSENT):  # so it is kept
        assert watch("QueueTrigger", lambda: queue_trigger.handler(event, Context("QueueTrigger")))["batchItemFailures"]
    return made


def _started_an_hour_ago(stack: Deployed) -> str:
    """A run of an older version than the deployed one, which lost its message and keeps a record that expires soon."""
    older = Definition(name=KEEPING.name, steps=KEEPING.steps, description=LARGE + " before")
    here = runtime()
    an_hour_ago = replace(here.backend, clock=lambda: (int(time.time()) - 3600) * 1000)
    run_id = here.run(Lifecycle(an_hour_ago).start(older, NewRun(f'"{LARGE}"')))
    here.run(here.backend.table.write(PutItem(keys.join_key(run_id, "join"), {"expires": 1})))
    stack.sqs.purge_queue(QueueUrl=stack.resources.queue_url)
    return run_id


def _redelivered(stack: Deployed, url: str) -> SqsEvent:
    """A batch in which all but start messages have been delivered before."""
    event = stack.receive(url)
    for record in event["Records"]:
        if '"kind":"start"' not in record["body"]:
            record["attributes"]["ApproximateReceiveCount"] = "2"
    return event
