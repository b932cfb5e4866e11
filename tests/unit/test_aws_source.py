"""Queues of users on SQS: what the embedded backends have no counterpart for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from detent_infra.ports import Backend
from detent_state_machine.envelopes import Refusal, SourceMessage, texts
from detent_state_machine.errors import ConfigurationError, InputError, PayloadTooLarge

from tests.support.aws_stack import REGION, answering, moto_backend, recorded_calls
from tests.support.source_queues import create_queue, source_of

REFUSAL = Refusal("InputError", "orders: no id.")


@pytest.fixture
def backend() -> Iterator[Backend]:
    with moto_backend() as backend:
        yield backend


def test_a_queue_without_a_dead_letter_queue_buries_nothing_and_says_so(backend: Backend) -> None:
    source = source_of(backend, "bare", max_receives=None)
    assert asyncio.run(source.bury(SourceMessage("m-1", "bare", "{}"), REFUSAL)) is False
    with pytest.raises(ConfigurationError, match="'bare' has no dead-letter queue"):
        asyncio.run(source.dead_letters(10))
    with pytest.raises(ConfigurationError, match="'bare' has no dead-letter queue"):
        asyncio.run(source.redrive(10))


def test_a_redrive_policy_that_comes_later_is_seen(backend: Backend) -> None:
    source = source_of(backend, "inbox", max_receives=None)
    assert asyncio.run(source.bury(SourceMessage("m-1", "inbox", "{}"), REFUSAL)) is False
    sqs = boto3.client("sqs", region_name=REGION)
    dead = create_queue(sqs, "graves", max_receives=None)
    url = sqs.get_queue_url(QueueName="inbox")["QueueUrl"]
    policy = f'{{"deadLetterTargetArn": "{dead}", "maxReceiveCount": "5"}}'
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    assert asyncio.run(source.bury(SourceMessage("m-1", "inbox", "{}"), REFUSAL)) is True


def test_a_queue_that_is_not_there_is_a_fault_of_the_setup(backend: Backend) -> None:
    with pytest.raises(ConfigurationError, match="did not find the queue 'nowhere'"):
        asyncio.run(backend.source("nowhere").receive(1, wait=0, visibility=30))


def test_a_queue_is_looked_up_once_by_its_name_and_in_its_account_if_an_arn_says_which(backend: Backend) -> None:
    arn = create_queue(boto3.client("sqs", region_name=REGION), "inbox")

    async def twice(place: str) -> None:
        for _ in range(2):
            await backend.source(place).receive(1, wait=0, visibility=30)

    with recorded_calls() as calls:
        asyncio.run(twice("inbox"))
        asyncio.run(twice(arn))
    asked = [call.params for call in calls if call.operation == "GetQueueUrl"]
    assert asked == [{"QueueName": "inbox"}, {"QueueName": "inbox", "QueueOwnerAWSAccountId": arn.split(":")[4]}]


def test_a_refused_message_costs_one_request_once_its_dead_letter_queue_is_known(backend: Backend) -> None:
    source = source_of(backend, "inbox")
    asyncio.run(source.bury(SourceMessage("m-1", "inbox", "{}"), REFUSAL))
    with recorded_calls() as calls:
        asyncio.run(source.bury(SourceMessage("m-2", "inbox", "{}"), REFUSAL))
    assert [call.operation for call in calls] == ["SendMessage"]


def put(queue: str, body: str = "{}", attributes: dict[str, Any] | None = None) -> None:
    """Puts a message in, as its owners do."""
    sqs = boto3.client("sqs", region_name=REGION)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes or {})


def stored(queue: str) -> list[dict[str, Any]]:
    """The messages that are visible, as SQS has them."""
    sqs = boto3.client("sqs", region_name=REGION)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    answer = sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=0
    )
    return [dict(message) for message in answer.get("Messages", [])]


TYPED = {
    "raw": {"DataType": "Binary", "BinaryValue": b"\x00"},
    "count": {"DataType": "Number", "StringValue": "2"},
    "when": {"DataType": "String.date", "StringValue": "today"},
}


def test_attributes_keep_their_types_as_a_dead_letter_and_when_they_are_moved_back(backend: Backend) -> None:
    source = source_of(backend, "inbox")
    put("inbox", attributes=TYPED)
    [arrived] = asyncio.run(source.receive(1, wait=0, visibility=30))
    assert texts(arrived.message.attributes) == {"count": "2", "when": "today"}
    assert asyncio.run(source.bury(arrived.message, REFUSAL))
    asyncio.run(source.delete(arrived.receipt))
    assert asyncio.run(source.redrive(10)) == 1
    [message] = stored("inbox")
    assert message["MessageAttributes"].pop("detent-id") == {"DataType": "String", "StringValue": arrived.message.id}
    assert message["MessageAttributes"] == TYPED


def test_dead_letters_of_another_queue_are_neither_shown_nor_moved(backend: Backend) -> None:
    source = source_of(backend, "inbox")
    sqs = boto3.client("sqs", region_name=REGION)
    shared = create_queue(sqs, "inbox-dead", max_receives=None)
    policy = json.dumps({"deadLetterTargetArn": shared, "maxReceiveCount": "5"})
    sqs.create_queue(QueueName="other", Attributes={"RedrivePolicy": policy})
    other = backend.source("other")
    for number in range(12):
        asyncio.run(other.bury(SourceMessage(f"o-{number}", "other", "{}"), REFUSAL))
    asyncio.run(source.bury(SourceMessage("m-1", "inbox", "{}"), REFUSAL))
    assert [letter.message.id for letter in asyncio.run(source.dead_letters(10))] == ["m-1"]
    assert len(asyncio.run(other.dead_letters(100))) == 12
    assert asyncio.run(source.redrive(10)) == 1
    assert [arrived.message.id for arrived in asyncio.run(source.receive(10, wait=0, visibility=30))] == ["m-1"]
    assert len(asyncio.run(other.dead_letters(100))) == 12


def test_a_dead_letter_that_sqs_made_is_that_of_the_queue_that_sqs_says(backend: Backend) -> None:
    """The emulators do not say it; the answers are as AWS documents `DeadLetterQueueSourceArn`."""
    source = source_of(backend, "inbox")
    asyncio.run(source.bury(SourceMessage("m-0", "inbox", "{}"), REFUSAL))  # the queues are looked up

    def letter(id: str, queue: str) -> dict[str, Any]:
        arn = f"arn:aws:sqs:{REGION}:123456789012:{queue}"
        forged = {"detent-queue": {"DataType": "String", "StringValue": "inbox"}}
        system = {"DeadLetterQueueSourceArn": arn, "SentTimestamp": "1", "ApproximateReceiveCount": "6"}
        return {
            "MessageId": id,
            "ReceiptHandle": "r",
            "Body": "{}",
            "MD5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
            "Attributes": system,
            "MessageAttributes": forged,
        }

    answer = {"Messages": [letter("m-1", "inbox"), letter("o-1", "other")]}
    with answering("sqs.ReceiveMessage", (200, answer), (200, {})):
        found = asyncio.run(source.dead_letters(10))
    assert [each.message.id for each in found] == ["m-1"]


def test_a_dead_letter_that_is_refused_again_during_a_redrive_is_moved_once(backend: Backend) -> None:
    source = source_of(backend, "inbox")
    for _ in range(2):
        asyncio.run(source.bury(SourceMessage("m-1", "inbox", "{}"), REFUSAL))
    asyncio.run(source.bury(SourceMessage("m-2", "inbox", "{}"), REFUSAL))
    assert asyncio.run(source.redrive(10)) == 2
    assert [letter.message.id for letter in asyncio.run(source.dead_letters(10))] == ["m-1"]


def test_a_dead_letter_without_room_for_its_id_stays_and_holds_up_no_other(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    source = source_of(backend, "inbox")
    text = {"DataType": "String", "StringValue": "x"}
    put("inbox-dead", "full", {f"a{number}": text for number in range(10)})
    put("inbox-dead", "x" * (1024 * 1024))
    put("inbox-dead", "{}")
    assert asyncio.run(source.redrive(10)) == 1
    assert "leaves no room for its id" in caplog.text
    [arrived] = asyncio.run(source.receive(10, wait=0, visibility=30))
    assert arrived.message.body == "{}"


def test_a_message_of_the_largest_size_becomes_no_dead_letter_of_ours_and_says_who_makes_it_one(
    backend: Backend,
) -> None:
    source = source_of(backend, "inbox")
    with pytest.raises(PayloadTooLarge, match=r"no room for the reason.*SQS itself"):
        asyncio.run(source.bury(SourceMessage("m-1", "inbox", "x" * (1024 * 1024)), REFUSAL))


def test_the_largest_message_that_may_be_sent_is_taken_with_its_id(backend: Backend) -> None:
    source = source_of(backend, "inbox")
    with pytest.raises(PayloadTooLarge):
        asyncio.run(source.send("x" * (1024 * 1024)))
    asyncio.run(source.send("x" * (1024 * 1024 - 115), id="x" * 100))
    [arrived] = asyncio.run(source.receive(1, wait=0, visibility=30))
    assert arrived.message.id == "x" * 100


def test_what_is_refused_again_after_it_was_put_back_is_no_duplicate_to_a_fifo_queue(backend: Backend) -> None:
    """SQS drops a message whose deduplication id it knows, for five minutes, though the first one was deleted."""
    source = source_of(backend, "inbox.fifo")
    asyncio.run(source.send("{}", id="m-1"))
    with recorded_calls() as calls:
        for _ in range(2):
            [arrived] = asyncio.run(source.receive(10, wait=0, visibility=30))
            assert asyncio.run(source.bury(arrived.message, REFUSAL))
            asyncio.run(source.delete(arrived.receipt))
            assert asyncio.run(source.redrive(10)) == 1
    used = [call.params["MessageDeduplicationId"] for call in calls if call.operation == "SendMessage"]
    assert len(set(used)) == 4
    [arrived] = asyncio.run(source.receive(10, wait=0, visibility=30))
    assert arrived.message.id == "m-1"


def test_a_body_that_sqs_refuses_is_refused_before_it_is_sent(backend: Backend) -> None:
    source = source_of(backend, "inbox")
    with recorded_calls() as calls, pytest.raises(InputError, match="which SQS refuses"):
        asyncio.run(source.send('{"a":"\x01"}'))
    assert calls == []


def test_a_dead_letter_whose_move_is_interrupted_is_in_both_queues_and_lost_in_none(backend: Backend) -> None:
    source = source_of(backend, "inbox")
    asyncio.run(source.bury(SourceMessage("m-1", "inbox", "{}"), REFUSAL))
    denied = (403, {"__type": "AccessDenied", "message": "no"})
    with answering("sqs.DeleteMessage", denied), pytest.raises(ConfigurationError):
        asyncio.run(source.redrive(10))
    [arrived] = asyncio.run(source.receive(10, wait=0, visibility=30))
    assert arrived.message.id == "m-1", "which starts nothing twice"
