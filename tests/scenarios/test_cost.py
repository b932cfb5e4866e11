"""What a run costs: the estimate from its records is held to the requests that were counted at botocore's hooks.

Where the protocol decides what is asked, the estimate is exact, request by request and unit by unit. Tolerated are only
queue requests of runs that work at the same time (they share batches: the estimate says what each costs alone).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detent import App, Context, Failure, NonRetryable, Retry, Workflow
from detent.testing import Harness
from detent_functions.telemetry import invocation
from detent_infra.memory import memory_backend
from detent_infra.ops.cost.estimate import estimate
from detent_infra.ops.cost.facts import Facts
from detent_infra.ops.cost.metered import RUN
from detent_infra.ops.cost.metering import Usage
from detent_infra.ops.cost.prices import MILLION, US_EAST_1, Architecture, cost_of
from detent_infra.ops.cost.reading import read_facts
from detent_infra.ops.cost.reenactment import LOG_BYTES_PER_INVOCATION
from detent_infra.ports import Timing
from detent_infra.runs.lifecycle import Lifecycle
from detent_state_machine.graph import MEMBERS
from detent_state_machine.item_limits import size_of
from detent_state_machine.keys import step_key
from detent_state_machine.status import RunStatus
from detent_state_machine.step_path import StepPath

from bench.aws import UNHURRIED, Counted, count_runs
from bench.workflows import Small, agent, chain, documents, fan_out, stumbling
from examples.orders.app import app as orders_app
from examples.orders.app import orders
from examples.orders.lines import read_lines
from tests.scenarios.faulty import Faulty, World, world
from tests.support.lambda_stack import Context as LambdaContext
from tests.support.snapshot import RECORDS, Snapshot, from_text, put_back

Declared = Workflow[Small, Any]


def counted(declare: Callable[[App], Declared]) -> Counted:
    """One run of it, by a worker that is no function.

    Heartbeats count only where bodies are long: elsewhere a busy machine would add some.
    """
    app = App("cost", url="memory://")
    timing = Timing(first_heartbeat=5.0, heartbeat=15.0, short_batch=600.0) if declare is long_steps else UNHURRIED
    return count_runs(app, declare(app), [{"n": 0}], may_fail=True, timing=timing)


def table_requests(usage: Usage) -> dict[str, float]:
    return {name: count for name, count in usage.requests.items() if name.startswith("dynamodb.")}


def units(usage: Usage) -> tuple[float, float, float]:
    return usage.write_units, usage.index_write_units, usage.read_units


# ---- workloads ------------------------------------------------------------------------------------------------


def handled(app: App) -> Declared:
    """A skipped step, a retry, a step that fails for good, and two handlers in a row."""
    workflow: Declared = app.workflow("handled", input=Small)

    @workflow.step
    async def first(value: Small) -> int:
        return 1

    @workflow.step(when=first.output > 5)
    async def skipped(value: int = first.output) -> int:
        return value

    @workflow.step(retry=Retry(attempts=2, initial=0.05))
    async def fails(value: int = first.output, other: int | None = skipped.output) -> int:
        raise ValueError("no")

    @workflow.step
    async def never(value: int = fails.output) -> int:
        return value

    @workflow.on_failure
    async def apologise(why: Failure, value: int | None = first.output) -> int:
        return 1

    @workflow.on_failure
    async def undo(value: int | None = apologise.output) -> int:
        return 2

    return workflow


def failing(app: App) -> Declared:
    workflow: Declared = app.workflow("failing", input=Small)

    @workflow.step
    async def fails(value: Small) -> int:
        raise NonRetryable("no")

    return workflow


def long_steps(app: App) -> Declared:
    """Heartbeats, a step beside a long one, and several ends."""
    workflow: Declared = app.workflow("long_steps", input=Small)

    @workflow.step
    async def long(value: Small) -> int:
        await asyncio.sleep(10)  # its one heartbeat, at 5 s, has five more for its calls
        return 1

    @workflow.step
    async def left(value: int = long.output) -> int:
        return value

    @workflow.step(delivery="at_most_once")
    async def right(value: int = long.output) -> int:
        return value

    return workflow


def retried_with_blobs(app: App) -> Declared:
    """Later deliveries read back what earlier ones stored."""
    workflow: Declared = app.workflow("retried_with_blobs", input=Small)

    @workflow.step
    async def large(value: Small) -> str:
        return "é" * 10_000

    @workflow.step(retry=Retry(attempts=3, initial=0.05))
    async def measure(text: str = large.output, *, ctx: Context) -> int:
        if ctx.attempt < 3:
            raise ConnectionError("down")
        ctx.log("measured", length=len(text))
        return len(text)

    @workflow.step(delivery="exactly_once")
    async def compare(text: str = large.output, length: int = measure.output) -> bool:
        return len(text) == length

    return workflow


CANONICAL: dict[str, Callable[[App], Declared]] = {
    "chain": chain,
    "chain over the bound of inline hops": lambda app: chain(app, 30),
    "at_most_once": lambda app: chain(app, delivery="at_most_once"),
    "exactly_once with commits": lambda app: chain(app, delivery="exactly_once"),
    "fan-out": lambda app: fan_out(app, 25),
    "retries": lambda app: stumbling(app, failures=2),
    "agent": agent,
    "documents": documents,
    "failure, handlers, skip": handled,
    "failure": failing,
    "long steps": long_steps,
    "retries with blobs": retried_with_blobs,
}


# ---- the estimate against what was counted --------------------------------------------------------------------


@pytest.mark.parametrize("name", CANONICAL)
def test_the_estimate_of_a_run_is_what_was_counted(name: str) -> None:
    found = counted(CANONICAL[name])
    estimated = estimate(found.runs[0], found.timing).usage
    near = {request: pytest.approx(count) for request, count in found.bill.requests.items()}
    assert estimated.requests == near
    assert units(estimated) == units(found.bill)
    assert estimated.sqs_requests == pytest.approx(found.bill.sqs_requests)
    assert estimated.invocations == pytest.approx(found.bill.invocations)
    assert estimated.log_bytes == pytest.approx(found.bill.log_bytes)
    assert cost_of(estimated).services == pytest.approx(cost_of(found.bill).services)


@pytest.mark.slow
def test_of_a_fan_out_wider_than_one_arrival_set_the_join_is_a_tree_in_the_estimate_too() -> None:
    found = counted(lambda app: fan_out(app, MEMBERS + 1))
    estimated = estimate(found.runs[0], found.timing).usage
    assert table_requests(estimated) == table_requests(found.bill)
    assert units(estimated) == units(found.bill)
    assert estimated.sqs_requests == pytest.approx(found.bill.sqs_requests, rel=0.1)


def test_of_real_orders_at_once_each_run_has_its_own_table_requests_and_shares_those_of_the_queue() -> None:
    """The first refused card and the first closed warehouse are among them."""
    lines = read_lines()
    wanted = [*lines[:10], *(line for line in lines if _is_eventful(line.customer_id, line.key))][:14]
    found = count_runs(orders_app, orders, wanted, may_fail=True)
    assert {run.run.status for run in found.runs} == {RunStatus.COMPLETED, RunStatus.FAILED}
    alone = 0.0
    for run in found.runs:
        estimated, of_table = estimate(run, found.timing).usage, found.table_bill(run.run.run_id)
        assert table_requests(estimated) == of_table.requests
        assert units(estimated) == units(of_table)
        alone += estimated.sqs_requests
    assert found.bill.sqs_requests < alone


def _is_eventful(customer: str, order: str) -> bool:
    from examples.orders import outside

    return outside.refuses_card(customer) or outside.closed_at_first(order)


def test_a_step_pays_for_what_it_asks_and_the_run_for_its_start_and_end() -> None:
    parts = estimate(counted(lambda app: chain(app, 3)).runs[0], UNHURRIED).parts
    assert {path: table_requests(part) for path, part in parts.items()} == {
        RUN: {"dynamodb.PutItem": 1, "dynamodb.GetItem": 1, "dynamodb.UpdateItem": 1},
        "s0": {"dynamodb.UpdateItem": 1},
        "s1": {"dynamodb.UpdateItem": 1},
        "s2": {"dynamodb.UpdateItem": 1},
    }
    assert parts[RUN].sqs_requests == 3
    assert parts[RUN].index_write_units == 3


# ---- on other backends, and runs that did not go well ---------------------------------------------------------


def facts_of(harness: Harness, run_id: str) -> Facts:
    return harness.wait_for(read_facts(harness.client.lifecycle, run_id))


def test_a_run_on_another_backend_is_estimated_as_the_same_run_on_aws() -> None:
    app = App("cost", url="memory://")
    workflow = fan_out(app, 25)
    on_aws = estimate(counted(lambda app: fan_out(app, 25)).runs[0], UNHURRIED).usage
    with Harness(app) as harness:
        handle = harness.start(workflow, {"n": 0})
        harness.wait_for(handle.aresult())
        here = estimate(facts_of(harness, handle.id)).usage
    assert here.requests == on_aws.requests
    assert units(here) == units(on_aws)


def test_a_live_run_costs_what_it_has_asked_so_far() -> None:
    app = App("cost", url="memory://")
    workflow = chain(app)
    with Harness(app) as harness:
        harness.stop_worker()
        handle = harness.start(workflow, {"n": 0})
        begun = estimate(facts_of(harness, handle.id)).usage
        harness.start_worker()
        harness.wait_for(handle.aresult())
        ended = estimate(facts_of(harness, handle.id)).usage
    assert begun.requests == {"dynamodb.PutItem": 1, "sqs.SendMessageBatch": 1}
    assert ended.total_requests == 16


def test_a_wait_without_a_time_out_is_estimated() -> None:
    app = App("cost", url="memory://")
    workflow = app.workflow("waits", input=str)
    workflow.event("paid", "payment", key=workflow.input)
    with Harness(app) as harness:
        handle = harness.start(workflow, "A-17")
        harness.advance(1)
        waiting = estimate(facts_of(harness, handle.id)).usage
        harness.publish("payment", 1, key="A-17")
        harness.result(handle)
        ended = estimate(facts_of(harness, handle.id)).usage
    assert ended.requests["dynamodb.UpdateItem"] > waiting.requests["dynamodb.UpdateItem"]


def kept_runs() -> dict[str, Snapshot]:
    """By the version of the records and the situation, as in `v1/completed`."""
    files = [file for file in sorted(RECORDS.glob("v*/*.json")) if file.stem != "formats"]
    return {f"{file.parent.name}/{file.stem}": from_text(file.read_text()) for file in files}


@pytest.mark.parametrize("situation", kept_runs())
def test_a_run_in_any_situation_has_an_estimate(situation: str) -> None:
    """Dead workers, half-arrived joins, dead letters, cancelled and retried runs."""
    usage = kept(situation)
    assert usage.requests["dynamodb.PutItem"] >= 1
    assert all(count > 0 for count in usage.requests.values())
    assert 0 < cost_of(usage).services * MILLION < 1_000


FIGURES = json.loads(Path(__file__).with_name("cost_of_kept_runs.json").read_text())
"""Requests by name, and units written, of the index and read, of each kept run."""


@pytest.mark.parametrize("situation", FIGURES)
def test_a_kept_run_costs_what_it_did(situation: str) -> None:
    """The engine that the re-enactment runs may change; what stored runs asked for may not."""
    assert figures(kept(situation)) == FIGURES[situation]


def figures(usage: Usage) -> dict[str, object]:
    return {
        **{name: round(count, 6) for name, count in sorted(usage.requests.items())},
        "units": list(units(usage)),
        "invocations": round(usage.invocations, 6),
    }


def test_a_take_over_costs_another_delivery_and_a_claim() -> None:
    smooth, taken_over = kept("v1/completed"), kept("v1/taken_over_from_a_dead_worker_and_died_again")
    assert taken_over.requests["sqs.ReceiveMessage"] > smooth.requests["sqs.ReceiveMessage"]
    assert taken_over.requests["sqs.ChangeMessageVisibility"] >= 1


def two_steps(delivery: Any = "at_least_once") -> World:
    w = world()

    @w.flow.step(timeout=10)
    def one(n: int) -> int:
        return n

    @w.flow.step(timeout=600, delivery=delivery)
    def two(n: int = one.output) -> int:
        return n

    return w


@pytest.mark.parametrize(("dead_letters", "status"), [(1, "COMPLETED"), (6, "FAILED")])
def test_the_time_until_a_dead_letter_is_found_is_not_billed(dead_letters: int, status: str) -> None:
    """Of invocations that are too short for the second step, which so uses up its deliveries."""
    w = two_steps()

    async def deliver(h: Faulty, seconds: float, *, dead: bool = False) -> None:
        queue = h.dead if dead else h.queue
        for message in await queue.receive(1, wait=0.0, visibility=30.0):
            if await h._engine.handle(message, deadline=h.backend.clock() + int(seconds * 1000), dead=dead):
                await queue.delete(message.receipt)

    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        h.wait_for(deliver(h, 20))
        found = 0
        while found < dead_letters:
            h.advance(300)
            h.wait_for(deliver(h, 1))
            found += len(h.dead.bodies())
            h.wait_for(deliver(h, 20, dead=True))
        h.wait_for(deliver(h, 900))
        facts = facts_of(h, run.id)
    assert (facts.run.status, facts.run.ended is not None) == (status, True)
    assert facts.records["two"].takeovers == min(dead_letters, 5)
    usage = estimate(facts).usage
    assert usage.milliseconds <= 2 + dead_letters  # each delivery is billed a millisecond at least
    assert usage.requests["sqs.ChangeMessageVisibility"] == 0, "heartbeats"


def test_the_time_until_a_dead_worker_is_missed_is_not_billed_at_the_end_of_an_interrupted_step() -> None:
    w = two_steps(delivery="at_most_once")
    with Harness(w.app) as h:
        h.crash("two")
        run = h.start(w.flow, 5)
        assert h.settle(run) is RunStatus.FAILED
        facts = facts_of(h, run.id)
    two = facts.records["two"]
    assert two.error is not None
    assert (two.error.type, (two.ended or 0) - two.started >= 30_000) == ("Interrupted", True)
    assert estimate(facts).usage.milliseconds <= 3


def kept(situation: str) -> Usage:
    snapshot = kept_runs()[situation]

    async def stored() -> Facts:
        backend = memory_backend()
        await put_back(backend, [snapshot])
        return await read_facts(Lifecycle(backend), snapshot.expected.run)

    return estimate(asyncio.run(stored())).usage


# ---- prices and sizes -----------------------------------------------------------------------------------------


def test_dollars_are_units_times_prices() -> None:
    usage = Usage(
        Counter({"s3.PutObject": 2, "s3.GetObject": 5}),
        write_units=8,
        index_write_units=2,
        read_units=4,
        sqs_requests=10,
        invocations=5,
        milliseconds=1000,
        log_bytes=2_000,
        stored_bytes=10_000,
    )
    cost = cost_of(usage, memory=512)
    in_millionths = {service: dollars * MILLION for service, dollars in cost.by_service().items()}
    assert in_millionths == pytest.approx(
        {
            "DynamoDB": 10 * 0.625 + 4 * 0.125,
            "SQS": 10 * 0.40,
            "S3": 2 * 5.0 + 5 * 0.40,
            "Lambda": 5 * 0.20 + 0.5 * 13.3334,
            "CloudWatch Logs": 2_000 * 0.0005,
        }
    )
    assert cost.total == pytest.approx(sum(cost.by_service().values()))
    assert cost.storage * MILLION == pytest.approx(10_000 * 0.00045)


def test_x86_costs_a_quarter_more_than_arm_for_the_same_time() -> None:
    usage = Usage(milliseconds=1_000_000)
    ratio = cost_of(usage, architecture=Architecture.X86_64).compute / cost_of(usage).compute
    assert ratio == pytest.approx(1.25, abs=0.001)


def test_an_item_is_as_large_as_dynamodb_says() -> None:
    """Names and values as UTF-8, two digits of a number in a byte and one more, a boolean a byte."""
    key = step_key("r", StepPath("é"))
    in_key = len("pk") + len("run#r") + len("sk") + len("step#") + 2
    in_values = (len("n") + 3) + (len("ok") + 1) + (len("s") + len("abc")) + (len("d") + 3)
    assert size_of(key, {"n": 1234, "ok": True, "s": frozenset({"ab", "c"}), "d": -7}) == in_key + in_values


def test_what_an_invocation_logs_by_itself_is_about_as_much_as_is_reckoned(capsys: pytest.CaptureFixture[str]) -> None:
    """Lambda's own three lines, as its documentation shows them, and the line of metrics."""
    with invocation(LambdaContext()) as counters:
        counters.add("MessagesHandled", 10)
        counters.add("MessagesKept", 0)
    metrics = capsys.readouterr().out
    assert json.loads(metrics)["MessagesHandled"] == [10.0]
    request = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
    platform = (
        f"START RequestId: {request} Version: $LATEST\nEND RequestId: {request}\n"
        f"REPORT RequestId: {request}\tDuration: 120.45 ms\tBilled Duration: 121 ms\tMemory Size: 1024 MB\t"
        "Max Memory Used: 118 MB\t\n"
    )
    assert pytest.approx(len(metrics) + len(platform), rel=0.15) == LOG_BYTES_PER_INVOCATION


def test_prices_say_where_and_when_they_were_read() -> None:
    assert US_EAST_1.region == "us-east-1"
    assert US_EAST_1.read_on == "2026-10"
