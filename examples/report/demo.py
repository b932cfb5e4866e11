"""Makes the report on the penguins, and says where it is.

python -m examples.report.demo [--html FILE] [--url URL]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from detent import DetentError, RunHandle

from examples.report.app import app, report
from examples.report.penguins import Request

DATA = Path(__file__).parent / "data" / "penguins.csv"
DEFAULT_URL = "sqlite:///.detent/report.db"
DEFAULT_PAGE = ".detent/penguins.html"
LIMIT = 60.0
"""Seconds to wait for the page."""


async def make(request: Request) -> tuple[RunHandle[str], str]:
    """Runs the workflow with a worker in this event loop; the run and the page's path."""
    stop = asyncio.Event()
    worker = asyncio.create_task(app.work(stop))
    try:
        run = await report.astart(request)
        return run, await run.aresult(LIMIT)
    finally:
        stop.set()
        await worker


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the page was written, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m examples.report.demo", description="Makes a report on penguins.")
    parser.add_argument("--html", default=DEFAULT_PAGE, metavar="FILE", help="the page (default: %(default)s)")
    parser.add_argument("--url", default=DEFAULT_URL, help="where the workflow lives (default: %(default)s)")
    parser.add_argument("--csv", default=str(DATA), metavar="FILE", help="another table of penguins")
    given = parser.parse_args(arguments)
    app.url = given.url
    try:
        # Absolute paths, since a run may be worked on elsewhere than where it was started.
        run, page = asyncio.run(
            make(Request(csv=str(Path(given.csv).absolute()), html=str(Path(given.html).absolute())))
        )
    except (DetentError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Run {run.id} wrote {page}")
    print(f"Open it: {Path(page).as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
