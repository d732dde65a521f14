"""Write repositories as Xen Orchestra does, and as it leaves them when it is interrupted."""

import gzip
import hashlib
import json
import lzma
import os
import struct
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brotli
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

DATA = Path(__file__).parent.parent / "data" / "xen-orchestra"
KEY = b"0123456789abcdef0123456789ABCDEF"
SAMPLES = ("vhd", "encrypted", "full", "partial", "meta")
BLOCK = 2 << 20  # bytes
SECTOR = 512  # bytes
BITMAP = b"\xff" * SECTOR
VM = "f0c1d2e3-0000-4000-8000-00000000aaaa"
JOB = "b0b0b0b0-1111-4111-8111-000000000001"
T1, T2, T3 = "20260801T010000Z", "20260802T010000Z", "20260803T010000Z"
FILTERS = {
    "brotli": lambda data: brotli.compress(data, quality=0),
    "gzip": lambda data: gzip.compress(data, 1),
}

Block = tuple[bytes, bytes]  # bitmap, data


def unpack_sample(name: str, store: Path) -> Path:
    """Unpack a repository that the real tool wrote; returns its directory."""
    with lzma.open(DATA / f"{name}.tar.xz") as file, tarfile.open(fileobj=file) as archive:
        archive.extractall(store)
    return store / name


def unseal(sealed: Path, store: Path) -> None:
    """Write an encrypted repository as it would be without encryption."""
    for path in sealed.rglob("*"):
        below = path.relative_to(sealed)
        if path.is_file() and len(below.parts) > 1:
            data = path.read_bytes()
            target = store / below
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(ChaCha20Poly1305(KEY).decrypt(data[:12], data[12:], None))


def manifest() -> Any:
    """What is on the disks of the samples."""
    return json.loads((DATA / "manifest.json").read_text())


def footer(size: int, identity: bytes, *, kind: int, header_at: int = 512) -> bytes:
    """Return the footer of a VHD."""
    made = bytearray(512)
    struct.pack_into(
        ">8sIIQI4sI4sQQ",
        made,
        0,
        b"conectix",
        2,
        0x10000,
        header_at,
        0,
        b"xo  ",
        0,
        b"Wi2k",
        size,
        size,
    )
    struct.pack_into(">I", made, 60, kind)
    made[68:84] = identity
    return _summed(made, 64)


def header(
    entries: int,
    *,
    parent: bytes = bytes(16),
    name: str = "",
    table_at: int = 1536,
    block: int = BLOCK,
) -> bytes:
    """Return the header of a dynamic or differencing VHD."""
    made = bytearray(1024)
    struct.pack_into(
        ">8sQQIII", made, 0, b"cxsparse", (1 << 64) - 1, table_at, 0x10000, entries, block
    )
    made[40:56] = parent
    encoded = name.encode("utf-16-be")
    made[64 : 64 + len(encoded)] = encoded
    return _summed(made, 36)


def _summed(made: bytearray, at: int) -> bytes:
    struct.pack_into(">I", made, at, ~sum(made) & 0xFFFF_FFFF)
    return bytes(made)


@dataclass
class Image:
    """One VHD that was written."""

    path: str  # of the file, alias or directory, below the VM's directory
    data: str  # of the VHD directory; the same as `path` for a file
    identity: bytes
    content: bytes
    blocks: dict[int, Block]


