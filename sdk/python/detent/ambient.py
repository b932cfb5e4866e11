"""Which backend a call means: decided here, and nowhere else.

In the body of a step, in its tasks, threads and forked children, it is the backend that the body runs on: a worker's
`--url`, the stack of a Lambda function, a test's Harness. Elsewhere it is the one of the URL.
"""

from __future__ import annotations

from collections.abc import Callable

from detent_infra.connect import connect
from detent_infra.executor import running
from detent_infra.ports import Backend
from detent_state_machine.errors import ConfigurationError

from detent.settings import DEFAULT_URL, settings


def backend_for(url: str | None, own: Callable[[], Backend]) -> Backend:
    """The backend that code means here with this URL (None: it names none); `own` opens the URL's.

    Raises `ConfigurationError` if a body under a Harness means another backend than the test's.
    """
    attempt = running.get()
    control = None if attempt is None else attempt.control
    if control is None or control.backend is None:
        return own()
    if url is None or url in (control.home, control.backend.url):
        return control.backend
    if control.in_test:
        raise ConfigurationError(
            f"A body under a Harness would use {url}, which is not the test's backend.",
            advice="Leave the URL out, or replace that call in the test: what it starts would outlive the test.",
        )
    return own()


def open_url(url: str) -> Backend:
    """The backend of the URL. Raises `ConfigurationError`, also where the default would be a file that is soon gone."""
    if url == DEFAULT_URL and settings().in_lambda:
        raise ConfigurationError(
            "DETENT_URL is not set in this Lambda function, and the default is a file, which would go with it.",
            advice="Set DETENT_URL to `aws://<stack>?region=…`. In the body of a step nothing needs to be set.",
        )
    return connect(url)
