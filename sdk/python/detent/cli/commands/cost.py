"""Tells what a run costs on AWS, for people and as JSON. The estimate itself is `detent_infra.ops.cost.estimate`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from detent_infra.ops.cost.estimate import estimate
from detent_infra.ops.cost.facts import Facts
from detent_infra.ops.cost.metered import RUN
from detent_infra.ops.cost.metering import Usage
from detent_infra.ops.cost.prices import MILLION, US_EAST_1, Architecture, Cost, cost_of
from detent_infra.ops.cost.reading import read_facts
from detent_infra.runs.read import in_order
from detent_state_machine.errors import InputError, UnknownRun
from detent_state_machine.records import RunRecord
from detent_state_machine.status import RunStatus

from detent.cli.options import AppName, AsJson, Url
from detent.cli.output import console, duration, name, say_left_out, write_json
from detent.cli.project import Options, opened, run_id_of
from detent.client import Client

if TYPE_CHECKING:
    from rich.console import Console

ENDED = tuple(status for status in RunStatus if not status.live)
SHOWN_STEPS = 30
"""Steps that are listed; of more, the dearest ones, and the rest in one line. `--json` has all."""
LEAST = 0.005
"""Dollars per million runs below which nothing is shown."""
MAX_WIDTH = 100


def cost(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run id, or `last` for the newest run.", show_default=False)
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option("--workflow", "-w", metavar="NAME", help="Instead of RUN: the average of its newest ended runs."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Of at most so many runs.")] = 20,
    memory: Annotated[int, typer.Option(metavar="MB", min=128, max=10_240, help="The Lambda worker's memory.")] = 1024,
    architecture: Annotated[
        str, typer.Option(metavar="NAME", help="What the Lambda worker runs on: arm64 or x86_64.")
    ] = "arm64",
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Estimate what a run costs on AWS, from its records.

    On any backend: for a run on SQLite it is what the same run would cost on AWS.
    """

    show_cost(Options(app, url), Question(run, workflow, limit, memory, architecture), as_json=json)


