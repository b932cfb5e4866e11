"""Queues of users on SQS: what the embedded backends have no counterpart for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import boto3
import pytest
from detent_infra.ports import Backend
from detent_state_machine.envelopes import Refusal, SourceMessage
from detent_state_machine.errors import ConfigurationError, InputError

from tests.aws_stack import REGION, answering, moto_backend, recorded_calls
from tests.source_queues import create_queue, source_of

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


def test_attributes_that_are_not_text_are_left_out(backend: Backend) -> None:
    source = source_of(backend, "inbox")
    sqs = boto3.client("sqs", region_name=REGION)
    sqs.send_message(
        QueueUrl=sqs.get_queue_url(QueueName="inbox")["QueueUrl"],
        MessageBody="{}",
        MessageAttributes={
            "raw": {"DataType": "Binary", "BinaryValue": b"\x00"},
            "count": {"DataType": "Number", "StringValue": "2"},
        },
    )
    [arrived] = asyncio.run(source.receive(1, wait=0, visibility=30))
    assert arrived.message.attributes == {"count": "2"}


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
