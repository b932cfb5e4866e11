"""Runs something in a forked child, and brings its result back."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable

SECONDS = 60
"""After which a child that hangs is ended, and its test fails."""


def begin_child(work: Callable[[], object]) -> tuple[int, int]:
    """Starts a child at the work; `result_of` waits for it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        try:
            said: object = {"result": work()}
        except BaseException:  # noqa: BLE001 - told by the parent
            said = {"error": traceback.format_exc()}
        os.write(writing, json.dumps(said).encode())
    finally:
        os._exit(0)  # it is not to go on with the tests, whatever happens


def result_of(begun: tuple[int, int]) -> object:
    child, reading = begun
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}: it hung for {SECONDS} s, or was killed"
    said = json.loads(text)
    assert "error" not in said, said["error"]
    return said["result"]


def in_child(work: Callable[[], object]) -> object:
    """The work's result (a JSON value), from a forked child."""
    return result_of(begin_child(work))
