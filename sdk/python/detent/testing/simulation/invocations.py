"""Machines that handle messages as functions on Lambda do: a batch at a time, and only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from detent_infra.engine import Engine
from detent_infra.ports import Received
from detent_infra.redelivery import drive, keep_hidden
from detent_infra.worker import BATCH, RECEIVE_WAIT
from detent_state_machine.kinds.call import TIME_MARGIN

from detent.testing.simulation.faults import Machine

SHORTEST, LONGEST = 60.0, 180.0
"""Seconds that an invocation may last; drawn for each."""
VISIBILITY = LONGEST + 20.0
"""Seconds that the queue hides what it handed over: longer than an invocation can last."""
RESERVE = 0.5
"""Seconds before an invocation's end, when what is unfinished is given up, as the functions do."""


class Invocations:
    """One environment of a function: drives batches of the main queue, each until its deadline."""

    def __init__(self, machine: Machine, engine: Engine, draw: Callable[[], float]) -> None:
        self._machine = machine
        self._engine = engine
        self._draw = draw
        self._queue = machine.backend.queue

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. What a batch leaves comes back after its visibility, or sooner as the engine says.

        Raises `WorkerCrashed` where the machine dies.
        """
        while not stop.is_set():
            received = await self._queue.receive(BATCH, wait=RECEIVE_WAIT, visibility=VISIBILITY)
            if received:
                await self._invoke(received, SHORTEST + (LONGEST - SHORTEST) * self._draw())

    async def _invoke(self, received: list[Received], seconds: float) -> None:
        margin = TIME_MARGIN / 1000
        deadline = self._machine.backend.clock() + int(seconds * 1000)
        self._machine.gate.note(self._machine, f"INVOCATION of {seconds:.1f} s with {len(received)} messages")
        tasks = {
            asyncio.ensure_future(drive(self._engine, self._queue, message, deadline=deadline, sooner=True)): message
            for message in received
        }

        def at_work() -> list[str]:
            return [message.receipt for task, message in tasks.items() if not task.done()]

        hiding = asyncio.ensure_future(keep_hidden(self._queue, at_work, self._machine.backend.timing))
        try:
            _, late = await asyncio.wait(tasks, timeout=seconds - margin)
            if late and self._machine.stands_still:
                self._machine.die()  # It runs into its timeout, and the platform ends its process.
            if late:
                _, late = await asyncio.wait(late, timeout=margin - RESERVE)
            for task, message in tasks.items():  # in order, so that a simulation replays
                if task in late:
                    self._machine.gate.note(self._machine, f"gives up {message.body}")
                    task.cancel()
            if late:
                await asyncio.wait(late, timeout=RESERVE / 2)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        finally:
            hiding.cancel()
            await asyncio.gather(hiding, return_exceptions=True)
        for task, message in tasks.items():
            if task not in late and task.result():
                await self._queue.delete(message.receipt)
