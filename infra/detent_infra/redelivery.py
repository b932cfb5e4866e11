"""Messages that are left for another delivery: each time that one comes back in vain, it stays away for longer."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import DetentError

from detent_infra.ports import MessageQueue, Source

log = logging.getLogger("detent")

HIDDEN = Backoff(first=10.0, longest=900.0)
"""How long a message stays hidden, by its deliveries. Five deliveries so outlast an outage of two and a half minutes,
ten one of 50."""


async def leave(
    queue: MessageQueue | Source, receipt: str, pause: float, about: Mapping[str, str] | None = None
) -> None:
    """Hides the message for so many seconds, best effort. `about` names it in the log. Raises no `DetentError`."""
    try:
        await queue.extend(receipt, pause)
    except DetentError as error:
        log.warning("its visibility could not be changed either: %s", error, extra=about)
