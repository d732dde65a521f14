"""However many sectors a log changes, they are what was put last, and memory is bounded."""

import random
import subprocess
import sys

import pytest

from backgate.fs.volumes import changed
from backgate.fs.volumes.changed import PAGE, ChangedSectors
from backgate.gateway.errors import Damaged

SIZE = 512  # bytes


def test_a_sector_is_what_was_put_there_last_compressed_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changed, "OPEN_MAX", 3)
    chance, sectors, expected = random.Random(2), ChangedSectors(SIZE), dict[int, bytes]()

    for _ in range(400):
        first, count = chance.randrange(20 * PAGE), chance.randrange(1, 9)
        data = chance.randbytes(8) * (count * SIZE // 8)
        sectors.put(first, data)
        pieces = [data[at : at + SIZE] for at in range(0, len(data), SIZE)]
        expected |= dict(zip(range(first, first + count), pieces, strict=True))
        start = chance.randrange(20 * PAGE)
        found, present = sectors.found(start, 200)
        for at in range(200):
            is_there = bool(present >> at & 1)
            assert is_there == (start + at in expected)
            assert not is_there or found[at * SIZE : (at + 1) * SIZE] == expected[start + at]
        assert (start in sectors) == (start in expected)

    assert len(sectors._packed) > 10
    assert len(sectors) == len(expected)
    assert list(sectors) == sorted(expected)
    assert dict(sectors) == expected
    with pytest.raises(KeyError):
        sectors[10**6]


@pytest.mark.slow
def test_many_changes_are_kept_in_little_memory() -> None:
    script = (
        "from pathlib import Path\n"
        "from backgate.fs.volumes.changed import PAGE, ChangedSectors\n"
        "sectors = ChangedSectors(512)\n"
        "for page in range(30_000):\n"
        "    alike = b'IN' + bytes(300) + page.to_bytes(8, 'big') + bytes(202)\n"
        "    sectors.put(page * PAGE, alike * PAGE)\n"
        "print(len(sectors), Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )

    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    count, kibibytes = map(int, told.stdout.split())
    assert count * SIZE > 200 << 20
    assert kibibytes < 150 << 10


def test_changes_that_do_not_fit_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed, "OPEN_MAX", 1)
    monkeypatch.setattr(changed, "PACKED_MAX", 100 * SIZE)
    sectors = ChangedSectors(SIZE)

    with pytest.raises(Damaged, match="too much to be kept"):
        for number in range(900):
            sectors.put(number, random.Random(number).randbytes(SIZE))
