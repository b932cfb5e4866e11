"""HTTP as a Lambda function URL uses it (payload format 2.0), and the shape of a request to start a run."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, TypedDict, cast
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from detent_functions.problems import RequestRefused

MAX_BODY = 1024 * 1024
"""Bytes of a request's body. Larger inputs are started with the `Client`, which stores them itself."""
MAX_REPLY = 5 * 1024 * 1024
"""Bytes of a reply's body. Lambda itself stops at 6 MB, with an error that says little."""


class Http(TypedDict):
    method: str


class RequestContext(TypedDict):
    http: Http


class UrlEvent(TypedDict, total=False):
    """The members of a function URL's event that we read."""

    requestContext: RequestContext
    rawPath: str
    body: str | None
    isBase64Encoded: bool


class UrlReply(TypedDict):
    statusCode: int
    headers: dict[str, str]
    body: str


class StartRequest(BaseModel):
    """The body of a start. `key` makes it idempotent: the same key and input always name the same run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: JsonValue = None
    key: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict[str, str])

    @property
    def input_json(self) -> str:
        try:
            return json.dumps(self.input, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except ValueError as error:
            raise RequestRefused(
                HTTPStatus.BAD_REQUEST, "The input has NaN or an infinity, which JSON has not."
            ) from error


class DirectStart(StartRequest):
    """The same, for an invocation without HTTP: the payload names the workflow."""

    workflow: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    segments: tuple[str, ...]
    """Of the path, decoded: a workflow's name may hold any character."""
    body: bytes

    @property
    def starts(self) -> bool:
        """Whether it starts a run when it succeeds."""
        return self.method == "POST" and self.segments[0] == "workflows"


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` is JSON text."""

    status: HTTPStatus
    body: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_event(self) -> UrlReply:
        kind = "application/json" if self.status < HTTPStatus.BAD_REQUEST else "application/problem+json"
        headers = {"content-type": kind, "cache-control": "no-store", **self.headers}
        return {"statusCode": self.status.value, "headers": headers, "body": self.body}


def read_request(event: UrlEvent) -> HttpRequest:
    """Raises `RequestRefused` if it is not a request, or its body is too large or wrongly encoded."""
    match cast("object", event):
        case {"requestContext": {"http": {"method": str(method)}}, "rawPath": str(path)}:
            text = event.get("body") or ""
        case _:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "The event is not an HTTP request of a function URL.")
    if not isinstance(text, str):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "The body is not text.")
    if len(text) > MAX_BODY * 4 // 3 + 4:
        raise _too_large()
    try:
        body = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "The body cannot be decoded.") from error
    if len(body) > MAX_BODY:
        raise _too_large()
    return HttpRequest(method, tuple(unquote(segment) for segment in path.strip("/").split("/")), body)


def read_start(body: bytes) -> StartRequest:
    """Raises `RequestRefused` that says which member does not fit."""
    try:
        return StartRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise _unfit(error) from error


def read_direct(payload: object) -> DirectStart:
    """Raises `RequestRefused` that says which member does not fit."""
    try:
        return DirectStart.model_validate(payload)
    except ValidationError as error:
        raise _unfit(error) from error


def _too_large() -> RequestRefused:
    return RequestRefused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {MAX_BODY:,} bytes. Start this run with detent's Client, or put the data elsewhere.",
    )


def _unfit(error: ValidationError) -> RequestRefused:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return RequestRefused(
        HTTPStatus.BAD_REQUEST, f"The request does not fit{f' at {where}' if where else ''}: {first['msg']}."
    )
