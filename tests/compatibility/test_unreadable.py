"""What this version cannot read: newer records are left to a newer worker, corrupt ones end where people look.

Neither is ever guessed at, and neither stops a worker from doing everything else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from detent import NewerRecord, RunStatus
from detent.testing import Harness
from detent_infra.definitions import Definitions
from detent_infra.memory import MemoryQueue
from detent_infra.ports import Timing
from detent_infra.runs.reaper import reap
from detent_infra.sqlite import sqlite_backend
from detent_infra.sqlite.database import SCHEMA_VERSION
from detent_state_machine import definition, messages, records
from detent_state_machine.messages import Drive, encode
from detent_state_machine.writes import DeleteItem, Item, Key, PutItem

from tests.compatibility.test_kept_runs import KEPT, LATER, lay_down, restore
from tests.compatibility.workflows import Kept, open_app
from tests.support.snapshot import Snapshot

FAST = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=1.0, visibility=1.0)
RETRYING = KEPT["v1/retrying"]
RUN = RETRYING.expected.run


@pytest.fixture(params=["memory", "sqlite"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Harness, Kept]]:
    """A backend with a run that is due for its third step's second attempt, and no worker yet."""
    app = open_app()
    backend = None if request.param == "memory" else sqlite_backend(tmp_path / "detent.db", timing=FAST)
    with Harness(app.app, backend=backend) as h:
        lay_down(h, RETRYING)
        if backend is None:
            h.wait_for(asyncio.sleep(LATER))
        yield h, app


def change(h: Harness, key: Key, **attributes: Any) -> Item:
    item = h.wait_for(h.backend.table.get(key))
    assert item is not None
    changed = {**item, **attributes}
    h.wait_for(h.backend.table.write(PutItem(key, changed, expect=None)))
    return changed


def key_of(sk: str) -> Key:
    return Key(f"run#{RUN}", sk)


def definition_of(snapshot: Snapshot) -> tuple[Key, Item]:
    [found] = [(key, item) for key, item in snapshot.items if key.pk == "definitions#chain"]
    return found


def waiting(h: Harness) -> list[str]:
    """The messages stored, whichever queue they are in, visible or not."""
    if isinstance(h.backend.queue, MemoryQueue):
        queues = (h.backend.queue, cast("MemoryQueue", h.backend.dead_letters))
        return [message.body for queue in queues for message in queue._messages.values()]
    with closing(sqlite3.connect(h.backend.url.removeprefix("sqlite:///"))) as connection:
        return [body for (body,) in connection.execute("SELECT body FROM messages")]


def assert_others_go_on(kept: tuple[Harness, Kept], caplog: pytest.LogCaptureFixture) -> None:
    """A worker does what it can, and says of the rest what to do."""
    h, app = kept
    with caplog.at_level(logging.WARNING, logger="detent"):
        h.start_worker()
        assert h.run(app.chain, 1) == "sent 21"
        h.advance(0.5)
        h.stop_worker()
    assert "Upgrade this worker." in caplog.text


# ---- newer ------------------------------------------------------------------------------------------------------


def test_a_newer_run_record_is_refused_left_in_the_queue_and_others_go_on(
    kept: tuple[Harness, Kept], caplog: pytest.LogCaptureFixture
) -> None:
    _refuses(kept, caplog, key_of("run"))


def test_a_newer_step_record_is_refused_left_in_the_queue_and_others_go_on(
    kept: tuple[Harness, Kept], caplog: pytest.LogCaptureFixture
) -> None:
    _refuses(kept, caplog, key_of("step#third"))


def _refuses(kept: tuple[Harness, Kept], caplog: pytest.LogCaptureFixture, key: Key) -> None:
    h, app = kept
    record = change(h, key, v=records.FORMAT + 1)
    assert_others_go_on(kept, caplog)
    assert h.wait_for(h.backend.table.get(key)) == record
    assert "third" not in app.bodies.get(RUN, {})
    # An upgrade, here by making the record readable, is all it takes: the message is still there.
    change(h, key, v=records.FORMAT)
    h.start_worker()
    assert h.result(h.client.handle(RUN)) == "sent 61"


