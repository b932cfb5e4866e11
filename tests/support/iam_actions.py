"""What IAM wants for a call to AWS, and what the pages say that it wants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from detent_infra.aws import Resources

from tests.support.aws_stack import Call

ROOT = Path(__file__).parents[2]
S3_ACTIONS = {
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}
"""Where IAM's action has another name than the operation."""


def actions(call: Call, resources: Resources, of_users: Mapping[str, str]) -> list[tuple[str, str]]:
    """As (action, resource), with the resource as `template.yaml` names it.

    `of_users`: what queues that detent does not own are called, by their names.
    """
    match call.service, call.operation:
        case "cloudformation", operation:
            return [(f"cloudformation:{operation}", "Stack")]
        case "dynamodb", "TransactWriteItems":
            kinds = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}
            return [(f"dynamodb:{kinds[kind]}", "Table") for item in call.params["TransactItems"] for kind in item]
        case "dynamodb", operation:
            index = call.params.get("IndexName")
            return [(f"dynamodb:{operation}", f"Table/index/{index}" if index else "Table")]
        case "sqs", "GetQueueUrl":
            return [("sqs:GetQueueUrl", of_users[call.params["QueueName"]])]
        case "sqs", operation if name := of_users.get(call.params["QueueUrl"].rpartition("/")[2]):
            return [(f"sqs:{operation.removesuffix('Batch')}", name)]
        case "sqs", operation:
            dead = call.params["QueueUrl"] == resources.dead_letter_url
            return [(f"sqs:{operation.removesuffix('Batch')}", "DeadLetterQueue" if dead else "Queue")]
        case "s3", operation:
            return [(f"s3:{operation}", "Bucket/blobs/*" if call.params["Key"].startswith("blobs/") else "Bucket")]
        case "logs", operation:  # never of functions, which print their lines, but for a cancel
            return [(f"logs:{operation}", "Logs")]
        case other:
            raise AssertionError(f"no action is known for {other}")


def actions_of(calls: list[Call]) -> set[str]:
    """The actions that IAM wants for the calls."""
    return {f"{call.service.replace('-', '')}:{S3_ACTIONS.get(call.operation, call.operation)}" for call in calls}


def actions_listed(page: str, begin: str, end: str) -> set[str]:
    """The actions that this part of the page names, which may end in `*`. A bare name is of the last service."""
    found: set[str] = set()
    service = ""
    part = (ROOT / page).read_text().partition(begin)[2].partition(end)[0]
    for named, action in re.findall(r"`(?:([a-z0-9]+):)?([A-Z]\w+\*?)`", part):
        service = named or service
        found.add(f"{service}:{action}")
    return found
