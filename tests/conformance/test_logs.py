"""What the logs port promises: a run's lines in order of time, filtered, and readable on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from detent_infra.ports import Backend, LogLine, LogPage, Logs
from detent_state_machine.errors import InputError


def lines_of(backend: Backend, run_id: str, *messages: str, level: str = "INFO") -> list[LogLine]:
    """Lines a millisecond apart, ending about now: CloudWatch refuses old ones."""
    began = backend.clock() - 1000
    return [LogLine(began + n, level, message, run_id, "charge", 1) for n, message in enumerate(messages)]


async def read_all(logs: Logs, run_id: str, *, limit: int = 1000, pattern: str = "", since: int = 0) -> list[LogLine]:
    """Reads on until a few pages in a row are empty, as a follower would."""
    found: list[LogLine] = []
    after: str | None = None
    empty = 0
    while empty < 3:
        page = await logs.read(run_id, pattern=pattern, since=since, limit=limit, after=after)
        assert len(page.lines) <= limit
        found += page.lines
        empty = 0 if page.lines else empty + 1
        after = page.next
    return found


def messages(lines: Sequence[LogLine]) -> list[str]:
    return [line.message for line in lines]


def test_a_line_comes_back_as_it_was_written(backend: Backend) -> None:
    fields = json.dumps({"order": "A-17", "total": 12.5, "items": [1, {"sku": "é 😀"}], "none": None})
    line = LogLine(backend.clock(), "WARNING", 'card "refused"\n\ttwice', "run1", "load[17]", 3, fields)

    async def scenario() -> LogPage:
        await backend.logs.append([line])
        return await backend.logs.read("run1")

    (found,) = asyncio.run(scenario()).lines
    assert json.loads(found.fields) == json.loads(fields)
    assert (found.time, found.level, found.message, found.run_id, found.path, found.attempt) == (
        line.time,
        line.level,
        line.message,
        line.run_id,
        line.path,
        line.attempt,
    )


def test_a_run_has_its_own_lines_only_in_order_of_time(backend: Backend) -> None:
    one, two = lines_of(backend, "run1", "a", "b", "c"), lines_of(backend, "run2", "x", "y")

    async def scenario() -> None:
        await backend.logs.append([one[1], two[0]])
        await backend.logs.append([one[0], two[1], one[2]])
        assert messages((await backend.logs.read("run1")).lines) == ["a", "b", "c"]
        assert messages((await backend.logs.read("run2")).lines) == ["x", "y"]
        assert (await backend.logs.read("run")).lines == ()

    asyncio.run(scenario())


def test_appending_nothing_is_fine(backend: Backend) -> None:
    asyncio.run(backend.logs.append([]))


def test_a_pattern_chooses_lines(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.logs.append(lines_of(backend, "run1", "charged", "card refused", "shipped"))
        await backend.logs.append(lines_of(backend, "run1", "out of stock", level="ERROR"))
        assert messages(await read_all(backend.logs, "run1", pattern="refused")) == ["card refused"]
        assert messages(await read_all(backend.logs, "run1", pattern='{ $.level = "ERROR" }')) == ["out of stock"]
        assert messages(await read_all(backend.logs, "run1", pattern="nowhere")) == []

    asyncio.run(scenario())


def test_a_pattern_that_is_none_is_refused(backend: Backend) -> None:
    with pytest.raises(InputError):
        asyncio.run(backend.logs.read("run1", pattern="{ $.level = "))


def test_lines_before_a_time_are_left_out(backend: Backend) -> None:
    lines = lines_of(backend, "run1", "a", "b", "c")

    async def scenario() -> None:
        await backend.logs.append(lines)
        assert messages(await read_all(backend.logs, "run1", since=lines[1].time)) == ["b", "c"]

    asyncio.run(scenario())


def test_pages_together_hold_every_matching_line_once(backend: Backend, adapter: str) -> None:
    if adapter == "service":
        pytest.skip("ministack's FilterLogEvents answers with one page and no token for the next")
    texts = [f"{'even' if n % 2 == 0 else 'odd'} {n:02}" for n in range(25)]

    async def scenario() -> None:
        await backend.logs.append(lines_of(backend, "run1", *texts))
        assert messages(await read_all(backend.logs, "run1", limit=4)) == texts
        assert messages(await read_all(backend.logs, "run1", limit=4, pattern="odd")) == texts[1::2]

    asyncio.run(scenario())


def test_a_follower_reads_what_was_written_since(backend: Backend) -> None:
    async def scenario() -> None:
        first = await backend.logs.read("run1")
        assert first.lines == ()
        seen: list[str] = []
        after = first.next
        for text in ("a", "b", "c"):
            await backend.logs.append([LogLine(backend.clock(), "INFO", text, "run1")])
            page = await backend.logs.read("run1", after=after)
            seen += messages(page.lines)
            after = page.next
        assert seen == ["a", "b", "c"]
        assert (await backend.logs.read("run1", after=after)).lines == ()

    asyncio.run(scenario())
