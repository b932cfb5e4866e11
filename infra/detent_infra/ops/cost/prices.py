"""List prices, as data, with where they stand and when they were read. The one place: `detent cost`, the
measurements and the documentation all take them from here.

US dollars, on demand, without free tiers, savings plans or taxes. Where AWS has tiers, the first one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from detent_infra.ops.cost.metering import Usage

MILLION = 1_000_000
GB = 1e9
"""Bytes in a gigabyte, as storage and logs are sold."""
STANDARD_MEMORY = 1024
"""MB that template.yaml gives the worker."""


class Architecture(StrEnum):
    """What Lambda runs on, as template.yaml spells it."""

    ARM64 = "arm64"
    X86_64 = "x86_64"


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of one region. Each says its unit, and the page of AWS that it is from."""

    region: str
    read_on: str
    """The month in which the pages were read."""
    million_write_units: float
    """DynamoDB, on demand: aws.amazon.com/dynamodb/pricing/on-demand."""
    million_read_units: float
    """The same page."""
    table_gb_month: float
    """The same page: standard class."""
    backup_gb_month: float
    """The same page: point-in-time recovery, which template.yaml switches on."""
    million_queue_requests: float
    """SQS, standard queue, 64 KB each: aws.amazon.com/sqs/pricing."""
    million_blob_puts: float
    """S3, standard class: aws.amazon.com/s3/pricing."""
    million_blob_gets: float
    """The same page."""
    blob_gb_month: float
    """The same page."""
    million_invocations: float
    """Lambda: aws.amazon.com/lambda/pricing."""
    gb_second_arm64: float
    """The same page."""
    gb_second_x86_64: float
    """The same page."""
    log_gb: float
    """CloudWatch Logs, ingested, standard class: aws.amazon.com/cloudwatch/pricing."""
    million_transitions: float
    """Step Functions, Standard: aws.amazon.com/step-functions/pricing. Retries count."""
    million_express_requests: float
    """Step Functions, Express: the same page."""
    express_gb_second: float
    """The same page: memory in chunks of 64 MB, time in steps of 100 ms."""
    million_operations: float
    """Lambda durable functions: aws.amazon.com/lambda/pricing. The execution itself is one, each retry another."""
    operation_gb_written: float
    """The same page."""
    operation_gb_month: float
    """The same page."""


US_EAST_1 = Prices(
    region="us-east-1",
    read_on="2026-10",
    million_write_units=0.625,
    million_read_units=0.125,
    table_gb_month=0.25,
    backup_gb_month=0.20,
    million_queue_requests=0.40,
    million_blob_puts=5.00,
    million_blob_gets=0.40,
    blob_gb_month=0.023,
    million_invocations=0.20,
    gb_second_arm64=0.0000133334,
    gb_second_x86_64=0.0000166667,
    log_gb=0.50,
    million_transitions=25.00,
    million_express_requests=1.00,
    express_gb_second=0.00001667,
    million_operations=8.00,
    operation_gb_written=0.25,
    operation_gb_month=0.15,
)


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars, by service. What is paid once; `storage` is apart, for it is paid each month."""

    table: float
    """DynamoDB."""
    queue: float
    """SQS."""
    blobs: float
    """S3, its requests."""
    compute: float
    """Lambda, invocations and time."""
    logs: float
    """CloudWatch Logs, ingestion."""
    storage: float
    """DynamoDB with point-in-time recovery, for each month that the records are kept."""

    @property
    def total(self) -> float:
        """Everything but storage."""
        return self.services + self.compute + self.logs

    @property
    def services(self) -> float:
        """What detent's own bookkeeping costs: table, queue and blobs."""
        return self.table + self.queue + self.blobs

    def by_service(self) -> dict[str, float]:
        """What `total` is made of, by the names AWS bills it under."""
        return {
            "DynamoDB": self.table,
            "SQS": self.queue,
            "S3": self.blobs,
            "Lambda": self.compute,
            "CloudWatch Logs": self.logs,
        }


def cost_of(
    usage: Usage,
    *,
    memory: int = STANDARD_MEMORY,
    architecture: Architecture = Architecture.ARM64,
    prices: Prices = US_EAST_1,
) -> Cost:
    """What the usage costs. `memory` is the worker's, in MB."""
    gb_second = prices.gb_second_arm64 if architecture is Architecture.ARM64 else prices.gb_second_x86_64
    writes = usage.write_units + usage.index_write_units
    return Cost(
        table=(writes * prices.million_write_units + usage.read_units * prices.million_read_units) / MILLION,
        queue=usage.sqs_requests * prices.million_queue_requests / MILLION,
        blobs=(usage.blob_puts * prices.million_blob_puts + usage.blob_gets * prices.million_blob_gets) / MILLION,
        compute=usage.invocations * prices.million_invocations / MILLION
        + usage.milliseconds / 1000 * (memory / 1024) * gb_second,
        logs=usage.log_bytes / GB * prices.log_gb,
        storage=usage.stored_bytes / GB * (prices.table_gb_month + prices.backup_gb_month),
    )
