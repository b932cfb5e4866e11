"""What the demo prints."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from detent import RunStatus, StepInfo, StepStatus
from rich.console import Console
from rich.table import Table

from examples.orders.app import orders
from examples.orders.books import Books, Fate

MOST_PROBLEMS = 10
INTERRUPTED = "notify: Interrupted"
EVER = datetime.fromtimestamp(0, UTC)


def attempts(steps: Iterable[StepInfo], *, since: datetime = EVER) -> int:
    """Executions of bodies that began at or after `since`."""
    count = 0
    for step in steps:
        if step.started is not None and step.status is not StepStatus.SKIPPED:
            count += (step.started >= since) + sum(past.started >= since for past in step.failed_attempts)
    return count


def opening(console: Console, *, total: int, done: int, begun: int) -> None:
    if not done and not begun:
        console.print(f"{total:,} orders, each a durable workflow.")
    elif done == total:
        console.print(f"All {total:,} orders were done before; nothing is run again. Checking the books.")
    else:
        console.print(f"{total:,} orders: {done:,} were done before, {begun:,} had begun. Going on with the rest.")


def pace(console: Console, *, attempts: int, seconds: float) -> None:
    console.print(f"{attempts:,} steps in {seconds:.1f} s: {attempts / seconds:,.0f} steps/s.")


def print_books(console: Console, books: Books) -> None:
    runs, failures = books.runs(), books.failures()
    summary = _table("runs", "orders", "")
    for status in RunStatus:
        if runs[status]:
            why = "\n".join(f"{reason} ({count:,})" for reason, count in failures.most_common())
            summary.add_row(status, f"{runs[status]:,}", why if status is RunStatus.FAILED else "")
    console.print()
    console.print(summary)
    if failures[INTERRUPTED]:
        console.print(
            "[dim]Interrupted: a worker died just when a mail may have left. At most once means that nobody "
            "sends it again unasked; `detent retry RUN` does, while a worker runs or with the next demo.[/]"
        )
    console.print()

    shown = [s for s in StepStatus if s.terminal and any(step.status is s for step in books.step_runs())]
    by_step: Counter[tuple[str, StepStatus | None]] = Counter()
    retries: Counter[str] = Counter()
    takeovers: Counter[str] = Counter()
    for step in books.step_runs():
        by_step[step.path, step.status] += 1
        retries[step.path] += step.errors - (step.status is StepStatus.FAILED and step.errors > 0)
        takeovers[step.path] += step.takeovers
    steps = _table("steps", *shown, "retries", "taken over")
    for name in orders.steps:
        counts = [by_step[name, status] for status in shown]
        steps.add_row(name, *(_figure(count) for count in (*counts, retries[name], takeovers[name])))
    console.print(steps)
    console.print()

    money = _table("money", "orders", "USD")
    money.add_row("in the CSV", f"{len(books.orders):,}", _usd(books.input_cents))
    found = books.money()
    for fate in Fate:
        if fate in found:
            money.add_row(fate, f"{found[fate][0]:,}", _usd(found[fate][1]))
    money.add_section()
    money.add_row("difference", "", _usd(books.difference), style="bold" if books.difference == 0 else "bold red")
    console.print(money)


def print_problems(console: Console, problems: Sequence[str]) -> bool:
    """Whether there were any."""
    for problem in problems[:MOST_PROBLEMS]:
        console.print(problem, style="red", highlight=False)
    if len(problems) > MOST_PROBLEMS:
        console.print(f"and {len(problems) - MOST_PROBLEMS:,} more", style="red")
    if not problems:
        console.print("\nThe books balance: of every order, run, money and stock agree with the CSV.")
    return bool(problems)


def print_next(console: Console, books: Books, url: str, file: Path | None) -> None:
    if url.startswith("memory:"):
        return
    where = f"{file} ({file.stat().st_size / 1e6:,.0f} MB)" if file is not None and file.exists() else url
    console.print(f"\nThe database: {where}\nNext:", highlight=False)
    detent = Path(sys.executable).with_name("detent")
    program = detent.relative_to(Path.cwd()) if detent.is_relative_to(Path.cwd()) else detent
    for command in _commands(books):
        line = f"  {shlex.quote(str(program))} {command} --url {shlex.quote(url)}"
        console.print(line, highlight=False, soft_wrap=True)


def _commands(books: Books) -> list[str]:
    """Three commands with runs of this database that are worth a look."""
    ids = [order.run.run_id for order in books.orders if order.run is not None]
    retried = next((o.run.run_id for o in books.orders if o.run and any(s.errors for s in _done(o.steps.values()))), "")
    return ["runs --status FAILED", f"show {retried or ids[0]}", f"logs {retried or ids[0]}"]


def _done(steps: Iterable[StepInfo]) -> Iterable[StepInfo]:
    return (step for step in steps if step.status is StepStatus.COMPLETED)


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(title, style="bold", min_width=22)
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def _figure(count: int) -> str:
    return f"{count:,}" if count else "-"


def _usd(amount: int) -> str:
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // 100:,}.{abs(amount) % 100:02d}"
