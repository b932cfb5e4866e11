"""What the blob port promises: the same bytes under their hash, or an error."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from detent_infra.ports import Backend
from detent_state_machine.errors import CorruptRecord, PayloadTooLarge

LIMIT = 64 * 1024 * 1024


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\x00\xff" * 500, b"x" * 300_000, bytes(3_000_000)], ids=lambda data: f"{len(data)} bytes"
)
def test_bytes_come_back_under_their_hash(backend: Backend, data: bytes) -> None:
    async def scenario() -> None:
        ref = await backend.blobs.put(data)
        assert ref == sha256(data).hexdigest()
        assert await backend.blobs.get(ref) == data

    asyncio.run(scenario())


def test_the_same_bytes_have_the_same_reference_and_may_be_put_again(backend: Backend) -> None:
    async def scenario() -> None:
        refs = await asyncio.gather(*(backend.blobs.put(b"the same") for _ in range(5)))
        assert len(set(refs)) == 1
        assert await backend.blobs.get(refs[0]) == b"the same"
        assert await backend.blobs.put(b"other") != refs[0]

    asyncio.run(scenario())


def test_a_reference_to_nothing_is_an_error(backend: Backend) -> None:
    for ref in (sha256(b"never stored").hexdigest(), "", "../run", "é"):
        with pytest.raises(CorruptRecord):
            asyncio.run(backend.blobs.get(ref))


def test_a_payload_over_the_limit_is_refused(backend: Backend) -> None:
    with pytest.raises(PayloadTooLarge):
        asyncio.run(backend.blobs.put(bytes(LIMIT + 1)))


@pytest.mark.parametrize("adapter", ["memory", "sqlite"])
def test_a_payload_at_the_limit_is_stored(backend: Backend) -> None:
    data = bytes(LIMIT)

    async def scenario() -> None:
        assert await backend.blobs.get(await backend.blobs.put(data)) == data

    asyncio.run(scenario())
