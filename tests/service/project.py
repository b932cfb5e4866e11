"""A project that `detent init` made, and the stack that it becomes on a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.server import Server
from tests.support.service_stack import REGION, session


@dataclass(frozen=True)
class Project:
    folder: Path
    server: Server
    stack: str

    @property
    def url(self) -> str:
        return f"aws://{self.stack}?region={REGION}&endpoint={self.server.endpoint}"

    def client(self, service: str) -> Any:
        made: Any = session()
        return made.client(service, endpoint_url=self.server.endpoint)

    def resources(self) -> dict[str, str]:
        listed = self.client("cloudformation").list_stack_resources(StackName=self.stack)["StackResourceSummaries"]
        return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in listed}


def change_sets(project: Project, stack: str) -> list[Any]:
    """Those that wait to be executed."""
    listed = project.client("cloudformation").list_change_sets(StackName=stack)["Summaries"]
    return [each for each in listed if each["ExecutionStatus"] == "AVAILABLE"]
