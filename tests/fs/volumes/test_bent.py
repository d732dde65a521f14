"""Disks of every layer with random bytes changed and ends cut off: problems, and nothing worse."""

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from support.disks import FileDevice, found_in, read_ends, unpacked_disks

ROUNDS = 2000
CPU_MAX = 10.0  # seconds; what the worker grants to one request
PIECE = 4096  # bytes


class Bent(FileDevice):
    """A file with some bytes changed, and its end cut off."""

    def __init__(self, path: Path, number: int, changed: dict[int, int], cut: int) -> None:
        super().__init__(path, number)
        self._changed = changed
        self.size -= cut

    def read_at(self, offset: int, length: int) -> bytes:
        data = bytearray(super().read_at(offset, length))
        for at, value in self._changed.items():
            if offset <= at < offset + len(data):
                data[at - offset] = value
        return bytes(data)


def structures(path: Path) -> list[int]:
    """Return where bytes are that are neither zeros nor the sectors that tests write."""
    data = path.read_bytes()
    pieces = ((at, data[at : at + 512]) for at in range(0, len(data), 512))
    return [at for at, piece in pieces if any(piece) and not piece.endswith(b"." * 32)]


def bent(paths: list[Path], places: dict[Path, list[int]], random: Random) -> Iterator[Bent]:
    for number, path in enumerate(paths):
        changed = {}
        if random.random() < 0.6:
            for _ in range(random.choice([1, 1, 2, 4, 16, 64])):
                near = min(int(random.expovariate(0.1)), len(places[path]) - 1)
                sector = random.choice([places[path][near], random.choice(places[path])])
                changed[sector + random.randrange(512)] = random.randrange(256)
        cut = random.randrange(path.stat().st_size) if random.random() < 0.05 else 0
        yield Bent(path, number, changed, cut)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("archive", ["lvm", "md", "luks"])
def test_thousands_of_bent_disks_are_problems_and_no_more(archive: str, tmp_path: Path) -> None:
    groups: dict[str, list[Path]] = {}
    for name, path in unpacked_disks(f"{archive}.tar.xz", tmp_path).items():
        groups.setdefault(name if archive == "luks" else name.rpartition("-")[0], []).append(path)
    places = {path: structures(path) for paths in groups.values() for path in paths}
    random = Random(ROUNDS)

    for _ in range(ROUNDS):
        disks = list(bent(random.choice(list(groups.values())), places, random))
        begun = time.process_time()
        for found in found_in(*disks, secrets=[b"one pass"]).values():
            read_ends(found.volume.device)
        assert time.process_time() - begun < CPU_MAX
