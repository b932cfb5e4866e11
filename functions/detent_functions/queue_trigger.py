"""The queue trigger: starts runs for messages of a queue that detent does not own, as the workflows' `on_queue` says.

What can start nothing, now or ever, goes to that queue's dead-letter queue with the reason. What cannot be handled at
the moment is kept, and hidden for longer each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import assert_never

from aws_lambda_powertools.utilities.typing import LambdaContext
from detent_infra.ports import Arrived
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.sources.triggers import Done, Kept, Refused, Triggers, Verdict

from detent_functions.batches import RESERVE_MS, BatchResponse, answer, records_of
from detent_functions.runtime import Runtime, prepare, runtime
from detent_functions.source_records import SourceRecord, read
from detent_functions.telemetry import Counters, log

prepare()


def handler(event: object, context: LambdaContext) -> BatchResponse:
    """Invoked by an SQS event source mapping with `ReportBatchItemFailures`. Never raises."""
    records = [read(record) for record in records_of(event)]

    def drive(counters: Counters, left_ms: int) -> list[str]:
        here = runtime()
        _ = here.application  # before a loop runs: a module may start one of its own while it is imported
        return here.run(_handle(here, records, max(0, left_ms - RESERVE_MS) / 1000, counters))

    return answer([record.id for record in records], context, drive)


async def _handle(here: Runtime, records: Sequence[SourceRecord], seconds: float, counters: Counters) -> list[str]:
    """The ids of the records to keep."""
    triggers = Triggers(Lifecycle(here.backend, here.definitions), here.application.subscriptions)
    done: set[str] = set()

    async def settled(arrived: Arrived, verdict: Verdict, handled: bool) -> None:
        _count(counters, verdict)
        if handled:
            done.add(arrived.message.queue_id)

    try:
        async with asyncio.timeout(seconds):
            for arn, of_queue in groupby(records, key=lambda record: record.arn):
                if arrived := [record.arrived for record in of_queue if record.arrived is not None]:
                    await triggers.take(here.backend.source(arn), arrived, settled)
    except TimeoutError:
        log.error("messages given up: the invocation is about to end")
    return [record.id for record in records if record.id not in done]


def _count(counters: Counters, verdict: Verdict) -> None:
    match verdict:
        case Done(fresh, known):
            counters.add("RunsStarted", len(fresh))
            counters.add("MessagesUnwanted", int(not fresh and not known))
        case Refused(_, done):
            counters.add("RunsStarted", len(done.fresh))
            counters.add("MessagesRefused")
        case Kept():
            pass
        case _:
            assert_never(verdict)
