"""Keeps apart the step runs that workers died at: one of them may be what killed them.

Messages that were received together come back together. If a worker took them all over at once, it would die of the
culprit with all the others again, and each of them would be counted as the culprit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from detent_state_machine.decisions import HandOver, Send
from detent_state_machine.step_path import StepPath

from detent_infra.ports import Timing

STEP_BACK = 0.05
"""Seconds per death for which a suspect lets others go first: the culprit has died most."""


class Suspects:
    """Lets one suspect of this process be at work at a time. If it ends the process, no other suspect dies with it."""

    def __init__(self, timing: Timing) -> None:
        self._patience = timing.heartbeat
        self._at_work = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, deaths: int) -> AsyncGenerator[bool]:
        """Whether its turn came within a heartbeat. It ends with the context."""
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.sleep(STEP_BACK * deaths)
                await self._at_work.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            self._at_work.release()

    def later(self, path: StepPath) -> HandOver:
        """Whose turn did not come waits as a message: a heartbeat later it asks again, here or elsewhere."""
        return HandOver((Send(path, self._patience),))
