"""The functions' settings, from their environment. The only place that reads it: once, but for the trace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from detent_state_machine.errors import ConfigurationError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """The stack's resources, and the application it serves."""

    app: str
    """`package.module:attribute` of the application."""
    table: str
    queue_url: str
    dead_letter_queue_url: str
    bucket: str
    log_group: str
    stack: str
    region: str
    log_level: str = "INFO"

    @property
    def url(self) -> str:
        """The backend's URL, as clients write it."""
        return f"aws://{self.stack}?region={self.region}"


def from_environment(environment: Mapping[str, str]) -> FunctionSettings:
    """The settings in these variables. Raises `ConfigurationError` that names every one that is missing."""
    names = ("APP", "TABLE", "QUEUE_URL", "DEAD_LETTER_QUEUE_URL", "BUCKET", "LOG_GROUP", "STACK")
    values = {name.lower(): environment.get(f"DETENT_{name}", "") for name in names}
    values["region"] = environment.get("AWS_REGION", "") or environment.get("AWS_DEFAULT_REGION", "")
    unset = [
        "AWS_REGION" if name == "region" else f"DETENT_{name.upper()}" for name, value in values.items() if not value
    ]
    if unset:
        raise ConfigurationError(
            f"The function's environment lacks {', '.join(unset)}.",
            advice="template.yaml sets them; deploy the stack with it, or set them yourself.",
        )
    level = environment.get("DETENT_LOG_LEVEL", "INFO").upper()
    if level not in LEVELS:
        raise ConfigurationError(f"DETENT_LOG_LEVEL is {level!r}.", advice=f"Use one of {', '.join(LEVELS)}.")
    return FunctionSettings(**values, log_level=level)


def trace_id() -> str:
    """The id of the invocation's trace, as X-Ray writes it: `1-5759e988-bd862e3fe1be46a994272793`; empty without one.

    Lambda sets the variable anew for each invocation: `Root=1-…;Parent=…;Sampled=0`.
    """
    parts = os.environ.get("_X_AMZN_TRACE_ID", "").split(";")
    return next((part.removeprefix("Root=")[:40] for part in parts if part.startswith("Root=")), "")


@cache
def settings() -> FunctionSettings:
    """This process's settings."""
    return from_environment(os.environ)
