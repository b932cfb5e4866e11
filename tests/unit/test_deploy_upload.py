"""What `detent deploy` uploads survives a line that stands still for a while."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from detent_infra.aws.resources import Clients
from detent_infra.ops.deployer import Deployer

STILL = 3.0
"""Seconds: longer than a worker waits for a connection, which is urllib3's limit of a send, too."""
CODE = 8_000_000
"""Bytes: more than the sockets of both sides hold, and less than is sent in parts."""
ACCOUNT = """<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"""


class Line(BaseHTTPRequestHandler):
    """Knows the account, has no object, and takes one after standing still."""

    protocol_version = "HTTP/1.1"
    puts: list[int]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, ACCOUNT.encode())

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_PUT(self) -> None:
        self.puts.append(0)
        time.sleep(STILL)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.puts[-1] = len(body)
        self._answer(200)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    Line.puts = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Line)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_upload_goes_on_after_the_line_stood_still(line: str, tmp_path: Path) -> None:
    code = tmp_path / "code.zip"
    code.write_bytes(b"x" * CODE)
    with closing(Clients("us-east-1", line)) as clients:
        assert Deployer(clients, time.sleep).upload(code, "shop", "code.zip")
    assert Line.puts == [CODE]
