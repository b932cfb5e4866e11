"""Which live runs a deploy would strand: those that still have to do a step whose body is gone, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from detent import App, Failure, Retry
from detent.testing import Harness
from detent_infra.ops.stranding import Outlook, missing_steps, outlook
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.start import NewRun
from detent_state_machine.definition import Definition
from detent_state_machine.keys import SHARDS

from tests.support.aws_stack import moto_backend, recorded_calls

app = App("shop", url="memory://")
orders = app.workflow("orders", input=int, output=int)


@orders.step
def reserve(number: int) -> int:
    return number


@orders.step(retry=Retry(attempts=100, initial=3600, max_delay=3600))
def pack(number: int, held: int = reserve.output) -> int:
    return held


@orders.step
def ship(number: int, packed: int = pack.output) -> int:
    return packed


@orders.on_failure(retry=Retry(attempts=100, initial=3600, max_delay=3600))
def undo(number: int, why: Failure) -> None: ...


zoo = app.workflow("zoo", input=int, output=int)


@zoo.step(retry=Retry(attempts=100, initial=3600, max_delay=3600))
def feed(number: int) -> int:
    return number


def without(*steps: str) -> Mapping[str, Definition]:
    """What the code declares once these steps are deleted."""
    old = orders.definition
    return {"orders": old.model_copy(update={"steps": tuple(step for step in old.steps if step.name not in steps)})}


def ahead(harness: Harness, code: Mapping[str, Definition], **more: int) -> Outlook:
    return harness.wait_for(outlook(harness.client.lifecycle, code, **more))


def waiting(harness: Harness, runs: int) -> list[str]:
    """Runs that have done `reserve`, and wait to try `pack` again."""
    harness.fail("pack", ConnectionError("no boxes"), times=runs)
    started = [harness.start(orders, number) for number in range(runs)]
    harness.advance(60)
    assert all(harness.steps(run)["pack"].status == "RETRYING" for run in started)
    return [run.id for run in started]


def test_a_run_counts_for_each_step_that_is_gone_and_still_ahead_of_it() -> None:
    with Harness(app) as harness:
        ids = waiting(harness, 5)
        found = ahead(harness, without("pack", "ship"))
        assert [(each.workflow, each.step, each.runs) for each in found.stranded] == [
            ("orders", "pack", 5),
            ("orders", "ship", 5),
        ]
        assert {each.version for each in found.stranded} == {orders.definition.version}
        assert all(len(each.run_ids) == 3 and set(each.run_ids) <= set(ids) for each in found.stranded)
        assert (found.looked, found.more) == (5, False)


def test_a_run_that_is_past_the_step_does_not_mind() -> None:
    with Harness(app) as harness:
        waiting(harness, 2)
        assert ahead(harness, without("reserve")) == Outlook((), 2, more=False)


def test_a_handler_may_still_be_needed() -> None:
    with Harness(app) as harness:
        waiting(harness, 1)
        assert [each.step for each in ahead(harness, without("undo")).stranded] == ["undo"]


def test_a_failing_run_needs_handlers_only() -> None:
    with Harness(app) as harness:
        harness.fail("reserve", ValueError("nothing there"), times=100)
        harness.fail("undo", ConnectionError("nobody answers"), times=1)
        run = harness.start(orders, 1)
        harness.advance(60)
        assert harness.wait_for(harness.client.lifecycle.get(run.id)).status == "FAILING"
        assert ahead(harness, without("pack", "ship")) == Outlook((), 1, more=False)
        assert [each.step for each in ahead(harness, without("ship", "undo")).stranded] == ["undo"]


def test_a_workflow_that_is_gone_strands_what_its_runs_have_not_done() -> None:
    with Harness(app) as harness:
        waiting(harness, 1)
        assert [each.step for each in ahead(harness, {}).stranded] == ["pack", "ship", "undo"]


def test_ended_runs_and_added_steps_strand_nothing() -> None:
    with Harness(app) as harness:
        assert harness.run(orders, 1) == 1
        cancelled = waiting(harness, 1)[0]
        harness.wait_for(harness.client.lifecycle.cancel(cancelled))
        assert ahead(harness, {}) == Outlook((), 0, more=False)
        waiting(harness, 1)
        assert ahead(harness, {"orders": orders.definition}).stranded == ()


def test_it_says_when_there_are_more_runs_than_it_looked_at() -> None:
    with Harness(app) as harness:
        waiting(harness, 4)
        found = ahead(harness, without("ship"), limit=3)
        assert (found.looked, found.more) == (3, True)
        assert [each.runs for each in found.stranded] == [3]


def test_runs_that_miss_nothing_do_not_use_up_the_looks_of_those_that_do() -> None:
    with Harness(app) as harness:
        waiting(harness, 4)
        harness.fail("feed", ConnectionError("no hay"), times=1)
        harness.start(zoo, 1)
        found = ahead(harness, {"orders": orders.definition}, limit=3)
        assert [(each.workflow, each.step, each.runs) for each in found.stranded] == [("zoo", "feed", 1)]
        assert (found.looked, found.more) == (5, False)


def test_the_steps_of_many_runs_are_read_at_once() -> None:
    """A deploy must not wait for 10,000 requests, one after the other."""

    async def look(lifecycle: Lifecycle) -> Outlook:
        for number in range(3 * SHARDS):
            await lifecycle.start(orders.definition, NewRun(str(number)))
        return await outlook(lifecycle, {})

    with moto_backend() as backend, recorded_calls() as calls:
        found = asyncio.run(look(Lifecycle(backend)))
    assert {each.runs for each in found.stranded} == {3 * SHARDS}
    assert len([call for call in calls if call.operation == "BatchGetItem"]) <= SHARDS


def test_missing_steps_are_told_in_the_order_of_the_definition() -> None:
    assert missing_steps(orders.definition, None) == ("reserve", "pack", "ship", "undo")
    assert missing_steps(orders.definition, without("ship", "reserve")["orders"]) == ("reserve", "ship")
