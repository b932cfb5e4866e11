"""Starting runs, and going on with failed ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from detent_state_machine.errors import InputError, RunError

from detent.app import App
from detent.cli import arguments
from detent.cli.follow import View, follow, view_for
from detent.cli.output import console, iso, write_json, write_line
from detent.cli.project import Options, find_app, load_app, must_be_shared, opened, run_id_of, unknown_workflow
from detent.client import Client
from detent.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Request:
    """What to start, as written on the command line."""

    workflow: str
    input: str | None
    key: str | None
    metadata: Sequence[str]


def start(options: Options, request: Request, *, follow: bool, here: bool, as_json: bool) -> None:
    """Starts a run and prints its id, or follows it to its end. Raises `RunError` if it ends without a result."""
    text = None if request.input is None else arguments.json_text(request.input)
    metadata = arguments.metadata(request.metadata)
    app = load_app(options) if here else find_app(options)
    own = None if app is None else _checked(app, request.workflow, text)  # before anything is opened, or made

    async def work() -> None:
        async with client_of(options, app, here=here) as client:
            if own is None:
                run_id = await _start_by_name(client, request, text, metadata)
            else:
                run_id = (await client.astart(*own, key=request.key, metadata=metadata)).id
            if not follow and not here:
                _print_id(run_id, options, as_json=as_json)
                return
            view = view_for(run_id, options, as_json=as_json)
            if app is None or not here:
                await _follow(client, run_id, view, as_json=as_json)
            else:
                await _work_and_follow(app, client, run_id, view, as_json=as_json)

    asyncio.run(work())


def retry_run(options: Options, given: str, *, follow: bool, as_json: bool) -> None:
    """Retries the run and prints the new run's id, or follows it. Raises `RunError` if it ends without a result."""

    async def work() -> None:
        async with opened(options) as client:
            new_id = (await client.aretry(await run_id_of(client, given))).id
            if follow:
                await _follow(client, new_id, view_for(new_id, options, as_json=as_json), as_json=as_json)
            else:
                _print_id(new_id, options, as_json=as_json)

    asyncio.run(work())


@asynccontextmanager
async def client_of(options: Options, app: App | None, *, here: bool = False) -> AsyncGenerator[Client, None]:
    """A client on the app's backend, which is made if need be; without an app on one that is there. Closed in the end.

    `here`: no other process needs to see it.
    """
    if app is None:
        async with opened(options) as client:
            yield client
        return
    if not here:
        must_be_shared(app.url)
    backend = app.backend
    try:
        yield app.client
    finally:
        backend.close()


async def _start_by_name(client: Client, request: Request, text: str | None, metadata: dict[str, str]) -> str:
    """Starts the newest registered workflow of the name."""
    definition = await client.lifecycle.definitions.newest(request.workflow)
    if text is None and definition.takes_input:
        raise _needs_input(definition.name)
    return await client.lifecycle.start_by_name(definition.name, text or "null", key=request.key, metadata=metadata)


def _checked(app: App, name: str, text: str | None) -> tuple[Workflow[Any, Any], object]:
    """The app's workflow and its input as a value of its type. Raises `UnknownWorkflow`, `InputError`."""
    workflow = app.workflows.get(name)
    if workflow is None:
        raise unknown_workflow(name, app.workflows, f"App {app.name!r}")
    if text is None and workflow.definition.takes_input:
        raise _needs_input(name)
    try:
        return workflow, workflow.input_json.read(text or "null", f"The input of workflow {name!r}")
    except InputError as error:
        raise InputError(error.message, advice=f"`detent graph {name} --json` shows its schema.") from error


def _needs_input(name: str) -> InputError:
    return InputError(f"Workflow {name!r} takes an input.", advice=f"Give it as JSON: `detent run {name} '{{…}}'`.")


def _print_id(run_id: str, options: Options, *, as_json: bool) -> None:
    if as_json:
        write_json({"run_id": run_id})
        return
    write_line(run_id)
    hint = console(stderr=True)
    if hint.is_terminal:
        hint.print(f"Look at it with `detent show {run_id}{options.repeated()}`.", style="bright_black", soft_wrap=True)


async def _follow(client: Client, run_id: str, view: View, *, as_json: bool, here: bool = False) -> None:
    with view:
        await follow(client, run_id, view, here=here)
    try:
        text = await client.lifecycle.result(run_id)
    except RunError as error:
        if as_json:
            run = await client.lifecycle.get(run_id)
            failed = {"step": run.failed_step, "type": run.error.type if run.error else None, "message": error.message}
            ended = {"event": "end", "time": iso(run.ended), "run_id": run_id, "status": run.status.value}
            write_json({**ended, "output": None, "error": failed}, lines=True)
        raise
    output: object = json.loads(text or "null")
    if as_json:
        run = await client.lifecycle.get(run_id)
        ended = {"event": "end", "time": iso(run.ended), "run_id": run_id, "status": run.status.value}
        write_json({**ended, "output": output, "error": None}, lines=True)
    else:
        write_json(output)


async def _work_and_follow(app: App, client: Client, run_id: str, view: View, *, as_json: bool) -> None:
    """Follows with a worker beside it, whose failure ends the command."""
    stop = asyncio.Event()
    working = asyncio.create_task(app.work(stop, grace=1.0))
    following = asyncio.create_task(_follow(client, run_id, view, as_json=as_json, here=True))
    try:
        done, _ = await asyncio.wait({working, following}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        stop.set()
        following.cancel()
        await asyncio.gather(working, following, return_exceptions=True)
