"""The worker: drives the messages of the step queue."""

from __future__ import annotations

from aws_lambda_powertools.utilities.typing import LambdaContext

from detent_functions.deliveries import BatchResponse, SqsEvent, answer


def handler(event: SqsEvent, context: LambdaContext) -> BatchResponse:
    """Invoked by an SQS event source mapping with `ReportBatchItemFailures`. Never raises."""
    return answer(event, context, dead=False)
