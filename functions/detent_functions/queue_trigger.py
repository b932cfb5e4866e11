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
from detent_infra.lifecycle import Lifecycle
from detent_infra.ports import Source
from detent_infra.triggers import Done, Kept, Refused, Triggers, Verdict, settle

from detent_functions.deliveries import RESERVE_MS, BatchResponse
from detent_functions.runtime import Runtime, runtime
from detent_functions.source_records import SourceRecord, read
from detent_functions.telemetry import Counters, invocation, log


def handler(event: object, context: LambdaContext) -> BatchResponse:
    """Invoked by an SQS event source mapping with `ReportBatchItemFailures`. Never raises."""
    records = read(event)
    with invocation(context) as counters:
        try:
            here = runtime()
            left = max(0, context.get_remaining_time_in_millis() - RESERVE_MS) / 1000
            kept = here.run(_handle(here, records, left, counters))
        except Exception:  # noqa: BLE001 - the batch must come back whatever it was, and the log says what
            log.exception("none of the batch was handled")
            kept = [record.id for record in records]
        counters.add("MessagesHandled", len(records) - len(kept))
        counters.add("MessagesKept", len(kept))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in kept]}


async def _handle(here: Runtime, records: Sequence[SourceRecord], seconds: float, counters: Counters) -> list[str]:
    """The ids of the records to keep."""
    triggers = Triggers(Lifecycle(here.backend, here.definitions), here.application.subscriptions)
    done: set[str] = set()
    try:
        async with asyncio.timeout(seconds):
            for arn, group in groupby(records, key=lambda record: record.arn):
                done |= await _of_queue(triggers, here.backend.source(arn), list(group), counters) if arn else set()
    except TimeoutError:
        log.error("messages given up: the invocation is about to end")
    return [record.id for record in records if record.id not in done]


async def _of_queue(
    triggers: Triggers, source: Source, records: Sequence[SourceRecord], counters: Counters
) -> set[str]:
    """The ids of those that may be acknowledged."""
    if not source.name.endswith(".fifo"):
        return await _batch(triggers, source, records, counters)
    done: set[str] = set()
    for record in records:
        if not (handled := await _batch(triggers, source, [record], counters)):
            break  # what follows in its group may not overtake it
        done |= handled
    return done


async def _batch(triggers: Triggers, source: Source, records: Sequence[SourceRecord], counters: Counters) -> set[str]:
    given = [(record.id, record.arrived) for record in records if record.arrived is not None]
    verdicts = await triggers.handle([arrived.message for _, arrived in given])
    for verdict in verdicts:
        _count(counters, verdict)
    settled = await asyncio.gather(
        *(settle(source, arrived, verdict) for (_, arrived), verdict in zip(given, verdicts, strict=True))
    )
    return {id for (id, _), handled in zip(given, settled, strict=True) if handled}


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
