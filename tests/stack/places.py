"""Where the suite deploys, by DETENT_TEST_STACK:

    not set       the server that AWS_ENDPOINT_URL names, else a ministack of our own, which checks what roles allow
    localstack    the LocalStack that AWS_ENDPOINT_URL names, else one of our own: as a process, if `make localstack`
                  has been made, else in a container, which pytest-localstack starts
    account       AWS: the account and region of the environment's credentials. Costs some cents.

Nobody comes to an account by accident: everywhere else, credentials and endpoint are a stand-in's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import boto3
from detent_infra.aws.resources import new_session

from tests.localstack.server import PYTHON, VERSION, localstack
from tests.support.architecture import HERE
from tests.support.server import NoServer, given_endpoint, ministack
from tests.support.service_stack import CREDENTIALS, REGION, credentials, session

VARIABLE = "DETENT_TEST_STACK"
LOCALSTACK = "4.14"
"""The release whose container is run. Later ones may ask for an account of LocalStack's own."""
SOCKET = "/var/run/docker.sock"

Kind: TypeAlias = Literal["ministack", "server", "localstack", "account"]


@dataclass(frozen=True)
class Place:
    """`endpoint` is None on AWS. `pid` is of a ministack of our own, whose functions are processes of this machine.

    What is deployed to a place that is `temporary` need not be taken away. `package` are options of `detent package`.
    """

    kind: Kind
    region: str
    endpoint: str | None
    pid: int | None = None
    temporary: bool = False
    package: str = ""

    def client(self, service: str) -> Any:
        if self.endpoint is None:
            return boto3.Session(region_name=self.region).client(service)  # type: ignore[call-overload]
        return session().client(service, endpoint_url=self.endpoint)  # type: ignore[call-overload]

    @property
    def environment(self) -> Mapping[str, str]:
        """What other programs are told, so that they work here and nowhere else."""
        if self.endpoint is None:
            return {**os.environ, "AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}  # SAM reads the second
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DETENT_"))}
        return {**kept, **CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}


@contextmanager
def chosen_place(folder: Path) -> Iterator[Place]:
    """The place to deploy to, for as long as the block. Raises `NoServer` if it is not there."""
    match os.environ.get(VARIABLE, ""):
        case "" if (given := given_endpoint()) is not None:
            with credentials():
                yield Place("server", REGION, given)
        case "":
            with credentials(), ministack(folder, authorise=True) as server:
                own = f"{sys.version_info.major}.{sys.version_info.minor}"
                yield Place("ministack", REGION, server.endpoint, server.pid, temporary=True, package=_here(own))
        case "localstack" if (given := given_endpoint()) is not None:
            with credentials():
                yield Place("localstack", REGION, given)
        case "localstack" if PYTHON.exists():
            with credentials(), localstack(folder) as endpoint:
                yield Place("localstack", REGION, endpoint, temporary=True, package=_here(VERSION))
        case "localstack":
            with credentials(), _container() as endpoint:
                yield Place("localstack", REGION, endpoint)
        case "account":
            found = new_session()
            if not found.region_name:
                raise NoServer(f"{VARIABLE}=account needs a region: set AWS_REGION, or a profile that has one.")
            if found.get_credentials() is None:
                raise NoServer(f"{VARIABLE}=account needs credentials: `aws sso login`, or set AWS_PROFILE.")
            yield Place("account", found.region_name, None)
        case other:
            raise NoServer(f"{VARIABLE} is {other!r}: use localstack or account, or do not set it.")


def _here(python: str) -> str:
    """A stand-in runs functions with a Python of this machine. What the template says is for AWS."""
    return f"--python-version {python} --architecture {HERE}"


@contextmanager
def _container() -> Iterator[str]:
    from docker import DockerClient
    from docker.errors import DockerException
    from docker.models.containers import ContainerCollection
    from pytest_localstack.session import LocalstackSession

    class Containers(ContainerCollection):  # type: ignore[misc]
        """LocalStack runs functions in containers of their own, for which it needs the daemon too."""

        def run(self, image: str, **options: Any) -> Any:
            return super().run(image, volumes={SOCKET: {"bind": SOCKET, "mode": "rw"}}, **options)

    class Docker(DockerClient):  # type: ignore[misc]
        @property
        def containers(self) -> Containers:
            return Containers(client=self)

    try:
        daemon = Docker.from_env()
        daemon.ping()
    except DockerException as error:
        raise NoServer(f"`make localstack` was not made, and there is no docker daemon either: {error}") from error
    with LocalstackSession(daemon, region_name=REGION, localstack_version=LOCALSTACK) as running:
        yield str(running.endpoint_url("cloudformation"))
