"""From a URL to a backend. Each adapter is imported when its kind of URL is met, so that this module costs nothing."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from detent_state_machine.errors import ConfigurationError

from detent_infra.ports import Backend, Timing

FORMS = (
    "Use sqlite:///<relative path> or sqlite:////<absolute path>, "
    "aws://<stack>[?region=<region>&endpoint=<http address>], or memory://."
)


def connect(url: str, *, timing: Timing | None = None) -> Backend:
    """The backend at the URL, with its default `Timing` unless given.

        memory://                                 a new one at each call, gone with the process
        sqlite:///.detent/detent.db               a file, relative to the working directory
        sqlite:////var/lib/detent.db              a file with an absolute path
        aws://<stack>?region=…&endpoint=…         what a CloudFormation stack consists of, read from its outputs

    A path is taken as it stands, spaces and per cent signs included. Raises `ConfigurationError` for a URL in no
    accepted form, and for a stack that cannot be read.
    """
    scheme, separator, rest = url.partition("://")
    match scheme if separator else "":
        case "memory":
            return _memory(rest, timing)
        case "sqlite":
            return _sqlite(url, rest, timing)
        case "aws":
            return _aws(url, timing)
        case _:
            raise _refused(url, "its scheme is none of sqlite, aws and memory")


def _memory(rest: str, timing: Timing | None) -> Backend:
    if rest:
        raise _refused(f"memory://{rest}", "memory:// is the whole URL; it takes no name")
    from detent_infra.memory import memory_backend

    return memory_backend(timing=timing)


def _sqlite(url: str, rest: str, timing: Timing | None) -> Backend:
    path = rest[1:]
    if not rest.startswith("/"):
        raise _refused(url, "a path is missing its slash: there are three before a relative path, four in all else")
    if not path or path.endswith("/") or "\0" in path:
        raise _refused(url, "it names no file")
    if "?" in path:
        raise _refused(url, "sqlite takes no options")
    from detent_infra.sqlite import sqlite_backend

    return sqlite_backend(path, url=url, timing=timing)


def _aws(url: str, timing: Timing | None) -> Backend:
    stack, region, endpoint = parse_aws(url)
    from detent_infra.aws import Clients, aws_backend, resources_of_stack
    from detent_infra.clock import wall_clock
    from detent_infra.ids import new_id

    clients = Clients(region, endpoint)
    try:
        resources = resources_of_stack(stack, clients)
    finally:
        clients.close()
    return aws_backend(
        resources, url=url, region=region, endpoint=endpoint, clock=wall_clock, ids=new_id, timing=timing
    )


def parse_aws(url: str) -> tuple[str, str | None, str | None]:
    """Stack, region and endpoint of an `aws://` URL. Raises `ConfigurationError`."""
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:  # which would repeat parts of it
        raise _refused(url, "it cannot be taken apart") from None
    if "@" in parts.netloc:
        raise _refused("aws://…", "credentials do not belong in a URL; boto3 finds them (AWS_PROFILE, a role, …)")
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,127}", parts.netloc) is None:
        raise _refused(url, f"{parts.netloc!r} is not a name of a CloudFormation stack")
    if parts.path not in ("", "/") or parts.fragment:
        raise _refused(url, "nothing but options may follow the stack's name")
    given = dict(options)
    if unknown := sorted(given.keys() - {"region", "endpoint"}) or len(given) < len(options):
        raise _refused(url, f"its options are region and endpoint, each at most once (unexpected: {unknown})")
    endpoint = given.get("endpoint")
    if endpoint is not None and re.fullmatch(r"https?://[^/@\s]+/?", endpoint) is None:
        raise _refused(f"aws://{parts.netloc}", "an endpoint looks like http://localhost:4566")
    if "region" in given and re.fullmatch(r"[a-z0-9-]+", given["region"]) is None:
        raise _refused(url, "what it gives is not a name of a region")
    return parts.netloc, given.get("region"), endpoint


def sqlite_file(url: str) -> Path | None:
    """The file of a sqlite URL."""
    path = url.removeprefix("sqlite:///")
    return Path(path) if path and path != url else None


def is_there(file: Path) -> bool:
    """Whether the file exists; one that no file system would take does not."""
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def redacted(url: str) -> str:
    """The URL without what may be a secret: user and password, and unknown options."""
    if url.startswith("sqlite:///"):
        return url
    place, question, query = url.partition("?")
    place = re.sub("//.*@", "//…@", place, flags=re.DOTALL)
    options = [part if re.fullmatch("(region|endpoint)=[^@]*", part) else "…" for part in query.split("&")]
    return place + question + "&".join(options) if question else place


def _refused(url: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{redacted(url)!r} is not the URL of a backend: {why}.", advice=FORMS)
