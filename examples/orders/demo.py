"""Runs every order of the CSV as a durable workflow, and checks the books.

    python -m examples.orders.demo [--limit N] [--url URL] [--fresh]

Kill it at any moment, with `kill -9` too, and start it again: it goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from detent import Client, ConfigurationError, DetentError, StepInfo
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from examples.orders import summary
from examples.orders.app import Line, app, orders
from examples.orders.books import Books, read_books, read_runs, read_steps
from examples.orders.lines import read_lines
from examples.orders.outside import OUTBOX

DEFAULT_URL = "sqlite:///.detent/orders.db"
CHUNK = 250
"""Orders started in one go; the worker and the progress bar get their turn in between."""
LOOK_EVERY = 0.25
"""Seconds between two looks at the runs."""
LOOK_AHEAD = 100
"""Live runs that a look passes by before it stops: as many as the worker drives at once."""
QUIET = 2.0
"""Seconds without an ended run after which the bar says what it waits for."""


@dataclass
class Watch:
    """Follows runs to their ends in the store, by a few looks at a time.

    Runs end about in the order they were started, so a look goes from the oldest on. One that was overtaken (it waits
    for a retry, behind all that was queued before) stands aside, so that it does not hide those behind it.
    """

    client: Client
    live: deque[str] = field(default_factory=deque[str])
    overtaken: deque[str] = field(default_factory=deque[str])
    ended: dict[str, Mapping[str, StepInfo]] = field(default_factory=dict[str, Mapping[str, StepInfo]])
    attempts: int = 0

    async def look(self) -> None:
        for _ in range(min(LOOK_AHEAD, len(self.overtaken))):
            run_id = self.overtaken.popleft()
            if not await self.has_ended(run_id):
                self.overtaken.append(run_id)
        passed: list[str] = []
        while self.live and len(passed) < LOOK_AHEAD:
            run_id = self.live.popleft()
            if await self.has_ended(run_id):
                self.overtaken.extend(passed)
                passed.clear()
            else:
                passed.append(run_id)
        self.live.extendleft(reversed(passed))

    async def has_ended(self, run_id: str) -> bool:
        """Reads the steps of a run that has."""
        if (await self.client.handle(run_id).astatus()).live:
            return False
        self.ended[run_id] = steps = await read_steps(self.client, run_id)
        self.attempts += summary.attempts(steps.values())
        return True


async def work_through(lines: Sequence[Line], watch: Watch, progress: Progress) -> None:
    """Starts the lines and works on them here, in this event loop, until each run has ended, those watched too."""
    stop = asyncio.Event()
    worker = asyncio.create_task(app.work(stop))
    follower = asyncio.create_task(_start_and_follow(lines, watch, progress))
    try:
        await asyncio.wait({worker, follower}, return_when=asyncio.FIRST_COMPLETED)
        await (follower if follower.done() else worker)
    finally:
        follower.cancel()
        stop.set()
        await asyncio.gather(worker, follower, return_exceptions=True)


async def _start_and_follow(lines: Sequence[Line], watch: Watch, progress: Progress) -> None:
    began = newest = time.monotonic()
    total = len(watch.live) + len(lines)
    task = progress.add_task("orders", total=total, rate="")
    already, before, started = len(watch.ended), watch.attempts, 0
    while (done := len(watch.ended) - already) < total:
        if started < len(lines):
            chunk = lines[started : started + CHUNK]
            watch.live += [handle.id for handle in await orders.astart_many(chunk, key=lambda line: line.key)]
            started += len(chunk)
        else:
            await asyncio.sleep(LOOK_EVERY)
        now = time.monotonic()
        await watch.look()
        if len(watch.ended) - already > done:
            newest = now
        rate = f"{(watch.attempts - before) / (now - began):,.0f} steps/s"
        if now - newest > QUIET:
            rate = f"waiting: {total - done:,} runs are due for a retry, or their worker died (its lease is 10 s)"
        progress.update(task, completed=len(watch.ended) - already, rate=rate)


async def demo(limit: int | None, console: Console) -> Books:
    """Works on what is not done yet of the first `limit` orders, and returns their books, read back from the store."""
    everything = read_lines()
    lines, watch = everything[:limit], Watch(app.client)
    stored = await read_runs(app.client)
    done = [line for line in lines if line.key in stored and not stored[line.key].status.live]
    for line in done:
        await watch.has_ended(stored[line.key].run_id)
    began_at, began = datetime.now(UTC), time.monotonic()
    rest = [line for line in lines if line.key not in stored or stored[line.key].status.live]
    begun = [stored[line.key] for line in rest if line.key in stored]
    summary.opening(console, total=len(lines), done=len(done), begun=len(begun))
    if rest:
        # A retry has no key of its own to start it by.
        watch.live += [run.run_id for run in begun if run.origin is not None]
        first = [line for line in rest if line.key not in stored or stored[line.key].origin is None]
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            await work_through(first, watch, progress)
    elapsed = time.monotonic() - began
    books = await read_books(app.client, lines, everything, watch.ended)
    if rest:
        summary.pace(console, attempts=summary.attempts(books.step_runs(), since=began_at), seconds=elapsed)
    return books


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the books balance, 1 if they do not, 2 if the demo could not run, 130 if it was stopped."""
    options = _options(arguments)
    console = Console()
    app.url = options.url
    file = _database(options.url)
    try:
        if options.fresh:
            _remove(file, options.url)
        if file is not None:
            os.environ.setdefault(OUTBOX, str(_outbox(file)))
        books = asyncio.run(demo(options.limit, console))
    except DetentError as error:
        console.print(f"error: {error}", style="red", highlight=False)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped. Nothing is lost: the same command goes on from here.")
        return 130
    summary.print_books(console, books)
    if summary.print_problems(console, list(books.problems())):
        return 1
    summary.print_next(console, books, options.url, file)
    return 0


@dataclass(frozen=True, slots=True)
class _Options:
    url: str
    limit: int | None
    fresh: bool


def _options(arguments: Sequence[str] | None) -> _Options:
    parser = argparse.ArgumentParser(
        prog="python -m examples.orders.demo",
        description="Runs 6,919 real orders as durable workflows, and checks the books to the cent.",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N orders (default: all)")
    parser.add_argument("--url", default=DEFAULT_URL, help="where the workflows live (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="delete the embedded database first")
    given = parser.parse_args(arguments)
    return _Options(url=given.url, limit=given.limit, fresh=given.fresh)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of orders")
    return int(text)


def _database(url: str) -> Path | None:
    """The file behind an embedded store's URL."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _outbox(file: Path) -> Path:
    return file.with_name(f"{file.stem}-mail.txt")


def _remove(file: Path | None, url: str) -> None:
    if file is None:
        raise ConfigurationError(f"--fresh deletes an embedded database, and {url} is none.", advice="Leave it out.")
    for path in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm"), _outbox(file)):
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
