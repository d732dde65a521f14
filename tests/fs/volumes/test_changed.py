"""However many sectors a log changes, they are what was put last, and memory is bounded."""

import random

import pytest

from backgate.fs.volumes import changed
from backgate.fs.volumes.changed import PAGE, ChangedSectors
from backgate.gateway.errors import Damaged

SIZE = 512  # bytes


def test_a_sector_is_what_was_put_there_last_compressed_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changed, "OPEN_MAX", 3 * PAGE)
    chance, sectors, expected = random.Random(2), ChangedSectors(SIZE), dict[int, bytes]()

    for _ in range(2000):
        first, count = chance.randrange(20 * PAGE), chance.randrange(1, 9)
        data = chance.randbytes(8) * (count * SIZE // 8)
        sectors.put(first, data)
        pieces = [data[at : at + SIZE] for at in range(0, len(data), SIZE)]
        expected |= dict(zip(range(first, first + count), pieces, strict=True))
        start = chance.randrange(20 * PAGE)
        assert sectors.found(start, 200) == [expected.get(at) for at in range(start, start + 200)]
        assert (start in sectors) == (start in expected)

    assert len(sectors._packed) > 10
    assert len(sectors) == len(expected)
    assert list(sectors) == sorted(expected)
    assert dict(sectors) == expected
    with pytest.raises(KeyError):
        sectors[10**6]


def test_changes_that_do_not_fit_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed, "OPEN_MAX", PAGE)
    monkeypatch.setattr(changed, "PACKED_MAX", 100 * SIZE)
    sectors = ChangedSectors(SIZE)

    with pytest.raises(Damaged, match="too much to be kept"):
        for number in range(300):
            sectors.put(number, random.Random(number).randbytes(SIZE))
