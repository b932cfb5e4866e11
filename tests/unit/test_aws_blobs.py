"""Payloads in S3 are named by their hash, and what comes back is what was stored or an error."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from hashlib import sha256
from typing import Any

import boto3
import pytest
from detent_infra.ports import MAX_BLOB, Backend
from detent_state_machine.errors import ConfigurationError, CorruptRecord, PayloadTooLarge

from tests.support.aws_stack import REGION, answering, moto_backend, recorded_calls

REF = sha256(b"hello").hexdigest()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with moto_backend() as backend:
        yield backend


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_the_reference_is_the_hash_and_the_key_holds_it(backend: Backend) -> None:
    with recorded_calls() as calls:
        assert run(backend.blobs.put(b"hello")) == REF
    assert calls[0].params["Key"] == f"blobs/{REF}"
    assert run(backend.blobs.get(REF)) == b"hello"


def test_no_bytes_are_bytes_too(backend: Backend) -> None:
    assert run(backend.blobs.get(run(backend.blobs.put(b"")))) == b""


@pytest.mark.parametrize("ref", ["", "../secrets", "a" * 63, "A" * 64, f"{REF}/x", f"{REF}\n", "../" + REF])
def test_what_is_no_reference_is_never_asked_for(backend: Backend, ref: str) -> None:
    with recorded_calls() as calls, pytest.raises(CorruptRecord):
        run(backend.blobs.get(ref))
    assert calls == []


def test_a_missing_payload_is_a_corrupt_record(backend: Backend) -> None:
    with pytest.raises(CorruptRecord, match="missing"):
        run(backend.blobs.get("0" * 64))


def test_a_payload_changed_by_someone_else_is_not_handed_out(backend: Backend) -> None:
    run(backend.blobs.put(b"hello"))
    bucket = backend.url.removeprefix("aws://").partition("?")[0]
    boto3.client("s3", region_name=REGION).put_object(Bucket=bucket, Key=f"blobs/{REF}", Body=b"hullo")
    with pytest.raises(CorruptRecord, match="not what was stored"):
        run(backend.blobs.get(REF))


def test_a_payload_over_the_limit_is_refused_before_it_is_sent(backend: Backend) -> None:
    with recorded_calls() as calls, pytest.raises(PayloadTooLarge):
        run(backend.blobs.put(bytes(MAX_BLOB + 1)))
    assert calls == []


def test_a_denied_read_says_that_the_object_may_be_missing(backend: Backend) -> None:
    with answering("s3.GetObject", (403, {})), pytest.raises(ConfigurationError) as raised:
        run(backend.blobs.get(REF))
    assert "GetObject" in str(raised.value)
