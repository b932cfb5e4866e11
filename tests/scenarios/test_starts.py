"""Starting runs: under a key, many at once, by name, with an input that fits or does not."""

from __future__ import annotations

from typing import cast

import pytest
from detent import (
    InputError,
    KeyConflict,
    RunFailed,
    RunStatus,
    UnknownRun,
    UnknownWorkflow,
)
from detent.testing import Harness
from detent_infra.engine import Engine
from detent_infra.ports import Received
from detent_state_machine.messages import Start, encode

from tests.scenarios.conftest import OpenHarness
from tests.support.shop import Order, open_shop


@pytest.mark.over_the_wire
def test_the_same_key_names_the_same_run(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    first = h.start(shop.orders, Order(id="a"), key="A-17")
    h.result(first)
    again = h.start(shop.orders, Order(id="a"), key="A-17")
    assert again.id == first.id
    assert h.result(again) == "sent: label-a 100"
    assert shop.bodies["reserve"] == 1
    with pytest.raises(KeyConflict, match="another input"):
        h.start(shop.orders, Order(id="b"), key="A-17")


def test_many_runs_start_at_once_and_all_end(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    orders = [Order(id=f"o{n}", cents=n) for n in range(12)]
    runs = h.wait_for(h.client.astart_many(shop.orders, orders, key=lambda order: order.id))
    assert [h.result(run) for run in runs] == [f"sent: label-o{n} {n or 'free'}" for n in range(12)]


def test_a_run_starts_by_name_without_the_code(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    run = h.wait_for(h.client.astart("orders", {"id": "n", "cents": 3}))
    assert h.result(run) == "sent: label-n 3"
    with pytest.raises(UnknownWorkflow, match="nothing"):
        h.wait_for(h.client.astart("nothing", {}))
    with pytest.raises(UnknownRun, match="no-such-run"):
        h.wait_for(h.client.handle("no-such-run").astatus())


def test_input_that_does_not_fit_is_refused_before_anything_is_written(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    with pytest.raises(InputError, match=r"\$\.cents"):
        h.start(shop.orders, cast("Order", {"id": "a", "cents": "many"}))
    assert h.wait_for(h.client.aruns()) == []


def test_input_by_name_that_does_not_fit_fails_the_first_step_with_the_path(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    run = h.wait_for(h.client.astart("orders", {"id": "a", "cents": "many"}))
    with pytest.raises(RunFailed, match=r"\$\.cents"):
        h.result(run)
    assert h.steps(run)["reserve"].errors == 1


def test_a_conflicting_key_among_many_starts_leaves_no_run_without_its_message() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.result(h.start(shop.orders, Order(id="x0"), key="k0"))
        h.stop_worker()
        orders = [Order(id=f"y{n}") for n in range(10)]
        with pytest.raises(KeyConflict):
            h.wait_for(h.client.astart_many(shop.orders, orders, key=lambda order: f"k{order.id[1:]}"))
        assert len(h.wait_for(h.client.aruns(statuses=[RunStatus.RUNNING]))) == 9
        h.start_worker()
        h.advance(5)
        assert h.wait_for(h.client.aruns(statuses=[RunStatus.RUNNING])) == []


def test_the_same_json_in_another_spelling_is_the_same_input() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        lifecycle = h.client.lifecycle
        first = h.wait_for(lifecycle.start_by_name("orders", '{"id": "a",  "cents": 1}', key="k"))
        assert h.wait_for(lifecycle.start_by_name("orders", '{"id":"a","cents":1}', key="k")) == first


def test_a_start_message_of_a_run_that_is_not_stored_is_kept() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        engine = Engine(h.backend, shop.app.executor)
        message = Received(encode(Start("nobody", fresh=True)), "0/0", 1)
        assert h.wait_for(engine.handle(message)) is False
        assert h.wait_for(engine.handle(message, dead=True)) is True
