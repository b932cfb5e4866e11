"""What the logs port promises: a run's lines in order of time, filtered, and readable on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from detent_infra.ports import Backend, LogLine, LogPage, LogQuery, Logs
from detent_state_machine.errors import InputError


def lines_of(backend: Backend, run_id: str, *messages: str, level: str = "INFO") -> list[LogLine]:
    """Lines a millisecond apart, ending about now: CloudWatch refuses old ones."""
    began = backend.clock() - 1000
    return [LogLine(began + n, level, message, run_id, "charge", 1) for n, message in enumerate(messages)]


def of(*runs: str, **more: Any) -> LogQuery:
    return LogQuery(runs=runs, **more)


async def read_all(logs: Logs, query: LogQuery, *, limit: int = 1000) -> list[LogLine]:
    """Reads on as long as there is more."""
    found: list[LogLine] = []
    after: str | None = None
    while True:
        page = await logs.read(query, limit=limit, after=after)
        assert len(page.lines) <= limit
        found += page.lines
        after = page.next
        if not page.more:
            return found


def messages(lines: Sequence[LogLine]) -> list[str]:
    return [line.message for line in lines]


def test_a_line_comes_back_as_it_was_written(backend: Backend) -> None:
    fields = json.dumps({"order": "A-17", "total": 12.5, "items": [1, {"sku": "é 😀"}], "none": None})
    line = LogLine(backend.clock(), "WARNING", 'card "refused"\n\ttwice', "run1", "load[17]", 3, fields)

    async def scenario() -> LogPage:
        await backend.logs.append([line])
        return await backend.logs.read(of("run1"))

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
        assert messages((await backend.logs.read(of("run1"))).lines) == ["a", "b", "c"]
        assert messages((await backend.logs.read(of("run2"))).lines) == ["x", "y"]
        assert (await backend.logs.read(of("run"))).lines == ()

    asyncio.run(scenario())


def test_appending_nothing_is_fine(backend: Backend) -> None:
    asyncio.run(backend.logs.append([]))


def test_a_pattern_chooses_lines(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.logs.append(lines_of(backend, "run1", "charged", "card refused", "shipped"))
        await backend.logs.append(lines_of(backend, "run1", "out of stock", level="ERROR"))
        assert messages(await read_all(backend.logs, of("run1", pattern="refused"))) == ["card refused"]
        assert messages(await read_all(backend.logs, of("run1", pattern='{ $.level = "ERROR" }'))) == ["out of stock"]
        assert messages(await read_all(backend.logs, of("run1", pattern="nowhere"))) == []

    asyncio.run(scenario())


def test_a_pattern_that_is_none_is_refused(backend: Backend) -> None:
    with pytest.raises(InputError):
        asyncio.run(backend.logs.read(of("run1", pattern="{ $.level = ")))


def test_lines_before_a_time_are_left_out(backend: Backend) -> None:
    lines = lines_of(backend, "run1", "a", "b", "c")

    async def scenario() -> None:
        await backend.logs.append(lines)
        assert messages(await read_all(backend.logs, of("run1", since=lines[1].time))) == ["b", "c"]

    asyncio.run(scenario())


@pytest.mark.parametrize("adapter", ["memory", "sqlite"], indirect=True)
def test_lines_since_a_time_are_found_wherever_they_are_in_a_long_log(backend: Backend) -> None:
    """An hour in which 3 lines arrive each second, each up to a minute late."""
    now = backend.clock()
    texts = [LogLine(now - n * 333 - n * 7919 % 60_000, "INFO", str(n), "run1") for n in reversed(range(10_800))]

    async def scenario() -> None:
        await backend.logs.append(texts)
        for minutes in (0, 1, 10, 30, 59, 90):
            since = now - minutes * 60_000
            found = await read_all(backend.logs, LogQuery(since=since))
            assert sorted(messages(found)) == sorted(line.message for line in texts if line.time >= since)
        assert (await backend.logs.read(LogQuery(since=now + 1))).lines == ()

    asyncio.run(scenario())


def test_pages_together_hold_every_matching_line_once(backend: Backend, adapter: str) -> None:
    if adapter == "service":
        pytest.skip("ministack's FilterLogEvents answers with one page and no token for the next")
    texts = [f"{'even' if n % 2 == 0 else 'odd'} {n:02}" for n in range(25)]

    async def scenario() -> None:
        await backend.logs.append(lines_of(backend, "run1", *texts))
        assert messages(await read_all(backend.logs, of("run1"), limit=4)) == texts
        assert messages(await read_all(backend.logs, of("run1", pattern="odd"), limit=4)) == texts[1::2]

    asyncio.run(scenario())


def test_a_follower_reads_what_was_written_since(backend: Backend) -> None:
    async def scenario() -> None:
        first = await backend.logs.read(of("run1"))
        assert first.lines == ()
        seen: list[str] = []
        after = first.next
        for text in ("a", "b", "c"):
            await backend.logs.append([LogLine(backend.clock(), "INFO", text, "run1")])
            page = await backend.logs.read(of("run1"), after=after)
            seen += messages(page.lines)
            after = page.next
        assert seen == ["a", "b", "c"]
        assert (await backend.logs.read(of("run1"), after=after)).lines == ()

    asyncio.run(scenario())


# ---- queries --------------------------------------------------------------------------------------------------------


async def stored(backend: Backend) -> int:
    """Lines of two runs and of two workflows; when the first was written."""
    began = backend.clock() - 1000
    where = [
        ("run1", "orders", "charge"),
        ("run1", "orders", "ship"),
        ("run2", "orders", "charge"),
        ("run3", "mail", "send"),
    ]
    levels = ["DEBUG", "INFO", "WARN", "ERROR"]
    lines = [
        LogLine(began + 4 * n + m, level, f"{run_id} {path} {level}", run_id, path, 1, workflow=workflow, worker="w1")
        for n, (run_id, workflow, path) in enumerate(where)
        for m, level in enumerate(levels)
    ]
    await backend.logs.append(lines)
    return began


def test_a_query_chooses_by_run_workflow_step_level_and_time(backend: Backend) -> None:
    async def scenario() -> None:
        began = await stored(backend)

        async def found(query: LogQuery) -> list[str]:
            return messages(await read_all(backend.logs, query))

        assert len(await found(LogQuery())) == 16
        assert len(await found(of("run1", "run3"))) == 12
        assert {text.split()[0] for text in await found(LogQuery(workflow="orders"))} == {"run1", "run2"}
        assert await found(of("run1", path="ship", level="WARNING")) == ["run1 ship WARN", "run1 ship ERROR"]
        assert await found(LogQuery(path="charge", level="ERROR")) == ["run1 charge ERROR", "run2 charge ERROR"]
        assert await found(of("run1", since=began + 2, until=began + 3)) == ["run1 charge WARN", "run1 charge ERROR"]
        assert await found(of("run2", workflow="mail")) == []
        assert await found(
            LogQuery(pattern='{ $.worker = w1 && $.workflow = "mail" && $.level != DEBUG }', level="INFO")
        ) == [
            "run3 send INFO",
            "run3 send WARN",
            "run3 send ERROR",
        ]

    asyncio.run(scenario())


def test_a_level_that_there_is_not_is_refused(backend: Backend) -> None:
    with pytest.raises(InputError, match="LOUD"):
        asyncio.run(backend.logs.read(of("run1", level="LOUD")))


def test_every_part_of_a_line_comes_back(backend: Backend) -> None:
    line = LogLine(
        backend.clock(),
        "WARN",
        "m",
        "run1",
        "charge",
        2,
        '{"a": 1}',
        "orders",
        "w1",
        "request-1",
        "1-a-b",
        "step_retrying",
    )

    async def scenario() -> None:
        await backend.logs.append([line])
        assert (await backend.logs.read(of("run1"))).lines == (line,)

    asyncio.run(scenario())


def test_following_gives_what_was_written_and_then_what_is_until_it_is_told_to_end(backend: Backend) -> None:
    async def scenario() -> list[str]:
        texts = ["before", "one", "two", "three"]
        query, over = of("run1", pattern="-other"), asyncio.Event()
        await backend.logs.append([LogLine(backend.clock(), "INFO", texts[0], "run1")])
        found: list[str] = []
        async with asyncio.timeout(60), aclosing(backend.logs.follow(query, over)) as pages:
            async for page in pages:
                found += messages(page.lines)
                if len(found) == len(texts):
                    over.set()
                elif page.lines:
                    new = [LogLine(backend.clock(), "INFO", text, "run1") for text in (texts[len(found)], "other")]
                    await backend.logs.append(new)
        return found

    assert asyncio.run(scenario()) == ["before", "one", "two", "three"]
