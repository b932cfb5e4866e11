"""Messages of SQS as an event source mapping hands them to a function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from detent_functions.batches import SqsEvent


def sqs_event(messages: Iterable[Mapping[str, Any]], *, queue: str = "steps", region: str = "us-east-1") -> SqsEvent:
    """The event for messages as `ReceiveMessage` returns them, all of their system attributes included."""
    records = [
        {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {
                name: {
                    "stringValue": value.get("StringValue"),
                    "stringListValues": [],
                    "binaryListValues": [],
                    "dataType": value["DataType"],
                }
                for name, value in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:{region}:123456789012:{queue}",
            "awsRegion": region,
        }
        for message in messages
    ]
    return cast("SqsEvent", {"Records": records})
