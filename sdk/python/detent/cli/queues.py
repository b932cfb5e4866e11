"""Queues of users, whose messages start runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from detent_infra.ports import Source
from detent_infra.sources.triggers import queues
from detent_state_machine.errors import ConfigurationError

from detent.app import App
from detent.cli.project import Options, client_of


def must_listen(app: App, queue: str) -> None:
    known = queues(app.subscriptions)
    if queue not in known:
        raise ConfigurationError(
            f"No workflow of app {app.name!r} listens to a queue {queue!r}.",
            advice=f"They listen to: {', '.join(known)}." if known else 'Declare one with `on_queue="…"`.',
        )


@asynccontextmanager
async def source_of(options: Options, app: App | None, queue: str) -> AsyncGenerator[Source, None]:
    async with client_of(options, app) as client:
        yield client.lifecycle.backend.source(queue)
