"""Everything that is read back from a queue or a store, fed with what nobody wrote: typed errors, and nothing else."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from detent_infra.logs.lines import from_json, to_json
from detent_infra.ports import LogLine
from detent_state_machine.definition import Definition
from detent_state_machine.errors import DetentError, InputError, RecordError
from detent_state_machine.filter_pattern import parse
from detent_state_machine.graph import graph_of
from detent_state_machine.messages import Drive, Start, decode, encode
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.step_path import StepPath
from hypothesis import example, given
from hypothesis import strategies as st

from tests.security.json_values import MANY, any_text, json_values

VALID_MESSAGES: list[dict[str, Any]] = [json.loads(encode(Start("r", fresh=True))), json.loads(encode(Drive("r", "s")))]
VALID_DEFINITION: dict[str, Any] = {
    "format": 1,
    "name": "w",
    "steps": [
        {"name": "a", "when": {"kind": "truthy", "ref": {"step": None, "path": ["x"]}}},
        {"name": "b", "parents": [{"step": "a", "need": "done"}], "retry": {"attempts": 2}},
    ],
}
VALID_STEP: dict[str, Any] = {
    "v": 1,
    "status": "RETRYING",
    "owner": "me",
    "inline": True,
    "started": 1,
    "error": '{"type": "E", "message": "m"}',
    "history": '[[1, 2, "e"]]',
    "output_ref": "0" * 64,
}
VALID_RUN: dict[str, Any] = {
    "v": 1,
    "workflow": "w",
    "version": "1",
    "status": "RUNNING",
    "created": 1,
    "input": "1",
    "metadata": '{"a": "b"}',
    "key": "k",
}
BOMBS = [
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"v":1,"kind":' + "[" * 50_000 + "]" * 50_000 + "}",
    "1" * 100_000,
    '{"v": ' + "9" * 100_000 + "}",
    '{"v": 1e999999}',
    '{"format": ' + "9" * 5_000 + "}",
    '"' + "\\ud800" * 10_000 + '"',
    '{"a": NaN}',
    "\ud800",
    "\x00",
]

values = st.text() | st.integers() | st.booleans() | st.frozensets(st.integers(), min_size=1, max_size=3)
store_values = values | json_values.map(lambda value: json.dumps(value))


def changed(valid: dict[str, Any], replacement: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The valid object with some members replaced, dropped or added."""
    members = st.dictionaries(st.sampled_from(sorted(valid)) | any_text, replacement, max_size=4)
    dropped = st.sets(st.sampled_from(sorted(valid)), max_size=2)
    return st.builds(lambda more, less: {n: v for n, v in {**valid, **more}.items() if n not in less}, members, dropped)


def only_record_errors(read: Callable[[], object]) -> None:
    refused = ""
    try:
        read()
    except RecordError as error:
        refused = str(error)
    assert len(refused) < 2_000, "an error does not repeat what it could not read"


@MANY
@given(
    any_text
    | json_values.map(json.dumps)
    | st.sampled_from(VALID_MESSAGES).flatmap(lambda valid: changed(valid, json_values).map(json.dumps))
)
def test_a_message_is_decoded_or_refused(body: str) -> None:
    only_record_errors(lambda: decode(body))


@MANY
@given(any_text | json_values.map(json.dumps) | changed(VALID_DEFINITION, json_values).map(json.dumps))
def test_a_definition_is_read_or_refused(text: str) -> None:
    only_record_errors(lambda: graph_of(Definition.from_json(text)))


@MANY
@given(changed(VALID_STEP, store_values) | st.dictionaries(any_text, store_values, max_size=5))
def test_a_step_record_is_read_or_refused(item: dict[str, Any]) -> None:
    only_record_errors(lambda: StepRecord.from_item(StepPath("s"), item))


@MANY
@given(changed(VALID_RUN, store_values) | st.dictionaries(any_text, store_values, max_size=5))
def test_a_run_record_is_read_or_refused(item: dict[str, Any]) -> None:
    only_record_errors(lambda: RunRecord.from_item("r", item))


@MANY
@given(any_text | json_values.map(json.dumps))
def test_a_log_line_is_read_or_is_none_of_ours(text: str) -> None:
    line = from_json(text)
    assert line is None or from_json(to_json(line)) == line


@MANY
@example("(" * 100_000)
@example("{ " + "($.a = 1) && " * 5_000 + "($.a = 1) }")
@example("%" + "(a*)*" * 200 + "%")
@given(any_text | st.text("{}()$.=&|!<>%\"'*?[]-^ab1 \\", max_size=60))
def test_a_filter_pattern_is_compiled_or_refused_and_matching_ends(pattern: str) -> None:
    began = time.thread_time()  # a machine that is paused or busy spends none
    try:
        matches = parse(pattern)
    except InputError:
        return
    for line in ("", "a" * 200, '{"a": 1}', "[" * 10_000, '{"a": ' + "9" * 10_000 + "}"):
        assert matches(line) in (True, False)
    assert time.thread_time() - began < 5


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_is_refused_everywhere_it_can_be_put_and_takes_no_memory(bomb: str) -> None:
    tracemalloc.start()
    try:
        for read in (
            lambda: decode(bomb),
            lambda: graph_of(Definition.from_json(bomb)),
            lambda: StepRecord.from_item(StepPath("s"), {**VALID_STEP, "history": bomb}),
            lambda: StepRecord.from_item(StepPath("s"), {**VALID_STEP, "error": bomb}),
            lambda: RunRecord.from_item("r", {**VALID_RUN, "metadata": bomb}),
        ):
            with pytest.raises(DetentError):
                read()
        assert from_json(bomb) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50 * max(len(bomb), 20_000)


def test_a_condition_that_is_nested_beyond_reason_is_refused() -> None:
    deep: dict[str, Any] = {"kind": "truthy", "ref": {"step": None, "path": []}}
    text = json.dumps(deep)
    for _ in range(5_000):
        text = '{"kind":"not","part":' + text + "}"
    steps = '[{"name":"a","when":' + text + "}]"
    with pytest.raises(RecordError):
        Definition.from_json('{"format":1,"name":"w","steps":' + steps + "}")


@pytest.mark.parametrize("name", ["@start", "@end", "@handled"])
def test_a_stored_definition_whose_step_is_called_like_the_engines_own_is_corrupt(name: str) -> None:
    definition = {"format": 1, "name": "w", "steps": [{"name": "a"}, {"name": name}]}
    with pytest.raises(RecordError):
        graph_of(Definition.from_json(json.dumps(definition)))


def test_log_fields_that_are_nested_beyond_reason_lose_no_line() -> None:
    line = LogLine(1, "INFO", "said", "r", "s", 1, '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    written = from_json(to_json(line))
    assert written is not None
    assert written.message == "said"
