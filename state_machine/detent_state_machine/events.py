"""Events: what is published under a name and a key, and which of them a wait may take.

An event is a fact. Whoever publishes one stores it and sends a message to each step run that waits for it; whoever
waits registers and then looks for what is stored already. One of the two sees the other, whatever the order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from detent_state_machine import keys
from detent_state_machine.errors import CorruptRecord, InputError
from detent_state_machine.records import FORMAT, Payload, payload_attributes, payload_of
from detent_state_machine.writes import Item, Key, Missing, PutItem

if TYPE_CHECKING:
    from detent_state_machine.expressions import Expression

MAX_EVENT_NAME = 128
MAX_EVENT_KEY, MAX_EVENT_ID = 1_024, 512
"""Bytes in UTF-8. DynamoDB keeps 2,048 of a partition key and 1,024 of a sort key."""
CLOCK_MARGIN = 60_000
"""Milliseconds by which the clock of a publisher may be behind that of a worker. WAITS.md, rule 10."""
EVENT_RETENTION_DAYS = 30
"""Days for which an event is stored. No wait looks back further."""


@dataclass(frozen=True, slots=True)
class EventAddress:
    """Where events and waits meet. A wait without a key meets only events that were published without one."""

    name: str
    key: str = ""

    def __post_init__(self) -> None:
        """Raises `InputError` for a name or a key that a store cannot keep."""
        if not 0 < len(self.name) <= MAX_EVENT_NAME or "#" in self.name or not self.name.isprintable():
            raise InputError(
                f"{self.name[:40]!r} is not a name of an event.",
                advice=f"A name has 1 to {MAX_EVENT_NAME} printable characters, and no '#'.",
            )
        _check("key", self.key, MAX_EVENT_KEY)

    @property
    def partition(self) -> str:
        return keys.event_partition(self.name, self.key)

    @staticmethod
    def of(partition: str) -> EventAddress:
        """The address that has this partition."""
        return EventAddress(*keys.event_name_and_key(partition))


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is stored. `stamp`, in milliseconds since the epoch, is set by the first store of its id."""

    address: EventAddress
    id: str
    stamp: int
    payload: Payload

    def __post_init__(self) -> None:
        """Raises `InputError` for an id that a store cannot keep."""
        _check("id", self.id, MAX_EVENT_ID)

    @property
    def stored_at(self) -> Key:
        """Where it is stored: a message names it by that."""
        return Key(self.address.partition, keys.event_sort(self.stamp, self.id))

    def put(self, expires: int) -> PutItem:
        """Stores the event.

        The race it wins: one id is published twice, with two payloads. The second is refused, and sees the first.
        """
        item: Item = {"v": FORMAT, "id": self.id, "stamp": self.stamp, "expires": expires}
        return PutItem(
            self.stored_at,
            {**item, **payload_attributes("payload", self.payload)},
            Missing(),
        )

    def put_first(self, expires: int) -> PutItem:
        """Stores when an event with an id of its publisher's was first published.

        The race it wins: the id is published twice, or again after its publisher died. The second takes the first
        one's stamp, so that both write one item.
        """
        key = Key(self.address.partition, f"{keys.EVENT_ID_PREFIX}{self.id}")
        return PutItem(key, {"v": FORMAT, "stamp": self.stamp, "expires": expires}, Missing())

    @staticmethod
    def from_item(address: EventAddress, item: Item) -> StoredEvent:
        """Raises `CorruptRecord`."""
        event_id, stamp = item.get("id"), item.get("stamp")
        if not isinstance(event_id, str) or not isinstance(stamp, int):
            raise CorruptRecord(f"A stored event {address.name!r} has no id or no time.")
        return StoredEvent(address, event_id, stamp, stored_payload(item))


def stored_payload(item: Item) -> Payload:
    """Raises `CorruptRecord`."""
    payload = payload_of(item, "payload")
    if payload is None:
        raise CorruptRecord("A stored event has no payload.")
    return payload


def look_back_from(since: int) -> str:
    """The sort key from which a wait looks for events that were stored before it registered."""
    return keys.event_sort(max(0, since - CLOCK_MARGIN), "")


def _check(what: str, text: str, limit: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = limit + 1
    if size > limit or (what == "id" and not text):
        raise InputError(
            f"The {what} of an event is not usable: {text[:40]!r}.",
            advice=f"Take {'up to' if what == 'key' else '1 to'} {limit} bytes of valid Unicode.",
        )


def matches(match: str, payload: str) -> bool:
    """Whether the JMESPath expression (none: "") holds for a payload, as JSON text.

    It does not hold for a payload that it does not fit: whoever publishes may publish anything.
    """
    if not match:
        return True
    from detent_state_machine.expressions import is_false  # JMESPath: not for every command that reads definitions

    try:
        return not is_false(_expression(match).of(json.loads(payload), "the payload"))
    except InputError:
        return False


@lru_cache(maxsize=256)
def _expression(match: str) -> Expression:
    from detent_state_machine.expressions import Expression

    return Expression(match, "match")
