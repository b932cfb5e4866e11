"""Structured log lines and metrics of the functions themselves. What a step logs goes through the `Logs` port."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import Metrics, MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from detent_infra.engine import Origin

from detent_functions.settings import trace_id

NAMESPACE = "detent"

log = Logger(service="detent")
"""Named like the engine's own logger, so that the engine's lines are JSON as well."""

_cold = True


class Counters:
    """Counts of one invocation, published as one EMF line when it ends (without a request)."""

    def __init__(self, function: str) -> None:
        self._metrics = Metrics(namespace=NAMESPACE, service="detent")
        self._metrics.add_dimension("function", function)

    def add(self, name: str, count: int = 1) -> None:
        self._metrics.add_metric(name, MetricUnit.Count, count)

    def publish(self) -> None:
        self._metrics.flush_metrics()


def origin(context: LambdaContext) -> Origin:
    """Where the lines of this invocation come from. The worker is the execution environment, as its log stream ends."""
    return Origin(context.log_stream_name.rpartition("]")[2], context.aws_request_id, trace_id())


@contextmanager
def invocation(context: LambdaContext) -> Generator[Counters]:
    """Puts the request's id on every line logged inside, and publishes the counters at the end."""
    global _cold
    log.append_keys(function=context.function_name, request_id=context.aws_request_id, trace_id=trace_id() or None)
    counters = Counters(context.function_name)
    # Zero counts too: the metric's average is then the share of cold starts.
    counters.add("ColdStart", int(_cold))
    _cold = False
    try:
        yield counters
    finally:
        counters.publish()
