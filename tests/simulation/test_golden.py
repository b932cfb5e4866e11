"""What the engine writes, sends and logs for the canonical workflows is what golden.txt says, byte for byte."""

from __future__ import annotations

import difflib

import pytest

from tests.simulation.canonical import CANONICAL
from tests.simulation.golden import GOLDEN, text


def test_every_write_message_and_log_line_is_as_it_was() -> None:
    before, after = GOLDEN.read_text(), text()
    if before != after:
        lines = list(
            difflib.unified_diff(before.splitlines(), after.splitlines(), "golden.txt", "now", lineterm="", n=2)
        )
        pytest.fail("\n".join([*lines[:60], "Meant so? python -m tests.simulation.golden"]), pytrace=False)


def test_it_has_every_canonical_workflow() -> None:
    assert [line[3:] for line in GOLDEN.read_text().splitlines() if line.startswith("## ")] == [
        one.name for one in CANONICAL
    ]
