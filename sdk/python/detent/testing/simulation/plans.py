"""Which fault happens to which call: at random by rates, or exactly these."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Protocol


class Fault(StrEnum):
    """What can happen to a call. `Rates` has a field for each."""

    CRASH_BEFORE = "crash_before"
    """The machine dies; the call never leaves it."""
    CRASH_AFTER = "crash_after"
    """The call is applied; the machine dies before it hears of it."""
    REPEATED = "repeated"
    """Applied, the reply is lost, and the client library repeats the call by itself."""
    UNKNOWN = "unknown"
    """Applied, the reply is lost, and the caller is told that the backend is unavailable."""
    REFUSED = "refused"
    """Not applied: throttled, unreachable."""
    SLOW = "slow"
    """Applied some seconds late."""
    PAUSE = "pause"
    """The machine stands still past its lease, then goes on as if nothing had happened (a zombie)."""
    OUTAGE = "outage"
    """Not applied, nor any call of this kind by any machine for a while. Of index queries: the reaper is down."""
    DUPLICATE = "duplicate"
    """A received message is delivered to another worker at once; a sent one is sent twice."""
    DELAY = "delay"
    """A sent message arrives late, and so behind younger ones."""
    PARTIAL = "partial"
    """Of a batch, only the first messages are sent; the caller is told."""
    STALE_DELETE = "stale_delete"
    """A delete with an old receipt deletes all the same, as SQS allows."""
    MISSING = "missing"
    """The blob is gone when it is read, for every machine, until somebody stores the same bytes again."""


@dataclass(frozen=True, slots=True)
class PortCall:
    """A primitive call about to be made: the how-manieth of the simulation, by which machine, on what."""

    number: int
    machine: str
    operation: str
    what: str


class Plan(Protocol):
    """Decides what happens to each call."""

    def __call__(self, call: PortCall) -> Fault | None: ...


@dataclass(frozen=True)
class Rates:
    """How likely each fault is, per call it can happen to.

    `missing` is 0: no backend loses what it stored. Raise it to see what a run does that needs a lost payload (it
    fails, with an error that names the payload).
    """

    crash_before: float = 0.01
    crash_after: float = 0.01
    repeated: float = 0.02
    unknown: float = 0.01
    refused: float = 0.02
    slow: float = 0.02
    pause: float = 0.004
    outage: float = 0.001
    duplicate: float = 0.05
    delay: float = 0.05
    partial: float = 0.02
    stale_delete: float = 0.3
    missing: float = 0.0

    def scaled(self, factor: float) -> Rates:
        return Rates(**{item.name: min(0.5, getattr(self, item.name) * factor) for item in fields(self)})


_POSSIBLE: Mapping[str, tuple[Fault, ...]] = {
    "send": (Fault.DUPLICATE, Fault.DELAY, Fault.PARTIAL),
    "receive": (Fault.DUPLICATE,),
    "delete": (Fault.STALE_DELETE,),
    "blob get": (Fault.MISSING,),
}
_ANY = (
    Fault.CRASH_BEFORE,
    Fault.CRASH_AFTER,
    Fault.REPEATED,
    Fault.UNKNOWN,
    Fault.REFUSED,
    Fault.SLOW,
    Fault.PAUSE,
    Fault.OUTAGE,
)


def possible(operation: str) -> tuple[Fault, ...]:
    """The faults that can happen to an operation."""
    return _ANY + _POSSIBLE.get(operation, ())


class RandomPlan:
    """Faults at random, by their rates, until `stop` is called."""

    def __init__(self, rng: random.Random, rates: Rates) -> None:
        self._rng = rng
        self._rates = rates
        self._on = True
        self.injected: list[tuple[PortCall, Fault]] = []

    def stop(self) -> None:
        self._on = False

    def __call__(self, call: PortCall) -> Fault | None:
        if not self._on:
            return None
        for fault in possible(call.operation):
            if self._rng.random() < getattr(self._rates, fault.value):
                self.injected.append((call, fault))
                return fault
        return None


@dataclass(frozen=True)
class FixedPlan:
    """These faults at these calls, and no others: to enumerate them, to replay and to shrink."""

    faults: Mapping[int, Fault]

    def __call__(self, call: PortCall) -> Fault | None:
        fault = self.faults.get(call.number)
        return fault if fault in possible(call.operation) else None
