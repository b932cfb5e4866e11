"""One suite for the ports, run over every adapter. A test here says what a port promises, not how one keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from detent_infra.memory import memory_backend
from detent_infra.ports import Backend

from tests.support.server import Server

MAX_RECEIVES = 3


@contextmanager
def open_backend(adapter: str, folder: Path, server: Callable[[], Server]) -> Iterator[Backend]:
    match adapter:
        case "memory":
            with closing(memory_backend(max_receives=MAX_RECEIVES)) as backend:
                yield backend
        case "sqlite":
            from detent_infra.sqlite import sqlite_backend

            with closing(sqlite_backend(folder / "detent.db", max_receives=MAX_RECEIVES)) as backend:
                yield backend
        case "aws":
            from tests.support.aws_stack import moto_backend

            with moto_backend(max_receives=MAX_RECEIVES) as backend:
                yield backend
        case "service":
            from tests.support.service_stack import service_backend

            with service_backend(server(), max_receives=MAX_RECEIVES) as backend:
                yield backend
        case _:
            raise ValueError(adapter)


@pytest.fixture(params=["memory", "sqlite", "aws", pytest.param("service", marks=pytest.mark.service)])
def adapter(request: pytest.FixtureRequest) -> str:
    """`aws` is moto in this process, `service` the same adapter on a server over the wire."""
    return str(request.param)


@pytest.fixture
def backend(adapter: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Backend]:
    with open_backend(adapter, tmp_path, lambda: request.getfixturevalue("service")) as backend:
        yield backend


@pytest.fixture
def tick(adapter: str) -> float:
    """The shortest time in seconds that the adapter's queue can tell from none: SQS counts in whole seconds."""
    return 1.0 if adapter in ("aws", "service") else 0.2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test of the embedded backend has its file: nothing exists yet, and the names are awkward."""
    return tmp_path / "a folder" / "with é % # ?" / "detent.db"
