"""Starting, finding and ending runs: by workflow where the code is at hand, by name where it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar, overload

from detent_infra import forks
from detent_infra.executor import running
from detent_infra.logs.reader import LogReader
from detent_infra.ports import Backend, LogQuery
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.read import in_order
from detent_infra.runs.start import NewRun
from detent_state_machine.definition import Definition
from detent_state_machine.errors import InputError
from detent_state_machine.keys import data_key
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.writes import Item

from detent import portal
from detent.ambient import backend_for, open_url
from detent.event import Event, publish_to
from detent.info import LogEntry, RunInfo, RunPage, StepInfo, log_entry, run_info, step_info
from detent.options import (
    StatusName,
    backend_url,
    check_many,
    check_metadata,
    check_start,
    check_text,
    moment,
    run_statuses,
    whole,
    written,
)
from detent.run_handle import ANYTHING, RunHandle
from detent.runnable import Runnable

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_T = TypeVar("_T")


@forks.unlocked_in_children
class Client:
    """Runs of one backend. Needs no workflow code: workflows are started by name, with input as JSON values.

    `url` as in `App`. The connection is opened at the first call. Without a `url`, code in the body of a step reaches
    the backend that the body runs on.
    """

    def __init__(self, url: str | None = None, *, backend: Callable[[], Backend] | None = None) -> None:
        self.url = backend_url("Client", url)
        self._backend = backend or (lambda: backend_for(url, lambda: self._opened))
        self._last: Lifecycle | None = None

    @property
    def lifecycle(self) -> Lifecycle:
        """The runs of the backend that is meant here; see `ambient`."""
        backend = self._backend()
        if self._last is None or self._last.backend is not backend:
            self._last = Lifecycle(backend)
        return self._last

    @cached_property
    def _opened(self) -> Backend:
        return open_url(self.url)

    def _bound(self) -> Client:
        """A client of the backend that is meant here, for what may be used elsewhere later."""
        backend = self._backend()
        return self if running.get() is None else Client(backend.url, backend=lambda: backend)

    # ---- start --------------------------------------------------------------------------------------------

    @overload
    def start(
        self,
        workflow: Runnable[None, _Out],
        /,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[_Out]: ...
    @overload
    def start(
        self,
        workflow: Runnable[_In, _Out],
        value: _In,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[_Out]: ...
    @overload
    def start(
        self,
        workflow: str,
        value: object = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[Any]: ...
    def start(
        self,
        workflow: Runnable[Any, Any] | str,
        value: object = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[Any]:
        """Starts a run of the workflow, or of the newest registered one of that name; see `Workflow.start`.

        By name, raises `UnknownWorkflow` if no worker has registered it.
        """
        return portal.run(self.astart(workflow, value, key=key, metadata=metadata))

    @overload
    async def astart(
        self,
        workflow: Runnable[None, _Out],
        /,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[_Out]: ...
    @overload
    async def astart(
        self,
        workflow: Runnable[_In, _Out],
        value: _In,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[_Out]: ...
    @overload
    async def astart(
        self,
        workflow: str,
        value: object = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[Any]: ...
    async def astart(
        self,
        workflow: Runnable[Any, Any] | str,
        value: object = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[Any]:
        """`start`, async."""
        check_start(key, metadata)
        if isinstance(workflow, str):
            text = ANYTHING.write(value, f"The input of workflow {workflow!r}")
            run_id = await self.lifecycle.start_by_name(workflow, text, key=key, metadata=metadata)
            return RunHandle(self._bound(), run_id, ANYTHING)
        definition = _definition(workflow)
        new = NewRun(_input(workflow, value), key, metadata)
        return RunHandle(self._bound(), await self.lifecycle.start(definition, new), workflow.output_json)

    def start_many(
        self,
        workflow: Runnable[_In, _Out],
        values: Sequence[_In],
        *,
        key: Callable[[_In], str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[RunHandle[_Out]]:
        """Starts a run of each value; see `Workflow.start_many`."""
        return portal.run(self.astart_many(workflow, values, key=key, metadata=metadata))

    async def astart_many(
        self,
        workflow: Runnable[_In, _Out],
        values: Sequence[_In],
        *,
        key: Callable[[_In], str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[RunHandle[_Out]]:
        """`start_many`, async."""
        definition = _definition(workflow)
        check_many(values, key)
        new = [NewRun(_input(workflow, value), key(value) if key else None, metadata) for value in values]
        for each in new:
            check_start(each.key, metadata)
        started = await self.lifecycle.start_many(definition, new)
        return [RunHandle(self._bound(), run_id, workflow.output_json) for run_id in started]

    # ---- look ---------------------------------------------------------------------------------------------

    def handle(self, run_id: str) -> RunHandle[Any]:
        """A handle on a run by its id, or by a part of it. Nothing is looked up before the handle is used."""
        check_text("handle", "run_id", run_id)
        return RunHandle(self if running.get() is None else self._bound(), run_id, ANYTHING)

    def get(self, run_id: str) -> RunInfo:
        """The run as it is at this moment. Raises `UnknownRun`, and `InputError` for a part of several ids.

        Wherever an id is taken, a part of it is, too: of at least four characters, and a part of no other id among the
        newest 1,000 runs.
        """
        return portal.run(self.aget(run_id))

    async def aget(self, run_id: str) -> RunInfo:
        """`get`, async."""
        return run_info(await self._record(run_id))

    async def _record(self, run_id: str) -> RunRecord:
        check_text("get", "run_id", run_id)
        return await self.lifecycle.get(await self.lifecycle.whole_id(run_id))

    def runs(
        self,
        workflow: str | None = None,
        *,
        statuses: Collection[RunStatus | StatusName] = (),
        since: datetime | timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        after: str | None = None,
        waiting: bool = False,
    ) -> RunPage:
        """The newest runs that match, newest first: a list of at most `limit`, with a `next` if there are more.

        `statuses` are `RunStatus`es or their names. `since` is a moment, or how long ago (a `timedelta`). `after` is
        the `next` of a page, and gives the runs behind it; runs that start or end meanwhile move none of them.
        `waiting`: only runs of which a step waits for a time or an event; each live run that is looked at costs a read.
        """
        found = self.aruns(
            workflow, statuses=statuses, since=since, metadata=metadata, limit=limit, after=after, waiting=waiting
        )
        return portal.run(found)

    async def aruns(
        self,
        workflow: str | None = None,
        *,
        statuses: Collection[RunStatus | StatusName] = (),
        since: datetime | timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        after: str | None = None,
        waiting: bool = False,
    ) -> RunPage:
        """`runs`, async."""
        if workflow is not None:
            check_text("runs", "workflow", workflow)
        check_metadata("runs", metadata)
        found = await self.lifecycle.page(
            None if workflow is None else [workflow],
            statuses=run_statuses(statuses),
            since=moment("runs", "since", since, self.lifecycle.backend.clock()),
            metadata=metadata,
            limit=whole("runs", "limit", limit),
            after=after,
            waiting=waiting,
        )
        return RunPage([run_info(record) for record in found.runs], found.next)

    def steps(self, run_id: str) -> list[StepInfo]:
        """Every step of the run in the order of its graph, those that have not begun too. Raises `UnknownRun`."""
        return portal.run(self.asteps(run_id))

    async def asteps(self, run_id: str) -> list[StepInfo]:
        """`steps`, async."""
        run = await self._record(run_id)
        return [step_info(path, record) for path, record in await self._steps_of(run)]

    async def _steps_of(self, run: RunRecord) -> list[tuple[str, StepRecord | None]]:
        return in_order(await self.lifecycle.graph(run), await self.lifecycle.steps(run.run_id))

    def definition(self, workflow: str) -> Definition:
        """The newest registered definition. Raises `UnknownWorkflow`."""
        check_text("definition", "workflow", workflow)
        return portal.run(self.lifecycle.definitions.newest(workflow))

    def logs(
        self,
        run_id: str,
        *,
        pattern: str = "",
        since: datetime | timedelta | None = None,
        step: str = "",
        level: str = "",
        follow: bool = False,
    ) -> Iterator[LogEntry]:
        """The run's log: the lines that match the CloudWatch filter pattern, of this step, from this level on.

        With `follow`, until the run has ended. Raises `UnknownRun`, `InputError` for a wrong pattern or level.
        """
        if follow:
            portal.check_no_loop("logs(follow=True)", "anext(client.alogs(run_id, follow=True))")
        lines = self.alogs(run_id, pattern=pattern, since=since, step=step, level=level, follow=follow)
        try:
            while True:
                line = portal.run(portal.next_of(lines))
                if line is None:
                    return
                yield line
        finally:
            portal.run(portal.close_of(lines))

    async def alogs(
        self,
        run_id: str,
        *,
        pattern: str = "",
        since: datetime | timedelta | None = None,
        step: str = "",
        level: str = "",
        follow: bool = False,
    ) -> AsyncIterator[LogEntry]:
        """`logs`, async."""
        reader = LogReader(self.lifecycle)
        query = LogQuery(
            path=step,
            level=level,
            pattern=pattern,
            since=moment("logs", "since", since, self.lifecycle.backend.clock()),
        )
        async with aclosing(reader.pages(query, [await self._record(run_id)], follow=follow)) as pages:
            async for page in pages:
                for line in page.lines:
                    yield log_entry(line)

    def read(self, collection: str, key: str) -> Item | None:
        """An entry that steps wrote with `ctx.commit`, or None."""
        return portal.run(self.aread(collection, key))

    async def aread(self, collection: str, key: str) -> Item | None:
        check_text("read", "collection", collection)
        check_text("read", "key", key)
        return await self.lifecycle.backend.table.get(data_key(collection, key))

    # ---- publish ------------------------------------------------------------------------------------------

    @overload
    def publish(self, event: Event[_T], payload: _T, *, key: str = "", id: str | None = None) -> str: ...
    @overload
    def publish(self, event: str, payload: object, *, key: str = "", id: str | None = None) -> str: ...
    def publish(self, event: Event[Any] | str, payload: Any, *, key: str = "", id: str | None = None) -> str:
        """Publishes an event, by the name of it or as declared, and returns its id; see `App.publish`."""
        return portal.run(self.apublish(event, payload, key=key, id=id))

    @overload
    async def apublish(self, event: Event[_T], payload: _T, *, key: str = "", id: str | None = None) -> str: ...
    @overload
    async def apublish(self, event: str, payload: object, *, key: str = "", id: str | None = None) -> str: ...
    async def apublish(self, event: Event[Any] | str, payload: Any, *, key: str = "", id: str | None = None) -> str:
        """`publish`, async."""
        return await publish_to(self._backend(), event, payload, key=key, id=id)

    # ---- end ----------------------------------------------------------------------------------------------

    def cancel(self, run_id: str) -> None:
        """Ends a live run. When it returns no new step starts later than one heartbeat plus the step in progress.

        Raises `WrongState` if the run has ended otherwise.
        """
        portal.run(self.acancel(run_id))

    async def acancel(self, run_id: str) -> None:
        check_text("cancel", "run_id", run_id)
        await self.lifecycle.cancel(await self.lifecycle.whole_id(run_id))

    def retry(self, run_id: str) -> RunHandle[Any]:
        """A new run that goes on where a failed or cancelled one ended; completed steps are not run again."""
        return portal.run(self.aretry(run_id))

    async def aretry(self, run_id: str) -> RunHandle[Any]:
        check_text("retry", "run_id", run_id)
        return RunHandle(self._bound(), await self.lifecycle.retry(await self.lifecycle.whole_id(run_id)), ANYTHING)


def _definition(workflow: object) -> Definition:
    """Compiled before its input is looked at: a type that cannot be used is refused as such."""
    if isinstance(workflow, Runnable):
        return workflow.definition
    raise InputError(
        f"{written(workflow)} is not a workflow, so no run of it can start.",
        advice="Give what `app.workflow(…)` returned, or the workflow's name.",
    )


def _input(workflow: Runnable[Any, Any], value: object) -> str:
    return workflow.write_input(value, f"The input of workflow {workflow.name!r}")
