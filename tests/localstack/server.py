"""LocalStack without docker, on loopback: in the virtual environment that `make localstack` makes, with our plugins."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.server import NoServer, free_port, started

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-localstack/bin/python"
VERSION = "3.13"
"""Of that Python, which functions run with too."""
PLUGINS = """\
[localstack.aws.provider]
dynamodb:moto = tests.localstack.plugin:dynamodb
[localstack.lambda.runtime_executor]
processes = tests.localstack.plugin:ProcessesPlugin
"""
SETTINGS = {
    "PROVIDER_OVERRIDE_DYNAMODB": "moto",
    "LAMBDA_RUNTIME_EXECUTOR": "processes",
    "GATEWAY_SERVER": "hypercorn",  # the usual one listens on every address, whatever it is told
    "DNS_ADDRESS": "0",  # no name server
    "SKIP_SSL_CERT_DOWNLOAD": "1",
    "DISABLE_EVENTS": "1",  # it tells its makers how it is used
    "LS_LOG": "info",
    # An event source takes one batch after the other, and then sleeps for up to ten seconds if there is nothing.
    "LAMBDA_EVENT_SOURCE_MAPPING_POLL_INTERVAL_SEC": "0.1",
    "LAMBDA_EVENT_SOURCE_MAPPING_MAX_BACKOFF_ON_EMPTY_POLL_SEC": "1",
}


@contextmanager
def localstack(folder: Path) -> Iterator[str]:
    """The endpoint of a LocalStack that keeps all it has in the folder, with its log there.

    It and its functions end with the block.
    """
    if not PYTHON.exists():
        raise NoServer(f"{PYTHON} is missing: `make localstack` installs it.")
    endpoint = f"http://127.0.0.1:{free_port()}"
    announced = folder / "plugins/detent_tests-0.dist-info"
    announced.mkdir(parents=True)
    (announced / "METADATA").write_text("Metadata-Version: 2.1\nName: detent-tests\nVersion: 0\n")
    (announced / "entry_points.txt").write_text(PLUGINS)
    environment = {
        **SETTINGS,
        "PYTHONPATH": f"{ROOT}:{folder / 'plugins'}",
        "GATEWAY_LISTEN": endpoint.rpartition("/")[2],
        "FILESYSTEM_ROOT": str(folder / "files"),
        "TMPDIR": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    with started([PYTHON, "-m", "localstack.runtime.main"], endpoint, folder / "localstack.log", environment):
        yield endpoint


if __name__ == "__main__":  # python -m tests.localstack.server: one to keep, for AWS_ENDPOINT_URL
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with (
        TemporaryDirectory(prefix="detent-localstack-", ignore_cleanup_errors=True) as folder,
        suppress(KeyboardInterrupt),
        localstack(Path(folder)) as endpoint,
    ):
        print(endpoint, flush=True)
        signal.pause()
