"""How deep JSON may be nested: the same for whoever writes it and whoever reads it."""

from __future__ import annotations

from pydantic_core import from_json

MAX_NESTING = 199
"""Levels of arrays and objects. Readers take 200 (pydantic's parser); the result of a workflow with several last steps
is one object more around their outputs.
"""


def too_deep(text: str) -> bool:
    """Whether the JSON text, which is sound otherwise, is nested deeper than its readers can follow."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    try:
        from_json(f"[{text}]")
    except ValueError as error:
        return "recursion" in str(error)
    return False
