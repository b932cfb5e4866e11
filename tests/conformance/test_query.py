"""What the table port promises of queries, by partition and by index: order, ranges, pages."""

from __future__ import annotations

import asyncio

import pytest
from detent_infra.ports import Backend, Page, Table
from detent_state_machine.records import INDEXED
from detent_state_machine.writes import DeleteItem, Item, Key, PutItem, UpdateItem, Value

KEY = Key("run#1", "step#charge")
RUNNING: Item = {"status": "RUNNING", "owner": "A", "lease": 100, "inline": True}


async def stored(table: Table, *items: tuple[Key, Item]) -> None:
    for key, item in items:
        await table.write(PutItem(key, item))


# ---- queries ------------------------------------------------------------------------------------------------

NAMES = [
    "a",
    "a#",
    "a#1",
    "a#10",
    "a#2",
    "a/b",
    "aa",
    "b",
    "b\t",
    "b\x01",
    "b ",
    "é",
    "ÿ",
    "\u2028",
    "\uffee",
    "😀",
    "~",
]
ORDERED = sorted(NAMES, key=lambda name: name.encode())


async def every_page(table: Table, pk: str, *, limit: int, forward: bool = True, start: str = "") -> list[list[str]]:
    pages: list[list[str]] = []
    page = await table.query(pk, limit=limit, forward=forward, start=start)
    pages.append([key.sk for key, _ in page.items])
    while page.next is not None:
        page = await table.query(pk, limit=limit, forward=forward, start=start, after=page.next)
        pages.append([key.sk for key, _ in page.items])
    return pages


def found(page: Page) -> list[str]:
    return [key.sk for key, _ in page.items]


def test_a_query_returns_one_partition_in_the_order_of_the_bytes_of_its_sort_keys(backend: Backend) -> None:
    async def scenario() -> None:
        await stored(backend.table, *((Key("p", name), {"name": name}) for name in NAMES))
        await stored(backend.table, (Key("p2", "x"), {}), (Key("P", "x"), {}))
        page = await backend.table.query("p")
        assert page == Page(tuple((Key("p", name), {"name": name}) for name in ORDERED))
        assert found(await backend.table.query("p", forward=False)) == ORDERED[::-1]
        assert await backend.table.query("nobody") == Page(())

    asyncio.run(scenario())


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize(
    ("start", "end"),
    [("a#", "a$"), ("a#1", "a#2"), ("", "a#1"), ("b", None), ("a#11", "b\x00"), ("b", "b"), ("c", "b"), ("é", "😀")],
)
def test_a_range_includes_its_start_and_not_its_end(
    backend: Backend, start: str, end: str | None, forward: bool
) -> None:
    low, high = start.encode(), None if end is None else end.encode()
    expected = [name for name in ORDERED if low <= name.encode() and (high is None or name.encode() < high)]

    async def scenario() -> None:
        await stored(backend.table, *((Key("p", name), {}) for name in NAMES))
        page = await backend.table.query("p", start=start, end=end, forward=forward)
        assert found(page) == (expected if forward else expected[::-1])
        assert page.next is None

    asyncio.run(scenario())


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", [1, 4, 16, 17, 18])
def test_pages_together_hold_every_item_once_and_no_page_is_too_long(
    backend: Backend, limit: int, forward: bool
) -> None:
    async def scenario() -> list[list[str]]:
        await stored(backend.table, *((Key("p", name), {}) for name in NAMES))
        return await every_page(backend.table, "p", limit=limit, forward=forward)

    pages = asyncio.run(scenario())
    assert [name for page in pages for name in page] == (ORDERED if forward else ORDERED[::-1])
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 0 < len(pages[-1]) <= limit


@pytest.mark.parametrize("forward", [True, False])
def test_pages_stay_within_their_range(backend: Backend, forward: bool) -> None:
    async def scenario() -> None:
        await stored(backend.table, *((Key("p", f"{n:02}"), {}) for n in range(20)))
        seen: list[str] = []
        after: str | None = None
        while True:
            page = await backend.table.query("p", start="05", end="15", forward=forward, limit=4, after=after)
            seen += found(page)
            if (after := page.next) is None:
                break
        assert seen == [f"{n:02}" for n in (range(5, 15) if forward else range(14, 4, -1))]

    asyncio.run(scenario())


