"""Starts runs: each is stored first, and then gets the message that starts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detent_state_machine import keys
from detent_state_machine.definition import Definition
from detent_state_machine.errors import DetentError, InputError, KeyConflict
from detent_state_machine.messages import Message, Start, encode
from detent_state_machine.nesting import MAX_NESTING, too_deep
from detent_state_machine.records import RunRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.writes import PutItem

from detent_infra import payloads
from detent_infra.ids import keyed_id
from detent_infra.ports import Backend, Conflict

MAX_KEY = 512
MAX_METADATA = 2_048
"""Bytes of a run's metadata as JSON: it is copied into the index."""
CHUNK = 100
"""Runs that are on the way at once."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to start. `input` is JSON text that fits the workflow's input model.

    Its record, and so its key, outlives its start by at least `keep_days`, whatever the workflow's retention. `digest`
    is of what the input was made from: a key that started a run with this digest is not a conflict, whatever was made.
    """

    input: str
    key: str | None = None
    metadata: Mapping[str, str] | None = None
    keep_days: int = 0
    digest: str = ""


async def start_one(backend: Backend, definition: Definition, new: NewRun) -> str:
    """Stores the run, sends its first message, and returns its id. Raises `KeyConflict`, `InputError`."""
    start = await _put_run(backend, definition, new)
    await send(backend, [start])
    return start.run_id


async def start_all(backend: Backend, runs: Sequence[tuple[Definition, NewRun]]) -> list[Start | DetentError]:
    """Starts the runs in chunks, each with its messages in batches, and says of each what became of it.

    A `Start` is fresh if the run is new. Raises what is not a `DetentError`, or kept messages from being sent: then
    some may have started.
    """
    chunks = [runs[index : index + CHUNK] for index in range(0, len(runs), CHUNK)]
    return [run for chunk in chunks for run in await _start_chunk(backend, chunk)]


async def _start_chunk(backend: Backend, runs: Sequence[tuple[Definition, NewRun]]) -> list[Start | DetentError]:
    put = await asyncio.gather(
        *(_put_run(backend, definition, new) for definition, new in runs), return_exceptions=True
    )
    # What was stored gets its message, whatever became of the others: a run without one would not move.
    await send(backend, [start for start in put if isinstance(start, Start)])
    found: list[Start | DetentError] = []
    for start in put:
        if not isinstance(start, Start | DetentError):
            raise start
        found.append(start)
    return found


async def _put_run(backend: Backend, definition: Definition, new: NewRun) -> Start:
    """Stores the run and returns the message that starts it.

    A run that exists gets a message too, one that only walks: its starter may have died before sending its own.
    """
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
        await backend.table.write(PutItem(keys.run_key(record.run_id), record.to_item()))
    except Conflict as conflict:
        stored = RunRecord.from_item(record.run_id, conflict.item or {})
        if stored.input != record.input and not (new.digest and stored.digest == new.digest):
            raise KeyConflict(
                f"Key {new.key!r} already started run {stored.run_id} of {definition.name!r} with another input.",
                run_id=stored.run_id,
                advice="Use another key, or start it with the same input.",
            ) from None
        return Start(record.run_id)
    return Start(record.run_id, fresh=True)


async def send(backend: Backend, messages: Sequence[Message]) -> None:
    """Sends the messages, if there are any."""
    if messages:
        await backend.queue.send([encode(message) for message in messages])


def one_spelling(input_json: str) -> str:
    """The JSON text, so that the same value under the same key is the same input. Raises `InputError`."""
    try:
        parsed: object = json.loads(input_json)
        text = json.dumps(parsed, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The input is not JSON: {error}.", advice="Quote it, as in '{\"id\": 7}'.") from error
    if too_deep(text):
        raise InputError(f"The input is nested more than {MAX_NESTING} levels deep.", advice="Flatten it.")
    return text


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
