"""What the queue carries. Small on purpose: a message says what to drive; the truth is in the table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias, assert_never, cast

from detent_state_machine.errors import CorruptRecord, NewerRecord
from detent_state_machine.writes import Key

FORMAT = 2
"""Of `Wake`. Other messages have format 1, so that workers of before can read them."""


@dataclass(frozen=True, slots=True)
class Start:
    """Drive the virtual step whose successors are the workflow's first steps.

    `fresh` is true only for the message sent with a newly put run record; every later one walks instead of running.
    """

    run_id: str
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Drive:
    """Drive this step run: claim it and go on from there, or, if it has ended, see that its successors are driven.

    `fresh` is true only for the message sent by whoever made the step run ready. A copy, a retry, or a message of a
    walk is not: others may be at work on the step run. `fact` is where the fact is stored that it brings to a wait.
    """

    run_id: str
    path: str
    fresh: bool = False
    fact: Key | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End this run as CANCELLED, and close its waits: whoever asked for it may have died in between.

    Only a run that can wait has one.
    """

    run_id: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Bring this fact to the step runs that are registered where it is stored, from a place on."""

    fact: Key
    after: str | None = None


RunMessage: TypeAlias = Start | Drive | Cancel
"""A message about a run."""
Message: TypeAlias = RunMessage | Wake


def encode(message: Message) -> str:
    match message:
        case Start(run_id, fresh):
            body: dict[str, object] = {"v": 1, "kind": "start", "run": run_id, "fresh": fresh}
        case Drive(run_id, path, fresh, fact):
            body = {"v": 1, "kind": "drive", "run": run_id, "path": path}
            body |= {**({"fresh": True} if fresh else {}), **({"fact": list(fact)} if fact else {})}
        case Cancel(run_id):
            body = {"v": 1, "kind": "cancel", "run": run_id}
        case Wake(fact, after):
            body = {"v": FORMAT, "kind": "wake", "fact": list(fact), "after": after}
        case _:
            assert_never(message)
    return json.dumps(body, separators=(",", ":"))


def decode(body: str) -> Message:
    """The message in a queue's body.

    Raises `NewerRecord` for a newer format (leave it for a newer worker) and `CorruptRecord` for anything else.
    """
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CorruptRecord(f"The queue holds a message that is not JSON: {body[:80]!r}.") from error
    if not isinstance(parsed, dict):
        raise CorruptRecord(f"The queue holds a message that is not an object: {body[:80]!r}.")
    fields = cast("dict[str, object]", parsed)
    version = fields.get("v")
    if isinstance(version, int) and version > FORMAT:
        raise NewerRecord(
            f"A message has format {version}; this worker reads up to {FORMAT}.", advice="Upgrade this worker."
        )
    match fields:
        case {"v": 1, "kind": "start", "run": str(run_id), "fresh": bool(fresh)}:
            return Start(run_id, fresh)
        case {"v": 1, "kind": "drive", "run": str(run_id), "path": str(path)}:
            return Drive(run_id, path, fields.get("fresh") is True, _key(fields.get("fact")))
        case {"v": 1, "kind": "cancel", "run": str(run_id)}:
            return Cancel(run_id)
        case {"v": 2, "kind": "wake", "fact": [str(pk), str(sk)], "after": str() | None as after}:
            return Wake(Key(pk, sk), after)
        case _:
            raise CorruptRecord(f"The queue holds a message of an unknown kind: {body[:80]!r}.")


def _key(found: object) -> Key | None:
    match found:
        case [str(pk), str(sk)]:
            return Key(pk, sk)
        case _:
            return None
