"""The tick, once a minute: sends the messages of timers that are due, then those of runs that lost theirs.

It also registers the application's workflows, so that a minute after a deploy they can be started by name.
"""

from __future__ import annotations

from typing import TypedDict

from aws_lambda_powertools.utilities.typing import LambdaContext
from detent_infra.runs.reaper import ReapReport, reap
from detent_infra.timers.tick import TimersSent, send_due_timers

from detent_functions.runtime import Runtime, prepare, runtime
from detent_functions.telemetry import invocation, log

prepare()


TIMERS_UNTIL = 20_000
"""Milliseconds of an invocation that are kept for the reaper. Timers that are left then wait for the next tick."""


class TickReport(TypedDict):
    """How many timers were sent; how many live runs were checked, how many had stopped, and how many messages were
    sent for them.
    """

    timers: int
    looked: int
    stalled: int
    sent: int


def handler(event: object, context: LambdaContext) -> TickReport:  # noqa: ARG001
    """Invoked by a schedule. Raises what failed: the next minute tries again, and an alarm counts it."""
    with invocation(context) as counters:
        here = runtime()
        ends = here.backend.clock() + context.get_remaining_time_in_millis()
        timers, report = here.run(_tick(here, ends - TIMERS_UNTIL))
        counters.add("RunsStalled", report.stalled)
        if not timers.complete:
            log.warning("%d timers sent, and more are due: the next tick goes on", timers.sent)
        if report.stalled:
            log.warning("%d stalled runs, %d messages sent", report.stalled, report.sent)
        return {
            "timers": timers.sent,
            "looked": report.looked,
            "stalled": report.stalled,
            "sent": report.sent,
        }


async def _tick(here: Runtime, timers_until: int) -> tuple[TimersSent, ReapReport]:
    # The timers first: people wait for those. Neither they nor the reaper need the application's code, so they work
    # when that cannot be imported.
    timers = await send_due_timers(here.backend, until=timers_until)
    report = await reap(here.backend, here.definitions)
    await here.register()
    return timers, report
