"""Carries out what a decision owes: messages, registrations, looks at what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from detent_state_machine.decisions import LookBack, MissingBody, Owed, Register, Send
from detent_state_machine.lines import Line

from detent_infra.events import facts
from detent_infra.ports import Backend
from detent_infra.runs.missing_code import note
from detent_infra.timers.later import send


async def carry_out(backend: Backend, run_id: str, owed: Sequence[Owed]) -> Line | None:
    """Does all of it, in this order, and returns what the run's log should say of it. Repeating it is harmless."""
    line: Line | None = None
    for each in owed:
        match each:
            case Send():
                await send(backend, run_id, [each])
            case Register(write):
                await backend.table.write(write)
            case LookBack(path, question):
                found = await facts.stored(backend, question)
                await send(backend, run_id, [] if found is None else [Send(path, fact=found)])
            case MissingBody():
                line = await note(backend, run_id, each)
            case _:
                assert_never(each)
    return line
