"""Drives the step queue's messages of a batch, or the dead letters', all at the same time."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aws_lambda_powertools.utilities.typing import LambdaContext
from detent_infra.engine import Engine, Origin
from detent_infra.ports import MessageQueue
from detent_infra.redelivery import HIDDEN, drive, hide, keep_hidden
from detent_state_machine.errors import RecordError
from detent_state_machine.messages import Cancel, Drive, Start, Wake, decode

from detent_functions.batches import RESERVE_MS, BatchRecord, BatchResponse, answer, read, records_of
from detent_functions.runtime import runtime
from detent_functions.telemetry import Counters, log, origin


class Batch(NamedTuple):
    """What the messages of one invocation share. It ends `left_ms` milliseconds from its start."""

    engine: Engine
    queue: MessageQueue
    left_ms: int
    origin: Origin
    dead: bool
    at_work: dict[str, None]
    """Receipts of the messages that are not done with, nor left."""


def handle(event: object, context: LambdaContext, *, dead: bool) -> BatchResponse:
    """Drives the batch's messages at the same time. Never raises: what was not done is kept."""
    records = [read(record) for record in records_of(event)]

    def drive(_: Counters, left_ms: int) -> list[str]:
        here = runtime()
        queue = here.backend.dead_letters if dead else here.backend.queue
        at_work = {record.message.receipt: None for record in records if record.message is not None}
        with here.beside(keep_hidden(queue, lambda: list(at_work), here.backend.timing)):
            try:
                engine = here.engine
            except Exception:
                at_work.clear()
                here.run(_leave(queue, records))
                raise
            return here.run(_drive(Batch(engine, queue, left_ms, origin(context), dead, at_work), records))

    return answer([record.id for record in records], context, drive)


async def _leave(queue: MessageQueue, records: list[BatchRecord]) -> None:
    """The code cannot be loaded: its messages come back after a pause, before their visibility runs out."""
    found = [(record.message, record.id) for record in records]
    await asyncio.gather(
        *(
            hide(queue, received.receipt, HIDDEN.pause(received.count), {"message_id": id})
            for received, id in found
            if received is not None
        )
    )


async def _drive(batch: Batch, records: list[BatchRecord]) -> list[str]:
    if not records:
        return []
    deadline = batch.engine.backend.clock() + batch.left_ms
    tasks = {asyncio.create_task(_one(batch, record, deadline)): record.id for record in records}
    _, late = await asyncio.wait(tasks, timeout=max(0, batch.left_ms - RESERVE_MS) / 1000)
    for task in late:
        log.error("message given up: the invocation is about to end", extra={"message_id": tasks[task]})
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=RESERVE_MS / 2000)
    return [message_id for task, message_id in tasks.items() if task in late or not task.result()]


async def _one(batch: Batch, record: BatchRecord, deadline: int) -> bool:
    """Whether the message can be deleted. Raises nothing."""
    about = {"message_id": record.id}
    received = record.message
    if received is None:
        log.error("message kept: its record is not one of SQS", extra=about)
        return False
    try:
        return await drive(
            batch.engine,
            batch.queue,
            received,
            dead=batch.dead,
            deadline=deadline,
            origin=batch.origin,
            sooner=True,
            about=about | _names(received.body),
        )
    finally:
        batch.at_work.pop(received.receipt, None)


def _names(body: str) -> dict[str, str]:
    """Which run and step run a message is about, for the log."""
    try:
        message = decode(body)
    except RecordError:
        return {}
    match message:
        case Drive(run_id, path):
            return {"run_id": run_id, "path": path}
        case Start(run_id) | Cancel(run_id):
            return {"run_id": run_id}
        case Wake(fact):
            return {"fact": fact.pk}
