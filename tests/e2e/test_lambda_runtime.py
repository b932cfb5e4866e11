"""The packaged folder, alone, under AWS's own runtime client: what Lambda does to a function is done to it.

The table and the queue are a ministack's. The interpreter is the template's if this machine has one, else the one that
runs the tests; the folder is packaged for it and for this machine's processor.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from detent_functions.batches import SqsEvent
from detent_infra.aws import Resources
from detent_infra.ops.packaging import Target

from tests.support.architecture import HERE
from tests.support.lambda_folders import APP, ROOT, Folders, Interpreter, own, templates
from tests.support.queue_counts import messages_in
from tests.support.runtime_api import (
    BOOTSTRAP,
    Answered,
    Crashed,
    Function,
    InitFailed,
    Outcome,
    Raised,
    Runtime,
    TimedOut,
)
from tests.support.server import Server
from tests.support.service_stack import CREDENTIALS, service_stack, session
from tests.support.sqs_events import sqs_event
from tests.support.waiting import until

pytestmark = [pytest.mark.service, pytest.mark.slow]

PATIENCE = 120.0
"""Seconds for what waits for a lease of 30 s at worst."""

TROUBLE = '''
from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from detent import App, Client, RunHandle

app = App("trouble")
work = app.workflow("work", input=str, output=str)


def times(step: str) -> int:
    """How often the step has begun, this time included."""
    with Path(os.environ["MARKS"]).open("a+") as marks:
        marks.write(f"{step}\\n")
        marks.seek(0)
        return marks.read().splitlines().count(step)


@work.step
def before(how: str) -> str:
    times("before")
    return how


@work.step
async def trouble(how: str = before.output) -> str:
    if times("trouble") == 1:
        if how == "crash":
            os._exit(7)
        if how == "block":
            time.sleep(60)
        if how == "linger":
            await asyncio.sleep(60)
    return f"{how} is over"


@work.step
def after(said: str = trouble.output) -> str:
    times("after")
    return said


quiet = app.workflow("quiet", input=str, output=str)
begin = app.workflow("begin", input=str, output=list[str])
everywhere = Client()


@quiet.step
def nothing(text: str) -> str:
    return text.upper()


@begin.step
async def in_tasks(text: str) -> list[str]:
    ways = [
        await quiet.astart(text),
        await everywhere.astart(quiet, text),
        await asyncio.create_task(app.client.astart(quiet, text)),
        await asyncio.to_thread(Client().start, quiet, text),
    ]
    assert (await Client().aget(ways[0].id)).workflow == "quiet"
    return [way.id for way in ways]


@begin.step
def in_threads(started: list[str] = in_tasks.output) -> list[str]:
    def note(start: Callable[[], RunHandle[str]]) -> None:
        started.append(start().id)

    note(lambda: quiet.start("s"))
    note(lambda: app.client.start(quiet, "s"))
    thread = threading.Thread(target=note, args=[lambda: Client().start("quiet", "s")])
    thread.start()
    thread.join()
    return started
'''


@dataclass
class Deployed:
    """The functions of one folder on one stack. It plays the event source mapping."""

    folder: Path
    runtime: Runtime
    resources: Resources
    endpoint: str
    place: Path
    app: str
    environment: Mapping[str, str] = field(default_factory=dict)
    _functions: dict[str, Function] = field(default_factory=dict)

    def function(self, module: str, **changed: Any) -> Function:
        """The function of a handler module, as template.yaml configures it but for what is changed."""
        r = self.resources
        told = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": self.endpoint,
            "DETENT_APP": self.app,
            "DETENT_STACK": r.table,
            "DETENT_TABLE": r.table,
            "DETENT_QUEUE_URL": r.queue_url,
            "DETENT_DEAD_LETTER_QUEUE_URL": r.dead_letter_url,
            "DETENT_BUCKET": r.bucket,
            "DETENT_LOG_GROUP": r.log_group,
            "MARKS": str(self.place / "marks"),
            **self.environment,
        }
        made = Function(
            self.folder, f"detent_functions.{module}.handler", self.runtime, told, self.place / f"{module}.log"
        )
        return replace(made, **changed)

    def __getitem__(self, module: str) -> Function:
        return self._functions.setdefault(module, self.function(module))

    def end(self) -> None:
        for function in self._functions.values():
            function.end()

    # ---- through the start function ----

    def start(self, workflow: str, input: object) -> str:
        answer = self["start"].invoke({"workflow": workflow, "input": input})
        assert isinstance(answer, Answered), self.said("start")
        assert isinstance(answer.value, dict)
        return str(answer.value["run_id"])

    def get(self, path: str) -> tuple[int, Any]:
        event = {"version": "2.0", "requestContext": {"http": {"method": "GET", "path": path}}, "rawPath": path}
        answer = self["start"].invoke(event)
        assert isinstance(answer, Answered), self.said("start")
        assert isinstance(answer.value, dict)
        return answer.value["statusCode"], json.loads(answer.value["body"])

    # ---- through the worker function ----

    def receive(self, *, hidden: int = 1) -> SqsEvent:
        """A batch that stays hidden for so many seconds, or as long as the worker says; empty after a second."""
        queue = session().client("sqs", endpoint_url=self.endpoint)
        answer = queue.receive_message(
            QueueUrl=self.resources.queue_url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            VisibilityTimeout=hidden,
            MessageSystemAttributeNames=["All"],
        )
        return sqs_event(answer.get("Messages", []))

    def deliver(self, to: Function | None = None, *, left: float | None = None, hidden: int = 1) -> Outcome:
        """One batch, and what an event source mapping does after it: it deletes what was handled, and nothing else."""
        event = self.receive(hidden=hidden)
        outcome = (to or self["worker"]).invoke(event, left=left)
        if isinstance(outcome, Answered):
            kept = failures(outcome)
            for record in event["Records"]:
                if record["messageId"] not in kept:
                    queue = session().client("sqs", endpoint_url=self.endpoint)
                    queue.delete_message(QueueUrl=self.resources.queue_url, ReceiptHandle=record["receiptHandle"])
        return outcome

    def deliver_until_began(self, step: str, to: Function, *, left: float | None = None) -> Outcome:
        """What became of the delivery in which the step began. A busy machine may run out of time before it."""
        until = time.monotonic() + PATIENCE
        while True:
            outcome = self.deliver(to, left=left)
            if step in self.began():
                return outcome
            assert time.monotonic() < until, self.said("worker")

    def deliver_until_ended(self, run_id: str) -> Any:
        """The run's output, after as many deliveries as it takes."""
        until = time.monotonic() + PATIENCE
        while True:
            status, body = self.get(f"/runs/{run_id}/result")
            if status != 202:
                assert status == 200, body
                return body
            assert time.monotonic() < until, self.said("worker")
            self.deliver(hidden=30)

    def left(self) -> int:
        """Messages in the queue, visible, delayed or in flight."""
        return messages_in(session().client("sqs", endpoint_url=self.endpoint), self.resources.queue_url)

    def began(self) -> list[str]:
        """The steps of TROUBLE that have begun, in order."""
        marks = self.place / "marks"
        return marks.read_text().split() if marks.exists() else []

    def said(self, module: str) -> str:
        return (self.place / f"{module}.log").read_text()


