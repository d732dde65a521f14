"""Keys as bytes, and half-open intervals `[start, stop)` of them in the byte order of S3."""

from collections.abc import Iterator

from backgate.gateway.metadata.database import Corrupt

FIRST = b""  # no key sorts before it
END = b"\xff"  # all keys sort before it: UTF-8 has no such byte


def encoded(key: str) -> bytes:
    """Return `key` as the index stores it; the order of the bytes is that of the characters."""
    return key.encode("utf-8", "surrogatepass")


def decoded(key: bytes) -> str:
    """Return the key that `encoded` gave; what it cannot have given means a damaged index."""
    try:
        return key.decode("utf-8", "surrogatepass")
    except (UnicodeDecodeError, AttributeError) as error:
        raise Corrupt(f"not a key: {key!r}") from error


def successor(key: bytes) -> bytes:
    """Return the first byte string behind `key`: `[start, successor(key))` ends with `key`."""
    return key + b"\0"


def end_of(prefix: bytes) -> bytes:
    """Return where the keys that begin with `prefix` end."""
    return prefix[:-1] + bytes((prefix[-1] + 1,)) if prefix else END


def directories_above(key: bytes) -> Iterator[bytes]:
    """Yield the prefixes of the directories that `key` lies in, the nearest first; not the root.

    The marker `a/b/` lies in `a/b/`.
    """
    stop = key.rfind(b"/")
    while stop >= 0:
        yield key[: stop + 1]
        stop = key.rfind(b"/", 0, stop)


def parent_of(prefix: bytes) -> bytes:
    """Return the prefix of the directory that holds the directory `prefix`."""
    return prefix[: prefix.rfind(b"/", 0, len(prefix) - 1) + 1]
