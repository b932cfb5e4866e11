"""The examples, run as a user runs them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from detent import Client, RunInfo, RunStatus
from detent_infra.connect import connect
from detent_state_machine.keys import data_key
from detent_state_machine.writes import PutItem

from examples.orders import app as shop
from examples.orders import outside
from examples.orders.lines import read_lines
from examples.report.demo import DATA
from examples.report.scatter import ticks

ROOT = Path(__file__).parents[2]
LINES = read_lines()


def orders_demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return _python("examples.orders.demo", arguments)


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'orders.db'}"


def mails(folder: Path) -> Counter[str]:
    """How many mails left, by order. The file is the mail server's view: it knows nothing of the database."""
    return Counter(line.split("\t")[0] for line in (folder / "orders-mail.txt").read_text().splitlines())


def paying(lines: Sequence[shop.Line]) -> list[shop.Line]:
    """The lines whose money is taken, by the rules of the world outside and not by what the workflows did."""
    return [line for line in lines if shop.cents(line.amount_usd) and not outside.refuses_card(line.customer_id)]


def shipped(lines: Sequence[shop.Line]) -> set[str]:
    """Keys of the orders that go out: those that are paid for, and the free ones."""
    return {line.key for line in lines if not shop.cents(line.amount_usd)} | {line.key for line in paying(lines)}


@dataclass(frozen=True)
class Store:
    """What the database says, read without the example's own code. Keys are those of the orders."""

    runs: dict[str, RunInfo]
    ledger: dict[str, int]
    charges: Counter[str]
    notify: dict[str, str]
    """Why the last step failed, where it did."""


async def read_store(folder: Path, lines: Sequence[shop.Line]) -> Store:
    with closing(connect(url(folder))) as backend:
        client = Client(backend=lambda: backend)
        found = Store({}, {}, Counter(), {})
        for run in await client.aruns("orders", limit=100_000):
            assert run.key is not None
            assert run.key not in found.runs
            found.runs[run.key] = run
            [notify] = [step for step in await client.asteps(run.run_id) if step.path == "notify"]
            if notify.error is not None:
                found.notify[run.key] = notify.error.type
        for line in lines:
            if (entry := await client.aread("ledger", line.key)) is not None:
                found.ledger[line.key] = cast("int", entry["cents"])
        for customer in {line.customer_id for line in lines}:
            if (account := await client.aread("accounts", customer)) is not None:
                found.charges[customer] = cast("int", account["charges"])
        return found


# ---- the orders demo ----------------------------------------------------------------------------------------------


def test_the_csv_is_the_one_its_readme_describes() -> None:
    assert len(LINES) == 6_919
    assert sum(shop.cents(line.amount_usd) for line in LINES) == 24_409_194
    assert sum(int(line.quantity) for line in LINES) == 16_479
    assert len({line.customer_id for line in LINES}) == 2_357
    assert sum(shop.cents(line.amount_usd) == 0 for line in LINES) == 8


def test_the_orders_demo_reconciles_in_memory() -> None:
    done = orders_demo("--limit", 300, "--url", "memory://")
    assert done.returncode == 0, done.stdout + done.stderr
    money = sum(shop.cents(line.amount_usd) for line in paying(LINES[:300]))
    assert _row(done.stdout, "charged") == [f"{len(paying(LINES[:300]))}", f"{money / 100:,.2f}"]
    assert _row(done.stdout, "difference") == ["0.00"]
    assert done.stderr == ""


def test_the_orders_demo_reconciles_on_sqlite_and_a_second_time_runs_nothing_again(tmp_path: Path) -> None:
    first = orders_demo("--limit", 300, "--url", url(tmp_path))
    assert first.returncode == 0, first.stdout + first.stderr
    sent = mails(tmp_path)
    assert set(sent.values()) == {1}
    second = orders_demo("--limit", 300, "--url", url(tmp_path))
    assert second.returncode == 0, second.stdout + second.stderr
    assert "All 300 orders were done before" in second.stdout
    assert _tables(second.stdout) == _tables(first.stdout)
    assert mails(tmp_path) == sent


def test_the_demo_goes_on_from_a_smaller_limit_to_a_larger_one(tmp_path: Path) -> None:
    assert orders_demo("--limit", 40, "--url", url(tmp_path)).returncode == 0
    more = orders_demo("--limit", 60, "--url", url(tmp_path))
    assert more.returncode == 0, more.stdout + more.stderr
    assert "60 orders: 40 were done before" in more.stdout
    less = orders_demo("--limit", 40, "--url", url(tmp_path))
    assert less.returncode == 0, less.stdout + less.stderr


def test_the_commands_that_the_demo_suggests_work(tmp_path: Path) -> None:
    done = orders_demo("--limit", 200, "--url", url(tmp_path))
    commands = [line.split() for line in done.stdout.partition("Next:\n")[2].splitlines() if line.strip()]
    assert [command[1] for command in commands] == ["runs", "show", "logs"]
    for command in commands:
        shown = _python("detent.cli", command[1:])
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert shown.stdout.strip()


