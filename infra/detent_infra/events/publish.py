"""Publishing: the event is stored, then whoever waits for it gets a message that names it.

    publisher:  store the event          look for waiters     send to each    return
    worker:     write WAITING            register a waiter    look for events    acknowledge

One of the two sees the other, whatever the order. Repeating a publish under one id repeats all of it, harmlessly.
"""

from __future__ import annotations

from dataclasses import dataclass

from detent_state_machine import keys
from detent_state_machine.errors import KeyConflict
from detent_state_machine.events import EVENT_RETENTION_DAYS, EventAddress, StoredEvent
from detent_state_machine.messages import Drive, Message, Wake, encode

from detent_infra import payloads
from detent_infra.ports import Backend, Conflict

GROUP = 100
"""Waiters woken by one message."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to publish. `payload` is JSON text. One id is stored once; without one, a new id is made."""

    address: EventAddress
    payload: str
    id: str | None = None


async def publish(backend: Backend, new: NewEvent) -> StoredEvent:
    """Stores the event and sends to every step run that waits for it. When it returns, the event is not lost.

    Raises `KeyConflict` if its id was published with another payload, `PayloadTooLarge`.
    """
    now = backend.clock()
    expires = now // 1000 + EVENT_RETENTION_DAYS * 86_400
    event = StoredEvent(
        new.address,
        backend.ids() if new.id is None else new.id,
        now,
        await payloads.store(backend.blobs, new.payload),
    )
    if new.id is not None:
        event = await _as_first_stored(backend, event, expires)
    try:
        await backend.table.write(event.put(expires))
    except Conflict as conflict:
        if StoredEvent.from_item(new.address, conflict.item or {}).payload != event.payload:
            raise KeyConflict(
                f"Event {new.id!r} of {new.address.name!r} was published before with another payload.",
                advice="Use another id, or publish the same payload.",
            ) from None
    await wake(backend, Wake(event.stored_at))
    return event


async def _as_first_stored(backend: Backend, event: StoredEvent, expires: int) -> StoredEvent:
    """The event under the stamp of its first store."""
    try:
        await backend.table.write(event.put_first(expires))
    except Conflict as conflict:
        stamp = (conflict.item or {}).get("stamp")
        if isinstance(stamp, int):
            return StoredEvent(event.address, event.id, stamp, event.payload)
    return event


async def wake(backend: Backend, message: Wake) -> None:
    """Sends to the next hundred step runs that wait, and a message like this one if there are more."""
    page = await backend.table.query(
        message.fact.pk,
        start=keys.WAITER_PREFIX,
        end=keys.end_of(keys.WAITER_PREFIX),
        limit=GROUP,
        after=message.after,
    )
    sends: list[Message] = [Drive(str(item["run"]), str(item["path"]), fact=message.fact) for _, item in page.items]
    if page.next is not None:
        sends.append(Wake(message.fact, page.next))
    if sends:
        await backend.queue.send([encode(each) for each in sends])
