"""A worker process: receives messages and drives them, many at once, until told to stop.

On AWS, Lambda does this part. Here one event loop does: two receive loops (work and dead letters), one more for each
queue whose messages start runs, the tick of the timers and the reaper each minute, and retention each hour.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import ConfigurationError, DetentError, Unavailable

from detent_infra.engine import Engine
from detent_infra.loop_watch import LoopWatch
from detent_infra.ports import Arrived, MessageQueue, Received, Source
from detent_infra.redelivery import acknowledge, drive
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.reaper import reap
from detent_infra.sources.triggers import Subscription, Triggers, Verdict, queues
from detent_infra.timers.tick import send_due_timers

log = logging.getLogger("detent")

_T = TypeVar("_T")

RECEIVE_WAIT = 20.0
REAP_EVERY = 60.0
UNANSWERED = Backoff(first=0.1, longest=30.0)
"""Pauses between tries while the backend does not answer."""
RETURNS = Backoff(first=1.0, longest=900.0)
"""How long a message that could not be driven stays away. Ten of these pauses last 17 minutes, so that an outage of the
table makes no dead letters."""
LAST_MOMENT = 1.0
"""Seconds that a stop waits for what it cancelled, beyond `grace`: a backend that does not answer holds up no stop."""
BATCH = 10
"""Messages asked for at once (SQS's limit)."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a worker looks for what may be there, in seconds. A virtual clock has time for less."""

    receive: float = RECEIVE_WAIT
    """How long it waits for a message before it asks again."""
    reap: float = field(default_factory=lambda: REAP_EVERY)
    sweep: float = 3600.0


class Worker:
    """Drives up to `concurrency` messages at once. `grace` is how long a stop waits for steps in progress, seconds.

    `subscriptions`: which queues' messages start runs here. `jitter` draws a number from 0 up to 1 for every pause.
    With a `watch`, what is at work is kept while a body blocks the event loop: not for a clock that is virtual.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        subscriptions: Sequence[Subscription] = (),
        concurrency: int = 100,
        grace: float = 30.0,
        jitter: Callable[[], float] = random.random,
        watch: LoopWatch | None = None,
        rhythm: Rhythm | None = None,
    ) -> None:
        self.engine = engine
        self.handled = 0
        """Messages driven so far."""
        self._backend = engine.backend
        self._subscriptions = subscriptions
        self._triggers = Triggers(Lifecycle(engine.backend, engine.definitions), subscriptions)
        self._slots = asyncio.Semaphore(concurrency)
        self._grace = grace
        self._jitter = jitter
        self._watch = watch
        self._rhythm = rhythm or Rhythm()
        self._tasks: dict[asyncio.Task[None], None] = {}  # in order, so that a simulation replays

    async def run(self, stop: asyncio.Event) -> None:
        """Registers the code's workflows, then works until `stop` is set.

        Messages in progress get `grace` seconds to end; what is cut off is delivered again, here or elsewhere.
        Raises `ConfigurationError` if the backend is not as it must be.
        """
        with nullcontext() if self._watch is None else self._watch.over(asyncio.get_running_loop()):
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        backend = self._backend
        lifecycle = Lifecycle(backend, self.engine.definitions)
        stopped = asyncio.create_task(stop.wait())
        if not await self._known(lifecycle, stopped):
            return
        loops = [
            asyncio.create_task(self._receive(backend.queue)),
            asyncio.create_task(self._receive_dead(backend.dead_letters)),
            *(asyncio.create_task(self._listen(backend.source(name))) for name in queues(self._subscriptions)),
            asyncio.create_task(self._every(self._rhythm.reap, self._tick)),
            asyncio.create_task(self._every(self._rhythm.sweep, backend.sweep)),
        ]
        try:
            done, _ = await asyncio.wait({stopped, *loops}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
        finally:
            for task in (stopped, *loops):
                task.cancel()
            await asyncio.wait({stopped, *loops}, timeout=LAST_MOMENT)
            await self._drain()

    async def _tick(self) -> None:
        await send_due_timers(self._backend)  # first: people wait for those
        await reap(self._backend, self.engine.definitions)

    async def _known(self, lifecycle: Lifecycle, stopped: asyncio.Task[bool]) -> bool:
        """Registers the code's workflows; False if the worker is told to stop before the backend has answered."""
        limit = asyncio.timeout(None)

        def at_once(_: object) -> None:
            limit.reschedule(0)

        try:
            async with limit:
                stopped.add_done_callback(at_once)
                await self._patiently(lambda: lifecycle.register(self.engine.executor.definitions().values()))
        except BaseException as error:
            stopped.cancel()
            if isinstance(error, TimeoutError) and limit.expired():
                return False
            raise
        finally:
            stopped.remove_done_callback(at_once)
        return True

    async def _receive(self, queue: MessageQueue) -> None:
        """Takes as many messages as there are free slots, so that none waits here while its visibility runs out."""
        while True:
            await self._slots.acquire()
            free = 1
            while free < BATCH and not self._slots.locked():
                await self._slots.acquire()
                free += 1
            received: list[Received] = []
            try:
                received = await self._next(queue, free)
            finally:
                for _ in range(free - len(received)):
                    self._slots.release()
            for message in received:
                self._spawn(queue, message, dead=False)

    async def _receive_dead(self, queue: MessageQueue) -> None:
        """Dead letters are few: waiting for one holds no slot that work could use."""
        while True:
            for message in await self._next(queue, 1):
                await self._slots.acquire()
                self._spawn(queue, message, dead=True)

    async def _listen(self, source: Source) -> None:
        """Starts runs for a queue's messages. They take no slot: a start is short, and its steps are messages again."""
        wait, visibility = self._rhythm.receive, self._backend.timing.visibility
        while True:
            try:
                arrived = await self._patiently(lambda: source.receive(BATCH, wait=wait, visibility=visibility))
                settled = partial(self._settled, source)
                await self._triggers.take(source, arrived, settled, self._backend.outage)
            except DetentError as error:
                # Whatever is wrong with this queue, the runs that there are go on.
                log.error("the queue %r starts nothing at the moment: %s", source.name, error)
                await asyncio.sleep(REAP_EVERY * (0.5 + self._jitter() / 2))
            except Exception:
                log.exception("messages of the queue %r kept", source.name)
                await asyncio.sleep(1.0)

    async def _settled(self, source: Source, arrived: Arrived, _: Verdict, handled: bool) -> None:
        if handled:
            self._backend.outage.answered()
            await acknowledge(source, arrived.receipt, {"message_id": arrived.message.id})

    async def _next(self, queue: MessageQueue, limit: int) -> list[Received]:
        """The next messages."""
        wait, visibility = self._rhythm.receive, self._backend.timing.visibility
        return await self._patiently(lambda: queue.receive(limit, wait=wait, visibility=visibility))

    async def _patiently(self, act: Callable[[], Awaitable[_T]]) -> _T:
        """Does it, however long the backend does not answer."""
        outage = self._backend.outage
        try:
            return await act()
        except Unavailable as error:
            outage.met(error)
        with outage.waiting():
            result = await self._repeat(act)
        outage.answered()
        return result

    async def _repeat(self, act: Callable[[], Awaitable[_T]]) -> _T:
        tries = 0
        while True:
            tries += 1
            await asyncio.sleep(UNANSWERED.spread(tries, self._jitter()))
            try:
                return await act()
            except Unavailable as error:
                self._backend.outage.met(error)

    def _spawn(self, queue: MessageQueue, message: Received, *, dead: bool) -> None:
        task = asyncio.create_task(self._handle(queue, message, dead=dead))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _handle(self, queue: MessageQueue, message: Received, *, dead: bool) -> None:
        try:
            with nullcontext() if self._watch is None else self._watch.hiding(queue, message):
                if await drive(self.engine, queue, message, dead=dead, pauses=RETURNS):
                    await acknowledge(queue, message.receipt, outage=self._backend.outage)
                    self.handled += 1
        finally:
            self._slots.release()

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._grace)
            late = list(self._tasks)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d messages cut off after %g s; they are delivered again", len(late), self._grace)
                # Each gives its step back, if the backend still answers.
                await asyncio.wait(late, timeout=LAST_MOMENT)

    async def _every(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(seconds * (0.9 + self._jitter() / 5))
            try:
                await act()
            except ConfigurationError:
                raise
            except Unavailable as error:
                self._backend.outage.met(error)
            except DetentError as error:
                log.warning("%s", error)
