"""Which AWS resources a backend uses, where their names come from, and the clients that reach them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

import boto3
import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from detent_state_machine.errors import ConfigurationError

from detent_infra import forks
from detent_infra.aws.errors import VENDOR_ERRORS, code_of, translate

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

CONNECTIONS = 40


@dataclass(frozen=True, slots=True)
class Resources:
    """Names of what a deployed stack consists of."""

    table: str
    queue_url: str
    dead_letter_url: str
    bucket: str
    log_group: str


OUTPUTS = {
    "table": "TableName",
    "queue_url": "QueueUrl",
    "dead_letter_url": "DeadLetterQueueUrl",
    "bucket": "BucketName",
    "log_group": "LogGroupName",
}
"""The stack's outputs that name them."""
FAILED_STARTS = "FailedStartsQueueUrl"
"""The output with the URL of the queue of events that could not be started. Only the command that reads it needs it."""
PUBLIC_BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
"""All that S3 can keep from the public, of a bucket."""


class _Session(Protocol):
    """What is used of `boto3.Session`, whose own type lists every service there is."""

    def client(
        self, service_name: str, region_name: str | None, *, endpoint_url: str | None, config: Config
    ) -> object: ...


@forks.unlocked_in_children
class Clients(forks.Forkable):
    """One client per service, made when it is first used: a Lambda that stores no large payload never loads S3.

    The shared session is not safe to make clients from in two threads at once, so a lock is around that.
    """

    def __init__(self, region: str | None, endpoint: str | None, session: boto3.Session | None = None) -> None:
        self._region = region
        self._endpoint = endpoint
        self._given = self._session = cast("_Session | None", session)
        self._lock = threading.Lock()
        forks.follow_forks(self)

    def in_child(self) -> None:
        """Connections are shared with the parent, and locks may be held by its threads: all is made anew."""
        made = {name: client for name, client in self.__dict__.items() if isinstance(client, BaseClient)}
        forks.abandon((made, self._session))
        for name in made:
            del self.__dict__[name]
        self._session, self._lock = self._given, threading.Lock()

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        return cast("DynamoDBClient", self._make("dynamodb", _config()))

    @cached_property
    def dynamodb_once(self) -> DynamoDBClient:
        """Does not try again: for the one write that is not the same done twice, adding to a number."""
        return cast("DynamoDBClient", self._make("dynamodb", _config(attempts=1)))

    @cached_property
    def sqs(self) -> SQSClient:
        return cast("SQSClient", self._make("sqs", _config(read_timeout=30)))  # a long poll is silent for 20 s

    @cached_property
    def s3(self) -> S3Client:
        return self._s3(_config(read_timeout=30))

    @cached_property
    def s3_uploads(self) -> S3Client:
        """For files of megabytes over whatever line a person has: it may stand still for a minute."""
        return self._s3(_config(connect_timeout=60, read_timeout=60))

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        return cast("CloudWatchLogsClient", self._make("logs", _config(read_timeout=30)))

    @cached_property
    def log_reader(self) -> CloudWatchLogsClient:
        """Does not try again: who reads waits longer than botocore does, and Live Tail is not worth a second try."""
        # No host has a name of the kind `streaming-localhost`, which botocore would ask of a stand-in.
        theirs = self._endpoint is None and ".amazonaws." in self.logs.meta.endpoint_url
        return cast(
            "CloudWatchLogsClient",
            self._make("logs", _config(read_timeout=30, attempts=1).merge(Config(inject_host_prefix=theirs))),
        )

    @cached_property
    def cloudformation(self) -> CloudFormationClient:
        return cast("CloudFormationClient", self._make("cloudformation", _config(read_timeout=30)))

    # Those below are for looking at a stack from outside; nothing that drives runs makes them.

    @cached_property
    def functions(self) -> LambdaClient:
        return cast("LambdaClient", self._make("lambda", _config(read_timeout=30)))

    @cached_property
    def roles(self) -> IAMClient:
        return cast("IAMClient", self._make("iam", _config(read_timeout=30)))

    @cached_property
    def metrics(self) -> CloudWatchClient:
        return cast("CloudWatchClient", self._make("cloudwatch", _config(read_timeout=30)))

    @cached_property
    def rules(self) -> EventBridgeClient:
        return cast("EventBridgeClient", self._make("events", _config(read_timeout=30)))

    @cached_property
    def quotas(self) -> ServiceQuotasClient:
        return cast("ServiceQuotasClient", self._make("service-quotas", _config(read_timeout=30)))

    @cached_property
    def identity(self) -> STSClient:
        return cast("STSClient", self._make("sts", _config(read_timeout=30)))

    @property
    def region(self) -> str:
        """The region the clients speak to, given or found."""
        return self.cloudformation.meta.region_name

    def _s3(self, config: Config) -> S3Client:
        # A stand-in for S3 rarely has a host name per bucket.
        style = Config(s3={"addressing_style": "path"}) if self._endpoint else Config()
        return cast("S3Client", self._make("s3", config.merge(style)))

    def _make(self, service: str, config: Config) -> object:
        with self._lock:
            if self._session is None:
                self._session = cast("_Session", new_session(self._region))
            return self._session.client(service, self._region, endpoint_url=self._endpoint, config=config)

    def prepare(self) -> None:
        """Makes the clients that every worker needs, so that a wrong region, profile or endpoint is told at once.

        Raises `ConfigurationError`.
        """
        try:
            _ = self.dynamodb, self.sqs
        except BotoCoreError as error:
            raise translate(error, "the backend") from None
        except ValueError as error:
            raise ConfigurationError(
                f"The backend's endpoint {self._endpoint!r} is not usable: {error}.",
                advice="Write it as in `endpoint=http://localhost:4566`.",
            ) from None

    def close(self) -> None:
        """Closes the connections of the clients made so far."""
        for made in self.__dict__.values():
            if isinstance(made, BaseClient):
                made.close()


