"""The dead-letter consumer: handles what a message was about when every delivery of it failed.

A step run that can be claimed gets a new message, or, with its take-overs used up, becomes FAILED with the reason, and
its run goes on from there. No body runs here.
"""

from __future__ import annotations

from aws_lambda_powertools.utilities.typing import LambdaContext

from detent_functions.batches import BatchResponse, SqsEvent
from detent_functions.deliveries import handle
from detent_functions.runtime import prepare

prepare()


def handler(event: SqsEvent, context: LambdaContext) -> BatchResponse:
    """Invoked by an SQS event source mapping with `ReportBatchItemFailures`. Never raises."""
    return handle(event, context, dead=True)
