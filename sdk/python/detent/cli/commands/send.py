"""Puts a message into a queue whose messages start runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from detent_infra.sources.triggers import queues, started_by
from detent_state_machine.envelopes import SourceMessage, check_outgoing
from detent_state_machine.errors import InputError

from detent.app import App
from detent.cli import arguments
from detent.cli.options import AppName, AsJson, Url
from detent.cli.output import write_json, write_line
from detent.cli.project import Options, find_app
from detent.cli.queues import must_listen, source_of


def send(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue that workflows name with `on_queue`.")],
    message: Annotated[str, typer.Argument(metavar="JSON", help="The message: JSON, @FILE, or - for standard input.")],
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The same id starts nothing twice. Default: a new one.")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="NAME=VALUE", help="An attribute of the message. May be repeated."),
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Send any text, even if no workflow could use it.")
    ] = False,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Put a message into a queue whose messages start runs, and print its id.

    With an app, the message is first held to what its workflows expect of it.
    """

    message_ = Message(queue, message, id, attribute or [])
    _send(Options(app, url), message_, unchecked=unchecked, as_json=json)


@dataclass(frozen=True, slots=True)
class Message:
    """What to send, as written on the command line."""

    queue: str
    body: str
    id: str | None
    attributes: Sequence[str]


def _send(options: Options, message: Message, *, unchecked: bool, as_json: bool) -> None:
    body = arguments.raw_text(message.body) if unchecked else arguments.json_text(message.body)
    attributes = arguments.metadata(message.attributes, "--attribute")
    app = find_app(options)
    check_outgoing(body, message.id, attributes)  # this and what follows before anything is opened, or made
    if app is not None and not unchecked:
        _check(app, SourceMessage(message.id or "", message.queue, body, int(time.time() * 1000), attributes))

    async def put() -> str:
        async with source_of(options, app, message.queue) as source:
            return await source.send(body, id=message.id, attributes=attributes)

    id = asyncio.run(put())
    if as_json:
        write_json({"queue": message.queue, "message_id": id})
    else:
        write_line(id)


def _check(app: App, message: SourceMessage) -> None:
    """Raises `ConfigurationError`, `InputError` for a message that would start nothing."""
    must_listen(app, message.queue)
    try:
        if not started_by(app.subscriptions, message):
            workflows = ", ".join(queues(app.subscriptions)[message.queue])
            raise InputError(f"The message would start nothing: `when` is false for {workflows}.")
    except InputError as error:
        raise InputError(error.message, advice="`--unchecked` sends it all the same.") from error