def new_session(region: str | None = None) -> boto3.Session:
    """A session in the region given, else in that of AWS_REGION, AWS_DEFAULT_REGION or the profile: the first there is.

    Other SDKs and the AWS CLI look there in this order. boto3 does not know AWS_REGION, which is all that ECS sets.
    """
    variables = ["AWS_REGION", "AWS_DEFAULT_REGION"]
    ours = botocore.session.Session(session_vars={"region": ("region", variables, None, None)})
    return boto3.Session(region_name=region, botocore_session=ours)


def _config(*, connect_timeout: float = 2, read_timeout: float = 5, attempts: int = 3) -> Config:
    """Times out early: a worker that waits for a lost connection loses its lease meanwhile.

    Seconds. urllib3 takes `connect_timeout` for how long a send may stand still, too.
    """
    return Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        user_agent_extra="detent",
    )


def stack_called(name: str, clients: Clients) -> StackTypeDef | None:
    """The CloudFormation stack as it is, in one request; None if there is none."""
    try:
        found = clients.cloudformation.describe_stacks(StackName=name)["Stacks"]
    except VENDOR_ERRORS as error:
        if isinstance(error, ClientError) and _is_missing(error):
            return None
        raise translate(error, f"the stack {name!r}") from None
    return found[0] if found else None


def _is_missing(error: ClientError) -> bool:
    """CloudFormation has no code of its own for a stack that is not there."""
    said = error.response.get("Error", {}).get("Message", "")
    return code_of(error) == "ValidationError" and "does not exist" in said


def outputs_of(stack: StackTypeDef) -> dict[str, str]:
    return {output.get("OutputKey", ""): output.get("OutputValue", "") for output in stack.get("Outputs", [])}


def deployed(stack: str, clients: Clients) -> tuple[StackTypeDef, Resources]:
    """The CloudFormation stack, and the names in its outputs, in one request. Raises `ConfigurationError`."""
    deploy = f"Deploy it with `detent deploy --stack {stack}`, or correct the name or the region."
    clients.prepare()
    found = stack_called(stack, clients)
    if found is None:
        raise ConfigurationError(f"There is no CloudFormation stack {stack!r}.", advice=deploy)
    outputs = outputs_of(found)
    if missing := sorted(name for name in OUTPUTS.values() if not outputs.get(name)):
        raise ConfigurationError(
            f"The stack {stack!r} (now {found['StackStatus']}) has no output {', '.join(missing)}, "
            "so it is not detent's or is not deployed whole.",
            advice=deploy,
        )
    return found, Resources(**{field: outputs[name] for field, name in OUTPUTS.items()})


def resources_of_stack(stack: str, clients: Clients) -> Resources:
    """The names alone. Raises `ConfigurationError`."""
    return deployed(stack, clients)[1]


def failed_starts_of_stack(stack: str, clients: Clients) -> str:
    """The name of the stack's queue of events that could not be started. Raises `ConfigurationError`."""
    found, _ = deployed(stack, clients)
    url = outputs_of(found).get(FAILED_STARTS)
    if not url:
        raise ConfigurationError(
            f"The stack {stack!r} keeps no failed starts: it has no output {FAILED_STARTS}.",
            advice="Its template is older: `detent init --template` writes the new one. Deploy that.",
        )
    return url.rpartition("/")[2]
