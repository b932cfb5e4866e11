"""What each function's role has to allow."""

from __future__ import annotations

from collections.abc import Mapping

from detent_infra.ops.stack.facts import Needed

NEEDED: Mapping[str, tuple[Needed, ...]] = {
    function: tuple(Needed(action, on) for on, actions in needs.items() for action in actions.split())
    for function, needs in {
        "Worker": {
            "Logs": "logs:CreateLogStream logs:PutLogEvents",
            "Table": "dynamodb:GetItem dynamodb:BatchGetItem dynamodb:PutItem dynamodb:UpdateItem dynamodb:DeleteItem",
            "Queue": "sqs:ReceiveMessage sqs:DeleteMessage sqs:GetQueueAttributes sqs:ChangeMessageVisibility "
            "sqs:SendMessage",
            "Bucket/blobs/*": "s3:GetObject s3:PutObject",
            "Bucket": "s3:ListBucket",
        },
        "Start": {
            "Logs": "logs:CreateLogStream logs:PutLogEvents",
            "Table": "dynamodb:GetItem dynamodb:BatchGetItem dynamodb:PutItem dynamodb:UpdateItem",
            "Queue": "sqs:SendMessage",
            "FailedStarts": "sqs:SendMessage",
            "Bucket/blobs/*": "s3:GetObject s3:PutObject",
            "Bucket": "s3:ListBucket",
        },
        "Tick": {
            "Logs": "logs:CreateLogStream logs:PutLogEvents",
            "Table": "dynamodb:GetItem dynamodb:Query dynamodb:PutItem dynamodb:UpdateItem",
            "Table/index/runs": "dynamodb:Query",
            "Queue": "sqs:SendMessage",
            "Bucket/blobs/*": "s3:GetObject s3:PutObject",
            "Bucket": "s3:ListBucket",
        },
        "DeadLetters": {
            "Logs": "logs:CreateLogStream logs:PutLogEvents",
            "Table": "dynamodb:GetItem dynamodb:BatchGetItem dynamodb:UpdateItem",
            "DeadLetterQueue": "sqs:ReceiveMessage sqs:DeleteMessage sqs:GetQueueAttributes "
            "sqs:ChangeMessageVisibility",
            "Queue": "sqs:SendMessage",
            "Bucket/blobs/*": "s3:GetObject",
            "Bucket": "s3:ListBucket",
        },
        "QueueTrigger": {
            "Logs": "logs:CreateLogStream logs:PutLogEvents",
            "Table": "dynamodb:GetItem dynamodb:PutItem",
            "TriggerQueueArn": "sqs:ReceiveMessage sqs:DeleteMessage sqs:GetQueueAttributes sqs:GetQueueUrl "
            "sqs:ChangeMessageVisibility",
            "TriggerDeadLetterQueueArn": "sqs:SendMessage sqs:GetQueueUrl",
            "Queue": "sqs:SendMessage",
            "Bucket/blobs/*": "s3:PutObject",
        },
    }.items()
}
"""By logical name. A test holds it to template.yaml, and another that to the calls the functions make."""
