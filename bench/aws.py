"""Counts the AWS adapter's requests over moto, with the queue delivered as Lambda does it. Nothing here is timed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import boto3
from detent import App, Client, Workflow
from detent.options import DeliveryName
from detent_infra.aws import Resources, StdoutLines, aws_backend
from detent_infra.clock import wall_clock
from detent_infra.engine import Engine, LogSettings, Origin
from detent_infra.ids import new_id
from detent_infra.memory import MemoryLogs, Store
from detent_infra.ops.cost.facts import Facts
from detent_infra.ops.cost.reading import read_facts
from detent_infra.ops.cost.reenactment import LOG_BYTES_PER_INVOCATION
from detent_infra.ports import Backend, LogLine, Timing
from detent_state_machine import keys
from detent_state_machine.status import RunStatus

from bench.metering import Attributes, Bill, addresses, bill, key_of
from bench.workflows import Small, chain, fan_out, stumbling
from tests.support.aws_stack import REGION, Call, moto_stack, recorded_calls

INVOCATION_MS = 900_000
"""How long a Lambda invocation may take, at most."""
BATCH = 10
UNHURRIED = Timing(first_heartbeat=600.0, heartbeat=600.0, short_batch=600.0)
"""Bodies that do nothing pay for no heartbeat and no visibility, on AWS; on a busy machine they would."""
LAMBDA = Origin("e5a1" * 8, "8f507cfc-0000-4697-b07a-ac58fc914c95", "1-5759e988-bd862e3fe1be46a994272793")
"""Where lines come from, as long as Lambda has it: a line is paid for by the byte."""


@dataclass(frozen=True)
class Shape:
    """What is counted, and the number of steps that its bill is divided by."""

    name: str
    steps: int
    bill: Bill

    def to_json(self) -> dict[str, object]:
        return {"shape": self.name, "steps": self.steps, **self.bill.per(self.steps)}


@dataclass(frozen=True)
class Counted:
    """Runs that went from start to end, what they asked of AWS, and what they left there."""

    bill: Bill
    calls: Sequence[Call]
    stored: Mapping[tuple[str, str], Attributes]
    runs: Sequence[Facts]
    timing: Timing = UNHURRIED

    @property
    def blob_bytes(self) -> int:
        """Of what was put into the bucket, each content once."""
        puts = [call.params for call in self.calls if call.operation == "PutObject"]
        return sum({str(params["Key"]): params["Body"].getbuffer().nbytes for params in puts}.values())

    @property
    def steps(self) -> int:
        """Step runs that have a record."""
        return sum(len(run.records) for run in self.runs)

    def table_bill(self, run_id: str) -> Bill:
        """What one of the runs asked of the table. (What runs share, queue requests, has no part of one run.)"""
        partition = keys.run_partition(run_id)
        own = [call for call in self.calls if any(pk == partition for pk, _ in addresses(call))]
        return bill(own, self.stored)


def count_all() -> list[Shape]:
    """Every shape, one after the other, each in an AWS of its own."""
    return [
        Shape("linear workflow of 10", 10, count_chain()),
        Shape("the same, 10 runs started together", 100, count_chain(runs=10)),
        Shape("linear of 10, at_most_once", 10, count_chain("at_most_once")),
        Shape("linear of 10, exactly_once with a commit each", 10, count_chain("exactly_once")),
        Shape("fan-out of 100 and join, per child", 100, count_fan_out()),
        Shape("one retry", 1, count_retry()),
    ]


def count_chain(delivery: DeliveryName = "at_least_once", *, length: int = 10, runs: int = 1) -> Bill:
    return count(lambda app: chain(app, length, delivery=delivery), runs)


def count_fan_out(width: int = 100) -> Bill:
    return count(lambda app: fan_out(app, width))


def count_retry() -> Bill:
    """What an attempt that fails and is retried adds to a run."""
    smooth = count(lambda app: stumbling(app, failures=0))
    retried = count(lambda app: stumbling(app, failures=1))
    retried.add(smooth, -1)
    retried.requests = +retried.requests  # without those that are the same in both
    return retried


def count(declare: Callable[[App], Workflow[Small, Any]], runs: int = 1) -> Bill:
    """The bill of runs of the workflow. Raises `AssertionError` if one does not complete."""
    app = App("bench", url="memory://")
    return count_runs(app, declare(app), [{"n": 0}] * runs).bill


def count_runs(
    app: App,
    workflow: Workflow[Any, Any],
    inputs: Sequence[Any],
    *,
    may_fail: bool = False,
    timing: Timing = UNHURRIED,
) -> Counted:
    """Runs of the workflow, started together, from start to end.

    Left out is what a process does once: registering the definition. Raises `AssertionError` if a run does not
    complete, for then the figures mean nothing; with `may_fail`, if one does not end.
    """
    with _deployed(timing) as deployment:
        return asyncio.run(deployment.count(app, workflow, inputs, may_fail=may_fail))


@dataclass(frozen=True)
class _Deployment:
    resources: Resources
    backend: Backend
    printed: io.StringIO
    log_settings: LogSettings

    async def count(self, app: App, workflow: Workflow[Any, Any], inputs: Sequence[Any], *, may_fail: bool) -> Counted:
        engine = Engine(self.backend, app.executor, jitter=lambda: 0.5, log_settings=self.log_settings)
        client = Client(app.url, backend=lambda: self.backend)
        await client.lifecycle.register(app.definitions().values())
        with recorded_calls() as calls:
            handles = await client.astart_many(workflow, inputs)
            await self._deliver(engine)
        for handle in handles:
            status = await handle.astatus()
            ended = status is RunStatus.COMPLETED or (may_fail and status is RunStatus.FAILED)
            assert ended, f"a measured run is {status}"
        # How the queue is asked whether it is empty is the bench's own affair.
        kept = [call for call in calls if call.operation != "GetQueueAttributes"]
        stored = self._items()
        counted = bill(kept, stored)
        counted.log_bytes = len(self.printed.getvalue().encode()) + counted.invocations * LOG_BYTES_PER_INVOCATION
        runs = [await read_facts(client.lifecycle, handle.id) for handle in handles]
        return Counted(counted, kept, stored, runs, self.backend.timing)

    async def _deliver(self, engine: Engine) -> None:
        """Drives messages until none is left, as an event source mapping hands them over: up to 10 at once, those
        that are done deleted with one request.
        """
        sqs, url = self._client("sqs"), self.resources.queue_url
        names = ["ApproximateNumberOfMessages" + suffix for suffix in ("", "NotVisible", "Delayed")]
        while True:
            received = await self.backend.queue.receive(BATCH, wait=0.0, visibility=60.0)
            deadline = self.backend.clock() + INVOCATION_MS
            done = await asyncio.gather(*(engine.handle(message, deadline=deadline) for message in received))
            receipts = [message.receipt for message, is_done in zip(received, done, strict=True) if is_done]
            if receipts:
                entries = [{"Id": str(n), "ReceiptHandle": receipt} for n, receipt in enumerate(receipts)]
                sqs.delete_message_batch(QueueUrl=url, Entries=entries)
            if received:
                continue
            left = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            if not any(int(left[name]) for name in names):
                return
            await asyncio.sleep(0.05)

    def _items(self) -> dict[tuple[str, str], Attributes]:
        pages = self._client("dynamodb").get_paginator("scan").paginate(TableName=self.resources.table)
        return {key_of(item): item for page in pages for item in page["Items"]}

    def _client(self, service: Literal["sqs", "dynamodb"]) -> Any:
        client: Any = _session().client(service)  # pyright: ignore[reportUnknownMemberType]
        return client


class _Printed:
    """In Lambda, log lines are printed, and cost no request. Here they can be read back as well."""

    def __init__(self, stream: io.StringIO) -> None:
        self._store = Store()
        self._print = StdoutLines(stream)
        self.logs = MemoryLogs(self._store)

    def __call__(self, line: LogLine) -> None:
        self._print(line)
        self._store.logs.append(line)


@cache
def _session() -> boto3.Session:
    # One for all: a session keeps the services' models, and reading them takes longer than most workloads.
    return boto3.Session("testing", "testing", "testing", region_name=REGION)


@contextmanager
def _deployed(timing: Timing) -> Generator[_Deployment]:
    with moto_stack() as resources:
        backend = aws_backend(
            resources, url="aws://bench", region=REGION, clock=wall_clock, ids=new_id, timing=timing, session=_session()
        )
        printed = io.StringIO()
        lines = _Printed(printed)
        try:
            yield _Deployment(resources, replace(backend, logs=lines.logs), printed, LogSettings(LAMBDA, at_once=lines))
        finally:
            backend.close()
