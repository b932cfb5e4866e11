"""`detent doctor --stack`: looks at a deployed stack, and says what will bite. Changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from detent_infra.aws.resources import Clients
from detent_infra.clock import wall_clock
from detent_infra.connect import connect, parse_aws
from detent_infra.engine.definitions import Definitions
from detent_infra.ops.doctor.stack_checks import judge
from detent_infra.ops.stack.facts import Fact, StackFacts, StepTimeout, Unread
from detent_infra.ops.stack.reading import read_stack
from detent_state_machine.errors import DetentError

from detent.cli.findings import Report


def examine_stack(stack: str, *, as_json: bool) -> int:
    """Prints every finding about the stack, given by name or `aws://` URL; returns the exit code: 2 if one failed.

    Raises `ConfigurationError` if there is no such stack, or no way to look at it.
    """
    report = Report(as_json=as_json)
    for check in judge(look_at(stack if "://" in stack else f"aws://{stack}")):
        report.add(check)
    return report.close()


def look_at(url: str) -> StackFacts:
    """Everything that can be read of the stack, with the timeouts of the steps that are registered there."""
    name, region, endpoint = parse_aws(url)
    clients = Clients(region, endpoint)
    try:
        facts = read_stack(name, clients, wall_clock)
    finally:
        clients.close()
    return replace(facts, steps=asyncio.run(_steps(url)))


async def _steps(url: str) -> Fact[tuple[StepTimeout, ...]]:
    try:
        backend = connect(url)
        try:
            definitions = Definitions(backend)
            newest = [await definitions.newest(name) for name in await definitions.names()]
        finally:
            backend.close()
    except DetentError as error:
        return Unread(f"The registered workflows cannot be read: {error.message}", error.advice)
    return tuple(StepTimeout(each.name, step.name, step.timeout) for each in newest for step in each.steps)
