"""What docs/deploy.md says clients and workers must be allowed to do, held to the calls that they make."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from detent import App, Client, Context, Delete, Failure, NonRetryable, Put, Queue, RunStatus, Update
from detent_infra.aws import Resources
from detent_infra.engine import Engine
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.start import NewRun
from detent_state_machine.messages import Drive, encode

from tests.support.aws_stack import REGION, Call, answering, named_stack, recorded_calls
from tests.support.iam_actions import actions
from tests.support.source_queues import create_queue
from tests.support.waiting import until_async

PAGE = Path(__file__).parents[2] / "docs/deploy.md"
NAMES = {
    "the stack": "Stack",
    "`TableName`": "Table",
    "its index `runs`": "Table/index/runs",
    "`QueueUrl`": "Queue",
    "`DeadLetterQueueUrl`": "DeadLetterQueue",
    "`BucketName`": "Bucket",
    "what is below `blobs/` in it": "Bucket/blobs/*",
    "`LogGroupName`": "Logs",
    "a queue of `on_queue=`": "Inbox",
    "its dead-letter queue": "Dead",
}
"""How the page calls what the template calls otherwise."""
OF_USERS = {"inbox": "Inbox", "inbox-dead": "Dead"}
UNSEEN = {("s3:ListBucket", "Bucket")}
"""Never called: without it S3 calls a missing object a denied one."""

URL = f"aws://shop?region={REGION}"
LARGE = "x" * 10_000
"""More than a record holds: it goes to the bucket."""
NEWER = '{"v":999,"kind":"drive"}'
"""A message that only later workers can read: it is left for them."""
PATIENCE = 60.0


def application() -> App:
    """Makes every kind of call: a commit of its own, a fan-out, a join, large values, a failure, a queue's messages."""
    app = App("roles", url=URL)
    keeping = app.workflow("keeping", input=str, output=str, description=LARGE, on_queue=Queue("inbox", input="name"))

    @keeping.step(delivery="exactly_once")
    async def keep(text: str, *, ctx: Context) -> str:
        ctx.log.info("kept")
        ctx.commit(
            Put("kept", ctx.run_id, {"n": 1}), Update("kept", "counted", add={"n": 1}), Delete("kept", "dropped")
        )
        return text

    @keeping.step
    async def left(text: str = keep.output) -> str:
        return text

    @keeping.step
    async def right(text: str = keep.output) -> str:
        return text

    @keeping.step
    async def join(one: str = left.output, other: str = right.output) -> str:
        return one

    failing = app.workflow("failing", input=str, output=str)

    @failing.step
    async def refuse(text: str) -> str:
        raise NonRetryable("no")

    @failing.on_failure
    async def tidy(text: str, failure: Failure) -> str:
        return text

    return app


def documented(column: int) -> set[tuple[str, str]]:
    """As (action, resource): what the page allows clients (1) or workers (2)."""
    table = PAGE.read_text().partition("## Who may do what")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row[1:-1].split("|")] for row in table.splitlines() if row[:2] == "| "]
    return {(action, NAMES[row[0]]) for row in rows[1:] for action in re.findall(r"`(\w+:\w+)`", row[column])}


def made(calls: list[Call], resources: Resources) -> set[tuple[str, str]]:
    return {pair for call in tuple(calls) for pair in actions(call, resources, OF_USERS)}


@pytest.fixture
def stack() -> Iterator[Resources]:
    with named_stack("shop") as resources:
        create_queue(boto3.client("sqs"), "inbox", max_receives=2)
        yield resources


def test_the_page_allows_a_client_the_calls_it_makes_and_no_other(stack: Resources) -> None:
    app = application()
    keeping, failing = app.workflows["keeping"], app.workflows["failing"]
    with recorded_calls() as before:
        client = Client(URL)
        run = client.start(keeping, LARGE)
        client.start_many(failing, ["a", "b"])
        for _ in range(2):
            client.start("keeping", LARGE, key="k")
        client.cancel(client.start(failing, "c").id)
    asyncio.run(work_off(app))
    with recorded_calls() as after:
        assert run.result(timeout=PATIENCE) == LARGE
        assert client.read("kept", run.id) == {"n": 1}
        assert len(client.steps(run.id)) == 4
        [failed, _] = client.runs("failing", statuses=[RunStatus.FAILED])
        retried = client.retry(failed.run_id)
        assert len(client.runs()) == 6
        assert list(client.logs(run.id))
        with answering("logs.StartLiveTail", (400, {"__type": "AccessDeniedException", "message": "no"})):
            asyncio.run(follow(client, retried.id, after))
    assert made([*before, *after], stack) == documented(1) - UNSEEN


async def follow(client: Client, run_id: str, calls: list[Call]) -> None:
    """Until Live Tail was asked for."""
    lines = client.alogs(run_id, follow=True)
    waiting = asyncio.ensure_future(anext(lines))
    await until_async(lambda: any(call.operation == "StartLiveTail" for call in calls))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def work_off(app: App) -> None:
    """Until nothing waits in the queue. Without a worker, whose last poll would be heard of much later."""
    engine, queue = Engine(app.backend, app.executor), app.backend.queue
    while received := await queue.receive(10, wait=0, visibility=30):
        for message in received:
            if await engine.handle(message):
                await queue.delete(message.receipt)
    app.backend.close()


def test_the_page_allows_a_worker_the_calls_it_makes_and_no_other(
    stack: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detent_infra.worker.REAP_EVERY", 0.3)  # seconds; a minute otherwise
    app, sqs = application(), boto3.client("sqs")
    old = asyncio.run(started_an_hour_ago(app))
    sqs.purge_queue(QueueUrl=stack.queue_url)
    inbox = sqs.get_queue_url(QueueName="inbox")["QueueUrl"]
    for body in (json.dumps({"name": LARGE}), "no JSON", "nor this"):  # one starts a run, the others cannot
        sqs.send_message(QueueUrl=inbox, MessageBody=body)
    for url in (stack.queue_url, stack.dead_letter_url):
        sqs.send_message(QueueUrl=url, MessageBody=NEWER)
    sqs.send_message(QueueUrl=stack.dead_letter_url, MessageBody=encode(Drive(old, "join")))
    refusal = (403, {"__type": "AccessDeniedException", "message": "no"})
    with recorded_calls() as calls, answering("sqs.SendMessage", refusal):  # so one of these is kept
        asyncio.run(work_until(application(), lambda: made(calls, stack) >= documented(2) - UNSEEN))
    assert made(calls, stack) == documented(2) - UNSEEN


async def work_until(app: App, enough: Callable[[], bool]) -> None:
    stop = asyncio.Event()
    working = asyncio.create_task(app.work(stop))
    await until_async(enough)
    stop.set()
    await working
    app.backend.close()


async def started_an_hour_ago(app: App) -> str:
    """A run of which no message is left: the reaper's."""
    an_hour_ago = replace(app.backend, clock=lambda: (int(time.time()) - 3600) * 1000)
    return await Lifecycle(an_hour_ago).start(app.workflows["keeping"].definition, NewRun(json.dumps(LARGE)))
