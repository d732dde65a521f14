"""What goes wrong with a request: which requests a rule applies to, and what then happens."""

import math
import re
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

_LISTING = {  # what a listing may be asked; anything else beside the bucket is another request
    "list-type",
    "prefix",
    "delimiter",
    "max-keys",
    "encoding-type",
    "start-after",
    "continuation-token",
    "marker",
    "fetch-owner",
}
USUAL_PAGE = 1000  # keys that a listing gives which asks for no number


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in."""

    method: str
    target: str
    headers: dict[str, str]  # names in lower case

    @property
    def line(self) -> str:
        return f"{self.method} {self.target}"

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def is_listing(self) -> bool:
        is_bucket = "/" not in self.path.strip("/") and self.path != "/"
        return self.method == "GET" and is_bucket and self.query.keys() <= _LISTING

    @property
    def limit(self) -> int:
        """How many keys a listing asks for."""
        return int(self.query.get("max-keys", USUAL_PAGE))


@dataclass(slots=True, kw_only=True)
class Rule:
    """What happens to requests that it describes; the first rule that applies wins."""

    match: str = "."  # regular expression, searched in "METHOD target"
    header: str | None = None  # ... and a header is there whose name begins so, in lower case
    lacks: str | None = None  # ... and this header is not there
    keys_above: int | None = None  # ... and it is a listing that asks for more keys
    skip: int = 0  # such requests that pass first
    every: int = 1  # of such requests, those that it applies to: each n-th
    times: float = math.inf  # requests it applies to
    per_second: float | None = None  # such requests that pass; it applies to what is beyond

    delay: float = 0.0  # seconds before the request is forwarded; inf: until the client goes
    status: int | None = None  # answer with this instead of forwarding
    code: str = ""  # of S3, in that answer
    headers: dict[str, str] = field(default_factory=dict)  # of that answer
    body: bytes = b""  # of that answer, where it is not an error of S3's
    upload_resets_after: int | None = None  # bytes of the request's body, then a reset
    upload_flips_at: int | None = None  # byte of the request's body in which a bit is wrong
    is_refused: bool = False  # reset the connection instead of forwarding
    is_lost: bool = False  # the server acts, and the connection is reset instead of the answer
    reset_after: int | None = None  # bytes of the answer's body, then a reset
    truncate_after: int | None = None  # bytes of the answer's body, then a close
    stall_after: int | None = None  # bytes of the answer's body, then silence
    ends_after: int | None = None  # bytes of the answer's body, as if that were all
    flip_at: int | None = None  # byte of the answer's body in which a bit is wrong
    bytes_per_second: float = math.inf  # of the answer's body
    piece: int | None = None  # bytes of it that are sent at a time; None: as they come

    applied: int = 0  # requests that it has applied to
    _seen: int = 0
    _left: float = math.inf  # requests that pass at once, of the rate
    _filled: float = 0.0  # monotonic seconds at which `_left` was right

    def applies(self, asked: Asked) -> bool:
        """Count the request if it is described, and return whether it is this rule's turn."""
        if self.times <= 0 or not self._describes(asked):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self._seen += 1
        if self._seen % self.every or self._is_within_the_rate():
            return False
        self.times -= 1
        self.applied += 1
        return True

    @property
    def error(self) -> bytes:
        """The body of an answer that is made up here."""
        if not self.code:
            return self.body
        return f"<Error><Code>{self.code}</Code><Message>emulated</Message></Error>".encode()

    def _describes(self, asked: Asked) -> bool:
        if not re.search(self.match, asked.line):
            return False
        if self.header is not None and not any(
            name.startswith(self.header) for name in asked.headers
        ):
            return False
        if self.lacks is not None and self.lacks in asked.headers:
            return False
        return self.keys_above is None or (asked.is_listing and asked.limit > self.keys_above)

    def _is_within_the_rate(self) -> bool:
        """Take one of the requests that may pass, which come back with time, if there is one."""
        if self.per_second is None:
            return False
        now = time.monotonic()
        self._left = min(self.per_second, self._left + (now - self._filled) * self.per_second)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
