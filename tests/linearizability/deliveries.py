"""Receivers that die, forget and give back, what they record, and what a queue must never do to them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from detent_infra.ports import Backend, Received

from tests.linearizability.clients import Emit

VISIBILITY = 1.0
"""Seconds, the least that SQS knows."""
SLACK = 0.05
"""Seconds by which a queue's clock may differ from ours: SQLite counts in milliseconds of the wall clock."""


@dataclass(frozen=True, slots=True)
class Sender:
    name: str
    messages: int

    async def play(self, backend: Backend, emit: Emit) -> None:
        for n in range(self.messages):
            body = f"{self.name}-{n}"
            emit(f"sending {time.monotonic_ns()} {body}")
            await backend.queue.send([body], delay=1.0 if n % 10 == 0 else 0.0)
            emit(f"sent {time.monotonic_ns()} {body}")


@dataclass(frozen=True, slots=True)
class Receiver:
    """Works until the queue stays empty for `idle` seconds. Of ten messages it forgets one and gives one back.

    It has then asked three times at least: a pause of the whole machine is one long question.
    """

    name: str
    seed: int = 0
    idle: float = 3.0

    async def play(self, backend: Backend, emit: Emit) -> None:
        rng = random.Random(f"{self.seed}/{self.name}")
        queue = backend.queue
        last, in_vain = time.monotonic(), 0
        while in_vain < 3 or time.monotonic() - last < self.idle:
            asked = time.monotonic_ns()
            received = await queue.receive(4, wait=0.2, visibility=VISIBILITY)
            in_vain = 0 if received else in_vain + 1
            for message in received:
                emit(f"received {asked} {time.monotonic_ns()} {message.body} {message.count} {message.receipt}")
                await asyncio.sleep(rng.uniform(0, 0.01))
                await self._end(backend, message, emit, rng.random())
                last = time.monotonic()

    async def _end(self, backend: Backend, message: Received, emit: Emit, chance: float) -> None:
        if chance < 0.1:
            return
        if chance < 0.2:
            emit(f"returning {time.monotonic_ns()} {message.body}")
            await backend.queue.extend(message.receipt, 0)
            return
        emit(f"deleting {time.monotonic_ns()} {message.body}")
        await backend.queue.delete(message.receipt)
        emit(f"deleted {time.monotonic_ns()} {message.body} {message.receipt}")


@dataclass(slots=True)
class Delivery:
    """Seconds of the monotonic clock. Between `asked` and `came` the queue handed it over."""

    asked: float
    came: float
    count: int
    receipt: str


@dataclass(slots=True)
class Fate:
    """All that is on record about one message."""

    sent: bool = False
    deliveries: list[Delivery] = field(default_factory=list[Delivery])
    returned: list[float] = field(default_factory=list[float])
    """When a receiver began to give it back."""
    deleting: bool = False
    """Whether a receiver began to; it may have been killed before it could say that it was done."""
    deleted: dict[str, float] = field(default_factory=dict[str, float])
    """When a deletion with this receipt was acknowledged."""


def fates(lines: Iterable[str]) -> dict[str, Fate]:
    found: dict[str, Fate] = defaultdict(Fate)
    for line in lines:
        if not line.endswith("\n"):
            continue  # torn by a kill
        match line.split():
            case ["sending", _, body]:
                found[body].sent |= False
            case ["sent", _, body]:
                found[body].sent = True
            case ["received", asked, came, body, count, receipt]:
                found[body].deliveries.append(Delivery(int(asked) / 1e9, int(came) / 1e9, int(count), receipt))
            case ["returning", at, body]:
                found[body].returned.append(int(at) / 1e9)
            case ["deleting", _, body]:
                found[body].deleting = True
            case ["deleted", at, body, receipt]:
                found[body].deleted[receipt] = int(at) / 1e9
            case other:
                raise ValueError(json.dumps(other))
    for fate in found.values():
        fate.deliveries.sort(key=lambda delivery: delivery.came)
    return found


def broken_promises(found: dict[str, Fate]) -> list[str]:
    """What the queue did that it promises not to do; nothing for a queue that keeps its word."""
    said: list[str] = []
    for body, fate in found.items():
        if fate.sent and not fate.deliveries:
            said.append(f"{body} was acknowledged to its sender and never delivered")
        for earlier, later in zip(fate.deliveries, fate.deliveries[1:], strict=False):
            held_until = earlier.asked + VISIBILITY - SLACK
            given_back = any(earlier.came <= at <= later.came for at in fate.returned)
            if later.came < held_until and not given_back:
                said.append(f"{body} was delivered again {later.came - earlier.asked:.3f} s after a receiver asked")
            if later.count <= earlier.count and later.asked > earlier.came:
                said.append(f"{body} counts its delivery {later.count} after {earlier.count}")
        receipts = [delivery.receipt for delivery in fate.deliveries]
        if len(set(receipts)) < len(receipts):
            said.append(f"{body} had one receipt for two deliveries")
        for receipt, at in fate.deleted.items():
            newest = max((d for d in fate.deliveries if d.asked < at), key=lambda d: d.count)
            if receipt != newest.receipt:
                continue  # stale: it may or may not delete
            said += [f"{body} came back after its deletion" for d in fate.deliveries if d.asked > at]
        if fate.deliveries and not fate.deleting and not fate.deleted:
            said.append(f"{body} was delivered and is gone though nobody deleted it")
    return said
