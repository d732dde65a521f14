"""Translate what botocore and the sockets below it raise into our errors, in one place."""

import http.client
from collections.abc import Container, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import urllib3.exceptions
from botocore import exceptions
from botocore.parsers import ResponseParserError

from backgate.gateway.errors import (
    AlreadyThere,
    Denied,
    InvalidKey,
    NotAsSent,
    NotFound,
    Refused,
    StoreError,
    StoreFull,
    Unreachable,
    Unsupported,
    WrongClock,
    WrongCredentials,
)

LONGEST = 300  # characters of a store's own words in a message
BODILESS = {"head", "check", "HeadObject", "HeadBucket"}  # verbs whose answers hold no words

_NOT_FOUND = {"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "NoSuchUpload", "NotFound", "404"}
_REFUSED = {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
}
_WRONG_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_FULL = {
    "QuotaExceeded",
    "BucketQuotaExceeded",
    "InsufficientStorage",
    "StorageFull",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "ServiceQuotaExceeded",
}
_INVALID_KEY = {
    "KeyTooLong",
    "KeyTooLongError",
    "InvalidObjectName",
    "XMinioInvalidObjectName",
    "InvalidURI",
}
_PASSING = {  # faults that come with another status than 429 or 5xx
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "OperationAborted",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
}
_DAMAGED = {  # what stores call a body that is not what its checksum says
    "BadDigest",
    "InvalidDigest",  # of digests that are none as well, which ours never are
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.UnauthorizedSSOTokenError,
    exceptions.SSOTokenLoadError,
)
_HOW_TO_GIVE_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write credentials = "
    '"profile:NAME", "file:PATH" or "systemd:NAME" in the configuration'
)
_FAULTS = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


@contextmanager
def translated(
    store: str,
    verb: str,
    key: str | None = None,
    *,
    precondition: type[StoreError] = AlreadyThere,
    passing: Container[str] = (),
) -> Iterator[None]:
    """Raise our error for whatever the SDK raises inside.

    `precondition` is what a 412 means; `passing` are codes of faults that this store alone has.
    """
    try:
        yield
    except (exceptions.BotoCoreError, exceptions.ClientError, *_FAULTS) as error:
        what = f"{store}: {verb}" if key is None else f"{store}: {verb} {key!r}"
        raise translation(error, what, key, precondition, passing) from error


def translation(
    error: Exception,
    what: str,
    key: str | None = None,
    precondition: type[StoreError] = AlreadyThere,
    passing: Container[str] = (),
) -> StoreError:
    """Return our error for the SDK's `error`; `what` begins the message."""
    if isinstance(error, exceptions.ClientError):
        if code_of(error) in passing:
            return _passing_fault(error, what, key)
        return _from_answer(error, what, key, precondition)
    if isinstance(error, _NO_CREDENTIALS):
        return Refused(f"{what}: no credentials: {_HOW_TO_GIVE_CREDENTIALS}", key=key)
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        why = "the server's certificate is not trusted: set ca_bundle to its authority's file"
        return StoreError(f"{what}: {why} ({_brief(text)})", key=key)
    if isinstance(error, exceptions.ParamValidationError):
        return StoreError(f"{what}: {_brief(text)}", key=key)
    if isinstance(error, _FAULTS):
        return Unreachable(f"{what}: {_brief(text) or type(error).__name__}", key=key)
    return StoreError(f"{what}: {_brief(text)}", key=key)


