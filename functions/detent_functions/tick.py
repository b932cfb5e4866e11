"""The tick, once a minute: sends messages for runs that lost theirs.

It also registers the application's workflows, so that a minute after a deploy they can be started by name.
"""

from __future__ import annotations

from typing import TypedDict

from aws_lambda_powertools.utilities.typing import LambdaContext
from detent_infra.runs.reaper import ReapReport, reap

from detent_functions.runtime import Runtime, prepare, runtime
from detent_functions.telemetry import invocation, log

prepare()


class TickReport(TypedDict):
    """How many live runs were checked, how many had stopped, and how many messages were sent for them."""

    looked: int
    stalled: int
    sent: int


def handler(event: object, context: LambdaContext) -> TickReport:  # noqa: ARG001
    """Invoked by a schedule. Raises what failed: the next minute tries again, and an alarm counts it."""
    with invocation(context) as counters:
        here = runtime()
        report = here.run(_tick(here))
        counters.add("RunsStalled", report.stalled)
        if report.stalled:
            log.warning("%d stalled runs, %d messages sent", report.stalled, report.sent)
        return {"looked": report.looked, "stalled": report.stalled, "sent": report.sent}


async def _tick(here: Runtime) -> ReapReport:
    # The reaper first: it does not need the application's code, so it works when that cannot be imported.
    report = await reap(here.backend, here.definitions)
    await here.register()
    return report
