"""Messages that are left for another delivery: each time that one comes back in vain, it stays away for longer."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from detent_state_machine.errors import DetentError

from detent_infra.ports import Queue, Source

log = logging.getLogger("detent")

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 900.0
"""Seconds that a message stays hidden; each delivery doubles it. Five deliveries so outlast an outage of two and a half
minutes, ten one of 50."""


def pause_after(deliveries: int, first: float = FIRST_PAUSE) -> float:
    """Seconds that a message stays hidden after so many deliveries."""
    return min(LONGEST_PAUSE, first * 2.0 ** min(max(0, deliveries - 1), 20))


async def leave(queue: Queue | Source, receipt: str, pause: float, about: Mapping[str, str] | None = None) -> None:
    """Hides the message for so many seconds, best effort. `about` names it in the log. Raises no `DetentError`."""
    try:
        await queue.extend(receipt, pause)
    except DetentError as error:
        log.warning("its visibility could not be changed either: %s", error, extra=about)
