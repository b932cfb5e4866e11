"""Runs one attempt under its timeout, with the message's heartbeat beside it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from detent_state_machine import keys, transitions
from detent_state_machine.errors import DetentError, Unavailable
from detent_state_machine.records import ErrorInfo, RunRecord
from detent_state_machine.status import Delivery, StepStatus
from detent_state_machine.transitions import Writer

from detent_infra.engine.session import Session
from detent_infra.executor import Attempt, Executor, Failed, Outcome, running
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
    executor: Executor, session: Session, me: Writer, attempt: Attempt, started: int
) -> tuple[Outcome | Stop, Writer]:
    """The attempt's outcome, or why it was stopped; and the writer, which holds the record once a heartbeat wrote it.

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
    pulse: asyncio.Future[tuple[Stop | None, bool]] | None = None
    writes = me
    try:
        while True:
            await _first_of(body, pulse, ends if pulse else min(ends, beat), loop)
            if body.done():
                return body.result(), writes
            if loop.time() >= ends:
                return Failed(_timed_out(attempt, started)), writes
            if pulse is None:
                # Beside the body, so that a slow backend holds up neither its result nor its timeout. One that is
                # under way when the body ends is dropped: the commit's fence holds whether it was written or not.
                pulse = asyncio.ensure_future(_heartbeat(session, writes, started))
            elif pulse.done():
                stop, held = pulse.result()
                writes = replace(me, held=held)
                if stop is not None:
                    return stop, writes
                pulse, beat = None, loop.time() + timing.heartbeat
    except asyncio.CancelledError:
        await _release(session, writes, attempt)
        raise
    finally:
        for future in (body, pulse):
            if future is not None and not future.done():
                attempt.control.cancelled = True
                future.cancel()
                future.add_done_callback(_ignore)


async def _first_of(
    body: asyncio.Future[Outcome], pulse: asyncio.Future[Any] | None, when: float, loop: asyncio.AbstractEventLoop
) -> None:
    """Waits until one of them has ended, at most until this time of the loop.

    `asyncio.wait` without its bookkeeping: every step run comes through here.
    """
    woken = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    timer = loop.call_at(when, wake)
    futures = (body,) if pulse is None else (body, pulse)
    for future in futures:
        future.add_done_callback(wake)
    try:
        await woken
    finally:
        timer.cancel()
        for future in futures:
            future.remove_done_callback(wake)


async def look(session: Session) -> bool:
    """Extends the message's visibility and reads the run again: whether there is still work to do.

    This is how a worker learns of a cancel, at most one heartbeat late.
    """
    backend = session.backend
    await backend.queue.extend(session.received.receipt, backend.timing.lease)
    asked = backend.clock()  # what a slow reply says may be as old as the question
    item = await backend.table.get(keys.run_key(session.run_id))
    if item is None:
        return False
    fresh = RunRecord.from_item(session.run_id, item)
    session.run = replace(fresh, input=session.run.input)
    session.looked = asked
    return session.run.status.live


async def _heartbeat(session: Session, me: Writer, started: int) -> tuple[Stop | None, bool]:
    """Why to stop, if at all, and whether the record is known to be mine."""
    backend = session.backend
    lease = backend.clock() + int(backend.timing.lease * 1000)
    held = me.held
    try:
        try:
            await backend.table.write(transitions.heartbeat(me, started=started, lease=lease, expires=session.expires))
        except Conflict as conflict:
            if not transitions.wrote(me, StepStatus.RUNNING, conflict.item):
                return LeaseLost(), held
        held = True
        await session.flush()
        if not await look(session) or not session.may_start(me.path):
            return RunOver(), held
    except Unavailable as error:
        # The lease may still hold, and the commit is fenced whether it does or not: try again at the next beat.
        log.warning("heartbeat of %s in run %s: %s", me.path, session.run_id, error)
    return None, held


async def _release(session: Session, me: Writer, attempt: Attempt) -> None:
    """This worker is told to stop: what it was at begins again elsewhere, at once and without a take-over."""
    if attempt.step.delivery is Delivery.AT_MOST_ONCE:
        return
    with suppress(Conflict, DetentError):
        await session.backend.table.write(transitions.release(me, now=session.backend.clock()))
        await session.backend.queue.extend(session.received.receipt, 0)


def _timed_out(attempt: Attempt, started: int) -> ErrorInfo:
    seconds = (attempt.control.deadline - started) / 1000
    return ErrorInfo(
        "StepTimeout",
        f"Step {attempt.path!r} did not end within {seconds:g} s.",
        kinds=("StepTimeout", "TimeoutError", "Exception"),
    )


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
