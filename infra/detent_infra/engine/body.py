"""Runs one attempt under its timeout, with the message's heartbeat beside it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TypeAlias

from detent_state_machine import keys, transitions
from detent_state_machine.errors import Unavailable
from detent_state_machine.records import ErrorInfo, RunRecord
from detent_state_machine.status import StepStatus
from detent_state_machine.transitions import Writer

from detent_infra.engine.session import Session
from detent_infra.executor import Executor, Failed, Outcome, Task
from detent_infra.ports import Conflict

log = logging.getLogger("detent")


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another worker has the step run: drop the result, delete nothing."""


@dataclass(frozen=True, slots=True)
class RunOver:
    """The run has ended (cancelled, or failed elsewhere): stop working on it."""


Stop: TypeAlias = LeaseLost | RunOver


async def execute(
    executor: Executor, session: Session, me: Writer, task: Task, started: int
) -> tuple[Outcome | Stop, Writer]:
    """The attempt's outcome, or why it was stopped; and the writer, which holds the record once a heartbeat wrote it.

    A body that does not end in time, or ignores its cancellation, is left behind: its result is never looked at, so
    it cannot commit. (A thread cannot be killed; an abandoned synchronous body runs on until it returns.)
    """
    loop = asyncio.get_running_loop()
    timing = session.backend.timing
    ends = loop.time() + (task.control.deadline - started) / 1000
    beat = loop.time() + timing.first_heartbeat
    body = asyncio.ensure_future(executor.execute(task))
    try:
        while True:
            if await _ends_by(body, min(ends, beat), loop):
                return body.result(), me
            if loop.time() >= ends:
                return Failed(_timed_out(task, started)), me
            stop, me = await _heartbeat(session, me, started)
            if stop is not None:
                return stop, me
            beat = loop.time() + timing.heartbeat
    finally:
        if not body.done():
            task.control.cancelled = True
            body.cancel()
            body.add_done_callback(_ignore)


async def _ends_by(body: asyncio.Future[Outcome], when: float, loop: asyncio.AbstractEventLoop) -> bool:
    """Waits for the body until this time of the loop; whether it has ended.

    `asyncio.wait` for one future and without its bookkeeping: every step run comes through here.
    """
    woken = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    timer = loop.call_at(when, wake)
    body.add_done_callback(wake)
    try:
        await woken
    finally:
        timer.cancel()
        body.remove_done_callback(wake)
    return body.done()


async def look(session: Session) -> bool:
    """Extends the message's visibility and reads the run again: whether there is still work to do.

    This is how a worker learns of a cancel, at most one heartbeat late.
    """
    backend = session.backend
    await backend.queue.extend(session.received.receipt, backend.timing.lease)
    item = await backend.table.get(keys.run_key(session.run_id))
    if item is None:
        return False
    fresh = RunRecord.from_item(session.run_id, item)
    session.run = replace(fresh, input=session.run.input)
    session.looked = backend.clock()
    return session.run.status.live


async def _heartbeat(session: Session, me: Writer, started: int) -> tuple[Stop | None, Writer]:
    backend = session.backend
    lease = backend.clock() + int(backend.timing.lease * 1000)
    try:
        try:
            await backend.table.write(transitions.heartbeat(me, started=started, lease=lease))
        except Conflict as conflict:
            if not transitions.wrote(me, StepStatus.RUNNING, conflict.item):
                return LeaseLost(), me
        me = replace(me, held=True)
        await session.flush()
        if not await look(session) or not session.may_start(me.path):
            return RunOver(), me
    except Unavailable as error:
        # The lease may still hold, and the commit is fenced whether it does or not: try again at the next beat.
        log.warning("heartbeat of %s in run %s: %s", me.path, session.run_id, error)
    return None, me


def _timed_out(task: Task, started: int) -> ErrorInfo:
    seconds = (task.control.deadline - started) / 1000
    return ErrorInfo(
        "StepTimeout",
        f"Step {task.path!r} did not end within {seconds:g} s.",
        kinds=("StepTimeout", "TimeoutError", "Exception"),
    )


def _ignore(body: asyncio.Future[Outcome]) -> None:
    if not body.cancelled():
        body.exception()
