"""The events that a stack's start function could not start: Lambda gave them up, and keeps them in a queue.

Each is a record of Lambda's with the event, the id of the invocation, and how the last try ended.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import typer
from detent_infra.connect import parse_aws, redacted
from detent_infra.ports import Arrived, Source
from detent_infra.runs.as_json import iso
from detent_infra.runs.lifecycle import Lifecycle
from detent_state_machine.envelopes import SourceMessage
from detent_state_machine.errors import ConfigurationError, DetentError, InputError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from detent.cli.options import AppName, AsJson, Url
from detent.cli.output import age, console, name, one_line, say_cut, say_may_be_cut, write_json
from detent.cli.project import Options, opened, place

HIDDEN = 120.0
"""Seconds for which an event that is being looked at, or started, is nobody else's."""
BATCH = 10
"""Messages that SQS hands out at once."""
WAIT = 1.0
"""Seconds: SQS asks all of its servers, rather than some, only if it may wait."""


MOST = 1_000


def failed_starts(
    redrive: Annotated[bool, typer.Option("--redrive", help="Start them, and take them out of the queue.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=MOST, help="At most so many.")] = 10,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """List events that a stack's start function could not start, with the reason.

    With --redrive it starts them, under the keys they had: what was started after all is not started twice.
    """

    if redrive:
        raise typer.Exit(start_failed(Options(app, url), limit, as_json=json))
    show_failed(Options(app, url), limit, as_json=json)


class _Event(BaseModel):
    """What the start function takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workflow: str = Field(min_length=1)
    input: JsonValue = None
    key: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict[str, str])


class _Request(BaseModel):
    """Of the invocation. `id` is what Lambda called it in each try."""

    id: str = Field("", alias="requestId")
    condition: str = ""


class _Record(BaseModel):
    """What Lambda writes of an invocation that failed. A throttled one has no response."""

    request: _Request = Field(alias="requestContext")
    event: JsonValue = Field(alias="requestPayload")
    response: JsonValue = Field(None, alias="responsePayload")

    @property
    def why(self) -> str:
        said = self.response.get("errorMessage") if isinstance(self.response, Mapping) else None
        return said if isinstance(said, str) else self.request.condition or "Lambda does not say why."


@dataclass(frozen=True, slots=True)
class FailedStart:
    """A failed start. `key` is that of each try of it: if one got as far as a run, it is that run."""

    id: str
    """The queue's."""
    sent: int
    """When Lambda gave it up, in ms."""
    reason: str
    event: _Event | None
    """None: it is none that the start function takes."""
    key: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of one. `error`: why it was not started."""

    failed: FailedStart
    run_id: str | None = None
    error: str | None = None


def show_failed(options: Options, limit: int, *, as_json: bool) -> None:
    """Prints up to `limit` of them, and leaves them there."""

    async def look() -> list[Told]:
        async with _events(options) as (source, _):
            found = [one async for one in _take(source, limit + 1)]  # one more tells whether there are more
            for one in found:
                await source.extend(one.receipt, 0)
            return [Told(_read(one.message)) for one in found]

    told = asyncio.run(look())
    _tell(told[:limit], as_json=as_json)
    if len(told) > limit:
        say_cut(limit, MOST)


def start_failed(options: Options, limit: int, *, as_json: bool) -> int:
    """Starts up to `limit` of them, and prints what came of each. Returns the exit code: 2 if one was not started."""

    async def start() -> list[Told]:
        async with _events(options) as (source, lifecycle):
            told: list[Told] = []
            held: list[str] = []
            async for one in _take(source, limit):
                told.append(await _start(source, lifecycle, one))
                if told[-1].error is not None:
                    held.append(one.receipt)  # or it is taken again at once
            for receipt in held:
                await source.extend(receipt, 0)
            return told

    told = asyncio.run(start())
    _tell(told, as_json=as_json)
    if len(told) == limit:
        say_may_be_cut(limit)
    return 2 if any(each.error for each in told) else 0


async def _start(source: Source, lifecycle: Lifecycle, one: Arrived) -> Told:
    failed = _read(one.message)
    try:
        if failed.event is None:
            raise InputError("It is not a request to start a run.", advice="Whoever sent it has to fix it.")
        text = json.dumps(failed.event.input, ensure_ascii=False)
        metadata = failed.event.metadata
        run_id = await lifecycle.start_by_name(failed.event.workflow, text, key=failed.key, metadata=metadata)
    except DetentError as error:
        return Told(failed, error=str(error))
    # Started before it is deleted: a crash in between leaves it here, and its key starts nothing twice.
    await source.delete(one.receipt)
    return Told(failed, run_id)


@asynccontextmanager
async def _events(options: Options) -> AsyncGenerator[tuple[Source, Lifecycle], None]:
    url = place(options).value
    if not url.startswith("aws://"):
        raise ConfigurationError(
            f"{redacted(url)} has no start function, and so no failed starts.",
            advice="Name the stack: `--url aws://<stack>?region=<region>`.",
        )
    from detent_infra.aws import Clients, failed_starts_of_stack

    stack, region, endpoint = parse_aws(url)
    clients = Clients(region, endpoint)
    try:
        queue = failed_starts_of_stack(stack, clients)
    finally:
        clients.close()
    async with opened(Options(None, url)) as client:
        yield client.lifecycle.backend.source(queue), client.lifecycle


async def _take(source: Source, limit: int) -> AsyncGenerator[Arrived, None]:
    """Up to `limit` of them, a batch at a time, so that none is seen again before its turn."""
    left = limit
    while batch := await source.receive(min(BATCH, left), wait=WAIT, visibility=HIDDEN):
        left -= len(batch)
        for one in batch:
            yield one


def _read(message: SourceMessage) -> FailedStart:
    try:
        record = _Record.model_validate_json(message.body)
    except ValidationError:
        return FailedStart(message.queue_id, message.sent, "This is not a record of Lambda's.", None, None)
    try:
        event = _Event.model_validate(record.event)
    except ValidationError:
        return FailedStart(message.queue_id, message.sent, record.why, None, None)
    # As the start function does, so that a try that got as far as the table is gone on with.
    key = event.key or f"invocation-{record.request.id or message.queue_id}"
    return FailedStart(message.queue_id, message.sent, record.why, event, key)


def _tell(told: Sequence[Told], *, as_json: bool) -> None:
    if as_json:
        write_json([_as_json(each) for each in told])
        return
    if not told:
        console(stderr=True).print("There are no failed starts.", soft_wrap=True)
    from rich.text import Text

    out, now = console(), int(time.time() * 1000)
    for each in told:
        failed = each.failed
        workflow = "?" if failed.event is None else name(failed.event.workflow)
        key = "" if failed.key is None else f"  {name(failed.key)}"
        line = Text.assemble((workflow, "bold"), key, (f"  {age(now - failed.sent)} ago", "bright_black"))
        out.print(line, soft_wrap=True)
        if each.run_id is not None:
            out.print(Text(f"  started: {each.run_id}"), soft_wrap=True)
        else:
            out.print(Text(f"  {one_line(each.error or failed.reason)}", "red"), soft_wrap=True)


def _as_json(told: Told) -> dict[str, object]:
    failed = told.failed
    return {
        "message_id": failed.id,
        "sent": iso(failed.sent),
        "reason": failed.reason,
        "workflow": None if failed.event is None else failed.event.workflow,
        "key": failed.key,
        "run_id": told.run_id,
        "error": told.error,
    }
