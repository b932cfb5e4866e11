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
from detent_infra.ports import Table
from detent_infra.relay import RelayedTable, TableCall
from detent_infra.runs.lifecycle import Lifecycle

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
