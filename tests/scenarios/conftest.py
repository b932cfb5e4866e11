"""Every scenario runs on every backend with the same code: memory under a virtual clock, sqlite and aws (moto) live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from detent import App
from detent.testing import Harness
from detent_infra.ports import Timing

FAST = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=1.5, visibility=2.0)
"""Live backends wait for real; SQS counts visibility in whole seconds."""

OpenHarness = Callable[[App], Harness]


@pytest.fixture(params=["memory", "sqlite", "aws"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenHarness]:
    """Opens an app on the backend under test; several apps in one test share it (two deploys of one code)."""
    with ExitStack() as stack:
        backend = None
        if request.param == "sqlite":
            from detent_infra.sqlite import sqlite_backend

            backend = sqlite_backend(tmp_path / "detent.db", timing=FAST)
        elif request.param == "aws":
            from tests.aws_stack import moto_backend

            backend = stack.enter_context(moto_backend(timing=FAST))
        yield lambda app: stack.enter_context(Harness(app, backend=backend))
