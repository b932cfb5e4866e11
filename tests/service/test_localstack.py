"""detent beside the tools people test with: pytest-localstack's sessions and localstack-client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from detent import App, Client
from detent.testing import Harness
from detent_infra.aws import Resources, aws_backend
from detent_infra.clock import wall_clock
from detent_infra.ids import new_id
from localstack_client.session import Session as LocalstackClient
from pytest_localstack.session import RunningSession

from tests.support.server import Server
from tests.support.service_stack import REGION, open_stack, service_stack
from tests.support.shop import Order, open_shop

pytestmark = pytest.mark.service

SERVICES = ("dynamodb", "sqs", "s3", "logs", "cloudformation")


@pytest.fixture
def resources(service: Server) -> Iterator[Resources]:
    with service_stack(service) as made:
        yield made


@pytest.fixture
def localstack(service: Server) -> Iterator[RunningSession]:
    """pytest-localstack's session on the running server."""
    at = urlsplit(service.endpoint)
    with RunningSession(at.hostname, services=dict.fromkeys(SERVICES, at.port), region_name=REGION) as running:
        yield running


def test_a_patched_botocore_leads_detent_to_the_server(resources: Resources, localstack: RunningSession) -> None:
    """The code under test has no word about an endpoint: pytest-localstack redirects what it asks of AWS."""
    with localstack.botocore.patch_botocore():
        backend = aws_backend(resources, url="aws://shop", region=REGION, clock=wall_clock, ids=new_id)
        shop = open_shop()
        with Harness(shop.app, backend=backend) as harness:
            assert harness.run(shop.orders, Order(id="a", cents=2933), within=30) == "sent: label-a 2933"
    table = localstack.boto3.resource("dynamodb").Table(resources.table)
    stored = table.get_item(Key={"pk": "data#ledger", "sk": "a"}, ConsistentRead=True)["Item"]
    assert stored["cents"] == 2933


def test_localstack_client_and_detent_see_the_same_queue(resources: Resources, service: Server) -> None:
    at = urlsplit(service.endpoint)
    with patch.dict(os.environ, {"LOCALSTACK_HOST": f"{at.hostname}:{at.port}"}):
        sqs = LocalstackClient(region_name=REGION).client("sqs")
    sqs.send_message(QueueUrl=resources.queue_url, MessageBody="from outside")
    backend = open_stack(resources, service.endpoint)
    try:
        [message] = asyncio.run(backend.queue.receive(1, wait=5, visibility=30))
    finally:
        backend.close()
    assert (message.body, message.count) == ("from outside", 1)


def test_an_endpoint_in_the_environment_is_enough(resources: Resources, service: Server) -> None:
    """What boto3 reads itself, for an application that names no endpoint."""
    app = App("echo")
    echo = app.workflow("echo", input=str, output=str)

    @echo.step
    def say(text: str) -> str:
        return text

    with patch.dict(os.environ, {"AWS_ENDPOINT_URL": service.endpoint}):
        backend = aws_backend(resources, url="aws://echo", region=REGION, clock=wall_clock, ids=new_id)
        with Harness(app, backend=backend) as harness:
            assert harness.run(echo, "é", within=30) == "é"
            assert [run.status.value for run in Client(backend.url, backend=lambda: backend).runs("echo")] == [
                "COMPLETED"
            ]
