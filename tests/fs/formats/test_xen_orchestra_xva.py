"""Whole VMs: XVAs, compressed and encrypted or not."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from contracts.format_contract import found, surroundings
from support.extract import content, entries, find
from support.xen_orchestra import KEY, T1, Writer, disk, manifest, unpack_sample
from support.xva import CHUNK, xva

from backgate.fs.formats.xen_orchestra.format import XenOrchestraFormat
from backgate.fs.formats.xen_orchestra.ova import BadOva, disks_in
from backgate.gateway.errors import Damaged

DISKS = {
    "system": disk(3 * CHUNK, "s") + bytes(3 * CHUNK) + disk(2 * CHUNK + 1536, "t"),
    "data": bytes(2 * CHUNK) + disk(CHUNK, "d") + bytes(CHUNK),
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": lambda data: zstandard.compress(data, 1),
}


def repository(store: Path, archive: bytes, *, algorithm: str | None = None) -> Path:
    """Write a full backup with its checksum; returns the archive's path."""
    writer = Writer(store, algorithm=algorithm)
    path = f"{writer.top}/{T1}.xva"
    writer.put(path, archive)
    writer.write_metadata(T1, [], mode="full", xva=f"./{T1}.xva")
    (store / f"{path}.checksum").write_text(
        f"$1$${hashlib.md5((store / path).read_bytes()).hexdigest()}"
    )
    return store / path


async def shown(store: Path, cache: Path) -> dict[str, bytes]:
    """Return the bytes of each disk of the only backup."""
    async with surroundings(store, cache, KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        (backup,) = await found(format_)
        assert backup.is_complete, backup.reason
        async with format_.open(backup) as tree:
            names = [entry.name async for entry in entries(tree, await find(tree, b"disks"))]
            paths = {name.decode(): b"disks/" + name + b"/disk.raw" for name in names}
            return {name: await content(tree, path) for name, path in paths.items()}


@pytest.mark.slow
async def test_the_disk_of_a_real_archive_is_what_was_backed_up(tmp_path: Path) -> None:
    unpack_sample("full", tmp_path / "store")

    ((_, data),) = (await shown(tmp_path / "store", tmp_path / "cache")).items()

    expected = manifest()["disks"]["b-t1"]
    assert hashlib.sha256(data[: expected["size"]]).hexdigest() == expected["sha256"]
    assert not any(data[expected["size"] :])


@pytest.mark.slow
@pytest.mark.parametrize("sums", ["xxhash", "checksum"])
@pytest.mark.parametrize("algorithm", [None, "chacha20-poly1305", "aes-256-gcm"])
@pytest.mark.parametrize("packer", PACKERS)
async def test_the_disks_of_an_archive_are_read(
    packer: str, algorithm: str | None, sums: str, tmp_path: Path
) -> None:
    archive = xva(DISKS, sums=sums, silent_before=frozenset({0, 2, 7}))
    repository(tmp_path / "store", PACKERS[packer](archive), algorithm=algorithm)

    assert await shown(tmp_path / "store", tmp_path / "cache") == {
        "xvda-system": DISKS["system"],
        "xvdb-data": DISKS["data"],
    }


def flipped(archive: bytes) -> bytes:
    """Change a byte of a chunk."""
    at = archive.index(DISKS["data"][2 * CHUNK :][:1000])
    return archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize("packer", PACKERS)
async def test_a_chunk_that_is_not_what_its_checksum_says_is_an_error_and_no_other_is(
    packer: str, tmp_path: Path
) -> None:
    archive = flipped(xva(DISKS))
    repository(tmp_path / "store", PACKERS[packer](archive))

    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        (backup,) = await found(format_)
        async with format_.open(backup) as tree:
            assert await content(tree, b"disks/xvda-system/disk.raw") == DISKS["system"]
            async with tree.open(await find(tree, b"disks/xvdb-data/disk.raw")) as source:
                assert await source.read_at(0, 2 * CHUNK) == DISKS["data"][: 2 * CHUNK]
                assert await source.read_at(3 * CHUNK, CHUNK) == DISKS["data"][3 * CHUNK :]
                with pytest.raises(Damaged, match="xxhash"):
                    await source.read_at(2 * CHUNK + 5000, 1)


@pytest.mark.slow
async def test_a_truncated_archive_is_an_error(tmp_path: Path) -> None:
    archive = xva(DISKS)
    for length in (400, 5000, 3 * CHUNK, len(archive.rstrip(b"\0"))):
        repository(tmp_path / "store", archive[:length])

        with pytest.raises(Damaged):
            await shown(tmp_path / "store", tmp_path / "cache")


async def test_an_archive_without_the_last_chunk_of_a_disk_is_an_error(tmp_path: Path) -> None:
    archive = xva({"data": bytes(3 * CHUNK)})
    at = archive.index(b"Ref:7/00000002")
    repository(tmp_path / "store", archive[:at] + bytes(1024))

    with pytest.raises(Damaged, match="has 1048576 of 3145728 bytes"):
        await shown(tmp_path / "store", tmp_path / "cache")


async def test_stored_bytes_that_are_not_what_the_checksum_beside_them_says_are_an_error(
    tmp_path: Path,
) -> None:
    path = repository(tmp_path / "store", xva({"data": disk(CHUNK, "d")}))
    with path.open("ab") as file:
        file.write(bytes(512))

    with pytest.raises(Damaged, match=r"\.checksum"):
        await shown(tmp_path / "store", tmp_path / "cache")


@pytest.mark.slow
async def test_an_encrypted_archive_with_one_byte_changed_is_an_error(tmp_path: Path) -> None:
    path = repository(tmp_path / "store", xva(DISKS), algorithm="chacha20-poly1305")
    data = bytearray(path.read_bytes())
    data[-600] ^= 1
    path.write_bytes(data)
    Path(f"{path}.checksum").unlink()

    with pytest.raises(Damaged, match="not authentic"):
        await shown(tmp_path / "store", tmp_path / "cache")


BOMB = (
    '<?xml version="1.0" encoding="{}"?><!DOCTYPE value [<!ENTITY a "aaaaaaaa">]><value>&a;</value>'
)


@pytest.mark.parametrize(
    "xml",
    [
        BOMB.format("utf-8").encode(),
        BOMB.format("utf-16").encode("utf-16"),
        BOMB.format("cp037").split("?>")[0].encode() + b"?>" + BOMB.split("?>")[1].encode("cp037"),
        b"<value>" + b"<a/>" * 600_000 + b"</value>",
    ],
    ids=["utf-8", "utf-16", "cp037", "many"],
)
def test_a_description_that_would_grow_is_refused_in_any_encoding(xml: bytes) -> None:
    with pytest.raises(BadOva, match=r"declares|UTF-8|too many"):
        disks_in(xml)
