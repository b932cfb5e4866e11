"""Queues of users on SQS, by name or ARN, and the dead-letter queues that their redrive policies name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from detent_state_machine.envelopes import (
    ID,
    Refusal,
    SourceMessage,
    check_outgoing,
    dead_letter_attributes,
    refusal_in,
)
from detent_state_machine.errors import ConfigurationError

from detent_infra.aws.calls import Calls
from detent_infra.aws.queue import SqsQueue, check_text, count_of
from detent_infra.aws.resources import Clients
from detent_infra.ports import Arrived, DeadLetter, Ids

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, MessageTypeDef

LOOK = 10.0
"""Seconds that a dead letter is out of sight while somebody looks at it."""
MOVE = 30.0
"""Seconds for which a dead letter that is being moved is nobody else's."""


class SqsSource:
    """A queue that is looked up when it is first needed. `place`: its name in the stack's account, or its ARN."""

    def __init__(
        self, clients: Clients, calls: Callable[[str], Calls], queue: Callable[[str], SqsQueue], ids: Ids, place: str
    ) -> None:
        self.name = place.rpartition(":")[2]
        self._account = place.split(":")[4] if place.startswith("arn:") else ""
        self._clients = clients
        self._calls = calls(f"the queue {self.name!r}")
        self._queue_at = queue
        self._ids = ids
        self._at = partial(SqsSource, clients, calls, queue, ids)
        self._url = ""
        self._queue: SqsQueue | None = None
        self._dead_letters: SqsSource | None = None

    async def send(self, body: str, *, id: str | None = None, attributes: Mapping[str, str] | None = None) -> str:
        check_outgoing(body, id, attributes or {})
        id = self._ids() if id is None else id
        await self._send(body, {**(attributes or {}), ID: id}, group="", unique=id)
        return id

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Arrived]:
        found = await self._receive(limit, wait, visibility)
        return [Arrived(self._message(one), one.get("ReceiptHandle", ""), count_of(one)) for one in found]

    async def extend(self, receipt: str, visibility: float) -> None:
        await (await self._opened()).extend(receipt, visibility)

    async def delete(self, receipt: str) -> None:
        await (await self._opened()).delete(receipt)

    async def bury(self, message: SourceMessage, refusal: Refusal) -> bool:
        dead = await self._dead()
        if dead is None:
            return False
        attributes = dead_letter_attributes(message, refusal)
        await dead._send(message.body, attributes, group=message.group, unique=message.id)
        return True

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        dead = await self._dead_or_error()
        found: list[MessageTypeDef] = []
        while len(found) < limit and (more := await dead._receive(limit - len(found), 0, LOOK)):
            found += more
        for one in found:
            await dead.extend(one.get("ReceiptHandle", ""), 0)
        return [DeadLetter(self._message(one), refusal_in(_attributes(one))) for one in found]

    async def redrive(self, limit: int) -> int:
        dead = await self._dead_or_error()
        found = await dead._receive(limit, 0, MOVE)
        for one in found:
            message = self._message(one)
            # Sent before it is deleted: a crash in between leaves it twice, and the same id starts nothing twice.
            attributes = {**message.attributes, ID: message.id}
            await self._send(message.body, attributes, group=message.group, unique=one.get("MessageId", ""))
            await dead.delete(one.get("ReceiptHandle", ""))
        return len(found)

    # ---- SQS ------------------------------------------------------------------------------------------------

    async def _opened(self) -> SqsQueue:
        if self._queue is None:
            account = {"QueueOwnerAWSAccountId": self._account} if self._account else {}
            answer = await self._calls(lambda: self._clients.sqs.get_queue_url(QueueName=self.name, **account))
            self._url = answer["QueueUrl"]
            self._queue = self._queue_at(self._url)
        return self._queue

    async def _send(self, body: str, attributes: Mapping[str, str], *, group: str, unique: str) -> None:
        """`group` and `unique` (the deduplication id) are for FIFO queues only."""
        check_text(body)
        await self._opened()
        own: dict[str, MessageAttributeValueTypeDef] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
        if self.name.endswith(".fifo"):
            await self._calls(
                lambda: self._clients.sqs.send_message(
                    QueueUrl=self._url,
                    MessageBody=body,
                    MessageAttributes=own,
                    MessageGroupId=group or "detent",
                    MessageDeduplicationId=unique,
                )
            )
        else:
            await self._calls(
                lambda: self._clients.sqs.send_message(QueueUrl=self._url, MessageBody=body, MessageAttributes=own)
            )

    async def _receive(self, limit: int, wait: float, visibility: float) -> list[MessageTypeDef]:
        queue = await self._opened()
        return await queue.poll(limit, wait=wait, visibility=visibility)

    def _message(self, one: MessageTypeDef) -> SourceMessage:
        system = one.get("Attributes", {})
        return SourceMessage.of(
            self.name,
            one.get("MessageId", ""),
            one.get("Body", ""),
            sent=int(system.get("SentTimestamp", "0")),
            attributes=_attributes(one),
            group=system.get("MessageGroupId", ""),
        )

    async def _dead(self) -> SqsSource | None:
        """The queue's dead-letter queue, if it has one. What was found stays found."""
        if self._dead_letters is None:
            await self._opened()
            answer = await self._calls(
                lambda: self._clients.sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["RedrivePolicy"])
            )
            policy: dict[str, object] = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
            if isinstance(arn := policy.get("deadLetterTargetArn"), str):
                self._dead_letters = self._at(arn)
        return self._dead_letters

    async def _dead_or_error(self) -> SqsSource:
        dead = await self._dead()
        if dead is None:
            raise ConfigurationError(
                f"The queue {self.name!r} has no dead-letter queue.",
                advice="Give it a redrive policy: what cannot be used is kept in the queue until it expires.",
            )
        return dead


def _attributes(one: MessageTypeDef) -> dict[str, str]:
    """The attributes that are text."""
    found = {name: value.get("StringValue") for name, value in one.get("MessageAttributes", {}).items()}
    return {name: value for name, value in found.items() if value is not None}
