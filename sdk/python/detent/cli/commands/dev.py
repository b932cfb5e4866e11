"""A worker that starts afresh when the code changes.

The worker is a process of its own, since Python cannot forget a module. It watches its own source, because only it
knows what it has imported, and ends with `CHANGED`; its parent starts the next one. If the code cannot be loaded it
says why and waits for the next change.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NamedTuple, TextIO, TypeAlias, cast

import detent_infra
import detent_state_machine
import typer
from detent_infra import event_loop
from detent_infra.connect import redacted
from detent_infra.executor import Attempt
from detent_infra.logs.step_output import SteadyStream, step_output
from detent_infra.sources.triggers import queues
from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import ConfigurationError, DetentError

import detent
from detent.app import App
from detent.cli.events import Feed, RunWatch
from detent.cli.options import AppName, Concurrency, Grace, Url
from detent.cli.output import ascii_only, clean, console, local_time, one_line
from detent.cli.output import name as named
from detent.cli.project import Options, app_name, load_app, must_be_shared
from detent.cli.workers import Stop, log_to_stderr, work
from detent.client import Client
from detent.logs import log_settings
from detent.settings import DEFAULT_URL

if TYPE_CHECKING:
    from rich.console import Console

CHANGED = 75
"""Exit code of a worker whose source has changed."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the source files."""
SOON = 5.0
"""Seconds. Worker processes that end sooner, one after the other, are followed by the next after a pause."""
PAUSES = Backoff(first=LOOK_EVERY, longest=10.0)
RUNS_EVERY, RUNS_EVERY_REMOTE = 0.5, 5.0
"""Seconds between two looks at the runs: a look costs nothing here, and requests there."""

Snapshot: TypeAlias = Mapping[Path, Mapping[str, int]]
"""By directory: its Python files, and when each was changed, in nanoseconds since the epoch."""


# ---- the parent -----------------------------------------------------------------------------------------------


def dev(
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 5.0,
) -> None:
    """Work on runs, show them, and reload when the code changes."""

    raise typer.Exit(_keep_serving(Options(app, url), concurrency=concurrency, grace=grace))


def dev_worker(
    parent: Annotated[int, typer.Option()],
    ready: Annotated[str, typer.Option()],
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 5.0,
) -> None:
    """The worker inside `dev`.

    It ends with a code of its own when the source has changed.
    """

    raise typer.Exit(
        _serve_until_changed(Options(app, url), _Parent(parent, Path(ready)), concurrency=concurrency, grace=grace)
    )


def _keep_serving(options: Options, *, concurrency: int, grace: float) -> int:
    """Runs one worker after the other until a signal; returns the exit code of the last one."""
    # Without the directory that Python is started in: a `queue.py` there is the app's, and not for detent to import.
    command = [sys.executable, "-P", "-m", "detent.cli", "dev-worker"]
    command += ["--parent", str(os.getpid()), "--concurrency", str(concurrency), "--grace", str(grace)]
    command += ["--app", options.app] if options.app else []
    command += ["--url", options.url] if options.url else []
    chosen = app_name(options)
    if chosen is None:
        load_app(options)  # Raises: no change of the source would help.
    with TemporaryDirectory(prefix="detent-dev-") as folder:
        ready = Path(folder, "ready")
        return Workers([*command, "--ready", str(ready)], ready, _places(chosen.value if chosen else "")).keep()


def _places(app: str) -> set[Path]:
    """Where an app's code lies whose worker did not live long enough to say it."""
    parts = app.partition(":")[0].split(".")
    bases = (Path.cwd(), Path.cwd() / "src")
    return {base.joinpath(*parts[:depth]) for base in bases for depth in range(len(parts) + 1)}


