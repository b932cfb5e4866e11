"""Lists messages that could start nothing, and moves them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from detent_infra.ports import DeadLetter
from detent_infra.runs.as_json import iso
from detent_state_machine.envelopes import texts

from detent.app import App
from detent.cli.options import AppName, AsJson, Url
from detent.cli.output import age, console, name, one_line, say_cut, say_may_be_cut, write_json, write_line
from detent.cli.project import Options, find_app
from detent.cli.queues import must_listen, source_of

MOST = 1_000


def dead(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue that workflows name with `on_queue`.")],
    redrive: Annotated[
        bool, typer.Option("--redrive", help="Move them back into the queue, to be tried again.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=MOST, help="At most so many.")] = 10,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """List messages of a queue that could start nothing, with the reason."""

    act = _redrive if redrive else _show
    act(Options(app, url), queue, limit, as_json=json)


def _show(options: Options, queue: str, limit: int, *, as_json: bool) -> None:
    app = _listening(options, queue)

    async def look() -> list[DeadLetter]:
        async with source_of(options, app, queue) as source:
            return await source.dead_letters(limit + 1)  # one more tells whether there are more

    found = asyncio.run(look())
    letters = found[:limit]
    if as_json:
        write_json([_letter_json(letter) for letter in letters])
    elif letters:
        _print_table(letters)
    else:
        console(stderr=True).print(f"Queue {name(queue)} has no dead letters.", soft_wrap=True)
    if len(found) > limit:
        say_cut(limit, MOST)


def _redrive(options: Options, queue: str, limit: int, *, as_json: bool) -> None:
    app = _listening(options, queue)

    async def move() -> int:
        async with source_of(options, app, queue) as source:
            return await source.redrive(limit)

    moved = asyncio.run(move())
    if as_json:
        write_json({"queue": queue, "moved": moved})
    else:
        write_line(f"Moved {moved} dead letter{'' if moved == 1 else 's'} back into {name(queue)}.")
    if moved == limit:
        say_may_be_cut(limit)


def _listening(options: Options, queue: str) -> App | None:
    """The app, if one is configured. Raises `ConfigurationError` if none of its workflows listens to the queue."""
    app = find_app(options)
    if app is not None:
        must_listen(app, queue)
    return app


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
