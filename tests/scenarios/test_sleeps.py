"""Runs that sleep: nothing is busy meanwhile, and no time passes in a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from detent import (
    App,
    InputError,
    NonRetryable,
    RunFailed,
    RunHandle,
    RunStatus,
    StepChange,
    StepStatus,
    Workflow,
)
from detent.testing import Harness
from detent_infra.memory import memory_backend
from detent_infra.ports import Timing
from detent_infra.runs.reaper import reap
from detent_state_machine.keys import step_key
from detent_state_machine.step_path import StepPath
from pydantic import BaseModel

from tests.scenarios.conftest import OpenHarness
from tests.support.waiting import until_in

SHORT = timedelta(seconds=1)
"""SQS counts delays in whole seconds."""
MONTH = timedelta(days=30)


class Bill(BaseModel):
    cents: int = 100
    due: datetime = datetime(2026, 1, 1, tzinfo=UTC)


def bills() -> tuple[App, Workflow[Bill, Any]]:
    """Nothing is known of it yet but its input."""
    app = App("bills", url="memory://")
    return app, app.workflow("bill", input=Bill)


# ---- on every backend -------------------------------------------------------------------------------------------


@pytest.mark.over_the_wire
def test_what_follows_a_sleep_begins_when_it_is_over(harness: OpenHarness) -> None:
    app, flow = bills()

    @flow.step
    def send(bill: Bill) -> int:
        return bill.cents

    pause = flow.sleep("pause", SHORT, after=[send])

    @flow.step
    def remind(bill: Bill, cents: int = send.output, since: datetime = pause.output) -> str:
        return f"{cents} {since.tzinfo}"

    h = harness(app)
    run = h.start(flow, Bill())
    assert h.result(run) == "100 UTC"
    sent, slept, reminded = (h.steps(run)[name] for name in ("send", "pause", "remind"))
    assert (slept.status, slept.attempt) == (StepStatus.COMPLETED, 1)
    assert sent.ended is not None
    assert reminded.started is not None
    assert reminded.started - sent.ended >= SHORT
    assert datetime.fromisoformat(h.output_of(run, "pause")) == (slept.started or sent.ended) + SHORT


def test_a_run_that_sleeps_says_until_when(harness: OpenHarness) -> None:
    app, flow = bills()
    flow.sleep("pause", MONTH)
    h = harness(app)
    run = h.start(flow, Bill())
    until_in(h, lambda: "pause" in h.steps(run))
    pause = h.steps(run)["pause"]
    assert (pause.status, pause.ended) == (StepStatus.WAITING, None)
    assert pause.due is not None
    assert pause.started is not None
    assert pause.due - pause.started == MONTH
    until_in(h, lambda: any(line.message.startswith("sleeping until 20") for line in h.logs(run)))


def test_a_run_that_is_cancelled_asleep_ends_at_once_and_closes_its_sleeps(harness: OpenHarness) -> None:
    app, flow = bills()
    pause, other = flow.sleep("pause", MONTH), flow.sleep("other", MONTH)

    @flow.step(after=[pause, other])
    def remind(bill: Bill) -> str:
        raise AssertionError("it never wakes")

    h = harness(app)
    run = h.start(flow, Bill())
    until_in(h, lambda: {"pause", "other"} <= h.steps(run).keys())
    h.wait_for(run.acancel())
    assert h.wait_for(run.astatus()) is RunStatus.CANCELLED
    until_in(h, lambda: {step.status for step in h.steps(run).values()} == {StepStatus.CANCELLED})
    h.wait_for(run.acancel())


def test_a_run_that_fails_beside_a_sleep_closes_it(harness: OpenHarness) -> None:
    app, flow = bills()
    flow.sleep("pause", MONTH)

    @flow.step
    def refuse(bill: Bill) -> str:
        raise NonRetryable("no")

    h = harness(app)
    run = h.start(flow, Bill())
    with pytest.raises(RunFailed, match="no"):
        h.result(run)

    def is_closed() -> bool:
        pause = h.steps(run).get("pause")  # it may not have been reached
        return pause is None or pause.status is StepStatus.CANCELLED

    until_in(h, is_closed)


def test_a_retried_run_does_not_sleep_again_what_it_has_slept(harness: OpenHarness) -> None:
    app, flow = bills()
    open_: list[bool] = []
    pause = flow.sleep("pause", SHORT)

    @flow.step(after=[pause])
    def pay(bill: Bill) -> str:
        if not open_:
            raise NonRetryable("the bank is closed")
        return "paid"

    h = harness(app)
    run = h.start(flow, Bill())
    with pytest.raises(RunFailed):
        h.result(run)
    open_.append(True)
    again = h.wait_for(h.client.aretry(run.id))
    assert h.result(again) == "paid"
    assert h.steps(again)["pause"].ended == h.steps(run)["pause"].ended


# ---- until ------------------------------------------------------------------------------------------------------


def test_a_run_waits_until_a_time_of_its_input_and_one_that_a_step_returned(harness: OpenHarness) -> None:
    app, flow = bills()
    reached = flow.until("reached", flow.input.due)

    @flow.step
    def reckon(bill: Bill, due: datetime = reached.output) -> datetime:
        return datetime.now(UTC) - timedelta(days=1)

    grace = flow.until("grace", reckon.output)

    @flow.step(after=[grace])
    def remind(bill: Bill) -> str:
        return "sent"

    h = harness(app)
    run = h.start(flow, Bill())
    assert h.result(run) == "sent", "times that are past are due at once"
    assert h.output_of(run, "reached") == "2026-01-01T00:00:00Z"


def test_a_time_is_the_same_in_any_offset() -> None:
    app, flow = bills()
    flow.until("reached", flow.input.due)
    due = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=3)))
    with Harness(app) as h:
        run = h.start(flow, Bill(due=due))
        h.settle(run)
        reached = h.steps(run)["reached"]
        assert h.output_of(run, "reached") == "2026-03-01T09:00:00Z"
        assert reached.ended is not None
        assert due <= reached.ended <= due + timedelta(seconds=1)


def test_a_wait_for_an_output_that_is_skipped_is_skipped_and_so_is_one_whose_condition_is_false() -> None:
    app, flow = bills()

    @flow.step(when=flow.input.cents > 1000)
    def plan(bill: Bill) -> datetime:
        return bill.due

    planned = flow.until("planned", plan.output)
    rare = flow.sleep("rare", MONTH, when=flow.input.cents > 1000)

    @flow.step
    def done(bill: Bill, a: datetime | None = planned.output, b: datetime | None = rare.output) -> str:
        return f"{a} {b}"

    with Harness(app) as h:
        run = h.start(flow, Bill(cents=5))
        assert h.result(run) == "None None"
        assert h.steps(run)["planned"].status is h.steps(run)["rare"].status is StepStatus.SKIPPED


@pytest.mark.parametrize("given", ["tomorrow", "2030-01-01T00:00:00", 7, None, True])
def test_a_value_that_is_not_a_time_fails_the_run_and_says_which(given: object) -> None:
    app = App("untyped", url="memory://")
    flow = app.workflow("untyped")
    flow.until("due", flow.input["due"])

    with Harness(app) as h:
        run = h.start(flow, {"due": given})
        with pytest.raises(
            RunFailed, match=r"cannot wait until input\.due, which is .*not a time with an offset"
        ) as no:
            h.result(run)
        assert (no.value.step, no.value.error_type) == ("due", InputError.__name__)


# ---- under a clock that jumps -----------------------------------------------------------------------------------


def test_a_subscription_charges_each_month_of_a_year() -> None:
    app, flow = bills()

    def charge(bill: Bill) -> int:
        return bill.cents

    previous: list[str] = []
    for month in range(12):
        flow.step(name=f"charge {month}", after=previous)(charge)
        previous = [flow.sleep(f"month {month}", MONTH, after=[f"charge {month}"]).name]
    with Harness(app) as h:
        run = h.start(flow, Bill())
        assert h.settle(run) is RunStatus.COMPLETED
        steps = h.steps(run)
    charged = [steps[f"charge {month}"].started for month in range(12)]
    first = charged[0]
    assert first is not None
    late = [when - first - month * MONTH for month, when in enumerate(charged) if when is not None]
    assert len(late) == 12
    assert max(late) < timedelta(seconds=1)


def test_time_advances_by_as_much_as_a_test_says_and_no_further() -> None:
    app, flow = bills()
    flow.sleep("pause", MONTH)
    with Harness(app) as h:
        run = h.start(flow, Bill())
        h.advance(MONTH - timedelta(minutes=1))
        assert h.steps(run)["pause"].status is StepStatus.WAITING
        h.advance(timedelta(minutes=2))
        assert h.steps(run)["pause"].status is StepStatus.COMPLETED
        assert h.wait_for(run.astatus()) is RunStatus.COMPLETED


def test_a_history_has_the_sleep_and_its_end() -> None:
    app, flow = bills()
    flow.sleep("pause", MONTH)

    async def next_of(changes: AsyncIterator[StepChange]) -> StepChange:
        return await anext(changes)

    with Harness(app) as h:
        changes = h.start(flow, Bill()).ahistory()
        begun = h.wait_for(next_of(changes))
        h.advance(MONTH)
        ended = h.wait_for(next_of(changes))
    assert (begun.path, begun.status, begun.pause) == ("pause", StepStatus.WAITING, MONTH)
    assert (ended.path, ended.status, ended.error) == ("pause", StepStatus.COMPLETED, "")
    assert ended.took is not None
    assert MONTH <= ended.took < MONTH + timedelta(seconds=1)


# ---- workers and deploys ----------------------------------------------------------------------------------------


def test_a_sleep_needs_no_code_so_a_worker_without_the_workflow_ends_it() -> None:
    app, flow = bills()
    pause = flow.sleep("pause", 0.1)

    @flow.step(after=[pause])
    def remind(bill: Bill) -> str:
        return "sent"

    backend = memory_backend(timing=Timing(lease=0.5, visibility=0.5))
    with Harness(app, backend=backend) as h:
        h.stop_worker()
        run = h.start(flow, Bill())
        with Harness(App("other", url="memory://"), backend=backend) as other:
            until_in(other, lambda: _status(h, run, "pause") is StepStatus.COMPLETED)
        h.start_worker()
        assert h.result(run) == "sent"


# ---- what it costs ----------------------------------------------------------------------------------------------


def test_the_reaper_rests_while_a_run_sleeps_and_keeps_what_it_will_need() -> None:
    app, flow = bills()

    @flow.step
    def send(bill: Bill) -> int:
        return bill.cents

    pause = flow.sleep("pause", 10 * MONTH, after=[send])

    @flow.step(after=[pause])
    def remind(bill: Bill, cents: int = send.output) -> str:
        return f"{cents}"

    with Harness(app) as h:
        run = h.start(flow, Bill())
        h.advance(h.backend.timing.reap_after + 60)
        report = h.wait_for(reap(h.backend))
        assert (report.looked, report.stalled) == (1, 0)
        h.advance(timedelta(hours=10))
        assert h.wait_for(reap(h.backend)).looked == 0
        due = h.steps(run)["pause"].due
        assert due is not None
        for name in ("send", "pause"):
            item = h.wait_for(h.backend.table.get(step_key(run.id, StepPath(name)))) or {}
            assert int(str(item["expires"])) >= due.timestamp() + 30 * 86_400
        assert h.result(run) == "100"


def test_the_reaper_wakes_a_run_whose_message_was_lost_once_it_is_due() -> None:
    app, flow = bills()
    flow.sleep("pause", MONTH)
    with Harness(app) as h:
        run = h.start(flow, Bill())
        h.advance(1)
        _lose_messages(h)
        h.advance(MONTH + timedelta(days=2))
        assert h.wait_for(run.astatus()) is RunStatus.COMPLETED


def test_the_reaper_finds_what_stopped_beside_a_sleep_without_waiting_for_its_end() -> None:
    app, flow = bills()
    pause = flow.sleep("pause", 10 * MONTH)

    @flow.step
    def first(bill: Bill) -> int:
        return 1

    @flow.step
    def second(bill: Bill, n: int = first.output) -> int:
        return n

    @flow.step(after=[pause])
    def last(bill: Bill, n: int = second.output) -> str:
        return "over"

    with Harness(app) as h:
        h.crash("second")
        run = h.start(flow, Bill())
        until_in(h, lambda: {"pause", "first"} <= h.steps(run).keys())
        _lose_messages(h)
        h.advance(timedelta(days=2))
        assert h.steps(run)["second"].status is StepStatus.COMPLETED
        assert h.steps(run)["pause"].status is StepStatus.WAITING


def _status(h: Harness, run: RunHandle[Any], step: str) -> StepStatus | None:
    found = h.steps(run).get(step)
    return None if found is None else found.status


def _lose_messages(h: Harness) -> None:
    """All of them: the delayed as well."""
    h.backend.queue._messages.clear()  # type: ignore[attr-defined]
