"""A backend whose table, queue and blobs meter what is asked of them as AWS does, by the step that asks."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TypeVar, cast

from detent_state_machine import keys
from detent_state_machine.writes import DeleteItem, Item, Key, PutItem, UpdateItem

from detent_infra.ops.cost.metering import Usage, with_key
from detent_infra.ports import Backend, Conflict, MessageQueue, Received, Table
from detent_infra.relay import RelayedTable, TableCall
from detent_infra.worker import BATCH

_T = TypeVar("_T")

RUN = ""
"""The part of a run that belongs to no step: its start, its end, and its place in the index."""
BATCH_GET = 100
"""Items that one BatchGetItem reads."""
SQS_MAX_DELAY = 900.0
"""Seconds that SQS delays a message at most."""


@dataclass
class MeteredDelivery:
    """One delivery of a message, and the step that it is at.

    The engine reads for a step before it writes that step's record or begins its body. So what was read waits, as
    `unnamed`, until one of the two names the step.
    """

    path: str
    unnamed: Usage = field(default_factory=Usage)
    began: bool = False
    """Whether the run was read, which the message's own step pays for."""
    bodies_until: int | None = None
    """When the last body ended that it ran, in milliseconds since the epoch."""


class Parts:
    """The usage of each step by its path, and of the run itself under `RUN`."""

    def __init__(self) -> None:
        self.usage: dict[str, Usage] = {RUN: Usage()}
        self.shares: dict[str, float] = {}
        """Of a receive and of a deletion, by message: up to 10 messages that were sent together share them."""
        self._at: ContextVar[MeteredDelivery | None] = ContextVar("delivery", default=None)

    def of(self, path: str) -> Usage:
        return self.usage.setdefault(path, Usage())

    def begin(self, delivery: MeteredDelivery) -> None:
        """What this task and its tasks ask for from now on is asked by this delivery."""
        self._at.set(delivery)

    def end(self, delivery: MeteredDelivery) -> None:
        self.name(delivery.path)

    def name(self, path: str) -> MeteredDelivery | None:
        """The delivery is at this step now."""
        delivery = self._at.get()
        if delivery is not None:
            delivery.path = path
            self.of(path).add(delivery.unnamed)
            delivery.unnamed = Usage()
        return delivery

    @property
    def here(self) -> Usage:
        """Of the step that the delivery is at; of the run, outside of deliveries."""
        delivery = self._at.get()
        return self.of(RUN if delivery is None else delivery.path)

    @property
    def ahead(self) -> Usage:
        """Of the step that the delivery comes to next."""
        delivery = self._at.get()
        return self.of(RUN) if delivery is None else delivery.unnamed

    def read_run(self) -> Usage:
        """Who pays for a look at the run."""
        delivery = self._at.get()
        if delivery is None or delivery.began:
            return self.ahead
        delivery.began = True
        return self.here


class MeteredTable(RelayedTable):
    """Meters what belongs to runs, and what is written beside it; reading definitions is left out."""

    def __init__(self, table: Table, parts: Parts) -> None:
        super().__init__(table)
        self._parts = parts

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        if call.writes:
            return await self._write(call, act)
        found = await act()
        items = cast("list[Item | None]", found if call.operation == "get_many" else [found])
        if call.operation == "get" and keys.run_id_of(call.keys[0].pk):
            usage = self._parts.read_run()
            usage.asked("dynamodb.GetItem")
        elif call.operation == "get_many":
            usage = self._parts.ahead
            usage.asked("dynamodb.BatchGetItem", math.ceil(len(call.keys) / BATCH_GET))
        else:
            return found
        for key, item in zip(call.keys, items, strict=True):
            usage.read(_whole(key, item))
        return found

    async def _write(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        usage = self._payer(call.writes[0].key)
        times = 2 if call.operation == "transact" else 1
        usage.asked(f"dynamodb.{_request_of(call)}")
        before = [_whole(write.key, await self._table.get(write.key)) for write in call.writes]
        try:
            done = await act()
        except Conflict:
            for item in before:
                usage.refused(item, times=times)
            raise
        for write, item in zip(call.writes, before, strict=True):
            usage.wrote(item, _whole(write.key, await self._table.get(write.key)), times=times)
        return done

    def _payer(self, key: Key) -> Usage:
        if key.sk.startswith(keys.STEP_PREFIX):
            path = key.sk.removeprefix(keys.STEP_PREFIX)
            return self._parts.of(path) if self._parts.name(path) is None else self._parts.here
        return self._parts.of(RUN) if key.sk == keys.RUN else self._parts.here


class MeteredQueue:
    """Receives and deletions are metered by whoever delivers: on Lambda they are not the engine's."""

    def __init__(self, queue: MessageQueue, parts: Parts) -> None:
        self._queue = queue
        self._parts = parts
        self.max_delay = SQS_MAX_DELAY

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        for at in range(0, len(bodies), BATCH):
            batch = bodies[at : at + BATCH]
            self._parts.here.asked_queue("SendMessageBatch", sum(len(body.encode()) for body in batch))
            self._parts.shares.update(dict.fromkeys(batch, 1 / len(batch)))
        await self._queue.send(bodies, delay=delay)

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Received]:
        return await self._queue.receive(limit, wait=wait, visibility=visibility)

    async def extend(self, receipt: str, visibility: float) -> None:
        self._parts.ahead.asked_queue("ChangeMessageVisibility")
        await self._queue.extend(receipt, visibility)

    async def extend_many(self, receipts: Sequence[str], visibility: float) -> None:
        self._parts.ahead.asked_queue("ChangeMessageVisibilityBatch", times=math.ceil(len(receipts) / BATCH))
        await self._queue.extend_many(receipts, visibility)

    async def delete(self, receipt: str) -> None:
        await self._queue.delete(receipt)


class MeteredBlobs:
    """`known`: texts by reference. Any other text that the run had is not looked at, and is null here."""

    def __init__(self, known: Mapping[str, str], parts: Parts) -> None:
        self._texts = dict(known)
        self._parts = parts

    async def put(self, data: bytes) -> str:
        self._parts.here.asked("s3.PutObject")
        ref = sha256(data).hexdigest()
        self._texts[ref] = data.decode()
        return ref

    async def get(self, ref: str) -> bytes:
        self._parts.ahead.asked("s3.GetObject")
        return self._texts.get(ref, "null").encode()


def metered(backend: Backend, parts: Parts, texts: Mapping[str, str]) -> Backend:
    return replace(
        backend,
        table=MeteredTable(backend.table, parts),
        queue=MeteredQueue(backend.queue, parts),
        blobs=MeteredBlobs(texts, parts),
    )


def _request_of(call: TableCall) -> str:
    if call.operation == "transact":
        return "TransactWriteItems"
    match call.writes[0]:
        case PutItem():
            return "PutItem"
        case UpdateItem():
            return "UpdateItem"
        case DeleteItem():
            return "DeleteItem"


def _whole(key: Key, item: Item | None) -> Item | None:
    return None if item is None else with_key(key, item)
