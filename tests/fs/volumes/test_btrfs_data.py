"""Bytes of a btrfs that are not what was written are damage."""

import os
from pathlib import Path

import pytest
from support.disks import BytesDevice
from support.file_systems import run

from backgate.fs.volume import ENCODED
from backgate.fs.volumes.btrfs import Btrfs
from backgate.gateway.errors import Damaged

ALGORITHMS = ["crc32c", "xxhash", "sha256", "blake2"]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_sector_with_a_wrong_checksum_is_damage_and_the_others_are_not(
    algorithm: str, tmp_path: Path
) -> None:
    content = os.urandom(300_000)
    (tmp_path / "from").mkdir()
    (tmp_path / "from/file").write_bytes(content)
    image = tmp_path / "image"
    run("truncate", "-s", "120M", image)
    run("mkfs.btrfs", "-q", "--csum", algorithm, "--rootdir", tmp_path / "from", image)
    data = bytearray(image.read_bytes())
    system = Btrfs(BytesDevice(data))
    node = system.child(system.root().handle, b"file")
    assert system.read_at(node.handle, 0, node.size) == content
    assert {extent.disk for extent in system.extents(node.handle, 0, node.size)} == {ENCODED}

    data[data.index(content[8192:8256]) + 5] ^= 1

    wrong = Btrfs(BytesDevice(data))
    assert wrong.read_at(node.handle, 0, 8192) == content[:8192]
    assert wrong.read_at(node.handle, 12_288, 50_000) == content[12_288:62_288]
    for offset, length in ((8192, 4096), (12_000, 10), (0, 100_000)):
        with pytest.raises(Damaged, match="wrong checksum"):
            wrong.read_at(node.handle, offset, length)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_directory_with_a_wrong_checksum_is_damage(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/a name of a file").touch()
    image = tmp_path / "image"
    run("truncate", "-s", "120M", image)
    run("mkfs.btrfs", "-q", "--csum", algorithm, "--rootdir", tmp_path / "from", image)
    data = bytearray(image.read_bytes())
    assert Btrfs(BytesDevice(data)).root().size

    at = data.find(b"a name of a file")
    while at >= 0:
        data[at] ^= 1
        at = data.find(b"a name of a file", at + 1)

    with pytest.raises(Damaged, match="checksum mismatch"):
        Btrfs(BytesDevice(data)).root()
