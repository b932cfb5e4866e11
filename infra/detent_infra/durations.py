"""How long something took or takes, as people read it: the same in logs, on the command line and in errors."""

from __future__ import annotations


def duration(milliseconds: int) -> str:
    """As people say it: `12 ms`, `3.40 s`, `2 min 05 s`, `3 h 20 min`, `4 d 2 h`."""
    if milliseconds < 1000:
        return f"{max(0, milliseconds)} ms"
    if milliseconds < 60_000:  # cut, not rounded: 59.99 s are not 60.0 s
        return f"{milliseconds // 10 / 100:.2f} s" if milliseconds < 10_000 else f"{milliseconds // 100 / 10:.1f} s"
    whole = milliseconds // 1000
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
