"""What a deployed stack consists of, on a LocalStack-compatible server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import boto3
from detent_infra.aws import Resources, aws_backend
from detent_infra.clock import wall_clock
from detent_infra.ids import new_id
from detent_infra.ports import Backend, Timing

from tests.support.server import Server

REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_REGION": REGION,
}
"""Such servers take any; a real account's must never reach them."""
HIDDEN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")


@contextmanager
def credentials() -> Iterator[None]:
    """The environment has the server's credentials and region, and nobody else's."""
    with patch.dict(os.environ, CREDENTIALS):
        for name in HIDDEN:
            os.environ.pop(name, None)
        yield


class Session(boto3.Session):
    """Keeps the clients it makes without a configuration, that is, those that make stacks: they cost half a test."""

    def client(self, service_name: str, *args: Any, **options: Any) -> Any:
        if args or options.keys() != {"endpoint_url"}:
            return super().client(service_name, *args, **options)  # type: ignore[call-overload]
        return self._kept(service_name, options["endpoint_url"])

    @cache  # noqa: B019 - there is one session
    def _kept(self, service_name: str, endpoint: str) -> Any:
        return super().client(service_name, endpoint_url=endpoint)  # type: ignore[call-overload]


@cache
def session() -> boto3.Session:
    # One for all tests: a session keeps the services' models, and reading them takes longer than most tests.
    return Session("test", "test", region_name=REGION)


@contextmanager
def service_stack(server: Server, *, max_receives: int = 10) -> Iterator[Resources]:
    """A new table, queue, bucket and log group. On a server that others use they are gone afterwards."""
    from tests.support.aws_stack import create_stack  # with moto, which the processes that open a stack need not import

    with credentials():
        resources = create_stack(session(), f"detent-{new_id()}", max_receives=max_receives, endpoint=server.endpoint)
        try:
            yield resources
        finally:
            if server.pid is None:
                remove(resources, server.endpoint)


@contextmanager
def service_backend(server: Server, *, timing: Timing | None = None, max_receives: int = 10) -> Iterator[Backend]:
    """A backend on a new stack of the server."""
    with service_stack(server, max_receives=max_receives) as resources:
        backend = open_stack(resources, server.endpoint, timing=timing)
        try:
            yield backend
        finally:
            backend.close()


def open_stack(resources: Resources, endpoint: str, *, timing: Timing | None = None) -> Backend:
    """A backend on resources that exist at the endpoint."""
    return aws_backend(
        resources,
        url=f"aws://{resources.table}?region={REGION}&endpoint={endpoint}",
        region=REGION,
        endpoint=endpoint,
        clock=wall_clock,
        ids=new_id,
        timing=timing,
        session=session(),
    )


def remove(resources: Resources, endpoint: str) -> None:
    """Deletes what `create_stack` made."""
    client = session().client
    client("dynamodb", endpoint_url=endpoint).delete_table(TableName=resources.table)
    sqs = client("sqs", endpoint_url=endpoint)
    for url in (resources.queue_url, resources.dead_letter_url):
        sqs.delete_queue(QueueUrl=url)
    s3 = client("s3", endpoint_url=endpoint)
    for stored in s3.list_objects_v2(Bucket=resources.bucket).get("Contents", []):
        s3.delete_object(Bucket=resources.bucket, Key=stored["Key"])
    s3.delete_bucket(Bucket=resources.bucket)
    client("logs", endpoint_url=endpoint).delete_log_group(logGroupName=resources.log_group)
