"""What `--follow` says while nothing happens."""

from __future__ import annotations

import asyncio
import io

import pytest
from detent import App, Client
from detent.cli import follow
from detent.cli.project import Options
from detent_infra.memory import memory_backend
from rich.console import Console


class Told(Exception):
    """It has said that no worker is there, which ends the test."""


class Watched(follow.Lines):
    def no_worker(self, url: str) -> None:
        super().no_worker(url)
        raise Told


def said_without_a_worker(url: str) -> str:
    app = App("shop", url="memory://")
    hello = app.workflow("hello", input=str, output=str)

    @hello.step
    def greet(name: str) -> str:
        return name

    printed = io.StringIO()
    backend = memory_backend()
    client = Client(url, backend=lambda: backend)

    async def work() -> None:
        run = await client.astart(hello, "you")
        await follow.follow(client, run.id, Watched(Console(file=printed, width=200), Options()))

    with pytest.raises(Told):
        asyncio.run(work())
    return printed.getvalue()


def test_a_function_on_aws_has_time_to_start_before_the_doctor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow.NO_FUNCTION_AFTER >= 15
    monkeypatch.setattr(follow, "NO_WORKER_AFTER", 0.01)
    monkeypatch.setattr(follow, "NO_FUNCTION_AFTER", 0.1)
    assert "Nothing has happened for 0.01 s" in said_without_a_worker("sqlite:///detent.db")
    told = said_without_a_worker("aws://shop?region=eu-west-1")
    assert "Nothing has happened for 0.1 s" in told
    assert "`detent doctor --stack 'aws://shop?region=eu-west-1'`" in told
    assert "detent worker" not in told
