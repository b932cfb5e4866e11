"""A worker that is told to stop ends within its grace and a moment, whatever bodies and libraries left at work."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE

PROGRAM = """
import asyncio, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from detent import App

app = App("t", url="sqlite:///t.db")
flow = app.workflow("w", input=str)

async def stubborn():
    while True:
        try:
            await asyncio.sleep(3_600)
        except BaseException:
            pass

@flow.step(timeout=3_600)
async def f(how: str) -> str:
    if how == "task":
        asyncio.create_task(stubborn())
    if how == "thread":
        threading.Thread(target=time.sleep, args=(3_600,), name="of a library").start()
    if how == "pool":
        ThreadPoolExecutor(1, "of a library").submit(time.sleep, 3_600)
    print("began", flush=True)
    await (asyncio.to_thread(time.sleep, 3_600) if how == "to_thread" else stubborn())
    return how

flow.start(sys.argv[1])
app.run_worker(grace=0.1)
print("after", flush=True)
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("task", "left behind"),
        ("to_thread", "left behind: 1 threads"),
        ("thread", "of a library"),
        ("pool", "of a library"),
    ],
)
def test_a_worker_ends_and_says_what_it_leaves(tmp_path: Path, how: str, said: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    worker = subprocess.Popen(
        [sys.executable, "program.py", how], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "began\n"
        worker.send_signal(signal.SIGTERM)
        out, err = worker.communicate(timeout=PATIENCE)
    finally:
        worker.kill()
    assert out == "after\n", "what follows the worker is done"
    assert said in err
    assert worker.returncode == 0
