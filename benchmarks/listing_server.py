"""An S3 server of nothing but names: a million objects that take no time to put there.

`python -m benchmarks.listing_server DIRECTORIES FILES FLAT` prints its port and serves until it is
ended: `tree/dNNNN/fNNNN` for each directory and file, and `flat/fNNNNNNN`. Each object holds one
byte. Signatures are not checked.
"""

import sys
from bisect import bisect_left, bisect_right
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

LAST = "\U0010ffff"
MODIFIED = "2026-01-02T03:04:05.000Z"
HTTP_MODIFIED = "Fri, 02 Jan 2026 03:04:05 GMT"
ETAG = "9dd4e461268c8034f5c8564e155c67a6"
PAGE_MAX = 1000
_SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def names(directories: int, files: int, flat: int) -> list[str]:
    """Return all keys, ascending."""
    tree = [f"tree/d{one:04}/f{two:04}" for one in range(directories) for two in range(files)]
    return [f"flat/f{number:07}" for number in range(flat)] + tree


def page(
    keys: list[str], prefix: str, delimiter: str, after: str, limit: int
) -> tuple[list[str], list[str], str | None]:
    """Return keys and common prefixes behind `after`, and where the next page begins."""
    at = max(bisect_left(keys, prefix), bisect_right(keys, after))
    objects: list[str] = []
    prefixes: list[str] = []
    last = after
    while at < len(keys) and keys[at].startswith(prefix):
        if len(objects) + len(prefixes) == limit:
            return objects, prefixes, last
        stop = keys[at].find(delimiter, len(prefix)) if delimiter else -1
        if stop < 0:
            last = keys[at]
            objects.append(last)
            at += 1
        else:
            group = keys[at][: stop + 1]
            prefixes.append(group)
            last = group + LAST
            at = bisect_left(keys, last)
    return objects, prefixes, None


class Handler(BaseHTTPRequestHandler):
    """Listings of versions 1 and 2, HEAD and GET."""

    protocol_version = "HTTP/1.1"
    keys: list[str]

    def do_HEAD(self) -> None:
        key = self._key()
        if not key or self._has(key):
            self._answer(200, b"x" if key else b"", is_object=bool(key))
        else:
            self._answer(404, b"")

    def do_GET(self) -> None:
        if key := self._key():
            self._answer(200 if self._has(key) else 404, b"x", is_object=True)
            return
        query = {name: texts[0] for name, texts in parse_qs(urlsplit(self.path).query).items()}
        if "location" in urlsplit(self.path).query:
            body = f"<LocationConstraint {_SPACE}>us-east-1</LocationConstraint>"
        else:
            body = self._listing(query)
        self._answer(200, body.encode(), kind="application/xml")

    def _listing(self, query: dict[str, str]) -> str:
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker")
        limit = min(int(query.get("max-keys", PAGE_MAX)), PAGE_MAX)
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found = page(self.keys, prefix, delimiter, unquote(after or ""), limit)
        objects, prefixes, following = found
        parts = [
            f"<Contents><Key>{key}</Key><LastModified>{MODIFIED}</LastModified><ETag>&quot;{ETAG}"
            "&quot;</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in objects
        ]
        parts += [f"<CommonPrefixes><Prefix>{one}</Prefix></CommonPrefixes>" for one in prefixes]
        if following is not None:
            place = quote(following)
            parts.append(f"<NextContinuationToken>{place}</NextContinuationToken>")
            parts.append(f"<NextMarker>{place}</NextMarker>")
        is_truncated = "false" if following is None else "true"
        head = f"<Name>many</Name><Prefix>{prefix}</Prefix><MaxKeys>{limit}</MaxKeys>"
        head += f"<KeyCount>{len(objects) + len(prefixes)}</KeyCount>"
        head += f"<IsTruncated>{is_truncated}</IsTruncated>"
        return f"<ListBucketResult {_SPACE}>{head}{''.join(parts)}</ListBucketResult>"

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def _has(self, key: str) -> bool:
        at = bisect_left(self.keys, key)
        return at < len(self.keys) and self.keys[at] == key

    def _answer(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "binary/octet-stream",
        is_object: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-request-id", "1")
        if is_object and status == 200:
            self.send_header("ETag", f'"{ETAG}"')
            self.send_header("Last-Modified", HTTP_MODIFIED)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def main() -> None:
    Handler.keys = names(*map(int, sys.argv[1:4]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
