"""Sizes and durations that people write and read: `64 MiB`, `1 h`."""

import re

KIB = 1024  # bytes
MIB = 1024 * KIB  # bytes
GIB = 1024 * MIB  # bytes
TIB = 1024 * GIB  # bytes
SECOND_NS = 1_000_000_000  # nanoseconds

_SIZES = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB}  # bytes
_SIZES |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}  # bytes
_DURATIONS = {
    "": 1.0,
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}  # seconds
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def size_from_text(text: str) -> int:
    """Return the bytes that `text` ("512 MiB", "10GB", "4096") means.

    Raises `ValueError` when it is not a number with a unit of size.
    """
    number, unit = _parse(text)
    if unit not in _SIZES:
        raise ValueError(f"{text!r} is not a size: write a number and KiB, MiB, GiB or TiB")
    return int(number * _SIZES[unit])


def duration_from_text(text: str) -> float:
    """Return the seconds that `text` ("90 s", "1h", "0.5") means.

    Raises `ValueError` when it is not a number with a unit of time.
    """
    number, unit = _parse(text)
    if unit not in _DURATIONS:
        raise ValueError(f"{text!r} is not a duration: write a number and ms, s, min, h or d")
    return number * _DURATIONS[unit]


def size_to_text(size: int) -> str:
    """Return `size` bytes as a person reads it: `1.5 GiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < KIB:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= KIB
    return f"{amount:.1f} TiB"


def exact_size_to_text(size: int) -> str:
    """Return `size` bytes in the largest unit that divides it: `5 GB`, `5115 MiB`, `4096 B`."""
    units = {"TiB": TIB, "TB": 10**12, "GiB": GIB, "GB": 10**9, "MiB": MIB, "MB": 10**6, "KiB": KIB}
    for unit, factor in units.items():
        if size and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def _parse(text: str) -> tuple[float, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number with a unit")
    return float(match[1]), match[2].lower()
