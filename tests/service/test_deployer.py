"""A change of a stack, worked out and made: what is told of it, and what goes wrong, on ministack."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from detent_infra.aws.resources import Clients
from detent_infra.ids import new_id
from detent_infra.ops.deployer import POLL, Deployer, StackEvent, refusal
from detent_state_machine.errors import ConfigurationError

from tests.service.project import Project
from tests.support.aws_stack import Answer, answering
from tests.support.fresh_names import fresh
from tests.support.service_stack import REGION

pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture
def deployer(project: Project) -> Iterator[Deployer]:
    clients = Clients(REGION, project.server.endpoint)
    yield Deployer(clients, lambda seconds: time.sleep(min(seconds, 0.05)))
    clients.close()


def placed(project: Project, deployer: Deployer, template: dict[str, Any], folder: Path) -> str:
    bucket = deployer.code_bucket()
    file = folder / "template.json"
    file.write_text(json.dumps(template))
    key = f"{new_id()}.json"
    assert deployer.upload(file, bucket, key)
    return f"{project.server.endpoint}/{bucket}/{key}"


def attempted(
    project: Project, deployer: Deployer, name: str, template: dict[str, Any], folder: Path
) -> list[StackEvent]:
    found = deployer.stack(name)
    url = placed(project, deployer, template, folder)
    change_set = deployer.prepare(
        name, url, {}, kept=[], capabilities=["CAPABILITY_IAM"], creates=found is None, label=f"d-{new_id()}"
    )
    assert change_set is not None
    return list(deployer.execute(change_set))


QUEUE = {"Type": "AWS::SQS::Queue", "Properties": {}}


def answer(operation: str, result: str) -> Answer:
    """What CloudFormation would say."""
    return 200, f"<{operation}Response><{operation}Result>{result}</{operation}Result></{operation}Response>"


def test_the_resource_that_failed_is_named_with_its_reason(
    project: Project, deployer: Deployer, tmp_path: Path
) -> None:
    name = fresh("bad")
    nowhere = {"TemplateURL": f"{project.server.endpoint}/no-such-bucket/no-such-key"}
    template = {"Resources": {"Fine": QUEUE, "Broken": {"Type": "AWS::CloudFormation::Stack", "Properties": nowhere}}}
    with pytest.raises(ConfigurationError, match=r"failed at Broken \(AWS::CloudFormation::Stack\): \w+") as failed:
        attempted(project, deployer, name, template, tmp_path)
    assert f"delete-stack --stack-name {name} --region {REGION}" in failed.value.advice
    with pytest.raises(ConfigurationError, match=r"is ROLLBACK_COMPLETE: it was never whole") as refused:
        deployer.stack(name)
    assert "delete-stack" in refused.value.advice


def test_a_template_that_makes_no_sense_is_refused_in_the_words_of_cloudformation(
    project: Project, deployer: Deployer, tmp_path: Path
) -> None:
    template = {"Resources": {"Broken": {"Type": "AWS::No::Such", "Properties": {}}}}
    with pytest.raises(ConfigurationError, match=r"CloudFormation refused .*AWS::No::Such") as refused:
        attempted(project, deployer, fresh("bad"), template, tmp_path)
    assert "Nothing was changed" in refused.value.advice


def test_a_change_that_is_not_agreed_to_leaves_no_stack(project: Project, deployer: Deployer, tmp_path: Path) -> None:
    name = fresh("no")
    change_set = deployer.prepare(
        name,
        placed(project, deployer, {"Resources": {"Fine": QUEUE}}, tmp_path),
        {},
        kept=[],
        capabilities=[],
        creates=True,
        label=f"d-{new_id()}",
    )
    assert change_set is not None
    assert [(change.action, change.logical) for change in change_set.changes] == [("Add", "Fine")]
    deployer.discard(change_set)
    assert deployer.stack(name) is None


def test_ctrl_c_while_the_change_is_worked_out_leaves_no_stack(project: Project, tmp_path: Path) -> None:
    """CloudFormation deletes no change set that it is still making."""
    name = fresh("no")
    naps: list[float] = []

    def interrupted(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 1:
            raise KeyboardInterrupt

    making = answer("DescribeChangeSet", "<Status>CREATE_IN_PROGRESS</Status>")
    too_soon = 400, "<ErrorResponse><Error><Code>InvalidChangeSetStatus</Code></Error></ErrorResponse>"
    with closing(Clients(REGION, project.server.endpoint)) as clients:
        deployer = Deployer(clients, interrupted)
        url = placed(project, deployer, {"Resources": {"Fine": QUEUE}}, tmp_path)
        with (
            answering("cloudformation.DescribeChangeSet", making),
            answering("cloudformation.DeleteChangeSet", too_soon),
            pytest.raises(KeyboardInterrupt),
        ):
            deployer.prepare(name, url, {}, kept=[], capabilities=[], creates=True, label=f"d-{new_id()}")
        assert deployer.stack(name) is None
    assert naps == [POLL, POLL]


def test_a_stack_that_is_cleaned_up_after_an_update_is_waited_for(
    project: Project, deployer: Deployer, tmp_path: Path
) -> None:
    name = fresh("one")
    attempted(project, deployer, name, {"Resources": {"One": QUEUE}}, tmp_path)
    cleaning = answer(
        "DescribeStacks",
        "<Stacks><member><StackStatus>UPDATE_COMPLETE_CLEANUP_IN_PROGRESS</StackStatus></member></Stacks>",
    )
    with answering("cloudformation.DescribeStacks", cleaning, cleaning):
        found = deployer.stack(name)
    assert found is not None
    assert found.status == "CREATE_COMPLETE"


def test_an_upload_that_s3_refuses_is_told_in_its_words(deployer: Deployer, tmp_path: Path) -> None:
    (tmp_path / "code.zip").write_text("code")
    denied = 403, "<Error><Code>AccessDenied</Code><Message>not you</Message></Error>"
    with (
        answering("s3.PutObject", denied),
        pytest.raises(ConfigurationError, match=r"AWS denied PutObject on the bucket 'detent-code-\d+-.*': not you"),
    ):
        deployer.upload(tmp_path / "code.zip", deployer.code_bucket(), f"{new_id()}.zip")


def test_events_tell_each_resource_once_it_is_done(project: Project, deployer: Deployer, tmp_path: Path) -> None:
    name = fresh("two")
    events = attempted(project, deployer, name, {"Resources": {"One": QUEUE, "Two": QUEUE}}, tmp_path)
    done = [event.logical for event in events if event.status == "CREATE_COMPLETE" and event.kind == "AWS::SQS::Queue"]
    assert sorted(done) == ["One", "Two"]
    assert deployer.stack(name) is not None


def test_a_long_history_is_read_once_and_then_only_what_is_new(
    project: Project, deployer: Deployer, tmp_path: Path
) -> None:
    def page(*names: str, more: bool) -> Answer:
        events = "".join(
            f"<member><EventId>{name}</EventId><LogicalResourceId>{name}</LogicalResourceId></member>" for name in names
        )
        token = f"<NextToken>{names[-1]}</NextToken>" if more else ""
        return answer("DescribeStackEvents", f"<StackEvents>{events}</StackEvents>{token}")

    before = page("Old3", more=True), page("Old2", more=True), page("Old1", more=False)
    # The service has more pages then, and they would be news: nobody asks for them.
    now = page("New2", "New1", "Old3", more=True), page("Old2", more=True)
    with answering("cloudformation.DescribeStackEvents", *before, *now) as left:
        name = fresh("old")
        events = attempted(project, deployer, name, {"Resources": {"One": QUEUE}}, tmp_path)
    told = [event.logical for event in events]
    assert left == []
    assert told[:2] == ["New1", "New2"]
    assert not [name for name in told if name.startswith("Old")]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
        ("UPDATE_IN_PROGRESS", "another deploy"),
        ("CREATE_FAILED", "delete-stack"),
    ],
)
def test_a_stack_that_cannot_be_updated_is_told_with_the_way_out(status: str, words: str) -> None:
    error = refusal("shop", status, REGION)
    assert error is not None
    assert words in str(error)
