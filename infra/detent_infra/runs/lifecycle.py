"""Runs from outside: start, look, wait for, cancel, retry, list. What clients, the command line and the API call.

Everything here works by names and JSON, without the workflow's code.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from detent_state_machine import keys
from detent_state_machine.definition import Definition
from detent_state_machine.errors import (
    DetentError,
    InputError,
    KeyConflict,
    RunCancelled,
    RunFailed,
    Unavailable,
    UnknownRun,
)
from detent_state_machine.graph import Graph, topological
from detent_state_machine.messages import Message, Start, encode
from detent_state_machine.nesting import MAX_NESTING, too_deep
from detent_state_machine.records import NULL, Payload, RunRecord, StepRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.writes import Item, Put

from detent_infra import payloads
from detent_infra.engine.definitions import Definitions
from detent_infra.ids import is_whole, keyed_id
from detent_infra.pages import pages
from detent_infra.ports import Backend, Conflict
from detent_infra.runs.cancel import cancel
from detent_infra.runs.listing import Listed, RunFilter, list_runs, whole_id
from detent_infra.runs.retry import retry

log = logging.getLogger("detent")

MAX_KEY = 512
MAX_METADATA = 2_048
"""Bytes of a run's metadata as JSON: it is copied into the index."""
CHUNK = 100
"""Runs that `start_many` and `start_each` have on the way at once."""
MAX_UNANSWERED = 20
"""Looks in a row that the backend may leave unanswered while a result is waited for."""
FIRST_POLL, LAST_POLL = 0.002, 1.0
"""Bounds of the pause between two looks while waiting for a result, in seconds: a tenth of the time waited so far."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to start. `input` is JSON text that fits the workflow's input model.

    Its record, and so its key, outlives its start by at least `keep_days`, whatever the workflow's retention. `digest`
    is of what the input was made from: a key that started a run with this digest is no conflict, whatever was made.
    """

    input: str
    key: str | None = None
    metadata: Mapping[str, str] | None = None
    keep_days: int = 0
    digest: str = ""


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
        start = await self._put_run(definition, new)
        await self._send([start])
        return start.run_id

    async def start_by_name(
        self, workflow: str, input_json: str, *, key: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> str:
        """`start` of the newest registered definition. Raises `UnknownWorkflow`; `InputError` if it is not JSON.

        The input is held to the workflow's model by the first worker that has its code.
        """
        try:
            parsed: object = json.loads(input_json)
            # In one spelling, so that the same value under the same key is the same input.
            text = json.dumps(parsed, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise InputError(f"The input is not JSON: {error}.", advice="Quote it, as in '{\"id\": 7}'.") from error
        if too_deep(text):
            raise InputError(f"The input is nested more than {MAX_NESTING} levels deep.", advice="Flatten it.")
        return await self.start(await self.definitions.newest(workflow), NewRun(text, key, metadata))

    async def start_many(self, definition: Definition, runs: Sequence[NewRun]) -> list[str]:
        """Starts the runs in chunks, each with its messages in batches. If it raises, some may have started:
        with keys it is safe to call it again.
        """
        await self.definitions.register(definition)
        started: list[str] = []
        for index in range(0, len(runs), CHUNK):
            for run in await self._start_all([(definition, new) for new in runs[index : index + CHUNK]]):
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
        chunks = [runs[index : index + CHUNK] for index in range(0, len(runs), CHUNK)]
        return [run for chunk in chunks for run in await self._start_all(chunk)]

    async def _start_all(self, runs: Sequence[tuple[Definition, NewRun]]) -> list[Start | DetentError]:
        put = await asyncio.gather(
            *(self._put_run(definition, new) for definition, new in runs), return_exceptions=True
        )
        # What was stored gets its message, whatever became of the others: a run without one would not move.
        await self._send([start for start in put if isinstance(start, Start)])
        found: list[Start | DetentError] = []
        for start in put:
            if not isinstance(start, Start | DetentError):
                raise start
            found.append(start)
        return found

    async def _put_run(self, definition: Definition, new: NewRun) -> Start:
        """Stores the run and returns the message that starts it.

        A run that exists gets a message too, one that only walks: its starter may have died before sending its own.
        """
        backend = self.backend
        _check(new)
        now = backend.clock()
        record = RunRecord(
            run_id=backend.ids() if new.key is None else keyed_id(definition.name, new.key),
            workflow=definition.name,
            version=definition.version,
            status=RunStatus.RUNNING,
            created=now,
            input=await payloads.store(backend.blobs, new.input),
            key=new.key,
            metadata=new.metadata or {},
            keep_until=now // 1000 + new.keep_days * 86_400 if new.keep_days else 0,
            digest=new.digest,
        )
        try:
            # The race it wins: two starts with one key. The second is refused, and sees the first one's run.
            await backend.table.write(Put(keys.run_key(record.run_id), record.to_item()))
        except Conflict as conflict:
            stored = RunRecord.from_item(record.run_id, conflict.item or {})
            if stored.input != record.input and not (new.digest and stored.digest == new.digest):
                raise KeyConflict(
                    f"Key {new.key!r} already started run {stored.run_id} of {definition.name!r} with another input.",
                    advice="Use another key, or start it with the same input.",
                ) from None
            return Start(record.run_id)
        return Start(record.run_id, fresh=True)

    async def _send(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        await self.backend.queue.send([encode(message) for message in messages])

    # ---- look ---------------------------------------------------------------------------------------------

    async def get(self, run_id: str) -> RunRecord:
        """Raises `UnknownRun`."""
        item = await self.backend.table.get(keys.run_key(run_id))
        if item is None:
            raise unknown_run(run_id, self.backend.url)
        return RunRecord.from_item(run_id, item)

    async def steps(self, run_id: str) -> list[StepRecord]:
        """The step runs that have a record, in no particular order."""
        prefix = keys.STEP_PREFIX
        query = partial(self.backend.table.query, keys.run_partition(run_id), start=prefix, end=prefix[:-1] + "$")
        return [
            StepRecord.from_item(key.sk.removeprefix(prefix), item) async for page in pages(query) for key, item in page
        ]

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
        run = await self.get(run_id)
        if run.status.live:
            return None
        if run.status is RunStatus.CANCELLED:
            raise RunCancelled(f"Run {run_id} was cancelled.", run_id=run_id)
        if run.status is RunStatus.FAILED:
            error = run.error
            raise RunFailed(
                f"Run {run_id} failed at step {run.failed_step!r}"
                + (f" with {error.type}: {error.message.rstrip('.')}." if error else "."),
                run_id=run_id,
                step=run.failed_step or "",
                error_type=error.type if error else "",
                advice=f"See `detent show {run_id}`.",
            )
        sinks = (await self.graph(run)).sinks
        items = await self.backend.table.get_many([keys.step_key(run_id, sink) for sink in sinks])
        texts = [await self._output_of(sink, item) for sink, item in zip(sinks, items, strict=True)]
        if len(texts) == 1:
            return texts[0]
        return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in zip(sinks, texts, strict=True)) + "}"

    async def _output_of(self, path: str, item: Item | None) -> str:
        if item is None:
            raise UnknownRun(
                f"The output of step {path!r} is no longer stored: the run is past its retention.",
                advice="Keep runs longer with `retention_days=`, or read results sooner.",
            )
        record = StepRecord.from_item(path, item)
        return await payloads.load(self.backend.blobs, record.output or NULL)

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
    ) -> Listed:
        """A page of runs, newest first, created at or after `since` (milliseconds since the epoch).

        `after` is the `next` of the page before. The index may lag behind a start by a moment. A run whose record
        cannot be read is logged and left out.
        """
        names = workflows if workflows is not None else await self.definitions.names()
        return await list_runs(self.backend, RunFilter(names, statuses, since, metadata, after), limit)

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
        return await cancel(self.backend, self.definitions, await self.get(run_id))

    async def retry(self, run_id: str) -> str:
        """Starts a new run that goes on from where a FAILED or CANCELLED one ended, and returns its id.

        Completed and skipped steps are carried over with their outputs and do not run again; a terminal status never
        changes, so the old run stays as it is. Retrying the same run twice returns the same new run.

        Raises `WrongState` if the run is live or completed, was retried already without success, is past its
        retention, or a worker is at one of its at_most_once steps this moment.
        """
        new_id = await retry(self.backend, self.definitions, await self.get(run_id))
        await self._send([Start(new_id)])
        return new_id


def unknown_run(run_id: str, url: str) -> UnknownRun:
    return UnknownRun(
        f"No run {run_id!r} is stored on {url}.",
        advice="List the runs with `detent runs`; ended ones are dropped after their retention.",
    )


def in_order(graph: Graph, records: Iterable[StepRecord]) -> list[tuple[str, StepRecord | None]]:
    """Every step of the definition in the order of the graph, handlers last, with its record if it has one."""
    found = {record.path: record for record in records}
    ordered = sorted(topological(graph.definition.steps), key=lambda step: step.scope == "on_failure")
    return [(step.name, found.get(step.name)) for step in ordered]


def _check(new: NewRun) -> None:
    if new.key is not None and not (0 < len(new.key) <= MAX_KEY and _is_text(new.key)):
        raise InputError(f"An idempotency key has 1 to {MAX_KEY} characters of valid Unicode, not {new.key[:40]!r}.")
    if not new.metadata:
        return
    wrong = [name for name, value in new.metadata.items() if not (_is_text(name) and _is_text(value))]
    if wrong:  # the values may be secrets
        raise InputError(
            f"A run's metadata is text by name, all of it valid Unicode. {wrong[0]!r} is not.",
            advice="Write numbers and dates as text.",
        )
    if len(json.dumps(dict(new.metadata)).encode()) > MAX_METADATA:
        raise InputError(
            f"A run's metadata takes at most {MAX_METADATA:,} bytes of JSON.", advice="Put large values into the input."
        )


def _is_text(value: object) -> bool:
    """Whether it comes back from every store as the text that it is: what is typed as text need not be at run time."""
    return type(value) is str and not any("\ud800" <= character <= "\udfff" for character in value)