def code_of(error: exceptions.ClientError) -> str:
    """Return the error's code, as the store wrote it."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: exceptions.ClientError) -> int:
    """Return the HTTP status; 0 when there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _from_answer(
    error: exceptions.ClientError, what: str, key: str | None, precondition: type[StoreError]
) -> StoreError:
    code, status = code_of(error), status_of(error)
    said = _said(error)
    if status == 404 and code in ("", "404") and error.operation_name not in BODILESS:
        return Unreachable(f"{what}: 404, and not in a store's words: {said}", key=key)  # a proxy's
    if code in _NOT_FOUND:
        return _absent(code, what, key)
    if status == 412 or code == "PreconditionFailed":
        return precondition(f"{what}: {_condition_text(precondition)}", key=key)
    if code in _DAMAGED:
        return NotAsSent(f"{what}: other bytes arrived than were sent: {said}", key=key)
    if code in _FULL or status == 507:
        return StoreFull(f"{what}: {said}", key=key)
    if code in _PASSING or status in (408, 429) or (status >= 500 and status != 501):
        return _passing_fault(error, what, key)
    if code == "RequestTimeTooSkewed":
        return WrongClock(f"{what}: {_clock_text(error)}: set the clock", key=key)
    if code in _REFUSED | _WRONG_CREDENTIALS or status in (401, 403):
        kind = WrongCredentials if code in _WRONG_CREDENTIALS else Refused
        return (Denied if code == "AccessDenied" else kind)(
            f"{what}: {_refusal(code, said)}", key=key
        )
    if code in _INVALID_KEY:
        return InvalidKey(f"{what}: {said}", key=key)
    if status in (405, 501) or code == "NotImplemented":
        return Unsupported(f"{what}: {said}", key=key)
    region = headers_of(error).get("x-amz-bucket-region")
    if status in (301, 307) or (status == 400 and region):
        where = f"region {_brief(region)}" if region else "another region or at another endpoint"
        return StoreError(f"{what}: the bucket is in {where}: set region", key=key)
    return StoreError(f"{what}: {said}", key=key)


def _passing_fault(error: exceptions.ClientError, what: str, key: str | None) -> Unreachable:
    return Unreachable(f"{what}: {_said(error)}", key=key, retry_after=_retry_after(error))


def _said(error: exceptions.ClientError) -> str:
    return _brief(f"{code_of(error)}: {error.response.get('Error', {}).get('Message', '')}")


def _absent(code: str, what: str, key: str | None) -> NotFound:
    """Say what is missing; only an object or upload is named by its key."""
    if code == "NoSuchBucket" or key is None:
        return NotFound(f"{what}: there is no such bucket")
    kind = "upload" if code == "NoSuchUpload" else "object"
    return NotFound(f"{what}: no such {kind}", key=key)


def _condition_text(precondition: type[StoreError]) -> str:
    return "already there" if precondition is AlreadyThere else "another version now"


def _refusal(code: str, said: str) -> str:
    if code == "InvalidAccessKeyId":
        return "the store does not know the access key"
    if code == "SignatureDoesNotMatch":
        return "wrong credentials: the secret key is wrong"
    if code in ("ExpiredToken", "InvalidToken", "TokenRefreshRequired"):
        return "the session token has expired or is wrong"
    return f"access denied: wrong credentials, or they do not suffice ({said})"


def _clock_text(error: exceptions.ClientError) -> str:
    """Say by how much this machine's clock is off, as far as the answer tells."""
    try:
        told = parsedate_to_datetime(headers_of(error).get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return "this machine's clock differs too much from the store's"
    skew = told - time()
    which = "behind" if skew > 0 else "ahead of"
    return f"this machine's clock is {abs(skew):.0f} s {which} the store's"


def _retry_after(error: exceptions.ClientError) -> float | None:
    """Seconds that the answer asks to wait: a number, or a date."""
    text = headers_of(error).get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def asks_for_md5(error: StoreError) -> bool:
    """True when the store takes no body without a Content-MD5, as with a lock on its objects."""
    cause = error.__cause__
    if not isinstance(cause, exceptions.ClientError) or status_of(cause) != 400:
        return False
    said = str(cause.response.get("Error", {}).get("Message", "")).lower()
    return "content-md5" in said and "required" in said


def headers_of(error: exceptions.ClientError) -> dict[str, str]:
    """Return the answer's headers, their names in lower case."""
    headers: Any = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return {str(name).lower(): str(text) for name, text in headers.items()}


def _brief(text: str) -> str:
    """The store's words on one line and of bounded length: they are not ours."""
    line = " ".join(text.split()).strip(": ")
    return "".join(c for c in line[:LONGEST] if c.isprintable())
