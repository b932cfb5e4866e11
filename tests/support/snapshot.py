"""All that a backend holds, as one JSON document, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from detent_infra.logs.lines import from_json, to_json
from detent_infra.memory import MemoryBlobs, MemoryQueue, MemoryTable
from detent_infra.ports import Backend, MessageQueue
from detent_infra.sqlite.database import SCHEMA_VERSION
from detent_state_machine import definition, messages, records
from detent_state_machine.writes import Item, Key, PutItem, Value

RECORDS = Path(__file__).parents[1] / "compatibility/records"
FORMATS = {
    "records": records.FORMAT,
    "messages": messages.FORMAT,
    "definition": definition.FORMAT,
    "sqlite": SCHEMA_VERSION,
}
"""What this version of detent writes."""


@dataclass(frozen=True)
class Expected:
    """How the run must end, and the bodies that must run on the way, each once. An ended run runs none."""

    run: str
    status: str
    output: object = None
    failed_step: str | None = None
    bodies: tuple[str, ...] = ()
    key: str | None = None


@dataclass(frozen=True)
class Message:
    body: str
    received: int
    """How often it had been delivered."""


@dataclass(frozen=True)
class Snapshot:
    situation: str
    expected: Expected
    items: Sequence[tuple[Key, Item]]
    messages: Sequence[Message] = ()
    dead_letters: Sequence[Message] = ()
    blobs: dict[str, str] = field(default_factory=dict[str, str])
    logs: Sequence[str] = ()

    def run_items(self) -> dict[str, Item]:
        """The items of the run, by sort key."""
        return {key.sk: item for key, item in self.items if key.pk == f"run#{self.expected.run}"}


def taken_of(backend: Backend, situation: str, expected: Expected) -> Snapshot:
    """What a memory backend holds now."""
    store = cast("MemoryTable", backend.table)._store
    blobs = cast("MemoryBlobs", backend.blobs)._store.blobs
    return Snapshot(
        situation,
        expected,
        sorted(store.items.items()),
        _messages(backend.queue),
        _messages(backend.dead_letters),
        {ref: data.decode() for ref, data in sorted(blobs.items())},
        [to_json(line) for line in store.logs],
    )


def _messages(queue: MessageQueue) -> list[Message]:
    return [Message(message.body, message.count) for message in cast("MemoryQueue", queue)._messages.values()]


def to_text(snapshot: Snapshot) -> str:
    document = {
        "situation": snapshot.situation,
        "expected": {name: value for name, value in vars(snapshot.expected).items() if value is not None},
        "items": [[key.pk, key.sk, {n: _plain(v) for n, v in sorted(item.items())}] for key, item in snapshot.items],
        "messages": [[message.body, message.received] for message in snapshot.messages],
        "dead_letters": [[message.body, message.received] for message in snapshot.dead_letters],
        "blobs": snapshot.blobs,
        "logs": snapshot.logs,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def from_text(text: str) -> Snapshot:
    document: dict[str, Any] = json.loads(text)
    expected = document["expected"]
    return Snapshot(
        document["situation"],
        Expected(**{**expected, "bodies": tuple(expected["bodies"])}),
        [(Key(pk, sk), {n: _value(v) for n, v in item.items()}) for pk, sk, item in document["items"]],
        [Message(*message) for message in document["messages"]],
        [Message(*message) for message in document["dead_letters"]],
        document["blobs"],
        document["logs"],
    )


def _plain(value: Value) -> object:
    return {"set": sorted(cast("frozenset[int]", value))} if isinstance(value, frozenset) else value


def _value(value: Any) -> Value:
    return frozenset(value["set"]) if isinstance(value, dict) else cast("Value", value)


async def put_back(backend: Backend, snapshots: Sequence[Snapshot]) -> None:
    """Stores all of it in a backend, whatever kind it is. Messages that had been delivered are delivered again."""
    for snapshot in snapshots:
        for ref, text in snapshot.blobs.items():
            assert await backend.blobs.put(text.encode()) == ref
        for key, item in snapshot.items:
            await backend.table.write(PutItem(key, item, expect=None))
        lines = [from_json(line) for line in snapshot.logs]
        await backend.logs.append([line for line in lines if line is not None])
    delivered = [message.body for each in snapshots for message in each.messages if message.received]
    await backend.queue.send(delivered)
    met: set[str] = set()
    while met != set(delivered):
        met |= {message.body for message in await backend.queue.receive(10, wait=0, visibility=1)}
    await backend.queue.send([message.body for each in snapshots for message in each.messages if not message.received])
    await backend.dead_letters.send([message.body for each in snapshots for message in each.dead_letters])
