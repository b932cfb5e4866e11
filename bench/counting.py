"""A table and a queue that count what is asked of them: the same figures on every backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

from detent_infra.ports import Backend, MessageQueue, Received, Table
from detent_infra.relay import RelayedTable, TableCall
from detent_state_machine.item_limits import size_of
from detent_state_machine.writes import Item, Key

_T = TypeVar("_T")


@dataclass
class Counts:
    """Requests so far. A refused write is a write too: every cloud bills it."""

    written: list[Key] = field(default_factory=list[Key])
    """The key of each write, those in transactions included."""
    transactions: int = 0
    read: list[Key] = field(default_factory=list[Key])
    queries: int = 0
    sent: int = 0
    """Messages, not requests."""
    received: int = 0
    deleted: int = 0
    extended: int = 0
    item_bytes: dict[Key, int] = field(default_factory=dict[Key, int])
    """The largest size each item had, as DynamoDB counts it."""

    def clear(self) -> None:
        """Counts from nothing again."""
        self.__dict__.update(Counts().__dict__)


def counted(backend: Backend) -> tuple[Backend, Counts]:
    """The backend with table and queue counted. Dead letters, blobs and logs are not."""
    counts = Counts()
    table, queue = CountingTable(backend.table, counts), CountingQueue(backend.queue, counts)
    return replace(backend, table=table, queue=queue), counts


class CountingTable(RelayedTable):
    def __init__(self, table: Table, counts: Counts) -> None:
        super().__init__(table)
        self._counts = counts

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        counts = self._counts
        counts.read += call.keys
        counts.written += [write.key for write in call.writes]
        counts.queries += call.operation in ("query", "query_index")
        counts.transactions += call.operation == "transact"
        result = await act()
        if call.operation == "transact":
            for write in call.writes:
                self._weigh(write.key, await self._table.get(write.key))
        elif call.writes:
            self._weigh(call.writes[0].key, cast("Item | None", result))
        return result

    def _weigh(self, key: Key, item: Item | None) -> None:
        if item is not None:
            largest = self._counts.item_bytes
            largest[key] = max(largest.get(key, 0), size_of(key, item))


class CountingQueue:
    def __init__(self, queue: MessageQueue, counts: Counts) -> None:
        self._queue = queue
        self._counts = counts
        self.max_delay = queue.max_delay

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        self._counts.sent += len(bodies)
        await self._queue.send(bodies, delay=delay)

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Received]:
        received = await self._queue.receive(limit, wait=wait, visibility=visibility)
        self._counts.received += len(received)
        return received

    async def extend(self, receipt: str, visibility: float) -> None:
        self._counts.extended += 1
        await self._queue.extend(receipt, visibility)

    async def extend_many(self, receipts: Sequence[str], visibility: float) -> None:
        self._counts.extended += len(receipts)
        await self._queue.extend_many(receipts, visibility)

    async def delete(self, receipt: str) -> None:
        self._counts.deleted += 1
        await self._queue.delete(receipt)
