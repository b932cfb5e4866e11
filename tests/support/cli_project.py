"""A user's project in a directory, and the command line run in it: in this process, or as the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from detent.cli import main
from detent.settings import settings

PATIENCE = 60.0
"""Seconds after which something that should have happened has not."""

SHOP = """
from __future__ import annotations

import time

from detent import App, Context, Failure, Retry
from pydantic import BaseModel


class Order(BaseModel):
    id: str
    total: float = 0.0


print("the module prints")
app = App("shop")
orders = app.workflow("orders", input=Order, output=str, description="Reserve, charge and ship.")


@orders.step
def reserve(order: Order) -> str:
    return f"held {order.id}"


@orders.step(retry=Retry(attempts=2, initial=0.05, jitter=False), when=orders.input.total > 0)
def charge(order: Order, held: str = reserve.output, *, ctx: Context) -> float:
    ctx.log("charging the card", total=order.total)
    if order.id == "refused" or (order.id == "flaky" and ctx.attempt == 1):
        raise ValueError("the card was\\nrefused")
    if order.id == "slow":
        time.sleep(60)
    return order.total


@orders.step
def ship(order: Order, paid: float | None = charge.output) -> str:
    return f"{order.id} for {paid}"


@orders.on_failure
def undo(order: Order, why: Failure) -> None: ...


hello = app.workflow("hello", output=str)


@hello.step
def greet() -> str:
    return "hello"
"""


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def refused(self, *words: str) -> None:
        """It exited with 2 and one line on standard error that has these words."""
        assert self.code == 2, self
        assert self.out == ""
        lines = self.err.removeprefix("the module prints\n").splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("detent: ")
        for word in words:
            assert word in lines[0]


class Project:
    """`shop:app`, named in pyproject.toml, on a file of its own."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys
        (path / "shop.py").write_text(SHOP)
        (path / "pyproject.toml").write_text('[tool.detent]\napp = "shop:app"\n')
        monkeypatch.chdir(path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        for name in ("DETENT_APP", "DETENT_URL", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        self._monkeypatch = monkeypatch
        self.forget()

    def forget(self) -> None:
        """What this process remembers of the project: as if the next command were another process."""
        sys.modules.pop("shop", None)
        settings.cache_clear()

    def call(self, *arguments: str, columns: int | None = None) -> Result:
        """The command line in this process."""
        self.forget()
        self._capsys.readouterr()
        if columns is not None:
            self._monkeypatch.setenv("COLUMNS", str(columns))
        code = main(arguments)
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Result:
        """The real command."""
        done = subprocess.run(
            command(*arguments),
            cwd=self.path,
            env={**os.environ, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def background(self, *arguments: str) -> Iterator[Background]:
        """The real command beside the test, which is killed in the end if it still runs."""
        output = self.path / f"background-{len(list(self.path.glob('background-*')))}.out"
        with output.open("xb") as out:
            # Spelled out, because pytest loads readline, which sets COLUMNS behind Python's back.
            process = subprocess.Popen(command(*arguments), cwd=self.path, stdout=out, stderr=out, env=dict(os.environ))
        try:
            yield Background(process, output)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@dataclass(frozen=True)
class Background:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    output: Path

    def says(self, words: str, times: int = 1) -> str:
        """Its output once it has these words so often."""
        until = time.monotonic() + PATIENCE
        while (text := self.output.read_text()).count(words) < times:
            assert time.monotonic() < until, f"{words!r} is not in {text!r}"
            time.sleep(0.05)
        return text

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def command(*arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", "detent.cli", *arguments]
