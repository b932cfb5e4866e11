"""What a sweep of the SQLite file drops, and what it keeps."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from detent_infra.ports import Backend, LogLine, LogQuery
from detent_infra.sqlite import sqlite_backend
from detent_infra.sqlite.retention import KEEP_PAGES
from detent_state_machine import keys
from detent_state_machine.errors import DetentError
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Item, Key, PutItem, UpdateItem

DAY = 86_400
KEY = Key("run#1", "step#charge")


class Clock:
    """Milliseconds; a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now

    def add(self, seconds: int) -> None:
        self.now += seconds * 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dated(file: Path, clock: Clock) -> Iterator[Backend]:
    with closing(sqlite_backend(file, clock=clock)) as backend:
        yield backend


def test_a_sweep_drops_what_is_past_its_expiry_with_the_logs_of_its_run(dated: Backend, clock: Clock) -> None:
    expires = clock() // 1000 + DAY
    items: dict[Key, Item] = {
        keys.run_key("old"): {"expires": expires},
        keys.step_key("old", StepPath("charge")): {"expires": expires},
        keys.run_key("live"): {"status": "RUNNING"},
        keys.step_key("live", StepPath("charge")): {"expires": expires},
        keys.run_key("kept"): {"expires": expires + 10},
    }

    async def scenario() -> None:
        await dated.table.transact([PutItem(key, item) for key, item in items.items()])
        await dated.table.write(UpdateItem(keys.run_key("kept"), None, {"status": "COMPLETED"}))
        await dated.logs.append([LogLine(clock(), "INFO", "hello", run) for run in ("old", "live", "kept")])
        await dated.sweep()
        assert None not in await dated.table.get_many(list(items))
        clock.add(DAY + 5)
        await dated.sweep()
        assert [item is not None for item in await dated.table.get_many(list(items))] == [
            False,
            False,
            True,
            False,
            True,
        ]
        assert [len((await dated.logs.read(LogQuery(runs=(run,)))).lines) for run in ("old", "live", "kept")] == [
            0,
            1,
            1,
        ]

    asyncio.run(scenario())


def test_who_reads_on_after_a_sweep_of_the_newest_lines_misses_none(dated: Backend, file: Path, clock: Clock) -> None:
    async def says(run: str, *texts: str) -> None:
        await dated.logs.append([LogLine(clock(), "INFO", text, run) for text in texts])

    async def scenario() -> None:
        await says("live", "a")
        for round in range(3):
            old = f"old{round}"
            await dated.table.write(PutItem(keys.run_key(old), {"expires": clock() // 1000 + DAY}))
            await says(old, "b", "c")
            before = await dated.logs.read(LogQuery())
            clock.add(DAY + 5)
            await dated.sweep()
            await says("live", "d")
            assert [line.message for line in (await dated.logs.read(LogQuery(), after=before.next)).lines] == ["d"]
            assert (await dated.logs.read(LogQuery(runs=(old,)))).lines == ()

    asyncio.run(scenario())
    with closing(sqlite3.connect(file)) as connection:
        left = connection.execute("SELECT count(*) FROM logs WHERE run_id != 'live'").fetchone()
        assert left == (1,), "nothing of what was swept stays, but the last number that was given"


def test_an_expiry_that_was_removed_holds_no_more(dated: Backend, clock: Clock) -> None:
    asyncio.run(dated.table.write(PutItem(KEY, {"expires": clock() // 1000})))
    asyncio.run(dated.table.write(UpdateItem(KEY, remove=("expires",))))
    clock.add(DAY)
    asyncio.run(dated.sweep())
    assert asyncio.run(dated.table.get(KEY)) == {}


def test_a_sweep_drops_old_payloads_that_nothing_refers_to(dated: Backend, clock: Clock) -> None:
    async def kept(*refs: str) -> list[bool]:
        async def is_kept(ref: str) -> bool:
            try:
                return bool(await dated.blobs.get(ref))
            except DetentError:
                return False

        return [await is_kept(ref) for ref in refs]

    async def scenario() -> None:
        used, unused, renewed = [await dated.blobs.put(data) for data in (b"used", b"unused", b"renewed")]
        expires = clock() // 1000 + 3 * DAY
        await dated.table.write(PutItem(KEY, {"output_ref": used, "expires": expires}))
        clock.add(DAY - 10)
        await dated.sweep()
        assert await kept(used, unused, renewed) == [True, True, True]
        await dated.blobs.put(b"renewed")
        clock.add(20)
        await dated.sweep()
        assert await kept(used, unused, renewed) == [True, False, True]
        clock.add(DAY)
        await dated.sweep()
        assert await kept(used, renewed) == [True, False]
        clock.add(2 * DAY)
        await dated.sweep()
        assert await dated.table.get(KEY) is None
        clock.add(DAY + 1)
        await dated.sweep()
        assert await kept(used) == [False]

    asyncio.run(scenario())


def test_a_sweep_disturbs_no_writer(dated: Backend, clock: Clock) -> None:
    async def write(n: int) -> None:
        for m in range(20):
            await dated.table.write(PutItem(Key(f"p{n}", str(m)), {"n": m}))

    async def scenario() -> None:
        old = clock() // 1000 - 1
        await asyncio.gather(*(dated.table.write(PutItem(Key("old", str(n)), {"expires": old})) for n in range(1500)))
        await asyncio.gather(dated.sweep(), *(write(n) for n in range(20)))
        assert (await dated.table.query("old")).items == ()
        assert [len((await dated.table.query(f"p{n}")).items) for n in range(20)] == [20] * 20

    asyncio.run(scenario())


def filled_and_swept(file: Path, clock: Clock) -> tuple[int, int]:
    """Bytes of the file when it holds many expired items, and after a sweep."""
    expires = clock() // 1000 + DAY

    async def scenario(backend: Backend) -> None:
        for first in range(0, 300, 100):
            keys_of = [Key(f"run#{first + n}", "step#s") for n in range(100)]
            await backend.table.transact(
                [PutItem(key, {"output": "x" * 30_000, "expires": expires}) for key in keys_of]
            )

    async def sweep(backend: Backend) -> None:
        await backend.sweep()
        assert await backend.table.get(Key("run#299", "step#s")) is None

    with closing(sqlite_backend(file, clock=clock)) as backend:
        asyncio.run(scenario(backend))
    before = file.stat().st_size
    with closing(sqlite_backend(file, clock=clock)) as backend:
        clock.add(2 * DAY)
        asyncio.run(sweep(backend))
    return before, file.stat().st_size


def test_a_sweep_gives_free_pages_back_but_for_some_that_will_be_used(file: Path, clock: Clock) -> None:
    before, after = filled_and_swept(file, clock)
    assert before > 9_000_000
    assert KEEP_PAGES * 4096 <= after < KEEP_PAGES * 4096 + 1_000_000


def test_a_file_that_cannot_give_pages_back_is_swept_and_keeps_its_size(file: Path, clock: Clock) -> None:
    with closing(sqlite_backend(file)):
        pass
    with closing(sqlite3.connect(file)) as connection:  # as an early detent made it
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    before, after = filled_and_swept(file, clock)
    assert after == before
