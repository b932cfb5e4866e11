"""The reaper finds runs whose messages were lost, all of them, and leaves the others alone."""

from __future__ import annotations

import pytest
from detent.testing import Harness
from detent_infra.runs.reaper import reap
from detent_state_machine import writes
from detent_state_machine.keys import run_key
from detent_state_machine.writes import UpdateItem, Write

from tests.scenarios.conftest import OpenHarness
from tests.support.shop import Order, open_shop


@pytest.mark.over_the_wire
def test_the_reaper_revives_a_run_whose_messages_were_lost(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    h.stop_worker()
    run = h.start(shop.orders, Order(id="a", cents=5))
    [lost] = h.wait_for(h.backend.queue.receive(10, wait=15.0, visibility=30.0))
    h.wait_for(h.backend.queue.delete(lost.receipt))
    age(h, run.id, h.backend.timing.reap_after + 60)
    report = h.wait_for(reap(h.backend))
    assert (report.looked, report.stalled, report.sent) == (1, 1, 1)
    h.start_worker()
    assert h.result(run) == "sent: label-a 5"


def test_the_reaper_leaves_young_and_ended_runs_alone(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    done = h.start(shop.orders, Order(id="a", cents=5))
    h.result(done)
    h.stop_worker()
    h.start(shop.orders, Order(id="b", cents=5))
    report = h.wait_for(reap(h.backend))
    assert (report.looked, report.sent) == (0, 0)


def age(h: Harness, run_id: str, seconds: float) -> None:
    """Makes a live run look older than it is."""
    run = h.wait_for(h.client.lifecycle.get(run_id))
    created = run.created - int(seconds * 1000)
    item = h.wait_for(h.backend.table.get(run_key(run_id))) or {}
    isk = str(item["isk"]).replace(f"{run.created:015d}", f"{created:015d}")
    h.wait_for(h.backend.table.write(UpdateItem(run_key(run_id), None, {"created": created, "isk": isk})))


def test_a_record_the_reaper_cannot_read_keeps_no_other_run_from_it() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        runs = [h.start(shop.orders, Order(id=f"o{n}")) for n in range(10)]
        for message in h.wait_for(h.backend.queue.receive(10, wait=0.0, visibility=9999.0)):
            h.wait_for(h.backend.queue.delete(message.receipt))
        h.wait_for(h.backend.table.write(_spoil(runs[3].id)))
        h.advance(h.backend.timing.reap_after + 60)
        report = h.wait_for(reap(h.backend))
        assert (report.looked, report.stalled) == (9, 9)
        assert h.wait_for(reap(h.backend)).looked == 0  # not again before it had time to help
        h.start_worker()
        assert [h.result(run) for n, run in enumerate(runs) if n != 3]


def test_more_stopped_runs_than_a_reaper_reads_at_once_have_their_turn_all_the_same() -> None:
    """Those at the front, which nobody drives, are due for another visit before the last have had their first."""
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        runs = [h.start(shop.orders, Order(id=f"o{n}")) for n in range(40)]
        h.advance(h.backend.timing.reap_after + 60)
        for _ in range(40):
            assert h.wait_for(reap(h.backend, limit=2)).looked <= 2
            h.advance(60)
        assert all(_visited(h, run.id) for run in runs)


def test_the_reaper_goes_on_behind_a_run_that_has_ended_meanwhile_and_begins_anew_at_the_end() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        runs = [h.start(shop.orders, Order(id=f"o{n}")) for n in range(6)]
        h.advance(h.backend.timing.reap_after + 60)
        assert h.wait_for(reap(h.backend, limit=3)).looked == 3
        for run in runs:
            if not _visited(h, run.id):
                h.wait_for(run.acancel())
                break
        assert h.wait_for(reap(h.backend, limit=3)).looked == 2
        h.advance(h.backend.timing.reap_after + 60)
        assert h.wait_for(reap(h.backend, limit=9)).looked == 5


def _visited(h: Harness, run_id: str) -> bool:
    item = h.wait_for(h.backend.table.get(run_key(run_id)))
    return item is not None and "reaped" in item


def _spoil(run_id: str) -> Write:
    return writes.UpdateItem(run_key(run_id), None, {"v": 99})
