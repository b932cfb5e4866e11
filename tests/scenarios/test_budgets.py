"""Budgets that are counted, never timed: what a step costs in writes, requests and money.

`python -m bench` measures the rest. bench/README.md has all figures.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import detent
import detent_infra
import detent_state_machine
import pytest
from detent import App, Client, Context, Workflow
from detent.options import DeliveryName
from detent.testing import Harness
from detent_infra.engine import Engine
from detent_infra.engine.loop import MAX_HOPS
from detent_infra.memory import MemoryLogs, Store, memory_backend
from detent_infra.ports import LogLine
from detent_infra.worker import Worker
from detent_state_machine.keys import STEP_PREFIX

from bench.aws import count_chain, count_fan_out, count_retry
from bench.counting import Counts, counted
from bench.workflows import Small, chain, fan_out, stumbling

OWN_CALLS = 266
"""Per step of a chain of 10 on the memory backend. In December 2026, on Python 3.11, it was 262."""
KB = 1024
"""One write unit of DynamoDB: an item that stays below it costs one unit per write."""
OWN_MODULES, LIBRARY_MODULES = 89, 134
"""That the worker loads beside boto3's. In November 2026 it was 72 of ours, most of them small files of the state
machine that take as long to load as the 50 larger ones before, and 129 of libraries: powertools 42, pydantic 42,
asyncio 29."""


def run_once(declare: Callable[[App], Workflow[Small, Any]]) -> Counts:
    """What one run asks of its backend, from start to end. The definition is registered before."""
    app = App("budgets", url="memory://")
    workflow = declare(app)
    backend, counts = counted(memory_backend())
    with Harness(app, backend=backend) as harness:
        harness.run(workflow, {"n": 0})
        harness.stop_worker()  # its last message is deleted now
        harness.start_worker()
        counts.clear()
        harness.run(workflow, {"n": 0})
        harness.stop_worker()
    return counts


# ---- writes per step --------------------------------------------------------------------------------------


def test_a_sequential_at_least_once_step_costs_one_conditional_write() -> None:
    counts = run_once(lambda app: chain(app, 10))
    per_step = Counter(key.sk for key in counts.written if key.sk.startswith(STEP_PREFIX))
    assert per_step == {f"{STEP_PREFIX}s{number}": 1 for number in range(10)}
    assert len(counts.written) == 10 + 2, "the run's start and its end are the only other writes"


@pytest.mark.parametrize("delivery", ["at_most_once", "exactly_once"])
def test_a_claimed_step_costs_two_conditional_writes(delivery: DeliveryName) -> None:
    counts = run_once(lambda app: chain(app, 10, delivery=delivery))
    per_step = Counter(key.sk for key in counts.written if key.sk.startswith(STEP_PREFIX))
    assert per_step == {f"{STEP_PREFIX}s{number}": 2 for number in range(10)}


def test_what_an_exactly_once_step_commits_lands_in_the_transaction_of_its_completion() -> None:
    counts = run_once(lambda app: chain(app, 10, delivery="exactly_once"))
    assert counts.transactions == 10
    assert sum(key.pk.startswith("data#") for key in counts.written) == 10


def test_a_chain_takes_one_message_and_reads_no_step_back() -> None:
    counts = run_once(lambda app: chain(app, 10))
    assert (counts.sent, counts.received, counts.deleted, counts.extended) == (1, 1, 1, 0)
    read = {key.sk for key in counts.read if key.sk.startswith(STEP_PREFIX)}
    assert read == {f"{STEP_PREFIX}s9"}, "by the client, for the result"


def test_a_retry_costs_two_writes_and_one_message_more() -> None:
    """RETRYING, and the claim that names what a look has seen."""
    smooth = run_once(lambda app: stumbling(app, failures=0))
    retried = run_once(lambda app: stumbling(app, failures=1))
    assert len(retried.written) - len(smooth.written) == 2
    assert retried.sent - smooth.sent == 1


@pytest.mark.parametrize(("seconds", "writes", "messages"), [(0.05, 2, 1), (0, 1, 0)])
def test_a_sleep_costs_two_writes_and_one_message_and_one_that_is_due_when_it_is_reached_one_write(
    seconds: float, writes: int, messages: int
) -> None:
    def declare(app: App, *, sleeps: bool) -> Workflow[Small, Any]:
        flow = app.workflow("sleepy", input=Small)

        @flow.step
        async def before(given: Small) -> Small:
            return given

        previous = flow.sleep("pause", seconds, after=[before]) if sleeps else before

        @flow.step(after=[previous])
        async def behind(given: Small) -> Small:
            return given

        return flow

    smooth = run_once(lambda app: declare(app, sleeps=False))
    sleepy = run_once(lambda app: declare(app, sleeps=True))
    assert len(sleepy.written) - len(smooth.written) == writes
    assert sleepy.sent - smooth.sent == messages
    assert sleepy.deleted - smooth.deleted == messages


class CountedLogs(MemoryLogs):
    def __init__(self) -> None:
        super().__init__(Store())
        self.handed_over: list[list[str]] = []

    async def append(self, lines: Sequence[LogLine]) -> None:
        self.handed_over.append([line.engine or line.message for line in lines])
        await super().append(lines)


@pytest.mark.parametrize(
    ("says", "handed_over"),
    [
        (None, [["run_started", "step_completed", "run_completed"]]),
        ("so", [["run_started", "so", "step_completed"], ["run_completed"]]),
    ],
    ids=["the engine's lines", "with a step's own"],
)
def test_a_runs_end_waits_for_its_log_only_if_a_step_wrote_to_it(
    says: str | None, handed_over: list[list[str]]
) -> None:
    app = App("budgets", url="memory://")
    flow = app.workflow("one", input=int)

    @flow.step
    def say(n: int, ctx: Context) -> int:
        if says:
            ctx.log.info(says)
        return n

    logs = CountedLogs()
    with Harness(app, backend=replace(memory_backend(), logs=logs)) as harness:
        harness.run(flow, 1)
        harness.stop_worker()
    assert logs.handed_over == handed_over


# ---- growth -----------------------------------------------------------------------------------------------


def test_the_last_step_of_a_long_chain_costs_what_an_early_one_costs() -> None:
    """Across the bound of inline hops too: the steps that begin a new message look once, wherever they are."""
    counts = run_once(lambda app: chain(app, 200))
    per_step = Counter(key.sk.removeprefix(STEP_PREFIX) for key in counts.written if key.sk.startswith(STEP_PREFIX))
    writes = [per_step[f"s{number}"] for number in range(200)]
    assert set(writes) == {1}
    reads = Counter(key.sk for key in counts.read if key.sk.startswith(STEP_PREFIX))
    assert set(reads.values()) <= {1}, "a message reads the one parent it did not run, however long the history"
    sizes = {key.sk: size for key, size in counts.item_bytes.items() if key.sk.startswith(STEP_PREFIX)}
    assert sizes[f"{STEP_PREFIX}s199"] <= sizes[f"{STEP_PREFIX}s1"] + len("99") * 2 + 2, "names and numbers got longer"


def test_a_delivery_that_comes_back_reads_a_bounded_part_of_a_long_history() -> None:
    """Its worker died in the last step of a chain of 200: it walks through what that delivery did, no further."""
    app = App("budgets", url="memory://")
    workflow = chain(app, 200)
    backend, counts = counted(memory_backend())
    with Harness(app, backend=backend) as harness:
        harness.crash("s199")
        run = harness.start(workflow, {"n": 0})
        harness.result(run)
    reads = Counter(key.sk for key in counts.read if key.sk.startswith(STEP_PREFIX))
    again = [path for path, times in reads.items() if times > 1]
    assert len(again) <= MAX_HOPS
    assert max(reads.values()) <= 3
    assert sum(reads.values()) <= 200 / MAX_HOPS + 2 * MAX_HOPS


def test_items_stay_below_one_write_unit_with_small_payloads() -> None:
    for declare in (
        lambda app: chain(app, 10, delivery="exactly_once"),
        lambda app: fan_out(app, 100),
        lambda app: stumbling(app, failures=2),
    ):
        counts = run_once(declare)
        largest = max(counts.item_bytes, key=lambda key: counts.item_bytes[key])
        assert counts.item_bytes[largest] < KB, largest


# ---- calls ----------------------------------------------------------------------------------------------


def calls_per_step(runs: int = 20, steps: int = 10) -> float:
    """Calls that our own code makes and takes while a worker drives chains: of functions in Python and in C."""
    app = App("calls", url="memory://")
    workflow = chain(app, steps)
    own = {str(Path(str(package.__file__)).parent) for package in (detent, detent_infra, detent_state_machine)}
    ours: dict[str, bool] = {}
    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        file = frame.f_code.co_filename
        if file not in ours:
            ours[file] = any(file.startswith(folder) for folder in own)
        calls += ours[file] and event in ("call", "c_call")

    async def drive(counter: Callable[[FrameType, str, object], None] | None) -> None:
        backend = memory_backend()
        await Client(backend=lambda: backend).astart_many(workflow, [{"n": 0}] * runs)
        worker, stop = Worker(Engine(backend, app.executor)), asyncio.Event()
        sys.setprofile(counter)
        try:
            working = asyncio.create_task(worker.run(stop))
            while worker.handled < runs:  # noqa: ASYNC110 - the count is the worker's own
                await asyncio.sleep(0)
        finally:
            sys.setprofile(None)
        stop.set()
        await working

    asyncio.run(drive(None))  # what is loaded, compiled and cached once
    asyncio.run(drive(count))
    return calls / runs / steps


def test_a_step_of_a_chain_makes_a_bounded_number_of_calls() -> None:
    """Speed is counted before it is timed. Raise the number only with a reason: each call is a quarter of a
    microsecond at every step.
    """
    assert calls_per_step() <= OWN_CALLS


# ---- imports ----------------------------------------------------------------------------------------------


def test_the_worker_loads_a_bounded_number_of_modules_beside_those_of_boto3() -> None:
    """The counted side of the budget of 150 ms: what a cold start waits for is the loading of modules.

    What a first message does not need is imported where it is needed. If it does need more, raise the number and
    measure (bench/README.md).
    """
    listed = (
        "import sys, boto3; before = set(sys.modules); "
        "import detent_functions.worker; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    own = [name for name in loaded if name.startswith("detent_")]
    assert len(own) <= OWN_MODULES, sorted(own)
    assert len(loaded) - len(own) <= LIBRARY_MODULES, sorted(set(loaded) - set(own))


# ---- fan-out ----------------------------------------------------------------------------------------------


def test_a_child_of_a_fan_out_costs_a_completion_and_an_arrival() -> None:
    """Its message is fresh, so it looks (a read) where it would claim (a write)."""
    counts = run_once(lambda app: fan_out(app, 100))
    children = Counter(key.sk for key in counts.written if key.sk.startswith(f"{STEP_PREFIX}c"))
    arrivals = [key for key in counts.written if key.sk.startswith("join#")]
    assert set(children.values()) == {1}
    assert len(arrivals) == 100
    around = 2 + 2  # root and join; the run's start and end
    assert len(counts.written) == 100 + 100 + around
    assert len(counts.written) / 100 <= 2.2


def test_a_fan_out_sends_a_message_for_every_child_but_one() -> None:
    counts = run_once(lambda app: fan_out(app, 100))
    assert (counts.sent, counts.received, counts.deleted) == (1 + 99, 1 + 99, 1 + 99)


# ---- requests to AWS, and their price ---------------------------------------------------------------------


def test_a_linear_workflow_of_ten_costs_at_most_1_7_requests_and_1_30_dollars_per_million_steps() -> None:
    counted = count_chain()
    assert counted.requests == {
        "dynamodb.PutItem": 1,
        "sqs.SendMessageBatch": 1,
        "sqs.ReceiveMessage": 1,
        "dynamodb.GetItem": 1,
        "dynamodb.UpdateItem": 11,
        "sqs.DeleteMessageBatch": 1,
    }
    assert counted.total_requests / 10 <= 1.7
    assert (counted.write_units, counted.index_write_units, counted.read_units) == (12, 3, 1)
    assert counted.dollars / 10 <= 1.30
    assert counted.largest_item < KB


def test_runs_that_start_together_share_their_queue_requests() -> None:
    counted = count_chain(runs=10)
    assert counted.sqs_requests == 3


@pytest.mark.slow
def test_a_fan_out_of_a_hundred_costs_at_most_half_a_queue_request_per_child() -> None:
    counted = count_fan_out()
    assert counted.sqs_requests / 100 <= 0.5
    assert counted.write_units / 100 <= 2.2
    assert counted.largest_item < KB


def test_a_retry_costs_seven_requests() -> None:
    counted = count_retry()
    assert (counted.total_requests, counted.write_units, counted.sqs_requests) == (7, 2, 3)
