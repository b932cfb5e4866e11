"""What a step run waits for, in words, from its record alone."""

from __future__ import annotations

from detent_state_machine import keys
from detent_state_machine.events import EventAddress
from detent_state_machine.records import StepRecord


def awaited(record: StepRecord) -> str:
    """`event 'payment' with key 'A-17'`; empty if it waits for a time alone, or not at all."""
    if not record.awaits:
        return ""
    address = EventAddress.of(record.awaits)
    return f"event {address.name!r}" + (f" with key {address.key!r}" if address.key else "")


def met_by(record: StepRecord) -> str:
    """The id of the event that ended the wait; empty if none did."""
    return keys.event_id(record.fact)
