"""`python -m bench`: measures, prints a table, and keeps the figures as JSON under bench/results/."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench import embedded
from bench.reference import raw_write

RESULTS = Path(__file__).parent / "results"

Measure = Callable[[Path], Coroutine[Any, Any, dict[str, float]]]


@dataclass(frozen=True)
class Row:
    """A figure that is shown, and which measurement it is taken from."""

    label: str
    measurement: str
    figure: str
    budget: float | None = None
    more_is_better: bool = False
    in_writes: bool = False
    """Whether its ratio to the reference means something: how many raw durable writes it lasts."""


ROWS = (
    Row("chain of 10, many runs: steps/s", "throughput", "steps_per_s", 3000, more_is_better=True),
    Row("  the same, plain `def` steps", "throughput, def", "steps_per_s", more_is_better=True),
    Row("  CPU per step, µs", "throughput", "cpu_us_per_step"),
    Row("  starts/s (start_many)", "throughput", "starts_per_s", more_is_better=True),
    Row("one run at a time: step to step, ms", "latency", "step_ms", 1.0, in_writes=True),
    Row("  the same, plain `def` steps", "latency, def", "step_ms", in_writes=True),
    Row("start to first line, ms", "latency", "first_line_ms", 3.0, in_writes=True),
    Row("  from a second process, 20 starts/s", "second process, busy", "first_line_ms", in_writes=True),
    Row("  from a second process, 1 start/s", "second process, idle", "first_line_ms", in_writes=True),
    Row("fan-out of 100 and join, ms", "fan-out", "fan_out_ms", 100.0, in_writes=True),
    Row("  writes per child", "fan-out", "writes_per_child", 2.2),
    Row("idle worker: CPU seconds per minute", "idle", "cpu_s_per_minute"),
)


def measurements(quick: bool) -> dict[str, Measure]:
    runs = 100 if quick else 1000
    each = 20 if quick else 100
    return {
        "throughput": lambda at: embedded.throughput(at, runs),
        "throughput, def": lambda at: embedded.throughput(at, runs, sync=True),
        "latency": lambda at: embedded.latency(at, each),
        "latency, def": lambda at: embedded.latency(at, each, sync=True),
        "second process, busy": lambda at: embedded.from_another_process(at, each, pause=0.05),
        "second process, idle": lambda at: embedded.from_another_process(at, 5 if quick else 15, pause=1.0),
        "fan-out": lambda at: embedded.fan(at, 3 if quick else 10),
        "idle": lambda at: embedded.idle(at, 2.0 if quick else 10.0),
    }


def measure(directory: Path, rounds: int, quick: bool) -> tuple[list[float], dict[str, list[dict[str, float]]]]:
    """The reference in seconds before each measurement, and every round's figures by measurement."""
    references: list[float] = []
    figures: dict[str, list[dict[str, float]]] = {}
    plan = [(name, run) for _ in range(rounds) for name, run in measurements(quick).items()]
    for name, run in track(plan, "timing the embedded backend", transient=True):
        references.append(raw_write(directory))
        figures.setdefault(name, []).append(asyncio.run(run(directory)))
    return references, figures


def show_embedded(console: Console, reference: float, figures: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    table = Table(title=f"Embedded: SQLite, synchronous=FULL. One raw durable write: {reference * 1000:.2f} ms")
    for heading in ("", "best", "median", "budget", "raw writes"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for row in ROWS:
        values = [rounds[row.figure] for rounds in figures[row.measurement]]
        best = max(values) if row.more_is_better else min(values)
        met = row.budget is None or (best >= row.budget if row.more_is_better else best <= row.budget)
        table.add_row(
            row.label,
            _short(best) if met else f"[red]{_short(best)}[/red]",
            _short(median(values)),
            "" if row.budget is None else f"{'≥' if row.more_is_better else '≤'} {row.budget:,g}",
            f"{best / 1000 / reference:.1f}" if row.in_writes else "",
        )
    console.print(table)


def show_aws(console: Console, shapes: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="AWS: per step, counted over moto; US dollars of DynamoDB and SQS per million, without Lambda")
    for heading in ("", "requests", "SQS", "writes", "index", "reads", "$/million"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=bool(heading))
    names = ("requests_total", "sqs_requests", "write_units", "index_write_units", "read_units")
    for shape in shapes:
        figures = [f"{shape[name]:.2f}" for name in names]
        table.add_row(str(shape["shape"]), *figures, f"{shape['dollars_per_million']:.2f}")
    console.print(table)
    console.print("`make bench-cost` has more workloads, and other engines beside them.")


def machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "detent": version("detent"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is timed (default 3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it works")
    parser.add_argument("--only", choices=("embedded", "aws"), help="one half of it")
    parser.add_argument(
        "--directory", type=Path, default=RESULTS, help="where the databases lie: the disk that is measured"
    )
    options = parser.parse_args()
    console = Console()
    result: dict[str, object] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.only != "aws":
        with TemporaryDirectory(dir=options.directory) as name:
            references, figures = measure(Path(name), max(1, options.rounds), options.quick)
        reference = median(references)
        result |= {"raw_write_ms": [each * 1000 for each in references], "embedded": figures}
        result["rows"] = [asdict(row) for row in ROWS]
        show_embedded(console, reference, figures)
    if options.only != "embedded":
        from bench.aws import count_all  # moto is slow to import, and not needed for the other half

        shapes = [shape.to_json() for shape in count_all()]
        result["aws"] = shapes
        show_aws(console, shapes)
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"Kept in {file}.")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    main()
