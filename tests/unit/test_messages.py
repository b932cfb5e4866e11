"""Messages survive the queue, and what is none is refused by kind: newer, or corrupt."""

from __future__ import annotations

import json

import pytest
from detent_state_machine.errors import CorruptRecord, NewerRecord
from detent_state_machine.messages import Drive, Message, Start, decode, encode
from hypothesis import given
from hypothesis import strategies as st

messages: st.SearchStrategy[Message] = st.builds(Start, st.text(), st.booleans()) | st.builds(
    Drive, st.text(), st.text()
)


@given(messages)
def test_a_message_survives_its_encoding(message: Message) -> None:
    assert decode(encode(message)) == message


def test_the_encoding_is_what_other_languages_read() -> None:
    assert json.loads(encode(Start("r1", fresh=True))) == {"v": 1, "kind": "start", "run": "r1", "fresh": True}
    assert json.loads(encode(Drive("r1", "charge"))) == {"v": 1, "kind": "drive", "run": "r1", "path": "charge"}


def test_a_message_of_any_run_and_path_fits_into_a_queue() -> None:
    assert len(encode(Drive("r" * 256, "é" * 256)).encode()) < 4096


def test_a_newer_message_is_left_to_a_newer_worker() -> None:
    with pytest.raises(NewerRecord, match="format 3; this worker reads up to 2"):
        decode('{"v": 3, "kind": "something else"}')


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[1]",
        "null",
        "{}",
        "[" * 100_000,
        '{"v": 0, "kind": "start", "run": "r", "fresh": true}',
        '{"v": "1", "kind": "start", "run": "r", "fresh": true}',
        '{"v": 1, "kind": "stop", "run": "r"}',
        '{"v": 1, "kind": "start", "run": "r"}',
        '{"v": 1, "kind": "start", "run": 7, "fresh": true}',
        '{"v": 1, "kind": "start", "run": "r", "fresh": 1}',
        '{"v": 1, "kind": "drive", "run": "r"}',
        '{"v": 1, "kind": "drive", "run": "r", "path": null}',
    ],
)
def test_anything_else_is_corrupt_and_shown(body: str) -> None:
    with pytest.raises(CorruptRecord, match="The queue holds a message") as refused:
        decode(body)
    assert repr(body[:80]) in refused.value.message


@given(
    st.text()
    | st.dictionaries(st.sampled_from(["v", "kind", "run", "path", "fresh"]), st.text() | st.integers()).map(json.dumps)
)
def test_decoding_raises_record_errors_only(body: str) -> None:
    try:
        message = decode(body)
    except (CorruptRecord, NewerRecord):
        return
    assert decode(encode(message)) == message


def test_fields_that_a_later_version_adds_do_not_matter() -> None:
    assert decode('{"v": 1, "kind": "drive", "run": "r", "path": "p", "hint": 1}') == Drive("r", "p")
