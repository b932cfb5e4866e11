"""Carries out what follows from an ended step run: arrivals, the run's change, messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from detent_state_machine import follow
from detent_state_machine.decisions import Send
from detent_state_machine.graph import Arrival
from detent_state_machine.records import NoRecord, StepRecord
from detent_state_machine.step_path import StepPath

from detent_infra.engine.session import Session
from detent_infra.orphans import first_second
from detent_infra.ports import Conflict
from detent_infra.timers.later import send


async def after(session: Session, record: StepRecord) -> list[StepPath]:
    """Records what the ended step run means for its joins and its run; returns the steps that are ready now.

    Every write here is idempotent, so a walk repeats it.
    """
    ready: list[StepPath] = []
    for branch in follow.follow(session.graph, record):
        if not await _arrived(session, branch.arrivals):
            continue
        match branch.then:
            case follow.Starts(path):
                ready.append(path)
            case follow.Finishes() | follow.HandlersEnd() | follow.Fails() | follow.BeginsFailing():
                ready += await _change(session, branch.then)
            case _:
                assert_never(branch.then)
    return ready


async def startable(session: Session, record: StepRecord) -> list[StepPath]:
    """The steps that are ready now, and that the run still starts."""
    return [path for path in await after(session, record) if follow.may_start(session.graph, session.run, path)]


async def walk(session: Session, record: StepRecord) -> None:
    """For a message that found its step run ended: sees that every successor is driven by somebody. DESIGN 6, walk."""
    backend = session.backend
    stack, met = [record], {record.path}
    while stack:
        targets = [target for target in await after(session, stack.pop()) if target not in met]
        met.update(targets)
        found = await session.records(targets)
        for target in targets:
            seen = found.get(target, NoRecord(target))
            parents = await session.records(session.graph.to_read[target] if session.received.orphaned else ())
            wait = first_second(backend, session.received, session.graph.step(target), parents.values())
            step = follow.walk_at(target, seen, backend.clock(), wait)
            match step:
                case Send():
                    await send(backend, session.run.run_id, [step])
                case follow.Through(ended):
                    stack.append(ended)
                case follow.Owned():
                    pass
                case _:
                    assert_never(step)


async def _arrived(session: Session, arrivals: Sequence[Arrival]) -> bool:
    """Adds the step to the join's sets, leaf to root; whether the join is complete."""
    for arrival in arrivals:
        item = await session.backend.table.write(follow.arrive(session.run.run_id, arrival, session.moment()))
        if not follow.is_complete(arrival, item):
            return False
    return True


async def _change(session: Session, change: follow.RunChange) -> tuple[StepPath, ...]:
    """Makes the change of the run, and returns the steps that start by it."""
    if not isinstance(change, follow.BeginsFailing) and session.lines.has_lines_of_steps:
        # Who sees the run's end finds in its log what its steps wrote. The engine's lines alone may follow it.
        await session.lines.flush()
    write = follow.change_run(session.run, change, session.moment())
    try:
        await session.backend.table.write(write)
    except Conflict as conflict:
        outcome = follow.not_changed(session.run, change, conflict.item)
    else:
        outcome = follow.changed(session.run, change, write)
    session.run = outcome.run
    session.lines.log_event(outcome.line)
    return outcome.starts