@dataclass(frozen=True, slots=True)
class Question:
    """As written on the command line."""

    run: str | None
    workflow: str | None
    limit: int
    memory: int
    architecture: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The average usage of some runs, by step in the order of the graph; the run itself comes first, as `RUN`."""

    workflow: str
    runs: Sequence[RunRecord]
    parts: Sequence[tuple[str, Usage]]
    memory: int
    architecture: Architecture
    on_aws: bool

    @property
    def usage(self) -> Usage:
        total = Usage()
        for _, part in self.parts:
            total.add(part)
        return total

    def cost(self, usage: Usage) -> Cost:
        return cost_of(usage, memory=self.memory, architecture=self.architecture)


def show_cost(options: Options, question: Question, *, as_json: bool) -> None:
    if (question.run is None) == (question.workflow is None):
        raise InputError("Name a run or a workflow, one of the two.", advice="As in `detent cost last`.")
    if question.architecture not in set(Architecture):
        raise InputError(f"--architecture {question.architecture!r} is none of Lambda's.", advice="arm64 or x86_64.")
    answer = _answer(options, question)
    if as_json:
        write_json(_json(answer))
    else:
        _print(answer)


def _answer(options: Options, question: Question) -> Answer:
    found, on_aws = asyncio.run(_read(options, question))
    order: list[str] = [RUN]
    sums: dict[str, Usage] = {RUN: Usage()}
    for facts in found:
        order = list(dict.fromkeys([*order, *(path for path, _ in in_order(facts.graph, ()))]))
        for path, usage in estimate(facts).parts.items():
            sums.setdefault(path, Usage()).add(usage, 1 / len(found))
    return Answer(
        workflow=found[0].run.workflow,
        runs=[facts.run for facts in found],
        parts=[(path, sums[path]) for path in order if path in sums],
        memory=question.memory,
        architecture=Architecture(question.architecture),
        on_aws=on_aws,
    )


async def _read(options: Options, question: Question) -> tuple[list[Facts], bool]:
    """The runs that are asked for, and whether they ran on AWS."""
    async with opened(options) as client:
        found = [await read_facts(client.lifecycle, run_id) for run_id in await _runs(client, question)]
        return found, client.url.startswith("aws://")


async def _runs(client: Client, question: Question) -> list[str]:
    if question.run is not None:
        return [await run_id_of(client, question.run)]
    found = await client.lifecycle.list([question.workflow or ""], statuses=ENDED, limit=question.limit)
    if not found:
        await client.lifecycle.definitions.newest(question.workflow or "")  # a wrong name is told as that
        raise UnknownRun(f"No run of {question.workflow!r} has ended yet.", advice="Name a live one by its id.")
    return [run.run_id for run in found]


# ---- JSON -----------------------------------------------------------------------------------------------------


def _json(answer: Answer) -> dict[str, object]:
    one = len(answer.runs) == 1
    return {
        "run_id": answer.runs[0].run_id if one else None,
        "workflow": answer.workflow,
        "status": answer.runs[0].status.value if one else None,
        "runs": len(answer.runs),
        "prices": {"region": US_EAST_1.region, "read_on": US_EAST_1.read_on},
        "memory": answer.memory,
        "architecture": answer.architecture.value,
        **_usage_json(answer, answer.usage),
        "parts": [{"step": path or None, **_usage_json(answer, part)} for path, part in answer.parts],
    }


def _usage_json(answer: Answer, usage: Usage) -> dict[str, object]:
    cost = answer.cost(usage)
    by_service = cost.by_service()
    return {
        "requests": {request: round(count, 6) for request, count in sorted(usage.requests.items())},
        "write_units": round(usage.write_units, 6),
        "index_write_units": round(usage.index_write_units, 6),
        "read_units": round(usage.read_units, 6),
        "invocations": round(usage.invocations, 6),
        "lambda_seconds": round(usage.milliseconds / 1000, 6),
        "log_bytes": round(usage.log_bytes),
        "stored_bytes": round(usage.stored_bytes),
        "dollars_per_million_runs": {
            **{service: round(dollars * MILLION, 6) for service, dollars in by_service.items()},
            "total": round(cost.total * MILLION, 6),
            "storage_per_month": round(cost.storage * MILLION, 6),
        },
    }


# ---- for people -----------------------------------------------------------------------------------------------


def _print(answer: Answer) -> None:
    out = console()
    out.width = min(out.width, MAX_WIDTH)
    _print_head(out, answer)
    out.print()
    _print_steps(out, answer)
    out.print()
    _print_services(out, answer)
    out.print()
    _print_notes(out, answer)


def _print_head(out: Console, answer: Answer) -> None:
    from rich.text import Text

    runs = answer.runs
    what = name(runs[0].run_id) if len(runs) == 1 else f"average of {len(runs)} runs"
    total = answer.cost(answer.usage).total
    out.print(Text.assemble((name(answer.workflow), "bold"), "  ", (what, "bright_black")))
    verb = "costs" if answer.on_aws else "would cost on AWS"
    so_far = " so far" if any(run.status.live for run in runs) else ""
    out.print(f"{verb} ${total:.7f}{so_far}, and a million such runs ${total * MILLION:,.2f}", soft_wrap=True)


def _print_steps(out: Console, answer: Answer) -> None:
    from rich.table import Table
    from rich.text import Text

    units, times = out.width >= 70, out.width >= 50
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("STEP", overflow="ellipsis", min_width=8)  # the one that gives way
    headings = [
        "REQUESTS",
        *(["WRITE UNITS", "READ UNITS"] if units else []),
        *(["LAMBDA"] if times else []),
        "$/MILLION",
        "",
    ]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    total = answer.cost(answer.usage).total
    for label, usage in _rows(answer):
        dollars = answer.cost(usage).total
        cells = [_number(usage.total_requests)]
        if units:
            cells += [_number(usage.write_units + usage.index_write_units), _number(usage.read_units)]
        share = f"{dollars / total:.0%}" if total else ""
        if times:
            cells.append(duration(round(usage.milliseconds)))
        cells += [f"{dollars * MILLION:,.2f}", share]
        table.add_row(Text(label, "" if label else "bright_black"), *cells)
    out.print(table)
    say_left_out([*(() if units else ("WRITE UNITS", "READ UNITS")), *(() if times else ("LAMBDA", "what was used"))])


def _rows(answer: Answer) -> list[tuple[str, Usage]]:
    """What is listed: the run, and its steps in order; of very many, the dearest, and the others as one."""
    shown = {path for path, _ in answer.parts}
    if len(answer.parts) > SHOWN_STEPS + 1:
        dearest = sorted(answer.parts[1:], key=lambda part: answer.cost(part[1]).total, reverse=True)
        shown = {RUN, *(path for path, _ in dearest[:SHOWN_STEPS])}
    rest = Usage()
    for path, usage in answer.parts:
        if path not in shown:
            rest.add(usage)
    rows = [(name(path) if path else "(the run)", usage) for path, usage in answer.parts if path in shown]
    others = len(answer.parts) - len(shown)
    return [*rows, (f"({others} other steps)", rest)] if others else rows


def _print_services(out: Console, answer: Answer) -> None:
    from rich.table import Table

    cost, usage = answer.cost(answer.usage), answer.usage
    used = {
        "DynamoDB": f"write units: {_number(usage.write_units + usage.index_write_units)}, "
        f"read units: {_number(usage.read_units)}",
        "SQS": f"requests: {_number(usage.sqs_requests)}",
        "S3": f"puts: {_number(usage.blob_puts)}, gets: {_number(usage.blob_gets)}",
        "Lambda": f"invocations: {_number(usage.invocations)}, time: {duration(round(usage.milliseconds))} of "
        f"{answer.memory} MB on {answer.architecture}",
        "CloudWatch Logs": f"bytes: {usage.log_bytes:,.0f}",
    }
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    if out.width >= 50:
        table.add_column(style="bright_black")
    for service, dollars in cost.by_service().items():
        if dollars * MILLION >= LEAST:
            share = f"{dollars / cost.total:.0%}"
            # Where words would be broken to fit, the figures behind the dollars are left to --json.
            table.add_row(service, f"${dollars * MILLION:,.2f}", share, *([used[service]] if out.width >= 50 else []))
    out.print(table)


def _print_notes(out: Console, answer: Answer) -> None:
    storage = answer.cost(answer.usage).storage * MILLION
    out.print(
        f"Dollars are per million such runs, at list prices of {US_EAST_1.region} in {US_EAST_1.read_on}. Apart from "
        f"them: ${storage:,.2f} for each month that the records are kept in the table, what S3 takes for large "
        "payloads, and what the bodies ask of AWS.",
        style="bright_black",
    )


def _number(value: float) -> str:
    """Whole as far as it is, else with what a share of a batch or an average needs."""
    near = round(value, 2)
    return f"{near:,.0f}" if near == int(near) else f"{near:,.2f}"
