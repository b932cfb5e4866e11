"""A definition is data: the same declaration has the same version on every machine, and every change another one."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from detent import App, CorruptRecord, NewerRecord, Retry, Workflow, not_
from detent_state_machine.definition import (
    FORMAT,
    Definition,
    Parent,
    Since,
    StepDefinition,
    format_needed,
)
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

DECLARATION = Path(__file__).with_name("declaration.py")


def declared() -> Definition:
    definition: Definition = runpy.run_path(str(DECLARATION))["orders"].definition
    return definition


def test_the_same_declaration_has_the_same_text_and_version_in_every_process() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, str(DECLARATION)],
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
        )
        for seed in ("0", "1", "4242")
    ]
    said = {process.communicate(timeout=60)[0] for process in processes}
    here = declared()
    assert said == {f"{here.version}\n{here.to_json()}"}


def flow(**options: Any) -> Workflow[Any, Any]:
    return App("shop", url="memory://").workflow("orders", **options)


def two_steps(workflow: Workflow[Any, Any] | None = None, /, **options: Any) -> Definition:
    """A workflow of two steps, the second with these options."""
    workflow = workflow or flow(input=int)

    @workflow.step
    def one(n: int) -> int: ...

    @workflow.step(**{"name": "two", **options})
    def two(n: int = one.output) -> int: ...

    return workflow.definition


def test_any_change_of_the_declaration_is_another_version() -> None:
    class Wide(BaseModel):
        n: int
        note: str = ""

    class Narrow(BaseModel):
        n: int

    condition = flow(input=int).input
    definitions = [
        two_steps(),
        two_steps(name="zwei"),
        two_steps(timeout=61),
        two_steps(takeovers=6),
        two_steps(delivery="exactly_once"),
        two_steps(delivery="at_most_once"),
        two_steps(retry=Retry(attempts=4)),
        two_steps(retry=Retry(jitter=False)),
        two_steps(when=condition > 0),
        two_steps(when=condition >= 0),
        two_steps(when=condition > 0.5),
        two_steps(when=condition == 0),
        two_steps(when=not_(condition > 0)),
        two_steps(flow(input=int, description="counts")),
        two_steps(flow(input=int, retention_days=31)),
        two_steps(flow()),
        reversed_steps(),
        with_handler(),
        of_input(Wide),
        of_input(Narrow),
    ]
    versions = [definition.version for definition in definitions]
    assert len(set(versions)) == len(versions)
    assert all(re.fullmatch("[0-9a-f]{16}", version) for version in versions)


def reversed_steps() -> Definition:
    workflow = flow(input=int)

    @workflow.step(after=["one"])
    def two(n: int) -> int: ...

    @workflow.step
    def one(n: int) -> int: ...

    return workflow.definition


def with_handler() -> Definition:
    workflow = flow(input=int)

    @workflow.on_failure
    def undo(n: int) -> int: ...

    return two_steps(workflow)


def of_input(kind: type[BaseModel]) -> Definition:
    workflow = flow(input=kind)

    @workflow.step
    def one(given: Any) -> int: ...

    return workflow.definition


def test_what_says_the_same_has_the_same_version() -> None:
    assert two_steps(timeout=60).version == two_steps().version == two_steps(timeout=60.0).version
    assert two_steps(retry=Retry()).version == two_steps().version
    assert two_steps(flow(input=int, retention_days=30)).version == two_steps().version


def test_what_has_its_default_is_left_out() -> None:
    assert json.loads(two_steps().to_json()) == {
        "format": 1,
        "name": "orders",
        "input_schema": {"type": "integer"},
        "steps": [
            {"name": "one", "output_schema": {"type": "integer"}},
            {
                "name": "two",
                "parents": [{"step": "one", "need": "completed"}],
                "reads": ["one"],
                "output_schema": {"type": "integer"},
            },
        ],
    }


def test_of_options_only_those_that_were_changed_are_written() -> None:
    flow_ = flow(input=int)
    definition = two_steps(flow_, retry=Retry(attempts=4), when=not_(flow_.input > 0), delivery="exactly_once")
    two = json.loads(definition.to_json())["steps"][1]
    assert two["retry"] == {"attempts": 4}
    assert two["delivery"] == "exactly_once"
    assert two["when"] == {
        "kind": "not",  # tells the members of a union apart, and so is always written
        "part": {"kind": "compare", "op": ">", "left": {"kind": "ref", "step": None}, "right": 0},
    }


def test_a_default_that_a_stored_definition_left_out_never_changes() -> None:
    whole = Definition.from_json('{"format":1,"name":"w","steps":[{"name":"one"}]}')
    assert whole.model_dump(mode="json") == {
        "format": 1,
        "name": "w",
        "description": "",
        "input_schema": {},
        "retention_days": 30,
        "steps": [
            {
                "name": "one",
                "scope": "main",
                "parents": [],
                "reads": [],
                "when": None,
                "delivery": "at_least_once",
                "retry": {
                    "attempts": 3,
                    "backoff": 2.0,
                    "initial": 1.0,
                    "max_delay": 60.0,
                    "jitter": True,
                    "non_retryable": [],
                },
                "timeout": 60.0,
                "takeovers": 5,
                "description": "",
                "output_schema": {},
                "kind": {"kind": "call"},
            }
        ],
    }


class LaterStep(StepDefinition):
    """A step of a detent to come, with options that no worker of today knows."""

    lanes: Annotated[int, Since(FORMAT + 1)] = 0
    colour: Annotated[str, Since(FORMAT + 1, {"blue": FORMAT + 3})] = "none"


def later(**options: Any) -> Definition:
    return Definition(name="w", steps=(StepDefinition(name="one"), LaterStep(name="two", **options)))


def test_an_option_to_come_changes_the_version_of_nobody_who_does_not_use_it() -> None:
    today = Definition(name="w", steps=(StepDefinition(name="one"), StepDefinition(name="two")))
    assert later().to_json() == today.to_json()
    assert later().version == today.version != later(lanes=3).version


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, 1),
        ({"lanes": 3}, FORMAT + 1),
        ({"colour": "red"}, FORMAT + 1),
        ({"colour": "blue"}, FORMAT + 3),
        ({"colour": "blue", "lanes": 1}, FORMAT + 3),
    ],
)
def test_the_format_is_that_of_the_newest_feature_in_use(options: dict[str, Any], needed: int) -> None:
    definition = later(**options)
    assert definition.format == format_needed(definition) == json.loads(definition.to_json())["format"] == needed
    if needed == 1:
        assert Definition.from_json(definition.to_json()).version == definition.version
    else:
        with pytest.raises(NewerRecord, match=rf"format {needed}; this worker reads up to {FORMAT}.*steps\.1\."):
            Definition.from_json(definition.to_json())


def test_a_definition_that_was_read_keeps_its_text_and_so_its_version() -> None:
    spelled_out = json.dumps(declared().model_dump(mode="json"), sort_keys=True)
    old = Definition.from_json(spelled_out)
    assert old == declared()
    assert old.to_json() == spelled_out
    assert old.version != declared().version
    assert Definition.from_json(old.to_json()).version == old.version


def test_a_changed_copy_has_a_version_of_its_own() -> None:
    read = Definition.from_json(declared().to_json())
    changed = read.model_copy(update={"retention_days": 7})
    assert changed.version != read.version
    assert Definition.from_json(changed.to_json()) == changed
    assert read.model_copy().version == read.version
    newer = read.model_copy(update={"steps": (LaterStep(name="one", lanes=3),)})
    assert json.loads(newer.to_json())["format"] == FORMAT + 1


def test_a_definition_survives_json_as_it_is() -> None:
    definition = declared()
    again = Definition.from_json(definition.to_json())
    assert again == definition
    assert again.version == definition.version
    assert again.to_json() == definition.to_json()


def test_its_json_is_canonical_and_any_parser_reads_it() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = declared().to_json()
    parsed = json.loads(text, parse_constant=refuse)
    assert json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    assert parsed["format"] == 1


def test_the_json_schema_of_a_definition_describes_it() -> None:
    schema = Definition.model_json_schema()
    text = json.dumps(schema)
    assert schema["title"] == "Definition"
    assert {"format", "name", "steps", "description", "input_schema", "retention_days"} == set(schema["properties"])
    assert schema["properties"]["format"]["enum"] == [*range(1, FORMAT + 1)]
    references = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', text))
    assert references == set(schema["$defs"])  # no reference leads nowhere, and nothing lies about unused
    assert {"StepDefinition", "Parent", "Retry", "Compare", "Not"} <= references
    _, all_at_once = models_json_schema([(Definition, "validation"), (StepDefinition, "validation")])
    assert all_at_once["$defs"]["Definition"]["properties"].keys() == schema["properties"].keys()


KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def holds(schema: dict[str, Any], root: dict[str, Any], value: Any) -> bool:
    """Whether a JSON value is valid by the part of JSON Schema that a definition's own schema uses."""
    if "$ref" in schema:
        return holds(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, value)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return any(holds(part, root, value) for part in schema[word])
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    kind = schema.get("type")
    if kind and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind in ("integer", "number"))):
        return False
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return (
            set(schema.get("required", [])) <= set(value)
            and (set(value) <= set(known) or schema.get("additionalProperties") is not False)
            and all(holds(known[name], root, part) for name, part in value.items() if name in known)
        )
    return not isinstance(value, list) or all(holds(schema.get("items", {}), root, part) for part in value)


