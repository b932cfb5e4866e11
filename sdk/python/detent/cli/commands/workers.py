"""What works on runs."""

from __future__ import annotations

from typing import Annotated

import typer

from detent.cli.commands.options import AppName, Concurrency, Grace, Url
from detent.cli.project import Options


def dev(
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 5.0,
) -> None:
    """Work on runs, show them, and reload when the code changes."""
    from detent.cli.reload import keep_serving

    raise typer.Exit(keep_serving(Options(app, url), concurrency=concurrency, grace=grace))


def dev_worker(
    parent: Annotated[int, typer.Option()],
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 5.0,
) -> None:
    """The worker inside `dev`: ends with a code of its own when the source has changed."""
    from detent.cli.reload import serve_until_changed

    raise typer.Exit(serve_until_changed(Options(app, url), parent=parent, concurrency=concurrency, grace=grace))


def worker(
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 30.0,
) -> None:
    """Work on runs until SIGTERM or Ctrl-C.

    Steps in progress then have --grace seconds to end; what is cut off is delivered again.
    """
    from detent.cli.workers import serve

    raise typer.Exit(serve(Options(app, url), concurrency=concurrency, grace=grace))
