"""What a deployed stack consists of, as AWS's own calls tell it, in the order of `template.yaml`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from tests.stack.stack import Stack
from tests.support.sam_template import of_type

Fact = Callable[[Stack], Any]


def table(stack: Stack) -> Any:
    found = stack.place.client("dynamodb").describe_table(TableName=stack.resources["Table"])["Table"]
    [index] = found["GlobalSecondaryIndexes"]
    return {
        "key": keys(found),
        "billing": found["BillingModeSummary"]["BillingMode"],
        "index": (index["IndexName"], keys(index), index["Projection"]["ProjectionType"]),
        "in the index": sorted(index["Projection"]["NonKeyAttributes"]),
    }


def table_encryption(stack: Stack) -> Any:
    found = stack.place.client("dynamodb").describe_table(TableName=stack.resources["Table"])["Table"]
    return found.get("SSEDescription", {}).get("Status")


def keys(described: Mapping[str, Any]) -> list[str]:
    return [key["AttributeName"] for key in described["KeySchema"]]


def time_to_live(stack: Stack) -> Any:
    client = stack.place.client("dynamodb")
    found = client.describe_time_to_live(TableName=stack.resources["Table"])["TimeToLiveDescription"]
    return found["TimeToLiveStatus"], found.get("AttributeName")


def recovery(stack: Stack) -> Any:
    client = stack.place.client("dynamodb")
    found = client.describe_continuous_backups(TableName=stack.resources["Table"])["ContinuousBackupsDescription"]
    return found["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]


def bucket(stack: Stack) -> Any:
    client, name = stack.place.client("s3"), stack.resources["Bucket"]
    [encryption] = client.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    [ownership] = client.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"]
    return {
        "public": client.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
        "encryption": encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"],
        "ownership": ownership["ObjectOwnership"],
    }


def bucket_lifecycle(stack: Stack) -> Any:
    client, name = stack.place.client("s3"), stack.resources["Bucket"]
    try:
        [rule] = client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    except ClientError as error:
        return error.response["Error"]["Code"]
    return rule["Status"], int(rule["Expiration"]["Days"]), rule["AbortIncompleteMultipartUpload"]


def bucket_policy(stack: Stack) -> Any:
    client, name = stack.place.client("s3"), stack.resources["Bucket"]
    try:
        policy = json.loads(client.get_bucket_policy(Bucket=name)["Policy"])
    except ClientError as error:
        return error.response["Error"]["Code"]
    return [(each["Sid"], each["Effect"], each["Action"], each["Condition"]) for each in policy["Statement"]]


TLS_ONLY = [("TlsOnly", "Deny", "s3:*", {"Bool": {"aws:SecureTransport": "false"}})]


def queue(output: str) -> Fact:
    def read(stack: Stack) -> Any:
        client = stack.place.client("sqs")
        found = client.get_queue_attributes(QueueUrl=stack.outputs[output], AttributeNames=["All"])["Attributes"]
        told = {name: int(found[name]) for name in ("VisibilityTimeout", "MessageRetentionPeriod")}
        told["wait"] = int(found["ReceiveMessageWaitTimeSeconds"])
        return {**told, "encrypted": found.get("SqsManagedSseEnabled")}

    return read


def redrive(stack: Stack) -> Any:
    client = stack.place.client("sqs")

    def attributes(output: str) -> Any:
        return client.get_queue_attributes(QueueUrl=stack.outputs[output], AttributeNames=["All"])["Attributes"]

    policy = json.loads(attributes("QueueUrl")["RedrivePolicy"])
    dead = attributes("DeadLetterQueueUrl")["QueueArn"]
    return policy["deadLetterTargetArn"] == dead, int(policy["maxReceiveCount"])


def log_group(stack: Stack) -> Any:
    name = stack.outputs["LogGroupName"]
    [found] = stack.place.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return found.get("retentionInDays")


def function(name: str) -> Fact:
    def read(stack: Stack) -> Any:
        found = stack.place.client("lambda").get_function_configuration(FunctionName=stack.resources[name])
        return {
            "runs": (found["Handler"], found["Runtime"], found["Architectures"]),
            "limits": (found["Timeout"], found["MemorySize"]),
            "logs to": found["LoggingConfig"]["LogGroup"] == stack.outputs["LogGroupName"],
            "role": found["Role"].rpartition("/")[2] == stack.resources[f"{name}Role"],
            "told": {key: value for key, value in found["Environment"]["Variables"].items() if key in told(stack)}
            == told(stack),
        }

    return read


def told(stack: Stack) -> dict[str, str]:
    """What every function's environment says."""
    return {
        "DETENT_APP": stack.parameters["App"],
        "DETENT_STACK": stack.name,
        "DETENT_TABLE": stack.outputs["TableName"],
        "DETENT_QUEUE_URL": stack.outputs["QueueUrl"],
        "DETENT_DEAD_LETTER_QUEUE_URL": stack.outputs["DeadLetterQueueUrl"],
        "DETENT_BUCKET": stack.outputs["BucketName"],
        "DETENT_LOG_GROUP": stack.outputs["LogGroupName"],
        "DETENT_LOG_LEVEL": "INFO",
    }