def test_a_definition_is_valid_by_its_schema_and_a_broken_one_is_not() -> None:
    schema = Definition.model_json_schema()
    whole = json.loads(declared().to_json())
    assert holds(schema, schema, whole)
    assert not holds(schema, schema, {**whole, "format": FORMAT + 1})
    assert not holds(schema, schema, {**whole, "surprise": 1})
    assert not holds(schema, schema, {name: part for name, part in whole.items() if name != "steps"})
    assert not holds(schema, schema, {**whole, "steps": [{"name": 5}]})


def test_a_newer_format_is_refused_with_what_to_do() -> None:
    newer = json.dumps({**json.loads(declared().to_json()), "format": FORMAT + 1, "invented_later": True})
    with pytest.raises(
        NewerRecord, match=rf"format {FORMAT + 1}; this worker reads up to {FORMAT}.*Upgrade this worker"
    ) as refused:
        Definition.from_json(newer)
    assert "It does not know 'invented_later'." in str(refused.value)
    assert "The runs of this definition wait for it" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "not json",
        '{"format":1}',
        '{"format":"x","name":"a","steps":[]}',
        '{"format":true}',
        "[" * 5000,
    ],
)
def test_what_is_no_definition_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(CorruptRecord, match="A stored definition cannot be read: "):
        Definition.from_json(text)