def test_a_newer_definition_is_refused_left_in_the_queue_and_others_go_on(
    kept: tuple[Harness, Kept], caplog: pytest.LogCaptureFixture
) -> None:
    h, _ = kept
    key, item = definition_of(RETRYING)
    newer = {**json.loads(str(item["definition"])), "format": definition.FORMAT + 1, "told": "by a newer detent"}
    other = Key(key.pk, "of-a-newer-detent")
    h.wait_for(h.backend.table.write(PutItem(other, {"definition": json.dumps(newer)})))
    change(h, key_of("run"), version=other.sk)
    assert_others_go_on(kept, caplog)
    assert f"A definition has format {definition.FORMAT + 1}" in caplog.text
    change(h, key_of("run"), version=key.sk)
    h.start_worker()
    assert h.result(h.client.handle(RUN)) == "sent 61"


def test_a_newer_message_is_refused_and_kept_and_others_go_on(
    kept: tuple[Harness, Kept], caplog: pytest.LogCaptureFixture
) -> None:
    h, _ = kept
    newer = json.dumps({"v": messages.FORMAT + 1, "kind": "signal", "run": RUN})
    h.wait_for(h.backend.queue.send([newer]))
    with caplog.at_level(logging.WARNING, logger="detent"):
        h.start_worker()
        assert h.result(h.client.handle(RUN)) == "sent 61"
        h.advance(0.5)
        h.stop_worker()
    assert f"A message has format {messages.FORMAT + 1}" in caplog.text
    assert waiting(h) == [newer]


def test_a_newer_database_file_is_refused_with_what_to_do_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "detent.db"
    sqlite_backend(file).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.execute("DROP TABLE items")
    with pytest.raises(NewerRecord, match=rf"schema {SCHEMA_VERSION + 1}; this detent reads up to.*Upgrade detent"):
        sqlite_backend(file)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'items'").fetchall()


