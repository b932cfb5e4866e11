"""The SDK's settings, read from the environment once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

DEFAULT_URL = "sqlite:///.detent/detent.db"


@dataclass(frozen=True, slots=True)
class Settings:
    """`url`: where workflows live (DETENT_URL). `app`: which app the command line serves (DETENT_APP).

    `log_level`: from which level on workers write lines of their own into the logs of runs (DETENT_LOG_LEVEL).
    `in_lambda`: whether this is a Lambda function, whose files go with it (Lambda sets AWS_LAMBDA_FUNCTION_NAME).
    """

    url: str
    app: str | None
    log_level: str
    in_lambda: bool


@cache
def settings() -> Settings:
    return Settings(
        url=os.environ.get("DETENT_URL", DEFAULT_URL),
        app=os.environ.get("DETENT_APP"),
        log_level=os.environ.get("DETENT_LOG_LEVEL", "INFO"),
        in_lambda="AWS_LAMBDA_FUNCTION_NAME" in os.environ,
    )
