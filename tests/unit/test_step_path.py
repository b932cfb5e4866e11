"""A path of a step run: how it is written, what it says, and that old names are not taken for one."""

from __future__ import annotations

import pytest
from detent_state_machine import keys
from detent_state_machine.compiler import DeclaredStep, compile_workflow
from detent_state_machine.definition import Definition, StepDefinition
from detent_state_machine.errors import CorruptRecord, DefinitionError, UnknownStep
from detent_state_machine.graph import graph_of
from detent_state_machine.step_path import MAX_DEPTH, RESERVED, StepPath
from hypothesis import given
from hypothesis import strategies as st

AGENT = StepPath("agent")
WRITTEN = {
    "charge": StepPath("charge"),
    "search[17]": StepPath("search", item=17),
    "agent/think#3": StepPath("think", scope=AGENT, occurrence=3),
    "agent/search#1[17]": StepPath("search", scope=AGENT, occurrence=1, item=17),
    "agent@2/think#3": StepPath("think", scope=AGENT, epoch=2, occurrence=3),
    "review[4]@12/think#1": StepPath("think", scope=StepPath("review", item=4), epoch=12, occurrence=1),
}
names = st.text(st.characters(exclude_characters=RESERVED), min_size=1, max_size=8)
numbers = st.integers(1, 10**6)
flat = st.builds(StepPath, names) | st.builds(StepPath, names, item=st.integers(0, 10**6))


def inside(scope: st.SearchStrategy[StepPath]) -> st.SearchStrategy[StepPath]:
    return st.builds(
        StepPath, names, scope=scope, epoch=numbers, occurrence=numbers, item=st.none() | st.integers(0, 10**6)
    )


paths = flat | inside(flat) | inside(inside(flat))


def parts(path: StepPath) -> tuple[object, ...]:
    above = None if path.scope is None else parts(path.scope)
    return above, path.epoch, path.name, path.occurrence, path.item


@pytest.mark.parametrize("text", WRITTEN)
def test_a_path_is_written_as_the_design_has_it(text: str) -> None:
    assert WRITTEN[text] == text
    assert parts(StepPath.parse(text, ())) == parts(WRITTEN[text])


@given(paths)
def test_what_is_written_is_read_again(path: StepPath) -> None:
    read = StepPath.parse(str(path), ())
    assert (read, parts(read)) == (path, parts(path))


@given(paths, paths)
def test_two_step_runs_never_have_one_path(one: StepPath, two: StepPath) -> None:
    assert (one == two) == (parts(one) == parts(two))


@pytest.mark.parametrize("text", ["", "a#0", "a[01]", "a[-1]", "a[1", "a[1]#2", "a@2", "/a", "a/", "a@0/b#1", "a@1@2"])
def test_what_is_not_a_path_is_refused(text: str) -> None:
    with pytest.raises(CorruptRecord):
        StepPath.parse(text, ())


def test_a_text_that_goes_on_without_end_is_refused() -> None:
    with pytest.raises(CorruptRecord, match="not the path"):
        StepPath.parse("a/" * (MAX_DEPTH + 1) + "a", ())
    with pytest.raises(CorruptRecord):
        StepPath.parse("a/" * 100_000, ())


def test_messages_about_a_wait_in_a_scope_are_for_the_durable_step() -> None:
    drivers = {text: str(path.driver) for text, path in WRITTEN.items()}
    assert drivers == {
        "charge": "charge",
        "search[17]": "search[17]",
        "agent/think#3": "agent",
        "agent/search#1[17]": "agent/search#1[17]",
        "agent@2/think#3": "agent",
        "review[4]@12/think#1": "review[4]",
    }


def test_the_items_of_a_fan_out_are_stored_in_partitions_of_a_hundred() -> None:
    assert keys.step_key("r", StepPath("search", item=99)).pk == "run#r#0"
    assert keys.step_key("r", StepPath("search", item=100)) == ("run#r#1", "step#search[100]")
    assert keys.step_key("r", StepPath("charge")) == ("run#r", "step#charge")
    assert {keys.run_id_of(keys.step_key("r", path).pk) for path in WRITTEN.values()} == {"r"}
    assert StepPath("search", item=100).fan_out == "search"


def test_step_runs_are_sorted_by_their_numbers_not_by_their_digits() -> None:
    found = [StepPath.parse(text, ()) for text in ("a[10]", "a[9]", "a/b#10", "a/b#2", "a", "a@2/b#1")]
    assert sorted(found, key=lambda path: path.order) == ["a", "a/b#2", "a/b#10", "a@2/b#1", "a[9]", "a[10]"]


# ---- names --------------------------------------------------------------------------------------------------------

OLD = Definition(name="w", steps=(StepDefinition(name="a/b#2[3]"), StepDefinition(name="a")))


def test_a_name_that_an_older_version_stored_is_matched_whole() -> None:
    path = graph_of(OLD).path("a/b#2[3]")
    assert parts(path) == (None, 1, "a/b#2[3]", None, None)
    assert (path.driver, path.group) == (path, None)
    assert keys.step_key("r", path) == ("run#r", "step#a/b#2[3]")
    assert parts(graph_of(OLD).path("a/b#2[4]")) == ((None, 1, "a", None, None), 1, "b", 2, 4)


def test_a_path_leads_to_a_step_of_the_definition() -> None:
    with pytest.raises(UnknownStep, match="'c'"):
        graph_of(OLD).path("c/think#1")


@pytest.mark.parametrize("character", RESERVED)
def test_a_new_step_has_no_name_that_looks_like_a_path(character: str) -> None:
    with pytest.raises(DefinitionError, match="tell its step runs apart"):
        compile_workflow("w", [DeclaredStep(name=f"a{character}b")])
