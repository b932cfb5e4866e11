"""Runs from outside: start, read, wait for, list, cancel, retry. What clients, the command line and the API call.

Everything here works by names and JSON, without the workflow's code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from detent_state_machine.definition import Definition
from detent_state_machine.errors import (
    DetentError,
    Unavailable,
)
from detent_state_machine.graph import Graph
from detent_state_machine.messages import Cancel, Start, encode
from detent_state_machine.records import Payload, RunRecord, StepRecord
from detent_state_machine.status import RunStatus

from detent_infra import payloads
from detent_infra.definitions import Definitions
from detent_infra.ids import is_whole
from detent_infra.ports import Backend
from detent_infra.runs.cancel import cancel
from detent_infra.runs.listing import Listed, RunFilter, list_runs, whole_id
from detent_infra.runs.read import read_run, read_steps, result_of
from detent_infra.runs.retry import retry
from detent_infra.runs.start import CHUNK, NewRun, one_spelling, send, start_all, start_one

log = logging.getLogger("detent")

MAX_UNANSWERED = 20
"""Reads in a row that the backend may leave unanswered while a result is waited for."""
FIRST_POLL, LAST_POLL = 0.002, 1.0
"""Bounds of the pause between two reads while waiting for a result, in seconds: a tenth of the time waited so far."""


class Lifecycle:
    """Starts and looks after runs of one backend."""

    def __init__(self, backend: Backend, definitions: Definitions | None = None) -> None:
        self.backend = backend
        self.definitions = definitions or Definitions(backend)

    async def register(self, definitions: Iterable[Definition]) -> None:
        """Stores the definitions, so that runs can be started by name and driven whatever code is deployed."""
        for definition in definitions:
            await self.definitions.register(definition)

    # ---- start --------------------------------------------------------------------------------------------

    async def start(self, definition: Definition, new: NewRun) -> str:
        """Starts a run and returns its id. When it returns, the run is stored and its first message sent.

        With a key, the same key and input always name the same run. Raises `KeyConflict` if the key started a run
        with another input.
        """
        await self.definitions.register(definition)
        return await start_one(self.backend, definition, new)

    async def start_by_name(
        self, workflow: str, input_json: str, *, key: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> str:
        """`start` of the newest registered definition. Raises `UnknownWorkflow`; `InputError` if it is not JSON.

        The input is held to the workflow's model by the first worker that has its code.
        """
        text = one_spelling(input_json)
        return await self.start(await self.definitions.newest(workflow), NewRun(text, key, metadata))

    async def start_many(self, definition: Definition, runs: Sequence[NewRun]) -> list[str]:
        """Starts the runs in chunks, each with its messages in batches. If it raises, some may have started:
        with keys it is safe to call it again.
        """
        await self.definitions.register(definition)
        started: list[str] = []
        for index in range(0, len(runs), CHUNK):  # what is refused keeps the chunks behind it from starting
            for run in await start_all(self.backend, [(definition, new) for new in runs[index : index + CHUNK]]):
                if isinstance(run, DetentError):
                    raise run
                started.append(run.run_id)
        return started

    async def start_each(self, runs: Sequence[tuple[Definition, NewRun]]) -> list[Start | DetentError]:
        """Starts runs of several workflows, their messages in batches, and says of each what became of it.

        A `Start` is fresh if the run is new. Raises what kept all of them from being told: then some may have started.
        """
        for definition, _ in runs:
            await self.definitions.register(definition)
        return await start_all(self.backend, runs)

    # ---- read ---------------------------------------------------------------------------------------------

    async def get(self, run_id: str) -> RunRecord:
        """Raises `UnknownRun`."""
        return await read_run(self.backend, run_id)

    async def steps(self, run_id: str) -> list[StepRecord]:
        """The step runs that have a record, in no particular order."""
        return await read_steps(self.backend, run_id)

    async def output(self, payload: Payload | None) -> str | None:
        """The JSON text behind a payload."""
        return None if payload is None else await payloads.load(self.backend.blobs, payload)

    async def graph(self, run: RunRecord) -> Graph:
        """The definition that drives the run."""
        return await self.definitions.graph(run.workflow, run.version)

    async def result(self, run_id: str) -> str | None:
        """The run's output as JSON text; None while it is live. Raises `RunFailed` or `RunCancelled`.

        The output of its last step; with several last steps, an object of their outputs by name. A skipped step's
        output is null.
        """
        return await result_of(self.backend, self.definitions, await self.get(run_id))

    async def wait(self, run_id: str) -> str:
        """The run's output once it has ended. Raises as `result` does. Bound it with `asyncio.timeout`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        unanswered = 0
        while True:
            try:
                text = await self.result(run_id)
                unanswered = 0
            except Unavailable:
                unanswered += 1
                if unanswered == MAX_UNANSWERED:
                    raise
                text = None
            if text is not None:
                return text
            await asyncio.sleep(min(LAST_POLL, max(FIRST_POLL, (loop.time() - began) / 10)))

    async def page(
        self,
        workflows: Sequence[str] | None = None,
        *,
        statuses: Collection[RunStatus] = (),
        since: int = 0,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        after: str | None = None,
        waiting: bool = False,
    ) -> Listed:
        """A page of runs, newest first, created at or after `since` (milliseconds since the epoch).

        `after` is the `next` of the page before. The index may lag behind a start by a moment. A run whose record
        cannot be read is logged and left out. `waiting`: only runs of which a step waits for a time or an event.
        """
        names = workflows if workflows is not None else await self.definitions.names()
        return await list_runs(self.backend, RunFilter(names, statuses, since, metadata, after, waiting), limit)

    async def list(
        self,
        workflows: Sequence[str] | None = None,
        *,
        statuses: Collection[RunStatus] = (),
        since: int = 0,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
    ) -> list[RunRecord]:
        """The runs of the first `page`."""
        return (await self.page(workflows, statuses=statuses, since=since, metadata=metadata, limit=limit)).runs

    async def whole_id(self, text: str) -> str:
        """The run id that is meant by it, or by a part of it among the newest 1,000 runs.

        Raises `UnknownRun`, and `InputError` for a part of several ids. A whole id is not looked up.
        """
        return text if is_whole(text) else await whole_id(self.backend, await self.definitions.names(), text)

    # ---- end ----------------------------------------------------------------------------------------------

    async def cancel(self, run_id: str) -> RunRecord:
        """Ends a live run as CANCELLED. Steps in progress hear of it at their next heartbeat; no new one starts
        later than one heartbeat plus the step in progress. Cancelling it again is fine.

        Raises `WrongState` if the run has ended otherwise.
        """
        run = await self.get(run_id)
        if run.live and (await self.graph(run)).waits:
            # DESIGN 6, cancel: a message first. If this process dies before the write, a worker makes it; and a worker
            # closes what the run waits for.
            await self.backend.queue.send([encode(Cancel(run_id))])
        return await cancel(self.backend, self.definitions, run)

    async def retry(self, run_id: str) -> str:
        """Starts a new run that goes on from where a FAILED or CANCELLED one ended, and returns its id.

        Completed and skipped steps are carried over with their outputs and do not run again; a terminal status never
        changes, so the old run stays as it is. Retrying the same run twice returns the same new run.

        Raises `WrongState` if the run is live or completed, was retried already without success, is past its
        retention, or a worker is at one of its at_most_once steps this moment.
        """
        new_id = await retry(self.backend, self.definitions, await self.get(run_id))
        await send(self.backend, [Start(new_id)])
        return new_id
