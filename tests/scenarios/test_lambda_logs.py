"""What the functions print, line by line: a run's story with every line's origin, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from aws_lambda_powertools import Logger
from detent import App, Client, Context, Retry
from detent_functions.runtime import runtime
from detent_infra.aws.log_search import LogEvent, to_line
from detent_infra.logs.lines import from_json
from detent_infra.ports import LogLine

from tests.support.aws_stack import REGION, recorded_calls
from tests.support.lambda_stack import Context as Invocation
from tests.support.lambda_stack import Deployed, cool, deployed

app = App("logs", url="memory://")
flow = app.workflow("talk", input=int)
mute = app.workflow("mute", input=int)


@flow.step(retry=Retry(attempts=2, initial=0.0, jitter=False))
def speak(n: int, ctx: Context) -> int:
    ctx.log.info("by the context", n=n)
    logging.getLogger("shop").warning("by logging", extra={"order": 7})
    if ctx.attempt == 1 and n == 1:
        raise ConnectionError("no line")
    return n


@flow.step
async def listen(n: int = speak.output) -> int:
    await asyncio.to_thread(logging.getLogger("shop").error, "from a thread")
    return n


@mute.step
def silent(n: int) -> int:
    return n


own = app.workflow("own", input=int)


@own.step
def speak_itself(n: int, ctx: Context) -> int:
    shop = Logger(service="own-shop")
    shop.append_keys(run_id=ctx.run_id)
    shop.warning("by powertools", order=7)
    logging.getLogger("own-text.part").warning("by a handler of its own")
    return n


halves = app.workflow("halves", input=int)


@halves.step
def print_halves(n: int, ctx: Context) -> int:
    print("one, ", end="")
    ctx.log.info("between")
    print("two")
    sys.stderr.write("and a half")
    print("a third", end="")
    return n


class OfLambda(logging.Handler):
    """What the runtime puts on the root logger before it imports a function: records as text on standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"[{record.levelname}]\t{record.getMessage()}")


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Deployed]:
    with deployed(monkeypatch) as stack:
        monkeypatch.setenv("DETENT_APP", f"{__name__}:app")
        monkeypatch.setenv(
            "_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"
        )
        cool()
        handler = OfLambda()
        logging.getLogger().addHandler(handler)
        try:
            yield stack
        finally:
            cool()
            logging.getLogger().removeHandler(handler)


def drive(stack: Deployed, capsys: pytest.CaptureFixture[str], workflow: str = "talk", input: int = 0) -> list[str]:
    """All that the worker prints until the run has ended."""
    stack.start(workflow, input)
    capsys.readouterr()
    for number in range(3):
        stack.poll(context=Invocation(request_id=f"request-{number}"))
        if stack.waiting() == 0:
            break
    return capsys.readouterr().out.splitlines()


def of_runs(printed: list[str]) -> list[LogLine]:
    return [line for line in map(from_json, printed) if line is not None]


