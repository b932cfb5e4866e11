"""Queues of users on SQS, by name or ARN, and the dead-letter queues that their redrive policies name."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from detent_state_machine.envelopes import (
    ID,
    QUEUE,
    Attribute,
    Refusal,
    SourceMessage,
    attribute_of,
    check_outgoing,
    dead_letter_attributes,
    put_back_attributes,
    refusal_in,
    typed,
)
from detent_state_machine.errors import ConfigurationError, PayloadTooLarge

from detent_infra.aws.calls import Calls
from detent_infra.aws.queue import MAX_BATCH, SqsQueue, check_text, count_of
from detent_infra.aws.resources import Clients
from detent_infra.ports import Arrived, DeadLetter, Ids

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, MessageTypeDef

log = logging.getLogger("detent")

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
        # Not its first id: refused, put back and refused again within five minutes, SQS would drop it as a duplicate.
        await dead._send(message.body, attributes, group=message.group, unique=message.queue_id or message.id)
        return True

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        dead = await self._dead_or_error()
        found: list[MessageTypeDef] = []
        async with aclosing(self._letters(dead, LOOK)) as letters:
            async for one in letters:
                found.append(one)
                if len(found) == limit:
                    break
        for one in found:
            await dead.extend(one.get("ReceiptHandle", ""), 0)
        return [DeadLetter(self._message(one), refusal_in(_attributes(one))) for one in found]

    async def redrive(self, limit: int) -> int:
        dead = await self._dead_or_error()
        moved: set[str] = set()
        again: list[str] = []
        async with aclosing(self._letters(dead, MOVE)) as letters:
            async for one in letters:
                id = self._message(one).id
                if id in moved:  # it was refused again meanwhile
                    again.append(one.get("ReceiptHandle", ""))
                elif await self._put_back(dead, one):
                    moved.add(id)
                if len(moved) == limit:
                    break
        for receipt in again:
            await dead.extend(receipt, 0)
        return len(moved)

    async def _put_back(self, dead: SqsSource, one: MessageTypeDef) -> bool:
        message = self._message(one)
        try:
            attributes = put_back_attributes(message)
        except PayloadTooLarge as error:
            log.warning("a dead letter stays where it is: %s", error)
            return False
        # Sent before it is deleted: a crash in between leaves it twice, and the same id starts nothing twice.
        await self._send(message.body, attributes, group=message.group, unique=message.queue_id)
        await dead.delete(one.get("ReceiptHandle", ""))
        return True

    async def _letters(self, dead: SqsSource, hidden: float) -> AsyncGenerator[MessageTypeDef, None]:
        """The dead letters of this queue, each hidden for so many seconds. Those of others are soon seen again."""
        seen: set[str] = set()
        held: dict[str, str] = {}
        try:
            while found := await dead._receive(MAX_BATCH, 0, hidden):
                held |= {one.get("MessageId", ""): one.get("ReceiptHandle", "") for one in found}
                fresh = [one for one in found if one.get("MessageId", "") not in seen]
                if not fresh:
                    return  # what was hidden first is seen again: there is no end of others
                for one in fresh:
                    seen.add(one.get("MessageId", ""))
                    if _queue_of(one) in ("", self.name):
                        del held[one.get("MessageId", "")]
                        yield one
        finally:
            for receipt in held.values():
                await dead.extend(receipt, 0)

    # ---- SQS ------------------------------------------------------------------------------------------------

    async def _opened(self) -> SqsQueue:
        if self._queue is None:
            account = {"QueueOwnerAWSAccountId": self._account} if self._account else {}
            answer = await self._calls(lambda: self._clients.sqs.get_queue_url(QueueName=self.name, **account))
            self._url = answer["QueueUrl"]
            self._queue = self._queue_at(self._url)
        return self._queue

    async def _send(self, body: str, attributes: Mapping[str, Attribute], *, group: str, unique: str) -> None:
        """`group` and `unique` (the deduplication id) are for FIFO queues only."""
        check_text(body)
        await self._opened()
        own = {name: _spelled(attribute) for name, attribute in attributes.items()}
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


def _queue_of(letter: MessageTypeDef) -> str:
    """The queue that a dead letter comes from, as SQS says if it moved it, else as detent did; "" if neither does."""
    arn = letter.get("Attributes", {}).get("DeadLetterQueueSourceArn", "")
    told = _attributes(letter).get(QUEUE, "")
    return arn.rpartition(":")[2] or (told if isinstance(told, str) else "")


def _attributes(one: MessageTypeDef) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {}
    for name, given in one.get("MessageAttributes", {}).items():
        value = given.get("StringValue", given.get("BinaryValue"))
        if isinstance(value, str | bytes):
            found[name] = attribute_of(given["DataType"], value)
    return found


def _spelled(attribute: Attribute) -> MessageAttributeValueTypeDef:
    one = typed(attribute)
    if isinstance(one.value, bytes):
        return {"DataType": one.kind, "BinaryValue": one.value}
    return {"DataType": one.kind, "StringValue": one.value}
