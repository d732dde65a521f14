"""Translate Azure's answers into our errors, in one place."""

import re

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
    WrongCredentials,
)
from backgate.gateway.providers.web import Answer, brief

_MESSAGE = re.compile(rb"<Message>(.{0,2000}?)(?:\n|</Message>)", re.DOTALL)
_ABSENT = {"BlobNotFound", "ResourceNotFound", "ContainerNotFound"}
_CONDITIONS = {"ConditionNotMet", "TargetConditionNotMet", "BlobAlreadyExists"}
_PASSING = {  # faults that come with another status than 429 or 5xx
    "OperationTimedOut",
    "PendingCopyOperation",
}
_WRONG_CREDENTIALS = {
    "AuthenticationFailed": "wrong key or signature, or it has expired, or this clock is wrong",
    "InvalidAuthenticationInfo": "wrong key or signature",
}
_DAMAGED = "contentMD5 doesn't match"  # the words, where an emulator's code is another
_UNAUTHENTIC = "failed to authenticate the request"  # the words, where an emulator's code differs
_REFUSED = {
    "KeyBasedAuthenticationNotPermitted": "the storage account allows no account keys",
    "PublicAccessNotPermitted": "the storage account allows nobody in without credentials",
    "BlobImmutableDueToPolicy": "an immutability policy protects it",
    "AccountIsDisabled": "the storage account is disabled",
}
_SAID = {
    "BlobArchived": "it is in the archive tier: rehydrate it first",
    "BlobBeingRehydrated": "it is on its way out of the archive tier",
    "SnapshotsPresent": "it has snapshots: delete those first",
    "InvalidBlobOrBlock": "another tool left blocks of another kind under this name: "
    "they vanish after a week, or with the next blob of the name",
    "InvalidBlobType": "a page or append blob of this name is in the way",
    "FeatureNotSupportedForHierarchicalNamespace": "the account has a hierarchical namespace",
}
_LEASED = "Lease"  # what the codes of all faults with leases begin with
_HOW_TO_GIVE_CREDENTIALS = (
    "set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or write credentials = "
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
    code, status = code_of(answer), answer.status
    said = _said(answer, code)
    if code in _ABSENT and not (is_anonymous and code == "ResourceNotFound"):
        return _absent(code, what, key)
    if code == "InvalidBlockList":
        return NotFound(f"{what}: no such upload, or a part of it is gone", key=key)
    if code in _CONDITIONS or (status == 412 and not code.startswith(_LEASED)):
        text = "already there" if precondition is AlreadyThere else "another version now"
        return precondition(f"{what}: {text}", key=key)
    if code == "Md5Mismatch" or _DAMAGED in said:
        return NotAsSent(f"{what}: other bytes arrived than were sent: {said}", key=key)
    if status == 507:
        return StoreFull(f"{what}: {said}", key=key)
    is_passing = code in _PASSING or status in (408, 429) or (status >= 500 and status != 501)
    if is_passing or (status == 404 and not code):  # not the store's own words: a proxy's
        return Unreachable(f"{what}: {said}", key=key, retry_after=answer.retry_after)
    if is_anonymous and status in (401, 403, 404, 409):
        return Refused(f"{what}: no credentials: {_HOW_TO_GIVE_CREDENTIALS} ({said})", key=key)
    if code in _WRONG_CREDENTIALS or _UNAUTHENTIC in said:
        why = _WRONG_CREDENTIALS.get(code, _WRONG_CREDENTIALS["AuthenticationFailed"])
        return WrongCredentials(f"{what}: {why}", key=key)
    if code in _REFUSED:
        return Refused(f"{what}: {_REFUSED[code]}", key=key)
    if status in (401, 403) or code.startswith(_LEASED):
        kind = Refused if code.startswith(_LEASED) else Denied
        return kind(f"{what}: access denied ({said})", key=key)
    return _other(answer, code, said, what, key)


def code_of(answer: Answer) -> str:
    """Return the error's code; "" for an answer that is not the store's own."""
    return answer.headers.get("x-ms-error-code", "")


def _other(answer: Answer, code: str, said: str, what: str, key: str | None) -> StoreError:
    if code in ("InvalidResourceName", "InvalidUri") and key is not None:
        return InvalidKey(f"{what}: {said}", key=key)
    if answer.status in (405, 501) or code == "UnsupportedHeader":
        return Unsupported(f"{what}: {said}", key=key)
    return StoreError(f"{what}: {_SAID.get(code, said)}", key=key)


def _absent(code: str, what: str, key: str | None) -> NotFound:
    """Say what is missing; only a blob is named by its key."""
    if code == "ContainerNotFound" or key is None:
        return NotFound(f"{what}: there is no such container")
    return NotFound(f"{what}: no such blob", key=key)


def _said(answer: Answer, code: str) -> str:
    match = _MESSAGE.search(answer.body)
    text = match[1].decode("utf-8", "replace") if match else ""
    return brief(": ".join(part for part in (code or str(answer.status), text) if part))
