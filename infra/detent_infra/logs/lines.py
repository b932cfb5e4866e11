"""A log line as the JSON object that CloudWatch stores, and back; and which lines a query is about.

Every adapter asks here, so that a query means the same on all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import cast

from detent_state_machine.errors import InputError

from detent_infra.ports import LogLine, LogPage, LogQuery, Logs

_ALWAYS = ("time", "level", "message", "run_id", "path", "attempt")
_IF_KNOWN = ("workflow", "worker", "request_id", "trace_id", "engine", "attempt_over")
NAMES = (*_ALWAYS, *_IF_KNOWN)
"""Names that are detent's own in a line. A step's field of such a name gets a `_` behind it."""
_QUOTED = tuple(f'"{name}"' for name in NAMES)
_encode = json.JSONEncoder(ensure_ascii=False).encode

LEVELS: Mapping[str, int] = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "CRITICAL": 50}
"""In order, with the numbers of Python's `logging`."""

_SPELLINGS = {"WARNING": "WARN", "FATAL": "CRITICAL"}

MAX_MESSAGE = 10_000
MAX_FIELDS = 50_000
"""Characters; the fields are counted as JSON."""

MAX_BYTES = 256 * 1024 - 26
"""Of one line. CloudWatch takes 1 MB since 2025, with 26 bytes for itself, but what carries Lambda's output to it may
cut a longer line in two, and half a JSON object is none."""
_CUT = 32 * 1024  # characters: with six bytes for each, the worst that JSON can make of one, a line still fits

FOLLOW_EVERY = 0.25
"""Seconds between two looks at a log that costs nothing to look at."""


def level_name(given: str) -> str:
    """The level in the one spelling that lines have: `WARN` for Python's WARNING, `CRITICAL` for FATAL."""
    upper = given.upper()
    return _SPELLINGS.get(upper, upper)


def rank(level: str) -> int:
    """Where a level stands; one that nobody knows stands where INFO does."""
    return LEVELS.get(level_name(level), LEVELS["INFO"])


def names_below(level: str) -> tuple[str, ...]:
    """Every name, in every spelling, of the levels below this one."""
    return tuple(name for name in (*LEVELS, *_SPELLINGS) if rank(name) < rank(level))


# ---- what people write ---------------------------------------------------------------------------------------


def message_text(value: object) -> str:
    """A message as a line has it: valid Unicode, of at most `MAX_MESSAGE` characters."""
    text = shown(value).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def fields_text(fields: Mapping[str, object]) -> str:
    """The fields as a JSON object: each that has no JSON form as text, each under a name of its own.

    Too many or too large ones, beyond `MAX_FIELDS` characters, are dropped whole, and the line says so.
    """
    if not fields:
        return "{}"
    named = ((f"{name}_" if name in NAMES else name, value) for name, value in fields.items())
    text = "{" + ", ".join(f"{json.dumps(name)}: {_value(value)}" for name, value in named) + "}"
    if len(text) > MAX_FIELDS:
        return '{"fields_dropped": true}'
    return text.encode("utf-8", "backslashreplace").decode()


def shown(value: object) -> str:
    """Any value as text. Never raises."""
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a line is best effort: what cannot show itself is named
        return f"<{type(value).__name__}>"


def _value(value: object) -> str:
    try:
        return json.dumps(value, default=shown, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(shown(value), ensure_ascii=False)


# ---- JSON ---------------------------------------------------------------------------------------------------


def to_json(line: LogLine) -> str:
    """One JSON object; the fields stand beside detent's own names, which they cannot replace."""
    own: dict[str, object] = {name: getattr(line, name) for name in _ALWAYS}
    for name in _IF_KNOWN:
        if value := getattr(line, name):
            own[name] = value
    if line.fields == "{}":
        return _encode(own)
    if len(line.fields) < 500 and not any(name in line.fields for name in _QUOTED):
        return f"{_encode(own)[:-1]}, {line.fields[1:]}"  # nothing to look into: a line per step is written so
    try:
        fields = cast("dict[str, object]", json.loads(line.fields))
        return _encode({**own, **{k: v for k, v in fields.items() if k not in NAMES}})
    except RecursionError:  # rather the line without them than no line
        return _encode({**own, "fields_dropped": True})


def from_json(text: str) -> LogLine | None:
    """The line in a stored JSON object, or None if detent did not write it."""
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match parsed:
        case {"time": int(time), "level": str(level), "message": str(message), "run_id": str(run_id)}:
            known = cast("dict[str, object]", parsed)
            return line_of(known, time, level, message, run_id, NAMES)
        case _:
            return None


def line_of(
    known: Mapping[str, object], time: int, level: str, message: str, run_id: str, own: tuple[str, ...]
) -> LogLine:
    """A line from its required parts, and from what else is known of it; `own` are the names that are not fields."""
    attempt = known.get("attempt", 0)
    rest = {name: value for name, value in known.items() if name not in own}
    texts = {name: value for name in ("path", *_IF_KNOWN) if isinstance(value := known.get(name), str)}
    return LogLine(
        time=time,
        level=level,
        message=message,
        run_id=run_id,
        attempt=attempt if isinstance(attempt, int) else 0,
        fields=json.dumps(rest, ensure_ascii=False) if rest else "{}",
        attempt_over=known.get("attempt_over") is True,
        **texts,
    )


def fit(line: LogLine) -> str:
    """The line as JSON of at most `MAX_BYTES`: the message is shortened first, then the fields are dropped."""
    text = to_json(line)
    if len(text) * 4 <= MAX_BYTES or len(text.encode()) <= MAX_BYTES:
        return text
    if len(line.message) > _CUT:
        return fit(replace(line, message=line.message[: _CUT - 1] + "…"))
    return to_json(replace(line, fields='{"fields_dropped": true}'))


# ---- queries ------------------------------------------------------------------------------------------------


def selects(query: LogQuery) -> Callable[[LogLine, str], bool]:
    """The test of a line, given with its JSON text. Raises `InputError` for a bad pattern or level."""
    # Imported here: a Lambda worker writes lines and reads none, and its cold start is paid for.
    from detent_state_machine import filter_pattern

    matches = filter_pattern.parse(query.pattern)
    least = rank(known_level(query.level)) if query.level else 0
    runs = frozenset(query.runs)

    def test(line: LogLine, text: str) -> bool:
        return (
            (not runs or line.run_id in runs)
            and line.time >= query.since
            and (query.until is None or line.time <= query.until)
            and (not query.path or line.path == query.path)
            and (not query.workflow or line.workflow == query.workflow)
            and (not least or rank(line.level) >= least)
            and matches(text)
        )

    return test


def known_level(given: str) -> str:
    """The level in its own spelling. Raises `InputError` for one that there is not."""
    name = level_name(given)
    if name not in LEVELS:
        raise InputError(f"{given[:40]!r} is not a level of a log.", advice=f"They are {', '.join(LEVELS)}.")
    return name


async def polled(logs: Logs, query: LogQuery, every: float, over: asyncio.Event) -> AsyncGenerator[LogPage, None]:
    """Follows by reading again each `every` seconds."""
    after: str | None = None
    while True:
        last = over.is_set()
        page = await logs.read(query, after=after)
        yield page
        after = page.next
        if page.more:
            continue
        if last:
            return
        await asyncio.sleep(every)
