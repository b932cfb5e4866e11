"""New identifiers: ordered by time, 26 characters of [0-9a-v], safe in URLs and keys."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghijklmnopqrstuv"


def new_id() -> str:
    """48 bits of milliseconds, then 82 random bits: ids of one process sort by creation, none collide."""
    number = (time.time_ns() // 1_000_000) << 82 | secrets.randbits(82)
    return base32(number, 26)


def base32(number: int, length: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))
