"""What EventBridge and SNS put around a message."""

from __future__ import annotations

import json

EVENT = {
    "version": "0",
    "id": "e-1",
    "detail-type": "order.created",
    "source": "shop",
    "account": "123456789012",
    "time": "2026-01-31T08:00:00Z",
    "region": "eu-west-1",
    "resources": [],
    "detail": {"order": {"id": "A"}},
}
"""As EventBridge sends it."""


def notification(text: str, **more: object) -> str:
    """As SNS puts it into a queue without raw delivery."""
    shown = {
        "Type": "Notification",
        "MessageId": "n-1",
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:orders",
        "Message": text,
        "Timestamp": "2026-01-31T08:00:00.000Z",
        "SignatureVersion": "1",
        "Signature": "…",
        "SigningCertURL": "https://…",
        "UnsubscribeURL": "https://…",
        **more,
    }
    return json.dumps(shown)
