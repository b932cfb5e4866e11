"""Starting twice, starting halfway, and records that cannot be read. Nothing is guessed at, nothing half-written."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest
from detent import (
    App,
    CorruptRecord,
    DetentError,
    InputError,
    KeyConflict,
    NewerRecord,
    Retry,
    RunStatus,
    StepStatus,
    Unavailable,
)
from detent.testing import Harness
from detent.testing.simulation.faults import Fault, PortCall
from detent_infra.memory import MemoryBlobs
from detent_state_machine.keys import definition_key, run_key, step_key
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Item, Key, PutItem

from tests.scenarios.faulty import Faulty, Told, chain, client_of, world

# ---- start -------------------------------------------------------------------------------------------------------


def calls_of_a_start() -> list[PortCall]:
    w, clean = chain(2), Told()
    with Faulty(w.app) as h:
        h.wait_for(client_of(h, clean).astart(w.flow, 5, key="A-17"))
    return clean.calls


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.UNKNOWN, Fault.REPEATED])
def test_a_start_that_failed_halfway_is_repeated_with_its_key_and_starts_one_run(fault: Fault) -> None:
    refused: set[str] = set()
    for position, call in enumerate(calls_of_a_start()):
        w = chain(2)
        with Faulty(w.app) as h:
            client = client_of(h, Told(position, fault))
            try:
                h.wait_for(client.astart(w.flow, 5, key="A-17"))
            except Unavailable:
                refused |= {call.operation, call.what}
            first = h.wait_for(client.astart(w.flow, 5, key="A-17"))
            assert h.result(first) == 1
            assert h.wait_for(client.astart(w.flow, 5, key="A-17")).id == first.id
            with pytest.raises(KeyConflict, match=r"Key 'A-17' already started run .* with another input"):
                h.wait_for(client.astart(w.flow, 6, key="A-17"))
            h.advance(60)
            # A start message that is there twice may run a body twice, which at_least_once allows.
            assert call.operation == "send" or set(w.bodies.values()) == {1}
            assert len(h.wait_for(h.client.aruns())) == 1
            assert h.result(first) == 1
    assert ({"put run", "send"} <= refused) == (fault is not Fault.REPEATED)


def test_a_start_without_a_key_that_was_refused_leaves_nothing() -> None:
    w = chain(1)
    with Faulty(w.app) as h:
        client = client_of(h, lambda call: Fault.REFUSED if call.what == "put run" else None)
        with pytest.raises(Unavailable):
            h.wait_for(client.astart(w.flow, 5))
        h.advance(60)
        assert (h.wait_for(h.client.aruns()), h.queue.bodies()) == ([], [])


@pytest.mark.parametrize(
    "metadata",
    [{"n": 1}, {1: "n"}, {"n": None}, {"n": "\ud800"}, {"n": "x" * 3000}],
    ids=["number", "number as name", "none", "surrogate", "long"],
)
def test_metadata_that_could_not_be_read_back_is_refused_before_anything_is_written(metadata: Any) -> None:
    w = chain(1)
    with Faulty(w.app) as h:
        with pytest.raises(InputError, match="metadata"):
            h.start(w.flow, 5, metadata=metadata)
        assert h.wait_for(h.client.aruns()) == []


@pytest.mark.parametrize("key", ["", "x" * 513, "\ud800"])
def test_a_key_that_could_not_be_stored_is_refused_before_anything_is_written(key: str) -> None:
    w = chain(1)
    with Faulty(w.app) as h:
        with pytest.raises(InputError, match="idempotency key"):
            h.start(w.flow, 5, key=key)
        assert h.wait_for(h.client.aruns()) == []


# ---- records that cannot be read ---------------------------------------------------------------------------------


NEWER = {"v": 99}
CORRUPT: dict[str, Any] = {"status": "DANCING"}


def broken(record: Item, change: dict[str, Any]) -> Item:
    return {name: value for name, value in {**record, **change}.items() if value is not None}


def refused(h: Faulty, key: Key, change: dict[str, Any]) -> DetentError:
    """Breaks the record, and drives the next message against it: it must be refused, and kept. Then fixes it."""

    async def scenario() -> DetentError:
        whole = await h.backend.table.get(key)
        assert whole is not None
        await h.backend.table.write(PutItem(key, broken(whole, change), expect=None))
        message = await h.next_message()
        before = len(h.queue.bodies())
        with pytest.raises(DetentError) as error:
            await h._engine.handle(message)
        assert len(h.queue.bodies()) == before
        await h.queue.extend(message.receipt, 0)
        await h.backend.table.write(PutItem(key, whole, expect=None))
        return error.value

    return h.wait_for(scenario())


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (NEWER, NewerRecord, "Upgrade this worker"),
        (CORRUPT, CorruptRecord, "It was not written by detent, or was changed by hand"),
        ({"created": "yesterday"}, CorruptRecord, "created is str, not a number"),
        ({"version": None}, CorruptRecord, "version"),
        ({"metadata": "not json"}, CorruptRecord, "cannot be read"),
    ],
    ids=["newer", "corrupt status", "wrong kind", "missing", "no json"],
)
def test_a_run_record_that_cannot_be_read_is_refused_and_its_message_kept(
    change: dict[str, Any], kind: type[DetentError], said: str
) -> None:
    w = chain(2)
    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        error = refused(h, run_key(run.id), change)
        assert isinstance(error, kind)
        assert run.id in str(error)
        assert said in str(error)
        h.start_worker()
        assert h.result(run) == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (NEWER, NewerRecord),
        (CORRUPT, CorruptRecord),
        ({"owner": None}, CorruptRecord),
        ({"errors": "1"}, CorruptRecord),
    ],
    ids=["newer", "corrupt status", "missing", "wrong kind"],
)
def test_a_step_record_that_cannot_be_read_is_refused_and_its_message_kept(
    change: dict[str, Any], kind: type[DetentError]
) -> None:
    w = world()

    @w.flow.step(retry=Retry(attempts=2, initial=100.0))
    def call(n: int) -> int:
        return n

    with Faulty(w.app) as h:
        h.fail("call", ConnectionError())
        run = h.start(w.flow, 5)
        h.advance(1)
        assert h.steps(run)["call"].status is StepStatus.RETRYING
        h.stop_worker()
        error = refused(h, step_key(run.id, StepPath("call")), change)
        assert isinstance(error, kind)
        assert "'call'" in str(error)
        h.start_worker()
        assert h.result(run) == 5


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"definition": '{"format":99}'}, NewerRecord, "Upgrade this worker"),
        ({"definition": '{"format":1,"name":"w"}'}, CorruptRecord, "A stored definition cannot be read: steps"),
        ({"definition": "not json"}, CorruptRecord, "A stored definition cannot be read"),
        ({"definition": None}, CorruptRecord, "holds no definition"),
        ({"definition": 5}, CorruptRecord, "holds no definition"),
    ],
    ids=["newer", "incomplete", "no json", "missing", "wrong kind"],
)
def test_a_definition_that_cannot_be_read_is_refused_and_its_message_kept(
    change: dict[str, Any], kind: type[DetentError], said: str
) -> None:
    old, new = chain(2), chain(3)
    with Faulty(new.app) as h:
        h.stop_worker()
        run = h.start(old.flow, 5)  # by code that was deployed before
        error = refused(h, definition_key("w", old.flow.definition.version), change)
        assert isinstance(error, kind)
        assert said in str(error)
        assert "workflow 'w'" in str(error)
        h.start_worker()
        assert h.result(run) == 1


def test_a_worker_keeps_trying_a_record_it_cannot_read_says_so_and_goes_on_with_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    w = chain(2)
    with Faulty(w.app) as h:
        h.stop_worker()
        run, other = h.start(w.flow, 5), h.start(w.flow, 6)
        whole = h.wait_for(h.backend.table.get(run_key(run.id))) or {}
        h.wait_for(h.backend.table.write(PutItem(run_key(run.id), broken(whole, NEWER), expect=None)))
        h.start_worker()
        with caplog.at_level(logging.WARNING, logger="detent"):
            assert h.result(other) == 1
            h.advance(2000)
        assert "format 99; this worker reads up to 1. Upgrade this worker." in caplog.text
        assert len(h.queue.bodies()) + len(h.dead.bodies()) == 1  # kept, for who can read it
        assert w.bodies["s0"] == 1
        h.wait_for(h.backend.table.write(PutItem(run_key(run.id), whole, expect=None)))
        assert h.settle(run) is not RunStatus.RUNNING


def test_a_condition_that_can_no_longer_be_evaluated_ends_a_step_run_that_had_an_attempt() -> None:
    """Its input is gone between two attempts: the record is there already, and must not be in the way of its end."""
    app = App("lost", url="memory://")
    flow = app.workflow("lost", input=dict[str, str])

    @flow.step(when=flow.input["go"] == "yes", retry=Retry(attempts=3, initial=60.0, jitter=False))
    def fetch(given: dict[str, str]) -> None:
        raise ConnectionError("not now")

    with Harness(app) as h:
        run = h.start(flow, {"go": "yes", "large": "x" * 20_000})
        h.advance(1.0)
        assert h.steps(run)["fetch"].status is StepStatus.RETRYING
        cast("MemoryBlobs", h.backend.blobs)._store.blobs.clear()
        h.stop_worker()  # what it had read is forgotten
        h.start_worker()
        assert h.settle(run, within=3600) is RunStatus.FAILED
        record = h.steps(run)["fetch"]
        assert (record.status, record.error and record.error.type) == (StepStatus.FAILED, "CorruptRecord")
