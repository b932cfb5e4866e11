"""The worker: drives the messages of the step queue."""

from __future__ import annotations

from aws_lambda_powertools.utilities.typing import LambdaContext

from detent_functions.batches import BatchResponse, SqsEvent
from detent_functions.deliveries import handle
from detent_functions.runtime import prepare

prepare()


def handler(event: SqsEvent, context: LambdaContext) -> BatchResponse:
    """Invoked by an SQS event source mapping with `ReportBatchItemFailures`. Never raises."""
    return handle(event, context, dead=False)
