"""Many threads, each with an event loop of its own, on one table: what the protocol's races rest on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from detent_infra.ports import Backend, Conflict
from detent_state_machine.errors import Unavailable
from detent_state_machine.writes import AnyOf, Equals, Item, Key, Missing, PutItem, UpdateItem, Write

from tests.support.waiting import PATIENCE

KEY = Key("run#1", "step#charge")

T = TypeVar("T")


def in_threads(count: int, work: Callable[[int], Coroutine[None, None, T]]) -> list[T]:
    """Runs `work(n)` in so many threads at the same moment."""
    ready = threading.Barrier(count)

    def thread(n: int) -> T:
        ready.wait(PATIENCE)
        return asyncio.run(work(n))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(thread, range(count)))


async def won(backend: Backend, write: Write) -> bool:
    try:
        await backend.table.write(write)
    except Conflict as refusal:
        if refusal.item is None:
            raise AssertionError("the loser must see who won") from refusal
        return False
    return True


@pytest.fixture
def threads(adapter: str) -> int:
    return 4 if adapter in ("aws", "service") else 12


def test_of_many_writers_of_one_missing_item_exactly_one_wins(backend: Backend, threads: int) -> None:
    async def race(n: int) -> list[bool]:
        return [await won(backend, PutItem(Key("run#1", str(round)), {"owner": n})) for round in range(10)]

    wins = in_threads(threads, race)
    assert [sum(winners) for winners in zip(*wins, strict=True)] == [1] * 10
    owners = asyncio.run(backend.table.get_many([Key("run#1", str(round)) for round in range(10)]))
    assert [item and item["owner"] for item in owners] == [
        next(n for n in range(threads) if wins[n][round]) for round in range(10)
    ]


def test_of_many_writers_that_saw_the_same_owner_exactly_one_takes_over(backend: Backend, threads: int) -> None:
    asyncio.run(backend.table.write(PutItem(KEY, {"owner": "dead"})))

    async def race(n: int) -> bool:
        return await won(backend, UpdateItem(KEY, Equals("owner", "dead"), {"owner": f"worker {n}"}))

    wins = in_threads(threads, race)
    assert sum(wins) == 1
    assert asyncio.run(backend.table.get(KEY)) == {"owner": f"worker {wins.index(True)}"}


def test_of_all_who_join_a_set_exactly_one_sees_it_complete(backend: Backend, threads: int) -> None:
    each = 5
    everyone = frozenset(range(threads * each))

    async def join(n: int) -> list[Item | None]:
        adds = [UpdateItem(KEY, add={"joined": frozenset({n * each + m})}) for m in range(each)]
        return list(await asyncio.gather(*(backend.table.write(add) for add in adds)))

    seen = [item["joined"] for items in in_threads(threads, join) for item in items if item]
    assert seen.count(everyone) == 1
    assert asyncio.run(backend.table.get(KEY)) == {"joined": everyone}


def test_additions_lose_nothing_beside_transactions_that_fail(backend: Backend, threads: int) -> None:
    other = Key("run#1", "other")
    asyncio.run(backend.table.write(PutItem(other, {"taken": True})))

    async def add(n: int) -> int:
        done = 0
        for _ in range(10):
            if n % 2 == 0:
                await persist(lambda: backend.table.write(UpdateItem(KEY, add={"n": 1})))
                done += 1
            else:
                with pytest.raises(Conflict):
                    await persist(
                        lambda: backend.table.transact([UpdateItem(KEY, add={"n": 1000}), PutItem(other, {})])
                    )
        return done

    assert asyncio.run(backend.table.get(KEY)) is None
    total = sum(in_threads(threads, add))
    assert asyncio.run(backend.table.get(KEY)) == {"n": total}


def test_transactions_on_the_same_items_happen_one_after_the_other(backend: Backend, threads: int) -> None:
    source, target = Key("data#account", "a"), Key("data#account", "b")
    asyncio.run(backend.table.transact([PutItem(source, {"left": 1000}), PutItem(target, {"left": 0})]))

    async def move(n: int) -> None:
        for _ in range(5):
            await persist(
                lambda: backend.table.transact(
                    [UpdateItem(source, add={"left": -1}), UpdateItem(target, add={"left": 1})]
                )
            )

    in_threads(threads, move)
    assert asyncio.run(backend.table.get_many([source, target])) == [
        {"left": 1000 - 5 * threads},
        {"left": 5 * threads},
    ]


def test_a_message_is_held_by_one_receiver_at_a_time(backend: Backend, threads: int) -> None:
    asyncio.run(backend.queue.send([str(n) for n in range(20)]))

    async def take(n: int) -> list[str]:
        taken: list[str] = []
        while found := await backend.queue.receive(3, wait=0, visibility=30):
            taken += [message.body for message in found]
        return taken

    assert sorted(body for bodies in in_threads(threads, take) for body in bodies) == sorted(map(str, range(20)))


def test_a_task_that_is_cancelled_takes_no_other_tasks_write_with_it(backend: Backend) -> None:
    expect = AnyOf((Missing(), Equals("owner", "A")))

    async def scenario() -> None:
        writing = [
            asyncio.create_task(backend.table.write(UpdateItem(Key("p", str(n)), expect, {"owner": "A"})))
            for n in range(20)
        ]
        await asyncio.sleep(0)
        for task in writing[::2]:
            task.cancel()
        results = await asyncio.gather(*writing, return_exceptions=True)
        assert results[1::2] == [{"owner": "A"}] * 10
        kept = await backend.table.get_many([Key("p", str(n)) for n in range(1, 20, 2)])
        assert kept == [{"owner": "A"}] * 10

    asyncio.run(scenario())


async def persist(write: Callable[[], Coroutine[None, None, T]]) -> T:
    """Tries again while others have the item, as every caller of a table does."""
    for _ in range(50):
        try:
            return await write()
        except Unavailable:
            await asyncio.sleep(0.01)
    raise AssertionError("the table stayed unavailable")
