"""The functions as Lambda runs them, on moto: a deployed stack, its event source mappings, and an application.

moto delivers no SQS messages to functions, so `Deployed.poll` does what an event source mapping does: it receives a
batch, invokes the handler with it, and deletes what the handler did not report.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from detent_functions import runtime as runtime_module
from detent_functions import settings as settings_module
from detent_functions import start, worker
from detent_functions.batches import BatchResponse, SqsEvent
from detent_functions.requests import UrlReply
from detent_infra.aws import Resources
from detent_infra.executor import Attempt, Completed, Failed, Outcome
from detent_infra.sources.triggers import Subscription
from detent_state_machine.definition import Definition, Parent, StepDefinition
from detent_state_machine.errors import InputError
from detent_state_machine.keys import data_key
from detent_state_machine.records import ErrorInfo
from detent_state_machine.retry import Retry
from detent_state_machine.triggers import Queue, compile_trigger
from detent_state_machine.writes import DeleteItem, PutItem, UpdateItem

from tests.support.aws_stack import REGION, moto_stack
from tests.support.queue_counts import messages_in
from tests.support.sqs_events import sqs_event

GREETING = Definition(
    name="greeting",
    steps=(
        StepDefinition(name="greet"),
        StepDefinition(name="shout", parents=(Parent(step="greet", need="completed"),), reads=("greet",)),
    ),
)
REFUSED = Definition(name="refused/always", steps=(StepDefinition(name="refuse", retry=Retry(attempts=1)),))
MEETING = Definition(name="meeting", steps=(StepDefinition(name="meet", timeout=5, retry=Retry(attempts=1)),))

LARGE = "x" * 10_000
"""More than a record holds: it goes to the bucket."""
KEEPING = Definition(
    name="keeping",
    description=LARGE,
    steps=(
        StepDefinition(name="keep"),
        StepDefinition(name="left", parents=(Parent(step="keep", need="completed"),), reads=("keep",)),
        StepDefinition(name="right", parents=(Parent(step="keep", need="completed"),), reads=("keep",)),
        StepDefinition(
            name="join", parents=(Parent(step="left", need="completed"), Parent(step="right", need="completed"))
        ),
        StepDefinition(name="tidy", scope="on_failure"),
    ),
)
"""Makes every kind of call: a commit of its own, a fan-out, a join, large values, a failure handler."""


class Bodies:
    """A hand-written executor: what the SDK makes of an author's functions."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.forgotten: set[str] = set()
        self.meet: Callable[[], Awaitable[object]] = asyncio.Barrier(3).wait
        """What the body of `meet` waits for."""

    def definitions(self) -> Mapping[str, Definition]:
        return {each.name: each for each in (GREETING, REFUSED, MEETING, KEEPING)}

    def knows(self, workflow: str, step: str) -> bool:
        return step not in self.forgotten

    def misfit(self, workflow: str, step: str, text: str) -> ErrorInfo | None:
        return None

    async def execute(self, attempt: Attempt) -> Outcome:
        self.ran.append((attempt.run_id, attempt.path))
        match attempt.path:
            case "greet":
                return Completed(json.dumps(f"hello {json.loads(attempt.input)}"))
            case "shout":
                return Completed((attempt.outputs["greet"] or "null").upper())
            case "keep":
                kept = [data_key("kept", name) for name in ("put", "counted", "dropped")]
                return Completed(
                    json.dumps(LARGE),
                    (PutItem(kept[0], {"n": 1}), UpdateItem(kept[1], add={"n": 1}), DeleteItem(kept[2])),
                )
            case "left" | "right" | "join" | "tidy":
                return Completed(json.dumps(LARGE))
            case "meet":
                await self.meet()
                return Completed("true")
            case _:
                return Failed(ErrorInfo("CardRefused", "no", trace="File /var/task/secret.py", retryable=False))


def _greeted(text: str) -> str:
    if not isinstance(json.loads(text), str):
        raise InputError("The input of workflow 'greeting' is not text.")
    return text


class Application:
    """Messages of the queue `inbox`, and of `inbox.fifo`, start greetings and, if they are large, keepings."""

    url = "memory://"

    def __init__(self) -> None:
        self.executor = Bodies()
        self.subscriptions = [
            Subscription(compile_trigger("greeting", Queue("inbox", input="name")), GREETING, _greeted),
            Subscription(compile_trigger("keeping", Queue("inbox", when="length(name) > `1000`")), KEEPING, str),
            Subscription(compile_trigger("greeting", Queue("inbox.fifo", input="name")), GREETING, _greeted),
        ]


