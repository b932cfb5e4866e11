"""Publishes an event."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from detent_infra.events.publish import NewEvent
from detent_infra.events.publish import publish as publish_event
from detent_state_machine.events import EventAddress

from detent.app import App
from detent.cli import arguments
from detent.cli.options import AppName, AsJson, Url
from detent.cli.output import write_json, write_line
from detent.cli.project import Options, client_of, find_app


def publish(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The name of the event.")],
    payload: Annotated[
        str, typer.Argument(metavar="JSON", help="The payload: JSON, @FILE, or - for standard input.")
    ] = "null",
    key: Annotated[str, typer.Option(metavar="KEY", help="It meets waits for this key. Default: those without.")] = "",
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The same id is one event. Default: a new one.")
    ] = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Publish an event to the runs that wait for it, now or later.

    Prints its id. With an app that declares the event, the payload is first held to its type.
    """
    options, text = Options(app, url), arguments.json_text(payload)
    new = NewEvent(EventAddress(event, key), text, id)
    found = find_app(options)
    if found is not None:
        _check(found, event, text)

    async def work() -> str:
        async with client_of(options, found) as client:
            return (await publish_event(client.lifecycle.backend, new)).id

    event_id = asyncio.run(work())
    if json:
        write_json({"event": event, "key": key, "id": event_id})
    else:
        write_line(event_id)


def _check(app: App, name: str, text: str) -> None:
    """Raises `InputError` for a payload that the declared event cannot have."""
    declared: Any = app.events.get(name)
    if declared is not None:
        declared.payload_json.read(text, f"The payload of event {name!r}")
