"""Bodies under observation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from detent_infra.executor import Attempt, Executor, Outcome
from detent_state_machine.definition import Definition
from detent_state_machine.records import ErrorInfo

from detent.testing.simulation.faults import Machine
from detent.testing.simulation.invariants import Invariants, Violation

TICK = 0.002
"""Seconds by which two readings of a clock of whole milliseconds may be off."""


class ObservedExecutor:
    """An executor that tells the invariants of each body, and runs none on a dead machine."""

    def __init__(
        self,
        executor: Executor,
        machine: Machine,
        invariants: Invariants,
        report: Callable[[Violation], None],
        deadly: Mapping[str, float],
    ) -> None:
        self._executor = executor
        self._machine = machine
        self._invariants = invariants
        self._report = report
        self._deadly = deadly

    def definitions(self) -> Mapping[str, Definition]:
        return self._executor.definitions()

    def knows(self, workflow: str, step: str) -> bool:
        return self._executor.knows(workflow, step)

    def misfit(self, workflow: str, step: str, text: str) -> ErrorInfo | None:
        return self._executor.misfit(workflow, step, text)

    async def execute(self, attempt: Attempt) -> Outcome:
        await self._machine.may_go_on()
        now = asyncio.get_running_loop().time()
        since = self._invariants.cancelled.get(attempt.run_id, now)
        slack = self._machine.backend.timing.heartbeat + self._machine.held_up(since, now) + TICK
        try:
            self._invariants.on_body(attempt.run_id, attempt.step, now, slack=slack)
        except Violation as violation:
            self._report(violation)
        self._machine.gate.note(self._machine, f"BODY {attempt.path} attempt {attempt.number} of {attempt.run_id}")
        if attempt.path in self._deadly:
            await asyncio.sleep(self._deadly[attempt.path])
            await self._machine.may_go_on()
            self._machine.die()
        outcome = await self._executor.execute(attempt)
        await self._machine.may_go_on()
        return outcome
