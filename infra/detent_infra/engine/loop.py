"""The engine loop: load, begin, run the body, settle, follow, acknowledge. DESIGN 6.

A crash anywhere leaves the message undeleted. It comes back, finds what was committed, and walks from there: every
link is idempotent (arrivals are sets, a claimed step run refuses a second claim, a commit is fenced by its owner), so
redelivery is the whole recovery. docs/internals/execution.md tells the crash story call by call.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from detent_state_machine import keys
from detent_state_machine.begin import fits, started_line, turn_of
from detent_state_machine.decisions import Ended, HandOver, Leave, Send
from detent_state_machine.errors import CorruptRecord, RecordError, UnknownStep, UnknownWorkflow
from detent_state_machine.follow import STARTED, leaves_nothing, unreadable
from detent_state_machine.graph import START
from detent_state_machine.messages import Cancel, Drive, RunMessage, Wake, decode
from detent_state_machine.records import RunRecord
from detent_state_machine.step_path import StepPath
from detent_state_machine.turn import Turn

from detent_infra.definitions import Definitions
from detent_infra.ended import close_waits, end_unread
from detent_infra.engine.after import startable, walk
from detent_infra.engine.body import check_in
from detent_infra.engine.drive import Driven, Driver
from detent_infra.engine.session import Session
from detent_infra.events.facts import unregister
from detent_infra.events.publish import wake
from detent_infra.executor import Executor
from detent_infra.logs.buffer import LineBuffer, LogSettings, Origin
from detent_infra.owed import carry_out
from detent_infra.ports import Backend, Received
from detent_infra.runs.cancel import cancel
from detent_infra.timers.later import send

log = logging.getLogger("detent")

MAX_HOPS = 25
"""Steps driven inline by one delivery. Bounds what a walk reads after a crash, and cascades of skips."""


class Engine:
    """Drives messages of one backend with one executor. Safe to share between tasks of an event loop.

    `max_hops` bounds inline continuation; `jitter` draws a number from 0 up to 1 for retry pauses; `log_settings` says
    how lines of runs are written.
    """

    def __init__(
        self,
        backend: Backend,
        executor: Executor,
        *,
        max_hops: int = MAX_HOPS,
        jitter: Callable[[], float] = random.random,
        log_settings: LogSettings = LogSettings(),  # noqa: B008 - frozen
    ) -> None:
        self.backend = backend
        self.executor = executor
        self.definitions = Definitions(backend)
        for definition in executor.definitions().values():
            self.definitions.cache(definition)
        self._max_hops = max_hops
        self._log_settings = log_settings
        self._driver = Driver(backend, executor, jitter)

    async def handle(
        self, received: Received, *, dead: bool = False, deadline: int | None = None, origin: Origin | None = None
    ) -> bool:
        """Drives one delivery. True: acknowledge (delete) the message. False: leave it to be delivered again.

        `dead` says that it comes from the dead-letter queue, `deadline` when this invocation must have ended
        (milliseconds since the epoch), `origin` where lines come from if that changes from one delivery to another.
        Raises `DetentError`, after which the message must be left.
        """
        try:
            message = decode(received.body)
        except CorruptRecord as error:
            # In the main queue it is left, and becomes a dead letter; there it ends, loudly.
            log.error("%s", error)
            return dead
        if isinstance(message, Wake):
            await wake(self.backend, message)
            return True
        try:
            session = await self._load(message, received, origin, dead=dead, deadline=deadline)
        except CorruptRecord as error:
            if not dead:
                raise
            await end_unread(self.backend, message, error)
            return True
        if isinstance(session, bool):
            return session
        try:
            handled = await self._drive_message(session)
            if handled and not session.run.live:
                await close_waits(self.backend, session.graph, session.run)
            return handled
        except CorruptRecord as error:
            if not dead:
                raise
            return await self._end_unreadable(session, error)
        finally:
            await session.lines.close()

    async def _load(
        self, message: RunMessage, received: Received, origin: Origin | None, *, dead: bool, deadline: int | None
    ) -> Session | bool:
        """The run that the message is about; or, if there is nothing to do, whether to acknowledge. DESIGN 6.1."""
        now = self.backend.clock()
        item = await self.backend.table.get(keys.run_key(message.run_id))
        if item is None:
            # The run record is written before its first message: a run that is missing was deleted, or is a fault.
            log.warning("message for run %s, which is not stored", message.run_id)
            return dead
        run = RunRecord.from_item(message.run_id, item)
        if isinstance(message, Cancel) and run.live:
            run = await cancel(self.backend, self.definitions, run)
        fact = message.fact if isinstance(message, Drive) else None
        if isinstance(message, Drive) and not run.live:
            await unregister(self.backend, message)
        turn, token = turn_of(message, received.count, dead=dead), self.backend.new_owner()
        if leaves_nothing(run, turn):
            return True
        try:
            graph = await self.definitions.graph(run.workflow, run.version)
        except (UnknownWorkflow, RecordError) as error:
            if run.live:
                raise
            log.warning("what the ended run %s left cannot be ended: %s", run.run_id, error)
            return True
        if isinstance(message, Cancel):
            await close_waits(self.backend, graph, run)
            return True
        try:
            path = graph.path(message.path) if isinstance(message, Drive) else START
        except (UnknownStep, CorruptRecord):
            log.error("run %s does not have the step of %s", run.run_id, message)
            return dead
        settings = self._log_settings if origin is None else replace(self._log_settings, origin=origin)
        backend = self.backend
        lines = LineBuffer(backend.logs, backend.clock, backend.outage, settings, run.run_id, run.workflow)
        lines.log_event(started_line(run, message, received.count, dead=dead))
        return Session(self.backend, run, graph, path, fact, turn, token, received, lines, deadline, renewed=now)

    async def _end_unreadable(self, session: Session, error: CorruptRecord) -> bool:
        """The step run fails as one whose body raised: the run's handlers give back what it holds."""
        log.error("dead letter of run %r: %s", session.run.run_id, error)
        path = session.path if session.path != START else session.graph.successors[START][0].target
        ready = await startable(session, session.remember(unreadable(path, session.token, error)))
        await send(self.backend, session.run.run_id, [Send(each) for each in ready])
        return True

    async def _drive_message(self, session: Session) -> bool:
        driven = await self._first(session)
        while True:
            if isinstance(driven, Leave | HandOver) and driven.why:
                log.warning("run %s: %s", session.run.run_id, driven.why)
            match driven:
                case Leave(line=line):
                    session.lines.log_event(line)
                    return False
                case HandOver(owed):
                    session.lines.log_event(await carry_out(self.backend, session.run.run_id, owed))
                    return True
                case Ended(record, mine=False):
                    await unregister(self.backend, Drive(session.run.run_id, session.path, fact=session.fact))
                    await walk(session, record)
                    return True
                case Ended(record):
                    pass
                case _:
                    assert_never(driven)
            ready = await startable(session, record)
            inline = self._choose(session, ready)
            # DESIGN 6.5: all arrivals and all other sends first. If this worker dies in the inline step, nothing waits.
            others = [Send(path, fresh=True) for path in ready if path != inline]
            await send(self.backend, session.run.run_id, others)
            if inline is None or not await self._still_live(session, inline):
                return True
            session.hops += 1
            driven = await self._driver.drive(session, inline, Turn.INLINE)

    async def _first(self, session: Session) -> Driven:
        if session.path == START:
            return Ended(session.remember(STARTED), mine=session.turn is Turn.FIRST)
        return await self._driver.drive(session, session.path, session.turn)

    def _choose(self, session: Session, ready: list[StepPath]) -> StepPath | None:
        """The successor to go on with in this delivery: the first one there is time for."""
        if session.turn is Turn.DEAD or session.hops >= self._max_hops:
            return None  # What follows a dead letter is not dead: it goes to the main queue, and runs there.
        now = self.backend.clock()
        return next((path for path in ready if fits(session.graph.step(path), session.deadline, now)), None)

    async def _still_live(self, session: Session, path: StepPath) -> bool:
        """DESIGN 6.3: the run is read again if it was read longer than a heartbeat ago."""
        recently = self.backend.clock() - session.renewed < self.backend.timing.heartbeat * 1000
        return recently or await check_in(session, path)