class Workers:
    """Worker processes, one after the other. `ready` is a file that each one makes once it works on runs."""

    def __init__(self, command: Sequence[str], ready: Path, places: set[Path]) -> None:
        self._command = command
        self._ready = ready
        self._places = places
        self._worker: subprocess.Popen[bytes] | None = None
        self._told_to_stop = threading.Event()

    def keep(self) -> int:
        """Starts the next one when the code has changed, or when one is gone that nobody stopped."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._pass_on)
        ends = 0
        while True:
            self._ready.unlink(missing_ok=True)
            before, began = snapshot(self._places), time.monotonic()
            self._worker = subprocess.Popen(self._command)  # noqa: S603 - this program, with the options it was given
            code = self._worker.wait()
            if self._told_to_stop.is_set():
                return code if code >= 0 else 128 - code
            if code == CHANGED:
                continue
            lasted = time.monotonic() - began
            ends = 0 if lasted > SOON else ends + 1
            if self._ready.exists():
                _tell(f"The worker process {_ended(code)}. Starting another.")
                self._told_to_stop.wait(restart_pause(ends))
            else:
                said = "`os._exit`, or a crash of the interpreter" if code >= 0 else "by somebody, or a crash"
                _tell(f"The worker process {_ended(code)} while it loaded the app: {said}.")
                _tell("Waiting for a change of the code; Ctrl-C stops.")
                while snapshot(self._places) == before and not self._told_to_stop.wait(LOOK_EVERY):
                    pass
            if self._told_to_stop.is_set():
                return 128 + signal.SIGINT

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._told_to_stop.set()
        if self._worker is not None and self._worker.poll() is None:
            self._worker.send_signal(number)


def restart_pause(ends: int) -> float:
    """Seconds before the next worker process, after so many in a row that ended soon after their start."""
    return PAUSES.pause(ends - 1) if ends > 1 else 0.0


def _ended(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was killed ({signal.Signals(-code).name})"


def _tell(message: str) -> None:
    console(stderr=True).print(f"detent: {message}", style="yellow", soft_wrap=True)


# ---- the worker -----------------------------------------------------------------------------------------------


class _Parent(NamedTuple):
    """The process that started this worker, and the file by which it learns that the worker works on runs."""

    pid: int
    ready: Path


def _serve_until_changed(options: Options, parent: _Parent, *, concurrency: int, grace: float) -> int:
    """Works until the source changes (`CHANGED`), a signal comes, or the parent is gone; returns the exit code."""
    out = console()
    out.file = cast("TextIO", SteadyStream(sys.stdout))  # what steps print is put between its lines
    with step_output(partial(_show_printed, out)):
        log_to_stderr(steps=False)
        before = snapshot(source_directories())
        try:
            app = load_app(options)
            _must_be_local(app.url, options)
            before = {**snapshot(source_directories()), **before}
            serving = _serve(app, options, before, parent, Feed(out), concurrency, grace)
            with event_loop.leaving_threads():
                event_loop.exit_code = event_loop.run(serving)
                return event_loop.exit_code
        except DetentError as error:
            return asyncio.run(_wait_for_change(error, {**snapshot(source_directories()), **before}, parent.pid))


def _show_printed(out: Console, attempt: Attempt, line: str) -> None:
    """A line of its own for each that a step prints. From any thread."""
    from rich.text import Text

    head = f"{local_time(int(time.time() * 1000), '%H:%M:%S')} {named(attempt.run_id[-6:])}"
    bar = "|" if ascii_only(out) else "│"
    text = Text.assemble((f"{head} ", "bright_black"), named(attempt.path), (f" {bar} ", "bright_black"), clean(line))
    out.print(text, soft_wrap=True)


async def _serve(
    app: App, options: Options, before: Snapshot, parent: _Parent, feed: Feed, concurrency: int, grace: float
) -> int:
    stop = Stop()
    stop.listen()
    _greet(app, options, feed)
    parent.ready.touch()
    client = Client(app.url, backend=lambda: app.backend)
    every = RUNS_EVERY_REMOTE if app.url.startswith("aws://") else RUNS_EVERY
    changed = asyncio.create_task(_changed(before, parent.pid))
    changed.add_done_callback(lambda _: stop.event.set())
    watch = RunWatch(feed)
    watching = asyncio.create_task(watch.runs(client, every))
    try:
        await work(app, replace(log_settings(), watch=watch.line), stop.event, concurrency=concurrency, grace=grace)
    finally:
        watching.cancel()
        changed.cancel()
        await asyncio.gather(watching, changed, return_exceptions=True)
    if changed.cancelled():
        return 128 + signal.SIGINT if stop.interrupted else 0
    return _say_changed(changed.result())


async def _wait_for_change(error: DetentError, before: Snapshot, parent: int) -> int:
    stop = Stop()
    stop.listen()
    err = console(stderr=True)
    err.print(f"detent: {one_line(str(error))}", style="red", soft_wrap=True)
    err.print("Waiting for a change of the code; Ctrl-C stops.", soft_wrap=True)
    changed = asyncio.create_task(_changed(before, parent))
    stopped = asyncio.create_task(stop.event.wait())
    await asyncio.wait({changed, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if changed.done():
        return _say_changed(changed.result())
    changed.cancel()
    return 128 + signal.SIGINT if stop.interrupted else 0


async def _changed(before: Snapshot, parent: int) -> Path | None:
    """The first file that is seen to differ from `before`. None: the parent process is gone."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        if os.getppid() != parent:
            return None
        now = snapshot(source_directories() | set(before))
        for directory, files in before.items():
            for name in files.keys() | now[directory].keys():
                if files.get(name) != now[directory].get(name):
                    return directory / name
        before = now


