"""How a run ends that nobody can read."""

from __future__ import annotations

import contextlib
import logging

from detent_state_machine import keys
from detent_state_machine.definition import DEFAULT_RETENTION_DAYS
from detent_state_machine.errors import CorruptRecord
from detent_state_machine.follow import Fails, change_run, unreadable_error
from detent_state_machine.graph import START
from detent_state_machine.messages import Drive, Message
from detent_state_machine.records import RunRecord
from detent_state_machine.turn import Moment

from detent_infra.ports import Backend, Conflict

log = logging.getLogger("detent")


async def end_unread(backend: Backend, message: Message, error: CorruptRecord) -> None:
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
