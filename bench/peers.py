"""What other engines on AWS charge for the same runs: by formula, or by operations that were counted.

Formulas, per run:

    Step Functions Standard    transitions x price: the start, one for each state entered, one for each retry
                               (aws.amazon.com/step-functions/pricing)
    Step Functions Express     1 request, and its duration in steps of 100 ms x 64 MB: 80 ms a state, of which 50 are
                               the body's, and every pause before a retry (the same page). No logs, without which
                               nothing is known of a run; at least once, at most 5 minutes
    Lambda durable functions   operations and bytes as AWS's local runner counts them (aws.amazon.com/lambda/pricing)

    Lambda's time, of all      50 ms for each body in 1,024 MB on arm64, and an invocation for each time one begins
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from detent_infra.ops.cost.metering import Usage
from detent_infra.ops.cost.prices import GB, MILLION, US_EAST_1, Prices, cost_of

BODY_MS = 50
"""What a body is taken to last."""
EXPRESS_STATE_MS = 80
EXPRESS_GB = 64 / 1024
KEPT_DAYS = 14
"""What storage is compared by: the time that durable functions keep an execution by default."""
MONTH_DAYS = 30


@dataclass(frozen=True, slots=True)
class States:
    """A run as Step Functions sees it. `in_a_row` are the states that wait for each other, `pauses` in milliseconds."""

    entered: float
    retries: float = 0
    in_a_row: float = 0
    pauses: float = 0
    express: bool = True
    """Whether Express could run it: it cannot hold a step to at most once."""


@dataclass(frozen=True, slots=True)
class Operations:
    """A run as durable functions see it."""

    operations: float
    invocations: float
    bytes_written: float


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars of one run: of the service alone, and with Lambda's time and storage."""

    service: float
    everything: float


def standard(states: States, bodies: float, prices: Prices = US_EAST_1) -> Price:
    """Each body is an invocation of its own. History is kept 90 days at no charge."""
    service = (1 + states.entered + states.retries) * prices.million_transitions / MILLION
    return Price(service, service + compute(bodies, bodies))


def express(states: States, bodies: float, prices: Prices = US_EAST_1) -> Price | None:
    """None where it cannot do the work."""
    if not states.express:
        return None
    lasts = states.in_a_row * EXPRESS_STATE_MS + states.pauses
    billed = math.ceil(lasts / 100) * 0.1
    service = prices.million_express_requests / MILLION + billed * EXPRESS_GB * prices.express_gb_second
    return Price(service, service + compute(bodies, bodies))


def durable(counted: Operations, bodies: float, prices: Prices = US_EAST_1) -> Price:
    written = counted.bytes_written / GB
    service = counted.operations * prices.million_operations / MILLION + written * prices.operation_gb_written
    kept = written * prices.operation_gb_month * KEPT_DAYS / MONTH_DAYS
    return Price(service, service + kept + compute(bodies, counted.invocations))


def compute(bodies: float, invocations: float, prices: Prices = US_EAST_1) -> float:
    """Lambda's time and invocations for so many bodies."""
    return cost_of(Usage(milliseconds=bodies * BODY_MS, invocations=invocations), prices=prices).compute
