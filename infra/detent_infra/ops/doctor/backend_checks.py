"""Checks of a backend: each port answers, nothing is damaged, a worker takes messages. Nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

from detent_state_machine import keys
from detent_state_machine.errors import ConfigurationError, CorruptRecord, DetentError
from detent_state_machine.messages import Start, encode
from detent_state_machine.records import Payload, RunRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.writes import DeleteItem, PutItem

from detent_infra.connect import connect, is_there, sqlite_file
from detent_infra.durations import duration
from detent_infra.ops.doctor.findings import Finding, failed
from detent_infra.ops.doctor.run_checks import check_code, check_loops
from detent_infra.ports import Backend, LogQuery
from detent_infra.sqlite import integrity

LITTLE_DISK = 1_000_000_000
"""Free bytes of the disk below which we warn."""
HEAD_START = 0.5
"""Seconds within which an idle worker takes a message."""
PROBE_WAIT = 2.0
"""Seconds within which our own message must arrive, if no worker took it."""
PROBE_KEPT = 86_400
"""Seconds after which a probe that could not be taken back expires by itself."""


async def check_backend(url: str) -> AsyncIterator[Finding]:
    """Checks the backend at the URL, and yields each finding at once."""
    file = sqlite_file(url)
    if file is not None and not is_there(file):
        yield _absent(file.absolute())
        return
    try:
        backend = connect(url)
    except DetentError as error:
        yield failed("backend", error)
        return
    try:
        if file is not None:
            for check in _file_checks(file.absolute()):
                yield check
                if check.name == "integrity" and check.verdict == "fail":
                    return  # nothing read from it can be trusted, and a write may make it worse
        async for check in _round_trips(backend):
            yield check
    finally:
        backend.close()


def _absent(file: Path) -> Finding:
    nearest = next(parent for parent in file.parents if is_there(parent))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return Finding(
            "database", "fail", f"{file} does not exist, and {nearest} is not writable.", "Choose another path."
        )
    return Finding("database", "ok", f"{file} does not exist yet; the first run or worker makes it.")


def _file_checks(file: Path) -> Iterator[Finding]:
    size = sum(part.stat().st_size for part in (file, file.with_name(file.name + "-wal")) if part.exists())
    connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    except sqlite3.Error as error:
        yield Finding("database", "fail", f"{file} cannot be read: {error}.", "Check the file and its owner.")
        return
    finally:
        connection.close()
    if mode == "wal":
        yield Finding("database", "ok", f"{file}, {_size(size)}, write-ahead log")
    else:
        yield Finding("database", "fail", f"{file} has journal mode {mode}.", "Put it on a local disk.")
    yield _integrity(file)
    free = shutil.disk_usage(file.parent).free
    if free < LITTLE_DISK:
        yield Finding("disk", "warn", f"{_size(free)} free", "Free some space: a full disk stops every run.")
    else:
        yield Finding("disk", "ok", f"{_size(free)} free")


def _integrity(file: Path) -> Finding:
    begun = time.monotonic()
    try:
        if integrity.check(file):
            return Finding("integrity", "ok", f"read through in {_since(begun)}, no damage found")
    except DetentError as error:
        return failed("integrity", error)
    return Finding(
        "integrity",
        "skip",
        f"A file of more than {_size(integrity.READ_THROUGH)} is not read through here: it takes long.",
        "SQLite's own program does it:",
        f"sqlite3 {shlex.quote(str(file))} 'PRAGMA quick_check(1)'",
    )


async def _round_trips(backend: Backend) -> AsyncIterator[Finding]:
    reached = time.monotonic()
    try:
        await backend.table.get(keys.run_key("detent doctor"))
        yield Finding("table", "ok", f"answers in {_since(reached)}")
        yield await _write(backend)
    except DetentError as error:
        yield failed("table", error)
        return
    yield await _read("blobs", backend)
    logs = await _read("logs", backend)
    yield logs
    yield await check_code(backend)
    if logs.verdict == "ok":
        yield await check_loops(backend)
    try:
        async for check in _probe_queue(backend):
            yield check
    except DetentError as error:
        yield failed("queue", error)


async def _write(backend: Backend) -> Finding:
    """Puts an entry, reads it back, and deletes it."""
    key = keys.data_key("detent doctor", backend.ids())
    begun = time.monotonic()
    await backend.table.write(PutItem(key, {"probe": 1, "expires": backend.clock() // 1000 + PROBE_KEPT}))
    try:
        stored = await backend.table.get(key)
    finally:
        await backend.table.write(DeleteItem(key))
    if stored is None or stored.get("probe") != 1:
        return Finding(
            "table write", "fail", "What was written was not read back.", "Check the table: is it another one?"
        )
    return Finding("table write", "ok", f"written, read and deleted in {_since(begun)}")


async def _read(port: Literal["blobs", "logs"], backend: Backend) -> Finding:
    """Reads something that cannot exist: a clean "not found" shows that reading works."""
    begun = time.monotonic()
    try:
        if port == "blobs":
            await backend.blobs.get("0" * 64)
        else:
            await backend.logs.read(LogQuery(runs=("detent-doctor",)), limit=1)
    except CorruptRecord:
        pass
    except ConfigurationError as error:
        return Finding(port, "warn", error.message, error.advice)
    except DetentError as error:
        return failed(port, error)
    return Finding(port, "ok", f"answer in {_since(begun)}")


async def _probe_queue(backend: Backend) -> AsyncIterator[Finding]:
    """Sends a message about an ended run, which any receiver acknowledges, and takes it back.

    Workers get a head start, so that a message which is gone shows one that works.
    """
    now = backend.clock()
    probe = RunRecord(backend.ids(), "detent doctor", "", RunStatus.CANCELLED, now, Payload("null"), ended=now)
    indexed = probe.to_item()
    # Without the attributes of the index no list shows it; with an expiry it goes even if we do not come to delete it.
    item = {name: value for name, value in indexed.items() if name not in ("ipk", "isk")}
    await backend.table.write(PutItem(keys.run_key(probe.run_id), {**item, "expires": now // 1000 + PROBE_KEPT}))
    begun = time.monotonic()
    await backend.queue.send([encode(Start(probe.run_id))])
    sent = _since(begun)
    await asyncio.sleep(HEAD_START)
    taken, others = await _take_back(backend, encode(Start(probe.run_id)))
    if taken or (not others and not backend.url.startswith("aws://")):
        # A function that starts slowly may look for the run later than this; then it has to be there.
        await backend.table.write(DeleteItem(keys.run_key(probe.run_id)))
    if taken:
        yield Finding("queue", "ok", f"sent in {sent}, received and deleted")
        yield Finding(
            "worker",
            "warn",
            "No worker took a message while we waited.",
            "Start one: `detent worker`, or `detent dev`.",
        )
    elif others:
        yield Finding("queue", "ok", f"sent in {sent}")
        yield Finding(
            "worker", "warn", "Messages are waiting, and no worker took them while we looked.", "Start one, or more."
        )
    else:
        yield Finding("queue", "ok", f"sent in {sent}")
        yield Finding("worker", "ok", "a worker took our message")


async def _take_back(backend: Backend, body: str) -> tuple[bool, bool]:
    """Whether our message came, and whether others did, which are returned at once."""
    ours = others = False
    until = time.monotonic() + PROBE_WAIT
    while time.monotonic() < until and not ours and not others:
        for message in await backend.queue.receive(10, wait=0.5, visibility=backend.timing.visibility):
            if message.body == body:
                await backend.queue.delete(message.receipt)
                ours = True
            else:
                await backend.queue.extend(message.receipt, 0)
                others = True
    return ours, others


def _since(begun: float) -> str:
    return duration(round((time.monotonic() - begun) * 1000))


def _size(count: int) -> str:
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
