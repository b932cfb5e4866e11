"""A power cut on the embedded backend: the end of the write-ahead log is missing, or is not what was written.

SQLite promises that what was acknowledged is on disk, as far as the disk keeps its word. What a cut may damage is the
log's end, which nobody was told of. So here a copy of the files is damaged at any place: what is lost must be the
latest writes, whole ones, and the rest must go on working.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from detent import App, Context, Update
from detent.testing import Harness
from detent_infra.ports import Backend, Timing
from detent_infra.sqlite import sqlite_backend
from detent_state_machine.writes import Key, PutItem
from hypothesis import given, settings
from hypothesis import strategies as st

BEFORE, AFTER = 40, 60
"""Transactions that are copied into the file, and those that are only in the log."""
FAST = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=1.0, visibility=1.0)
DAMAGES = ("cut", "zeroed", "noise", "one bit")


def damage(log: Path, at: int, how: str) -> None:
    data = bytearray(log.read_bytes())
    match how:
        case "cut":
            del data[at:]
        case "zeroed":
            data[at:] = bytes(len(data) - at)
        case "noise":
            data[at:] = random.Random(at).randbytes(len(data) - at)
        case _:
            if at < len(data):
                data[at] ^= 1 << at % 8
    log.write_bytes(data)


def wal(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


def copied(file: Path, folder: Path) -> Path:
    """The two files as a power cut leaves them. The file first: a log that is longer than it was then does no harm."""
    folder.mkdir()
    shutil.copy(file, folder / file.name)
    shutil.copy(wal(file), wal(folder / file.name))
    return folder / file.name


def checkpoint(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        assert busy == 0


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a backend that was never closed, with transactions one after the other."""
    file = tmp_path_factory.mktemp("power") / "detent.db"

    async def write(backend: Backend, numbers: range) -> None:
        for n in numbers:
            await backend.table.transact(
                [PutItem(Key("p", f"{n:03}a"), {"n": n}), PutItem(Key("p", f"{n:03}b"), {"n": n})]
            )
            await backend.queue.send([str(n)])

    async def scenario(backend: Backend) -> Path:
        await write(backend, range(BEFORE))
        checkpoint(file)
        await write(backend, range(BEFORE, BEFORE + AFTER))
        return copied(file, file.parent / "at the cut")

    with closing(sqlite_backend(file)) as backend:
        return asyncio.run(scenario(backend))


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1), how=st.sampled_from(DAMAGES))
def test_what_a_damaged_log_loses_is_its_latest_writes_and_never_half_of_one(
    written: Path, tmp_path_factory: pytest.TempPathFactory, where: float, how: str
) -> None:
    file = copied(written, tmp_path_factory.mktemp("cut") / "copy")
    damage(wal(file), int(where * wal(file).stat().st_size), how)

    async def scenario(backend: Backend) -> None:
        keys = [key.sk for key, _ in (await backend.table.query("p", limit=1000)).items]
        count = len(keys) // 2
        assert keys == [f"{n:03}{half}" for n in range(count) for half in "ab"], "whole transactions, from the first on"
        assert count >= BEFORE, "what was in the file before the cut is there"
        bodies: list[int] = []
        while found := await backend.queue.receive(10, wait=0, visibility=30):
            bodies += [int(message.body) for message in found]
        assert sorted(bodies) in (list(range(count)), list(range(count - 1))), "messages follow their transactions"
        assert await backend.table.write(PutItem(Key("p", "new"), {"n": 1})) == {"n": 1}

    with closing(sqlite_backend(file)) as backend:
        asyncio.run(scenario(backend))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_log_that_is_whole_loses_nothing(written: Path, tmp_path: Path) -> None:
    file = copied(written, tmp_path / "copy")
    with closing(sqlite_backend(file)) as backend:
        page = asyncio.run(backend.table.query("p", limit=1000))
    assert len(page.items) == 2 * (BEFORE + AFTER)


def test_a_log_that_is_gone_loses_what_was_only_there(written: Path, tmp_path: Path) -> None:
    file = copied(written, tmp_path / "copy")
    wal(file).unlink()
    with closing(sqlite_backend(file)) as backend:
        page = asyncio.run(backend.table.query("p", limit=1000))
    assert len(page.items) == 2 * BEFORE


# ---- runs ---------------------------------------------------------------------------------------------------------

RUNS = 30


def counting_app() -> App:
    app = App("counting", url="memory://")
    flow = app.workflow("count", input=int, output=int)

    @flow.step(delivery="exactly_once")
    async def charge(n: int, *, ctx: Context) -> int:
        await asyncio.sleep(0.3 if n >= RUNS - 5 else 0.005)
        ctx.commit(Update("effects", f"{n}", add={"times": 1, "amount": n}))
        return n

    @flow.step
    async def left(n: int = charge.output) -> int:
        await asyncio.sleep(0.02)
        return n + 1

    @flow.step
    async def right(n: int = charge.output) -> int:
        return n + 2

    @flow.step(delivery="exactly_once")
    async def book(a: int = left.output, b: int = right.output, *, ctx: Context) -> int:
        ctx.commit(Update("effects", f"{a - 1}", add={"times": 1, "amount": 1000}))
        return a + b

    return app


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files at a moment at which some runs have ended and others are under way."""
    file = tmp_path_factory.mktemp("power runs") / "detent.db"
    app = counting_app()
    with Harness(app, backend=sqlite_backend(file, timing=FAST)) as harness:
        runs = [harness.start(app.workflows["count"], n, key=str(n)) for n in range(RUNS // 2)]
        for run in runs:
            harness.result(run, within=30)
        later = [harness.start(app.workflows["count"], n, key=str(n)) for n in range(RUNS // 2, RUNS)]
        harness.advance(0.01)
        # The latest first: on a machine that is slow it is under way, and not for long.
        records = [record for run in reversed(later) for record in harness.steps(run).values()]
        assert len({record.status for record in records}) > 1, "some steps are done, others under way"
        return copied(file, file.parent / "at the cut")


@pytest.mark.parametrize("how", ["cut", "noise"])
@pytest.mark.parametrize("kept", [0.35, 0.8, 0.99])
def test_after_a_power_cut_runs_go_on_once_their_starts_are_repeated(
    under_way: Path, tmp_path: Path, kept: float, how: str
) -> None:
    """A client repeats what it got no answer to. That is also what a run needs whose record is there without its
    message: it had not been acknowledged. (The reaper would find it too, a quarter of an hour later.)"""
    file = copied(under_way, tmp_path / "copy")
    damage(wal(file), int(kept * wal(file).stat().st_size), how)
    app = counting_app()
    flow = app.workflows["count"]
    with Harness(app, backend=sqlite_backend(file, timing=FAST)) as harness:
        known = harness.wait_for(harness.client.aruns(limit=100))
        assert known
        runs = [harness.start(flow, n, key=str(n)) for n in range(RUNS)]
        assert {run.run_id for run in known} <= {run.id for run in runs}
        assert [harness.result(run, within=30) for run in runs] == [2 * n + 3 for n in range(RUNS)]
        effects = [harness.wait_for(harness.client.aread("effects", str(n))) for n in range(RUNS)]
        assert effects == [{"times": 2, "amount": n + 1000} for n in range(RUNS)]
