"""`template.yaml` deployed on ministack, where functions are processes of this machine.

What is changed for it: numbers stand where the template refers to parameters, because ministack compares them as
texts; the code is not packaged but found in this checkout, so that a new process is up in a moment; and the queue's
visibility timeout is a few seconds, because nobody waits 16 minutes for the message of a worker that was killed.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.sam_template import template
from tests.support.server import Server
from tests.support.service_stack import REGION, session
from tests.support.waiting import until


@dataclass(frozen=True)
class Deployed:
    """`outputs` are the stack's. `url` is the backend's."""

    name: str
    server: Server
    outputs: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"aws://{self.name}?region={REGION}&endpoint={self.server.endpoint}"

    def invoke(self, function: str, payload: object) -> object:
        """The function's answer. Raises `RuntimeError` with the error if it failed."""
        client = session().client("lambda", endpoint_url=self.server.endpoint)
        answer = client.invoke(FunctionName=function, Payload=json.dumps(payload).encode())
        said = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise RuntimeError(said)
        return said

    def function_processes(self, function: str = "Worker") -> list[int]:
        """The processes that stand for the function's execution environments, by id."""
        return function_processes(self.server.pid, f"{self.name}-{function}-")


def function_processes(server: int | None, name: str) -> list[int]:
    """The processes of the server with this id that stand for functions whose name begins so."""
    found: list[int] = []
    for child in children(server):
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if any(variable.startswith(f"AWS_LAMBDA_FUNCTION_NAME={name}".encode()) for variable in environment):
            found.append(child)
    return found


def deploy(
    server: Server,
    name: str,
    *,
    app: str,
    concurrency: int,
    visibility: int,
    environment: Mapping[str, str],
    max_receives: int = 10,
    parameters: Mapping[str, str] | None = None,
) -> Deployed:
    """Deploys the template as a new stack that serves the app, found on this process's own path.

    `visibility` is the step queue's, in seconds; after `max_receives` deliveries its messages are dead letters.
    `environment` is added to that of every function. `parameters` are further ones of the template, which are text.
    """
    s3 = session().client("s3", endpoint_url=server.endpoint)
    s3.create_bucket(Bucket=f"{name}-code")
    s3.put_object(Bucket=f"{name}-code", Key="code.zip", Body=_some_zip())
    body = _with_numbers(template(), {"WorkerTimeout": 60, "MaximumConcurrency": concurrency})
    shared = body["Globals"]["Function"]
    shared["Environment"]["Variables"] |= {"PYTHONPATH": _path(), **environment}
    for resource in body["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = {"Bucket": f"{name}-code", "Key": "code.zip"}
    queue = body["Resources"]["Queue"]["Properties"]
    queue["VisibilityTimeout"] = visibility
    queue["RedrivePolicy"]["maxReceiveCount"] = max_receives
    client = session().client("cloudformation", endpoint_url=server.endpoint)
    client.create_stack(
        StackName=name,
        TemplateBody=json.dumps(body),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in {"App": app, **(parameters or {})}.items()
        ],
    )

    def made() -> Any:
        found = client.describe_stacks(StackName=name)["Stacks"][0]
        return None if found["StackStatus"] == "CREATE_IN_PROGRESS" else found

    stack = until(made)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    return Deployed(name, server, {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]})


def children(pid: int | None) -> list[int]:
    """The processes that this one has started and that live, whichever of its threads did it."""
    if pid is None:
        raise ValueError("The server was started by somebody else: its processes are not ours to look at.")
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            found += map(int, (thread / "children").read_text().split())
    return found


def _with_numbers(body: Mapping[str, Any], given: Mapping[str, object]) -> dict[str, Any]:
    """A copy with the value of each numeric parameter in place of the references to it."""
    numbers = {
        name: given.get(name, parameter["Default"])
        for name, parameter in body["Parameters"].items()
        if parameter["Type"] == "Number"
    }

    def resolved(part: Any) -> Any:
        match part:
            case {"Ref": name} if name in numbers:
                return numbers[name]
            case dict():
                return {key: resolved(value) for key, value in part.items()}
            case list():
                return [resolved(value) for value in part]
            case _:
                return part

    copy: dict[str, Any] = resolved(body)
    return copy


def _path() -> str:
    """Where this process finds detent, what it depends on and the app, without the standard library."""
    stdlib = Path(os.__file__).parent
    kept = [
        part for part in sys.path if part and Path(part).is_dir() and Path(part) not in (stdlib, stdlib / "lib-dynload")
    ]
    return os.pathsep.join([str(Path(__file__).parents[2]), *kept])


def _some_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("README", "The code is found by PYTHONPATH.")
    return file.getvalue()
