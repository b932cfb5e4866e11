"""docs/logs.md is true: its patterns are patterns, its queries ask for fields that lines have, its tables are whole."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from detent_functions import telemetry
from detent_infra.logs.lines import LEVELS, NAMES
from detent_state_machine.filter_pattern import parse

from tests.support.lambda_stack import Context
from tests.support.source_code import parsed
from tests.unit.test_docs import blocks, prose

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/logs.md"
QUERIES = [block.text for block in blocks(PAGE, "insights")]
CORE = ROOT / "state_machine/detent_state_machine"

WORDS = {"fields", "filter", "stats", "sort", "limit", "by", "as", "asc", "desc", "in", "and", "or", "not", "like"}
FUNCTIONS = {"count", "pct", "max", "avg", "sum", "bin", "ispresent", "strlen", "min"}
DISCOVERED = {
    "@timestamp", "@message", "@logStream", "@type", "@requestId", "@duration", "@billedDuration", "@initDuration",
    "@memorySize", "@maxMemoryUsed",
}  # fmt: skip
"""Fields that Logs Insights finds by itself in Lambda's logs ("Supported logs and discovered fields")."""


def told() -> Iterator[tuple[str, str, set[str]]]:
    """The lines that the state machine makes for the engine: their level, their name, and their fields."""
    for path in CORE.rglob("*.py"):
        for node in ast.walk(parsed(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id in ("Line", "error_line") and len(node.args) > 2:
                given = [*node.args, *(word.value for word in node.keywords)]
                keys = [key for each in given if isinstance(each, ast.Dict) for key in each.keys]
                fields = {str(key.value) for key in keys if isinstance(key, ast.Constant)}
                if node.func.id == "error_line":
                    fields |= {"error"} | {each.arg for each in node.keywords if each.arg}
                yield ast.unparse(node.args[0]), ast.unparse(node.args[1]), fields


def own_fields() -> set[str]:
    return {*NAMES, "logger"}.union(*(fields for _, _, fields in told()))


@cache
def fields_of_functions() -> frozenset[str]:
    """The names in a line that a function itself prints, about a message of a run."""
    record = logging.makeLogRecord(
        {"msg": "message kept", "levelname": "WARNING", "message_id": "m", "run_id": "r", "path": "p"}
    )
    with patch.dict(os.environ, {"_X_AMZN_TRACE_ID": "Root=1-a-b;Sampled=0"}), telemetry.invocation(Context("Worker")):
        printed = telemetry.log.registered_formatter.format(record)
    return frozenset(json.loads(printed))


def names_in(query: str) -> set[str]:
    """The fields that a query asks for: every word that is not a string, command, function, or name it gives itself."""
    bare = re.sub(r'"[^"]*"|(?<=like )/[^/\n]*/', " ", query)
    given = set(re.findall(r"\bas (\w+)", bare))
    calls = set(re.findall(r"(\w+)\(", bare))
    assert calls <= FUNCTIONS, f"unknown functions: {calls - FUNCTIONS}"
    words = set(re.findall(r"@?\b[A-Za-z_]\w*", re.sub(r"\b\d+\w*", " ", bare)))
    return words - WORDS - FUNCTIONS - given


def test_there_is_a_query_for_every_common_question() -> None:
    assert len(QUERIES) >= 10


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: " ".join(query.split())[:40])
def test_a_query_asks_for_fields_that_lines_have(query: str) -> None:
    known = own_fields() | fields_of_functions() | DISCOVERED
    assert names_in(query) <= known
    for value in re.findall(r"engine (?:=|in) (.*)", query):
        assert set(re.findall(r'"(\w+)"', value)) <= events()


def test_a_query_for_what_is_not_there_is_noticed() -> None:
    assert names_in('fields step | filter message like /it/ and duration > "x"') == {"step", "message", "duration"}


def events() -> set[str]:
    """Names of what the engine tells; the run's ends are made of its statuses."""
    found = {name.strip("'") for _, name, _ in told() if name.startswith("'")}
    return found | {"run_completed", "run_failed", "run_cancelled", "lines_dropped"}


def test_the_table_of_events_has_each_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:TRACE|DEBUG|INFO|WARN|ERROR)", prose(PAGE), re.MULTILINE)
    assert sorted(rows) == sorted(events())


def test_the_table_of_fields_has_each() -> None:
    table = prose(PAGE).partition("## Fields of a line")[2].partition("| `engine` | level")[0]
    assert set(NAMES) <= set(re.findall(r"`(\w+)`", table))
    assert all(f"`{level}`" in table for level in LEVELS)


def test_functions_print_the_fields_that_the_page_names() -> None:
    said = prose(PAGE).partition("written by Powertools:")[2].partition("##")[0]
    named = set(re.findall(r"`([a-z_]+)`", said))
    assert fields_of_functions() - {"xray_trace_id"} == named
    assert telemetry.log.service == "detent"


PATTERNS = [
    pattern.replace("\\|", "|")
    for pattern in re.findall(r"^\| `(.+?)` \|", prose(PAGE).partition("## Patterns")[2], re.MULTILINE)
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_patterns_that_are_shown_are_patterns(pattern: str) -> None:
    parse(pattern)("{}")


def test_the_pages_patterns_are_found() -> None:
    assert len(PATTERNS) > 12
