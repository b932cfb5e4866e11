"""Records survive storage, stay small, and are refused rather than guessed at when they cannot be read."""

from __future__ import annotations

import json

import pytest
from detent_state_machine import keys
from detent_state_machine.errors import CorruptRecord, NewerRecord
from detent_state_machine.records import (
    FORMAT,
    INDEXED,
    MAX_HISTORY,
    MAX_MESSAGE,
    MAX_TRACE,
    NULL,
    ErrorInfo,
    PastAttempt,
    Payload,
    RunRecord,
    StepRecord,
    history_json,
    payload_attributes,
)
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Item, Value
from hypothesis import given
from hypothesis import strategies as st

RUN = RunRecord(
    "run-1",
    "orders",
    "v1",
    RunStatus.RUNNING,
    created=123,
    input=Payload('{"a":1}'),
    key="A-17",
    metadata={"customer": "é"},
    retry_of="run-0",
)
STEP: Item = {"v": 1, "status": "RUNNING", "owner": "me", "inline": True, "started": 5, "lease": 9}


def test_a_run_survives_storage() -> None:
    assert RunRecord.from_item("run-1", RUN.to_item()) == RUN


@given(
    st.builds(
        RunRecord,
        run_id=st.just("run-1"),
        workflow=st.text(),
        version=st.text(),
        status=st.sampled_from(RunStatus),
        created=st.integers(0, 10**14),
        input=st.builds(Payload, text=st.text(min_size=1)) | st.builds(Payload, ref=st.text(min_size=1)),
        key=st.none() | st.text(),
        metadata=st.dictionaries(st.text(), st.text()),
        retry_of=st.none() | st.text(),
    )
)
def test_any_run_survives_storage(run: RunRecord) -> None:
    assert RunRecord.from_item("run-1", run.to_item()) == run


def test_a_run_can_be_listed_from_what_the_index_holds() -> None:
    entry = {name: value for name, value in RUN.to_item().items() if name in INDEXED}
    listed = RunRecord.from_item("run-1", entry)
    assert listed.input == NULL
    assert (listed.workflow, listed.status, listed.key, listed.metadata) == ("orders", RUN.status, "A-17", RUN.metadata)
    assert entry["ipk"] == keys.index_partition("orders", keys.shard_of("run-1"))


def test_a_step_is_read_with_defaults_for_what_it_does_not_have_yet() -> None:
    assert StepRecord.from_item(StepPath("charge"), STEP) == StepRecord(
        StepPath("charge"), StepStatus.RUNNING, "me", True, started=5, lease=9
    )


def test_a_step_that_has_ended_is_read_whole() -> None:
    more: dict[str, Value] = {
        "status": "FAILED",
        "ended": 20,
        "expires": 99,
        "errors": 2,
        "takeovers": 1,
        "error": ErrorInfo("Refused", "no", "trace").to_json(),
        "history": history_json((PastAttempt(1, 2, "Refused: no"),)),
        "output_ref": "sha",
    }
    read = StepRecord.from_item(StepPath("charge"), {**STEP, **more})
    assert (read.status, read.ended, read.expires, read.errors, read.takeovers) == (StepStatus.FAILED, 20, 99, 2, 1)
    assert read.error == ErrorInfo("Refused", "no", "trace")
    assert read.history == (PastAttempt(1, 2, "Refused: no"),)
    assert read.output == Payload(ref="sha")


@pytest.mark.parametrize("payload", [Payload("1"), Payload(ref="sha"), NULL])
def test_a_payload_survives_storage(payload: Payload) -> None:
    read = StepRecord.from_item(StepPath("charge"), {**STEP, **payload_attributes("output", payload)})
    assert read.output == payload


# ---- refused ----------------------------------------------------------------------------------------------------


def test_a_record_of_a_newer_format_is_refused_and_says_to_upgrade() -> None:
    for read in (
        lambda: StepRecord.from_item(StepPath("charge"), {"v": FORMAT + 1}),
        lambda: RunRecord.from_item("run-1", {"v": FORMAT + 1}),
    ):
        with pytest.raises(NewerRecord, match=f"format {FORMAT + 1}.*Upgrade this worker"):
            read()


def test_a_newer_format_is_newer_even_if_it_could_be_read() -> None:
    with pytest.raises(NewerRecord):
        StepRecord.from_item(StepPath("charge"), {**STEP, "v": FORMAT + 1})


