"""Errors as problem details (RFC 9457): a status, what happened and what to do. Never a trace."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TypedDict

from detent_state_machine.errors import (
    DetentError,
    InputError,
    KeyConflict,
    NotFound,
    PayloadTooLarge,
    RunError,
    Unavailable,
    WrongState,
)

_STATUSES: tuple[tuple[type[DetentError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (KeyConflict, HTTPStatus.CONFLICT),
    (WrongState, HTTPStatus.CONFLICT),
    (RunError, HTTPStatus.CONFLICT),
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InputError, HTTPStatus.BAD_REQUEST),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""The first class that fits counts. Any other error is a fault of the deployment, not of the request."""


class Problem(TypedDict):
    """`error` is the class name of `detent_state_machine.errors`, which clients may rely on."""

    status: int
    title: str
    error: str
    detail: str


@dataclass(frozen=True, slots=True)
class RequestRefused(Exception):
    """A request that does not get as far as the engine."""

    status: HTTPStatus
    detail: str


def problem(error: Exception) -> Problem:
    """Tells the caller what they may know of an error: of an internal fault, only that there was one."""
    if isinstance(error, RequestRefused):
        return {"status": error.status, "title": error.status.phrase, "error": "Refused", "detail": error.detail}
    if isinstance(error, DetentError):
        for kind, status in _STATUSES:
            if isinstance(error, kind):
                return {
                    "status": status,
                    "title": status.phrase,
                    "error": type(error).__name__,
                    "detail": str(error),
                }
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "The request failed inside detent. The function's log has the trace, under this request's id."
    return {"status": status, "title": status.phrase, "error": "InternalError", "detail": detail}
