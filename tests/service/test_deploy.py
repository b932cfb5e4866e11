"""`detent deploy` of a project that `detent init` made, on ministack: from nothing to a run that ends there."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from detent import Client, RunStatus
from detent.cli import INTERRUPTED, WRONG, main
from detent.cli.progress import Progress
from detent_infra.ops.doctor.stack_checks import RESOURCES, judge
from detent_infra.ops.stack.facts import QueueFacts
from detent_infra.ops.stack.reading import read_stack_at

from tests.service.project import Project, change_sets
from tests.support.aws_stack import answering, recorded_calls
from tests.support.cli_project import Result
from tests.support.iam_actions import actions_listed, actions_of
from tests.support.lambda_folders import patiently
from tests.support.waiting import until

pytestmark = [pytest.mark.service, pytest.mark.slow]

Call = Callable[..., Result]


@pytest.fixture
def call(project: Project, capsys: pytest.CaptureFixture[str]) -> Call:
    def once(*arguments: str) -> Result:
        for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
            del sys.modules[name]
        capsys.readouterr()
        code = main(["deploy", "--stack", project.url, *arguments])
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return lambda *arguments: patiently(lambda: once(*arguments), lambda said: said.err)


def deployed(call: Call, project: Project) -> None:
    """For a test that needs the stack, whichever of these runs first."""
    if "Table" not in _there(project):
        assert call("--yes").code == 0


def _there(project: Project) -> dict[str, str]:
    try:
        return project.resources()
    except project.client("cloudformation").exceptions.ClientError:
        return {}


REFUND = {"order": "B-1", "cents": 100, "reason": "x"}


def stop_worker(project: Project) -> None:
    """No run goes on from here."""
    lambdas = project.client("lambda")
    listed = lambdas.list_event_source_mappings(FunctionName=project.resources()["Worker"])
    for mapping in listed["EventSourceMappings"]:
        lambdas.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)


@contextmanager
def without_answer(project: Project) -> Iterator[None]:
    """Meanwhile the code has no step `answer`."""
    app = project.folder / "shop/app.py"
    before = app.read_text()
    app.write_text(before.replace("def answer(", "def reply("))
    try:
        yield
    finally:
        app.write_text(before)


ELSE = {f"cloudformation:Delete{what}" for what in ("ChangeSet", "Stack")} | {
    "s3:CreateBucket", "s3:PutBucketPublicAccessBlock"
}  # fmt: skip
"""What a deploy needs if it is refused, and if it is the first in its account."""


def until_done(project: Project) -> None:
    look = project.client("cloudformation").describe_stacks
    until(lambda: not look(StackName=project.stack)["Stacks"][0]["StackStatus"].endswith("_IN_PROGRESS"))


def test_from_nothing_to_a_run_that_ends_in_the_function(call: Call, project: Project) -> None:
    with recorded_calls() as calls:
        said = call("--yes", "--json")
    assert said.code == 0, said.err
    listed = actions_listed("docs/deploy.md", "Beyond that it asks\n", "\nCloudFormation then")
    asked = {action for action in actions_of(calls) if action.split(":")[0] in ("cloudformation", "s3", "sts")}
    assert asked <= listed
    assert listed - asked <= ELSE
    told: Any = said.json
    assert [phase["name"] for phase in told["phases"]] == [
        "check", "package", "upload", "changes", "deploy", "register",
    ]  # fmt: skip
    assert set(RESOURCES) <= set(project.resources())
    assert {change["action"] for change in told["changes"]} == {"Add"}
    assert told["outputs"]["TableName"] == project.resources()["Table"]
    assert re.search(r"Worker +CREATE_COMPLETE", said.err)
    # ministack keeps a parameter's number as text, and its event source then does nothing.
    lambdas = project.client("lambda")
    for mapping in lambdas.list_event_source_mappings()["EventSourceMappings"]:
        lambdas.update_event_source_mapping(UUID=mapping["UUID"], BatchSize=10, ScalingConfig={"MaximumConcurrency": 2})
    client = Client(project.url)
    refund = {"order": "A-17", "cents": 2500, "reason": "broken cup"}
    run = client.start("refunds", refund)  # by name: registered by the deploy, before any tick
    assert "25.00 are on their way" in str(run.result(timeout=60))


def test_deploying_the_same_again_changes_and_sends_nothing(call: Call, project: Project) -> None:
    deployed(call, project)
    with recorded_calls() as calls:
        said = call("--yes", "--json")
    told: Any = said.json
    assert (said.code, told["changes"]) == (0, [])
    assert "nothing new" in said.err
    assert not [each for each in calls if each.operation in ("ExecuteChangeSet", "CreateBucket")]
    assert all(str(each.params["Key"]).endswith(".yaml") for each in calls if each.operation == "PutObject")


def test_a_parameter_adds_a_queue_trigger_whose_queue_the_doctor_looks_at(
    call: Call, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(call, project)
    sqs = project.client("sqs")
    url = sqs.create_queue(QueueName=f"{project.stack}-refunds", Attributes={"VisibilityTimeout": "20"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    said = call("--yes", "--json", "-p", f"TriggerQueueArn={arn}")
    told: Any = said.json
    assert said.code == 0, said.err
    assert told["changes"]
    assert "QueueTrigger" in project.resources()
    facts = read_stack_at(project.url)
    source = facts.queues["TriggerQueueArn"]
    assert isinstance(source, QueueFacts)
    assert (source.arn, source.visibility, source.max_receives) == (arn, 20, None)
    found = {(check.name, check.verdict) for check in judge(facts)}
    assert {("visibility", "fail"), ("redrive", "warn"), ("permissions", "ok")} <= found

    with recorded_calls() as calls:
        assert main(["doctor", "--stack", project.url]) == WRONG
    asked, listed = actions_of(calls), actions_listed("docs/cli.md", "To read everything you need\n", ".\n")
    assert {one for one in asked if not any(fnmatch(one, each) for each in listed)} == set()
    assert {each for each in listed if not any(fnmatch(one, each) for one in asked)} == set()


def test_a_removed_step_that_live_runs_still_need_is_refused_unless_told(call: Call, project: Project) -> None:
    deployed(call, project)
    stop_worker(project)
    client = Client(project.url)
    run = client.start("refunds", REFUND)
    with without_answer(project):
        with recorded_calls() as calls:
            said = call("--yes")
        said.refused("refunds.answer in 1 run of version", "Nothing was deployed", "--strand", run.id)
        assert not [each for each in calls if each.operation == "CreateChangeSet"]
        with answering("s3.HeadBucket", (403, {})):  # far enough: the check has let it pass
            told = call("--yes", "--strand")
        assert "strands refunds.answer in 1 run" in told.err
        assert "belongs to another account" in told.err
    client.cancel(run.id)
    assert client.get(run.id).status is RunStatus.CANCELLED


def test_runs_that_start_while_the_user_is_asked_are_not_stranded_either(
    call: Call, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(call, project)
    stop_worker(project)
    client = Client(project.url)
    started: list[str] = []

    def answer(_: str) -> str:
        started.append(client.start("refunds", REFUND).id)
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    with without_answer(project), recorded_calls() as calls:
        said = call()
    assert said.code == WRONG
    assert re.search(r"refunds\.answer in 1 run of version \w+\. Nothing was deployed", said.err.splitlines()[-1])
    assert not [each for each in calls if each.operation == "ExecuteChangeSet"]
    assert change_sets(project, project.stack) == []
    client.cancel(started[0])


def test_a_queue_is_not_removed_unless_told(call: Call, project: Project) -> None:
    deployed(call, project)
    template = project.folder / "template.yaml"
    before = template.read_text()
    try:
        template.write_text(before.replace("DeadLetterQueue", "Graveyard"))
        with recorded_calls() as calls:
            said = call("--yes")
    finally:
        template.write_text(before)
    assert re.search(r"remove +DeadLetterQueue +AWS::SQS::Queue  what it holds is left behind", said.err)
    assert "live runs with it: DeadLetterQueue (AWS::SQS::Queue, removed). Nothing was deployed." in said.err
    assert said.code == WRONG
    assert not [each for each in calls if each.operation == "ExecuteChangeSet"]
    assert change_sets(project, project.stack) == []


def test_what_ctrl_c_leaves_is_done_by_a_second_deploy_which_names_what_is_stranded(
    call: Call, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(call, project)
    stop_worker(project)
    client = Client(project.url)
    run = client.start("refunds", REFUND)
    shown = Progress.line

    def line(self: Progress, text: str, style: str = "", styled: int | None = None) -> None:
        shown(self, text, style, styled)
        if "UPDATE_COMPLETE" in text:
            signal.raise_signal(signal.SIGINT)

    with without_answer(project):
        with monkeypatch.context() as watched:
            watched.setattr(Progress, "line", line)
            said = call("--yes", "--strand")
        assert said.code == INTERRUPTED
        assert re.search(r"goes on without us\. Once \S+ is done, run `detent deploy` again", said.err)
        until_done(project)
        again = call("--yes", "--strand", "--json")
    told: Any = again.json
    assert told["changes"] == []
    [left] = told["stranded"]
    assert (left["workflow"], left["step"], left["runs"], left["run_ids"]) == ("refunds", "answer", 1, [run.id])
    assert re.search(r"Stranded: refunds\.answer in 1 run .* until a worker has these steps", again.err)
    client.cancel(run.id)
    assert call("--yes").code == 0  # for the other tests


def test_what_is_wrong_is_one_line_before_anything_is_made(call: Call, project: Project) -> None:
    call("--json").refused("Nobody is there to be asked", "--yes")
    call("--yes", "-p", "Nope=1").refused("has no parameter Nope", "MaximumConcurrency")
    call("--yes", "-p", "App=other.app:app").refused("'other.app:app'", "'shop.app:app'")
    call("--yes", "--app", "shop.nothing:app").refused("there is no module 'shop.nothing'")
    app = project.folder / "shop/app.py"
    before = app.read_text()
    try:
        app.write_text("import no_such_module\n")
        call("--yes").refused("no_such_module", "Install it")
    finally:
        app.write_text(before)


def test_an_account_with_few_invocations_at_once_is_spoken_of_before_anything_is_made(call: Call) -> None:
    few = 200, {"AccountLimit": {"ConcurrentExecutions": 10, "UnreservedConcurrentExecutions": 10}, "AccountUsage": {}}
    with answering("lambda.GetAccountSettings", few), answering("s3.HeadBucket", (403, {})):
        said = call("--yes", "-p", "MaximumConcurrency=20", "-p", "TriggerQueueArn=")
    [told] = [line for line in said.err.splitlines() if "up to 22 at once, but 10" in line]
    assert "Deploy with `-p MaximumConcurrency=8`, or ask for a higher quota" in told


def test_code_that_no_python_here_could_compile_is_said_to_be_so(
    call: Call, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    other = "3.12" if sys.version_info.minor == 13 else "3.13"
    template = project.folder / "template.yaml"
    before = template.read_text()
    try:
        template.write_text(before.replace(f"python3.{sys.version_info.minor}", f"python{other}"))
        with answering("s3.HeadObject", (403, {})):  # far enough: it is packaged
            said = call("--yes")
    finally:
        template.write_text(before)
    assert f"Not compiled, as no Python {other} was found: each cold start compiles what it imports." in said.err
    assert "on the PATH" in said.err


def test_a_bucket_that_somebody_else_owns_gets_no_code(call: Call, project: Project) -> None:
    with answering("s3.HeadBucket", (403, {})), recorded_calls() as calls:
        said = call("--yes")
    assert said.code == 2
    assert "belongs to another account" in said.err
    assert not [each for each in calls if each.operation in ("PutObject", "CreateChangeSet")]
