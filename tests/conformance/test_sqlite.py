"""What only the embedded backend promises: one file, several processes, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from detent_infra.ports import Backend, Conflict
from detent_infra.sqlite import sqlite_backend
from detent_infra.sqlite.session import SqliteSession
from detent_infra.sqlite.table import SqliteTable
from detent_state_machine.errors import (
    ConfigurationError,
    CorruptRecord,
    InputError,
    NewerRecord,
    Unavailable,
)
from detent_state_machine.writes import Equals, Key, PutItem, UpdateItem

KEY = Key("run#1", "step#charge")


@pytest.fixture
def backend(file: Path) -> Iterator[Backend]:
    with closing(sqlite_backend(file)) as backend:
        yield backend


def edit(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def commits(file: Path) -> int:
    """Transactions in the write-ahead log, counted by its frames that end one (sqlite.org/fileformat2.html)."""
    log = Path(f"{file}-wal").read_bytes()
    page = int.from_bytes(log[8:12], "big")
    frames = (log[start : start + 24] for start in range(32, len(log), 24 + page))
    return sum(frame[4:8] != bytes(4) and frame[8:16] == log[16:24] for frame in frames)


# ---- opening ------------------------------------------------------------------------------------------------


def test_the_file_and_its_folders_are_created_and_found_again(file: Path) -> None:
    for expected in (None, {"n": 1}):
        with closing(sqlite_backend(file)) as backend:
            assert asyncio.run(backend.table.get(KEY)) == expected
            if expected is None:
                asyncio.run(backend.table.write(PutItem(KEY, {"n": 1})))
    assert backend.url == f"sqlite:///{file}"


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("id,total\n" * 500)
    with pytest.raises(ConfigurationError, match="not a database"):
        sqlite_backend(file)
    assert file.read_text() == "id,total\n" * 500


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "browser.db"
    edit(file, "CREATE TABLE items (x)")
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        sqlite_backend(file)
    assert file.read_bytes() == before


def test_a_database_of_a_newer_detent_is_refused(file: Path) -> None:
    sqlite_backend(file).close()
    edit(file, "PRAGMA user_version = 99")
    with pytest.raises(NewerRecord, match=r"schema 99.*Upgrade"):
        sqlite_backend(file)


@pytest.mark.parametrize("name", ["", "plain/file.db", "plain/deeper/file.db"])
def test_a_path_where_no_file_can_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(ConfigurationError):
        sqlite_backend(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError):
        sqlite_backend(tmp_path / "detent.db")


def test_a_file_that_was_replaced_while_in_use_takes_no_more_writes(file: Path, backend: Backend) -> None:
    async def scenario() -> None:
        await backend.table.write(PutItem(KEY, {"n": 1}))
        os.rename(file, file.with_suffix(".old"))  # noqa: PTH104  # a Path would be blocking, says the linter
        with pytest.raises(ConfigurationError, match="deleted or replaced"):
            await backend.table.write(PutItem(Key("p", "1"), {"n": 2}))

    asyncio.run(scenario())


def test_a_closed_backend_says_so(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.table.write(PutItem(KEY, {"n": 1}))
        waiting = asyncio.create_task(backend.queue.receive(1, wait=30, visibility=1))
        writing = asyncio.create_task(backend.table.write(PutItem(Key("p", "1"), {})))
        await asyncio.sleep(0)
        backend.close()
        for task in (waiting, writing, backend.table.get(KEY), backend.table.write(PutItem(KEY, {}))):
            with pytest.raises(Unavailable, match="closed"):
                await task

    asyncio.run(scenario())
    backend.close()
    with pytest.raises(Unavailable, match="closed"):
        asyncio.run(backend.table.get(KEY))


def test_loops_come_and_go_and_leave_no_thread_behind(backend: Backend) -> None:
    others = set(threading.enumerate())

    def committers() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if "_commit_loop" in each.name and each not in others]

    for n in range(5):
        asyncio.run(backend.table.write(PutItem(Key("p", str(n)), {})))
        assert len(committers()) == 1
    backend.close()
    assert not committers()


# ---- group commit -------------------------------------------------------------------------------------------


def test_writes_of_concurrent_tasks_share_their_commits(file: Path, backend: Backend) -> None:
    async def chain(n: int) -> None:
        for step in range(10):
            await backend.table.write(PutItem(Key(f"run#{n}", f"step#{step}"), {"n": n}))

    async def scenario() -> None:
        await backend.table.write(PutItem(KEY, {}))
        before = commits(file)
        await asyncio.gather(*(chain(n) for n in range(50)))
        assert 10 <= commits(file) - before <= 20  # 10, and a few at the edges, for 500 writes

    asyncio.run(scenario())


def test_a_conflict_in_a_batch_is_its_own_tasks_only_and_needs_no_commit(file: Path, backend: Backend) -> None:
    async def scenario() -> None:
        await backend.table.write(PutItem(KEY, {"owner": "A"}))
        first, second, third = await asyncio.gather(
            backend.table.write(UpdateItem(KEY, Equals("owner", "B"))),
            backend.table.write(PutItem(Key("p", "1"), {"n": 1})),
            backend.table.write(PutItem(KEY, {})),
            return_exceptions=True,
        )
        assert second == {"n": 1}
        assert [each.item for each in (first, third) if isinstance(each, Conflict)] == [{"owner": "A"}] * 2
        before = commits(file)
        with pytest.raises(Conflict):
            await backend.table.write(PutItem(KEY, {}))
        assert commits(file) == before

    asyncio.run(scenario())


def test_writers_of_one_batch_see_each_others_writes(backend: Backend) -> None:
    async def scenario() -> None:
        adds = [backend.table.write(UpdateItem(KEY, add={"n": 1})) for _ in range(5)]
        assert await asyncio.gather(*adds) == [{"n": n} for n in range(1, 6)]

    asyncio.run(scenario())


def test_text_that_is_no_unicode_is_refused_and_the_rest_of_its_batch_stored(backend: Backend) -> None:
    half = "\ud83d"

    async def scenario() -> None:
        results = await asyncio.gather(
            backend.table.write(PutItem(Key("p", "1"), {"n": 1})),
            backend.table.write(PutItem(Key("p", half), {"n": 2})),
            backend.table.write(PutItem(Key("p", "3"), {"text": half})),
            backend.queue.send(["a", half, "b"]),
            backend.table.write(UpdateItem(Key("p", "1"), add={"n": 1})),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [dict, InputError, InputError, InputError, dict]
        assert (await backend.table.query("p")).items == ((Key("p", "1"), {"n": 2}),)
        assert await backend.queue.receive(10, wait=0, visibility=1) == []
        with pytest.raises(InputError):
            await backend.table.get(Key("p", half))

    asyncio.run(scenario())


def test_a_lock_that_another_process_keeps_is_waited_for(file: Path, backend: Backend) -> None:
    async def scenario() -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(backend.table.write(PutItem(KEY, {"n": 1})))
            await asyncio.sleep(0.1)
            assert not writing.done()
            assert await backend.table.get(KEY) is None, "reads do not wait for writers"
            other.execute("COMMIT")
            assert await writing == {"n": 1}

    asyncio.run(scenario())


def test_a_lock_that_another_process_keeps_too_long_makes_writes_unavailable(
    file: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detent_infra.sqlite.session.LOCK_LIMIT", 0.1)

    async def scenario() -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writes = [backend.table.write(PutItem(Key("p", str(n)), {"n": n})) for n in range(3)]
            for result in await asyncio.gather(*writes, return_exceptions=True):
                assert isinstance(result, Unavailable)
                assert "try again" in str(result)
        assert await backend.table.write(PutItem(KEY, {"n": 1})) == {"n": 1}
        assert await backend.table.get(Key("p", "0")) is None

    asyncio.run(scenario())


def test_items_changed_by_hand_are_reported_and_not_guessed_at(file: Path, backend: Backend) -> None:
    asyncio.run(backend.table.write(PutItem(KEY, {"n": 1})))
    edit(file, "UPDATE items SET item = '{\"n\":'")
    reads: list[Callable[[], object]] = [
        lambda: asyncio.run(backend.table.get(KEY)),
        lambda: asyncio.run(backend.table.query(KEY.pk)),
        lambda: asyncio.run(backend.table.write(UpdateItem(KEY, add={"n": 1}))),
    ]
    for read in reads:
        with pytest.raises(CorruptRecord, match="step#charge"):
            read()


def test_a_payload_changed_by_hand_is_reported(file: Path, backend: Backend) -> None:
    refs = [asyncio.run(backend.blobs.put(data)) for data in (b"small", bytes(2_000_000))]
    edit(file, "UPDATE blobs SET data = zeroblob(length(data) - 1)")
    for ref in refs:
        with pytest.raises(CorruptRecord, match=ref):
            asyncio.run(backend.blobs.get(ref))


# ---- faults that hit a batch while others wait --------------------------------------------------------------


def test_writes_go_on_after_a_batch_that_could_not_be_stored(file: Path, backend: Backend) -> None:
    async def scenario() -> None:
        await backend.table.write(PutItem(KEY, {"n": 1}))
        edit(file, "ALTER TABLE messages RENAME TO elsewhere")
        writes = [backend.table.write(PutItem(Key("p", str(n)), {"n": n})) for n in range(1000)]
        results = await asyncio.gather(backend.queue.send(["a"]), *writes, return_exceptions=True)
        stored = {key.sk for key, _ in (await backend.table.query("p", limit=2000)).items}
        assert isinstance(results[0], Unavailable)
        assert stored == {str(n) for n, result in enumerate(results[1:]) if not isinstance(result, Unavailable)}
        assert 0 < len(stored) < 1000, "the batch with the broken statement is refused, the next one is stored"

    asyncio.run(scenario())


# ---- pages ----------------------------------------------------------------------------------------------------


class Counted:
    """Reads the file of a backend, and counts SQLite's instructions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.steps = 0
        connection.set_progress_handler(self._count, 1)

    def _count(self) -> int:
        self.steps += 1
        return 0

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        return self._connection.execute(sql, parameters).fetchall()


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("bounds", [{}, {"start": "live#0100"}, {"end": "live#1900"}])
def test_the_last_page_of_an_index_costs_what_the_first_costs(
    file: Path, forward: bool, bounds: dict[str, str]
) -> None:
    """Even where all the runs before it were created in the same millisecond."""

    async def fill() -> None:
        with closing(sqlite_backend(file)) as backend:
            entries = [{"ipk": "runs#0#w", "isk": f"live#{n // 500 * 500:04}"} for n in range(2_000)]
            puts = [PutItem(Key(f"run#{n:04}", "run"), entry) for n, entry in enumerate(entries)]
            await asyncio.gather(*(backend.table.transact(puts[at : at + 100]) for at in range(0, len(puts), 100)))

    asyncio.run(fill())
    with closing(sqlite3.connect(file)) as connection:
        counted = Counted(connection)
        table = SqliteTable(lambda: cast("SqliteSession", counted))
        costs: list[int] = []
        after: str | None = None
        while after is not None or not costs:
            before = counted.steps
            page = asyncio.run(table.query_index("runs#0#w", forward=forward, limit=50, after=after, **bounds))
            costs.append(counted.steps - before)
            after = page.next
    assert len(costs) > 20
    assert max(costs) <= 1.5 * costs[0]


