"""What users write on the command line, as values. Everything here raises `InputError` for what does not fit."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

from detent_state_machine.errors import InputError
from detent_state_machine.status import RunStatus

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(text: str | None, option: str) -> datetime | None:
    """A moment: an age such as `10m`, `2h`, `3d`, or an ISO 8601 time, local unless it names its zone."""
    if text is None:
        return None
    try:
        if match := _AGE.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(seconds=float(match[1]) * _UNITS[match[2]])
        found = datetime.fromisoformat(text.strip()).astimezone()
        found.timestamp()
    except (ValueError, OverflowError):
        raise InputError(
            f"{option} {text!r} is not a time.", advice="Write an age such as 30s, 10m, 2h, 3d, or 2026-01-31T08:00."
        ) from None
    return found


def since(text: str | None) -> datetime | None:
    return moment(text, "--since")


def milliseconds(text: str | None, option: str) -> int | None:
    """The moment in milliseconds since the epoch."""
    found = moment(text, option)
    return None if found is None else int(found.timestamp() * 1000)


def metadata(pairs: Sequence[str] | None, option: str = "--metadata") -> dict[str, str]:
    """Names with values, as given to the option."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(
                f"{option} {pair!r} is not a name with a value.", advice=f"Write it as `{option} customer=42`."
            )
        found[name] = value
    return found


def statuses(words: Sequence[str] | None) -> tuple[RunStatus, ...]:
    """Words in any case, repeated or joined by commas."""
    found: list[RunStatus] = []
    for word in (part.strip() for words_ in words or () for part in words_.split(",")):
        if word.upper() not in RunStatus.__members__:
            names = ", ".join(status.lower() for status in RunStatus)
            raise InputError(f"--status {word!r} is not a status of a run.", advice=f"They are {names}.")
        found.append(RunStatus(word.upper()))
    return tuple(found)


def json_text(given: str) -> str:
    """The JSON text itself, from `@file`, or from standard input (`-`); checked to be JSON."""
    found = raw_text(given)
    try:
        json.loads(found, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"The input is not JSON: {error}.", advice="Quote it for the shell, as in '{\"id\": 7}'."
        ) from error
    return found


def raw_text(given: str) -> str:
    """The text itself, from `@file`, or from standard input (`-`)."""
    try:
        if given == "-":
            return sys.stdin.buffer.read().decode()
        if given.startswith("@"):
            return Path(given[1:]).read_bytes().decode()
    except OSError as error:
        raise InputError(
            f"{given[1:] or 'The file'} cannot be read: {error.strerror}.", advice="Write @ and the path of a file."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"The input is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    return given


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} has no place in JSON")
