"""A run, as who started it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from detent_state_machine.compatibility import UNANNOTATED
from detent_state_machine.durations import Seconds
from detent_state_machine.keys import step_key
from detent_state_machine.records import StepRecord
from detent_state_machine.status import RunStatus

from detent import portal
from detent.changes import Changes, StepChange
from detent.json_values import Json
from detent.options import seconds

if TYPE_CHECKING:
    from detent.client import Client

_Out = TypeVar("_Out")

ANYTHING: Json[object] = Json(UNANNOTATED)
"""Values of a run whose workflow's code is not at hand: JSON values."""
FOLLOW_EVERY = 0.25
"""Seconds between two looks at a run that is followed."""


def not_ended(run_id: str, within: float) -> TimeoutError:
    return TimeoutError(f"Run {run_id} has not ended within {within:g} s. It goes on.")


class RunHandle(Generic[_Out]):
    """A run, live or ended. Every blocking call has an async twin whose name begins with `a`."""

    def __init__(self, client: Client, run_id: str, output: Json[object]) -> None:
        self.id: str = run_id
        """The run's id."""
        self._client = client
        self._output = output

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    def result(self, timeout: Seconds | None = None) -> _Out:
        """Waits for the run's output.

        Raises `RunFailed`, `RunCancelled`, or `TimeoutError` after `timeout` (seconds, or a `timedelta`; the run goes
        on). With a `timeout` of 0 it looks once.
        """
        portal.check_no_loop("result()", "handle.aresult()")
        return portal.run(self.aresult(timeout))

    async def aresult(self, timeout: Seconds | None = None) -> _Out:
        """`result`, async."""
        within = None if timeout is None else seconds("result", "timeout", timeout)
        lifecycle = self._client.lifecycle
        run_id = await self._found()
        text = await lifecycle.result(run_id) if within == 0 else None
        if text is None:
            limit = asyncio.timeout(within)
            try:
                async with limit:
                    text = await lifecycle.wait(run_id)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise not_ended(self.id, within or 0.0) from None
        return cast("_Out", self._output.read(text, f"The output of run {self.id}"))

    def status(self) -> RunStatus:
        """The run's status at this moment. Raises `UnknownRun`."""
        return portal.run(self.astatus())

    async def astatus(self) -> RunStatus:
        """`status`, async."""
        return (await self._client.lifecycle.get(await self._found())).status

    def cancel(self) -> None:
        """Ends the run; see `Client.cancel`."""
        portal.run(self.acancel())

    async def acancel(self) -> None:
        await self._client.acancel(self.id)

    def input(self) -> Any:
        """What the run was started with, as JSON values."""
        return portal.run(self.ainput())

    async def ainput(self) -> Any:
        """`input`, async."""
        lifecycle = self._client.lifecycle
        text = await lifecycle.output((await lifecycle.get(await self._found())).input)
        return ANYTHING.read(text or "null", f"The input of run {self.id}")

    def output_of(self, step: str) -> Any:
        """What one step returned, as JSON values; None if it has not completed.

        Raises `UnknownStep` if the run has no such step, `UnknownRun`.
        """
        return portal.run(self.aoutput_of(step))

    async def aoutput_of(self, step: str) -> Any:
        """`output_of`, async."""
        lifecycle = self._client.lifecycle
        path = (await lifecycle.graph(await lifecycle.get(await self._found()))).path(step)
        item = await lifecycle.backend.table.get(step_key(self.id, path))
        text = None if item is None else await lifecycle.output(StepRecord.from_item(path, item).output)
        return ANYTHING.read(text or "null", f"The output of step {step!r} of run {self.id}")

    def history(self) -> Iterator[StepChange]:
        """What happens to the run's steps, until it ends; what has happened before comes first.

        It has every failed attempt and every end of a step, and the beginning of a step if a look finds it at work.
        """
        portal.check_no_loop("history()", "anext(handle.ahistory())")
        changes = self.ahistory()
        try:
            while True:
                change = portal.run(portal.next_of(changes))
                if change is None:
                    return
                yield change
        finally:
            portal.run(portal.close_of(changes))

    async def ahistory(self) -> AsyncIterator[StepChange]:
        """`history`, async."""
        lifecycle, changes = self._client.lifecycle, Changes()
        while True:
            run = await lifecycle.get(await self._found())
            for change in changes.of(run, await self._client._steps_of(run)):
                yield change
            if not run.status.live:
                return
            await asyncio.sleep(FOLLOW_EVERY)

    async def _found(self) -> str:
        """The whole id; of a handle on a part of it, from now on."""
        self.id = await self._client.lifecycle.whole_id(self.id)
        return self.id
