"""Reads the project's files, and tells a missing file from one that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from detent_state_machine.errors import ConfigurationError

T = TypeVar("T")


def read(path: Path, parse: Callable[[str], T], *, advice: str = "Fix it.") -> T | None:
    """What the file says; None if there is none. Raises `ConfigurationError` if it, or `parse`, cannot read it."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.", advice=advice) from error


def mapping_at(body: object, *names: str) -> Mapping[str, object]:
    """The mapping under these names; empty if there is none."""
    for name in names:
        body = cast("Mapping[str, object]", body).get(name) if isinstance(body, Mapping) else None
    return cast("Mapping[str, object]", body) if isinstance(body, Mapping) else {}
