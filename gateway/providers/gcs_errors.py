"""Translate Google's answers into our errors, in one place."""

import json
from typing import Any

from backgate.gateway.errors import (
    AlreadyThere,
    Denied,
    NotAsSent,
    NotFound,
    Refused,
    StoreError,
    StoreFull,
    Unreachable,
    Unsupported,
    WrongCredentials,
)
from backgate.gateway.providers.web import Answer, brief

_PASSING = {"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError"}
_NO_BUCKET = "bucket does not exist"  # how Google words what has no code of its own
_DAMAGED = "doesn't match calculated"  # the same, of a body that is not what its checksum says
_HOW_TO_GIVE_CREDENTIALS = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or write credentials = "
    '"file:PATH" or "systemd:NAME" in the configuration'
)


def error_of(
    answer: Answer,
    what: str,
    key: str | None = None,
    *,
    precondition: type[StoreError] = AlreadyThere,
    is_anonymous: bool = False,
) -> StoreError:
    """Return our error for an answer that says no; `what` begins the message."""
    status, (message, reasons) = answer.status, _said(answer)
    said = brief(message) or str(status)
    if status == 404 and message:  # without Google's words it may be a proxy's
        return _absent(message, what, key)
    if status == 412:
        text = "already there" if precondition is AlreadyThere else "another version now"
        return precondition(f"{what}: {text}", key=key)
    if status in (404, 408, 429) or (status >= 500 and status != 501) or _PASSING & reasons:
        return Unreachable(f"{what}: {said}", key=key, retry_after=answer.retry_after)
    if status == 400 and _DAMAGED in message:
        return NotAsSent(f"{what}: other bytes arrived than were sent: {said}", key=key)
    if is_anonymous and status in (401, 403):
        return Refused(f"{what}: no credentials: {_HOW_TO_GIVE_CREDENTIALS} ({said})", key=key)
    if "quotaExceeded" in reasons:
        return StoreFull(f"{what}: {said}", key=key)
    if status in (401, 403):
        kind = WrongCredentials if status == 401 else Denied
        return kind(f"{what}: access denied ({said})", key=key)
    if status in (405, 501):
        return Unsupported(f"{what}: {said}", key=key)
    return StoreError(f"{what}: {said}", key=key)


def _absent(message: str, what: str, key: str | None) -> NotFound:
    """Say what is missing; only an object is named by its key."""
    if key is None or _NO_BUCKET in message:
        return NotFound(f"{what}: there is no such bucket")
    return NotFound(f"{what}: no such object", key=key)


def _said(answer: Answer) -> tuple[str, set[str]]:
    """Return the message and the reasons in the answer's JSON; "" if it is none of Google's."""
    try:
        error: Any = json.loads(answer.body)["error"]
        reasons = {str(one.get("reason")) for one in error.get("errors", ())}
        return str(error.get("message") or error.get("code")), reasons
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", set()