def test_a_page_goes_on_where_it_ended_though_that_item_was_deleted_since(backend: Backend) -> None:
    async def scenario() -> None:
        await stored(backend.table, *((Key("p", name), {}) for name in "abcd"))
        for forward, rest in ((True, ["c", "d"]), (False, ["b", "a"])):
            page = await backend.table.query("p", limit=2, forward=forward)
            last = page.items[-1][0]
            await backend.table.write(DeleteItem(last))
            assert found(await backend.table.query("p", limit=9, forward=forward, after=page.next)) == rest
            await backend.table.write(PutItem(last, {}))

    asyncio.run(scenario())


# ---- the index ----------------------------------------------------------------------------------------------


def run_item(workflow: str, number: int, **more: Value) -> Item:
    return {"ipk": f"runs#0#{workflow}", "isk": f"live#{number:03}", "workflow": workflow, "created": number, **more}


async def listed(table: Table, ipk: str, *, start: str = "", end: str | None = None, forward: bool = True) -> list[str]:
    """Sort keys of the index entries."""
    page = await table.query_index(ipk, start=start, end=end, forward=forward)
    return [str(item["isk"]) for _, item in page.items]


def test_the_index_holds_the_items_that_have_both_of_its_attributes(backend: Backend) -> None:
    async def scenario() -> None:
        await stored(
            backend.table,
            (Key("run#2", "run"), run_item("orders", 2)),
            (Key("run#1", "run"), run_item("orders", 1)),
            (Key("run#3", "run"), run_item("other", 3)),
            (Key("run#4", "run"), {"ipk": "runs#0#orders"}),
            (Key("run#5", "run"), {"isk": "live#005"}),
            (KEY, RUNNING),
        )
        assert await listed(backend.table, "runs#0#orders") == ["live#001", "live#002"]
        assert await listed(backend.table, "runs#0#orders", forward=False) == ["live#002", "live#001"]
        assert await listed(backend.table, "runs#0#orders", start="live#002") == ["live#002"]
        assert await listed(backend.table, "runs#0#orders", end="live#002") == ["live#001"]
        assert await listed(backend.table, "runs#0#nobody") == []

    asyncio.run(scenario())


def test_an_index_entry_has_the_key_and_the_listed_attributes_only(backend: Backend) -> None:
    item = run_item("orders", 1, status="RUNNING", version="v1", metadata="{}", key="A-17", ended=5, input="x" * 500)

    async def scenario() -> None:
        await backend.table.write(PutItem(Key("run#1", "run"), item))
        page = await backend.table.query_index("runs#0#orders")
        assert page.items == ((Key("run#1", "run"), {name: item[name] for name in INDEXED if name in item}),)
        assert "input" not in page.items[0][1]

    asyncio.run(scenario())


def test_the_index_follows_its_attributes(backend: Backend) -> None:
    key, table = Key("run#1", "run"), backend.table

    async def scenario() -> None:
        await table.write(PutItem(key, run_item("orders", 1)))
        await table.write(UpdateItem(key, None, {"isk": "ended#001", "status": "COMPLETED"}))
        assert await listed(table, "runs#0#orders") == ["ended#001"]
        await table.write(UpdateItem(key, None, {"ipk": "runs#1#orders"}))
        assert await listed(table, "runs#0#orders") == []
        assert await listed(table, "runs#1#orders") == ["ended#001"]
        await table.write(UpdateItem(key, remove=("isk",)))
        assert await listed(table, "runs#1#orders") == []
        await table.transact([UpdateItem(key, None, {"isk": "live#009"})])
        assert await listed(table, "runs#1#orders") == ["live#009"]
        await table.write(DeleteItem(key))
        assert await listed(table, "runs#1#orders") == []

    asyncio.run(scenario())


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 10, 11])
def test_pages_of_the_index_together_hold_every_entry_once(backend: Backend, limit: int, forward: bool) -> None:
    async def scenario() -> None:
        await stored(backend.table, *((Key(f"run#{n}", "run"), run_item("orders", n)) for n in range(12)))
        seen: list[Value] = []
        after: str | None = None
        while True:
            page = await backend.table.query_index(
                "runs#0#orders", start="live#001", end="live#011", limit=limit, forward=forward, after=after
            )
            assert len(page.items) <= limit
            seen += [item["created"] for _, item in page.items]
            if (after := page.next) is None:
                break
        assert seen == (list(range(1, 11)) if forward else list(range(10, 0, -1)))

    asyncio.run(scenario())
