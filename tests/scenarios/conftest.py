"""Every scenario runs on every backend with the same code: memory under a virtual clock, sqlite and aws (moto) live.

Those marked `over_the_wire` run against a server too; if AWS_ENDPOINT_URL names one, all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from detent import App
from detent.testing import Harness

from tests.support.timing import LIVE, SHORT

OpenHarness = Callable[[App], Harness]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "harness" in metafunc.fixturenames:
        backends: list[object] = ["memory", "sqlite", "aws"]
        if (
            metafunc.definition.get_closest_marker("over_the_wire")
            or "AWS_ENDPOINT_URL" in os.environ
            or "LOCALSTACK_ENDPOINT" in os.environ
        ):
            backends.append(pytest.param("service", marks=pytest.mark.service))
        metafunc.parametrize("harness", backends, indirect=True)


@pytest.fixture
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenHarness]:
    """Opens an app on the backend under test; several apps in one test share it (two deploys of one code)."""
    timing = SHORT if request.node.get_closest_marker("short_leases") else LIVE
    with ExitStack() as stack:
        backend = None
        if request.param == "sqlite":
            from detent_infra.sqlite import sqlite_backend

            backend = sqlite_backend(tmp_path / "detent.db", timing=timing)
        elif request.param == "aws":
            from tests.support.aws_stack import moto_backend

            backend = stack.enter_context(moto_backend(timing=timing))
        elif request.param == "service":
            from tests.support.service_stack import service_backend

            server = request.getfixturevalue("service")
            backend = stack.enter_context(service_backend(server, timing=timing))
        yield lambda app: stack.enter_context(Harness(app, backend=backend))
