"""The aws adapter on moto, in this process: what a deployed stack consists of, and a record of every call to it.

moto's DynamoDB and SQS have no locks of their own: two writers of one condition can both win, a failed transaction
rolls back what others wrote meanwhile, a deletion loses a message that is being added. It also takes 1 for true, and
fails to order values of different types. What stands below makes it behave as the services do.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple, TypeAlias
from unittest.mock import patch

import boto3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError
from botocore.handlers import BUILTIN_HANDLERS
from detent_infra.aws import Resources, aws_backend
from detent_infra.aws.table import INDEX
from detent_infra.clock import wall_clock
from detent_infra.ids import new_id
from detent_infra.ports import Backend, Clock, Ids, Timing
from detent_state_machine.records import INDEXED
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber, MockRawResponse
from moto.dynamodb.comparisons import OpEqual, OpLessThan
from moto.sqs.models import Queue, SQSBackend

REGION = "us-east-1"


Answer: TypeAlias = tuple[int, Mapping[str, Any] | str]
UNSENT: Answer = (0, {})
LOST: Answer = (1, {})


class Call(NamedTuple):
    """One call through boto3, with botocore's own tries counted as one. Failed calls are calls too."""

    service: str
    operation: str
    params: Mapping[str, Any]
    response: Mapping[str, Any]


class Calls(list[Call]):
    """Those that have ended. `begun` has the operation of each that has begun, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []


@contextmanager
def recorded_calls() -> Iterator[Calls]:
    """Every call that any boto3 client begins and ends meanwhile, in order of completion.

    Sees clients whose session was made after this module was imported, whoever made them. A long poll that an earlier
    test has left behind, which may end at any moment, was begun before.
    """
    recorder = object()
    calls = _recorders[recorder] = Calls()
    try:
        yield calls
    finally:
        del _recorders[recorder]


@contextmanager
def answering(operation: str, *answers: Answer) -> Iterator[list[Answer]]:
    """The next tries of an operation, as in `sqs.SendMessageBatch`, get these answers instead of the service's.

    An answer is a status and a body, text or what is to be sent as JSON; or `UNSENT`: the connection breaks before
    the request is sent; or `LOST`: the service does it and the connection breaks before the reply. Yields the answers
    that are left.
    """
    left = list(answers)
    _answers[operation] = left
    try:
        yield left
    finally:
        del _answers[operation]


@contextmanager
def moto_stack(*, max_receives: int = 10) -> Iterator[Resources]:
    """A new stack in a mocked AWS, with credentials and region for it in the environment."""
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }
    hidden = ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
    with patch.dict(os.environ, environment), mock_aws():
        for name in hidden:
            os.environ.pop(name, None)
        yield create_stack(_session(), f"detent-{new_id()}", max_receives=max_receives)


@contextmanager
def named_stack(name: str) -> Iterator[Resources]:
    """The same, known to CloudFormation under that name, so that an `aws://` URL leads to it."""
    with moto_stack() as resources:
        outputs = {
            "TableName": resources.table,
            "QueueUrl": resources.queue_url,
            "DeadLetterQueueUrl": resources.dead_letter_url,
            "BucketName": resources.bucket,
            "LogGroupName": resources.log_group,
        }
        template = {
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
        _session().client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))
        yield resources


@contextmanager
def moto_backend(
    *,
    timing: Timing | None = None,
    max_receives: int = 10,
    clock: Clock = wall_clock,
    ids: Ids = new_id,
    measure: bool = False,
) -> Iterator[Backend]:
    """A backend on a new stack in a mocked AWS. `clock` dates records and logs; SQS keeps its own time."""
    with moto_stack(max_receives=max_receives) as resources:
        backend = aws_backend(
            resources,
            url=f"aws://{resources.table}?region={REGION}",
            region=REGION,
            clock=clock,
            ids=ids,
            timing=timing,
            measure=measure,
            session=_session(),
        )
        try:
            yield backend
        finally:
            backend.close()


def create_stack(
    session: boto3.Session, name: str, *, max_receives: int = 10, endpoint: str | None = None
) -> Resources:
    """Creates what the template describes, in moto or in a stand-in for AWS at the endpoint."""
    dynamodb = session.client("dynamodb", endpoint_url=endpoint)
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": each, "AttributeType": "S"} for each in ("pk", "sk", "ipk", "isk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": INDEX,
                "KeySchema": [
                    {"AttributeName": "ipk", "KeyType": "HASH"},
                    {"AttributeName": "isk", "KeyType": "RANGE"},
                ],
                "Projection": {
                    "ProjectionType": "INCLUDE",
                    "NonKeyAttributes": [each for each in INDEXED if each not in ("ipk", "isk")],
                },
            }
        ],
    )
    dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"})
    sqs = session.client("sqs", endpoint_url=endpoint)
    dead_url = sqs.create_queue(QueueName=f"{name}-dead", Attributes={"MessageRetentionPeriod": "1209600"})["QueueUrl"]
    dead = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = f'{{"deadLetterTargetArn": "{dead}", "maxReceiveCount": "{max_receives}"}}'
    queue_url = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": redrive})["QueueUrl"]
    session.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    session.client("logs", endpoint_url=endpoint).create_log_group(logGroupName=f"/detent/{name}")
    return Resources(name, queue_url, dead_url, name, f"/detent/{name}")


@cache
def _session() -> boto3.Session:
    # One for all tests: a session keeps the services' models, and reading them takes longer than most tests.
    return boto3.Session("testing", "testing", "testing", region_name=REGION)


_recorders: dict[object, Calls] = {}


def _remember_params(model: Any, params: Mapping[str, Any], context: dict[str, Any], **_: object) -> None:
    context["detent_params"] = params
    context["detent_recorders"] = list(_recorders)
    for calls in list(_recorders.values()):
        calls.begun.append(model.name)


def _record(model: Any, parsed: Mapping[str, Any], context: Mapping[str, Any], **_: object) -> None:
    call = Call(model.service_model.service_name, model.name, context.get("detent_params", {}), parsed)
    for recorder in context.get("detent_recorders", ()):
        if recorder in _recorders:
            _recorders[recorder].append(call)


_moto_lock = threading.RLock()
"""Moto's tables check and write, and its buckets replace an object, while other threads do too."""
_answers: dict[str, list[Answer]] = {}
_serve = BotocoreStubber.__call__


