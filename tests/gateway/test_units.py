"""Sizes and durations as people write them."""

import pytest

from backgate.gateway.units import (
    GIB,
    MIB,
    duration_from_text,
    exact_size_to_text,
    size_from_text,
    size_to_text,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("512 MiB", 512 * MIB), ("1.5GiB", 3 * GIB // 2), ("10 GB", 10**10)],
)
def test_a_size_is_a_number_with_a_unit(text: str, size: int) -> None:
    assert size_from_text(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90 s", 90.0), ("1h", 3600.0), ("1.5 min", 90.0), ("250ms", 0.25)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert duration_from_text(text) == seconds


@pytest.mark.parametrize("text", ["", "much", "10 parsecs", "-1", "1 2"])
def test_what_is_neither_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=text or "not a number"):
        size_from_text(text)
    with pytest.raises(ValueError, match=text or "not a number"):
        duration_from_text(text)


def test_a_size_reads_well() -> None:
    assert [size_to_text(size) for size in (0, 1023, 1536, 5 * MIB, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 TiB",
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [("5 GB", 5 * 10**9), ("5115 MiB", 5115 * MIB), ("4999 B", 4999), ("1 TiB", 1 << 40)],
)
def test_an_exact_size_loses_nothing(text: str, size: int) -> None:
    assert exact_size_to_text(size) == text
    assert size_from_text(text) == size
