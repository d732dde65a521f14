"""Sign requests to one bucket, with AWS Signature Version 4, as botocore does and for less CPU.

botocore's signer makes an e-mail message of the headers, twice, and derives the key of the day for
each request anew. Who writes or removes many small files waits for that at each of them.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

PAYLOAD = "X-Amz-Content-SHA256"  # the header that vouches for the body

_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE, _END = "s3", "aws4_request"
_PORTS = {"http": 80, "https": 443}  # that no Host header names


class Signer:
    """Signs with whatever keys it is given; for any number of threads."""

    def __init__(self, bucket_url: str, region: str, now: Callable[[], float] = time.time) -> None:
        self.host, self._region, self._now = _host_of(bucket_url), region, now
        self._day = ("", "", b"")  # a secret, a date, and the key that they make

    def signed(
        self, method: str, url: str, headers: Mapping[str, str], keys: Any
    ) -> dict[str, str]:
        """Return `headers` with what opens the bucket; all of them are signed, the `PAYLOAD` too.

        The URL is quoted as it is sent; `keys` are botocore's, or look like them.
        """
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        signed = {**headers, "X-Amz-Date": now}
        if keys.token:
            signed["X-Amz-Security-Token"] = keys.token
        names, request = self._canonical(method, url, signed)
        scope = f"{now[:8]}/{self._region}/{_SERVICE}/{_END}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"{_ALGORITHM}\n{now}\n{scope}\n{digest}"
        signature = _mac(self._key(keys.secret_key, now[:8]), text).hex()
        signed["Authorization"] = (
            f"{_ALGORITHM} Credential={keys.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def _canonical(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[str, str]:
        """Return the names of the headers, and the request, as both are signed."""
        told = {"host": self.host}
        told |= {name.lower(): " ".join(text.split()) for name, text in headers.items()}
        names, parts = sorted(told), urlsplit(url)
        listed = ";".join(names)
        lines = [f"{name}:{told[name]}" for name in names]
        query = _canonical_query(parts.query) if parts.query else ""
        request = [method, parts.path, query, *lines, "", listed, headers[PAYLOAD]]
        return listed, "\n".join(request)

    def _key(self, secret: str, date: str) -> bytes:
        """Return the key of a day, which is made once."""
        *made_of, key = self._day
        if made_of != [secret, date]:
            key = f"AWS4{secret}".encode()
            for part in (date, self._region, _SERVICE, _END):
                key = _mac(key, part)
            self._day = secret, date, key
        return key


def _host_of(url: str) -> str:
    """Return the Host header of a request for `url`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    is_named = parts.port is not None and parts.port != _PORTS.get(parts.scheme)
    return f"{host}:{parts.port}" if is_named else host


def _canonical_query(query: str) -> str:
    pairs = sorted(tuple(pair.partition("=")[::2]) for pair in query.split("&"))
    return "&".join(f"{name}={text}" for name, text in pairs)


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
