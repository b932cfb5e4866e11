"""A LocalStack-compatible server over the wire: the one that AWS_ENDPOINT_URL names, or a ministack on loopback.

LOCALSTACK_ENDPOINT is an older name of the same variable. AWS_ENDPOINT_URL is what boto3, SAM and the AWS CLI read too.

ministack pins its own boto3, so it lives in a virtual environment of its own, which `make ministack` makes.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAM = Path(__file__).parents[2] / ".venv-ministack/bin/ministack"
PATIENCE = 30.0
"""Seconds after which a server that somebody else has started will not answer."""
START = 120.0
"""Seconds after which one of our own will not, however busy the machine is."""


class NoServer(Exception):
    """There is no server to test against. Says why, and what to do."""


@dataclass(frozen=True)
class Server:
    """`pid` is None for a server that somebody else has started."""

    endpoint: str
    pid: int | None = None


def given_endpoint() -> str | None:
    """The server that the environment names. Raises `NoServer` if it does not answer."""
    given = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("LOCALSTACK_ENDPOINT")
    if given is None:
        return None
    _until_healthy(given, None)
    return given.rstrip("/")


@contextmanager
def server() -> Iterator[Server]:
    """The server that the environment names, else a ministack of our own. Raises `NoServer`."""
    if given := given_endpoint():
        yield Server(given)
        return
    with (
        TemporaryDirectory(prefix="detent-ministack-", ignore_cleanup_errors=True) as folder,
        ministack(Path(folder)) as ours,
    ):
        yield ours


@contextmanager
def ministack(folder: Path, *, authorise: bool = False) -> Iterator[Server]:
    """A ministack that keeps all it has in the folder, with its log there. It and its functions end with the block.

    With `authorise` it checks signatures, and lets functions do what their roles allow and nothing else.
    """
    if not PROGRAM.exists():
        raise NoServer(f"{PROGRAM} is missing: `make ministack` installs it, or set AWS_ENDPOINT_URL.")
    endpoint = f"http://127.0.0.1:{free_port()}"
    for name in ("s3", "state"):
        (folder / name).mkdir()
    environment = {
        "BIND_HOST": "127.0.0.1",  # it listens on every address otherwise
        "GATEWAY_PORT": endpoint.rpartition(":")[2],
        "S3_DATA_DIR": str(folder / "s3"),
        "STATE_DIR": str(folder / "state"),
        "TMPDIR": str(folder),
        "LAMBDA_EXECUTOR": "local",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "MINISTACK_HOST": "127.0.0.1",
        "AUTH": str(authorise).lower(),
    }
    with started([PROGRAM], endpoint, folder / "ministack.log", environment) as pid:
        yield Server(endpoint, pid)


@contextmanager
def started(command: Sequence[str | Path], endpoint: str, log: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """The id of a process that answers at the endpoint, and works where its log is. It ends with the block.

    Of our own environment it has nothing that is for AWS, Python or detent.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON", "DETENT_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _until_healthy(endpoint, process, log)
        yield process.pid
    finally:
        _end(process)


def free_port() -> int:
    """A port of loopback that nobody has, and that no connection gets before the server has it.

    Connections get theirs from 32768 up on Linux, and from 49152 on macOS. Another caller of this function may choose
    the same: one in thousands, if it does so in the same second.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NoServer("Of a hundred ports of 127.0.0.1 none was free.")


def _until_healthy(endpoint: str, process: subprocess.Popen[bytes] | None, log: Path | None = None) -> None:
    until = time.monotonic() + (PATIENCE if process is None else START)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with direct.open(f"{endpoint}/_localstack/health", timeout=30):
                return
        except OSError as error:
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > until:
                said = log.read_text(errors="replace")[-2000:] if log else ""
                raise NoServer(f"The server at {endpoint} does not answer: {error}.\n{said}") from error
            time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: it keeps nothing. It has a session of its own, so what it has started is in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":  # python -m tests.support.server: one to keep, for AWS_ENDPOINT_URL
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with suppress(KeyboardInterrupt), server() as running:
        print(running.endpoint, flush=True)
        signal.pause()
