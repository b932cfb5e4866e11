"""Facts that end waits: looked up among what is stored, and the items by which waits are found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from detent_state_machine import keys
from detent_state_machine.decisions import Fact, FactQuery
from detent_state_machine.errors import CorruptRecord
from detent_state_machine.events import matches, stored_payload
from detent_state_machine.messages import Drive
from detent_state_machine.records import ErrorInfo, Payload
from detent_state_machine.writes import DeleteItem, Key

from detent_infra import payloads
from detent_infra.executor import Executor
from detent_infra.pages import pages
from detent_infra.ports import Backend


async def answer(backend: Backend, executor: Executor, workflow: str, step: str, question: FactQuery) -> Fact | None:
    """The oldest stored fact that ends the wait, if one does, as far as this worker's code can tell."""
    oldest: tuple[Key, Payload, str] | None = None
    async for key, payload, text in _matching(backend, question):
        oldest = oldest or (key, payload, text)
        if question.brought is None or question.brought == key:
            key, payload, text = oldest
            error: ErrorInfo | None = None
            if executor.knows(workflow, step):
                error = executor.misfit(workflow, step, text)
            return Fact(key, payload, error)
    return None


async def stored(backend: Backend, question: FactQuery) -> Key | None:
    """Where the oldest stored fact is that ends the wait."""
    async for key, _, _ in _matching(backend, question):
        return key
    return None


async def unregister(backend: Backend, message: Drive) -> None:
    """Deletes the item by which the message's fact found a wait that has ended: the next will not. WAITS.md 14."""
    if message.fact is not None:
        waiter = keys.waiter_sort(message.run_id, message.path)
        await backend.table.write(DeleteItem(Key(message.fact.pk, waiter)))


async def _matching(backend: Backend, question: FactQuery) -> AsyncIterator[tuple[Key, Payload, str]]:
    brought = question.brought
    end = keys.end_of(keys.EVENT_PREFIX) if brought is None else f"{brought.sk}\0"
    query = partial(backend.table.query, question.partition, start=question.start, end=end)
    async for page in pages(query):
        for key, item in page:
            payload = stored_payload(item)
            try:
                text = await payloads.load(backend.blobs, payload)
            except CorruptRecord:
                continue  # Its blob is gone: it was kept too long, as the event itself.
            if matches(question.match, text):
                yield key, payload, text
