"""`python -m bench.durable`, in .venv-durable: reads sizes and orders as JSON, and prints what was counted as JSON.

Counted as the service meters: the execution is one operation, each operation that it checkpoints another, each retry
one more; written is what it is given, what its operations return and what they fail with.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from aws_durable_execution_sdk_python.execution import InvocationStatus
from aws_durable_execution_sdk_python.lambda_service import OperationAction
from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner
from aws_durable_execution_sdk_python_testing.client import InMemoryServiceClient

from bench.durable.workloads import Handler, handlers

PACKAGES = ("aws-durable-execution-sdk-python", "aws-durable-execution-sdk-python-testing")


@dataclass
class Counts:
    """Of some executions."""

    executions: int = 0
    operations: int = 0
    retries: int = 0
    checkpoints: int = 0
    invocations: int = 0
    bytes_written: int = 0


def main() -> None:
    logging.disable(logging.CRITICAL)
    given = json.load(sys.stdin)
    found: dict[str, Any] = {}
    for name, handler in handlers(given["sizes"]).items():
        orders = name == "orders"
        found[name] = asdict(count(handler, given["orders"] if orders else [{"n": 0}], may_fail=orders))
    versions = {package: version(package) for package in PACKAGES}
    json.dump({"versions": versions, "workloads": found}, sys.stdout)


def count(handler: Handler, events: Sequence[Mapping[str, Any]], *, may_fail: bool) -> Counts:
    """One execution for each event. Raises `RuntimeError` if one fails that may not: the figures would mean nothing."""
    counts = Counts()

    def counted(event: Any, context: Any) -> Any:
        counts.invocations += 1
        return handler(event, context)

    with _watched(counts):
        for number, event in enumerate(events):
            text = json.dumps(event)
            with DurableFunctionTestRunner(handler=counted, poll_interval=0.01) as runner:
                result = runner.run(input=text, execution_timeout=30, execution_name=f"execution-{number}")
            if result.status is not InvocationStatus.SUCCEEDED and not may_fail:
                raise RuntimeError(f"an execution of {handler.__name__} is {result.status}: {result.error}")
            counts.executions += 1
            counts.operations += 1
            counts.bytes_written += len(text)
    counts.operations += counts.retries
    return counts


@contextmanager
def _watched(counts: Counts) -> Iterator[None]:
    """Counts what is checkpointed meanwhile."""
    checkpoint = InMemoryServiceClient.checkpoint
    seen: set[tuple[str, str]] = set()

    def watch(
        self: Any, durable_execution_arn: str, checkpoint_token: str, updates: list[Any], client_token: str | None
    ) -> Any:
        counts.checkpoints += 1
        for update in updates:
            if (durable_execution_arn, update.operation_id) not in seen:
                seen.add((durable_execution_arn, update.operation_id))
                counts.operations += 1
            counts.retries += update.action is OperationAction.RETRY
            error = json.dumps(update.error.to_dict()) if update.error else ""
            counts.bytes_written += len((update.payload or "").encode()) + len(error.encode())
        return checkpoint(self, durable_execution_arn, checkpoint_token, updates, client_token)

    InMemoryServiceClient.checkpoint = watch  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        InMemoryServiceClient.checkpoint = checkpoint  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