def test_the_log_of_a_run_reads_as_a_story(stack: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    lines = of_runs(drive(stack, capsys, input=1))
    assert [
        (line.path, line.attempt, line.level, re.sub(r"\d+(\.\d+)? m?s", "a while", line.message)) for line in lines
    ] == [
        ("", 0, "INFO", "run started"),
        ("speak", 1, "INFO", "by the context"),
        ("speak", 1, "WARN", "by logging"),
        ("speak", 1, "WARN", "attempt 1 failed, again in a while: ConnectionError: no line"),
        ("speak", 2, "INFO", "attempt 2 began"),
        ("speak", 2, "INFO", "by the context"),
        ("speak", 2, "WARN", "by logging"),
        ("speak", 2, "INFO", "completed in a while"),
        ("listen", 1, "ERROR", "from a thread"),
        ("listen", 1, "INFO", "completed in a while"),
        ("", 0, "INFO", "run completed in a while"),
    ]


def test_every_line_says_where_it_comes_from(stack: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    lines = of_runs(drive(stack, capsys, input=1))
    assert {(line.workflow, line.worker, line.trace_id) for line in lines} == {
        ("talk", "e5a1", "1-5759e988-bd862e3fe1be46a994272793")
    }
    assert [line.request_id for line in lines if line.message == "by the context"] == ["request-0", "request-1"]
    extra = [json.loads(line.fields) for line in lines if line.message == "by logging"]
    assert extra == [{"logger": "shop", "order": 7}] * 2


def test_a_record_of_a_step_is_printed_once_and_others_as_before(
    stack: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = "\n".join(drive(stack, capsys))
    assert printed.count("by logging") == 1
    assert printed.count("from a thread") == 1
    logging.getLogger("shop").warning("outside of any step")
    assert capsys.readouterr().out == "[WARNING]\toutside of any step\n"


def test_a_logger_that_prints_by_itself_prints_once_in_its_own_format(
    stack: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    Logger(service="own-shop")  # as when the application is imported
    text = logging.getLogger("own-text")
    text.addHandler(logging.StreamHandler(sys.stdout))
    try:
        printed = drive(stack, capsys, "own")
    finally:
        text.handlers.clear()
    [line] = [line for line in printed if "by powertools" in line]
    found = to_line(LogEvent("s", 1, line))
    assert found is not None
    assert (found.message, found.run_id != "", json.loads(found.fields)["order"]) == ("by powertools", True, 7)
    assert [line for line in printed if "by a handler" in line] == ["by a handler of its own"]


def test_half_a_line_that_a_step_prints_swallows_no_line_of_json(
    stack: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = drive(stack, capsys, "halves")
    said = [line.engine or line.message for line in of_runs(printed)]
    assert said == ["run_started", "between", "step_completed", "run_completed"]
    assert [line for line in printed if not line.startswith("{")] == ["one, two", "a third"]
    assert '"MessagesHandled":' in "".join(line for line in printed if line.startswith("{")), "the metrics, too"


def test_lines_cost_no_request(stack: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    with recorded_calls() as calls:
        drive(stack, capsys, input=1)
    assert not {call.operation for call in calls if call.service == "logs"}


def test_the_engine_is_as_quiet_as_the_log_level_says_and_steps_are_not(
    stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETENT_LOG_LEVEL", "WARNING")
    cool()
    assert of_runs(drive(stack, capsys, "mute")) == []
    said = {line.message for line in of_runs(drive(stack, capsys))}
    assert said == {"by the context", "by logging", "from a thread"}
    monkeypatch.setenv("DETENT_LOG_LEVEL", "DEBUG")
    cool()
    assert "attempt 1 began" in [line.message for line in of_runs(drive(stack, capsys, "mute"))]


def test_a_worker_that_is_killed_has_printed_what_was_said_before(
    stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.start("talk", 0)
    capsys.readouterr()
    seen: list[str] = []
    completed = runtime().backend.table.write

    async def dies(write: Any) -> Any:
        if write.key.sk == "step#speak":
            seen.append(capsys.readouterr().out)
        return await completed(write)

    monkeypatch.setattr(runtime().backend.table, "write", dies)
    stack.poll()
    assert "by the context" in seen[0]


def test_detent_logs_reads_what_the_functions_print(stack: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    """The log group is filled by hand with what was printed, as Lambda does it."""
    printed = drive(stack, capsys, input=1)
    run_id = of_runs(printed)[0].run_id
    here = runtime()
    logs = boto3.client("logs", region_name=REGION)
    logs.create_log_stream(logGroupName=stack.resources.log_group, logStreamName="2026/11/22/Worker[$LATEST]e5a1")
    now = here.backend.clock()
    logs.put_log_events(
        logGroupName=stack.resources.log_group,
        logStreamName="2026/11/22/Worker[$LATEST]e5a1",
        logEvents=[{"timestamp": now, "message": line + "\n"} for line in printed if line],
    )
    client = Client("aws://shop", backend=lambda: here.backend)

    async def read(**wanted: Any) -> list[str]:
        return [line.message.splitlines()[0] async for line in client.alogs(run_id, **wanted)]

    assert len(here.run(read())) == 11
    assert here.run(read(step="listen", level="warn")) == ["from a thread"]
    assert here.run(read(pattern="{ $.request_id = request-1 && $.order = 7 }")) == ["by logging"]
