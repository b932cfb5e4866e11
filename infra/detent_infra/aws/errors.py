"""What AWS answers, translated once into detent's errors. The only module that spells AWS error codes of failures.

`Unavailable` may be tried again, `ConfigurationError` may not. A code that is in no list is a `ConfigurationError`
that names it: trying blindly again would hide it. No message quotes AWS where it may repeat a credential: an invalid
signature is explained with the whole canonical request, session token included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as EndpointError
from botocore.parsers import ResponseParserError
from detent_state_machine.errors import ConfigurationError, DetentError, InputError, PayloadTooLarge, Unavailable


class Contended(Unavailable):
    """Nothing was written, because another transaction had the item or a transaction was throttled."""


class Throttled(Unavailable):
    """AWS was asked too often, or is not itself for a moment."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    code: str
    said: str
    operation: str
    resource: str


VENDOR_ERRORS = (ClientError, BotoCoreError, ResponseParserError)
"""What boto3 raises when a call fails."""


def code_of(error: ClientError) -> str:
    """The error's code without a namespace: `AWS.SimpleQueueService.NonExistentQueue` is `NonExistentQueue`."""
    return error.response.get("Error", {}).get("Code", "").rpartition(".")[2]


def translate(error: ClientError | BotoCoreError | ResponseParserError, resource: str) -> DetentError:
    """The error as detent's callers know it. `resource` says in words what was asked, as in `the table "orders"`."""
    if not isinstance(error, ClientError):
        return _of_botocore(error, resource)
    said = error.response.get("Error", {}).get("Message", "")
    refusal = _Refusal(code_of(error), said[:500], error.operation_name, resource)
    if (known := _KNOWN.get(refusal.code)) is not None:
        return known(refusal)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return _throttled(refusal) if status >= 500 or status == 429 else _unknown(refusal)


def too_large(said: str) -> bool:
    """Whether a validation message of DynamoDB is about size."""
    return (
        re.search(r"size.*exceed|exceed.*size|exceed.*\d ?[KM]B|more than \d+ ?[KM]B", said, re.IGNORECASE) is not None
    )


def is_misconfigured(said: str) -> bool:
    """Whether a validation message of DynamoDB is about the table's keys: no other write would fare better."""
    return re.search(r"key element|does not match the schema|Missing the key", said, re.IGNORECASE) is not None


def _throttled(refusal: _Refusal) -> DetentError:
    return Throttled(f"AWS did not do {refusal.operation} on {refusal.resource}: {refusal.code}.", advice="Try again.")


def _contended(refusal: _Refusal) -> DetentError:
    return Contended(
        f"Another write had the item when {refusal.operation} came to {refusal.resource}.", advice="Try again."
    )


def _bad_credentials(refusal: _Refusal) -> DetentError:
    # Says nothing of `said` on purpose, see above.
    return ConfigurationError(
        f"AWS refused the credentials for {refusal.operation} on {refusal.resource}: {refusal.code}.",
        advice="They are expired, wrong or for another account, or the clock is off: sign in again (`aws sso login`, "
        "`aws configure`), then run `detent doctor`.",
    )


def _denied(refusal: _Refusal) -> DetentError:
    advice = "Allow the action in the role's policy (`detent deploy` of its template does), then run `detent doctor`."
    if refusal.operation == "GetObject":
        advice += " S3 also answers so for a missing object if the role lacks s3:ListBucket on the bucket."
    return ConfigurationError(
        f"AWS denied {refusal.operation} on {refusal.resource}: {refusal.said or refusal.code}.", advice=advice
    )


def _missing(refusal: _Refusal) -> DetentError:
    return ConfigurationError(
        f"{refusal.operation} did not find {refusal.resource} ({refusal.code}).",
        advice="Deploy the stack with `detent deploy`, or correct the region or the name; `detent doctor` shows what "
        "is configured.",
    )


def _other_region(refusal: _Refusal) -> DetentError:
    return ConfigurationError(
        f"{refusal.resource} is not in the region that {refusal.operation} was sent to ({refusal.code}).",
        advice="Correct `region` in the backend's URL.",
    )


def _oversized(refusal: _Refusal) -> DetentError:
    return PayloadTooLarge(
        f"{refusal.operation} on {refusal.resource} was too large: {refusal.said or refusal.code}.",
        advice="Make the value smaller, or store it elsewhere and pass its address.",
    )


