"""What an ended run still owes: waits that are open are closed. And how one ends that nobody can read."""

from __future__ import annotations

import contextlib
import logging

from detent_state_machine import keys
from detent_state_machine.definition import DEFAULT_RETENTION_DAYS
from detent_state_machine.errors import CorruptRecord
from detent_state_machine.follow import Fails, change_run, closes, unreadable_error
from detent_state_machine.graph import START, Graph
from detent_state_machine.messages import Drive, RunMessage
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.turn import Moment

from detent_infra.ports import Backend, Conflict

log = logging.getLogger("detent")


async def close_waits(backend: Backend, graph: Graph, run: RunRecord) -> None:
    """Closes what a run that failed or was cancelled still waits for.

    Whoever finds the run ended repeats it before the message is acknowledged, so that a death in between costs nothing.
    """
    now = backend.clock()
    at, token = Moment(now, now // 1000 + graph.retention), backend.new_owner()
    waits = graph.waits if run.owes_closes else ()
    items = await backend.table.get_many([keys.step_key(run.run_id, path) for path in waits]) if waits else []
    found = [StepRecord.from_item(path, item) for path, item in zip(waits, items, strict=True) if item is not None]
    for write in closes(run.run_id, token, found, at):
        with contextlib.suppress(Conflict):  # A message ended it first, or closed it.
            await backend.table.write(write)


async def end_unread(backend: Backend, message: RunMessage, error: CorruptRecord) -> None:
    """A dead letter whose run or definition cannot be read: neither handlers nor retention are known. The run fails if
    its own record is sound; else the log has it.
    """
    log.error("dead letter of run %r: %s", message.run_id, error)
    with contextlib.suppress(CorruptRecord, Conflict):
        item = await backend.table.get(keys.run_key(message.run_id))
        run = RunRecord.from_item(message.run_id, item or {})
        now = backend.clock()
        path = message.path if isinstance(message, Drive) else START
        at = Moment(now, now // 1000 + DEFAULT_RETENTION_DAYS * 86_400)
        await backend.table.write(change_run(run, Fails(path, unreadable_error(error)), at))