def recursion(stack: Stack) -> Any:
    client = stack.place.client("lambda")
    names = ("Worker", "Start", "Tick", "DeadLetters", "QueueTrigger")
    return {client.get_function_recursion_config(FunctionName=stack.resources[name])["RecursiveLoop"] for name in names}


def retries_of_the_tick(stack: Stack) -> Any:
    client = stack.place.client("lambda")
    found = client.get_function_event_invoke_config(FunctionName=stack.resources["Tick"], Qualifier="$LATEST")
    return found["MaximumRetryAttempts"]


def failed_starts_go(stack: Stack) -> Any:
    """To the queue of failed starts?"""
    client = stack.place.client("lambda")
    found = client.get_function_event_invoke_config(FunctionName=stack.resources["Start"], Qualifier="$LATEST")
    queue = stack.outputs["FailedStartsQueueUrl"].rpartition("/")[2]
    return found["DestinationConfig"]["OnFailure"]["Destination"].rpartition(":")[2] == queue


def event_source(name: str, queue: str) -> Fact:
    def read(stack: Stack) -> Any:
        found = stack.place.client("lambda").get_event_source_mapping(UUID=stack.event_source(name))
        source = {**stack.parameters, **stack.outputs}[queue].replace("/", ":").rpartition(":")[2]
        return {
            "from": found["EventSourceArn"].endswith(f":{source}"),
            "to": found["FunctionArn"].rpartition(":")[2] == stack.resources[name],
            "on": found["State"],
            "batch": found["BatchSize"],
            "says": found["FunctionResponseTypes"],
            "at most": found["ScalingConfig"]["MaximumConcurrency"],
        }

    return read


def url(stack: Stack) -> Any:
    found = stack.place.client("lambda").get_function_url_config(FunctionName=stack.resources["Start"])
    return found["AuthType"], found["FunctionUrl"] == stack.outputs["ApiUrl"]


def minute(stack: Stack) -> Any:
    client, name = stack.place.client("events"), stack.resources["TickMinute"]
    rule = client.describe_rule(Name=name)
    [target] = client.list_targets_by_rule(Rule=name)["Targets"]
    return rule["ScheduleExpression"], rule["State"], target["Arn"].rpartition(":")[2] == stack.resources["Tick"]


def minute_may_invoke(stack: Stack) -> Any:
    client = stack.place.client("lambda")
    policy = json.loads(client.get_policy(FunctionName=stack.resources["Tick"])["Policy"])
    return [(each["Principal"]["Service"], each["Action"]) for each in policy["Statement"]]


def alarm(name: str) -> Fact:
    def read(stack: Stack) -> Any:
        [found] = stack.place.client("cloudwatch").describe_alarms(AlarmNames=[stack.resources[name]])["MetricAlarms"]
        watched = {
            "QueueName": {stack.outputs[output].rpartition("/")[2]: output for output in stack.outputs},
            "FunctionName": {stack.resources[function]: function for function in of_type("AWS::Serverless::Function")},
            "function": {stack.resources[function]: function for function in ("Worker", "QueueTrigger")},
            "service": {"detent": "detent"},
        }
        return {
            "metric": (found["Namespace"], found["MetricName"], found["Statistic"]),
            "of": sorted(watched[each["Name"]].get(each["Value"], each["Value"]) for each in found["Dimensions"]),
            "if": (found["ComparisonOperator"], found["Threshold"], found["Period"], found["EvaluationPeriods"]),
            "missing": found["TreatMissingData"],
        }

    return read


def role(name: str) -> Fact:
    """Which actions its policy allows, and which policies it has beside."""

    def read(stack: Stack) -> Any:
        client, physical = stack.place.client("iam"), stack.resources[name]
        document = client.get_role_policy(RoleName=physical, PolicyName="detent")["PolicyDocument"]
        attached = client.list_attached_role_policies(RoleName=physical)["AttachedPolicies"]
        return document["Statement"], [each["PolicyArn"] for each in attached]

    return read
