"""Keeps what a worker is at while its event loop stands still: one body takes no other's lease away.

    loop on time    each attempt's own heartbeat renews lease and visibility (`engine.body`), nothing does here
    loop late       a thread renews them, as often
    hung            the body that holds the loop is past its time limit: the thread stops too, and others take over

A stopped process (SIGSTOP) stops the thread as well, so its leases run out as ever. Every renewal is fenced by its
owner, so one that comes late changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from detent_state_machine.errors import DetentError
from detent_state_machine.lines import duration_text
from detent_state_machine.writes import UpdateItem

from detent_infra import forks
from detent_infra.executor import Attempt
from detent_infra.ports import Backend, Conflict, MessageQueue, Received

log = logging.getLogger("detent")


@dataclass(frozen=True, slots=True)
class _AtWork:
    attempt: Attempt
    renewal: Callable[[], UpdateItem]


class LoopWatch:
    """Watches the event loop on which a worker drives messages of this backend, from a thread of its own."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._messages: dict[str, MessageQueue] = {}
        self._attempts: dict[object, _AtWork] = {}
        self._asked: float | None = None  # when the loop was asked for a sign of life that it has not given yet
        self._renewed = 0.0
        self._told = self._gave_up = False

    @contextmanager
    def over(self, loop: asyncio.AbstractEventLoop) -> Generator[None]:
        """Watches the running loop, and what it drives, until the block is left."""
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(loop, ended), name="detent-watch", daemon=True)
        token = watching.set(self)
        thread.start()
        try:
            yield
        finally:
            watching.reset(token)
            ended.set()

    @contextmanager
    def hiding(self, queue: MessageQueue, received: Received) -> Generator[None]:
        """The message is being driven: meanwhile a late loop does not bring it back."""
        self._messages[received.receipt] = queue
        try:
            yield
        finally:
            self._messages.pop(received.receipt, None)

    @contextmanager
    def keeping(self, attempt: Attempt, renewal: Callable[[], UpdateItem]) -> Generator[None]:
        """The attempt is at work: meanwhile a late loop does not lose its lease."""
        key = object()
        self._attempts[key] = _AtWork(attempt, renewal)
        try:
            yield
        finally:
            self._attempts.pop(key, None)

    # ---- the thread -------------------------------------------------------------------------------------------

    def _watch(self, watched: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
        timing = self._backend.timing
        born, own = forks.generation(), asyncio.new_event_loop()
        try:
            while not ended.wait(min(timing.first_heartbeat, timing.heartbeat) / 2):
                if forks.generation() != born:
                    return
                if self._asked is None:
                    self._told = self._gave_up = False
                    self._asked = time.monotonic()
                    watched.call_soon_threadsafe(self._answer)
                elif (late := time.monotonic() - self._asked) >= timing.first_heartbeat:
                    own.run_until_complete(self._stand_in(late))
        except RuntimeError:  # the watched loop is closed
            log.debug("nothing is left to watch", exc_info=True)
        finally:
            own.close()

    def _answer(self) -> None:
        self._asked = None

    async def _stand_in(self, late: float) -> None:
        """Renews what is at work, if that is due and nobody is past the time limit that binds the loop."""
        works = list(self._attempts.values())
        holding = [each for each in works if each.attempt.control.holds_loop] or works
        if not self._told:
            self._told = True
            names = ", ".join(f"step {each.attempt.path!r} of run {each.attempt.run_id}" for each in holding[:5])
            log.warning(
                "the event loop of this worker has stood still for %s%s: a body that blocks is written as `def`",
                duration_text(round(late * 1000)),
                f", at {names}" if names else "",
            )
        if not works or time.monotonic() - self._renewed < self._backend.timing.heartbeat:
            return
        if max(each.attempt.control.deadline for each in holding) < self._backend.clock():
            if not self._gave_up:
                self._gave_up = True
                log.error(
                    "the event loop is held past the step's time limit: what this worker was at is left to others"
                )
            return
        self._renewed = time.monotonic()
        await self._renew(works)

    async def _renew(self, works: list[_AtWork]) -> None:
        queues: dict[int, tuple[MessageQueue, list[str]]] = {}
        for receipt, queue in list(self._messages.items()):
            queues.setdefault(id(queue), (queue, []))[1].append(receipt)
        try:
            for queue, receipts in queues.values():
                await queue.extend_many(receipts, self._backend.timing.lease)
            for each in works:
                await self._renew_lease(each)
        except DetentError as error:
            log.warning("what is at work on a loop that stands still was not renewed: %s", error)
        except Exception:  # the next turn tries again
            log.exception("what is at work on a loop that stands still was not renewed")

    async def _renew_lease(self, work: _AtWork) -> None:
        try:
            # Wins against a take-over: what it demands is that the step run is missing or this attempt's own.
            await self._backend.table.write(work.renewal())
        except Conflict:
            log.debug("step %r of run %s is somebody else's or has ended", work.attempt.path, work.attempt.run_id)


watching: ContextVar[LoopWatch | None] = ContextVar("detent_loop_watch", default=None)
"""The watch over the worker that runs here, if there is one."""