def failures(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Answered), outcome
    assert isinstance(outcome.value, dict)
    return [each["itemIdentifier"] for each in outcome.value["batchItemFailures"]]


@pytest.fixture(scope="module")
def interpreter() -> Interpreter:
    return templates() or own()


@pytest.fixture(scope="module")
def runtime(folders: Folders, interpreter: Interpreter) -> Runtime:
    return folders.runtime(interpreter)


@pytest.fixture(scope="module")
def orders_folder(folders: Folders, interpreter: Interpreter) -> Path:
    return folders.orders(Target(interpreter.version, HERE), interpreter.path)


@pytest.fixture(scope="module")
def trouble_folder(folders: Folders, interpreter: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a project of somebody's own, which depends on detent and on nothing else."""
    project = tmp_path_factory.mktemp("a project")
    (project / "trouble.py").write_text(TROUBLE)
    (project / "pyproject.toml").write_text(
        '[project]\nname = "trouble"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["detent"]\n'
    )
    shutil.copy(ROOT / "requirements.lock", project)
    return folders.of(project, "trouble:app", Target(interpreter.version, HERE), interpreter.path)


def on(service: Server, folder: Path, runtime: Runtime, place: Path, app: str) -> Iterator[Deployed]:
    with service_stack(service) as resources:
        deployed = Deployed(folder, runtime, resources, service.endpoint, place, app)
        try:
            yield deployed
        finally:
            deployed.end()


@pytest.fixture
def orders(service: Server, orders_folder: Path, runtime: Runtime, tmp_path: Path) -> Iterator[Deployed]:
    yield from on(service, orders_folder, runtime, tmp_path, APP)


@pytest.fixture
def trouble(service: Server, trouble_folder: Path, runtime: Runtime, tmp_path: Path) -> Iterator[Deployed]:
    yield from on(service, trouble_folder, runtime, tmp_path, "trouble:app")


LINE = {"number": 1, "customer_id": "00001", "date": "1997-01-18", "quantity": "2", "amount_usd": "29.33"}


def test_an_order_goes_from_its_start_to_its_receipt_by_the_folder_alone(orders: Deployed) -> None:
    run_id = orders.start("orders", LINE)
    receipt = orders.deliver_until_ended(run_id)
    assert (receipt["order"], receipt["cents"]) == ("cdnow-1", 2933)
    assert orders.get(f"/runs/{run_id}")[1]["status"] == "COMPLETED"
    assert orders.left() == 0
    assert orders["worker"].environments == 1


def test_a_tick_makes_the_workflows_known(orders: Deployed) -> None:
    assert orders["tick"].invoke({}) == Answered({"timers": 0, "looked": 0, "stalled": 0, "sent": 0})
    assert orders["tick"].invoke({}) == Answered({"timers": 0, "looked": 0, "stalled": 0, "sent": 0})
    assert orders["tick"].environments == 1


def test_only_the_part_of_a_batch_that_cannot_be_handled_is_kept(orders: Deployed) -> None:
    run_id = orders.start("orders", LINE)
    queue = session().client("sqs", endpoint_url=orders.endpoint)
    odd = queue.send_message(QueueUrl=orders.resources.queue_url, MessageBody="not a message of detent")["MessageId"]
    event = orders.receive()
    assert len(event["Records"]) == 2
    assert failures(orders["worker"].invoke(event)) == [odd]
    assert orders.get(f"/runs/{run_id}")[1]["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("how", "timeout", "cut_off"), [("crash", 900.0, Crashed(7)), ("block", 6.0, TimedOut())], ids=["crash", "timeout"]
)
def test_a_run_whose_function_was_cut_off_goes_on_by_redelivery(
    how: str, timeout: float, cut_off: Outcome, trouble: Deployed
) -> None:
    # A step that blocks lets nothing else of its process run, so nobody there can end it in time.
    worker = trouble.function("worker", timeout=timeout)
    run_id = trouble.start("work", how)
    assert trouble.deliver_until_began("trouble", worker) == cut_off
    assert trouble.left() == 1
    assert trouble.get(f"/runs/{run_id}")[1]["status"] == "RUNNING"
    assert trouble.deliver_until_ended(run_id) == f"{how} is over"
    assert trouble.began()[-3:] == ["trouble", "trouble", "after"]


def test_a_step_that_would_outlast_its_function_is_ended_before_it_and_tried_again(trouble: Deployed) -> None:
    # It is told that it has 6 s, and has more: a busy machine may take long over what follows the end of the body.
    worker = trouble.function("worker", timeout=60.0)
    try:
        run_id = trouble.start("work", "linger")
        assert trouble.deliver_until_began("trouble", worker, left=6.0) == Answered({"batchItemFailures": []})
    finally:
        worker.end()
    said = re.search(r"StepTimeout.* did not end within ([\d.]+) s", trouble.said("worker"))
    assert said is not None
    assert float(said[1]) < 6.0
    assert trouble.deliver_until_ended(run_id) == "linger is over"
    assert worker.environments == 1


def test_what_has_no_time_left_is_given_up_and_comes_back(trouble: Deployed) -> None:
    run_id = trouble.start("work", "nothing")
    assert len(failures(trouble.deliver(left=0.4))) == 1
    assert "message given up" in trouble.said("worker")
    assert trouble.left() == 1
    assert trouble.deliver_until_ended(run_id) == "nothing is over"
    assert trouble["worker"].environments == 1


def test_a_body_finds_the_stack_that_it_runs_on_by_itself(trouble: Deployed) -> None:
    started = trouble.deliver_until_ended(trouble.start("begin", "a"))
    assert len(set(started)) == 7
    assert [trouble.deliver_until_ended(run_id) for run_id in started] == [*["A"] * 4, *["S"] * 3]


def test_a_function_without_the_stack_s_variables_names_them(trouble: Deployed) -> None:
    trouble.environment = {"DETENT_TABLE": "", "DETENT_QUEUE_URL": ""}
    failed = trouble["start"].invoke({"workflow": "quiet", "input": "a"})
    assert "DETENT_TABLE, DETENT_QUEUE_URL" in f"{failed}{trouble.said('start')}"


def test_a_folder_for_another_processor_fails_at_its_start_and_deletes_nothing(
    orders: Deployed, folders: Folders, interpreter: Interpreter
) -> None:
    other = {"arm64": "x86_64", "x86_64": "arm64"}[HERE]
    run_id = orders.start("orders", LINE)
    broken = orders.function("worker", folder=folders.orders(Target(interpreter.version, other)))
    for _ in range(2):  # each invocation starts another environment
        outcome = orders.deliver(broken)
        assert isinstance(outcome, InitFailed)
        assert outcome.error["errorType"] == "Runtime.ImportModuleError"
        assert "pydantic_core" in str(outcome.error["errorMessage"])
    assert broken.environments == 2
    assert orders.left() == 1
    assert orders.deliver_until_ended(run_id)["order"] == "cdnow-1"


def test_an_app_that_cannot_be_imported_keeps_every_message_and_fails_the_tick(orders: Deployed) -> None:
    run_id = orders.start("orders", LINE)
    orders.environment = {"DETENT_APP": "examples.moved.app:app"}
    broken, tick = orders.function("worker"), orders.function("tick")
    try:
        for _ in range(2):
            until(lambda: failures(orders.deliver(broken)))  # it comes back: it is hidden for some seconds
        failed = tick.invoke({})
    finally:
        broken.end()
        tick.end()
    assert broken.environments == 1, "its start did not fail"
    assert "there is no module 'examples.moved'" in orders.said("worker")
    assert isinstance(failed, Raised)
    assert failed.error["errorType"] == "ConfigurationError"
    assert orders.left() == 1
    orders.environment = {}
    assert orders.deliver_until_ended(run_id)["order"] == "cdnow-1"


def test_a_module_from_outside_the_folder_ends_the_process(runtime: Runtime, tmp_path: Path) -> None:
    """The proof that the tests above could not have passed by what lies around."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for each in (outside, folder):
        each.mkdir()
    (outside / "stray.py").write_text("")
    (folder / "function.py").write_text(f"import sys\nsys.path.append({str(outside)!r})\nimport stray\n")
    done = subprocess.run(
        [runtime.python, "-I", "-S", "-B", BOOTSTRAP, folder, runtime.client, "function.handler"],
        env={"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 99
    assert f"loaded from outside the folder: {outside}" in done.stderr