def _unreadable(refusal: _Refusal) -> DetentError:
    return InputError(
        f"{refusal.operation} on {refusal.resource} held characters that AWS refuses ({refusal.code}).",
        advice="Text has to be valid Unicode without control characters.",
    )


def _invalid(refusal: _Refusal) -> DetentError:
    return _oversized(refusal) if too_large(refusal.said) else _unknown(refusal)


def _unknown(refusal: _Refusal) -> DetentError:
    return ConfigurationError(
        f"AWS refused {refusal.operation} on {refusal.resource}: {refusal.code or 'no code'}: {refusal.said}",
        advice="Run `detent doctor`; if it finds nothing wrong, this is a bug of detent.",
    )


def _each(codes: str, said: Callable[[_Refusal], DetentError]) -> dict[str, Callable[[_Refusal], DetentError]]:
    return dict.fromkeys(codes.split(), said)


_KNOWN: Mapping[str, Callable[[_Refusal], DetentError]] = {
    **_each("TransactionConflictException", _contended),
    **_each(
        "ThrottlingException Throttling ThrottledException RequestThrottled RequestThrottledException SlowDown "
        "ProvisionedThroughputExceededException RequestLimitExceeded TooManyRequestsException LimitExceededException "
        "BandwidthLimitExceeded OverLimit KmsThrottled TransactionInProgressException OperationAborted "
        "OperationAbortedException InternalServerError InternalError InternalFailure ServiceUnavailable "
        "ServiceUnavailableException RequestTimeout RequestTimeoutException PriorRequestNotComplete",
        _throttled,
    ),
    **_each(
        "ExpiredToken ExpiredTokenException InvalidToken InvalidClientTokenId InvalidAccessKeyId "
        "UnrecognizedClientException SignatureDoesNotMatch InvalidSignatureException IncompleteSignature "
        "IncompleteSignatureException MissingAuthenticationToken MissingAuthenticationTokenException AuthFailure "
        "RequestTimeTooSkewed RequestExpired TokenRefreshRequired NotSignedUp OptInRequired InvalidSecurity",
        _bad_credentials,
    ),
    **_each("AccessDenied AccessDeniedException UnauthorizedOperation AllAccessDisabled KmsAccessDenied", _denied),
    **_each(
        "ResourceNotFoundException TableNotFoundException NoSuchBucket QueueDoesNotExist NonExistentQueue "
        "QueueDeletedRecently InvalidAddress",
        _missing,
    ),
    **_each("PermanentRedirect TemporaryRedirect AuthorizationHeaderMalformed", _other_region),
    **_each(
        "EntityTooLarge BatchRequestTooLong RequestEntityTooLargeException ItemCollectionSizeLimitExceededException",
        _oversized,
    ),
    **_each("SerializationException InvalidMessageContents", _unreadable),
    **_each("ValidationException ValidationError", _invalid),
}

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
    ProfileNotFound,
)


def _of_botocore(error: BotoCoreError | ResponseParserError, resource: str) -> DetentError:
    kind = type(error).__name__
    if isinstance(error, _NO_CREDENTIALS):
        return ConfigurationError(
            f"There are no usable AWS credentials to reach {resource} ({kind}).",
            advice="Sign in (`aws sso login`, `aws configure`) or set AWS_PROFILE, then run `detent doctor`.",
        )
    if isinstance(error, NoRegionError | InvalidRegionError):
        return ConfigurationError(
            f"No valid AWS region is given to reach {resource}.",
            advice="Add `?region=…` to the backend's URL or set AWS_REGION.",
        )
    # A body that is not an AWS answer comes from a proxy or balancer on the way as a rule, and is gone the next time.
    if isinstance(error, EndpointError | HTTPClientError | IncompleteReadError | ResponseParserError):
        return Unavailable(
            f"AWS could not be reached for {resource}: {_without_credentials(error)}",
            advice="Check the network, the region and the endpoint; `detent doctor` tries each.",
        )
    return ConfigurationError(
        f"{resource} cannot be used as configured: {kind}: {_without_credentials(error)}",
        advice="Run `detent doctor`.",
    )


def _without_credentials(error: Exception) -> str:
    """What botocore says names the URL of the endpoint or proxy, with the user and password that it may hold."""
    return re.sub(r"//[^/@\s]*@", "//…@", str(error))
