"""Putting messages into queues whose messages start runs, and looking at those that could start nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from detent_infra.ports import DeadLetter, Source
from detent_infra.sources.triggers import queues, started_by
from detent_state_machine.envelopes import SourceMessage, check_outgoing, texts
from detent_state_machine.errors import ConfigurationError, InputError

from detent.app import App
from detent.cli import arguments
from detent.cli.output import age, console, iso, name, one_line, write_json, write_line
from detent.cli.project import Options, find_app
from detent.cli.run import client_of


@dataclass(frozen=True, slots=True)
class Message:
    """What to send, as written on the command line."""

    queue: str
    body: str
    id: str | None
    attributes: Sequence[str]


def send_message(options: Options, message: Message, *, unchecked: bool, as_json: bool) -> None:
    body = arguments.raw_text(message.body) if unchecked else arguments.json_text(message.body)
    attributes = arguments.metadata(message.attributes, "--attribute")
    app = find_app(options)
    check_outgoing(body, message.id, attributes)  # this and what follows before anything is opened, or made
    if app is not None and not unchecked:
        _check(app, SourceMessage(message.id or "", message.queue, body, int(time.time() * 1000), attributes))

    async def put() -> str:
        async with _source(options, app, message.queue) as source:
            return await source.send(body, id=message.id, attributes=attributes)

    id = asyncio.run(put())
    if as_json:
        write_json({"queue": message.queue, "message_id": id})
    else:
        write_line(id)


def show_letters(options: Options, queue: str, limit: int, *, as_json: bool) -> None:
    app = _listening(options, queue)

    async def look() -> list[DeadLetter]:
        async with _source(options, app, queue) as source:
            return await source.dead_letters(limit)

    letters = asyncio.run(look())
    if as_json:
        write_json([_letter_json(letter) for letter in letters])
    elif letters:
        _print_table(letters)
    else:
        console(stderr=True).print(f"Queue {name(queue)} has no dead letters.", soft_wrap=True)


def redrive_letters(options: Options, queue: str, limit: int, *, as_json: bool) -> None:
    app = _listening(options, queue)

    async def move() -> int:
        async with _source(options, app, queue) as source:
            return await source.redrive(limit)

    moved = asyncio.run(move())
    if as_json:
        write_json({"queue": queue, "moved": moved})
    else:
        write_line(f"Moved {moved} dead letter{'' if moved == 1 else 's'} back into {name(queue)}.")


def _listening(options: Options, queue: str) -> App | None:
    """The app, if one is configured. Raises `ConfigurationError` if none of its workflows listens to the queue."""
    app = find_app(options)
    if app is not None:
        _must_listen(app, queue)
    return app


def _must_listen(app: App, queue: str) -> None:
    known = queues(app.subscriptions)
    if queue not in known:
        raise ConfigurationError(
            f"No workflow of app {app.name!r} listens to a queue {queue!r}.",
            advice=f"They listen to: {', '.join(known)}." if known else 'Declare one with `on_queue="…"`.',
        )


def _check(app: App, message: SourceMessage) -> None:
    """Raises `ConfigurationError`, `InputError` for a message that would start nothing."""
    _must_listen(app, message.queue)
    try:
        if not started_by(app.subscriptions, message):
            workflows = ", ".join(queues(app.subscriptions)[message.queue])
            raise InputError(f"The message would start nothing: `when` is false for {workflows}.")
    except InputError as error:
        raise InputError(error.message, advice="`--unchecked` sends it all the same.") from error


@asynccontextmanager
async def _source(options: Options, app: App | None, queue: str) -> AsyncGenerator[Source, None]:
    async with client_of(options, app) as client:
        yield client.lifecycle.backend.source(queue)


def _letter_json(letter: DeadLetter) -> dict[str, object]:
    message, refusal = letter.message, letter.refusal
    return {
        "message_id": message.id,
        "queue": message.queue,
        "sent": iso(message.sent),
        "error": None if refusal is None else refusal.error,
        "reason": None if refusal is None else refusal.reason,
        "attributes": texts(message.attributes),
        "body": message.body,
    }


def _print_table(letters: Sequence[DeadLetter]) -> None:
    from rich.text import Text

    out = console()
    now = int(time.time() * 1000)
    for letter in letters:
        refusal, message = letter.refusal, letter.message
        line = Text.assemble((name(message.id), "bold"), (f"  {age(now - message.sent)} ago", "bright_black"))
        out.print(line, soft_wrap=True)
        why = f"{refusal.error}: {refusal.reason}" if refusal else "It was delivered too often without success."
        out.print(Text(f"  {one_line(why)}", "red"), soft_wrap=True)
        out.print(Text(f"  {one_line(message.body)}"), no_wrap=True, overflow="ellipsis", crop=True)
