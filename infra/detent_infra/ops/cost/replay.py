"""Goes through a stored run as the engine went, and counts what each act asks of AWS instead of doing it.

docs/internals/execution.md tells what the acts are; `engine.loop`, `engine.step` and `engine.propagate` do them. Which
of them happened follows from the records: attempts and their times from each step's history, the delivery that a step
ran in from its owner token, what was a message of its own from `inline`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from detent_state_machine import decide
from detent_state_machine.definition import StepDefinition
from detent_state_machine.graph import END, HANDLED, START, Successor
from detent_state_machine.item_limits import item_size
from detent_state_machine.records import StepRecord
from detent_state_machine.status import Delivery, RunStatus, StepStatus
from detent_state_machine.writes import Item

from detent_infra.engine.loop import MAX_HOPS
from detent_infra.ops.cost.facts import Attempt, Facts, How
from detent_infra.ops.cost.metering import Usage, index_units, read_units, write_units
from detent_infra.ports import Timing
from detent_infra.worker import BATCH

RUN = ""
"""The part of a run that belongs to no step: its start, its end, and its place in the index."""
BATCH_GET = 100
"""Items that one BatchGetItem reads."""
LOG_BYTES_PER_INVOCATION = 620
"""Lambda's lines START, END and REPORT (about 270 bytes), and detent's line of metrics (about 350)."""
COMMITTED_UNITS = 2
"""Of a write of `ctx.commit`, if its item stays below 1 KB: it is in a transaction."""


@dataclass
class _Message:
    path: str
    fresh: bool
    share: float = 1.0
    """Of the receive and of the deletion: up to 10 messages that were sent together share them."""
    again: bool = False
    """A delivery after the first: it is not deleted once more."""


@dataclass
class _Session:
    """What a delivery knows already, as `engine.session.Session` does."""

    ended: set[str] = field(default_factory=set[str])
    texts: set[str] = field(default_factory=set[str])
    input: bool = False
    hops: int = 0
    looked: int | None = None
    until: int | None = None
    """When its last attempt ended."""


class Replay:
    """Counts one run. `parts` has the usage of each step by its path, and of the run itself under `RUN`."""

    def __init__(self, facts: Facts, timing: Timing) -> None:
        self.parts: dict[str, Usage] = {RUN: Usage()}
        self._facts = facts
        self._timing = timing
        self._messages: deque[_Message] = deque()
        self._tried: Counter[str] = Counter()
        self._part(RUN).log_bytes = facts.log_bytes

    def go(self) -> None:
        self._start()
        while self._messages:
            message = self._messages.popleft()
            if self._was_delivered(message):
                self._deliver(message)
        if self._facts.run.status is RunStatus.CANCELLED:
            self._read_run(self._part(RUN))
            self._write_run(self._facts.at_start, self._facts.item)

    def _part(self, path: str) -> Usage:
        return self.parts.setdefault(path, Usage())

    # ---- start and deliveries -------------------------------------------------------------------------------

    def _start(self) -> None:
        facts, usage = self._facts, self._part(RUN)
        if facts.run.input.ref is not None:
            usage.asked("s3.PutObject")
        for path in facts.carried:
            self._part(path).asked("dynamodb.PutItem")
            self._part(path).write_units += write_units(facts.size(path))
        usage.asked("dynamodb.PutItem")
        usage.write_units += write_units(facts.size_at_start)
        usage.index_write_units += index_units(None, facts.at_start)
        self._send(usage, [START], fresh=facts.run.retry_of is None)

    def _was_delivered(self, message: _Message) -> bool:
        facts = self._facts
        if message.path == START:
            return bool(facts.records.keys() - facts.carried) or not facts.run.status.live
        record = facts.records.get(message.path)
        if record is None:
            return False
        return record.status is StepStatus.SKIPPED or self._tried[message.path] < len(facts.attempts(record))

    def _deliver(self, message: _Message) -> None:
        path = message.path
        usage = self._part(RUN if path == START else path)
        self._ask_queue(usage, "ReceiveMessage", message.share)
        if message.again:
            self._ask_queue(usage, "ChangeMessageVisibility")
        else:
            self._ask_queue(usage, "DeleteMessageBatch", message.share)
        usage.invocations += message.share
        usage.log_bytes += message.share * LOG_BYTES_PER_INVOCATION
        self._read_run(usage)
        session = _Session()
        if path == START and not message.fresh:
            self._walk(session)
            return
        if path != START and not self._drive(session, path, inline=False, fresh=message.fresh):
            return
        while True:
            ready = self._after(path)
            inline = self._inline(session, ready)
            self._send(self._part(RUN if path == START else path), [each for each in ready if each != inline])
            if inline is None:
                return
            self._look(session, inline)
            session.hops += 1
            if not self._drive(session, inline, inline=True, fresh=True):
                return
            path = inline

    def _inline(self, session: _Session, ready: Sequence[str]) -> str | None:
        """Which of them the delivery went on with: the one whose record says so. A retry has overwritten that, and a
        step that is under way has no record yet.
        """
        records = self._facts.records
        if session.hops >= MAX_HOPS:
            return None
        marked = [path for path in ready if path in records and records[path].inline]
        retried = [path for path in ready if path in records and self._facts.was_retried(records[path])]
        begun = [path for path in ready if path not in records]
        return next(iter([*marked, *retried, *begun]), None)

    def _walk(self, session: _Session) -> None:
        """The start message of a retry: through what was carried over, to the first steps without a record."""
        stack, met = [START], {START}
        while stack:
            targets = [path for path in self._after(stack.pop()) if path not in met]
            met.update(targets)
            self._read(session, self._part(RUN), targets)
            for path in targets:
                if path in self._facts.carried:
                    stack.append(path)
                else:
                    self._send(self._part(path), [path], fresh=False)

    # ---- one step run -----------------------------------------------------------------------------------------

    def _drive(self, session: _Session, path: str, *, inline: bool, fresh: bool) -> bool:
        """Whether this delivery ended the step run, and so goes on from it."""
        facts, usage = self._facts, self._part(path)
        step, record = facts.graph.step(path), facts.records.get(path)
        unclaimed = fresh and step.delivery is Delivery.AT_LEAST_ONCE
        looks = not inline and (unclaimed or not fresh)
        self._read(session, usage, [*decide.parents_to_read(step), *([path] if looks else [])])
        if record is None:
            return False
        if step.when is not None and not decide.blocked(step, self._parents(step)):
            self._load(session, usage, decide.parents_to_read(step))
        if record.status is StepStatus.SKIPPED:
            self._write(usage, facts.size(path))
            session.ended.add(path)
            return True
        tried, attempts = self._tried[path], facts.attempts(record)
        if tried >= len(attempts):
            return False
        self._tried[path] += 1
        if tried or not unclaimed:
            self._write(usage, facts.size_before(path, tried))
        self._load(session, usage, step.reads)
        self._work(session, usage, attempts[tried], path)
        return self._commit(session, usage, attempts[tried], path, tried)

    def _parents(self, step: StepDefinition) -> dict[str, StepRecord]:
        records = self._facts.records
        return {parent.step: records[parent.step] for parent in step.parents if parent.step in records}

    def _load(self, session: _Session, usage: Usage, outputs: Sequence[str]) -> None:
        """The run's input and those outputs, as far as they are blobs that this delivery has not read."""
        facts = self._facts
        if facts.run.input.ref is not None and not session.input:
            usage.asked("s3.GetObject")
        session.input = True
        for path in outputs:
            if path not in session.texts and facts.is_blob(path):
                usage.asked("s3.GetObject")
            session.texts.add(path)

    def _work(self, session: _Session, usage: Usage, attempt: Attempt, path: str) -> None:
        if not attempt.timed:
            usage.milliseconds += 1 if session.until is None else 0
            return
        since = attempt.started
        if self._facts.in_lambda and session.until is not None:
            since = min(since, session.until)
        # A delivery is billed a millisecond at least.
        usage.milliseconds += max(attempt.ended - since, 1 if session.until is None else 0)
        session.until = attempt.ended
        if session.looked is None:
            session.looked = attempt.started
        first, pause = self._timing.first_heartbeat * 1000, self._timing.heartbeat * 1000
        lasted = attempt.ended - attempt.started
        beats = 0 if lasted < first else 1 + int((lasted - first) // pause)
        for beat in range(beats):
            self._write(usage, self._facts.size_before(path, 0))
            self._ask_queue(usage, "ChangeMessageVisibility")
            self._read_run(usage)
            session.looked = attempt.started + int(first + beat * pause)

    def _look(self, session: _Session, path: str) -> None:
        """Before an inline step the run is read again, if the last look is older than a heartbeat."""
        record = self._facts.records.get(path)
        if record is None or session.looked is None:
            return
        attempts = self._facts.attempts(record)
        attempt = attempts[self._tried[path]] if attempts else None
        if attempt is not None and not attempt.timed:
            return
        begins = attempt.started if attempt is not None else record.started
        if begins - session.looked >= self._timing.heartbeat * 1000:
            usage = self._part(path)
            self._ask_queue(usage, "ChangeMessageVisibility")
            self._read_run(usage)
            session.looked = begins

    def _commit(self, session: _Session, usage: Usage, attempt: Attempt, path: str, tried: int) -> bool:
        facts = self._facts
        record = facts.records[path]
        match attempt.how:
            case How.UNDER_WAY:
                return False
            case How.LOST:
                self._messages.append(_Message(path, fresh=False, again=True))
                return False
            case How.RETRIED:
                self._write(usage, facts.size_of_retry(path, tried + 1))
                self._send(usage, [path], fresh=False)
                return False
            case How.ENDED:
                pass
        if facts.is_blob(path):
            usage.asked("s3.PutObject")
        units = write_units(max(facts.size(path), facts.size_before(path, tried)))
        if record.commits:
            usage.asked("dynamodb.TransactWriteItems")
            usage.write_units += 2 * units + COMMITTED_UNITS * record.commits
        else:
            usage.asked("dynamodb.UpdateItem")
            usage.write_units += units
        session.ended.add(path)
        session.texts.add(path)
        return True

    # ---- what follows -----------------------------------------------------------------------------------------

    def _after(self, path: str) -> list[str]:
        """The steps that were made ready, without those that a run which has ended did not start any more."""
        facts = self._facts
        record = facts.records.get(path)
        if record is not None and record.status is StepStatus.FAILED:
            ready = self._failed(path)
        elif record is not None and record.status is StepStatus.CANCELLED:
            ready = []
        else:
            ready = [each.target for each in facts.graph.successors[path] if self._reached(path, each)]
        return [each for each in ready if facts.run.status.live or each in facts.records]

    def _reached(self, path: str, successor: Successor) -> bool:
        """Counts the arrivals at the join, and the run's end; whether a step is ready by it."""
        facts = self._facts
        for arrival in successor.arrivals:
            self._write(self._part(path), facts.size_of_join(arrival))
            if facts.last_arrival(successor.target, arrival.group) != path:
                return False
        if successor.target not in (END, HANDLED):
            return True
        if not facts.run.status.live:
            self._write_run(facts.at_start if successor.target == END else facts.failing, facts.item)
        return False

    def _failed(self, path: str) -> list[str]:
        facts = self._facts
        if facts.graph.is_handler(path):
            self._write_run(facts.failing, facts.item)
            return []
        if not facts.graph.handler_roots:
            self._write_run(facts.at_start, facts.item)
            return []
        if path != facts.run.failed_step:
            self._write_run(facts.item, facts.item)  # refused: another step failed first
            return []
        self._write_run(facts.at_start, facts.failing)
        return list(facts.graph.handler_roots)

    # ---- requests ---------------------------------------------------------------------------------------------

    def _send(self, usage: Usage, paths: Sequence[str], *, fresh: bool = True) -> None:
        for at in range(0, len(paths), BATCH):
            batch = paths[at : at + BATCH]
            self._ask_queue(usage, "SendMessageBatch")
            self._messages += [_Message(path, fresh, 1 / len(batch)) for path in batch]

    def _ask_queue(self, usage: Usage, operation: str, times: float = 1) -> None:
        usage.asked(f"sqs.{operation}", times)
        usage.sqs_requests += times

    def _read_run(self, usage: Usage) -> None:
        usage.asked("dynamodb.GetItem")
        usage.read_units += read_units(self._facts.size_at_start)

    def _read(self, session: _Session, usage: Usage, paths: Sequence[str]) -> None:
        facts = self._facts
        unread = [path for path in paths if path not in session.ended]
        if not unread:
            return
        usage.asked("dynamodb.BatchGetItem", math.ceil(len(unread) / BATCH_GET))
        for path in unread:
            tried = self._tried[path]
            finished = path in facts.records and (path in facts.carried or self._is_ended(path))
            size = facts.size(path) if finished else facts.size_of_retry(path, tried) if tried else 0
            usage.read_units += read_units(size)
            if finished:
                session.ended.add(path)

    def _is_ended(self, path: str) -> bool:
        """Whether the step run has ended by now, in this replay."""
        record = self._facts.records[path]
        if record.status is StepStatus.SKIPPED:
            return True
        return record.status.terminal and self._tried[path] >= len(self._facts.attempts(record))

    def _write(self, usage: Usage, size: int) -> None:
        usage.asked("dynamodb.UpdateItem")
        usage.write_units += write_units(size)

    def _write_run(self, before: Item, after: Item) -> None:
        usage = self._part(RUN)
        usage.asked("dynamodb.UpdateItem")
        usage.write_units += write_units(max(item_size(before), item_size(after)))
        usage.index_write_units += index_units(before, after)
