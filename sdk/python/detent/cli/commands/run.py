"""Starts a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from detent_infra import event_loop
from detent_state_machine.errors import InputError, Unavailable

from detent.app import App
from detent.cli import arguments
from detent.cli.follow import View, follow_to_result, print_run_id, view_for
from detent.cli.options import AppName, AsJson, Metadata, Url
from detent.cli.project import (
    Options,
    client_of,
    find_app,
    load_app,
    unknown_workflow,
)
from detent.client import Client
from detent.workflow import Workflow


def run(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW")],
    input: Annotated[
        str | None, typer.Argument(metavar="JSON", help="The input: JSON, @FILE, or - for standard input.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its steps, and end with its result.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Work in this process too, until the run ends. Implies --follow.")
    ] = False,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The same key and input start one run only.")] = None,
    metadata: Metadata = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Start a run and print its id, or, with --follow, its result.

    With --follow, the exit code is 1 if the run fails or is cancelled.
    """

    start(Options(app, url), RunOptions(workflow, input, key, metadata or []), follow=follow, here=here, as_json=json)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to start, as written on the command line."""

    workflow: str
    input: str | None
    key: str | None
    metadata: Sequence[str]


def start(options: Options, request: RunOptions, *, follow: bool, here: bool, as_json: bool) -> None:
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
                print_run_id(run_id, options, as_json=as_json)
                return
            view = view_for(run_id, options, as_json=as_json)
            if app is None or not here:
                await follow_to_result(client, run_id, view, as_json=as_json)
            else:
                await _work_and_follow(app, client, run_id, view, as_json=as_json)

    if not here:
        asyncio.run(work())
        return
    with event_loop.leaving_threads():
        event_loop.exit_code = 1  # unless it ends with a result
        event_loop.run(work())
        event_loop.exit_code = 0


async def _start_by_name(client: Client, request: RunOptions, text: str | None, metadata: dict[str, str]) -> str:
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


async def _work_and_follow(app: App, client: Client, run_id: str, view: View, *, as_json: bool) -> None:
    """Follows with a worker beside it, whose failure ends the command."""
    stop = asyncio.Event()
    working = asyncio.create_task(app.work(stop, grace=1.0))
    following = asyncio.create_task(follow_to_result(client, run_id, view, as_json=as_json, here=True))
    try:
        done, _ = await asyncio.wait({working, following}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if following not in done:
            raise Unavailable(
                f"The worker here has ended, and run {run_id} has not.",
                advice="It goes on where a worker is: start one with `detent worker`.",
            )
    finally:
        stop.set()
        following.cancel()
        await asyncio.gather(working, following, return_exceptions=True)