@dataclass
class Writer:
    """Writes one repository of one VM into the folder `store`."""

    store: Path
    directories: bool = True
    filter: str | None = "brotli"
    algorithm: str | None = None
    alias: bool = True
    vm: str = VM
    name: str = "web"
    images: dict[tuple[str, str], Image] = field(default_factory=dict)  # by disk, time

    def __post_init__(self) -> None:
        if self.algorithm is not None:
            self.store.mkdir(parents=True, exist_ok=True)
            (self.store / "encryption.json").write_text(json.dumps({"algorithm": self.algorithm}))
            self.put("metadata.json", json.dumps({"random": str(uuid.uuid4())}).encode())

    @property
    def top(self) -> str:
        """The VM's directory."""
        return f"xo-vm-backups/{self.vm}"

    def put(self, path: str, data: bytes) -> None:
        """Write one object, encrypted where the repository is."""
        if self.algorithm is not None:
            cipher = ChaCha20Poly1305 if self.algorithm.startswith("chacha") else AESGCM
            nonce = os.urandom(12)
            data = nonce + cipher(KEY).encrypt(nonce, data, None)
        file = self.store / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def back_up(self, time: str, disks: Mapping[str, bytes], *, full: bool = False) -> None:
        """Write a backup of `disks` (name -> content), as differences to the one before."""
        for disk, content in disks.items():
            before = [at for one, at in self.images if one == disk]
            self.write_image(disk, time, content, None if full or not before else max(before))
        self.write_metadata(time, list(disks))

    def write_image(self, disk: str, time: str, content: bytes, parent: str | None) -> Image:
        """Write the VHD of one disk; of one on top of `parent` only blocks that differ."""
        old = b"" if parent is None else self.images[disk, parent].content
        blocks: dict[int, Block] = {}
        for number in range(-(-len(content) // BLOCK)):
            now = content[number * BLOCK : (number + 1) * BLOCK].ljust(BLOCK, b"\0")
            then = old[number * BLOCK : (number + 1) * BLOCK].ljust(BLOCK, b"\0")
            if now != then:
                blocks[number] = (BITMAP, now)
        return self.write_blocks(disk, time, content, blocks, parent)

    def write_blocks(
        self, disk: str, time: str, content: bytes, blocks: dict[int, Block], parent: str | None
    ) -> Image:
        """Write a VHD of exactly these blocks."""
        folder = f"vdis/{JOB}/{disk}"
        suffix = ".alias.vhd" if self.directories and self.alias else ".vhd"
        path = f"{folder}/{time}{suffix}"
        data = f"{folder}/data/{time}.vhd" if self.directories and self.alias else path
        image = Image(path, data, uuid.uuid4().bytes, content, blocks)
        self.images[disk, time] = image
        above = None if parent is None else self.images[disk, parent]
        self.write_vhd(image, above)
        return image

    def write_vhd(self, image: Image, parent: Image | None, *, entries: int | None = None) -> None:
        """Write what `image` says to where it says."""
        count = -(-len(image.content) // BLOCK) if entries is None else entries
        kind = 3 if parent is None else 4
        tail = footer(len(image.content), image.identity, kind=kind)
        about = (
            {} if parent is None else {"parent": parent.identity, "name": Path(parent.path).name}
        )
        head = header(count, **about)  # type: ignore[arg-type]
        if not self.directories:
            self.put(f"{self.top}/{image.path}", vhd_file(tail, head, image.blocks))
            return
        where = f"{self.top}/{image.data}"
        if self.filter is not None:
            self.put(f"{where}/chunk-filters.json", json.dumps([self.filter]).encode())
        self.chunk(f"{where}/footer", tail)
        self.chunk(f"{where}/header", head)
        self.chunk(f"{where}/bat", table(image.blocks, count))
        for number, block in image.blocks.items():
            self.chunk(self.block_path(image, number), b"".join(block))
        if self.alias:
            name = image.data.removeprefix(image.path.rpartition("/")[0] + "/")
            self.put(f"{self.top}/{image.path}", name.encode())

    def block_path(self, image: Image, number: int) -> str:
        """Where the object of a block lies."""
        return f"{self.top}/{image.data}/blocks/{number // 1000}/{number % 1000}"

    def chunk(self, path: str, data: bytes) -> None:
        """Write one object of a VHD directory."""
        self.put(path, data if self.filter is None else FILTERS[self.filter](data))

    def write_metadata(self, time: str, disks: Sequence[str], **more: object) -> None:
        """Write the document that makes the backup a complete one."""
        refs = {disk: f"OpaqueRef:{disk}" for disk in disks}
        document = {
            "version": "2.0.0",
            "mode": "delta",
            "jobId": JOB,
            "size": sum(len(self.images[disk, time].content) for disk in disks),
            "vm": {"uuid": self.vm, "name_label": self.name, "is_a_snapshot": 0},
            "vdis": {
                ref: {
                    "uuid": str(uuid.UUID(bytes=self.images[disk, time].identity)),
                    "name_label": disk,
                    "virtual_size": len(self.images[disk, time].content),
                }
                for disk, ref in refs.items()
            },
            "vhds": {ref: self.images[disk, time].path for disk, ref in refs.items()},
            "vbds": {
                f"vbd-{disk}": {
                    "VDI": ref,
                    "device": f"xvd{'abcdefgh'[number]}",
                    "userdevice": str(number),
                }
                for number, (disk, ref) in enumerate(refs.items())
            },
        }
        self.put(f"{self.top}/{time}.json", json.dumps(document | more).encode())


def table(blocks: Mapping[int, Block], entries: int) -> bytes:
    """Return a bitmap of blocks, eight times as long as it need be, as the real ones are."""
    made = bytearray(max(entries, 1))
    for number in blocks:
        made[number >> 3] |= 0x80 >> (number & 7)
    return bytes(made)


def vhd_file(
    tail: bytes,
    head: bytes,
    blocks: Mapping[int, Block],
    *,
    order: Sequence[int] = (),
    gap: int = 0,
) -> bytes:
    """Return a VHD file; `order` is that of the blocks in it, `gap` bytes lie between them."""
    table_at = int.from_bytes(head[16:24], "big")
    entries = int.from_bytes(head[28:32], "big")
    size = -(-entries * 4 // SECTOR) * SECTOR
    made = bytearray((tail + head).ljust(table_at, b"\0"))
    at = table_at + size
    positions, stored = [0xFFFF_FFFF] * entries, bytearray()
    for number in order or sorted(blocks):
        positions[number] = (at + len(stored)) // SECTOR
        stored += b"".join(blocks[number]) + bytes(gap)
    made += struct.pack(f">{entries}I", *positions).ljust(size, b"\xff") + stored + tail
    return bytes(made)


def disk(size: int, seed: str) -> bytes:
    """Return a disk of `size` bytes: mostly zeros, with a few kilobytes of its own in each MiB."""
    made = bytearray(size)
    for at in range(0, size, 1 << 20):
        some = hashlib.sha256(f"{seed}{at}".encode()).digest() * 100
        made[at : at + len(some)] = some
    return bytes(made[:size])


def changed(content: bytes, number: int, seed: str, *, size: int | None = None) -> bytes:
    """Return a disk with block `number` changed, and of another size."""
    made = bytearray(content.ljust(size or len(content), b"\0"))
    some = hashlib.sha256(seed.encode()).digest() * 50
    at = number * BLOCK + 4096
    made[at : at + len(some)] = some
    return bytes(made[: size or len(content)])
