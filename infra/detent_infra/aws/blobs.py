"""The blobs port on S3: an object per content, named by its hash."""

from __future__ import annotations

import base64
import re
from hashlib import sha256

from botocore.exceptions import ClientError
from detent_state_machine.errors import CorruptRecord, PayloadTooLarge

from detent_infra.aws.calls import Calls
from detent_infra.aws.errors import code_of
from detent_infra.aws.resources import Clients
from detent_infra.ports import MAX_BLOB

PREFIX = "blobs/"


class S3Blobs:
    """Putting the same bytes again renews the object's age, and so how long a lifecycle rule keeps it."""

    def __init__(self, clients: Clients, calls: Calls, bucket: str) -> None:
        self._clients = clients
        self._calls = calls
        self._bucket = bucket

    async def put(self, data: bytes) -> str:
        if len(data) > MAX_BLOB:
            raise PayloadTooLarge(f"A payload of {len(data):,} bytes is over the limit of {MAX_BLOB:,}.")
        digest = sha256(data)
        ref = digest.hexdigest()
        await self._calls(
            lambda: self._clients.s3.put_object(
                Bucket=self._bucket,
                Key=PREFIX + ref,
                Body=data,
                ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
            )
        )
        return ref

    async def get(self, ref: str) -> bytes:
        if re.fullmatch("[0-9a-f]{64}", ref) is None:
            raise CorruptRecord(f"{ref[:80]!r} is not a reference to a payload.")
        data = await self._calls(lambda: self._get(ref))
        if sha256(data).hexdigest() != ref:
            raise CorruptRecord(f"The payload {ref} in the bucket {self._bucket!r} is not what was stored.")
        return data

    def _get(self, ref: str) -> bytes:
        try:
            answer = self._clients.s3.get_object(Bucket=self._bucket, Key=PREFIX + ref)
        except ClientError as error:
            if code_of(error) != "NoSuchKey":
                raise
            raise CorruptRecord(
                f"The payload {ref} is missing from the bucket {self._bucket!r}.",
                advice="Does the bucket's lifecycle rule delete payloads before their runs expire?",
            ) from None
        with answer["Body"] as body:
            if answer["ContentLength"] > MAX_BLOB:
                raise CorruptRecord(f"The payload {ref} in the bucket {self._bucket!r} is larger than any stored.")
            return body.read()
