"""Lambda's side of a function: its Runtime API on loopback, and one process per environment that runs AWS's own client.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. Like Lambda, it starts an environment when one is
needed and keeps it for the next invocation, kills it at the function's timeout, and starts another after a crash. Not
like Lambda: the processes are not frozen between invocations, memory is not limited, and there are no extensions.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeAlias
from uuid import uuid4

BOOTSTRAP = Path(__file__).with_name("lambda_bootstrap.py")
PREFIX = "/2018-06-01/runtime/"
INIT_PATIENCE = 60.0
"""Seconds in which an environment must be ready or dead. Lambda has 10; a busy machine of tests may need more."""
PATIENCE = 120.0
"""Seconds that a test waits for an invocation whose function has a longer timeout than that."""


@dataclass(frozen=True)
class Answered:
    """The handler returned."""

    value: object


@dataclass(frozen=True)
class Raised:
    """The handler raised, and the runtime reported it."""

    error: Mapping[str, object]


@dataclass(frozen=True)
class InitFailed:
    """The environment never asked for an invocation. The error is what the runtime reported before it ended."""

    error: Mapping[str, object]


@dataclass(frozen=True)
class Crashed:
    """The process ended while it had the invocation."""

    status: int


@dataclass(frozen=True)
class TimedOut:
    """The process was killed at the function's timeout."""


Outcome: TypeAlias = Answered | Raised | InitFailed | Crashed | TimedOut


@dataclass(frozen=True)
class Ready:
    """The environment asks for an invocation."""


@dataclass(frozen=True)
class Invocation:
    id: str
    body: bytes
    deadline: int
    """Milliseconds since the epoch."""


@dataclass(frozen=True)
class Runtime:
    """An interpreter, and the folder where AWS's runtime client is installed for it."""

    python: Path
    client: Path


@dataclass
class Function:
    """A function of a folder. `timeout` is in seconds; `log` is the file that its processes write to."""

    folder: Path
    handler: str
    runtime: Runtime
    environment: Mapping[str, str]
    log: Path
    timeout: float = 900.0
    patience: float = PATIENCE
    """Seconds after which an invocation that is not over, though it may go on, is an error of whoever waits for it."""
    environments: int = 0
    """How many were started so far."""
    _current: _Environment | None = field(default=None, repr=False)

    def invoke(self, payload: object, *, left: float | None = None) -> Outcome:
        """One invocation. `left`: the seconds that the function is told it has, if not its timeout."""
        if self._current is None:
            self.environments += 1
            self._current = _Environment(self)
        outcome = self._current.invoke(json.dumps(payload).encode(), left or self.timeout, self.timeout, self.patience)
        if not isinstance(outcome, Answered | Raised):
            self.end()
        return outcome

    def end(self) -> None:
        if self._current is not None:
            self._current.end()
            self._current = None


class _Environment:
    def __init__(self, function: Function) -> None:
        self._invocations: SimpleQueue[Invocation | None] = SimpleQueue()
        self._happened: SimpleQueue[Ready | Answered | Raised | InitFailed | int] = SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._invocations, self._happened))
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        places = (BOOTSTRAP, function.folder, function.runtime.client)
        command = [str(function.runtime.python), "-I", "-S", "-B", *map(str, places)]
        name = function.handler.split(".")[-2]
        told = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/detent/test",
            "AWS_LAMBDA_LOG_STREAM_NAME": str(uuid4()),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "LAMBDA_TASK_ROOT": str(function.folder),
            "_HANDLER": function.handler,
            "TZ": ":UTC",
            **function.environment,
        }
        with function.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, function.handler],
                cwd=function.folder,
                env=told,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        Thread(target=self._watch, daemon=True).start()

    def invoke(self, body: bytes, left: float, timeout: float, patience: float) -> Outcome:
        match self._next(INIT_PATIENCE):
            case Ready():
                pass
            case InitFailed() as failed:
                return failed
            case other:
                return InitFailed({"errorType": "Runtime.ExitError", "errorMessage": f"{other}"})
        self._invocations.put(Invocation(str(uuid4()), body, int((time.time() + left) * 1000)))
        match self._next(min(timeout, patience)):
            case Answered() | Raised() as answer:
                return answer
            case int(status):
                return Crashed(status)
            case None:
                assert timeout <= patience, "the invocation never ends"
                return TimedOut()
            case other:
                raise AssertionError(f"the runtime client asked for another invocation before it answered: {other}")

    def end(self) -> None:
        """As Lambda does it at a timeout."""
        self._process.kill()
        self._process.wait()
        self._invocations.put(None)
        self._server.shutdown()
        self._server.server_close()

    def _next(self, seconds: float) -> Ready | Answered | Raised | InitFailed | int | None:
        with suppress(Empty):
            return self._happened.get(timeout=seconds)
        return None

    def _watch(self) -> None:
        self._happened.put(self._process.wait())


def _handler(
    invocations: SimpleQueue[Invocation | None], happened: SimpleQueue[Ready | Answered | Raised | InitFailed | int]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            assert self.path == f"{PREFIX}invocation/next", self.path
            happened.put(Ready())
            invocation = invocations.get()
            if invocation is None:
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(invocation.body)))
            self.send_header("Lambda-Runtime-Aws-Request-Id", invocation.id)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(invocation.deadline))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
            self.end_headers()
            self.wfile.write(invocation.body)

        def do_POST(self) -> None:
            value = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
            match self.path.removeprefix(PREFIX).split("/"):
                case ["invocation", _, "response"]:
                    happened.put(Answered(value))
                case ["invocation", _, "error"]:
                    happened.put(Raised(value))
                case ["init", "error"]:
                    happened.put(InitFailed(value))
                case other:
                    raise AssertionError(other)

        def handle(self) -> None:
            with suppress(OSError):  # the process was killed while it was asking
                super().handle()

        def log_message(self, format: str, *args: object) -> None: ...

    return Handler
