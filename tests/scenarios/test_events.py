"""Runs that wait for events: published before, during and after, by anybody, once or again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest
from detent import App, Context, InputError, KeyConflict, RunFailed, RunHandle, RunStatus, StepStatus, Workflow
from detent.event import Event
from detent.testing import Harness
from detent_infra.memory import memory_backend
from detent_infra.ports import Timing
from detent_infra.runs.reaper import reap
from detent_state_machine import keys
from pydantic import BaseModel

from tests.scenarios.conftest import OpenHarness
from tests.support.waiting import until_in

DAY = timedelta(days=1)


class Order(BaseModel):
    id: str = "A-17"


class Payment(BaseModel):
    cents: int


def shop(**options: Any) -> tuple[App, Workflow[Order, str], Event[Payment]]:
    """Each order waits for its payment, and tells what came."""
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=Order, output=str)
    payments = app.event("payment.received", type=Payment)
    paid = orders.event("paid", payments, key=orders.input.id, **options)

    @orders.step
    def ship(order: Order, payment: Payment | None = paid.output) -> str:
        return f"{order.id}: {payment.cents if payment else 'nothing'}"

    return app, orders, payments


def waiting(h: Harness, run: RunHandle[Any], step: str = "paid") -> None:
    """Until the run waits there, registered: its log says so last."""
    until_in(h, lambda: step in h.steps(run) and h.steps(run)[step].status is StepStatus.WAITING)


# ---- on every backend -------------------------------------------------------------------------------------------


@pytest.mark.over_the_wire
def test_an_event_that_comes_while_a_run_waits_meets_it(harness: OpenHarness) -> None:
    app, orders, payments = shop()
    h = harness(app)
    run = h.start(orders, Order())
    waiting(h, run)
    h.publish(payments, Payment(cents=100), key="A-17")
    assert h.result(run) == "A-17: 100"
    assert h.output_of(run, "paid") == {"cents": 100}


@pytest.mark.over_the_wire
def test_an_event_that_came_before_the_wait_meets_it(harness: OpenHarness) -> None:
    app, orders, payments = shop()
    h = harness(app)
    h.publish(payments, Payment(cents=100), key="A-17")
    assert h.result(h.start(orders, Order())) == "A-17: 100"


def test_an_event_of_another_key_or_name_meets_nothing(harness: OpenHarness) -> None:
    app, orders, payments = shop()
    h = harness(app)
    run = h.start(orders, Order())
    waiting(h, run)
    h.publish(payments, Payment(cents=1), key="A-18")
    h.publish(payments, Payment(cents=2))
    h.publish("payment.refused", {"cents": 3}, key="A-17")
    h.publish(payments, Payment(cents=4), key="A-17")
    assert h.result(run) == "A-17: 4"


def test_a_wait_whose_time_is_out_ends_with_none(harness: OpenHarness) -> None:
    app, orders, _ = shop(timeout=1)
    h = harness(app)
    run = h.start(orders, Order())
    assert h.result(run) == "A-17: nothing"
    assert h.steps(run)["paid"].status is StepStatus.COMPLETED


def test_of_two_events_the_older_is_taken_and_both_of_two_waits_see_it(harness: OpenHarness) -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=Order)
    first = orders.event("first", "paid", key=orders.input.id, type=int)
    second = orders.event("second", "paid", key=orders.input.id, type=int, after=[first])

    @orders.step
    def both(order: Order, a: int = first.output, b: int = second.output) -> list[int]:
        return [a, b]

    h = harness(app)
    h.publish("paid", 1, key="A-17")
    h.advance(1)
    h.publish("paid", 2, key="A-17")
    assert h.result(h.start(orders, Order())) == [1, 1]


def test_a_large_payload_comes_as_it_was_published(harness: OpenHarness) -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=Order)
    text = orders.event("text", "text", key=orders.input.id, type=str)

    @orders.step
    def length(order: Order, text: str = text.output) -> int:
        return len(text)

    h = harness(app)
    run = h.start(orders, Order())
    waiting(h, run, "text")
    h.publish("text", "x" * 300_000, key="A-17")
    assert h.result(run) == 300_000


def test_a_run_that_is_cancelled_while_it_waits_closes_its_wait_and_no_event_meets_it(harness: OpenHarness) -> None:
    app, orders, payments = shop()
    h = harness(app)
    run = h.start(orders, Order())
    waiting(h, run)
    h.wait_for(run.acancel())
    until_in(h, lambda: h.steps(run)["paid"].status is StepStatus.CANCELLED)
    h.publish(payments, Payment(cents=100), key="A-17")
    h.advance(1)
    assert h.steps(run)["paid"].status is StepStatus.CANCELLED
    assert h.wait_for(run.astatus()) is RunStatus.CANCELLED


# ---- which event ------------------------------------------------------------------------------------------------


def test_only_events_for_which_the_expression_holds_meet_a_wait_and_one_that_does_not_fit_it_does_not() -> None:
    app, orders, payments = shop(match="cents > `50`")
    with Harness(app) as h:
        run = h.start(orders, Order())
        waiting(h, run)
        h.publish(payments, Payment(cents=50), key="A-17")
        h.publish("payment.received", "not an object", key="A-17")
        h.advance(5)
        assert h.steps(run)["paid"].status is StepStatus.WAITING
        h.publish(payments, Payment(cents=51), key="A-17")
        assert h.result(run) == "A-17: 51"


def test_the_key_of_a_value_meets_no_event_without_one_and_a_wait_without_a_key_only_those() -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=Order)
    anything = orders.event("anything", "paid", key="", type=int, timeout=DAY)

    @orders.step
    def tell(order: Order, value: int | None = anything.output) -> int | None:
        return value

    with Harness(app) as h:
        run = h.start(orders, Order())
        waiting(h, run, "anything")
        h.publish("paid", 1, key="A-17")
        h.advance(5)
        assert h.steps(run)["anything"].status is StepStatus.WAITING
        h.publish("paid", 2)
        assert h.result(run) == 2


@pytest.mark.parametrize("key", [None, "", 17, ["A"], "x" * 2_000])
def test_a_key_that_cannot_be_one_fails_the_run_and_says_which(key: object) -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=dict[str, Any])
    orders.event("paid", "paid", key=orders.input["id"])
    with Harness(app) as h:
        run = h.start(orders, {"id": key})
        with pytest.raises(RunFailed, match="key of an event"):
            h.result(run)


def test_a_payload_that_does_not_fit_fails_the_wait_with_the_path_to_the_value() -> None:
    app, orders, _ = shop()
    with Harness(app) as h:
        run = h.start(orders, Order())
        waiting(h, run)
        h.publish("payment.received", {"cents": "a lot"}, key="A-17")
        with pytest.raises(RunFailed, match=r"cents"):
            h.result(run)
        assert h.steps(run)["paid"].status is StepStatus.FAILED
        error = h.steps(run)["paid"].error
        assert error is not None
        assert error.type == "InputError"


def test_events_of_long_before_the_run_do_not_meet_it_and_those_of_a_retry_are_those_of_its_first_run() -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=Order)
    broken = [True]

    @orders.step(retry=1)
    def check(order: Order) -> str:
        if broken[0]:
            raise ValueError("no")
        return "checked"

    paid = orders.event("paid", "paid", key=orders.input.id, type=int, timeout=DAY, after=[check])

    @orders.step
    def tell(order: Order, value: int | None = paid.output) -> int | None:
        return value

    with Harness(app) as h:
        h.publish("paid", 1, key="A-17")
        h.advance(timedelta(minutes=10))
        run = h.start(orders, Order())
        assert h.settle(run) is RunStatus.FAILED
        h.publish("paid", 2, key="A-17")
        h.advance(timedelta(minutes=10))
        broken[0] = False
        again = h.wait_for(app.client.aretry(run.id))
        assert h.result(again) == 2


def test_a_wait_that_looks_no_further_back_than_itself_takes_only_what_comes_now() -> None:
    app, orders, payments = shop(since="wait", after=[])
    with Harness(app) as h:
        h.publish(payments, Payment(cents=1), key="A-17")
        h.advance(timedelta(minutes=10))
        run = h.start(orders, Order())
        waiting(h, run)
        h.advance(5)
        assert h.steps(run)["paid"].status is StepStatus.WAITING
        h.publish(payments, Payment(cents=2), key="A-17")
        assert h.result(run) == "A-17: 2"


def test_an_event_that_is_stored_when_the_time_is_out_is_not_lost_to_it() -> None:
    app, orders, payments = shop(timeout=DAY)
    with Harness(app) as h:
        run = h.start(orders, Order())
        waiting(h, run)
        h.stop_worker()
        h.publish(payments, Payment(cents=7), key="A-17")
        h.advance(2 * DAY)
        h.start_worker()
        assert h.result(run) == "A-17: 7"


def test_more_waiters_than_one_message_wakes_are_all_woken() -> None:
    app = App("shop", url="memory://")
    doors = app.workflow("doors", input=int)
    opened = doors.event("opened", "gate.opened", key="north", type=str)

    @doors.step
    def enter(number: int, by: str = opened.output) -> str:
        return f"{number} by {by}"

    with Harness(app) as h:
        runs = [h.start(doors, number) for number in range(120)]
        for run in runs:
            waiting(h, run, "opened")
        h.publish("gate.opened", "the guard", key="north")
        assert [h.result(run) for run in runs] == [f"{number} by the guard" for number in range(120)]


# ---- publishing -------------------------------------------------------------------------------------------------


def test_an_event_published_twice_under_one_id_is_one_and_another_payload_is_refused() -> None:
    app, orders, payments = shop()
    with Harness(app) as h:
        assert h.publish(payments, Payment(cents=1), key="A-17", id="p-1") == "p-1"
        h.advance(60)
        assert h.publish(payments, Payment(cents=1), key="A-17", id="p-1") == "p-1"
        with pytest.raises(KeyConflict, match="p-1"):
            h.publish(payments, Payment(cents=2), key="A-17", id="p-1")
        page = h.wait_for(h.backend.table.query(keys.event_partition("payment.received", "A-17"), start="event#"))
        assert len([key for key, _ in page.items if key.sk.startswith("event#")]) == 1
        assert h.result(h.start(orders, Order())) == "A-17: 1"


def test_a_body_that_is_tried_again_publishes_once() -> None:
    app = App("shop", url="memory://")
    banks = app.workflow("banks", input=Order)

    @banks.step(retry=2)
    def pay(order: Order, ctx: Context) -> str:
        ctx.publish("paid", {"cents": 5}, key=order.id)
        if ctx.attempt == 1:
            raise ConnectionError("after it was published")
        return ctx.publish("receipt", None, key=order.id)

    with Harness(app) as h:
        h.run(banks, Order())
        for name in ("paid", "receipt"):
            page = h.wait_for(h.backend.table.query(keys.event_partition(name, "A-17"), start="event#"))
            assert len([key for key, _ in page.items if key.sk.startswith("event#")]) == 1


@pytest.mark.parametrize(
    ("event", "options"),
    [("", {}), ("a#b", {}), ("x" * 200, {}), ("a\nb", {}), ("a", {"key": "x" * 2_000}), ("a", {"id": ""})],
)
def test_what_no_store_keeps_is_refused_before_anything_is_stored(event: str, options: dict[str, Any]) -> None:
    app, _, _ = shop()
    with Harness(app) as h, pytest.raises(InputError):
        h.publish(event, 1, **options)


def test_a_payload_that_does_not_fit_the_declared_type_is_refused_where_it_is_published() -> None:
    app, _, payments = shop()
    with Harness(app) as h, pytest.raises(InputError, match="cents"):
        h.publish(cast("Event[Any]", payments), {"cents": "a lot"})


# ---- without the code, and without the message -------------------------------------------------------------------


def test_an_event_for_a_wait_of_other_code_is_left_for_a_worker_that_has_it() -> None:
    app, orders, payments = shop()
    backend = memory_backend(timing=Timing(lease=0.5, visibility=0.5))
    with Harness(app, backend=backend) as h:
        run = h.start(orders, Order())
        waiting(h, run)
        h.stop_worker()
        with Harness(App("other", url="memory://"), backend=backend) as other:
            other.publish(payments, Payment(cents=9), key="A-17")
            other.advance(1)
            assert h.steps(run)["paid"].status is StepStatus.WAITING
        h.start_worker()
        assert h.result(run) == "A-17: 9"


def test_the_reaper_brings_a_stored_event_whose_publisher_died_and_moves_the_registration_on() -> None:
    app, orders, payments = shop()
    with Harness(app) as h:
        run = h.start(orders, Order())
        waiting(h, run)
        h.advance(timedelta(days=40))
        partition = keys.event_partition("payment.received", "A-17")
        waiter = h.wait_for(h.backend.table.query(partition, start="waiter#")).items[0][1]
        now = h.wait_for(_now(h))
        assert int(str(waiter["expires"])) > now // 1000 + 86_400
        h.publish(payments, Payment(cents=3), key="A-17")
        assert h.result(run) == "A-17: 3"


async def _now(h: Harness) -> int:
    return h.backend.clock()


def test_a_waiter_whose_wait_is_over_is_deleted_by_the_next_event() -> None:
    app, orders, payments = shop()
    with Harness(app) as h:
        run = h.start(orders, Order())
        waiting(h, run)
        h.publish(payments, Payment(cents=3), key="A-17")
        assert h.result(run) == "A-17: 3"
        partition = keys.event_partition("payment.received", "A-17")
        assert len(h.wait_for(h.backend.table.query(partition, start="waiter#")).items) == 1
        h.publish(payments, Payment(cents=4), key="A-17")
        h.advance(5)
        assert h.wait_for(h.backend.table.query(partition, start="waiter#")).items == ()
        assert h.wait_for(reap(h.backend)).sent == 0
