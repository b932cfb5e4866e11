"""A body kills its worker process, again and again, beside runs that did nothing: it alone fails."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing
from pathlib import Path

from detent import App, RunStatus
from detent_infra.sqlite import sqlite_backend

from tests.support.waiting import until

INNOCENT = 9


def neighbours() -> App:
    app = App("t", url="memory://")
    bad = app.workflow("bad", input=int)
    good = app.workflow("good", input=int, output=int)

    @bad.step
    def dies(n: int) -> int:
        os._exit(137)

    @good.step
    def fine(n: int) -> int:
        return n

    return app


class Restarted:
    """A worker process that is started again whenever it has died."""

    def __init__(self, app: App, file: Path) -> None:
        self._app = app
        self._file = file
        self._start()

    def _start(self) -> None:
        self._child = os.fork()
        if self._child == 0:
            try:
                self._app._stand_in = sqlite_backend(self._file)
                asyncio.run(self._app.work(asyncio.Event()))
            finally:
                os._exit(1)  # it is not to go on with the tests

    def look(self) -> None:
        if os.waitpid(self._child, os.WNOHANG)[0]:
            self._start()

    def close(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


def test_a_body_that_kills_its_worker_fails_alone(tmp_path: Path) -> None:
    app = neighbours()
    with closing(sqlite_backend(tmp_path / "detent.db")) as backend, app._on(backend):
        runs = [app.workflows["bad"].start(0), *app.workflows["good"].start_many(range(INNOCENT))]
        with closing(Restarted(app, tmp_path / "detent.db")) as worker:

            def all_ended() -> bool:
                worker.look()
                return not any(run.status().live for run in runs)

            until(all_ended)
        assert [run.status() for run in runs] == [RunStatus.FAILED, *[RunStatus.COMPLETED] * INNOCENT]
