"""What `template.yaml` deploys, held to what the code expects of it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from detent_functions.settings import from_environment
from detent_infra.aws.queue import MAX_DELAY
from detent_infra.aws.resources import FAILED_STARTS, OUTPUTS
from detent_infra.aws.table import INDEX
from detent_state_machine.records import INDEXED

from tests.support.sam_template import TEMPLATE, allowed, as_list, of_type, properties, statements, template

FUNCTIONS = of_type("AWS::Serverless::Function")


def _events(function: str, kind: str) -> list[Any]:
    events = properties(function).get("Events", {}).values()
    return [event["Properties"] for event in events if event["Type"] == kind]


def test_the_linter_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([linter, TEMPLATE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_there_is_a_function_for_the_queue_its_dead_letters_the_minute_the_api_and_a_queue_of_users() -> None:
    assert sorted(FUNCTIONS) == ["DeadLetters", "QueueTrigger", "Start", "Tick", "Worker"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_s_handler_exists(function: str) -> None:
    module, _, name = properties(function)["Handler"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_told_all_that_its_settings_ask_for(function: str) -> None:
    variables = properties(function)["Environment"]["Variables"]
    from_environment({**dict.fromkeys(variables, "INFO"), "AWS_REGION": "set by Lambda"})


# ---- messages -----------------------------------------------------------------------------------------------------


def test_a_message_stays_hidden_for_longer_than_any_function_may_work_on_it() -> None:
    longest = template()["Parameters"]["WorkerTimeout"]["MaxValue"]
    assert properties("Worker")["Timeout"] == {"Ref": "WorkerTimeout"}
    assert properties("Queue")["VisibilityTimeout"] > longest
    assert properties("DeadLetterQueue")["VisibilityTimeout"] > properties("DeadLetters")["Timeout"]


def test_messages_become_dead_letters_after_as_many_deliveries_as_in_the_other_backends() -> None:
    redrive = properties("Queue")["RedrivePolicy"]
    assert redrive == {"deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}, "maxReceiveCount": 10}


def test_no_message_is_dropped_before_a_fortnight_and_all_are_encrypted() -> None:
    for queue in ("Queue", "DeadLetterQueue", "FailedStarts"):
        assert properties(queue)["MessageRetentionPeriod"] == 14 * 86_400
        assert properties(queue)["SqsManagedSseEnabled"] is True
    assert MAX_DELAY < 14 * 86_400


@pytest.mark.parametrize(("function", "queue"), [("Worker", "Queue"), ("DeadLetters", "DeadLetterQueue")])
def test_a_batch_is_acknowledged_message_by_message_and_bounded_in_concurrency(function: str, queue: str) -> None:
    [source] = _events(function, "SQS")
    assert source["Queue"] == {"Fn::GetAtt": [queue, "Arn"]}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["ScalingConfig"]["MaximumConcurrency"]


def test_the_usual_concurrency_is_a_number_where_stand_ins_make_texts_of_parameters() -> None:
    [source] = _events("Worker", "SQS")
    condition, usual, other = source["ScalingConfig"]["MaximumConcurrency"]["Fn::If"]
    assert isinstance(usual, int)
    assert usual == template()["Parameters"]["MaximumConcurrency"]["Default"]
    assert other == {"Ref": "MaximumConcurrency"}
    assert template()["Conditions"][condition] == {"Fn::Equals": [other, usual]}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_that_sends_to_the_queue_may_be_part_of_a_loop(function: str) -> None:
    # Otherwise Lambda stops a run after about 16 messages.
    role = properties(function)["Role"]["Fn::GetAtt"][0]
    assert ("sqs:SendMessage", "Queue") in allowed(role)
    assert properties(function)["RecursiveLoop"] == "Allow"


def test_a_tick_ends_before_the_next_one_begins() -> None:
    [schedule] = _events("Tick", "Schedule")
    assert schedule["Schedule"] == "rate(1 minute)"
    assert properties("Tick")["Timeout"] < 60


def test_an_event_that_could_not_be_started_goes_to_a_queue_that_no_function_reads() -> None:
    failure = properties("Start")["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]
    assert failure == {"Type": "SQS", "Destination": {"Fn::GetAtt": ["FailedStarts", "Arn"]}}
    assert "MaximumRetryAttempts" not in properties("Start")["EventInvokeConfig"], "Lambda's own: two"
    assert ("sqs:SendMessage", "FailedStarts") in allowed("StartRole")
    assert [role for role in of_type("AWS::IAM::Role") for _, on in allowed(role) if on == "FailedStarts"] == [
        "StartRole"
    ]
    assert all(each["Queue"] != failure["Destination"] for function in FUNCTIONS for each in _events(function, "SQS"))


def test_the_api_demands_signed_requests() -> None:
    assert properties("Start")["FunctionUrlConfig"]["AuthType"] == "AWS_IAM"


# ---- state --------------------------------------------------------------------------------------------------------


def test_the_table_s_keys_and_index_are_those_the_code_writes() -> None:
    table = properties("Table")
    assert table["KeySchema"] == _schema("pk", "sk")
    [index] = table["GlobalSecondaryIndexes"]
    assert (index["IndexName"], index["KeySchema"]) == (INDEX, _schema("ipk", "isk"))
    projected = index["Projection"]
    assert projected["ProjectionType"] == "INCLUDE"
    assert {"ipk", "isk", *projected["NonKeyAttributes"]} == set(INDEXED)


def _schema(partition: str, sort: str) -> list[dict[str, str]]:
    return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]


def test_the_table_costs_nothing_idle_can_be_restored_is_encrypted_and_expires_records() -> None:
    table = properties("Table")
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert table["SSESpecification"]["SSEEnabled"] is True
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}


@pytest.mark.parametrize("name", ["Table", "Bucket"])
def test_deleting_the_stack_keeps_what_runs_left(name: str) -> None:
    resource = template()["Resources"][name]
    assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"


def test_the_bucket_is_private_encrypted_and_expires_its_objects() -> None:
    bucket = properties("Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    [rule] = bucket["LifecycleConfiguration"]["Rules"]
    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", {"Ref": "BlobRetentionDays"})


def test_the_bucket_refuses_plain_http() -> None:
    [statement] = properties("BucketPolicy")["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# ---- the queue trigger ----------------------------------------------------------------------------------------------


def test_without_a_queue_of_users_there_is_no_trigger_no_role_and_no_alarm_for_it() -> None:
    conditional = {name for name, resource in template()["Resources"].items() if "Condition" in resource}
    assert conditional == {
        "QueueTrigger",
        "QueueTriggerRole",
        "RefusedMessagesAlarm",
        "KeptTriggersAlarm",
        "QueueTriggerErrorAlarm",
    }
    assert {template()["Resources"][name]["Condition"] for name in conditional} == {"HasTrigger"}
    assert template()["Conditions"]["HasTrigger"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "TriggerQueueArn"}, ""]}]}
    assert template()["Parameters"]["TriggerQueueArn"]["Default"] == ""


def test_the_trigger_acknowledges_message_by_message_and_ends_within_the_visibility_that_sqs_gives_a_new_queue() -> (
    None
):
    [source] = _events("QueueTrigger", "SQS")
    assert source["Queue"] == {"Ref": "TriggerQueueArn"}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["ScalingConfig"]["MaximumConcurrency"]
    assert properties("QueueTrigger")["Timeout"] <= 30


def test_the_trigger_may_send_to_the_dead_letter_queue_only_if_there_is_one() -> None:
    [policy] = properties("QueueTriggerRole")["Policies"]
    [conditional] = [each["Fn::If"] for each in policy["PolicyDocument"]["Statement"] if "Fn::If" in each]
    assert (conditional[0], conditional[2]) == ("HasTriggerDeadLetters", {"Ref": "AWS::NoValue"})
    assert ("sqs:SendMessage", "TriggerDeadLetterQueueArn") in allowed("QueueTriggerRole")


@pytest.mark.parametrize("parameter", ["TriggerQueueArn", "TriggerDeadLetterQueueArn"])
def test_what_is_no_arn_of_a_queue_is_refused_before_anything_is_deployed(parameter: str) -> None:
    pattern = re.compile(template()["Parameters"][parameter]["AllowedPattern"])
    for taken in (
        "",
        "arn:aws:sqs:eu-west-1:123456789012:orders-inbox",
        "arn:aws-cn:sqs:cn-north-1:123456789012:a.fifo",
    ):
        assert pattern.fullmatch(taken)
    for refused in (
        "orders-inbox",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/a",
        "arn:aws:sns:e:123456789012:a",
    ):
        assert pattern.fullmatch(refused) is None


# ---- roles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_has_a_role_of_its_own_without_wildcards(function: str) -> None:
    role = properties(function)["Role"]["Fn::GetAtt"][0]
    assert role == f"{function}Role"
    for statement in statements(role):
        assert all("*" not in action for action in as_list(statement["Action"]))
    assert all(target == "Bucket/blobs/*" or "*" not in target for _, target in allowed(role))


def test_only_the_worker_s_role_takes_policies_of_the_application() -> None:
    assert [role for role in of_type("AWS::IAM::Role") if "ManagedPolicyArns" in properties(role)] == ["WorkerRole"]


@pytest.mark.parametrize("role", of_type("AWS::IAM::Role"))
def test_a_role_has_the_boundary_of_an_account_that_demands_one_and_otherwise_none(role: str) -> None:
    assert properties(role)["PermissionsBoundary"] == {
        "Fn::If": ["HasPermissionsBoundary", {"Ref": "PermissionsBoundary"}, {"Ref": "AWS::NoValue"}]
    }
    assert template()["Parameters"]["PermissionsBoundary"]["Default"] == ""


def test_what_is_no_arn_of_a_policy_is_refused_as_a_boundary() -> None:
    pattern = re.compile(template()["Parameters"]["PermissionsBoundary"]["AllowedPattern"])
    for taken in (
        "",
        "arn:aws:iam::123456789012:policy/developers/Boundary",
        "arn:aws:iam::aws:policy/PowerUserAccess",
        "arn:aws-us-gov:iam::123456789012:policy/b",
    ):
        assert pattern.fullmatch(taken)
    for refused in ("Boundary", "arn:aws:iam::123456789012:role/Boundary", "arn:aws:iam::123456789012:policy/"):
        assert pattern.fullmatch(refused) is None


# ---- looking at it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_logs_to_a_group_that_forgets(function: str) -> None:
    assert properties(function)["LoggingConfig"]["LogGroup"] == {"Ref": "Logs"}
    assert properties("Logs")["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_an_alarm_watches_dead_letters_failed_starts_the_oldest_message_and_every_function() -> None:
    watched: set[tuple[str, str]] = set()
    for name in of_type("AWS::CloudWatch::Alarm"):
        alarm = properties(name)
        assert alarm["AlarmDescription"]
        assert alarm["AlarmActions"]["Fn::If"][0] == "HasAlarmTopic"
        assert alarm["TreatMissingData"] == "notBreaching"
        whose = alarm["Dimensions"][-1]["Value"]
        watched.add((alarm["MetricName"], whose["Ref"] if "Ref" in whose else whose["Fn::GetAtt"][0]))
    assert watched == {
        ("NumberOfMessagesReceived", "DeadLetterQueue"),
        ("ApproximateNumberOfMessagesVisible", "DeadLetterQueue"),
        ("ApproximateNumberOfMessagesVisible", "FailedStarts"),
        ("ApproximateAgeOfOldestMessage", "Queue"),
        ("MessagesKept", "Worker"),
        ("MessagesKept", "QueueTrigger"),
        ("MessagesRefused", "QueueTrigger"),
        ("Errors", "Worker"),
        ("Throttles", "Worker"),
        ("Errors", "Start"),
        ("Errors", "DeadLetters"),
        ("Errors", "QueueTrigger"),
        ("Errors", "Tick"),
    }


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_that_fails_raises_an_alarm(function: str) -> None:
    dimensions = [properties(name)["Dimensions"] for name in of_type("AWS::CloudWatch::Alarm")]
    assert [{"Name": "FunctionName", "Value": {"Ref": function}}] in dimensions


def test_the_outputs_name_what_clients_look_for() -> None:
    outputs = template()["Outputs"]
    assert set(OUTPUTS.values()) | {"ApiUrl"} <= set(outputs)
    assert outputs[FAILED_STARTS]["Value"] == {"Ref": "FailedStarts"}
    references = {name: outputs[name]["Value"].get("Ref") for name in OUTPUTS.values()}
    assert references == {
        "TableName": "Table",
        "QueueUrl": "Queue",
        "DeadLetterQueueUrl": "DeadLetterQueue",
        "BucketName": "Bucket",
        "LogGroupName": "Logs",
    }
