"""Drives one step run: decide, claim, execute, commit."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from detent_state_machine import decide, retry, transitions
from detent_state_machine.definition import StepDefinition
from detent_state_machine.errors import CorruptRecord, DetentError, InputError
from detent_state_machine.records import ErrorInfo, StepRecord
from detent_state_machine.status import Delivery, StepStatus
from detent_state_machine.transitions import Writer
from detent_state_machine.when import evaluate
from detent_state_machine.writes import Item, Update, Write
from pydantic import JsonValue

from detent_infra import payloads
from detent_infra.durations import duration
from detent_infra.engine import body
from detent_infra.engine.body import LeaseLost, RunOver
from detent_infra.engine.patience import insist
from detent_infra.engine.propagate import later, send
from detent_infra.engine.session import Session
from detent_infra.executor import Attempt, Completed, Control, Executor, Failed, Failure
from detent_infra.ports import Backend, Conflict

log = logging.getLogger("detent")

TIME_MARGIN = 2_000
"""Milliseconds kept free before an invocation's end, for the commit and what follows it."""
RACES = 5
"""How often a claim that lost a race looks again before it leaves the message to its next delivery."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The step run is terminal. `fresh`: by a commit of mine, so its successors have no record yet."""

    path: str
    record: StepRecord
    fresh: bool


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Another message owns the work now: acknowledge."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Somebody else works on it, or it cannot begin here: touch nothing, delete nothing."""


Driven: TypeAlias = Ended | HandedOver | Lost


