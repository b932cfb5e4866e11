"""What people see at 60, 80, 100 and 120 columns: nothing is cut or left out without a word."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from detent import App, Client, Context, Failure, NonRetryable, Retry, RunHandle
from detent.app import work_with
from detent.cli import main
from detent.cli.commands import COMMANDS
from detent.cli.events import Feed, RunWatch
from detent.cli.follow import Lines, follow
from detent.cli.project import Options
from detent.settings import settings
from detent_infra.engine import LogSettings
from rich.console import Console

from tests.support.waiting import until_async

WIDTHS = [60, 80, 100, 120]
at_each_width = pytest.mark.parametrize("width", WIDTHS)
REASON = f"the bank does not answer: {'POST https://bank.example/v2/charges ' * 4}request 7f3a-99b1"
REFUSED = "the card was refused\ncode 51\nask the issuer"


def open_shop(url: str) -> App:
    app = App("shop", url=url)
    orders = app.workflow("orders", input=int, output=str)

    @orders.step
    def reserve(cents: int, ctx: Context) -> str:
        ctx.log.info("reserved", remarks="handle with care, this way up, do not bend, fragile goods, keep dry")
        return "shelf"

    @orders.step(retry=Retry(initial=0.01), when=orders.input != 0)
    def charge(cents: int, shelf: str = reserve.output, *, ctx: Context) -> int:
        if ctx.attempt == 1:
            raise ConnectionError(REASON)
        if cents < 0:
            raise NonRetryable(REFUSED)
        return cents

    @orders.step
    def ship(shelf: str = reserve.output, paid: int | None = charge.output) -> str:
        return f"{paid} paid"

    @orders.on_failure
    def release(why: Failure) -> None: ...

    return app


async def told(app: App, cents: int, width: int) -> tuple[RunHandle[str], list[str], list[str]]:
    """A run, with the lines of `detent dev` and of `detent run --follow` about it."""
    dev, following = (Console(file=io.StringIO(), width=width, highlight=False) for _ in range(2))
    stop, client = asyncio.Event(), Client(app.url, backend=lambda: app.backend)
    run: RunHandle[str] = await app.workflows["orders"].astart(cents, key=str(cents), metadata={"team": "red"})
    watch = RunWatch(Feed(dev))
    working = asyncio.create_task(work_with(app, LogSettings(watch=watch.line), stop, concurrency=1, grace=5))
    await follow(client, run.id, Lines(following, Options()), here=True)
    ended = f"run {(await run.astatus()).lower()} in"
    await until_async(lambda: working.done() or ended in written(dev), every=0.01)
    stop.set()
    await working
    return run, written(dev).splitlines(), written(following).splitlines()


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_id(line: str) -> str:
    """A line of dev as `run --follow` has it: without the end of the run's id behind the time."""
    return re.sub(r"^(\d\d:\d\d:\d\d) [0-9a-v]{6} ", r"\1 ", line)


def figures(line: str) -> str:
    return re.sub(r"^\d\d:\d\d:\d\d|(?<= )[\d.]+ m?s\b", "0", line)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.chdir(tmp_path)
    app = open_shop(f"sqlite:///{tmp_path}/shop.db")
    monkeypatch.setenv("DETENT_URL", app.url)
    settings.cache_clear()
    yield app
    settings.cache_clear()
    app.backend.close()


# ---- dev and run --follow ------------------------------------------------------------------------------------


@at_each_width
@pytest.mark.parametrize("cents", [5, 0, -5], ids=["retried", "skipped", "failed"])
def test_dev_and_follow_show_the_same_lines(shop: App, cents: int, width: int) -> None:
    _, dev, following = asyncio.run(told(shop, cents, width))
    logged = [line for line in dev if "· " in line or ": its handlers run" in line or " began" in line]
    shown = [figures(without_id(line)) for line in dev if line not in logged]
    assert sorted(shown) == sorted(figures(line) for line in following if " began" not in line)
    assert len([line for line in logged if line.endswith("fragile goods, keep dry")]) == 1, "a line of its own, whole"


@at_each_width
def test_a_reason_is_never_cut(shop: App, width: int) -> None:
    run, *both = asyncio.run(told(shop, 5, width))
    for lines in both:
        assert f"run {run.id} of orders started" in lines[0]
        assert [line for line in lines if "↻ charge attempt 1 failed, again in" in line and line.endswith(REASON)]
        assert not [line for line in lines if "…" in line]


# ---- commands ------------------------------------------------------------------------------------------------


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, *words: str) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    main(words)
    said = capsys.readouterr()
    return (said.out + said.err).splitlines()


@at_each_width
def test_help_says_all_of_every_command(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = " ".join(" ".join(call(capsys, monkeypatch, width, "--help")).split())
    assert [name for name, command in COMMANDS.items() if not command.hidden and command.help not in said] == []
    assert "..." not in said.partition("Commands:")[2]


@at_each_width
def test_what_a_narrow_list_leaves_out_is_named(
    shop: App, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, *_ = asyncio.run(told(shop, 5, width))
    for command, columns in (
        ("runs", ["TOOK", "KEY, METADATA"]),
        ("cost last", ["REQUESTS", "WRITE UNITS", "READ UNITS", "LAMBDA"]),
        ("graph --list", ["VERSION"]),
    ):
        lines = call(capsys, monkeypatch, width, *command.split())
        heads = next(line for line in lines if "STEP" in line or "RUN" in line or "WORKFLOW" in line)
        note = next((line for line in lines if line.startswith("Too narrow for ")), "")
        assert [column for column in columns if (column in heads) == (column in note)] == [], command
        assert max(len(line) for line in lines if line != note and not line.startswith("would cost")) <= width, command
    assert run.id in "\n".join(call(capsys, monkeypatch, width, "runs"))


@at_each_width
def test_an_error_keeps_its_lines(
    shop: App, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, *_ = asyncio.run(told(shop, -5, width))
    said = call(capsys, monkeypatch, width, "show", run.id)
    error = next(at for at, line in enumerate(said) if line.endswith("NonRetryable: the card was refused"))
    assert [line.strip() for line in said[error + 1 : error + 3]] == ["code 51", "ask the issuer"]


@at_each_width
def test_no_color_is_respected(
    shop: App, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(told(shop, 5, width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    for command in ("runs", "show last", "logs last", "cost last", "--help"):
        assert "\x1b[" not in "\n".join(call(capsys, monkeypatch, width, *command.split())), command
