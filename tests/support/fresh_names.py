"""Names of stacks and what belongs to them, which no other test of this or another process has."""

from __future__ import annotations

from detent_infra.ids import new_id


def fresh(word: str) -> str:
    """`word` and ten characters of chance. The beginning of an id would not do: it is the time."""
    return f"{word}-{new_id()[-10:]}"
