"""Drives one step run as far as a delivery can: read, begin, run the body, settle, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, assert_never

from detent_state_machine import begin, follow, settle
from detent_state_machine import decisions as decided
from detent_state_machine.definition import StepDefinition
from detent_state_machine.errors import CorruptRecord, InputError
from detent_state_machine.records import NoRecord, Seen, StepRecord
from detent_state_machine.step_path import StepPath
from detent_state_machine.turn import Turn, Writer
from detent_state_machine.writes import Item

from detent_infra import orphans, payloads
from detent_infra.engine import body
from detent_infra.engine.session import Session
from detent_infra.events import facts
from detent_infra.executor import Attempt, Completed, Control, Executor, Failed, Failure
from detent_infra.ports import Backend, Conflict
from detent_infra.suspects import Suspects
from detent_infra.unanswered import retry_unanswered

RACES = 5
"""How often a claim that lost a race decides again before it leaves the message to its next delivery."""

Driven: TypeAlias = decided.Ended | decided.HandOver | decided.Leave


class Driver:
    """Drives step runs with one executor, suspects one at a time."""

    def __init__(self, backend: Backend, executor: Executor, jitter: Callable[[], float]) -> None:
        self._backend = backend
        self._executor = executor
        self._jitter = jitter
        self._suspects = Suspects(backend.timing)

    async def drive(self, session: Session, path: StepPath, turn: Turn, *, alone: bool = False) -> Driven:
        """Reads what decides about the step run, and carries out what is decided, until it has begun or cannot."""
        step = session.graph.step(path)
        me = Writer(session.run.run_id, path, session.token, turn)
        itself = [path] if begin.reads_itself(step, turn) else []
        parents = await session.records([*session.graph.to_read[step.name], *itself])
        seen: Seen = parents.pop(path, NoRecord(path))
        may_start = follow.may_start(session.graph, session.run, path)
        if may_start:
            ready = await self._readiness(session, step, seen, parents)
        else:
            ready = begin.unwanted(step, parents, session.run, self._backend.clock())
        here = await self._here(session, step, seen, path)
        races = 0
        while races < RACES:
            decision = begin.begin(step, me, seen, ready, here, session.moment())
            match decision:
                case decided.Run(seen=found):
                    return await self._attempt(session, me, step, found, parents)
                case decided.Reject(record, error):
                    return await self._settle(session, me, step, record, decided.Raised(error), record.started)
                case decided.Ended(record):
                    session.remember(record)
                    return decision
                case decided.HandOver() | decided.Leave():
                    return decision
                case decided.Transition(suspect=deaths) if deaths and not alone:
                    async with self._suspects.turn(deaths) as mine:
                        return await self.drive(session, path, turn, alone=True) if mine else self._suspects.later(path)
                case decided.Transition():
                    made, item = await self._make(me, decision)
                    if made and decision.then is not decided.Then.BEGIN:
                        return self._made(session, me, decision, item)
                    session.lines.log_event(decision.line if made else None)
                    seen = orphans.read_seen(self._backend, path, item)
                    if not made:
                        races += 1
                        here = await self._here(session, step, seen, path)
                case _:
                    assert_never(decision)
        return decided.Leave()

    async def _here(self, session: Session, step: StepDefinition, seen: Seen, path: StepPath) -> decided.Here:
        name, brought = session.graph.definition.name, session.fact if path == session.path else None
        question = begin.asks(step, seen, brought, self._backend.clock()) if isinstance(seen, StepRecord) else None
        fact = await facts.answer(self._backend, self._executor, name, path, question) if question else None
        knows = self._executor.knows(name, path)
        return decided.Here(knows, session.renewed, session.deadline, session.run.since, brought, fact)

    async def _readiness(
        self, session: Session, step: StepDefinition, seen: Seen, parents: Mapping[str, StepRecord]
    ) -> decided.Readiness:
        try:
            texts = await session.values(parents) if begin.looks_at_values(step, seen, parents) else {}
        except CorruptRecord as error:
            return decided.Unfit(decided.final(error))
        return begin.readiness(step, seen, parents, texts)

    async def _attempt(
        self, session: Session, me: Writer, step: StepDefinition, seen: Seen, parents: Mapping[str, StepRecord]
    ) -> Driven:
        run, started = session.run, self._backend.clock()
        session.lines.log_event(begin.attempt_line(me, seen))
        try:
            text = await session.input_text()
            outputs = {name: await session.output_text(parents.get(name)) for name in step.reads}
        except CorruptRecord as error:
            return await self._settle(session, me, step, seen, decided.Raised(decided.final(error)), started)
        ends = begin.ends_at(step, started, session.deadline)
        attempt = Attempt(
            run_id=run.run_id,
            workflow=run.workflow,
            path=me.path,
            step=step,
            number=seen.attempt,
            idempotency_key=f"{run.origin or run.run_id}/{me.path}",
            input=text,
            outputs=outputs,
            control=Control(session.lines.add, self._backend.clock, ends, backend=self._backend),
            metadata=run.metadata,
            version=session.graph.definition.version,
            failure=Failure(run.failed_step, run.error) if run.failed_step is not None and run.error else None,
        )
        outcome, seen = await body.execute(self._executor, session, me, seen, attempt, started)
        return await self._settle(session, me, step, seen, await self._stored(session, me, outcome), started)

    async def _stored(self, session: Session, me: Writer, outcome: Completed | Failed | body.Stop) -> decided.Outcome:
        """The outcome, with its output stored where it is too large for the record."""
        match outcome:
            case Completed(text, writes):
                try:
                    output = await payloads.store(self._backend.blobs, text)
                except InputError as error:
                    return decided.Raised(decided.final(error))
                session.texts[me.path] = text
                return decided.Returned(output, writes)
            case Failed(error):
                return decided.Raised(error)
            case _:
                return outcome

    async def _settle(
        self, session: Session, me: Writer, step: StepDefinition, seen: Seen, outcome: decided.Outcome, started: int
    ) -> Driven:
        jitter = self._jitter() if isinstance(outcome, decided.Raised) else 0.0
        settled = settle.settle(step, me, seen, outcome, session.moment(), started=started, jitter=jitter)
        if isinstance(settled, decided.Leave):
            return settled
        try:
            made, item = await self._make(me, settled)
        except (Conflict, InputError) as error:
            # Nothing is stored: one of the user's own writes is refused now, or can never be stored.
            if not isinstance(outcome, decided.Returned):
                raise
            session.texts.pop(me.path, None)
            told = settle.not_stored(error.index, error.item) if isinstance(error, Conflict) else decided.final(error)
            return await self._settle(session, me, step, seen, decided.Raised(told), started)
        if not made and settled.refusal is decided.IfRefused.LOST:
            return settle.dropped(me, seen)
        return self._made(session, me, settled, item)

    async def _make(self, me: Writer, transition: decided.Transition) -> tuple[bool, Item | None]:
        """Whether the transition is made, and what is stored now. Raises `Conflict` only for the user's own writes."""
        write, effects, outage = transition.write, transition.effects, self._backend.outage
        try:
            if effects:
                await retry_unanswered(lambda: self._backend.table.transact([write, *effects]), self._jitter, outage)
                return True, {**write.set, "inline": me.inline}
            return True, await retry_unanswered(lambda: self._backend.table.write(write), self._jitter, outage)
        except Conflict as conflict:
            if conflict.index > 0:
                raise
            return settle.is_mine(me, write, conflict.item), conflict.item

    def _made(self, session: Session, me: Writer, transition: decided.Transition, item: Item | None) -> Driven:
        """Tells the transition; what it owes is left to the caller."""
        session.lines.log_event(transition.line)
        if transition.then is decided.Then.FOLLOW and item is not None:
            return decided.Ended(session.remember(StepRecord.from_item(me.path, item)), mine=True)
        return decided.HandOver(transition.owes)
