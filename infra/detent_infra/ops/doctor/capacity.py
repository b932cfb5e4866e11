"""Whether the stack to be deployed would invoke more functions at once than the account allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from detent_infra.aws.resources import Clients
from detent_infra.ops.doctor.findings import Finding
from detent_infra.ops.doctor.queue_checks import over_account
from detent_infra.ops.packaging.reading import mapping_at
from detent_infra.ops.stack.facts import Unread
from detent_infra.ops.stack.parts import TRIGGER, unreserved_concurrency

WORKER = "MaximumConcurrency"
"""The template's parameter that limits the worker. The limits of the other functions are written out there."""


def judge_capacity(clients: Clients, template: Mapping[str, object], given: Mapping[str, str]) -> Iterator[Finding]:
    """What `detent doctor --stack` will find, before the stack is there. Nothing if the account may not be looked at.

    `given`: the values of parameters, where they are not the template's defaults.
    """
    parameters = {**_defaults(template), **given}
    worker, unreserved = parameters.get(WORKER, ""), unreserved_concurrency(clients)
    if worker.isdecimal() and not isinstance(unreserved, Unread):
        others = sum(_written_out(template, triggered=bool(parameters.get(TRIGGER))))
        yield from over_account(int(worker), others, unreserved)


def _defaults(template: Mapping[str, object]) -> dict[str, str]:
    declared = mapping_at(template, "Parameters")
    return {
        name: str(mapping_at(declared, name)["Default"]) for name in declared if "Default" in mapping_at(declared, name)
    }


def _written_out(template: Mapping[str, object], *, triggered: bool) -> Iterator[int]:
    """Limits of event sources. Those under a condition are the trigger's."""
    for resource in mapping_at(template, "Resources").values():
        if triggered or "Condition" not in mapping_at(resource):
            for event in mapping_at(resource, "Properties", "Events").values():
                most = mapping_at(event, "Properties", "ScalingConfig").get("MaximumConcurrency")
                if isinstance(most, int):
                    yield most