# ---- a folder that is not there, and who is alone ---------------------------------------------------------------


def test_a_folder_that_cannot_be_reached_for_a_while_is_unavailable_and_the_backend_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    with closing(sqlite_backend(folder / "detent.db")) as backend:

        async def scenario() -> None:
            await backend.table.write(PutItem(Key("p", "1"), {}))
            away = folder.rename(tmp_path / "away")
            folder.symlink_to(folder)  # a loop: neither there nor gone, as with EACCES, EIO and ESTALE
            with pytest.raises(Unavailable, match="cannot be reached"):
                await backend.table.write(PutItem(Key("p", "2"), {}))
            folder.unlink()
            away.rename(folder)
            await backend.table.write(PutItem(Key("p", "3"), {}))
            assert [key.sk for key, _ in (await backend.table.query("p")).items] == ["1", "3"]

        asyncio.run(scenario())


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts what is put off."""

    put_off = 0

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        self.put_off += 1
        return super().call_later(delay, callback, *args, context=context)


def test_who_is_alone_on_a_file_never_pauses_for_others(file: Path) -> None:
    with closing(sqlite_backend(file)) as backend, asyncio.Runner(loop_factory=CountingLoop) as runner:

        async def scenario() -> None:
            for number in range(300):
                await backend.table.write(PutItem(Key("p", f"{number}"), {}))

        runner.run(scenario())
        assert cast("CountingLoop", runner.get_loop()).put_off == 0
