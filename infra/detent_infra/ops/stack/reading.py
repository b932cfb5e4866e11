"""Reads the facts about a deployed stack. Changes nothing; each fact that cannot be read says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from detent_state_machine.errors import DetentError

from detent_infra.aws.errors import VENDOR_ERRORS, translate
from detent_infra.aws.resources import Clients, deployed
from detent_infra.clock import wall_clock
from detent_infra.connect import connect, parse_aws
from detent_infra.definitions import Definitions
from detent_infra.ops.stack.facts import Fact, MappingFacts, StackFacts, StepTimeout, Unread
from detent_infra.ops.stack.parts import FAILED_STARTS, TRIGGER, StackParts, StackResource, attempt
from detent_infra.ops.stack.permissions import NEEDED
from detent_infra.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_lambda.type_defs import FunctionConfigurationTypeDef

T = TypeVar("T")

THREADS = 8


def read_stack_at(url: str) -> StackFacts:
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


def read_stack(stack: str, clients: Clients, clock: Clock) -> StackFacts:
    """Reads everything, several things at a time, but for the steps' timeouts, which are in the table.

    Raises `ConfigurationError` if there is no such stack or no way to look at it, and `Unavailable`.
    """
    described, names = deployed(stack, clients)
    try:
        resources = _resources(stack, clients)
    except VENDOR_ERRORS as error:
        raise translate(error, f"the resources of the stack {stack!r}") from None
    with ThreadPoolExecutor(THREADS, "detent-look") as pool:

        def begin(what: str, look: Callable[[], T]) -> Callable[[], Fact[T]]:
            return pool.submit(attempt, what, look).result

        look = StackParts(clients, names, resources, clock)
        clock_off = begin("the clock of AWS", look.clock_off)
        configurations = begin("the functions", look.configurations)
        failed_starts = [(each.logical, each.physical) for each in resources if each.logical == FAILED_STARTS]
        queues = {
            logical: begin(f"the queue {url.rpartition('/')[2]!r}", lambda url=url: look.queue(url))  # type: ignore[misc]
            for logical, url in (("Queue", names.queue_url), ("DeadLetterQueue", names.dead_letter_url), *failed_starts)
        }
        table = begin(f"the table {names.table!r}", look.table)
        blocks = begin(f"the bucket {names.bucket!r}", look.missing_blocks)
        retention = begin(f"the log group {names.log_group!r}", look.log_retention)
        alarms = begin("the alarms", look.alarms)
        rules = begin("the rule of the tick", look.rules)
        account = begin("the account", look.account)
        quota = begin("the quotas of DynamoDB", look.table_quota)
        found = configurations()
        own: Iterable[tuple[str, FunctionConfigurationTypeDef]] = () if isinstance(found, Unread) else found
        functions = [begin(name, lambda n=name, c=c: look.function(n, c)) for name, c in own]  # type: ignore[misc]
        start = next((c.get("FunctionName") for name, c in own if name == "Start"), None)
        failed_starts_to = begin(
            "the failure destination of Start", lambda: None if start is None else look.failed_starts_to(start)
        )
        listed = [
            begin("event source mappings", lambda n=n, c=c: look.mappings(n, c["FunctionName"]))  # type: ignore[misc]
            for n, c in own
        ]
        mappings = found if isinstance(found, Unread) else _flat(ask() for ask in listed)
        if source := _trigger_source(mappings):
            queues[TRIGGER] = begin("the queue of the trigger", lambda: look.queue(look.queue_url(source)))
        known = {name: queue for name, ask in queues.items() if not isinstance(queue := ask(), Unread)}
        denied = {
            name: begin(f"the role of {name}", lambda n=name, c=c: look.denied(n, c, known))  # type: ignore[misc]
            for name, c in own
            if name in NEEDED
        }
        return StackFacts(
            name=stack,
            region=clients.region,
            status=described["StackStatus"],
            resources={each.logical: each.physical for each in resources},
            clock=clock_off(),
            functions=found if isinstance(found, Unread) else _all(ask() for ask in functions),
            mappings=mappings,
            queues={logical: ask() for logical, ask in queues.items()},
            failed_starts_to=found if isinstance(found, Unread) else failed_starts_to(),
            table=table(),
            public_access=blocks(),
            log_retention=retention(),
            alarms=alarms(),
            rules=rules(),
            account=account(),
            table_quota=quota(),
            denied={name: ask() for name, ask in denied.items()},
        )


def _all(facts: Iterable[Fact[T]]) -> Fact[tuple[T, ...]]:
    found: list[T] = []
    for fact in facts:
        if isinstance(fact, Unread):
            return fact
        found.append(fact)
    return tuple(found)


def _flat(facts: Iterable[Fact[tuple[T, ...]]]) -> Fact[tuple[T, ...]]:
    gathered = _all(facts)
    return gathered if isinstance(gathered, Unread) else tuple(each for some in gathered for each in some)


def _trigger_source(mappings: Fact[tuple[MappingFacts, ...]]) -> str | None:
    """The ARN of the queue that the trigger takes messages from, if there is one."""
    if isinstance(mappings, Unread):
        return None
    return next((each.source for each in mappings if each.function == "QueueTrigger" and ":sqs:" in each.source), None)


def _resources(stack: str, clients: Clients) -> list[StackResource]:
    pages = clients.cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    return [
        StackResource(each["LogicalResourceId"], each["ResourceType"], each.get("PhysicalResourceId", ""))
        for page in pages
        for each in page["StackResourceSummaries"]
        if not each.get("ResourceStatus", "").startswith("DELETE_COMPLETE")
    ]