def test_a_definition_does_not_change() -> None:
    definition = declared()
    with pytest.raises(ValidationError, match="frozen"):
        definition.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        definition.steps[0].retry.attempts = 9  # type: ignore[misc]


def test_what_the_engine_reads_of_it() -> None:
    definition = declared()
    steps = {step.name: step for step in definition.steps}
    assert list(steps) == ["reserve", "charge", "la~bel..x", "ship", "undo"]
    assert steps["reserve"].description == "Takes it from the shelf."
    assert steps["charge"].parents == (Parent(step="reserve", need="completed"),)
    assert steps["ship"].parents == (Parent(step="charge", need="done"), Parent(step="la~bel..x", need="done"))
    assert (steps["undo"].scope, steps["undo"].parents, steps["undo"].reads) == ("on_failure", (), ("reserve",))
    assert definition.input_schema["title"] == "Order"


def test_the_exported_json_schema_has_the_fields_of_this_version() -> None:
    exported = Path(__file__).parents[2] / "docs/internals/definition.schema.json"

    def fields(schema: dict[str, Any]) -> dict[str, list[str]]:
        models = {"Definition": schema, **schema["$defs"]}
        return {name: sorted(model.get("properties", {})) for name, model in models.items()}

    assert fields(json.loads(exported.read_text())) == fields(Definition.model_json_schema())
