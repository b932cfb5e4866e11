"""Lists of runs: newest first, each run once, whatever it does meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from detent import (
    RunStatus,
)
from detent.testing import Harness
from detent_infra.ports import Page, Table
from detent_infra.relay import RelayedTable, TableCall
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.listing import RunFilter, list_runs
from detent_state_machine.keys import index_sort, run_key
from detent_state_machine.records import Payload, RunRecord
from detent_state_machine.writes import PutItem, Value

from tests.scenarios.conftest import OpenHarness
from tests.support.shop import Order, open_shop


@pytest.mark.over_the_wire
def test_runs_are_listed_newest_first_by_workflow_status_time_and_metadata(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    good = h.start(shop.orders, Order(id="a"), metadata={"team": "blue"})
    h.result(good)
    h.advance(0.02)
    bad = h.start(shop.orders, Order(id="refused"), metadata={"team": "red"})
    h.settle(bad)
    listed = h.wait_for(h.client.aruns("orders"))
    assert [(run.run_id, run.status) for run in listed] == [
        (bad.id, RunStatus.FAILED),
        (good.id, RunStatus.COMPLETED),
    ]
    assert [r.run_id for r in h.wait_for(h.client.aruns(statuses=[RunStatus.COMPLETED]))] == [good.id]
    assert [r.run_id for r in h.wait_for(h.client.aruns(metadata={"team": "red"}))] == [bad.id]
    assert [r.run_id for r in h.wait_for(h.client.aruns(limit=1))] == [bad.id]
    assert h.wait_for(h.client.aruns("nothing")) == []


_T = TypeVar("_T")


class _Meanwhile(RelayedTable):
    """Does something between two reads of the index."""

    def __init__(self, table: Table, act: Callable[[], Awaitable[object]], *, after: int) -> None:
        super().__init__(table)
        self._act = act
        self._left = after

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        answer = await act()
        if call.operation == "query_index":
            self._left -= 1
            if self._left == 0:
                await self._act()
        return answer


@pytest.mark.parametrize("after", range(1, 17))
def test_a_list_has_a_run_that_ends_while_it_is_made_and_has_it_once(after: int) -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        runs = [h.start(shop.orders, Order(id=f"o{n}")) for n in range(3)]
        table = _Meanwhile(h.backend.table, runs[1].acancel, after=after)
        listed = h.wait_for(Lifecycle(replace(h.backend, table=table)).list())
        assert sorted(run.run_id for run in listed) == sorted(run.id for run in runs)


# ---- of many, a few -------------------------------------------------------------------------------------------


class _Counted(RelayedTable):
    """Counts the entries of the index that are read."""

    entries = 0

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        answer = await act()
        if isinstance(answer, Page):
            self.entries += len(answer.items)
        return answer


def _ended(number: int, status: RunStatus, *, part: str | None = None) -> PutItem:
    """A run as it is stored; `part` of the index, if an older detent ended it."""
    record = RunRecord(f"run-{number:04}", "orders", "v", status, 1_000 + number, Payload("1"), ended=2_000 + number)
    item: dict[str, Value] = {**record.to_item(), "ended": 2_000 + number}
    if part is not None:
        item["isk"] = index_sort(part, created=record.created, run_id=record.run_id)
    return PutItem(run_key(record.run_id), item)


def test_finding_a_rare_status_reads_what_has_it_and_not_what_has_not() -> None:
    with Harness(open_shop().app) as h:
        runs = [_ended(n, RunStatus.FAILED if n % 200 == 7 else RunStatus.COMPLETED) for n in range(400)]
        for run in runs:
            h.wait_for(h.backend.table.write(run))
        table = _Counted(h.backend.table)
        listing = RunFilter(["orders"], [RunStatus.FAILED])
        found = h.wait_for(list_runs(replace(h.backend, table=table), listing, 20))
        assert [run.run_id for run in found.runs] == ["run-0207", "run-0007"]
        assert table.entries == 2


def test_runs_that_an_older_detent_ended_are_listed_among_the_others_page_by_page() -> None:
    statuses = [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED]
    with Harness(open_shop().app) as h:
        for n in range(30):
            run = _ended(n, statuses[n % 3], part="ended" if n % 2 else None)
            h.wait_for(h.backend.table.write(run))

        def listed(*wanted: RunStatus) -> list[str]:
            ids: list[str] = []
            after: str | None = None
            while True:
                page = h.wait_for(list_runs(h.backend, RunFilter(["orders"], wanted, after=after), 4))
                ids += [run.run_id for run in page.runs]
                if (after := page.next) is None:
                    return ids

        newest_first = [f"run-{n:04}" for n in reversed(range(30))]
        assert listed() == newest_first
        assert listed(RunStatus.FAILED) == [
            id for n, id in zip(reversed(range(30)), newest_first, strict=True) if n % 3 == 1
        ]
