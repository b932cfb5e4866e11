"""What AWS answers becomes the error that says what to do, and never repeats a credential."""

from __future__ import annotations

import traceback
from contextlib import closing

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from detent_infra.aws.calls import Calls, Pool
from detent_infra.aws.errors import Contended, Throttled, translate
from detent_state_machine.errors import (
    ConfigurationError,
    DetentError,
    InputError,
    PayloadTooLarge,
    Unavailable,
)


def refusal(code: str, message: str = "", *, status: int = 400, operation: str = "UpdateItem") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        operation,
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal("ProvisionedThroughputExceededException"), Throttled),
        (refusal("ThrottlingException"), Throttled),
        (refusal("KMS.ThrottlingException"), Throttled),
        (refusal("SlowDown", status=503), Throttled),
        (refusal("OverLimit", status=403), Throttled),
        (refusal("InternalServerError", status=500), Throttled),
        (refusal("NeverHeardOfIt", status=502), Throttled),
        (refusal("NeverHeardOfIt", status=429), Throttled),
        (refusal("TransactionConflictException"), Contended),
        (refusal("AccessDeniedException"), ConfigurationError),
        (refusal("ExpiredTokenException"), ConfigurationError),
        (refusal("ResourceNotFoundException"), ConfigurationError),
        (refusal("NoSuchBucket", status=404), ConfigurationError),
        (refusal("AWS.SimpleQueueService.NonExistentQueue"), ConfigurationError),
        (refusal("PermanentRedirect", status=301), ConfigurationError),
        (refusal("NeverHeardOfIt"), ConfigurationError),
        (refusal("ValidationException", "Item size has exceeded the maximum allowed size"), PayloadTooLarge),
        (refusal("ValidationException", "Item size to update has exceeded the maximum allowed size"), PayloadTooLarge),
        (refusal("ValidationException", "The parameter cannot be converted"), ConfigurationError),
        (refusal("EntityTooLarge"), PayloadTooLarge),
        (refusal("InvalidMessageContents"), InputError),
        (EndpointConnectionError(endpoint_url="http://x", error="refused"), Unavailable),
        (ConnectTimeoutError(endpoint_url="http://x"), Unavailable),
        (ReadTimeoutError(endpoint_url="http://x"), Unavailable),
        (ResponseParserError("<html>"), Unavailable),
        (NoCredentialsError(), ConfigurationError),
        (NoRegionError(), ConfigurationError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:70],
)
def test_every_answer_of_aws_has_its_place(error: ClientError | BotoCoreError, expected: type[DetentError]) -> None:
    assert type(translate(error, "the table 'orders'")) is expected


def test_a_denial_says_who_may_not_do_what_to_what() -> None:
    said = "User: arn:aws:iam::1:role/worker is not authorized to perform: dynamodb:UpdateItem"
    text = str(translate(refusal("AccessDeniedException", said), "the table 'orders'"))
    assert "the table 'orders'" in text
    assert "role/worker" in text
    assert "detent deploy" in text


def test_a_missing_table_is_named_with_the_way_to_create_it() -> None:
    text = str(translate(refusal("ResourceNotFoundException"), "the table 'orders'"))
    assert "the table 'orders'" in text
    assert "detent deploy" in text


def test_an_unknown_refusal_names_its_code_and_operation() -> None:
    text = str(translate(refusal("NeverHeardOfIt", operation="PutItem"), "the table 'orders'"))
    assert "PutItem" in text
    assert "NeverHeardOfIt" in text


@pytest.mark.parametrize("code", ["InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"])
def test_a_refused_signature_is_told_without_the_token_that_aws_repeats(code: str) -> None:
    def call() -> None:
        raise refusal(code, "The Canonical String should have been x-amz-security-token:SECRET")

    with closing(Pool(1, "test")) as pool, pytest.raises(ConfigurationError) as raised:
        Calls(pool, "the table 'orders'").submit(call).result()
    assert "SECRET" not in "".join(traceback.format_exception(raised.value))


def test_what_was_unavailable_keeps_its_cause_for_the_log() -> None:
    def call() -> None:
        raise EndpointConnectionError(endpoint_url="http://x", error="refused")

    with closing(Pool(1, "test")) as pool, pytest.raises(Unavailable) as raised:
        Calls(pool, "the table 'orders'").submit(call).result()
    assert isinstance(raised.value.__cause__, EndpointConnectionError)
