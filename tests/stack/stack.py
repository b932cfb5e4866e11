"""The deployed stack, as the suite sees it: by detent's client and command line, by HTTP, and by AWS's own calls."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from detent import Client, portal
from detent_infra.ports import Backend
from detent_state_machine.records import StepRecord

from tests.stack.ledger import Ledger, table_name
from tests.stack.places import Place
from tests.stack.sam import Project
from tests.support.deployed import function_processes
from tests.support.waiting import until

_T = TypeVar("_T")

PATIENCE = 120.0
"""Seconds within which a run ends that nothing holds up, on a machine that does much else. A quiet one takes 2."""


def until_on_stack(check: Callable[[], _T | None], patience: float = PATIENCE, *, every: float = 0.25) -> _T:
    """`until` with more patience than elsewhere, and fewer checks: each one costs."""
    return until(check, patience, every=every)


@dataclass(frozen=True)
class Stack:
    """`parameters` and `outputs` are the stack's, `resources` its resources: physical names by logical ones."""

    place: Place
    project: Project
    name: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    resources: Mapping[str, str]

    @property
    def url(self) -> str:
        endpoint = "" if self.place.endpoint is None else f"&endpoint={self.place.endpoint}"
        return f"aws://{self.name}?region={self.place.region}{endpoint}"

    @cached_property
    def client(self) -> Client:
        return Client(self.url)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(table_name(self.name), self.place.client("dynamodb"))

    @property
    def backend(self) -> Backend:
        return self.client.lifecycle.backend

    def step(self, run_id: str, path: str) -> StepRecord | None:
        steps = portal.run(self.client.lifecycle.steps(run_id))
        return next((step for step in steps if step.path == path), None)

    def cli(self, *arguments: str, code: int = 0) -> str:
        """What `detent …` printed, in a process of its own that knows nothing but the stack's URL."""
        done = subprocess.run(
            [sys.executable, "-m", "detent.cli", *arguments],
            cwd=self.project.folder,
            env={**self.place.environment, "DETENT_URL": self.url, "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, f"detent {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run(self, workflow: str, value: object, *options: str) -> str:
        """The id of a run that the command line has started by name, once a tick has made the workflow known."""
        until_on_stack(lambda: workflow in self.cli("graph", "--list"), every=1.0)
        return self.cli("run", workflow, json.dumps(value), *options).strip()

    def invoke(self, payload: object, function: str = "Start") -> Any:
        """The function's answer to a direct invocation."""
        answer = self.place.client("lambda").invoke(
            FunctionName=self.resources[function], Payload=json.dumps(payload).encode()
        )
        said = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, said
        return said

    def request(self, method: str, path: str, body: object = None, *, signed: bool = True) -> tuple[int, Any]:
        """Status and body of what the API answers. A stand-in has no host of the API's name: it goes by the header."""
        api = urlsplit(self.outputs["ApiUrl"])
        text = "" if body is None else json.dumps(body)
        request = AWSRequest(method, f"https://{api.netloc}{path}", data=text, headers={"Host": api.netloc})
        if signed:
            credentials = boto3.Session().get_credentials()
            assert credentials is not None
            SigV4Auth(credentials, "lambda", self.place.region).add_auth(request)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(api.netloc, timeout=PATIENCE)
        if self.place.endpoint is not None:
            connection = http.client.HTTPConnection(urlsplit(self.place.endpoint).netloc, timeout=PATIENCE)
        connection.request(method, path, text, dict(request.headers.items()))
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        return answer.status, json.loads(said) if said else None

    def kill(self, pids: set[int]) -> None:
        """Kills these worker processes where they stand. Only a ministack of our own has any."""
        assert self.place.pid is not None
        workers = set(function_processes(self.place.pid, self.resources["Worker"]))
        assert pids <= workers, f"{pids} are not all workers, which are {workers}"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def event_source(self, function: str) -> str:
        """Id of the event source mapping that invokes the function."""
        return self.resources[f"{function}Messages"]