@pytest.mark.parametrize("sk", ["run", "step#third"])
@pytest.mark.parametrize("change_", [{"v": records.FORMAT + 1}, {"status": "DANCING"}], ids=["newer", "corrupt"])
def test_a_run_that_the_reaper_cannot_read_keeps_it_from_no_other(
    sk: str, change_: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    kept = open_app()
    lost = KEPT["v1/lost_its_message"]
    with Harness(kept.app) as h:
        lay_down(h, RETRYING, lost)
        change(h, key_of(sk), **change_)
        h.wait_for(asyncio.sleep(LATER))
        with caplog.at_level(logging.WARNING, logger="detent"):
            report = h.wait_for(reap(h.backend))
        assert (report.looked, report.stalled) == (1, 1)
        assert RUN in caplog.text


def test_a_run_that_cannot_be_read_is_named_by_the_list_which_has_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = open_app()
    with Harness(kept.app) as h:
        others = [KEPT["v1/lost_its_message"], KEPT["v1/completed"]]
        lay_down(h, RETRYING, *others)
        change(h, key_of("run"), status="DANCING")
        with caplog.at_level(logging.WARNING, logger="detent"):
            listed = h.wait_for(h.client.aruns())
        assert {run.run_id for run in listed} == {other.expected.run for other in others}
        [said] = [record.getMessage() for record in caplog.records]
        assert f"the list leaves out run {RUN}" in said


def test_a_definition_of_a_version_that_knew_fewer_fields_is_read_once_and_kept_at_hand() -> None:
    """Its hash is another one today than the version it is stored under; that must not make every message read it."""
    key, item = definition_of(RETRYING)
    older = json.loads(str(item["definition"]))
    for step in older["steps"]:
        del step["takeovers"], step["description"]
    with Harness(open_app().app) as h:
        at = Key(key.pk, "older")
        h.wait_for(h.backend.table.write(PutItem(at, {"definition": json.dumps(older)})))
        known = Definitions(h.backend)
        first = h.wait_for(known.graph("chain", "older"))
        h.wait_for(h.backend.table.write(DeleteItem(at)))
        assert h.wait_for(known.graph("chain", "older")) is first


# ---- corrupt ------------------------------------------------------------------------------------------------------

CORRUPT_ITEMS: dict[str, tuple[Key, dict[str, Any]]] = {
    "step": (key_of("step#third"), {"status": "DANCING"}),
    "parent": (key_of("step#second"), {"owner": 5}),
    "definition": (definition_of(RETRYING)[0], {"definition": "{"}),
    "output": (key_of("step#second"), {"output": "{"}),
}


def test_a_corrupt_value_that_a_condition_looks_at_fails_its_step() -> None:
    kept, snapshot = open_app(), KEPT["v1/skipped"]
    run = snapshot.expected.run
    with Harness(kept.app) as h:
        items = [(key, {**item, "output": "["} if key.sk == "step#weigh" else item) for key, item in snapshot.items]
        items = [(key, item) for key, item in items if key.sk not in ("step#heavy", "step#carried")]
        restore(h, Snapshot(snapshot.situation, snapshot.expected, items, snapshot.messages))
        assert h.settle(h.client.handle(run)) is RunStatus.FAILED
        assert h.steps(h.client.handle(run))["heavy"].error is not None


@pytest.mark.parametrize("which", CORRUPT_ITEMS)
def test_a_corrupt_record_ends_its_run_where_people_look_and_takes_no_worker_down(
    which: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = open_app()
    key, wrong = CORRUPT_ITEMS[which]
    with Harness(kept.app) as h:
        lay_down(h, RETRYING)
        if which == "definition":  # of another version than the deployed one, which is not read
            _, item = definition_of(RETRYING)
            key = Key(key.pk, "another")
            h.wait_for(h.backend.table.write(PutItem(key, item)))
            change(h, key_of("run"), version="another")
        change(h, key, **wrong)
        h.start_worker()
        with caplog.at_level(logging.WARNING, logger="detent"):
            assert h.run(kept.chain, 1) == "sent 21"
            h.advance(3_600)
        run = h.wait_for(h.client.aget(RUN))
        assert run.status is RunStatus.FAILED
        assert run.error is not None
        assert run.error.type in ("CorruptRecord", "InputError"), run.error
        assert waiting(h) == []
        assert h.run(kept.chain, 2) == "sent 31"


def test_a_run_record_that_is_corrupt_ends_in_the_log_and_its_message_loops_for_ever_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = open_app()
    with Harness(kept.app) as h:
        lay_down(h, RETRYING)
        corrupt = change(h, key_of("run"), status="DANCING")
        h.start_worker()
        with caplog.at_level(logging.ERROR, logger="detent"):
            assert h.run(kept.chain, 1) == "sent 21"
            h.advance(3_600)
        assert f"run {RUN!r} cannot be read" in caplog.text
        assert waiting(h) == []
        assert h.wait_for(h.backend.table.get(key_of("run"))) == corrupt


def test_a_missing_blob_fails_its_run_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    kept = open_app()
    large = KEPT["v1/large_payloads"]
    without = Snapshot(large.situation, large.expected, large.items, large.messages)
    with Harness(kept.app) as h:
        restore(h, without)
        assert h.run(kept.chain, 1) == "sent 21"
        h.advance(3_600)
        run = h.wait_for(h.client.aget(large.expected.run))
        assert run.status is RunStatus.FAILED
        assert waiting(h) == []


def test_a_corrupt_step_is_handled_like_any_other_failure() -> None:
    """A workflow with a failure handler gives back what it holds, whatever the reason."""
    kept = open_app()
    guarded = KEPT["v1/failing_with_a_handler_at_work"]
    run = guarded.expected.run
    with Harness(kept.app) as h:
        lay_down(h, guarded)
        item = {**guarded.run_items()["run"], "status": "RUNNING"}
        h.wait_for(h.backend.table.write(PutItem(Key(f"run#{run}", "run"), item, expect=None)))
        change_step = {**guarded.run_items()["step#work"], "status": "DANCING"}
        h.wait_for(h.backend.table.write(PutItem(Key(f"run#{run}", "step#work"), change_step, expect=None)))
        h.wait_for(h.backend.dead_letters.send([encode(Drive(run, "work"))]))
        h.start_worker()
        assert h.settle(h.client.handle(run)) is RunStatus.FAILED
        assert kept.bodies[run]["apologise"] == 1
