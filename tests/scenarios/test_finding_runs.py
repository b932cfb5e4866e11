"""Lists of runs say when they are cut and how to go on; a run is found by a part of its id."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from detent import App, InputError, RunHandle, RunInfo, RunPage, RunStatus, UnknownRun
from detent.info import moment
from detent.testing import Harness
from detent_infra.virtual_time import EPOCH

app = App("finding")
flow = app.workflow("flow", input=int)
other = app.workflow("other", input=int)


@flow.step
def odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError("even")
    return n


@other.step
def nothing(n: int) -> int:
    return n


@pytest.fixture
def h() -> Iterator[Harness]:
    with Harness(app) as harness:
        yield harness


def pages(h: Harness, limit: int, **wanted: object) -> list[list[RunInfo]]:
    """Every page; `wanted` as `Client.aruns` takes it."""
    found: list[list[RunInfo]] = []
    after: str | None = None
    while True:
        page: RunPage = h.wait_for(h.client.aruns(limit=limit, after=after, **wanted))  # type: ignore[arg-type]
        found.append(list(page))
        after = page.next
        if after is None:
            return found


def started(h: Harness, count: int) -> list[str]:
    """Runs of both workflows, newest first; several in each millisecond, some ended and some not."""
    runs: list[RunHandle[int]] = []
    for n in range(count):
        runs.append(h.start(flow if n % 3 else other, n))
        if n % 4 == 0:
            h.advance(0.001)
    by_age = [(run.created, run.run_id) for run in h.wait_for(h.client.aruns(limit=10_000))]
    assert by_age == sorted(by_age, reverse=True)
    return [run_id for _, run_id in by_age]


# ---- pages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 7, 24, 25, 26])
def test_pages_have_every_run_once_in_order_and_the_last_one_says_so(limit: int, h: Harness) -> None:
    newest = started(h, 25)
    found = pages(h, limit)
    assert [run.run_id for page in found for run in page] == newest
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert 0 < len(found[-1]) <= limit


def test_runs_that_start_or_end_meanwhile_appear_neither_twice_nor_not_at_all(h: Harness) -> None:
    newest = started(h, 12)
    first = h.wait_for(h.client.aruns(limit=5))
    h.start(flow, 1)
    h.advance(60)  # all of them end
    second = h.wait_for(h.client.aruns(limit=5, after=first.next))
    third = h.wait_for(h.client.aruns(limit=5, after=second.next))
    assert [run.run_id for page in (first, second, third) for run in page] == newest
    assert third.next is None


def test_a_filter_holds_on_every_page(h: Harness) -> None:
    started(h, 24)
    h.advance(600)
    failed = pages(h, 3, workflow="flow", statuses=[RunStatus.FAILED])
    assert {run.status for page in failed for run in page} == {RunStatus.FAILED}
    assert sum(map(len, failed)) == len([n for n in range(24) if n % 3 and n % 2 == 0])
    since = moment(EPOCH) + timedelta(milliseconds=3)
    assert [run.run_id for page in pages(h, 2, since=since) for run in page] == [
        run.run_id for run in h.wait_for(h.client.aruns(since=since, limit=100))
    ]


def test_an_empty_list_has_no_next_and_is_like_any_list(h: Harness) -> None:
    page = h.wait_for(h.client.aruns("flow"))
    assert (page, page.next) == ([], None)


@pytest.mark.parametrize("cursor", ["", "x", "1.", ".a", "99999999999999999999.a", "last", 7])
def test_what_is_no_cursor_is_refused(cursor: str, h: Harness) -> None:
    with pytest.raises(InputError, match="cursor"):
        h.wait_for(h.client.aruns(after=cursor))


def test_a_list_of_no_run_is_refused(h: Harness) -> None:
    with pytest.raises(InputError, match="limit=0"):
        h.wait_for(h.client.aruns(limit=0))


def test_the_harness_lists_all_of_a_workflow_s_runs(h: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detent.testing.harness.PAGE", 4)
    runs = [h.start(flow, n).id for n in range(9)]
    assert sorted(run.id for run in h.runs(flow)) == sorted(runs)


# ---- a part of an id ------------------------------------------------------------------------------------------


def test_a_run_is_found_by_the_beginning_the_end_or_the_middle_of_its_id(h: Harness) -> None:
    h.start(flow, 1)
    run = h.start(flow, 3, key="A-17")
    h.result(run)
    for part in (run.id[:12], run.id[-6:], run.id[-4:], run.id[5:12]):
        assert h.wait_for(h.client.aget(part)).run_id == run.id
        assert h.wait_for(h.client.asteps(part))[0].path == "odd"
        handle = h.client.handle(part)
        assert h.settle(handle) is RunStatus.COMPLETED
        assert handle.id == run.id
        assert h.logs(h.client.handle(part))
    assert h.wait_for(h.client.aget(run.id)).run_id == run.id


def test_a_run_is_cancelled_and_retried_by_a_part_of_its_id(h: Harness) -> None:
    run = h.start(flow, 2, key="B")
    h.wait_for(h.client.acancel(run.id[-8:]))
    assert h.wait_for(run.astatus()) is RunStatus.CANCELLED
    assert h.wait_for(h.client.aretry(run.id[:8])).id != run.id


def test_a_part_of_several_ids_names_them(h: Harness) -> None:
    runs = [h.start(flow, n).id for n in range(3)]
    with pytest.raises(InputError, match="is a part of 3 run ids") as refused:
        h.wait_for(h.client.aget("id000"))
    assert all(run in str(refused.value) for run in runs)


def test_a_part_of_no_id_asks_for_the_whole_id(h: Harness) -> None:
    run = h.start(flow, 1, key="C")
    with pytest.raises(UnknownRun, match="whole id"):
        h.wait_for(h.client.aget("zzzz"))
    with pytest.raises(UnknownRun, match="4 characters"):
        h.wait_for(h.client.aget(run.id[-3:]))


def test_a_part_is_looked_for_among_the_newest_thousand_runs(h: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detent_infra.runs.listing.SEARCHED", 2)
    old = h.start(flow, 1, key="old")
    h.advance(1)
    h.start(flow, 2), h.start(flow, 3)
    with pytest.raises(UnknownRun, match="the newest 2 runs have no id"):
        h.wait_for(h.client.aget(old.id[-8:]))
    assert h.wait_for(h.client.aget(old.id)).run_id == old.id
