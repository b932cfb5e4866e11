"""What takes long, begun before everything else: other scenarios run meanwhile."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from detent import Client, Delivery, StepStatus
from detent_infra.clock import wall_clock
from detent_infra.memory import memory_backend

from tests.stack import app
from tests.stack.stack import Stack, until_on_stack

HEARTBEATS = {Delivery.AT_LEAST_ONCE: 2, Delivery.AT_MOST_ONCE: 3, Delivery.EXACTLY_ONCE: 3}
"""How many leases a step run has had by its second heartbeat, counting a claim's. The first heartbeat has then set the
message's visibility too, so the message is soon back."""
AGE = 20 * 60_000
"""Milliseconds. The tick looks at runs without progress for a quarter of an hour."""


@dataclass(frozen=True)
class Early:
    """Ids of runs: one whose message was lost, one of many hops, and one of each delivery whose worker is killed."""

    lost: str
    stubborn: str
    killed: dict[Delivery, str]


def begin(stack: Stack) -> Early:
    lost = _lose(stack)
    # Alone, so that no other message is in the batch of a process that is killed.
    killed = {
        delivery: stack.client.start(workflow, stack.place.pid is None).id for delivery, workflow in app.KILLED.items()
    }
    if stack.place.pid is not None:
        _kill_workers_of(stack, killed)
    return Early(lost, stack.client.start(app.stubborn, "at last").id, killed)


def _lose(stack: Stack) -> str:
    """A run that was recorded twenty minutes ago, and whose first message went to where nobody looks."""
    dead = replace(stack.backend, clock=lambda: wall_clock() - AGE, queue=memory_backend().queue)
    return Client(stack.url, backend=lambda: dead).start(app.DIAMONDS[Delivery.AT_LEAST_ONCE], 1).id


def _kill_workers_of(stack: Stack, runs: dict[Delivery, str]) -> None:
    leases: dict[Delivery, set[int]] = defaultdict(set)

    def all_have_had_heartbeats() -> bool:
        for delivery, run_id in runs.items():
            record = stack.step(run_id, "work")
            if record is not None and record.status is StepStatus.RUNNING:
                leases[delivery].add(record.lease)
        return all(len(leases[delivery]) >= count for delivery, count in HEARTBEATS.items())

    until_on_stack(all_have_had_heartbeats)
    stack.kill({int(entry["pid"]) for run_id in runs.values() for entry in stack.ledger.entries(run_id)})