def _say_changed(path: Path | None) -> int:
    if path is None:
        return 0
    name = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    console().print(f"{clean(str(name))} changed: starting afresh.", style="yellow", soft_wrap=True)
    return CHANGED


def _greet(app: App, options: Options, feed: Feed) -> None:
    from rich.text import Text

    out = feed.out
    out.print(
        Text.assemble(("detent dev", "bold"), f"  app {clean(app.name)!r} on {clean(redacted(app.url))}"),
        soft_wrap=True,
    )
    for name, definition in app.definitions().items():
        steps = " ".join(step.name for step in definition.steps)
        line = Text.assemble("  ", (clean(name), "bold"), (f"  {clean(steps)}", "bright_black"))
        out.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    again = options.repeated()
    for queue, workflows in queues(app.subscriptions).items():
        started = clean(", ".join(workflows))
        said = f"Listening to queue {queue}, which starts {started}: `detent send {queue} JSON{again}`."
        out.print(said, soft_wrap=True)
    out.print(f"Start a run with `detent run {next(iter(app.workflows))} JSON{again}`. Ctrl-C stops.", soft_wrap=True)


def _must_be_local(url: str, options: Options) -> None:
    """Code that is being written should not take work from a deployed stack, unless that is said."""
    must_be_shared(url)
    if url.startswith("aws://") and not options.url:
        raise ConfigurationError(
            f"This app works on {url}, and `detent dev` would take runs from its deployed workers.",
            advice=f"Pass --url {DEFAULT_URL} to work here, or --url {url} if you mean it.",
        )


# ---- source files ---------------------------------------------------------------------------------------------


def source_directories() -> set[Path]:
    """The current directory, and where the imported modules lie that are neither installed nor detent's own."""
    installed = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    installed |= {
        Path(str(package.__file__)).resolve().parent for package in (detent, detent_infra, detent_state_machine)
    }
    found = {Path.cwd()}
    for module in list(sys.modules.values()):
        file: object = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            found.add(Path(file).parent)
    return {
        path for path in found if path == Path.cwd() or not any(path.resolve().is_relative_to(i) for i in installed)
    }


def snapshot(directories: set[Path]) -> Snapshot:
    """Directories are looked at one by one, not with what is below them. One that is gone has no files."""
    return {directory: _python_files(directory) for directory in directories}


def _python_files(directory: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        for entry in os.scandir(directory):
            if entry.name.endswith(".py"):
                found[entry.name] = entry.stat().st_mtime_ns
    except OSError:
        return found  # Removed while we look, or not readable.
    return found
