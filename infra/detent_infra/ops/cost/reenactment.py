"""Re-enacts a stored run with the engine itself, on a metered memory backend under a virtual clock.

Bodies are answered from the records: each attempt takes the time that it took and ends as it ended, be it that its
worker died. Everything else, what is read, written, sent and taken over, is the engine's own doing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, assert_never, cast

from detent_state_machine import keys
from detent_state_machine.definition import Definition
from detent_state_machine.errors import DetentError
from detent_state_machine.item_limits import item_size
from detent_state_machine.messages import Drive, Start, Wake, decode, encode
from detent_state_machine.records import NULL, ErrorInfo, Payload, StepRecord, payload_attributes
from detent_state_machine.retry import Retry
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Key, PutItem

from detent_infra import executor
from detent_infra.engine import Engine
from detent_infra.events.publish import wake
from detent_infra.ids import new_id
from detent_infra.memory import MemoryQueue, memory_backend
from detent_infra.ops.cost.facts import ERROR_BYTES, AttemptFacts, Facts, How
from detent_infra.ops.cost.metered import RUN, MeteredDelivery, Parts, metered
from detent_infra.ops.cost.metering import Usage
from detent_infra.payloads import INLINE_LIMIT
from detent_infra.ports import Received, Timing
from detent_infra.redelivery import TURNS
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.virtual_time import VirtualLoop

LOG_BYTES_PER_INVOCATION = 620
"""Lambda's lines START, END and REPORT (about 270 bytes), and detent's line of metrics (about 350)."""
A_MOMENT = 0.001
"""Seconds."""
AFTERWARDS = 3_600.0
"""Seconds after the last that is known of the run: by then whatever goes on is not of its records."""
LARGE = f'"{"x" * INLINE_LIMIT}"'
"""Stands for an output that is a blob."""


class _Died(BaseException):
    """The worker is gone, its message stays."""


class _Unknown(BaseException):
    """The records tell nothing further of this delivery."""


def reenact(facts: Facts, timing: Timing) -> Mapping[str, Usage]:
    """The usage of each step by its path, and of the run itself under `RUN`. Runs an event loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        stage = _Stage(facts, timing, runner.get_loop())
        runner.run(stage.play())
    stage.parts.of(RUN).log_bytes += facts.log_bytes
    return stage.parts.usage


class _Clock:
    """The time of the run, in milliseconds since the epoch."""

    def __init__(self, opened: int, loop: asyncio.AbstractEventLoop) -> None:
        self._opened = opened
        self._loop = loop

    def __call__(self) -> int:
        return round(self.exact)

    @property
    def exact(self) -> float:
        return self._opened + self._loop.time() * 1000

    async def until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.exact) / 1000)


