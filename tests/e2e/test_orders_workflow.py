"""The workflow of examples/orders, in memory, with the faults that its steps are made for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from detent import RunStatus, StepStatus
from detent.testing import Harness

from examples.orders import app as shop
from examples.orders import outside
from examples.orders.books import read_books
from examples.orders.lines import read_lines

LINES = read_lines()


@pytest.fixture
def harness() -> Iterator[Harness]:
    with Harness(shop.app) as harness:
        yield harness


GOOD = shop.Line(number=7, customer_id="00004", date="1997-01-01", quantity="2", amount_usd="29.33")


def changed(**values: str) -> shop.Line:
    return GOOD.model_copy(update=values)


def entry(harness: Harness, collection: str, key: str) -> dict[str, object]:
    found = harness.wait_for(harness.client.aread(collection, key))
    return {} if found is None else dict(found)


def test_an_order_is_charged_to_the_cent_and_shipped(harness: Harness) -> None:
    receipt = harness.run(shop.orders, GOOD)
    assert (receipt.order, receipt.cents) == ("cdnow-7", 2_933)
    assert entry(harness, "ledger", "cdnow-7") == {"customer": "00004", "cents": 2_933}
    assert entry(harness, "accounts", "00004") == {"cents": 2_933, "charges": 1}
    assert entry(harness, "stock", "cdnow-7") == {"cds": 2, "state": "reserved"}


def test_a_free_order_skips_the_charge_and_is_shipped_all_the_same(harness: Harness) -> None:
    run = harness.start(shop.orders, changed(amount_usd="0.00"))
    assert harness.result(run).cents == 0
    assert harness.steps(run)["charge"].status is StepStatus.SKIPPED
    assert entry(harness, "ledger", "cdnow-7") == {}


def test_a_refused_card_ends_the_order_at_once_and_gives_the_stock_back(harness: Harness) -> None:
    customer = next(line.customer_id for line in LINES if outside.refuses_card(line.customer_id))
    run = harness.start(shop.orders, changed(customer_id=customer))
    assert harness.settle(run) is RunStatus.FAILED
    steps = harness.steps(run)
    assert (steps["charge"].status, steps["charge"].errors) == (StepStatus.FAILED, 1)
    assert "ship" not in steps
    assert entry(harness, "stock", "cdnow-7")["state"] == "released"
    assert entry(harness, "ledger", "cdnow-7") == {}


def test_a_closed_warehouse_is_tried_again(harness: Harness) -> None:
    number = next(line.number for line in LINES if outside.closed_at_first(line.key))
    run = harness.start(shop.orders, GOOD.model_copy(update={"number": number}))
    assert harness.settle(run) is RunStatus.COMPLETED
    assert harness.steps(run)["ship"].errors == 1


def test_an_order_that_cannot_be_shipped_is_refunded(harness: Harness) -> None:
    harness.fail("ship", outside.WarehouseClosed("for good"), times=5)
    run = harness.start(shop.orders, GOOD)
    assert harness.settle(run) is RunStatus.FAILED
    assert entry(harness, "ledger", "cdnow-7") == {"customer": "00004", "cents": 2_933, "refunded": True}
    assert entry(harness, "accounts", "00004") == {"cents": 0, "charges": 1, "refunds": 1}
    assert entry(harness, "stock", "cdnow-7")["state"] == "released"


@pytest.mark.parametrize("step", ["reserve", "charge", "release"])
def test_a_worker_that_dies_moves_no_money_and_no_stock_twice(harness: Harness, step: str) -> None:
    harness.crash(step, times=2)
    harness.fail("ship", outside.WarehouseClosed("for good"), times=5)
    run = harness.start(shop.orders, GOOD)
    assert harness.settle(run) is RunStatus.FAILED
    assert harness.steps(run)[step].takeovers == 2
    assert entry(harness, "accounts", "00004") == {"cents": 0, "charges": 1, "refunds": 1}


def test_a_mail_that_may_have_left_is_not_sent_again_and_the_parcel_is_not_called_back(harness: Harness) -> None:
    harness.crash("notify")
    run = harness.start(shop.orders, GOOD)
    assert harness.settle(run) is RunStatus.FAILED
    failed = harness.steps(run)["notify"]
    assert failed.error is not None
    assert failed.error.type == "Interrupted"
    assert entry(harness, "stock", "cdnow-7")["state"] == "reserved"
    assert entry(harness, "accounts", "00004") == {"cents": 2_933, "charges": 1}


def test_the_books_count_an_order_s_last_retry_not_the_run_that_it_began_with(harness: Harness) -> None:
    harness.crash("notify")
    first = harness.start(shop.orders, GOOD, key=GOOD.key)
    assert harness.settle(first) is RunStatus.FAILED
    again = harness.wait_for(harness.client.aretry(first.id))
    assert harness.settle(again) is RunStatus.COMPLETED
    books = harness.wait_for(read_books(harness.client, [GOOD], [GOOD], {}))
    assert [order.run.run_id for order in books.orders if order.run is not None] == [again.id]
    assert (dict(books.runs()), list(books.problems())) == ({RunStatus.COMPLETED: 1}, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_usd": "12.345"},
        {"amount_usd": "-1.00"},
        {"amount_usd": "NaN"},
        {"amount_usd": "1e999"},
        {"amount_usd": ""},
        {"quantity": "0"},
        {"quantity": "two"},
        {"date": "1997-02-30"},
        {"customer_id": "4"},
    ],
)
def test_a_line_that_is_no_order_fails_at_once_and_touches_nothing(harness: Harness, wrong: dict[str, str]) -> None:
    run = harness.start(shop.orders, changed(**wrong))
    assert harness.settle(run) is RunStatus.FAILED
    steps = harness.steps(run)
    assert (steps["validate"].errors, "reserve" in steps) == (1, False)
    assert steps["validate"].error is not None
    assert steps["validate"].error.type == "InvalidOrder"
    assert entry(harness, "stock", "cdnow-7") == {}


def test_amounts_are_read_as_exact_cents() -> None:
    assert [shop.cents(text) for text in ("0.00", "0.01", "29.33", "1.1", "7", "1179.99")] == [
        0,
        1,
        2933,
        110,
        700,
        117999,
    ]
