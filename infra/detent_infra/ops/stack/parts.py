"""Reads each part of a stack. See `reading`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import ClientError

from detent_infra.aws.errors import VENDOR_ERRORS, code_of, translate
from detent_infra.aws.resources import PUBLIC_BLOCKS, Clients, Resources
from detent_infra.ops.stack.facts import (
    AccountFacts,
    AlarmFacts,
    Fact,
    FunctionFacts,
    MappingFacts,
    Needed,
    QueueFacts,
    RuleFacts,
    TableFacts,
    Unread,
)
from detent_infra.ops.stack.permissions import NEEDED
from detent_infra.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.literals import StatisticType
    from mypy_boto3_lambda.type_defs import EventSourceMappingConfigurationTypeDef, FunctionConfigurationTypeDef

T = TypeVar("T")

TRIGGER = "TriggerQueueArn"
"""What the queue of a trigger is called among the queues: as the parameter that names it."""
FAILED_STARTS = "FailedStarts"
"""The logical name of the queue of events that started nothing."""
HOURS = 3
"""How far back the metrics are looked at: one page of minutes of each."""
SERVES = "DETENT_TABLE"
"""The environment variable by which a function of the stack is known to be detent's, and not the user's own."""
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
_GONE = {"ResourceNotFoundException", "TableNotFoundException", "NoSuchBucket", "NoSuchEntity"} | {
    "NonExistentQueue", "QueueDoesNotExist"
}  # fmt: skip
"""What AWS answers about something that is not there."""
ALARMS = (
    "DeadLetterAlarm", "DeadLettersLeftAlarm", "OldestMessageAlarm", "KeptMessagesAlarm", "RefusedMessagesAlarm",
    "KeptTriggersAlarm", "WorkerErrorAlarm", "WorkerThrottleAlarm", "TickErrorAlarm",
    "FailedStartsAlarm", "StartErrorAlarm", "DeadLettersErrorAlarm", "QueueTriggerErrorAlarm",
)  # fmt: skip
RULE = "TickMinute"
"""By these logical names the template's alarms and rule are known from those of the user's own."""


@dataclass(frozen=True, slots=True)
class StackResource:
    """A resource of the stack."""

    logical: str
    kind: str
    physical: str


def attempt(what: str, look: Callable[[], T]) -> Fact[T]:
    """What the look finds; why it could not be had, if AWS refuses it or does not answer."""
    try:
        return look()
    except ClientError as error:
        if code_of(error) in _DENIED:
            action = f"{error.response.get('Error', {}).get('Code', '')} for {error.operation_name}"
            return Unread(f"Not allowed to look at {what} ({action}).", f"Allow your own role {error.operation_name}.")
        if code_of(error) in _GONE:
            return _gone(what)
        return Unread(translate(error, what).message)
    except VENDOR_ERRORS as error:
        return Unread(translate(error, what).message)
    except Gone:
        return _gone(what)
    except (KeyError, LookupError) as error:
        return Unread(f"What AWS said about {what} lacks {error}.")


def _gone(what: str) -> Unread:
    return Unread(f"AWS does not find {what}: deleted by hand, it seems.", gone=True)


def unreserved_concurrency(clients: Clients) -> Fact[int]:
    """Invocations at once that the account has for all functions without a reservation of their own."""

    def look() -> int:
        limit = clients.functions.get_account_settings()["AccountLimit"]
        if "UnreservedConcurrentExecutions" not in limit:
            raise LookupError("its concurrency")
        return limit["UnreservedConcurrentExecutions"]

    return attempt("the account", look)


class Gone(Exception):
    """The thing does not exist: AWS answered without it."""


class StackParts:
    """One request for each thing. Raises what boto3 raises."""

    def __init__(self, clients: Clients, names: Resources, resources: list[StackResource], clock: Clock) -> None:
        self._clients = clients
        self._names = names
        self._resources = resources
        self._clock = clock

    def clock_off(self) -> float:
        """The answer's date has whole seconds, so half of one is added; it was written between asking and hearing."""
        asked = self._clock()
        try:
            queue = self._clients.sqs.get_queue_attributes(QueueUrl=self._names.queue_url, AttributeNames=["QueueArn"])
            date = queue["ResponseMetadata"]["HTTPHeaders"]["date"]
        except ClientError as error:  # a refusal is dated, too
            if "ResponseMetadata" not in error.response:
                raise
            date = error.response["ResponseMetadata"]["HTTPHeaders"]["date"]
        heard = self._clock()
        dated = parsedate_to_datetime(date).timestamp() + 0.5
        return (asked + heard) / 2000 - dated

    def configurations(self) -> list[tuple[str, FunctionConfigurationTypeDef]]:
        """Of the functions that serve detent, by logical name."""
        found: list[tuple[str, FunctionConfigurationTypeDef]] = []
        for each in self._of("AWS::Lambda::Function"):
            try:
                got = self._clients.functions.get_function(FunctionName=each.physical)["Configuration"]
            except ClientError as error:
                if code_of(error) in _GONE:
                    continue  # deleted by hand: the check of the resources says so
                raise
            if SERVES in got.get("Environment", {}).get("Variables", {}):
                found.append((each.logical, got))
        return found

    def function(self, logical: str, got: FunctionConfigurationTypeDef) -> FunctionFacts:
        name, client = got.get("FunctionName", ""), self._clients.functions

        def auth() -> str | None:
            try:
                return client.get_function_url_config(FunctionName=name)["AuthType"]
            except ClientError as error:
                if code_of(error) in _GONE:
                    return None
                raise

        return FunctionFacts(
            logical=logical,
            name=name,
            runtime=got.get("Runtime", ""),
            architecture=(got.get("Architectures") or ["x86_64"])[0],
            timeout=got.get("Timeout", 3),
            memory=got.get("MemorySize", 128),
            state=got.get("State", "Active"),
            update=got.get("LastUpdateStatus", "Successful"),
            recursive_loop=attempt(
                f"the recursion setting of {logical}",
                lambda: client.get_function_recursion_config(FunctionName=name)["RecursiveLoop"],
            ),
            reserved=attempt(
                f"the concurrency of {logical}",
                lambda: client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions"),
            ),
            url_auth=attempt(f"the URL of {logical}", auth),
        )

    def failed_starts_to(self, name: str) -> str | None:
        """Where Lambda sends an event of this function that it tries no more: an ARN, or None."""
        try:
            got = self._clients.functions.get_function_event_invoke_config(FunctionName=name, Qualifier="$LATEST")
        except ClientError as error:
            if code_of(error) in _GONE:
                return None
            raise
        return got.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")

    def mappings(self, logical: str, name: str) -> tuple[MappingFacts, ...]:
        pages = self._clients.functions.get_paginator("list_event_source_mappings").paginate(FunctionName=name)
        return tuple(_mapping(logical, each) for page in pages for each in page["EventSourceMappings"])

    def queue_url(self, arn: str) -> str:
        *_, account, name = arn.split(":")
        return self._clients.sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]

    def queue(self, url: str) -> QueueFacts:
        got = self._clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        redrive: dict[str, object] = json.loads(got.get("RedrivePolicy", "{}"))
        name = url.rpartition("/")[2]
        oldest = attempt(
            f"the age of messages in {name!r}",
            lambda: self._peak("AWS/SQS", "ApproximateAgeOfOldestMessage", {"QueueName": name}, last_minutes=15),
        )
        return QueueFacts(
            name=name,
            url=url,
            arn=got["QueueArn"],
            visibility=int(got["VisibilityTimeout"]),
            retention=int(got["MessageRetentionPeriod"]),
            max_receives=int(str(redrive["maxReceiveCount"])) if "maxReceiveCount" in redrive else None,
            dead_letters_to=str(redrive["deadLetterTargetArn"]) if "deadLetterTargetArn" in redrive else None,
            visible=int(got["ApproximateNumberOfMessages"]),
            in_flight=int(got["ApproximateNumberOfMessagesNotVisible"]),
            oldest=int(oldest) if isinstance(oldest, float) else oldest,
        )

    def table(self) -> TableFacts:
        client, name = self._clients.dynamodb, self._names.table
        got = client.describe_table(TableName=name)["Table"]

        def expiry() -> str | None:
            said = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
            return said.get("AttributeName") if said.get("TimeToLiveStatus") in ("ENABLED", "ENABLING") else None

        def recovery() -> bool:
            said = client.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
            return said.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED"

        def peak() -> float | None:
            summed = self._peak("AWS/DynamoDB", "ConsumedWriteCapacityUnits", {"TableName": name}, statistic="Sum")
            return None if summed is None else summed / 60

        return TableFacts(
            name=name,
            status=got.get("TableStatus", ""),
            indexes={
                each.get("IndexName", ""): each.get("IndexStatus", "ACTIVE")
                for each in got.get("GlobalSecondaryIndexes", [])
            },
            expiry=attempt("the table's time to live", expiry),
            recovery=attempt("the table's backups", recovery),
            peak_writes=attempt("the table's use", peak),
        )

    def missing_blocks(self) -> tuple[str, ...]:
        try:
            got = self._clients.s3.get_public_access_block(Bucket=self._names.bucket)["PublicAccessBlockConfiguration"]
        except ClientError as error:
            if code_of(error) != "NoSuchPublicAccessBlockConfiguration":
                raise
            got = {}
        on: dict[str, object] = {**got}
        return tuple(part for part in PUBLIC_BLOCKS if not on.get(part))

    def log_retention(self) -> int | None:
        name = self._names.log_group
        got = self._clients.logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        group = next((each for each in got if each.get("logGroupName") == name), None)
        if group is None:
            raise Gone
        return group.get("retentionInDays")

    def alarms(self) -> tuple[AlarmFacts, ...]:
        names = [each.physical for each in self._of("AWS::CloudWatch::Alarm") if each.logical in ALARMS]
        if not names:
            return ()
        got = self._clients.metrics.describe_alarms(AlarmNames=names)["MetricAlarms"]
        found = {each.get("AlarmName", ""): each for each in got}
        alarms = [
            AlarmFacts(
                name,
                each.get("StateValue", ""),
                len(each.get("AlarmActions", [])) if each.get("ActionsEnabled", True) else 0,
            )
            for name, each in found.items()
        ]
        return (*alarms, *(AlarmFacts(name, None, 0) for name in names if name not in found))

    def rules(self) -> tuple[RuleFacts, ...]:
        found: list[RuleFacts] = []
        for listed in (each for each in self._of("AWS::Events::Rule") if each.logical == RULE):
            name = listed.physical.rpartition("|")[2]
            got = self._clients.rules.describe_rule(Name=name)
            targets = self._clients.rules.list_targets_by_rule(Rule=name)["Targets"]
            found.append(RuleFacts(name, got["State"] != "DISABLED", got.get("ScheduleExpression", ""), len(targets)))
        return tuple(found)

    def account(self) -> AccountFacts:
        got = self._clients.functions.get_account_settings()
        limit, usage = got["AccountLimit"], got["AccountUsage"]
        peak = attempt("Lambda's use", lambda: self._peak("AWS/Lambda", "ConcurrentExecutions", {}))
        return AccountFacts(
            concurrency=limit.get("ConcurrentExecutions", 0),
            unreserved=limit.get("UnreservedConcurrentExecutions", 0),
            code_size=usage.get("TotalCodeSize", 0),
            code_limit=limit.get("TotalCodeSize", 0),
            peak=int(peak) if isinstance(peak, float) else peak,
        )

    def table_quota(self) -> float:
        pages = self._clients.quotas.get_paginator("list_service_quotas").paginate(ServiceCode="dynamodb")
        for page in pages:
            for quota in page["Quotas"]:
                if quota.get("QuotaName", "").lower().startswith("table-level write throughput"):
                    return quota.get("Value", 0.0)
        raise LookupError("the table-level write throughput")

    def denied(
        self, logical: str, got: FunctionConfigurationTypeDef, queues: Mapping[str, QueueFacts]
    ) -> tuple[Needed, ...]:
        """What IAM's simulator says the role may not do. It sees the role's policies, not those of the resources."""
        arns = self._arns(got.get("FunctionArn", "")) | {name: queue.arn for name, queue in queues.items()}
        if (source := queues.get(TRIGGER)) is not None and source.dead_letters_to is not None:
            arns["TriggerDeadLetterQueueArn"] = source.dead_letters_to
        about: dict[str, list[str]] = {}
        for need in NEEDED[logical]:
            about.setdefault(need.on, []).append(need.action)
        refused: list[Needed] = []
        for on, actions in about.items():
            base, slash, below = on.partition("/")
            if base not in arns:
                continue  # a queue that is not there, or could not be read, which is told of it
            answer = self._clients.roles.simulate_principal_policy(
                PolicySourceArn=got.get("Role", ""), ActionNames=actions, ResourceArns=[arns[base] + slash + below]
            )
            refused += [
                Needed(each["EvalActionName"], on)
                for each in answer["EvaluationResults"]
                if each["EvalDecision"] != "allowed"
            ]
        return tuple(refused)

    def _arns(self, function: str) -> dict[str, str]:
        """By logical name. Partition, region and account are those of the function."""
        _, partition, _, region, account, *_ = function.split(":")
        return {
            "Table": f"arn:{partition}:dynamodb:{region}:{account}:table/{self._names.table}",
            "Bucket": f"arn:{partition}:s3:::{self._names.bucket}",
            "Logs": f"arn:{partition}:logs:{region}:{account}:log-group:{self._names.log_group}:*",
        }

    def _of(self, kind: str) -> list[StackResource]:
        return [each for each in self._resources if each.kind == kind and each.physical]

    def _peak(
        self,
        namespace: str,
        metric: str,
        dimensions: Mapping[str, str],
        *,
        statistic: StatisticType = "Maximum",
        last_minutes: int = HOURS * 60,
    ) -> float | None:
        """The highest value of any minute; None if nothing was measured."""
        now = datetime.fromtimestamp(self._clock() / 1000, UTC)
        got = self._clients.metrics.get_metric_statistics(
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=now - timedelta(minutes=last_minutes),
            EndTime=now,
            Period=60,
            Statistics=[statistic],
        )
        values = [float(each.get(statistic, 0)) for each in got["Datapoints"]]
        return max(values, default=None)


def _mapping(logical: str, got: EventSourceMappingConfigurationTypeDef) -> MappingFacts:
    return MappingFacts(
        id=got.get("UUID", ""),
        function=logical,
        source=got.get("EventSourceArn", ""),
        state=got.get("State", ""),
        partial="ReportBatchItemFailures" in got.get("FunctionResponseTypes", []),
        maximum=got.get("ScalingConfig", {}).get("MaximumConcurrency"),
        window=got.get("MaximumBatchingWindowInSeconds", 0),
        last_result=got.get("LastProcessingResult", ""),
    )
