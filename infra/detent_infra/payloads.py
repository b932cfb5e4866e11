"""Claim check: small JSON rides on the record, large JSON is stored as a blob and referred to."""

from __future__ import annotations

from detent_state_machine.errors import CorruptRecord
from detent_state_machine.records import Payload

from detent_infra.ports import Blobs

INLINE_LIMIT = 8 * 1024
"""Bytes. Above about 8 KB a blob is cheaper than an item written once (S3 put and get: $5.40 per million)."""


async def store(blobs: Blobs, text: str) -> Payload:
    """Raises `PayloadTooLarge` beyond the blob store's limit."""
    if len(text) <= INLINE_LIMIT // 4:
        return Payload(text)
    data = text.encode()
    if len(data) <= INLINE_LIMIT:
        return Payload(text)
    return Payload(ref=await blobs.put(data))


async def load(blobs: Blobs, payload: Payload) -> str:
    """Raises `CorruptRecord` if the blob is gone or is not what was stored."""
    if payload.ref is not None:
        try:
            return (await blobs.get(payload.ref)).decode()
        except UnicodeDecodeError as error:
            raise CorruptRecord(f"The payload {payload.ref} is not text.") from error
    return payload.text or "null"