@pytest.mark.parametrize(
    "change",
    [
        {"status": "WORKING"},
        {"status": 1},
        {"owner": 1},
        {"started": "now"},
        {"lease": "later"},
        {"errors": frozenset({1})},
        {"output": 7},
        {"output_ref": 7},
        {"error": "not json"},
        {"error": "{}"},
        {"error": "[]"},
        {"error": 5},
        {"error": '{"type": 1, "message": ""}'},
        {"inline": "false"},
        {"errors": True},
        {"history": 5},
        {"history": '[["1", "2", 3]]'},
        {"history": "not json"},
        {"history": "[[1]]"},
        {"history": "[1]"},
    ],
    ids=str,
)
def test_a_corrupt_step_is_refused_by_name(change: dict[str, Value]) -> None:
    with pytest.raises(CorruptRecord, match="step run 'charge' cannot be read"):
        StepRecord.from_item(StepPath("charge"), {**STEP, **change})


@pytest.mark.parametrize("name", ["status", "owner", "inline"])
def test_a_step_without_what_every_step_has_is_refused(name: str) -> None:
    item = {other: value for other, value in STEP.items() if other != name}
    with pytest.raises(CorruptRecord, match=name):
        StepRecord.from_item(StepPath("charge"), item)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "WORKING"},
        {"workflow": 1},
        {"created": "x"},
        {"metadata": "{"},
        {"metadata": "[]"},
        {"metadata": '{"a": 1}'},
        {"error": "{}"},
        {"input": 1},
    ],
    ids=str,
)
def test_a_corrupt_run_is_refused_by_name(change: dict[str, Value]) -> None:
    with pytest.raises(CorruptRecord, match="run 'run-1' cannot be read"):
        RunRecord.from_item("run-1", {**RUN.to_item(), **change})


@pytest.mark.parametrize("name", ["status", "workflow", "version", "created"])
def test_a_run_without_what_every_run_has_is_refused(name: str) -> None:
    item = {other: value for other, value in RUN.to_item().items() if other != name}
    with pytest.raises(CorruptRecord, match=name):
        RunRecord.from_item("run-1", item)


def test_nesting_beyond_reason_is_corrupt_and_no_crash() -> None:
    for name in ("error", "history"):
        with pytest.raises(CorruptRecord):
            StepRecord.from_item(StepPath("charge"), {**STEP, name: "[" * 100_000})


# ---- bounded ----------------------------------------------------------------------------------------------------


def test_the_history_keeps_the_newest_attempts_and_stays_small() -> None:
    past = tuple(PastAttempt(n, n + 1, "x" * 5000) for n in range(MAX_HISTORY + 5))
    stored = history_json(past)
    assert len(stored) < 3000
    kept = StepRecord.from_item(StepPath("charge"), {**STEP, "history": stored}).history
    assert [attempt.started for attempt in kept] == list(range(5, MAX_HISTORY + 5))
    assert kept[0].error.endswith("…")


def test_a_long_error_keeps_the_start_of_its_message_and_the_end_of_its_trace() -> None:
    stored = json.loads(ErrorInfo("E", "first" + "m" * 5000, "t" * 9000 + "last").to_json())
    assert len(stored["message"]) == MAX_MESSAGE
    assert stored["message"].startswith("first")
    assert len(stored["trace"]) == MAX_TRACE
    assert stored["trace"].endswith("last")


def test_a_short_error_is_kept_as_it_is() -> None:
    assert json.loads(ErrorInfo("E", "m" * MAX_MESSAGE, "t" * MAX_TRACE).to_json()) == {
        "type": "E",
        "message": "m" * MAX_MESSAGE,
        "trace": "t" * MAX_TRACE,
    }


# ---- keys -------------------------------------------------------------------------------------------------------


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.none() | st.integers(0, 99))
def test_no_name_can_be_taken_for_another_record(run: str, one: str, other: str, group: int | None) -> None:
    found = [keys.run_key(run), keys.step_key(run, StepPath(one)), keys.join_key(run, other, group)]
    assert len(set(found)) == 3
    assert (keys.step_key(run, StepPath(one)) == keys.step_key(run, StepPath(other))) == (one == other)
    assert keys.join_key(run, one) != keys.join_key(run, other, 1)


def test_runs_are_ordered_by_creation_and_live_ones_apart() -> None:
    order = [keys.index_sort("live", created=created, run_id="r") for created in (9, 10, 10**12)]
    assert order == sorted(order)
    parts = {status: keys.index_part(status) for status in RunStatus}
    assert parts[RunStatus.RUNNING] == parts[RunStatus.FAILING] == "live"
    assert len(set(parts.values())) == 4


def test_runs_are_spread_over_all_shards() -> None:
    assert {keys.shard_of(f"run-{n}") for n in range(200)} == set(range(keys.SHARDS))
