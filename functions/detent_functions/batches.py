"""A batch of messages as an SQS event source mapping hands it over, and the answer that says which of them to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict, cast

from aws_lambda_powertools.utilities.typing import LambdaContext
from detent_infra.ports import Received

from detent_functions.telemetry import Counters, invocation, log

RESERVE_MS = 500
"""Before the invocation's end, when unfinished messages are given up: an invocation that runs into its timeout fails
the whole batch, the finished messages too."""


class SqsAttributes(TypedDict):
    ApproximateReceiveCount: str


class SqsRecord(TypedDict):
    """The members of a record that we read."""

    messageId: str
    receiptHandle: str
    body: str
    attributes: SqsAttributes


class SqsEvent(TypedDict):
    Records: list[SqsRecord]


class BatchItemFailure(TypedDict):
    itemIdentifier: str


class BatchResponse(TypedDict):
    """The event source mapping deletes every message of the batch but these."""

    batchItemFailures: list[BatchItemFailure]


class BatchRecord(NamedTuple):
    """A record of the batch. Without a message, SQS did not send it; an id of "" fails the whole batch (Lambda)."""

    id: str
    message: Received | None


def records_of(event: object) -> list[object]:
    """The records of an `SqsEvent`, whatever else it is."""
    match event:
        case {"Records": list()}:
            return cast("dict[str, list[object]]", event)["Records"]
        case _:
            log.error("the event holds no records of SQS")
            return []


def read(record: object) -> BatchRecord:
    """The message of an `SqsRecord`, whatever else it is."""
    match record:
        case {
            "messageId": str(id),
            "body": str(body),
            "receiptHandle": str(receipt),
            "attributes": {"ApproximateReceiveCount": str(count)},
        } if count.isdecimal() and len(count) < 10:
            return BatchRecord(id, Received(body, receipt, int(count)))
        case {"messageId": str(id)}:
            return BatchRecord(id, None)
        case _:
            return BatchRecord("", None)


def answer(
    ids: Sequence[str], context: LambdaContext, drive: Callable[[Counters, int], Sequence[str]]
) -> BatchResponse:
    """Keeps the messages that `drive` names, or all of them if it raises. Never raises.

    `drive` gets the milliseconds that it has.
    """
    with invocation(context) as counters:
        try:
            kept = drive(counters, context.get_remaining_time_in_millis())
        except Exception:  # noqa: BLE001 - the batch must come back whatever it was, and the log says what
            log.exception("none of the batch was handled")
            kept = ids
        counters.add("MessagesHandled", len(ids) - len(kept))
        counters.add("MessagesKept", len(kept))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in kept]}