def _answer(self: Any, event_name: str, request: Any, **more: Any) -> Any:
    operation = event_name.removeprefix("before-send.").replace("cloudwatch-logs.", "logs.")
    left = _answers.get(operation)
    answer = left.pop(0) if left else None
    if answer is None or answer is LOST:
        with nullcontext() if operation.startswith("sqs.") else _moto_lock:  # a receive waits for what others send
            served = _serve(self, event_name, request, **more)
    if answer is None:
        return served
    if answer is LOST or answer is UNSENT:
        raise ConnectionClosedError(endpoint_url=request.url)
    status, body = answer
    headers = HTTPHeaders.from_dict({"Content-Type": "application/x-amz-json-1.0"})
    text = body if isinstance(body, str) else json.dumps(body)
    return AWSResponse(request.url, status, headers, MockRawResponse(text.encode()))


# Registered where botocore finds its own handlers, so that clients made by the code under test are seen too.
BUILTIN_HANDLERS.append(("before-parameter-build.*.*", _remember_params))
BUILTIN_HANDLERS.append(("after-call.*.*", _record))

_op_equal = OpEqual.expr
_op_less_than = OpLessThan.expr
_receive_message = SQSBackend.receive_message
_delete_message = Queue.delete_message
_change_visibility = SQSBackend.change_message_visibility


def _receive(self: Any, name: str, count: int, wait: int, visibility: int, attributes: Any = None) -> Any:
    until = time.monotonic() + wait
    lock = self.get_queue(name)._messages_lock
    with lock:
        while not (found := _receive_message(self, name, count, 0, visibility, attributes)):
            if time.monotonic() >= until:
                break
            lock.wait(0.05)  # lets go of the lock, and ends early when a message is added
    return found


def _delete(self: Any, receipt_handle: str) -> None:
    with self._messages_lock:
        _delete_message(self, receipt_handle)


def _change(self: Any, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
    queue = self.get_queue(queue_name)
    with queue._messages_lock:
        _change_visibility(self, queue_name, receipt_handle, visibility_timeout)
        queue._messages_lock.notify_all()


def _equal(self: Any, item: Any) -> bool:
    return _same_type(self, item) and bool(_op_equal(self, item))


def _less_than(self: Any, item: Any) -> bool:
    return _same_type(self, item) and bool(_op_less_than(self, item))


def _same_type(comparison: Any, item: Any) -> bool:
    return bool(comparison.lhs.get_type(item) == comparison.rhs.get_type(item))


BotocoreStubber.__call__ = _answer  # type: ignore[method-assign]
OpEqual.expr = _equal  # type: ignore[method-assign]
OpLessThan.expr = _less_than  # type: ignore[method-assign]
SQSBackend.receive_message = _receive  # type: ignore[method-assign,assignment]
Queue.delete_message = _delete  # type: ignore[method-assign]
SQSBackend.change_message_visibility = _change  # type: ignore[method-assign]
