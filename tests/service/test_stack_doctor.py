"""`detent doctor --stack` on a stack that is deployed: it reads what is there, and what it says to do fixes it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from detent.cli import main
from detent_infra.connect import parse_aws

from tests.support.aws_stack import answering, recorded_calls
from tests.support.deployed import Deployed
from tests.support.service_stack import session

pytestmark = pytest.mark.service

UNMODELLED = {"recursion", "table", "steps", "alarms", "quotas"}
"""What ministack does not take from a template (RecursiveLoop, time to live, point-in-time recovery) or does not have
(service quotas), what its tick may not have done yet, and alarms, which nobody is named for."""


@pytest.fixture
def examined(stack: Deployed, capsys: pytest.CaptureFixture[str]) -> Any:
    def examine() -> list[dict[str, str]]:
        capsys.readouterr()
        code = main(["doctor", "--stack", stack.url, "--json"])
        report = json.loads(capsys.readouterr().out)
        assert code == (0 if report["ok"] else 2)
        checks: list[dict[str, str]] = report["checks"]
        return checks

    return examine


def of(checks: list[dict[str, str]], name: str) -> dict[str, str]:
    """The worst finding of a name."""
    order = ["fail", "warn", "skip", "ok"]
    return min((check for check in checks if check["name"] == name), key=lambda check: order.index(check["verdict"]))


def client(stack: Deployed, service: str) -> Any:
    made: Any = session()
    return made.client(service, endpoint_url=stack.server.endpoint)


def fix(stack: Deployed, command: str) -> None:
    """Does what a command of the AWS CLI says, through boto3."""
    service, operation, *given = command.removeprefix("aws ").split()
    options: dict[str, Any] = {}
    for name, value in zip(given[::2], given[1::2], strict=True):
        key = "".join(part.capitalize() for part in name.removeprefix("--").split("-"))
        structure = dict(part.split("=") for part in value.split(",")) if re.search(r"\w=\w", value) else None
        if structure is not None:
            options[key] = {k: True if v.lower() == "true" else v for k, v in structure.items()}
        elif key != "Region":
            options[key] = value
    getattr(client(stack, service), operation.replace("-", "_"))(**options)


def test_it_finds_what_the_emulator_left_out_and_its_commands_fix_it(stack: Deployed, examined: Any) -> None:
    before = examined()
    assert {check["name"] for check in before if check["verdict"] == "fail"} == {"recursion", "table"}
    assert {check["name"] for check in before if check["verdict"] != "ok"} <= UNMODELLED
    for check in before:
        if check["name"] in ("recursion", "table"):
            fix(stack, check["command"])
    after = examined()
    assert [check for check in after if check["verdict"] == "fail"] == []
    assert of(after, "recursion")["verdict"] == of(after, "table")["verdict"] == "ok"


def test_it_only_looks(stack: Deployed, examined: Any) -> None:
    with recorded_calls() as calls:
        examined()
    reads = re.compile(r"(Get|BatchGet|Describe|List|Simulate|Query|Head)")
    assert len(calls) > 20
    assert [call.operation for call in calls if not reads.match(call.operation)] == []


def test_it_sees_what_was_changed_by_hand(stack: Deployed, examined: Any) -> None:
    name = parse_aws(stack.url)[0]
    physical = {
        each["LogicalResourceId"]: each["PhysicalResourceId"]
        for each in client(stack, "cloudformation").list_stack_resources(StackName=name)["StackResourceSummaries"]
    }
    functions, queues = client(stack, "lambda"), client(stack, "sqs")
    functions.put_function_concurrency(FunctionName=physical["Worker"], ReservedConcurrentExecutions=1)
    queues.set_queue_attributes(QueueUrl=stack.outputs["QueueUrl"], Attributes={"VisibilityTimeout": "30"})
    client(stack, "events").disable_rule(Name=physical["TickMinute"].rpartition("|")[2])
    client(stack, "logs").delete_retention_policy(logGroupName=stack.outputs["LogGroupName"])
    client(stack, "iam").delete_role_policy(RoleName=physical["TickRole"], PolicyName="detent")
    checks = examined()
    assert "1 reserved" in of(checks, "concurrency")["message"]
    assert "30 s" in of(checks, "visibility")["message"]
    assert of(checks, "schedule")["verdict"] == "fail"
    assert of(checks, "logs")["verdict"] == "warn"
    assert "role of Tick may not" in of(checks, "permissions")["message"]


def test_a_permission_that_is_missing_hides_one_fact_and_says_which(stack: Deployed, examined: Any) -> None:
    no = (403, {"__type": "AccessDeniedException", "message": "not authorized", "Message": "not authorized"})
    with answering("lambda.GetFunctionConcurrency", *[no] * 8), answering("dynamodb.DescribeContinuousBackups", no):
        checks = examined()
    skipped = [check for check in checks if check["verdict"] == "skip"]
    assert {check["name"] for check in skipped} == {"concurrency", "table", "quotas"}
    assert any("GetFunctionConcurrency" in check["fix"] for check in skipped)
    assert of(checks, "functions")["verdict"] == "ok"


def test_what_was_deleted_by_hand_is_a_fault_though_the_stack_still_lists_it(stack: Deployed, examined: Any) -> None:
    """The last on this stack: there is not much left of it."""
    listed = client(stack, "cloudformation").list_stack_resources(StackName=stack.name)["StackResourceSummaries"]
    physical = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in listed}
    for function in ("Start", "Tick"):
        client(stack, "lambda").delete_function(FunctionName=physical[function])
    client(stack, "logs").delete_log_group(logGroupName=stack.outputs["LogGroupName"])
    client(stack, "sqs").delete_queue(QueueUrl=stack.outputs["QueueUrl"])
    client(stack, "dynamodb").delete_table(TableName=physical["Table"])
    checks = examined()
    for name in ("resources", "logs", "messages", "table"):
        assert of(checks, name)["verdict"] == "fail", name
    assert "Start, Tick" in of(checks, "resources")["message"]
    assert of(checks, "visibility")["verdict"] == of(checks, "redrive")["verdict"] == "skip"


def test_a_stack_that_is_not_there_is_one_line(stack: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--stack", stack.url.replace(stack.name, "no-such-stack")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "There is no CloudFormation stack 'no-such-stack'" in captured.err