class _Stage:
    """The backend, the engine, and the messages between them."""

    def __init__(self, facts: Facts, timing: Timing, loop: asyncio.AbstractEventLoop) -> None:
        self.parts = Parts()
        self._facts = facts
        self._clock = _Clock(facts.run.created, loop)
        self._plain = memory_backend(clock=self._clock, ids=new_id, timing=timing)
        self._backend = metered(self._plain, self.parts, facts.texts)
        self._script = _Script(facts, timing, self.parts, self._clock)
        self._engine = Engine(self._backend, self._script, jitter=lambda: 0.0)
        self._tasks: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        facts = self._facts
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((facts.latest - facts.run.created) / 1000 + AFTERWARDS):
                await self._start()
                if facts.run.status is RunStatus.CANCELLED and facts.run.ended is not None:
                    self._spawn(self._cancel(facts.run.ended))
                for record in facts.records.values():
                    if record.fact and record.ended is not None:
                        self._spawn(self._publish(record, record.ended))
                await self._deliver_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self) -> None:
        facts, backend = self._facts, self._backend
        run = facts.run
        stored = payload_attributes("definition", Payload(_without_limits(facts.graph.definition).to_json()))
        await self._plain.table.write(PutItem(keys.definition_key(run.workflow, run.version), stored))
        if run.input.ref is not None:
            self.parts.of(RUN).asked("s3.PutObject")
        for path in facts.carried:
            await backend.table.write(
                PutItem(keys.step_key(run.run_id, StepPath(path)), facts.items[keys.STEP_PREFIX + path])
            )
        await backend.table.write(PutItem(keys.run_key(run.run_id), facts.at_start))
        await backend.queue.send([encode(Start(run.run_id, fresh=run.retry_of is None))])

    async def _cancel(self, at: int) -> None:
        await self._clock.until(at)
        with contextlib.suppress(DetentError):
            await Lifecycle(self._backend).cancel(self._facts.run.run_id)

    async def _publish(self, record: StepRecord, at: int) -> None:
        """The event that ended a wait, as its publisher stored and sent it. The run is charged for that as well."""
        await self._clock.until(at)
        key = Key(record.awaits, record.fact)
        payload = payload_attributes("payload", record.output or NULL)
        await self._backend.table.write(PutItem(key, payload, expect=None))
        await wake(self._backend, Wake(key))

    # ---- messages -----------------------------------------------------------------------------------------------

    async def _deliver_all(self) -> None:
        queue = cast("MemoryQueue", self._plain.queue)
        while True:
            received = await queue.receive(1, wait=60.0, visibility=self._plain.timing.visibility)
            for message in received:
                self._spawn(self._deliver(message))
            if not received and not queue and not self._tasks:
                return

    async def _deliver(self, received: Received) -> None:
        """One delivery, when the records say that it was made; if it was not made so far, the message is dropped."""
        message = decode(received.body)
        path = message.path if isinstance(message, Drive) else RUN
        queue = self._plain.queue
        begins = await self._begins(path, again=received.count > 1)
        if begins is None:
            await queue.delete(received.receipt)
            return
        if begins > self._clock():
            await queue.extend(received.receipt, (begins - self._clock()) / 1000 + self._plain.timing.visibility)
            await self._clock.until(begins)
        delivery = MeteredDelivery(path)
        self.parts.begin(delivery)
        share = self.parts.shares.get(received.body, 1.0) if received.count == 1 else 1.0
        usage = self.parts.here
        usage.asked_queue("ReceiveMessage", times=share)
        usage.invocations += share
        usage.log_bytes += share * LOG_BYTES_PER_INVOCATION
        dead = self._script.next_is_dead(path)
        began = self._clock.exact
        try:
            done = await self._engine.handle(received, dead=dead)
        except _Died:
            return
        except _Unknown:
            await queue.delete(received.receipt)
            return
        finally:
            self.parts.end(delivery)
            if turns := self._turns_hidden((self._clock.exact - began) / 1000):
                usage.asked_queue("ChangeMessageVisibilityBatch", times=share * turns)
        if dead:
            self._script.tried[path] += 1
        if done:
            usage.asked_queue("DeleteMessageBatch", times=share)
            await queue.delete(received.receipt)

    def _turns_hidden(self, seconds: float) -> int:
        """How often a function that works for so long hides its batch, as `redelivery.keep_hidden` does."""
        timing = self._plain.timing
        longer = seconds - timing.short_batch
        return 0 if longer <= 0 else 1 + int(longer / (timing.visibility / TURNS))

    async def _begins(self, path: str, *, again: bool) -> int | None:
        """When a message for the step was delivered; None if it was not, as far as the records tell."""
        facts, now = self._facts, self._clock()
        if path == RUN:
            return facts.first_begun if facts.was_delivered else None
        item = await self._plain.table.get(keys.step_key(facts.run.run_id, StepPath(path)))
        if (
            item is not None
            and StepStatus(str(item["status"])).has_due_time
            and cast("int", item.get("due") or 0) > now
        ):
            return now  # The queue could not delay it for so long: the engine sends it on.
        attempt, record = self._script.next_attempt(path), facts.records.get(path)
        if attempt is not None:
            return attempt.started
        if again or (record is not None and record.status.terminal):
            return now
        return facts.run.ended  # It was found when the run was over.

    def _spawn(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(act)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Script:
    """Answers each attempt as the records say that it ended."""

    def __init__(self, facts: Facts, timing: Timing, parts: Parts, clock: _Clock) -> None:
        self.tried: Counter[str] = Counter()
        self._facts = facts
        self._timing = timing
        self._parts = parts
        self._clock = clock

    def definitions(self) -> Mapping[str, Definition]:
        return {}

    def knows(self, workflow: str, step: str) -> bool:  # noqa: ARG002
        return True

    def misfit(self, workflow: str, step: str, text: str) -> ErrorInfo | None:  # noqa: ARG002
        record = self._facts.records.get(step)
        return record.error if record is not None and record.fact else None

    def next_attempt(self, path: str) -> AttemptFacts | None:
        record = self._facts.records.get(path)
        attempts = self._facts.attempts(record) if record is not None else []
        return attempts[self.tried[path]] if self.tried[path] < len(attempts) else None

    def next_is_dead(self, path: str) -> bool:
        """Whether what became of the attempt was decided behind a dead letter."""
        attempt = self.next_attempt(path)
        return attempt is not None and attempt.error == "DeadLetter"

    async def execute(self, attempt: executor.Attempt) -> executor.Outcome:
        path = attempt.path
        delivery = self._parts.name(path)
        past = self.next_attempt(path)
        if past is None or delivery is None:
            raise _Unknown
        self.tried[path] += 1
        record = self._facts.records[path]
        self._bill(past, delivery)
        await asyncio.sleep(self._lasts(past, record))
        match past.how:
            case How.UNDER_WAY:
                raise _Unknown
            case How.LOST:
                raise _Died
            case How.RETRIED:
                following = self.next_attempt(path)
                again = following.started if following is not None else record.due
                return executor.Failed(_error_of(past, max(0, again - self._clock()) / 1000))
            case How.ENDED:
                return self._end(record, past)
            case _:
                assert_never(past.how)

    def _end(self, record: StepRecord, past: AttemptFacts) -> executor.Outcome:
        if record.status is StepStatus.COMPLETED:
            output = record.output or NULL
            text = output.text if output.ref is None else self._facts.texts.get(output.ref, LARGE)
            writes = [PutItem(Key("data#", str(n)), {}, expect=None) for n in range(record.commits)]
            return executor.Completed(text or "null", tuple(writes))
        if record.error is None:
            raise _Unknown  # Its run was over, which the engine has not noticed here.
        if past.error == "Interrupted":
            raise _Died
        return executor.Failed(replace(record.error, retryable=False))

    def _lasts(self, past: AttemptFacts, record: StepRecord) -> float:
        """Seconds that the body takes. One that was short ends when the records say, and so before or after others."""
        first, lease = self._timing.first_heartbeat, self._timing.lease
        lasted = (past.ended - past.started) / 1000
        match past.how:
            case How.LOST:
                return max(lasted - lease, first) + A_MOMENT  # Its last heartbeat was a lease before its end.
            case How.UNDER_WAY:
                return max(0.0, (record.lease - record.started) / 1000 - lease) + A_MOMENT
            case _ if past.error == "Interrupted":
                return first + A_MOMENT  # Whoever takes it over finds a record.
            case _ if record.status is StepStatus.CANCELLED and past.how is How.ENDED:
                return lasted + 2 * self._timing.heartbeat  # The engine stops it: its run is over.
            case _ if lasted >= first:
                return lasted
            case _:
                left = (self._facts.arrived(record) - self._clock.exact) / 1000
                return min(max(left, 0.0), first - A_MOMENT)

    def _bill(self, past: AttemptFacts, delivery: MeteredDelivery) -> None:
        """Lambda's time. A delivery is billed a millisecond at least."""
        usage, until = self._parts.of(delivery.path), delivery.bodies_until
        least = 1 if until is None else 0
        if not past.timed:
            usage.milliseconds += least
            return
        since = min(past.started, until) if self._facts.in_lambda and until is not None else past.started
        usage.milliseconds += max(past.ended - since, least)
        delivery.bodies_until = past.ended


def _without_limits(definition: Definition) -> Definition:
    """How often and when an attempt is tried again is for the records to say, not for the policy."""
    steps = tuple(step.model_copy(update={"retry": Retry(attempts=1000)}) for step in definition.steps)
    return definition.model_copy(update={"steps": steps})


def _error_of(past: AttemptFacts, retry_after: float) -> ErrorInfo:
    error = ErrorInfo(past.error, past.message, retry_after=retry_after)
    rest = ERROR_BYTES - item_size({"error": error.to_json()})
    return replace(error, trace="x" * max(0, rest))