class Steps:
    """Drives step runs with one executor; holds no state of its own."""

    def __init__(self, backend: Backend, executor: Executor, jitter: Callable[[], float]) -> None:
        self.backend = backend
        self.executor = executor
        self._jitter = jitter

    async def drive(self, session: Session, path: str, *, inline: bool, fresh: bool) -> Driven:
        """Drives the step run as far as this delivery can.

        `fresh`: it was made ready just now (inline), or this is the first delivery of the message sent when it was.
        Then an at-least-once body begins without a claim: nobody else has begun it, but for a duplicate within its
        first second. From then on, and for every other message, a claim refuses the second and counts who died.
        """
        step = session.graph.step(path)
        me = session.writer(path, inline=inline)
        unclaimed = fresh and step.delivery is Delivery.AT_LEAST_ONCE
        # A look at its own record first costs a fifth of the write that it may save: a duplicate that comes late finds
        # it, and a claim of what is there says at once what it saw.
        looks = not inline and not session.dead and (unclaimed or not fresh)
        parents = await session.records([*decide.parents_to_read(step), *([path] if looks else [])])
        own = parents.pop(path, None)
        if own is not None and own.status.terminal:
            return Ended(path, own, False)
        missing = [parent.step for parent in step.parents if parent.need == "completed" and parent.step not in parents]
        if missing:
            log.error("step %r of run %s was driven before %s ended", path, session.run_id, ", ".join(missing))
            return HandedOver() if session.dead else Lost()
        try:
            runs = await self._runs(session, step, parents)
        except (InputError, CorruptRecord) as error:
            return await self._reject(session, me, step, own, _final(error))
        if not runs:
            return await self._skip(session, me)
        if not session.dead and not self.executor.knows(session.graph.definition.name, path):
            # A copy, not this message again: an older worker during a deploy must not make it a dead letter.
            log.warning("no step %r of %r in this code: left for a worker that has it", path, session.run.workflow)
            await later(session, path, self.backend.clock() + int(self.backend.timing.lease * 1000))
            return HandedOver()
        if not session.dead and not inline and not self._has_time(session, step):
            log.warning("no time is left here for step %r of run %s: left for another delivery", path, session.run_id)
            return Lost()
        if own is None and unclaimed and not session.dead:
            return await self._attempt(session, me, step, parents, None)
        claimed = await self._claim(session, me, step, own)
        if not isinstance(claimed, StepRecord):
            return claimed
        return await self._attempt(session, replace(me, held=True), step, parents, claimed)

    def _has_time(self, session: Session, step: StepDefinition) -> bool:
        """Whether the step's timeout fits into the rest of this invocation, or at least half of it is still to come.

        A body that began with less would time out through no fault of its own. What never finds the time is received
        again and again, and ends as a dead letter does. (For an inline step, `_choose` has looked.)
        """
        if session.deadline is None:
            return True
        ends = session.deadline - TIME_MARGIN
        left = ends - self.backend.clock()
        return left > 0 and left >= min(step.timeout * 1000, (ends - session.looked) / 2)

    async def _runs(self, session: Session, step: StepDefinition, parents: dict[str, StepRecord]) -> bool:
        if decide.blocked(step, parents):
            return False
        if step.when is None:
            return True
        named: dict[str | None, str | None] = {None: await session.input_text()}
        for name, record in parents.items():
            named[name] = await session.output_text(record)
        return evaluate(step.when, lambda name: _parsed(named.get(name) or "null"))

    async def _reject(
        self, session: Session, me: Writer, step: StepDefinition, seen: StepRecord | None, error: ErrorInfo
    ) -> Driven:
        """Its condition cannot be evaluated, now or ever.

        It is claimed first: when an earlier worker claimed it, and died, it could be.
        """
        claimed = await self._claim(session, me, step, seen)
        if not isinstance(claimed, StepRecord):
            return claimed
        return await self._fail(session, replace(me, held=True), claimed, error, claimed.started)

    async def _skip(self, session: Session, me: Writer) -> Driven:
        """Every delivery decides the same, so who is late goes on from there."""
        try:
            item = await self._write(transitions.skip(me, now=self.backend.clock(), expires=session.expires))
        except Conflict as conflict:
            if conflict.item is None:
                return Lost()
            record = StepRecord.from_item(me.path, conflict.item)
            if not record.status.terminal:
                return Lost()
            session.remember(record)
            return Ended(me.path, record, transitions.wrote(me, record.status, conflict.item))
        session.tell("INFO", "step_skipped", "skipped", me.path)
        return self._committed(session, me, item)

    async def _claim(
        self, session: Session, me: Writer, step: StepDefinition, seen: StepRecord | None
    ) -> StepRecord | Driven:
        """The record as claimed by me, or what to do instead. `seen` is the record if one was read."""
        for _ in range(RACES):
            write = await self._next_write(session, me, step, seen)
            if not isinstance(write, Update):
                return write
            try:
                item = await self._write(write)
            except Conflict as conflict:
                item = conflict.item
                seen = StepRecord.from_item(me.path, item) if item is not None else None
                if seen is None or seen.status is StepStatus.RUNNING or not transitions.wrote(me, seen.status, item):
                    continue
            assert item is not None
            record = session.remember(StepRecord.from_item(me.path, item))
            if record.status is StepStatus.FAILED and record.error is not None:
                session.tell_error("ERROR", "step_failed", "failed", me.path, record.attempt, record.error)
                return Ended(me.path, record, True)
            if record.status is StepStatus.RETRYING:
                said = "its message was received too often: begins again"
                session.tell("WARN", "step_taken_over", said, me.path, record.attempt)
                await send(session, [me.path])
                return HandedOver()
            if record.takeovers > (seen.takeovers if seen else 0):
                was = "taken over: the worker at it fell silent"
                session.tell("WARN", "step_taken_over", was, me.path, record.attempt)
            return record
        return Lost()

    async def _next_write(
        self, session: Session, me: Writer, step: StepDefinition, seen: StepRecord | None
    ) -> Update | StepRecord | Driven:
        """The write that claims what was seen; or my own record, or what to do instead of claiming."""
        now = self.backend.clock()
        lease = now + int(self.backend.timing.lease * 1000)
        if seen is None:
            if session.dead:
                return transitions.of_dead_letter(me, step, None, now=now, expires=session.expires).write
            return transitions.claim(me, now=now, lease=lease, expires=session.expires)
        refused = transitions.with_record(
            me, step, seen, now=now, lease=lease, expires=session.expires, dead=session.dead
        )
        match refused:
            case transitions.Claim(write) | transitions.Interrupt(write) | transitions.Revive(write):
                return write
            case transitions.Mine(record):
                return record
            case transitions.Ended(record):
                return Ended(me.path, session.remember(record), False)
            case transitions.Later(at):
                # Perhaps this is the owner's own message, delivered twice: deleting it without a copy would delete
                # the owner's recovery.
                await later(session, me.path, at)
                return HandedOver()
            case _:
                assert_never(refused)

    async def _attempt(
        self,
        session: Session,
        me: Writer,
        step: StepDefinition,
        parents: dict[str, StepRecord],
        seen: StepRecord | None,
    ) -> Driven:
        started = self.backend.clock()
        attempt = seen.attempt if seen else 1
        # Of a first attempt its end says enough: a line per step is what a log costs.
        session.tell("INFO" if attempt > 1 else "DEBUG", "step_started", f"attempt {attempt} began", me.path, attempt)
        deadline = started + int(step.timeout * 1000)
        if session.deadline is not None:
            deadline = max(started, min(deadline, session.deadline - TIME_MARGIN))
        try:
            text = await session.input_text()
            outputs = {name: await session.output_text(parents.get(name)) for name in step.reads}
        except CorruptRecord as error:
            return await self._fail(session, me, seen, _final(error), started)
        task = Attempt(
            run_id=session.run_id,
            workflow=session.run.workflow,
            path=me.path,
            step=step,
            number=attempt,
            idempotency_key=f"{session.run.origin or session.run_id}/{me.path}",
            input=text,
            outputs=outputs,
            control=Control(session.add, self.backend.clock, deadline, backend=self.backend),
            metadata=session.run.metadata,
            failure=_failure(session) if step.scope == "on_failure" else None,
            version=session.graph.definition.version,
        )
        outcome, me = await body.execute(self.executor, session, me, task, started)
        match outcome:
            case LeaseLost():
                session.tell("WARN", "step_lost", "stopped: another worker has taken it over", me.path, attempt)
                return Lost()
            case RunOver():
                await self._mark_cancelled(session, me, started)
                session.tell("INFO", "step_cancelled", "stopped: its run has ended", me.path, attempt)
                return HandedOver()
            case Completed() | Failed():
                return await self._commit(session, me, seen, outcome, started)
            case _:
                assert_never(outcome)

    async def _mark_cancelled(self, session: Session, me: Writer, started: int) -> None:
        now = self.backend.clock()
        # Its record belongs to somebody else: the run has ended, and nothing follows from this step.
        with contextlib.suppress(Conflict):
            await self.backend.table.write(transitions.cancel(me, started=started, ended=now, expires=session.expires))

    # ---- commit -------------------------------------------------------------------------------------------

    async def _commit(
        self, session: Session, me: Writer, seen: StepRecord | None, outcome: Completed | Failed, started: int
    ) -> Driven:
        if isinstance(outcome, Completed):
            try:
                return await self._complete(session, me, seen, outcome, started)
            except Conflict as conflict:
                outcome = Failed(_refused(conflict))
            except InputError as error:  # no later attempt would fare better: what it writes can never be stored
                outcome = Failed(_final(error))
        return await self._fail(session, me, seen, outcome.error, started)

    async def _complete(
        self, session: Session, me: Writer, seen: StepRecord | None, outcome: Completed, started: int
    ) -> Driven:
        """Raises `Conflict` only for a write of the user's own: the step itself is then not complete."""
        attempt = seen.attempt if seen else 1
        output = await payloads.store(self.backend.blobs, outcome.output)
        ended = self.backend.clock()
        write = transitions.complete(
            me, started=started, ended=ended, output=output, expires=session.expires, commits=len(outcome.writes)
        )
        session.texts[me.path] = outcome.output
        try:
            if outcome.writes:
                await insist(lambda: self.backend.table.transact([write, *outcome.writes]), self._jitter)
                item: Item | None = {**write.set, "inline": me.inline}
            else:
                item = await self._write(write)
        except Conflict as conflict:
            if conflict.index > 0:
                session.texts.pop(me.path)
                raise
            if not transitions.wrote(me, StepStatus.COMPLETED, conflict.item):
                return self._too_late(session, me, attempt)
            item = conflict.item
        took = ended - started
        said = f"completed in {duration(took)}"
        session.tell("INFO", "step_completed", said, me.path, attempt, duration_ms=took)
        return self._committed(session, me, item)

    async def _fail(
        self, session: Session, me: Writer, seen: StepRecord | None, error: ErrorInfo, started: int
    ) -> Driven:
        step = session.graph.step(me.path)
        attempt = seen.attempt if seen else 1
        verdict = retry.decide(
            step.retry,
            errors=(seen.errors if seen else 0) + 1,
            kinds=error.kinds,
            retryable=error.retryable and step.delivery is not Delivery.AT_MOST_ONCE,
            retry_after=error.retry_after,
            jitter=self._jitter(),
        )
        ended = self.backend.clock()
        if isinstance(verdict, retry.Again):
            due = ended + int(verdict.delay * 1000)
            write = transitions.retry(
                me, seen, started=started, ended=ended, due=due, expires=session.expires, error=error
            )
            status = StepStatus.RETRYING
        else:
            write = transitions.fail(me, seen, started=started, ended=ended, expires=session.expires, error=error)
            status = StepStatus.FAILED
        try:
            item = await self._write(write)
        except Conflict as conflict:
            if not transitions.wrote(me, status, conflict.item):
                return self._too_late(session, me, attempt)
            item = conflict.item
        took = ended - started
        if isinstance(verdict, retry.Again):
            said = f"attempt {attempt} failed, again in {duration(due - ended)}"
            session.tell_error("WARN", "step_retrying", said, me.path, attempt, error, duration_ms=took)
            await send(session, [me.path], delay=verdict.delay)
            return HandedOver()
        said = f"failed ({verdict.reason})"
        session.tell_error("ERROR", "step_failed", said, me.path, attempt, error, duration_ms=took)
        return self._committed(session, me, item)

    async def _write(self, write: Write) -> Item | None:
        return await insist(lambda: self.backend.table.write(write), self._jitter)

    def _committed(self, session: Session, me: Writer, item: Item | None) -> Ended:
        assert item is not None
        return Ended(me.path, session.remember(StepRecord.from_item(me.path, item)), True)

    def _too_late(self, session: Session, me: Writer, attempt: int) -> Lost:
        """The commit was refused, and not by an earlier try of it."""
        session.tell("WARN", "step_lost", "result dropped: another worker was first", me.path, attempt)
        return Lost()


def _failure(session: Session) -> Failure | None:
    run = session.run
    if run.failed_step is None or run.error is None:
        return None
    return Failure(run.failed_step, run.error)


def _parsed(text: str) -> JsonValue:
    try:
        parsed: JsonValue = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptRecord(f"A value that the condition looks at cannot be read: {error}.") from error
    return parsed


def _final(error: DetentError) -> ErrorInfo:
    return ErrorInfo(type(error).__name__, str(error), retryable=False)


def _refused(conflict: Conflict) -> ErrorInfo:
    stored = "nothing" if conflict.item is None else f"{len(conflict.item)} attributes"
    return ErrorInfo(
        "CommitConflict",
        f"Write {conflict.index} of ctx.commit was refused: its condition does not hold ({stored} stored). "
        "Nothing of this attempt was written.",
        kinds=("CommitConflict", "Exception"),
    )
