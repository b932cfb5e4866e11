"""Reads the answers of a table, which come in pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import Protocol

from detent_state_machine.writes import Item, Key

from detent_infra.ports import Page


class Query(Protocol):
    """A query of a table, but for the page that is wanted."""

    def __call__(self, *, after: str | None) -> Awaitable[Page]: ...


async def pages(query: Query) -> AsyncGenerator[tuple[tuple[Key, Item], ...], None]:
    """What each page holds, to the last one."""
    after: str | None = None
    while True:
        page = await query(after=after)
        yield page.items
        after = page.next
        if after is None:
            return
