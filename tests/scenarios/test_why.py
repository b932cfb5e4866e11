"""Why a run does not move: one true sentence, whatever it waits for."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from detent import App, Retry, RunHandle
from detent.testing import Harness
from detent_infra.runs.why import why
from detent_state_machine.why import Cause, Reason, sentence

from tests.support.waiting import until_in

HOUR = 3_600_000


def reasons(h: Harness, run: RunHandle[Any]) -> list[Reason]:
    return h.wait_for(_reasons(h, run))


async def _reasons(h: Harness, run: RunHandle[Any]) -> list[Reason]:
    lifecycle = h.client.lifecycle
    return await why(lifecycle, await lifecycle.get(run.id), h.backend.clock())


def said(h: Harness, run: RunHandle[Any]) -> str:
    record = h.wait_for(h.client.lifecycle.get(run.id))
    return sentence(record, reasons(h, run)).replace(run.id, "R")


def test_a_run_that_nobody_works_on_is_ready() -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders")

    @orders.step
    async def reserve() -> None: ...

    with Harness(app) as h:
        h.stop_worker()
        run = h.start(orders)
        assert said(h, run) == "Run R is running: step 'reserve' is ready, and no worker has begun it."
        [reason] = reasons(h, run)
        assert (reason.path, reason.cause) == ("reserve", Cause.QUEUED)


def test_a_sleep_says_until_when() -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders")
    orders.sleep("pause", timedelta(hours=3))
    with Harness(app) as h:
        run = h.start(orders)
        h.advance(HOUR / 1000)
        [reason] = reasons(h, run)
        assert reason.since is not None
        assert reason.until is not None
        assert (reason.cause, reason.until - reason.since) == (Cause.WAITING, 3 * HOUR)
        assert said(h, run).startswith("Run R is running: step 'pause' sleeps, until 20")
        assert "(for 1 h 00 min so far)" in said(h, run)
        assert h.result(run) is not None
        assert reasons(h, run) == []
        assert said(h, run) == "Run R has ended: it is COMPLETED."


def test_a_wait_for_an_event_names_it_and_its_key() -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders", input=str)
    orders.event("paid", "payment.received", key=orders.input, type=int)
    with Harness(app) as h:
        run = h.start(orders, "A-17")
        h.advance(60)
        assert said(h, run) == (
            "Run R is running: step 'paid' waits for event 'payment.received' with key 'A-17', for as long as it takes "
            "(for 1 min 00 s so far)."
        )


def test_a_pause_before_a_retry_names_the_error_and_a_time_that_is_past_says_so() -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders")

    @orders.step(retry=Retry(attempts=3, initial=60, jitter=False, max_delay=3600))
    async def charge() -> None:
        raise ConnectionError("the bank is closed")

    with Harness(app) as h:
        run = h.start(orders)
        until_in(h, lambda: bool(reasons(h, run)) and reasons(h, run)[0].cause is Cause.RETRYING)
        assert said(h, run).startswith("Run R is running: step 'charge' is tried again (attempt 2) in ")
        assert said(h, run).endswith(", after ConnectionError.")
        h.stop_worker()
        h.advance(120)
        [reason] = reasons(h, run)
        assert reason.cause is Cause.QUEUED
        assert (
            "is ready to be tried again (attempt 2), after ConnectionError, and no worker has begun it" in reason.said
        )


def test_steps_at_work_are_told_apart_from_those_whose_worker_is_gone() -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders")
    go_on = asyncio.Event()

    @orders.step
    async def reserve() -> None:
        await go_on.wait()

    with Harness(app) as h:
        run = h.start(orders)
        until_in(h, lambda: "reserve" in h.steps(run))
        h.advance(30)
        [reason] = reasons(h, run)
        assert reason.cause is Cause.AT_WORK
        assert re.fullmatch(
            r"Run R is running: step 'reserve' has been at work for 3\d\.\d s \(attempt 1\)\.", said(h, run)
        )
        go_on.set()
    with Harness(app) as h:
        h.crash("reserve", times=100)
        run = h.start(orders)
        until_in(h, lambda: "reserve" in h.steps(run))
        h.stop_worker()
        h.advance(600)
        [reason] = reasons(h, run)
        assert reason.cause is Cause.SILENT
        assert "and its worker fell silent" in said(h, run)


def test_code_that_no_worker_has_is_told_before_anything_else() -> None:
    new, old = (App("shop", url="memory://") for _ in range(2))
    orders, older = new.workflow("orders"), old.workflow("orders")

    @orders.step
    async def reserve() -> None: ...

    @older.step(name="hold")
    async def hold() -> None: ...

    with Harness(new) as h:
        h.stop_worker()
        run = h.start(orders)
        with Harness(old, backend=h.backend) as other:
            other.advance(5)
        [reason] = reasons(h, run)
        assert reason.cause is Cause.NO_CODE
        assert "waits for a worker that has its code" in said(h, run)


def test_a_run_that_fails_tells_of_its_handlers_and_of_what_is_still_at_work() -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders")

    @orders.step
    async def reserve() -> None:
        raise ValueError("no stock")

    @orders.on_failure(retry=Retry(attempts=5, initial=600, max_delay=3600, jitter=False))
    async def refund() -> None:
        raise ConnectionError

    with Harness(app) as h:
        run = h.start(orders)
        until_in(h, lambda: any(each.path == "refund" and each.cause is Cause.RETRYING for each in reasons(h, run)))
        assert said(h, run).startswith("Run R is failing: step 'refund' is tried again (attempt 2) in ")


@pytest.mark.parametrize("waits", [3, 4, 6])
def test_of_many_steps_the_first_are_named_and_the_rest_are_counted(waits: int) -> None:
    app = App("shop", url="memory://")
    orders = app.workflow("orders")
    for number in range(waits):
        orders.sleep(f"s{number}", timedelta(days=1))
    with Harness(app) as h:
        run = h.start(orders)
        h.advance(1)
        told = said(h, run)
        assert len(reasons(h, run)) == waits
        more = {3: "", 4: "; 1 more step has not ended", 6: "; 3 more steps have not ended"}[waits]
        assert told.endswith(f"so far){more}.")
        assert [f"'s{n}'" in told for n in range(4)] == [True, True, True, False]
