"""What a run does when nothing, or something ordinary, goes wrong."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import timedelta

import pytest
from detent import (
    App,
    Context,
    InputError,
    Put,
    Retry,
    RetryAfter,
    RunFailed,
    RunStatus,
    StepStatus,
)

from tests.scenarios.conftest import OpenHarness
from tests.support.shop import Order, open_shop


@pytest.mark.over_the_wire
def test_a_run_goes_through_fork_join_and_skip_to_its_output(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    assert h.run(shop.orders, Order(id="a", cents=2933)) == "sent: label-a 2933"
    assert shop.bodies == {"reserve": 1, "charge": 1, "label": 1, "ship": 1, "notify": 1}


def test_a_false_condition_skips_the_step_and_a_parameter_that_admits_none_goes_on(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    run = h.start(shop.orders, Order(id="gift", cents=0))
    assert h.result(run) == "sent: label-gift free"
    assert h.steps(run)["charge"].status is StepStatus.SKIPPED
    assert shop.bodies["charge"] == 0


def test_a_step_that_needs_a_skipped_output_is_skipped_too(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("cascade", input=int)

    @flow.step(when=flow.input > 10)
    def big(n: int) -> int:
        return n

    @flow.step
    def after_big(x: int = big.output) -> int:
        return x

    @flow.step(after=[after_big])
    def always(n: int) -> str:
        return f"done {n}"

    h = harness(app)
    run = h.start(flow, 3)
    assert h.result(run) == "done 3"
    assert {p: r.status for p, r in h.steps(run).items()} == {
        "big": StepStatus.SKIPPED,
        "after_big": StepStatus.SKIPPED,
        "always": StepStatus.COMPLETED,
    }


def test_several_last_steps_give_an_object_of_their_outputs_and_end_the_run_once(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("fan", input=int)

    @flow.step
    def root(n: int) -> int:
        return n

    @flow.step
    def left(n: int = root.output) -> int:
        return n + 1

    @flow.step(when=root.output > 100)
    def right(n: int = root.output) -> int:
        return n + 2

    @flow.on_success
    def tell(a: int | None = left.output, b: int | None = right.output) -> str:
        return f"{a} {b}"

    two = app.workflow("two", input=int)

    @two.step
    def one(n: int) -> int:
        return n

    @two.step
    def other(n: int) -> str:
        return str(n)

    h = harness(app)
    assert h.run(flow, 5) == "6 None"
    assert h.run(two, 5) == {"one": 5, "other": "5"}


@pytest.mark.over_the_wire
def test_an_error_is_retried_with_its_attempts_kept_as_history(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    h.fail("ship", ConnectionError("the warehouse is closed"), times=2)
    run = h.start(shop.orders, Order(id="a"))
    assert h.result(run) == "sent: label-a 100"
    ship = h.steps(run)["ship"]
    assert (ship.errors, ship.attempt, len(ship.failed_attempts)) == (2, 3, 2)
    assert ship.failed_attempts[0].error == "ConnectionError: the warehouse is closed"


def test_a_step_out_of_attempts_fails_the_run_with_its_error(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    h.fail("label", ConnectionError("printer on fire"), times=3)
    run = h.start(shop.orders, Order(id="a"))
    with pytest.raises(RunFailed, match="printer on fire") as failed:
        h.result(run)
    assert (failed.value.step, failed.value.error_type) == ("label", "ConnectionError")
    assert "notify" not in h.steps(run)
    assert len(h.logs(run, '{ $.level = "WARN" && $.path = "label" }')) == 2


def test_an_error_that_says_so_is_not_retried(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    run = h.start(shop.orders, Order(id="refused"))
    with pytest.raises(RunFailed, match="refused"):
        h.result(run)
    assert shop.bodies["charge"] == 1
    assert h.wait_for(h.client.aread("ledger", "refused")) is None


def test_a_listed_class_or_its_subclass_is_not_retried(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step(retry=Retry(attempts=5, initial=0.01, non_retryable=("LookupError",)))
    def look(n: int) -> int:
        return n

    h = harness(app)
    h.fail("look", KeyError("gone"), times=5)
    run = h.start(flow, 1)
    assert h.settle(run) is RunStatus.FAILED
    assert h.steps(run)["look"].errors == 1


def test_a_server_that_asks_for_a_pause_gets_it(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int, output=int)

    @flow.step(retry=Retry(attempts=2, initial=0.0))
    def call(n: int) -> int:
        return n

    h = harness(app)
    h.fail("call", RetryAfter(1.2))
    run = h.start(flow, 1)
    assert h.result(run) == 1
    record = h.steps(run)["call"]
    assert record.started is not None
    assert record.started - record.failed_attempts[0].ended >= timedelta(seconds=1.2)


@pytest.mark.over_the_wire
def test_failure_handlers_see_what_failed_and_what_was_done_then_the_run_is_failed(harness: OpenHarness) -> None:
    shop = open_shop(handler=True)
    h = harness(shop.app)
    run = h.start(shop.orders, Order(id="refused"))
    assert h.settle(run) is RunStatus.FAILED
    steps = h.steps(run)
    assert steps["apologise"].status is StepStatus.COMPLETED
    assert h.output_of(run, "apologise") == "sorry, released shelf-refused"
    assert shop.failure is not None
    assert (shop.failure.step, shop.failure.error.type) == ("charge", "NonRetryable")


def test_handlers_leave_no_trace_in_a_run_that_succeeds(harness: OpenHarness) -> None:
    shop = open_shop(handler=True)
    h = harness(shop.app)
    run = h.start(shop.orders, Order(id="a"))
    h.result(run)
    assert not {"release", "apologise"} & set(h.steps(run))


def test_a_failing_handler_ends_the_run_as_failed(harness: OpenHarness) -> None:
    shop = open_shop(handler=True)
    h = harness(shop.app)
    h.fail("release", ValueError("no such shelf"), times=3)
    run = h.start(shop.orders, Order(id="refused"))
    assert h.settle(run) is RunStatus.FAILED
    assert shop.bodies["apologise"] == 0


@pytest.mark.over_the_wire
def test_a_committed_write_lands_with_the_step_that_made_it(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    run = h.start(shop.orders, Order(id="a", cents=7))
    h.result(run)
    assert h.wait_for(h.client.aread("ledger", "a")) == {"cents": 7, "key": f"{run.id}/charge"}


@pytest.mark.over_the_wire
def test_a_committed_write_whose_condition_fails_fails_the_step_and_writes_nothing(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    h.run(shop.orders, Order(id="a", cents=7))
    again = h.start(shop.orders, Order(id="a", cents=8))  # the ledger has this order already
    with pytest.raises(RunFailed, match="condition does not hold"):
        h.result(again)
    assert (h.wait_for(h.client.aread("ledger", "a")) or {})["cents"] == 7


def test_commit_is_refused_where_nothing_makes_it_exact(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step
    def write(n: int, ctx: Context) -> int:
        ctx.commit(Put("c", "k", {"n": n}))
        return n

    h = harness(app)
    with pytest.raises(RunFailed, match="exactly_once"):
        h.result(h.start(flow, 1))


def test_a_body_that_takes_too_long_times_out_and_cannot_commit(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int, output=int)
    runs: list[int] = []

    @flow.step(timeout=0.4, retry=Retry(attempts=2, initial=0.0))
    async def slow(n: int, ctx: Context) -> int:
        runs.append(ctx.attempt)
        if ctx.attempt == 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return -1  # swallows its cancellation, and returns
        return n

    h = harness(app)
    run = h.start(flow, 7)
    assert h.result(run) == 7
    assert runs == [1, 2]
    assert "StepTimeout" in h.steps(run)["slow"].failed_attempts[0].error


def test_a_value_without_json_form_fails_its_step_with_the_path_to_it(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step
    def bad(n: int):  # type: ignore[no-untyped-def]
        return {"items": [1, {"socket": object()}]}

    h = harness(app)
    run = h.start(flow, 1)
    with pytest.raises(RunFailed, match=r"\$\.items\[1\]\.socket"):
        h.result(run)


@pytest.mark.over_the_wire
def test_large_payloads_travel_by_reference(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=str, output=int)

    @flow.step
    def double(text: str) -> str:
        return text * 2

    @flow.step
    def measure(text: str = double.output) -> int:
        return len(text)

    h = harness(app)
    run = h.start(flow, "x" * 50_000)
    assert h.result(run) == 100_000
    [record] = [record for record in h.wait_for(h.client.lifecycle.steps(run.id)) if record.path == "double"]
    assert record.output is not None
    assert record.output.text is None
    assert h.output_of(run, "double") == "x" * 100_000


def test_dataclasses_and_plain_types_go_in_and_out(harness: OpenHarness) -> None:
    @dataclass
    class Point:
        x: int
        y: float

    app = App(url="memory://")
    flow = app.workflow("w", input=Point, output=dict[str, float])

    @flow.step
    def move(point: Point) -> Point:
        return Point(point.x + 1, point.y * 2)

    @flow.step
    def show(moved: Point = move.output) -> dict[str, float]:
        assert isinstance(moved, Point)
        return {"x": moved.x, "y": moved.y}

    h = harness(app)
    assert h.run(flow, Point(1, 2.5)) == {"x": 2, "y": 5.0}


def test_a_blocking_body_does_not_hold_up_the_others(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int, output=int)
    together = threading.Barrier(2, timeout=30)

    @flow.step
    def block(n: int) -> int:
        together.wait()
        return n

    h = harness(app)
    if h.backend.url == "memory://":
        pytest.skip("a virtual clock runs synchronous bodies on the spot")
    runs = [h.start(flow, n) for n in range(2)]
    assert [h.result(run) for run in runs] == [0, 1]


@pytest.mark.over_the_wire
def test_lines_of_a_step_are_read_by_run_with_a_pattern(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    run = h.start(shop.orders, Order(id="a", cents=9))
    h.result(run)
    [line] = h.logs(run, "charged")
    assert (line.path, line.attempt, line.level, line.fields) == ("charge", 1, "INFO", {"cents": 9})
    assert h.logs(run, "-charged -engine") == []
    with pytest.raises(InputError):
        h.logs(run, "{ $.level = ")
