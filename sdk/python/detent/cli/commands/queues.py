"""Queues whose messages start runs, and the one of events that started none."""

from __future__ import annotations

from typing import Annotated

import typer

from detent.cli.commands.options import AppName, AsJson, Url
from detent.cli.project import Options


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
    from detent.cli.queues import Message, send_message

    message_ = Message(queue, message, id, attribute or [])
    send_message(Options(app, url), message_, unchecked=unchecked, as_json=json)


def dead(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue that workflows name with `on_queue`.")],
    redrive: Annotated[
        bool, typer.Option("--redrive", help="Move them back into the queue, to be tried again.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="At most so many.")] = 10,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """List messages of a queue that could start nothing, with the reason."""
    from detent.cli.queues import redrive_letters, show_letters

    act = redrive_letters if redrive else show_letters
    act(Options(app, url), queue, limit, as_json=json)


def failed_starts(
    redrive: Annotated[bool, typer.Option("--redrive", help="Start them, and take them out of the queue.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="At most so many.")] = 10,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """List events that a stack's start function could not start, with the reason.

    With --redrive it starts them, under the keys they had: what was started after all is not started twice.
    """
    from detent.cli.failed_starts import show_failed, start_failed

    if redrive:
        raise typer.Exit(start_failed(Options(app, url), limit, as_json=json))
    show_failed(Options(app, url), limit, as_json=json)
