"""The input: a CSV of orders."""

from __future__ import annotations

import csv
from pathlib import Path

from examples.orders.app import Line

FILE = Path(__file__).parent / "data" / "cdnow_orders.csv"


def read_lines(file: Path = FILE) -> list[Line]:
    """The orders in the file, numbered as an editor numbers its lines: the header is line 1."""
    with file.open(encoding="utf-8", newline="") as opened:
        return [Line.model_validate({"number": number, **row}) for number, row in enumerate(csv.DictReader(opened), 2)]
