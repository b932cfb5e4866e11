"""Works on runs until a signal."""

from __future__ import annotations

import signal

import typer
from detent_infra import event_loop
from detent_infra.connect import redacted
from detent_infra.logs.step_output import step_output
from detent_infra.sources.triggers import queues

from detent.app import App
from detent.cli.options import AppName, Concurrency, Grace, Url
from detent.cli.output import clean, console
from detent.cli.project import Options, load_app, must_be_shared
from detent.cli.workers import Stop, log_to_stderr, work
from detent.logs import log_settings


def worker(
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 30.0,
) -> None:
    """Work on runs until SIGTERM or Ctrl-C.

    Steps in progress then have --grace seconds to end; what is cut off is delivered again.
    """

    raise typer.Exit(_serve(Options(app, url), concurrency=concurrency, grace=grace))


def _serve(options: Options, *, concurrency: int, grace: float) -> int:
    """Works until told to stop; returns the exit code."""
    with step_output():
        log_to_stderr()
        app = load_app(options)
        must_be_shared(app.url)
        with event_loop.leaving_threads():
            event_loop.exit_code = event_loop.run(_work(app, concurrency, grace))
            return event_loop.exit_code


async def _work(app: App, concurrency: int, grace: float) -> int:
    stop = Stop()
    stop.listen()
    names = ", ".join(app.workflows)
    listening = ", ".join(queues(app.subscriptions))
    console(stderr=True).print(
        f"detent worker: {clean(names)} on {clean(redacted(app.url))}"
        f"{f', listening to {listening}' if listening else ''}. Ctrl-C stops it.",
        soft_wrap=True,
    )
    await work(app, log_settings(), stop.event, concurrency=concurrency, grace=grace)
    return 128 + signal.SIGINT if stop.interrupted else 0
