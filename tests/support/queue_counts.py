"""How many messages an SQS queue has, as tests need to know it: none overlooked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


def messages_in(sqs: SQSClient, url: str) -> int:
    """Those that are visible, delayed or in flight.

    moto counts the three one after the other, and so a message that becomes visible meanwhile in none of them. In the
    moment of a second look it does not do so again.
    """
    return max(_counted(sqs, url), _counted(sqs, url))


def _counted(sqs: SQSClient, url: str) -> int:
    got = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return sum(int(count) for name, count in got.items() if name.startswith("ApproximateNumberOfMessages"))
