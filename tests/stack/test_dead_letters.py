"""Messages that no delivery could handle. Meanwhile no worker takes messages, so these tests come after the others."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest
from detent import RunFailed, StepStatus
from detent_state_machine.messages import Wake, decode

from tests.stack import app
from tests.stack.early import Early
from tests.stack.stack import PATIENCE, Stack, until_on_stack

MAX_RECEIVES = 10


@contextmanager
def workers_off(stack: Stack) -> Iterator[None]:
    """Nobody but the test receives messages of the step queue."""
    _switch(stack, on=False)
    try:
        yield
    finally:
        _switch(stack, on=True)


def _switch(stack: Stack, *, on: bool) -> None:
    client, source = stack.place.client("lambda"), stack.event_source("Worker")
    client.update_event_source_mapping(UUID=source, Enabled=on)
    wanted = "Enabled" if on else "Disabled"
    until_on_stack(lambda: client.get_event_source_mapping(UUID=source)["State"] == wanted, 5 * PATIENCE)


def receive_in_vain(stack: Stack, runs: Collection[str]) -> None:
    """Takes the message of each run as often as it is delivered, as workers do that die at once."""
    sqs, url = stack.place.client("sqs"), stack.outputs["QueueUrl"]
    received = dict.fromkeys(runs, 0)
    ends = time.monotonic() + 3 * PATIENCE
    while min(received.values()) < MAX_RECEIVES:
        assert time.monotonic() < ends, received
        got = sqs.receive_message(
            QueueUrl=url, WaitTimeSeconds=2, VisibilityTimeout=0, MessageSystemAttributeNames=["All"]
        )
        for message in got.get("Messages", []):
            decoded = decode(message["Body"])
            assert not isinstance(decoded, Wake)
            run_id = decoded.run_id
            if run_id in runs:
                received[run_id] = int(message["Attributes"]["ApproximateReceiveCount"])
            else:  # what a killed worker had not deleted comes late
                assert not stack.client.get(run_id).status.live
    # Whoever asks next gets none of them: they go to the dead letters instead.
    sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=0)


def test_a_message_that_no_worker_survives_ends_its_step_or_is_begun_again(stack: Stack, early: Early) -> None:
    earlier = (early.lost, early.stubborn, *early.killed.values())
    until_on_stack(lambda: not any(stack.client.get(run_id).status.live for run_id in earlier), 3 * PATIENCE)
    pause = 120.0 if stack.place.kind == "account" else 40.0
    poisoned = stack.client.start(app.poisoned, pause)
    unlucky = stack.client.start(app.unlucky, pause)

    def status(run_id: str, path: str) -> StepStatus | None:
        step = stack.step(run_id, path)
        return None if step is None else step.status

    until_on_stack(lambda: status(poisoned.id, "give_up") is status(unlucky.id, "go_on") is StepStatus.RETRYING)
    with workers_off(stack):
        receive_in_vain(stack, [poisoned.id, unlucky.id])
        until_on_stack(lambda: status(poisoned.id, "give_up") is StepStatus.FAILED, 3 * PATIENCE)
        assert stack.ledger.count(poisoned.id) == {"give_up began": 1}, "no body runs for a dead letter"
    with pytest.raises(RunFailed, match="DeadLetter"):
        poisoned.result(timeout=3 * PATIENCE)
    assert stack.ledger.count(poisoned.id) == {"give_up began": 1, "cleaned up after DeadLetter": 1}
    assert "DeadLetter" in stack.cli("show", poisoned.id)

    assert unlucky.result(timeout=3 * PATIENCE) == "all the same"
    assert stack.ledger.count(unlucky.id) == {"go_on began": 2}
    step = stack.step(unlucky.id, "go_on")
    assert step is not None
    assert [past.error.partition(":")[0] for past in step.history] == ["RetryAfter", "DeadLetter"]


def test_a_dead_letter_that_is_none_of_detents_is_dropped_with_a_word_in_the_log(stack: Stack) -> None:
    queue = stack.outputs["DeadLetterQueueUrl"]
    sqs, logs = stack.place.client("sqs"), stack.place.client("logs")
    sqs.send_message(QueueUrl=queue, MessageBody="no message of detent")
    word, function = "no message of detent", stack.resources["DeadLetters"]
    # LocalStack leaves LoggingConfig alone, and finds every line whatever the pattern.
    group = f"/aws/lambda/{function}" if stack.place.kind == "localstack" else stack.outputs["LogGroupName"]

    def told() -> bool:
        found = logs.filter_log_events(logGroupName=group, filterPattern=f'"{word}"')
        return any(word in event["message"] and function in event["message"] for event in found["events"])

    until_on_stack(told)
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def left() -> set[str]:
        return set(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"].values())

    until_on_stack(lambda: left() == {"0"})