app = Application()


class Context(LambdaContext):
    """What Lambda passes beside the event."""

    def __init__(self, function: str = "Worker", *, request_id: str = "r-1", left_ms: int = 900_000) -> None:
        self._function_name = function
        self._aws_request_id = request_id
        self._log_stream_name = f"2026/11/22/{function}[$LATEST]e5a1"
        self.get_remaining_time_in_millis = lambda: left_ms  # type: ignore[method-assign]


class Deployed:
    """A stack and its functions. `bodies` is what the application's steps run on."""

    def __init__(self, resources: Resources, bodies: Bodies) -> None:
        self.resources = resources
        self.bodies = bodies
        self.sqs = boto3.client("sqs", region_name=REGION)

    def receive(self, url: str | None = None) -> SqsEvent:
        """A batch as AWS hands it to a function, of up to 10 messages that are visible now."""
        url = url or self.resources.queue_url
        answer = self.sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return sqs_event(answer.get("Messages", []), queue=url.rpartition("/")[2], region=REGION)

    def poll(
        self,
        handler: Callable[[SqsEvent, LambdaContext], BatchResponse] = worker.handler,
        *,
        url: str | None = None,
        context: LambdaContext | None = None,
    ) -> BatchResponse:
        """One delivery of a batch, with what follows it."""
        url = url or self.resources.queue_url
        event = self.receive(url)
        response = handler(event, context or Context())
        kept = {each["itemIdentifier"] for each in response["batchItemFailures"]}
        done: SqsEvent = {"Records": [record for record in event["Records"] if record["messageId"] not in kept]}
        self.acknowledge(done, url)
        return response

    def acknowledge(self, event: SqsEvent, url: str | None = None) -> None:
        for record in event["Records"]:
            self.sqs.delete_message(QueueUrl=url or self.resources.queue_url, ReceiptHandle=record["receiptHandle"])

    def send(self, *bodies: str, url: str | None = None) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=url or self.resources.queue_url, MessageBody=body)

    def waiting(self, url: str | None = None) -> int:
        """Messages in the queue, visible, delayed or in flight."""
        return messages_in(self.sqs, url or self.resources.queue_url)

    def http(self, method: str, path: str, body: object = None, **event: object) -> tuple[int, dict[str, object]]:
        """A request through the function URL: status and body."""
        shown = {"requestContext": {"http": {"method": method, "path": path}}, "rawPath": path, "version": "2.0"}
        text = body if isinstance(body, str) else json.dumps(body)
        reply = cast("UrlReply", start.handler({**shown, "body": text, **event}, Context("Start")))
        problem = reply["statusCode"] >= 400
        assert reply["headers"]["content-type"] == ("application/problem+json" if problem else "application/json")
        parsed = json.loads(reply["body"])
        return reply["statusCode"], parsed if isinstance(parsed, dict) else {"value": parsed}

    def start(self, workflow: str = "greeting", input: object = "you") -> str:
        status, reply = self.http("POST", f"/workflows/{workflow}/runs", {"input": input})
        assert status == 202
        return str(reply["run_id"])

    def status(self, run_id: str) -> object:
        return self.http("GET", f"/runs/{run_id}")[1]["status"]


def environment(resources: Resources) -> dict[str, str]:
    """What template.yaml gives every function."""
    return {
        "DETENT_APP": f"{__name__}:app",
        "DETENT_STACK": "shop",
        "DETENT_TABLE": resources.table,
        "DETENT_QUEUE_URL": resources.queue_url,
        "DETENT_DEAD_LETTER_QUEUE_URL": resources.dead_letter_url,
        "DETENT_BUCKET": resources.bucket,
        "DETENT_LOG_GROUP": resources.log_group,
    }


@contextmanager
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """A new stack, with functions whose processes are cold."""
    with moto_stack() as resources:
        for name, value in environment(resources).items():
            monkeypatch.setenv(name, value)
        app.executor = Bodies()
        cool()
        try:
            yield Deployed(resources, app.executor)
        finally:
            cool()


def cool() -> None:
    """Ends the functions' process, as Lambda does with one that is idle."""
    if runtime_module.runtime.cache_info().currsize:
        runtime_module.runtime().close()
    runtime_module.runtime.cache_clear()
    settings_module.settings.cache_clear()
