"""What several suites share: a server that speaks AWS over the wire, started once if a test asks for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from detent.settings import settings as detent_settings
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.server import NoServer, Server, server

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile(
    "detent", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("detent")


TOGETHER = (
    "tests/stack/",
    "tests/service/test_deploy",
    "tests/service/test_stack_doctor",
    "tests/e2e/test_lambda_runtime",
    "tests/typing/",
)
"""Where tests share what takes long to make: all of one beginning run in one process."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One test at a time for whichever process is free, but for those that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        return next((beginning for beginning in TOGETHER if nodeid.startswith(beginning)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    # xdist's own way, --dist loadgroup, has no effect with pytest 9.2.
    return Scheduling(config, log)


def pytest_configure() -> None:
    # A shell starts what it puts into the background with Ctrl-C ignored, and the commands that tests interrupt would
    # inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_of_it_stays_in_the_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The next test imports its own `shop`, and reads its own environment: not those of a test before it."""
    yield
    written = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(written):
            del sys.modules[name]
    detent_settings.cache_clear()


@pytest.fixture(scope="session")
def service() -> Iterator[Server]:
    """A LocalStack-compatible server: the one at AWS_ENDPOINT_URL, or ministack.

    Without one, tests are skipped on a laptop, and fail where CI is set: a suite that nobody runs proves nothing.
    """
    try:
        with server() as running:
            yield running
    except NoServer as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
