"""Identifiers: new ones, ordered by time, and those of keys. 26 characters of [0-9a-v], safe in URLs and keys."""

from __future__ import annotations

import json
import re
import secrets
import time
from hashlib import sha256

_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
_WHOLE = re.compile("k?[0-9a-v]{26}")


def new_id() -> str:
    """48 bits of milliseconds, then 82 random bits: ids sort by the millisecond they were made in; none collide."""
    number = (time.time_ns() // 1_000_000) << 82 | secrets.randbits(82)
    return base32(number, 26)


def keyed_id(*parts: str) -> str:
    """The run id of a workflow and an idempotency key: the same on every machine, and apart for every workflow.

    With three parts, of a retry: no workflow or key, whatever its name, makes an id of two parts the same.
    """
    digest = sha256(json.dumps(parts).encode()).digest()
    return "k" + base32(int.from_bytes(digest[:16], "big"), 26)


def is_whole(run_id: str) -> bool:
    """Whether the text looks like an id that was made here, and not like a part of one."""
    return len(run_id) in (26, 27) and _WHOLE.fullmatch(run_id) is not None


def base32(number: int, length: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))
