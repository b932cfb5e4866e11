"""The start/API entry: HTTP behind a function URL that requires IAM signatures, and direct invocation.

Direct: {"workflow": …, "input": …, "key": …, "metadata": …} gives {"run_id": …}, or a problem if the request is at
fault. If detent is at fault the invocation fails, so that whoever retries failed invocations retries this one.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TypedDict, cast

from aws_lambda_powertools.utilities.typing import LambdaContext
from detent_infra.runs.lifecycle import Lifecycle

from detent_functions import api
from detent_functions.problems import Problem, problem
from detent_functions.requests import DirectStart, HttpRequest, Reply, UrlEvent, UrlReply, read_direct, read_request
from detent_functions.runtime import prepare, runtime
from detent_functions.telemetry import Counters, invocation, log

prepare()


class Started(TypedDict):
    run_id: str


class StartFailed(Exception):
    """A direct start failed inside detent. The message is the problem's detail; the log has the trace."""


def handler(event: object, context: LambdaContext) -> UrlReply | Started | Problem:
    """Invoked through the function URL, or directly."""
    with invocation(context) as counters:
        if isinstance(event, dict) and "requestContext" in event:
            return _http(cast("UrlEvent", event), counters)
        return _direct(event, context, counters)  # pyright: ignore[reportUnknownArgumentType]


def _http(event: UrlEvent, counters: Counters) -> UrlReply:
    try:
        request = read_request(event)
        reply = runtime().run(_serve(request))
        counters.add("RunsStarted", int(request.starts))
    except Exception as error:  # noqa: BLE001 - logged, and no trace reaches the caller
        reply = api.refusal(_logged(error))
    return reply.to_event()


async def _serve(request: HttpRequest) -> Reply:
    return await api.answer(await _lifecycle(), request)


def _direct(event: object, context: LambdaContext, counters: Counters) -> Started | Problem:
    try:
        new = read_direct(event)
        # Lambda delivers an asynchronous invocation at least once, each time with this id.
        started: Started = {"run_id": runtime().run(_start(new, new.key or f"invocation-{context.aws_request_id}"))}
    except Exception as error:  # noqa: BLE001 - as above
        found = problem(_logged(error))
        if found["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise StartFailed(found["detail"]) from None
        return found
    counters.add("RunsStarted")
    return started


async def _start(new: DirectStart, key: str) -> str:
    lifecycle = await _lifecycle()
    return await lifecycle.start_by_name(new.workflow, new.input_json, key=key, metadata=new.metadata)


async def _lifecycle() -> Lifecycle:
    here = runtime()
    await here.register()
    return Lifecycle(here.backend, here.definitions)


def _logged(error: Exception) -> Exception:
    if problem(error)["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.exception("the request failed")
    else:
        log.info("refused: %s", error)
    return error
