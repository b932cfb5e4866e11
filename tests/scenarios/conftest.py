"""Every scenario runs on every backend with the same code: memory under a virtual clock, sqlite and aws (moto) live.

Some run against a server over the wire too; if AWS_ENDPOINT_URL names one, all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from detent import App
from detent.testing import Harness
from detent_infra.ports import Timing

LIVE = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=30.0, visibility=30.0)
"""Nothing comes back while a worker is only slow."""
SHORT = replace(LIVE, lease=3.0, visibility=4.0)
"""For tests that wait until a lease ends, or a message comes back. SQS counts visibility in whole seconds."""

OpenHarness = Callable[[App], Harness]


OVER_THE_WIRE = frozenset(
    {
        "test_a_run_goes_through_fork_join_and_skip_to_its_output",
        "test_an_error_is_retried_with_its_attempts_kept_as_history",
        "test_failure_handlers_see_what_failed_and_what_was_done_then_the_run_is_failed",
        "test_a_committed_write_lands_with_the_step_that_made_it",
        "test_a_committed_write_whose_condition_fails_fails_the_step_and_writes_nothing",
        "test_the_same_key_names_the_same_run",
        "test_a_cancelled_run_starts_nothing_more_and_says_so",
        "test_runs_are_listed_newest_first_by_workflow_status_time_and_metadata",
        "test_large_payloads_travel_by_reference",
        "test_lines_of_a_step_are_read_by_run_with_a_pattern",
        "test_an_at_most_once_body_is_never_run_again",
        "test_duplicates_of_every_message_change_nothing",
        "test_the_reaper_revives_a_run_whose_messages_were_lost",
        "test_a_dead_letter_of_a_sound_step_begins_it_again_and_the_run_completes",
    }
)
"""The scenarios that ask most of a service, in the time that `make check` has. All of them take minutes."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "harness" in metafunc.fixturenames:
        backends: list[object] = ["memory", "sqlite", "aws"]
        if (
            metafunc.function.__name__ in OVER_THE_WIRE
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
            from tests.service.stack import service_backend

            server = request.getfixturevalue("service")
            backend = stack.enter_context(service_backend(server, timing=timing))
        yield lambda app: stack.enter_context(Harness(app, backend=backend))
