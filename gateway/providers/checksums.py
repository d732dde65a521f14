"""What vouches for a body on its way to a store: worked out once, however often it is sent.

A body leaves the spool once and may be sent many times. Its checksums are of the bytes as they
left: what is damaged later, in memory or on the line, is noticed by the store, or in its answer.
"""

import base64
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial

from google_crc32c import extend, implementation

from backgate.gateway.errors import NotAsSent, StoreError
from backgate.gateway.provider import NO_METADATA, Body, ObjectInfo, Provider
from backgate.gateway.units import MIB

CRC32C_IS_FAST = implementation == "c"  # else it is Python, and takes a second for a megabyte
PIECE = MIB  # bytes; the library sums nothing but `bytes`, so that what is none is copied by pieces


class Outgoing:
    """A body and its checksums, of which only those that are asked for are worked out."""

    def __init__(self, body: Body) -> None:
        self.body = body

    @cached_property
    def md5(self) -> bytes:
        return hashlib.md5(self.body, usedforsecurity=False).digest()

    @property
    def content_md5(self) -> str:
        """The MD5 as a header has it."""
        return base64.b64encode(self.md5).decode()

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 as a signature has it."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def crc32c(self) -> str:
        """The CRC-32C as stores write it: base64, the highest byte first."""
        crc, view = 0, memoryview(self.body).cast("B")
        for at in range(0, len(view), PIECE):
            crc = int(extend(crc, bytes(view[at : at + PIECE])))
        return base64.b64encode(crc.to_bytes(4, "big")).decode()


class Sender(Provider):
    """A provider that sends bodies together with what vouches for them."""

    @abstractmethod
    def send(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo:
        """Do what `put` does."""

    @abstractmethod
    def send_part(self, key: str, upload: str, number: int, outgoing: Outgoing) -> str:
        """Do what `put_part` does."""

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        return self.putting(key, body, metadata, if_absent=if_absent)()

    def putting(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> Callable[[], ObjectInfo]:
        return partial(self._sent, key, Outgoing(body), metadata, if_absent=if_absent)

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        return self.putting_part(key, upload, number, body)()

    def putting_part(self, key: str, upload: str, number: int, body: Body) -> Callable[[], str]:
        return partial(self.send_part, key, upload, number, Outgoing(body))

    def _sent(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo:
        try:
            return self.send(key, outgoing, metadata, if_absent=if_absent)
        except NotAsSent as error:
            if if_absent and error.is_stored:
                self._take_back(key, error)
            raise

    def _take_back(self, key: str, why: NotAsSent) -> None:
        """Delete what a conditional put left: the next attempt would take it for its own, whole."""
        try:
            for fault in self.delete([key]).values():
                raise fault
        except StoreError as error:
            raise StoreError(f"{why}; and it stays: {error}", key=key) from error
