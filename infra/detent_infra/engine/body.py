"""Runs one attempt under its timeout, with the message's heartbeat beside it. DESIGN 6.3."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias, cast

from detent_state_machine import keys
from detent_state_machine.decisions import Released, RunOver, TakenOver, Transition
from detent_state_machine.errors import DetentError, Unavailable
from detent_state_machine.follow import may_start
from detent_state_machine.records import RunRecord, Seen, seen_of
from detent_state_machine.settle import is_mine, renew, settle, timed_out
from detent_state_machine.step_path import StepPath
from detent_state_machine.turn import Writer

from detent_infra.engine.session import Session
from detent_infra.event_loop import first_of
from detent_infra.executor import Attempt, Completed, Executor, Failed, running
from detent_infra.loop_watch import watching
from detent_infra.ports import Conflict

Stop: TypeAlias = TakenOver | RunOver
_Pulse: TypeAlias = "asyncio.Future[tuple[Stop | None, Seen]]"


async def execute(
    executor: Executor, session: Session, me: Writer, seen: Seen, attempt: Attempt, started: int
) -> tuple[Completed | Failed | Stop, Seen]:
    """`_execute`, with its lease renewed from outside of the event loop, should a body block that."""
    watch = watching.get()
    if watch is None:
        return await _execute(executor, session, me, seen, attempt, started)
    with watch.keeping(attempt, lambda: renew(me, seen, session.moment(), started=started)):
        return await _execute(executor, session, me, seen, attempt, started)


async def _execute(
    executor: Executor, session: Session, me: Writer, seen: Seen, attempt: Attempt, started: int
) -> tuple[Completed | Failed | Stop, Seen]:
    """The attempt's outcome, or why it was stopped; and the record, once a heartbeat wrote it.

    A body that does not end in time, or ignores its cancellation, is left behind: its result is never looked at, so
    it cannot commit. (A thread cannot be killed; an abandoned synchronous body runs on until it returns.)
    """
    loop = asyncio.get_running_loop()
    timing = session.backend.timing
    ends = loop.time() + (attempt.control.deadline - started) / 1000
    beat = loop.time() + timing.first_heartbeat
    token = running.set(attempt)  # what the body and its threads see: a task has the context it was made in
    body = asyncio.ensure_future(executor.execute(attempt))
    running.reset(token)
    pulse: _Pulse | None = None
    held: Seen = seen
    try:
        while True:
            await first_of(body, pulse, ends if pulse else min(ends, beat), loop)
            if body.done():
                return body.result(), held
            if loop.time() >= ends:
                return Failed(timed_out(me.path, (attempt.control.deadline - started) / 1000)), held
            if pulse is None:
                # Beside the body, so that a slow backend holds up neither its result nor its timeout. One that is
                # under way when the body ends is dropped: the commit's fence holds whether it was written or not.
                pulse = cast("_Pulse", asyncio.ensure_future(_heartbeat(session, me, held, started)))
            elif pulse.done():
                stop, held = cast("tuple[Stop | None, Seen]", cast("object", pulse.result()))
                if stop is not None:
                    return stop, held
                pulse, beat = None, loop.time() + timing.heartbeat
    except asyncio.CancelledError:
        await _release(session, me, held, attempt, started)
        raise
    finally:
        attempt.control.over = True
        for future in (body, pulse):
            if future is not None and not future.done():
                attempt.control.cancelled = True
                future.cancel()
                future.add_done_callback(_ignore)


async def check_in(session: Session, path: StepPath) -> bool:
    """Extends the message's visibility and reads the run again: whether the run still wants this step.

    This is how a worker learns of a cancel, at most one heartbeat late.
    """
    backend = session.backend
    await backend.queue.extend(session.received.receipt, backend.timing.lease)
    asked = backend.clock()  # what a slow reply says may be as old as the question
    item = await backend.table.get(keys.run_key(session.run.run_id))
    if item is None:
        return False
    fresh = RunRecord.from_item(session.run.run_id, item)
    session.run = replace(fresh, input=session.run.input)
    session.renewed = asked
    return session.run.live and may_start(session.graph, session.run, path)


async def _heartbeat(session: Session, me: Writer, seen: Seen, started: int) -> tuple[Stop | None, Seen]:
    """Why to stop, if at all, and the record as this writer holds it."""
    write = renew(me, seen, session.moment(), started=started)
    try:
        try:
            item = await session.backend.table.write(write)
        except Conflict as conflict:
            if not is_mine(me, write, conflict.item):
                return TakenOver(), seen
            item = conflict.item
        seen = seen_of(me.path, item)
        await session.lines.flush()
        if not await check_in(session, me.path):
            return RunOver(), seen
    except Unavailable as error:
        # The lease may still hold, and the commit is fenced whether it does or not: try again at the next beat.
        session.backend.outage.met(error)
    return None, seen


async def _release(session: Session, me: Writer, seen: Seen, attempt: Attempt, started: int) -> None:
    """This worker is told to stop: what it was at begins again elsewhere, at once and without a take-over."""
    settled = settle(attempt.step, me, seen, Released(), session.moment(), started=started, jitter=0.0)
    if isinstance(settled, Transition):
        with suppress(Conflict, DetentError):
            await session.backend.table.write(settled.write)
            await session.backend.queue.extend(session.received.receipt, 0)


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
