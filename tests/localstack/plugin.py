"""What LocalStack needs docker or Java for, done without: functions in processes of this machine, DynamoDB by moto.

LocalStack loads this into its own process, by its own Python, through the entry points that `server.py` names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import mkdtemp
from threading import RLock
from typing import Any

from localstack.aws.api.dynamodb import DynamodbApi
from localstack.services.lambda_.invocation.lambda_models import FunctionVersion, InvocationResult
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin
from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor
from localstack.services.moto import MotoFallbackDispatcher
from localstack.services.plugins import Service, aws_provider
from moto.dynamodb.responses import DynamoHandler

from tests.support.runtime_api import Answered, Function, Raised, Runtime

CLIENT = Path(sys.prefix, "runtime")
"""Where `make localstack` puts AWS's runtime client."""


@aws_provider(api="dynamodb", name="moto")  # type: ignore[untyped-decorator]
def dynamodb() -> Service:
    """moto's, which has no lock of its own: two writers of one condition could both win."""
    lock, call = RLock(), DynamoHandler.call_action

    def one_at_a_time(self: DynamoHandler) -> Any:
        with lock:
            return call(self)

    DynamoHandler.call_action = one_at_a_time  # type: ignore[method-assign]
    return Service.for_provider(DynamodbApi(), dispatch_table_factory=MotoFallbackDispatcher)


class ProcessesPlugin(RuntimeExecutorPlugin):  # type: ignore[misc]
    name = "processes"

    def load(self, *_: object, **__: object) -> type[RuntimeExecutor]:
        return Processes


class Processes(RuntimeExecutor):  # type: ignore[misc]
    """One environment of a function: AWS's runtime client, with this Python, over the function's unpacked folder."""

    def __init__(self, id: str, function_version: FunctionVersion) -> None:
        super().__init__(id, function_version)
        self._log = Path(mkdtemp(prefix="function-"), f"{function_version.id.function_name}.log")
        self._read = 0
        self._function: Function | None = None

    def start(self, env_vars: dict[str, str]) -> None:
        config = self.function_version.config
        told = {name: str(value) for name, value in env_vars.items() if name != "LAMBDA_TASK_ROOT"}  # a container's
        self._function = Function(
            folder=config.code.get_unzipped_code_location(),
            handler=config.handler,
            runtime=Runtime(Path(sys.base_prefix, "bin/python3"), CLIENT),
            environment=told,
            log=self._log,
            timeout=config.timeout,
            patience=config.timeout,
        )

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        assert self._function is not None
        match self._function.invoke(json.loads(payload["payload"])):
            case Answered(value):
                body, failed = value, False
            case Raised(error):
                body, failed = error, True
            case other:  # it crashed, timed out or never began; the next invocation starts another process
                body, failed = {"errorType": type(other).__name__, "errorMessage": str(other)}, True
        return InvocationResult(payload["invoke-id"], json.dumps(body).encode(), failed, self._new_lines())

    def stop(self) -> None:
        if self._function is not None:
            self._function.end()

    def get_logs(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def _new_lines(self) -> str:
        log = self.get_logs()
        new, self._read = log[self._read :], len(log)
        return new

    def get_address(self) -> str:
        return "127.0.0.1"

    def get_endpoint_from_executor(self) -> str:
        return "127.0.0.1"

    def get_runtime_endpoint(self) -> str:
        return ""  # for the program that LocalStack starts in a container

    @classmethod
    def prepare_version(cls, function_version: FunctionVersion) -> None:
        function_version.config.code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version: FunctionVersion) -> None:
        """Leaves the folder: versions share it, and LocalStack deletes it with the code."""
