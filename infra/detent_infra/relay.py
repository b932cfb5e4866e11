"""A table whose calls all go through one method: what stands between a caller and a table overrides only that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from detent_state_machine.writes import Item, Key, Write

from detent_infra.ports import Page, Table

__all__ = ["RelayedTable", "TableCall"]

_T = TypeVar("_T")

Operation: TypeAlias = Literal["get", "get_many", "write", "transact", "query", "query_index"]


@dataclass(frozen=True, slots=True)
class TableCall:
    """What is asked: keys of items to read, or writes, or the partition of a query."""

    operation: Operation
    keys: Sequence[Key] = ()
    writes: Sequence[Write] = ()
    partition: str = ""


class RelayedTable(ABC):
    """Hands every call to `relay`, with what makes it on the table behind."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @abstractmethod
    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        """What becomes of the call. `act` makes it, and may be called any number of times."""

    async def get(self, key: Key) -> Item | None:
        return await self.relay(TableCall("get", [key]), lambda: self._table.get(key))

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        return await self.relay(TableCall("get_many", keys), lambda: self._table.get_many(keys))

    async def write(self, write: Write) -> Item | None:
        return await self.relay(TableCall("write", writes=[write]), lambda: self._table.write(write))

    async def transact(self, writes: Sequence[Write]) -> None:
        await self.relay(TableCall("transact", writes=writes), lambda: self._table.transact(writes))

    async def query(
        self,
        pk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        def act() -> Awaitable[Page]:
            return self._table.query(pk, start=start, end=end, forward=forward, limit=limit, after=after)

        return await self.relay(TableCall("query", partition=pk), act)

    async def query_index(
        self,
        ipk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        def act() -> Awaitable[Page]:
            return self._table.query_index(ipk, start=start, end=end, forward=forward, limit=limit, after=after)

        return await self.relay(TableCall("query_index", partition=ipk), act)
