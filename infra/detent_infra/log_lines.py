"""A log line as the JSON object that CloudWatch stores, and back."""

from __future__ import annotations

import json
from typing import cast

from detent_infra.ports import LogLine

_OWN = ("time", "level", "message", "run_id", "path", "attempt")


def to_json(line: LogLine) -> str:
    """One JSON object; the fields stand beside detent's own names, which they cannot replace."""
    own = {name: getattr(line, name) for name in _OWN}
    try:
        fields = cast("dict[str, object]", json.loads(line.fields))
        return json.dumps({**own, **{k: v for k, v in fields.items() if k not in own}}, ensure_ascii=False)
    except RecursionError:  # rather the line without them than no line
        return json.dumps({**own, "fields_dropped": True}, ensure_ascii=False)


def from_json(text: str) -> LogLine | None:
    """The line in a stored JSON object, or None if detent did not write it."""
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match parsed:
        case {"time": int(time), "level": str(level), "message": str(message), "run_id": str(run_id)}:
            known = cast("dict[str, object]", parsed)
            rest = {name: value for name, value in known.items() if name not in _OWN}
            path, attempt = known.get("path", ""), known.get("attempt", 0)
            return LogLine(
                time=time,
                level=level,
                message=message,
                run_id=run_id,
                path=path if isinstance(path, str) else "",
                attempt=attempt if isinstance(attempt, int) else 0,
                fields=json.dumps(rest, ensure_ascii=False),
            )
        case _:
            return None
