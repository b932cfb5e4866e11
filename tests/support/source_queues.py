"""Queues that detent does not own, for tests: made where the backend does not make them by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from detent_infra.aws.source import SqsSource
from detent_infra.memory import MemoryQueue
from detent_infra.ports import Backend, Source
from detent_infra.sources.embedded import EmbeddedSource
from detent_infra.sqlite.queue import SqliteQueue

from tests.support.queue_counts import messages_in

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType


def source_of(backend: Backend, name: str, *, max_receives: int | None = 10) -> Source:
    """The queue of this name, with a dead-letter queue unless `max_receives` is None."""
    source = backend.source(name)
    if isinstance(source, SqsSource):
        create_queue(source._clients.sqs, name, max_receives=max_receives)
    return source


async def stored_in(source: Source) -> int:
    """How many messages are not acknowledged: waiting, delayed or in flight."""
    match source:
        case EmbeddedSource(queue=MemoryQueue() as queue):
            return len(queue)
        case EmbeddedSource(queue=SqliteQueue() as queue):
            [row] = queue._session().read("SELECT count(*) FROM messages WHERE queue = ?", (queue._name,))
            return int(row[0])
        case SqsSource():
            await source._opened()
            return messages_in(source._clients.sqs, source._url)
        case _:
            raise TypeError(source)


def create_queue(client: SQSClient, name: str, *, max_receives: int | None = 10) -> str:
    """Creates the queue on SQS, or on what stands for it, with its dead-letter queue. Returns its ARN."""
    stem, dot, suffix = name.partition(".")
    fifo: dict[QueueAttributeNameType, str] = {"FifoQueue": "true"} if dot else {}
    attributes = dict(fifo)
    if max_receives is not None:
        dead_url = client.create_queue(QueueName=f"{stem}-dead{dot}{suffix}", Attributes=fifo)["QueueUrl"]
        dead = client.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": str(max_receives)})
    url = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
