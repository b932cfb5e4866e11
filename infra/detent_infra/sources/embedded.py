"""Queues of users on the embedded backends: two queues of the backend's own, for messages and for dead letters.

A message rides in an envelope of JSON that holds what SQS keeps beside a body: its id, when it was sent, attributes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

from detent_state_machine.envelopes import (
    Refusal,
    SourceMessage,
    check_outgoing,
    dead_letter_attributes,
    refusal_in,
    texts,
)
from detent_state_machine.errors import CorruptRecord

from detent_infra.ports import Arrived, Clock, DeadLetter, Ids, MessageQueue, Received

LOOK = 2.0
"""Seconds that a dead letter is out of sight while somebody looks at it."""
MOVE = 30.0
"""Seconds for which a dead letter that is being moved is nobody else's."""


def queue_name(source: str) -> str:
    """What a user's queue is called inside a backend, apart from the backend's own."""
    return f"source/{source}"


def dead_name(source: str) -> str:
    """The name of a user's queue that takes the dead letters of another one."""
    return f"{source}-dead"


@dataclass(frozen=True)
class EmbeddedSource:
    """A `Source` on two queues of one backend."""

    name: str
    queue: MessageQueue
    dead: MessageQueue
    clock: Clock
    ids: Ids

    async def send(self, body: str, *, id: str | None = None, attributes: Mapping[str, str] | None = None) -> str:
        given = attributes or {}
        check_outgoing(body, id, given)
        id = self.ids() if id is None else id
        await self.queue.send([self._wrapped(id, body, given)])
        return id

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Arrived]:
        received = await self.queue.receive(limit, wait=wait, visibility=visibility)
        return [self._arrived(one) for one in received]

    async def extend(self, receipt: str, visibility: float) -> None:
        await self.queue.extend(receipt, visibility)

    async def delete(self, receipt: str) -> None:
        await self.queue.delete(receipt)

    async def bury(self, message: SourceMessage, refusal: Refusal) -> bool:
        attributes = texts(dead_letter_attributes(message, refusal))
        await self.dead.send([self._wrapped(message.id, message.body, attributes)])
        return True

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        received = await self.dead.receive(limit, wait=0, visibility=LOOK)
        for one in received:
            await self.dead.extend(one.receipt, 0)
        return [DeadLetter(self._arrived(one).message, refusal_in(_opened(one.body).attributes)) for one in received]

    async def redrive(self, limit: int) -> int:
        received = await self.dead.receive(limit, wait=0, visibility=MOVE)
        for one in received:
            message = self._arrived(one).message
            # Sent before it is deleted: a crash in between leaves it twice, and the same id starts nothing twice.
            await self.queue.send([self._wrapped(message.id, message.body, texts(message.attributes))])
            await self.dead.delete(one.receipt)
        return len(received)

    def _wrapped(self, id: str, body: str, attributes: Mapping[str, str]) -> str:
        kept = {"v": 1, "id": id, "sent": self.clock(), "attributes": dict(attributes), "body": body}
        return json.dumps(kept, separators=(",", ":"))

    def _arrived(self, received: Received) -> Arrived:
        kept = _opened(received.body)
        message = SourceMessage.of(self.name, kept.id, kept.body, sent=kept.sent, attributes=kept.attributes)
        return Arrived(message, received.receipt, received.count)


class _Kept(NamedTuple):
    id: str
    sent: int
    attributes: Mapping[str, str]
    body: str


def _opened(text: str) -> _Kept:
    value = cast("object", json.loads(text))
    match value:
        case {"v": 1, "id": str(id), "sent": int(sent), "attributes": dict(), "body": str(body)}:
            attributes = cast("dict[str, dict[str, str]]", value)["attributes"]
            return _Kept(id, sent, attributes, body)
        case _:
            raise CorruptRecord(
                f"A queue of the backend holds what detent did not send: {text[:80]!r}.",
                advice="Messages are put in with `detent send`.",
            )
