"""Drives a message, and deletes it or leaves it for another delivery: the one way of workers, functions and tests.

Each time that a message comes back in vain, it stays away for longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import DetentError, Unavailable

from detent_infra.engine import Engine, Origin
from detent_infra.ports import MessageQueue, Received, Source, Timing
from detent_infra.unanswered import Outage

log = logging.getLogger("detent")

HIDDEN = Backoff(first=10.0, longest=900.0)
"""How long a message stays hidden, by its deliveries. Five deliveries so outlast an outage of two and a half minutes,
ten one of 50."""
TURNS = 4
"""Of a batch at work, in each visibility: two requests in a row may fail, and the third comes in time."""


async def drive(
    engine: Engine,
    queue: MessageQueue,
    received: Received,
    *,
    dead: bool = False,
    deadline: int | None = None,
    origin: Origin | None = None,
    sooner: bool = False,
    pauses: Backoff = HIDDEN,
    about: Mapping[str, str] | None = None,
) -> bool:
    """Whether the message is done with, and so to be deleted (`acknowledge`, or by the event source mapping).

    `dead`, `deadline` and `origin` as in `Engine.handle`. `sooner`: the queue hides a message for longer than a lease,
    as a function's does. `about` names the message in the log; without it, a backend that does not answer is told once
    for all messages (`Outage`). Raises nothing but what ends the process or the task.
    """
    outage = engine.backend.outage
    try:
        if sooner and received.count > 1:
            # It may be the one that kills its worker: let it come back when its lease ends, and not only when the queue
            # stops hiding it. (A first delivery need not pay for this.)
            await queue.extend(received.receipt, engine.backend.timing.visibility)
        if await engine.handle(received, dead=dead, deadline=deadline, origin=origin):
            outage.answered()
            return True
        if not sooner:
            return False  # It comes back when its lease ends.
        log.warning("message kept: its work is not done", extra=about)
    except DetentError as error:
        _tell("message kept", error, about, outage)
    except Exception:  # one message must not fail the others
        log.exception("message kept", extra=about)
    await hide(queue, received.receipt, pauses.pause(received.count), about, outage)
    return False


async def keep_hidden(queue: MessageQueue, at_work: Callable[[], Sequence[str]], timing: Timing) -> None:
    """Lets a batch's messages come back soon after its worker has died, and not before. Runs until it is cancelled.

    A queue hides what a function receives for longer than a function may run. As soon as the batch is no longer a short
    one, those messages that are `at_work`, by their receipts, are hidden for `timing.visibility` instead, again and
    again. That is so whether or not they have heartbeats: a message may wait for calls, or drive many short steps. A
    request that fails is made again at the next turn. Raises nothing but what ends the process or the task.
    """
    pause = timing.short_batch
    while True:
        await asyncio.sleep(pause)
        if receipts := at_work():
            # A message that is left while this is under way may come back after a visibility and not after its own
            # pause. That is harmless: it is tried again at another time.
            try:
                await queue.extend_many(receipts, timing.visibility)
            except DetentError as error:
                log.warning("the visibility of a batch was not changed: %s", error)
            except Exception:  # what is beside the batch must not end before it
                log.exception("the visibility of a batch was not changed")
        pause = timing.visibility / TURNS


async def acknowledge(
    queue: MessageQueue | Source, receipt: str, about: Mapping[str, str] | None = None, outage: Outage | None = None
) -> None:
    """Deletes a message that is done with, best effort: one that comes again is harmless. Raises no `DetentError`."""
    try:
        await queue.delete(receipt)
    except DetentError as error:
        _tell("a message comes again, though it is done with", error, about, outage)


async def hide(
    queue: MessageQueue | Source,
    receipt: str,
    pause: float,
    about: Mapping[str, str] | None = None,
    outage: Outage | None = None,
) -> None:
    """Hides the message for so many seconds, best effort. `about` names it in the log. Raises no `DetentError`."""
    try:
        await queue.extend(receipt, pause)
    except DetentError as error:
        _tell("its visibility could not be changed either", error, about, outage)


def _tell(what: str, error: DetentError, about: Mapping[str, str] | None, outage: Outage | None) -> None:
    if about is None and outage is not None and isinstance(error, Unavailable):
        outage.met(error)
    else:
        log.warning("%s: %s", what, error, extra=about)
