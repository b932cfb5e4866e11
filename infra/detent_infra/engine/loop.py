"""The engine loop: load, claim, execute, commit, propagate, acknowledge.

A crash anywhere leaves the message undeleted. It comes back, finds what was committed, and walks from there: every
link is idempotent (arrivals are sets, a claimed step run refuses a second claim, a commit is fenced by its owner), so
redelivery is the whole recovery. docs/internals/execution.md tells the crash story call by call.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from detent_state_machine import keys, run_transitions
from detent_state_machine.definition import DEFAULT_RETENTION_DAYS
from detent_state_machine.errors import CorruptRecord
from detent_state_machine.graph import START
from detent_state_machine.messages import Drive, Message, Start, decode
from detent_state_machine.records import ErrorInfo, RunRecord, StepRecord
from detent_state_machine.status import StepStatus

from detent_infra.engine import body
from detent_infra.engine.definitions import Definitions
from detent_infra.engine.propagate import Propagation, send
from detent_infra.engine.session import Origin, Session, Telling
from detent_infra.engine.step import TIME_MARGIN, Driven, Ended, HandedOver, Lost, Steps
from detent_infra.executor import Executor
from detent_infra.ports import Backend, Conflict, Received

log = logging.getLogger("detent")

MAX_HOPS = 25
"""Steps driven inline by one delivery. Bounds what a walk reads after a crash, and cascades of skips."""


class Engine:
    """Drives messages of one backend with one executor. Safe to share between tasks of an event loop.

    `max_hops` bounds inline continuation; `jitter` draws a number from 0 up to 1 for retry pauses; `telling` says how
    lines of runs are written.
    """

    def __init__(
        self,
        backend: Backend,
        executor: Executor,
        *,
        max_hops: int = MAX_HOPS,
        jitter: Callable[[], float] = random.random,
        telling: Telling = Telling(),  # noqa: B008 - frozen
    ) -> None:
        self.backend = backend
        self.executor = executor
        self.definitions = Definitions(backend)
        for definition in executor.definitions().values():
            self.definitions.know(definition)
        self._max_hops = max_hops
        self._telling = telling
        self._steps = Steps(backend, executor, jitter)

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
        try:
            session = await self._load(message, received, origin, dead=dead, deadline=deadline)
        except CorruptRecord as error:
            if not dead:
                raise
            return await self._end_unread(message, error)
        if isinstance(session, bool):
            return session
        try:
            return await self._drive_message(session)
        except CorruptRecord as error:
            if not dead:
                raise
            return await self._end_unreadable(session, error)
        finally:
            await session.flush()

    # ---- load ---------------------------------------------------------------------------------------------

    async def _load(
        self, message: Message, received: Received, origin: Origin | None, *, dead: bool, deadline: int | None
    ) -> Session | bool:
        now = self.backend.clock()
        item = await self.backend.table.get(keys.run_key(message.run_id))
        if item is None:
            # The run record is written before its first message: a run that is missing was deleted, or is a fault.
            log.warning("message for run %s, which is not stored", message.run_id)
            return dead
        run = RunRecord.from_item(message.run_id, item)
        if not run.status.live:
            return True
        graph = await self.definitions.graph(run.workflow, run.version)
        if isinstance(message, Drive) and message.path not in graph.steps:
            log.error("message for step %r, which run %s does not have", message.path, run.run_id)
            return dead
        return Session(
            backend=self.backend,
            run=run,
            graph=graph,
            message=message,
            received=received,
            token=self.backend.ids(),
            dead=dead,
            telling=self._telling if origin is None else replace(self._telling, origin=origin),
            deadline=deadline,
            looked=now,
        )

    # ---- dead letters about what cannot be read -------------------------------------------------------------

    async def _end_unread(self, message: Message, error: CorruptRecord) -> bool:
        """Neither handlers nor retention are known. The run fails if its own record is sound; else the log has it."""
        log.error("dead letter of run %r: %s", message.run_id, error)
        with contextlib.suppress(CorruptRecord, Conflict):
            item = await self.backend.table.get(keys.run_key(message.run_id))
            run = RunRecord.from_item(message.run_id, item or {})
            now = self.backend.clock()
            path = message.path if isinstance(message, Drive) else START
            expires = now // 1000 + DEFAULT_RETENTION_DAYS * 86_400
            await self.backend.table.write(
                run_transitions.fail_run(run, path, _unreadable(error), now=now, expires=expires)
            )
        return True

    async def _end_unreadable(self, session: Session, error: CorruptRecord) -> bool:
        """The step run fails as one whose body raised: the run's handlers give back what it holds."""
        log.error("dead letter of run %r: %s", session.run_id, error)
        message = session.message
        path = message.path if isinstance(message, Drive) else session.graph.successors[START][0].target
        session.ended[path] = StepRecord(path, StepStatus.FAILED, session.token, False, error=_unreadable(error))
        ready = await Propagation(session).after(path)
        await send(session, [handler for handler in ready if session.may_start(handler)])
        return True

    # ---- one message --------------------------------------------------------------------------------------

    async def _drive_message(self, session: Session) -> bool:
        propagation = Propagation(session)
        driven = await self._first(session, session.message)
        while True:
            match driven:
                case Lost():
                    return False
                case HandedOver():
                    return True
                case Ended(path, fresh=False):
                    await propagation.walk(path)
                    return True
                case Ended(path):
                    pass
                case _:
                    assert_never(driven)
            ready = [path for path in await propagation.after(path) if session.may_start(path)]
            inline = self._choose(session, ready)
            # All arrivals and all other sends come first: if this worker dies in the inline step, nothing else waits.
            await send(session, [path for path in ready if path != inline], fresh=True)
            if inline is None:
                return True
            if not await self._still_live(session, inline):
                return True
            session.hops += 1
            driven = await self._steps.drive(session, inline, inline=True, fresh=True)

    async def _first(self, session: Session, message: Message) -> Driven:
        match message:
            case Start(fresh=fresh):
                done = StepRecord(START, StepStatus.COMPLETED, "", True)
                session.ended[START] = done
                if session.received.count == 1 and (fresh or session.run.retry_of) and not session.dead:
                    of = f", a retry of {session.run.retry_of}" if session.run.retry_of else ""
                    session.tell("INFO", "run_started", f"run started{of}")
                return Ended(START, done, fresh and session.received.count == 1 and not session.dead)
            case Drive(path=path, fresh=fresh):
                if session.may_start(path):
                    first = fresh and session.received.count == 1
                    return await self._steps.drive(session, path, inline=False, fresh=first)
                record = (await session.records([path])).get(path)
                if record is not None and record.status.terminal:
                    return Ended(path, record, False)
                return HandedOver()
            case _:
                assert_never(message)

    def _choose(self, session: Session, ready: list[str]) -> str | None:
        """The successor to go on with in this delivery: the first one there is time for."""
        if session.dead or session.hops >= self._max_hops:
            return None  # What follows a dead letter is not dead: it goes to the main queue, and runs there.
        if session.deadline is None:
            return ready[0] if ready else None
        left = (session.deadline - self.backend.clock() - TIME_MARGIN) / 1000
        return next((path for path in ready if session.graph.step(path).timeout <= left), None)

    async def _still_live(self, session: Session, path: str) -> bool:
        if self.backend.clock() - session.looked < self.backend.timing.heartbeat * 1000:
            return True
        return await body.look(session) and session.may_start(path)


def _unreadable(error: CorruptRecord) -> ErrorInfo:
    return ErrorInfo("CorruptRecord", str(error), kinds=("CorruptRecord",), retryable=False)