@pytest.mark.slow
def test_a_demo_killed_in_the_middle_goes_on_and_neither_loses_nor_repeats_an_order(tmp_path: Path) -> None:
    count = 1_200
    killed = subprocess.Popen(
        [sys.executable, "-m", "examples.orders.demo", "--limit", str(count), "--url", url(tmp_path)],
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.DEVNULL,
    )
    _wait_for_mails(tmp_path, 150, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert 0 < len(mails(tmp_path)) < count, "it was killed in the middle"

    again = orders_demo("--limit", count, "--url", url(tmp_path))
    assert again.returncode == 0, again.stdout + again.stderr
    found = re.search(r"([\d,]+) were done before", again.stdout)
    assert found is not None
    assert 0 < int(found[1].replace(",", "")) < count

    lines, sent = LINES[:count], mails(tmp_path)
    stored = asyncio.run(read_store(tmp_path, lines))
    assert stored.runs.keys() == {line.key for line in lines}
    assert not any(run.status.live for run in stored.runs.values())
    assert stored.ledger == {line.key: shop.cents(line.amount_usd) for line in paying(lines)}
    # An account adds up charges, so one that was made twice would show.
    assert stored.charges == Counter(line.customer_id for line in paying(lines))
    assert set(sent.values()) == {1}, "a mail left twice"
    completed = {key for key, run in stored.runs.items() if run.status is RunStatus.COMPLETED}
    assert completed <= sent.keys(), "an order is complete, but its mail never left"
    interrupted = shipped(lines) - completed
    assert {stored.notify[key] for key in interrupted} <= {"Interrupted"}
    assert len(interrupted) <= 100, "more than a worker drives at once"


def test_books_that_do_not_balance_are_shown_and_fail_the_demo(tmp_path: Path) -> None:
    assert orders_demo("--limit", 20, "--url", url(tmp_path)).returncode == 0
    line = paying(LINES[:20])[0]
    with closing(connect(url(tmp_path))) as backend:
        forged = PutItem(data_key("ledger", line.key), {"customer": line.customer_id, "cents": 1}, expect=None)
        asyncio.run(backend.table.write(forged))
    cooked = orders_demo("--limit", 20, "--url", url(tmp_path))
    assert cooked.returncode == 1
    assert f"{line.key}: charged 1 cents instead of {shop.cents(line.amount_usd)}" in cooked.stdout


def test_fresh_starts_over_and_deletes_nothing_but_an_embedded_database(tmp_path: Path) -> None:
    assert orders_demo("--limit", 20, "--url", url(tmp_path)).returncode == 0
    fresh = orders_demo("--limit", 20, "--url", url(tmp_path), "--fresh")
    assert fresh.returncode == 0
    assert "were done before" not in fresh.stdout
    assert set(mails(tmp_path).values()) == {1}
    refused = orders_demo("--fresh", "--url", "memory://")
    assert refused.returncode == 2
    assert "--fresh deletes an embedded database, and memory:// is none" in refused.stdout


@pytest.mark.parametrize(
    "arguments", [("--limit", "0"), ("--limit", "-3"), ("--limit", "many"), ("--url", "mysql://x")]
)
def test_a_wrong_option_is_refused_before_anything_is_run(arguments: tuple[str, str]) -> None:
    refused = orders_demo(*arguments)
    assert refused.returncode == 2
    assert arguments[1] in refused.stdout + refused.stderr


# ---- the report ---------------------------------------------------------------------------------------------------


def test_the_report_shows_every_measured_penguin_and_is_the_same_each_time(tmp_path: Path) -> None:
    pages: list[str] = []
    for _ in range(2):
        done = _python(
            "examples.report.demo", ["--html", tmp_path / "a page.html", "--url", f"sqlite:///{tmp_path}/r.db"]
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(tmp_path / "a page.html") in done.stdout
        pages.append((tmp_path / "a page.html").read_text(encoding="utf-8"))
    page = pages[0]
    assert pages[1] == page
    assert [name.name for name in tmp_path.iterdir() if name.suffix == ".draft"] == []
    marks = len(re.findall(r'fill-opacity="0.55"', page))
    assert marks == 342 + 3, "two birds were not measured; three marks stand in the legend"
    assert "344 birds of 3 species on 3 islands" in page
    assert "r = \u22120.24" in page
    for figure in ("Adelie +0.39", "Chinstrap +0.65", "Gentoo +0.64"):
        assert figure in page


def test_names_in_the_data_cannot_write_html(tmp_path: Path) -> None:
    table = tmp_path / "odd.csv"
    table.write_text(DATA.read_text().replace("Gentoo", "<script>alert(1)</script>"))
    done = _python("examples.report.demo", ["--csv", table, "--html", tmp_path / "p.html", "--url", "memory://"])
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


@pytest.mark.parametrize("text", [None, "", "species\n", "species,island\nAdelie,Dream\n", "\x00\x01"])
def test_a_file_that_is_no_table_of_penguins_is_refused_with_its_name(tmp_path: Path, text: str | None) -> None:
    table = tmp_path / "wrong.csv"
    if text is not None:
        table.write_text(text)
    done = _python("examples.report.demo", ["--csv", table, "--html", tmp_path / "p.html", "--url", "memory://"])
    assert done.returncode == 1
    assert "wrong.csv" in done.stderr
    assert not (tmp_path / "p.html").exists()


def test_ticks_are_round_and_enclose_the_values() -> None:
    assert ticks([32.1, 59.6]) == [30, 35, 40, 45, 50, 55, 60]
    assert ticks([13.1, 21.5]) == [12, 14, 16, 18, 20, 22]
    assert ticks([5.0]) == [4, 4.5, 5, 5.5, 6]


# ---- what the tests are made of -----------------------------------------------------------------------------------


def _python(module: str, arguments: Sequence[object]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=120)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DETENT_", "ORDERS_"))}
    return {**kept, "COLUMNS": "120", "PYTHONWARNINGS": "error"}


def _row(output: str, title: str) -> list[str]:
    """The figures behind a title."""
    line = next(line for line in output.splitlines() if line.startswith(title))
    return line.removeprefix(title).split()


def _tables(output: str) -> str:
    return output[output.index("runs ") : output.index("The database:")]


def _wait_for_mails(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, "the demo ended before it could be killed"
        if (folder / "orders-mail.txt").exists() and len(mails(folder)) >= count:
            return
        time.sleep(0.01)
    raise AssertionError("no mails were sent")
