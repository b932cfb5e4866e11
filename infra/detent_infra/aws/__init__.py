"""The ports on AWS: DynamoDB, SQS, S3 and CloudWatch Logs, through boto3."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import boto3

from detent_infra.aws.blobs import S3Blobs
from detent_infra.aws.calls import Calls, Pool
from detent_infra.aws.logs import CloudWatchLogs, StdoutLines
from detent_infra.aws.queue import SqsQueue
from detent_infra.aws.resources import Clients, Resources, failed_starts_of_stack, resources_of_stack
from detent_infra.aws.table import DynamoTable
from detent_infra.ports import Backend, Clock, Ids, Timing

if TYPE_CHECKING:
    from detent_infra.aws.source import SqsSource

__all__ = [
    "Clients",
    "CloudWatchLogs",
    "Resources",
    "StdoutLines",
    "aws_backend",
    "failed_starts_of_stack",
    "resources_of_stack",
]

CALL_THREADS = 32
POLL_THREADS = 8


def aws_backend(
    resources: Resources,
    *,
    url: str,
    region: str | None = None,
    endpoint: str | None = None,
    clock: Clock,
    ids: Ids,
    timing: Timing | None = None,
    session: boto3.Session | None = None,
    measure: bool = False,
) -> Backend:
    """A backend on resources that exist. Reads nothing yet.

    Unless given, the region is found as `new_session` says, and credentials as boto3 does. `endpoint` leads to a
    stand-in for AWS. `measure` makes DynamoDB report consumed capacity. May be used from several event loops and
    threads, and on both sides of a fork: the child makes clients and threads of its own.

    boto3's calls block, so they run on threads of the backend's own: `CALL_THREADS`, and `POLL_THREADS` more for long
    polls. `close` starts nothing more and does not wait, but the interpreter waits for a poll that is under way.

    Raises `ConfigurationError` for a region, profile or endpoint that cannot be used.
    """
    clients = Clients(region, endpoint, session)
    clients.prepare()
    pool = Pool(CALL_THREADS, "detent-aws")
    polls = Pool(POLL_THREADS, "detent-aws-poll")

    def queue(queue_url: str, *, whole: bool = False) -> SqsQueue:
        name = f"the queue {queue_url.rpartition('/')[2]!r}"
        return SqsQueue(clients, Calls(pool, name), Calls(polls, name), queue_url, whole=whole)

    @cache
    def source(place: str) -> SqsSource:
        # Imported here: of the functions, only the queue trigger has sources.
        from detent_infra.aws.source import SqsSource

        return SqsSource(clients, lambda what: Calls(pool, what), partial(queue, whole=True), ids, place)

    def close() -> None:
        for each in (pool, polls):
            each.close()
        clients.close()

    table_calls = Calls(pool, f"the table {resources.table!r}")
    log_calls = Calls(pool, f"the log group {resources.log_group!r}")
    return Backend(
        url=url,
        table=DynamoTable(clients, table_calls, resources.table, measure=measure),
        queue=queue(resources.queue_url),
        dead_letters=queue(resources.dead_letter_url),
        blobs=S3Blobs(clients, Calls(pool, f"the bucket {resources.bucket!r}"), resources.bucket),
        logs=CloudWatchLogs(clients, log_calls, resources.log_group, clock=clock, ids=ids),
        clock=clock,
        ids=ids,
        new_owner=ids,
        timing=timing or Timing(),
        source=source,
        close=close,
    )  # `sweep` stays empty: the table's TTL on `expires` drops what is past retention
