"""Counts the AWS adapter's requests over moto, with the queue delivered as Lambda does it. Nothing here is timed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import boto3
from detent import App, Client, Workflow
from detent.workflow import DeliveryName
from detent_infra.aws import Resources, aws_backend
from detent_infra.clock import wall_clock
from detent_infra.engine import Engine
from detent_infra.ids import new_id
from detent_infra.memory import memory_backend
from detent_infra.ports import Backend
from detent_state_machine.status import RunStatus

from bench.metering import Attributes, Bill, bill, key_of
from bench.workflows import Small, chain, fan_out, stumbling
from tests.aws_stack import REGION, moto_stack, recorded_calls

INVOCATION_MS = 900_000
"""How long a Lambda invocation may take, at most."""
BATCH = 10


@dataclass(frozen=True)
class Shape:
    """What is counted, and the number of steps that its bill is divided by."""

    name: str
    steps: int
    bill: Bill

    def to_json(self) -> dict[str, object]:
        return {"shape": self.name, "steps": self.steps, **self.bill.per(self.steps)}


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
    return Bill(
        requests=retried.requests - smooth.requests,
        write_units=retried.write_units - smooth.write_units,
        index_write_units=retried.index_write_units - smooth.index_write_units,
        read_units=retried.read_units - smooth.read_units,
        sqs_requests=retried.sqs_requests - smooth.sqs_requests,
        largest_item=retried.largest_item,
    )


def count(declare: Callable[[App], Workflow[Small, Any]], runs: int = 1) -> Bill:
    """The bill of runs of the workflow, from start to end.

    Left out is what a process does once: registering the definition. Raises `AssertionError` if a run does not
    complete, for then the figures mean nothing.
    """
    app = App("bench", url="memory://")
    workflow = declare(app)
    with _deployed() as deployment:
        return asyncio.run(deployment.bill_of(app, workflow, runs))


@dataclass(frozen=True)
class _Deployment:
    resources: Resources
    backend: Backend

    async def bill_of(self, app: App, workflow: Workflow[Small, Any], runs: int) -> Bill:
        engine = Engine(self.backend, app.executor, jitter=lambda: 0.5)
        client = Client(app.url, backend=lambda: self.backend)
        await client.lifecycle.register(app.definitions().values())
        with recorded_calls() as calls:
            handles = await client.astart_many(workflow, [{"n": 0}] * runs)
            await self._deliver(engine)
        for handle in handles:
            status = await handle.astatus()
            assert status is RunStatus.COMPLETED, f"the measured run is {status}"
        # How the queue is asked whether it is empty is the bench's own affair.
        return bill((call for call in calls if call.operation != "GetQueueAttributes"), self._items())

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
        client: Any = boto3.client(service, region_name=REGION)  # pyright: ignore[reportUnknownMemberType]
        return client


@contextmanager
def _deployed() -> Generator[_Deployment]:
    with moto_stack() as resources:
        backend = aws_backend(resources, url="aws://bench", region=REGION, clock=wall_clock, ids=new_id)
        try:
            # In Lambda, log lines are printed, and cost no request.
            yield _Deployment(resources, replace(backend, logs=memory_backend().logs))
        finally:
            backend.close()
