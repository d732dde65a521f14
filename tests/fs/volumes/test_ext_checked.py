"""What has a wrong checksum on ext4 is damage of that thing alone, and never believed."""

import os

import pytest
from support.disks import BytesDevice
from support.file_systems import all_children, run

from backgate.fs.volumes.ext import ExtFileSystem
from backgate.gateway.errors import Damaged

BLOCK = 1024  # bytes
PIECES = 40  # of the fragmented file: more than an inode has room for


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    top = tmp_path_factory.mktemp("checked")
    source = top / "from"
    (source / "directory").mkdir(parents=True)
    for number in range(100):
        (source / f"directory/name {number}").write_bytes(b"x")
    with (source / "fragmented").open("wb") as file:
        for number in range(PIECES):
            file.seek(number * 8 * BLOCK)
            file.write(os.urandom(BLOCK))
    (source / "attributed").write_bytes(b"")
    os.setxattr(source / "attributed", "user.long", b"v" * 600)
    run(
        "mkfs.ext4", "-q", "-b", str(BLOCK), "-O", "^has_journal", "-d", source, top / "image", "6M"
    )
    return (top / "image").read_bytes()


def handle_of(system: ExtFileSystem, name: bytes) -> bytes:
    return system.child(system.root().handle, name).handle


def number_of(system: ExtFileSystem, name: bytes) -> int:
    return int.from_bytes(system.child(system.root().handle, name).inode, "big")


def flipped(image: bytes, at: int) -> ExtFileSystem:
    data = bytearray(image)
    data[at] ^= 0x40
    return ExtFileSystem(BytesDevice(data))


def test_an_inode_with_a_wrong_checksum_is_a_name_and_no_more(image: bytes) -> None:
    system = ExtFileSystem(BytesDevice(image))
    at = system._tree._inode_off(number_of(system, b"fragmented"))

    for field in (4, 0x20, 0x28 + 20, 0x64, 200):  # size, flags, extents, generation, times
        wrong = flipped(image, at + field)
        names = {node.name: node for node in all_children(wrong, wrong.root())}
        assert "wrong checksum" in names[b"fragmented"].problem
        assert names[b"attributed"].problem == ""
        with pytest.raises(Damaged, match="wrong checksum"):
            wrong.child(wrong.root().handle, b"fragmented")
        with pytest.raises(Damaged, match="wrong checksum"):
            list(wrong.extents(names[b"fragmented"].handle, 0, 1))


def test_a_block_of_a_directory_with_a_wrong_checksum_is_damage(image: bytes) -> None:
    system = ExtFileSystem(BytesDevice(image))
    handle = handle_of(system, b"directory")
    extents = system._tree._data_ra(system._tree.inode(number_of(system, b"directory"))).extents

    for extent in extents:
        wrong = flipped(image, extent.roff + extent.length - BLOCK + 20)
        with pytest.raises(Damaged, match="wrong checksum"):
            list(wrong.children(handle).nodes)
        lost = flipped(image, extent.roff + extent.length - 5)
        with pytest.raises(Damaged, match="lost its checksum"):
            list(lost.children(handle).nodes)


def test_a_block_of_extents_with_a_wrong_checksum_is_damage(image: bytes) -> None:
    system = ExtFileSystem(BytesDevice(image))
    handle = handle_of(system, b"fragmented")
    inode = system._tree.inode(number_of(system, b"fragmented"))
    block = int.from_bytes(inode.i_block[16:20], "little")  # the one below the inode
    assert len(list(system.extents(handle, 0, inode.size))) >= PIECES

    with pytest.raises(Damaged, match="extents has a wrong checksum"):
        list(flipped(image, block * BLOCK + 20).extents(handle, 0, inode.size))


def test_a_block_of_attributes_with_a_wrong_checksum_is_damage(image: bytes) -> None:
    system = ExtFileSystem(BytesDevice(image))
    handle = handle_of(system, b"attributed")
    block = system._tree.inode(number_of(system, b"attributed")).file_acl
    assert system.xattrs(handle) == {b"user.long": b"v" * 600}

    with pytest.raises(Damaged, match="attributes has a wrong checksum"):
        flipped(image, block * BLOCK + BLOCK - 100).xattrs(handle)
