"""Run the real restic on a repository in a folder, and forge repositories it would not write."""

import base64
import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import zstandard
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

from backgate.fs.formats.restic.crypto import Key, Opener

PASSWORD = "correct horse battery staple"
TIME = "2026-11-20T02:00:00.123456789Z"


class Restic:
    """A repository in the folder `path`, and restic with its password."""

    def __init__(self, path: Path, *, version: int = 2, password: str = PASSWORD) -> None:
        self.path, self.password = path, password
        self("init", "--repository-version", version)
        make_key_cheap(path, password)

    def __call__(
        self, *arguments: object, directory: Path | None = None, stdin: IO[bytes] | None = None
    ) -> str:
        """Run `restic ARGUMENTS` in `directory` and return what it printed."""
        command = ["restic", "-r", str(self.path.absolute()), "--no-cache", *map(str, arguments)]
        settings = {"RESTIC_PASSWORD": self.password, "RESTIC_PROGRESS_FPS": "0.01"}
        result = subprocess.run(
            command,
            cwd=directory,
            stdin=stdin or subprocess.DEVNULL,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout

    def back_up(self, directory: Path, *options: object) -> str:
        """Make a snapshot whose root is what `directory` holds; returns its id."""
        printed = self("backup", "--json", *options, ".", directory=directory)
        (summary,) = [
            message
            for message in map(json.loads, printed.splitlines())
            if message.get("message_type") == "summary"
        ]
        return str(summary["snapshot_id"])

    def objects(self, kind: str) -> list[Path]:
        """Return the files in the folder `kind` (data, index, keys, snapshots), sorted."""
        return sorted(path for path in (self.path / kind).rglob("*") if path.is_file())

    def packs_of(self, kind: str) -> list[Path]:
        """Return the packs that hold blobs of a `kind`: data or tree."""
        found: set[str] = set()
        for path in self.objects("index"):
            index = json.loads(self("cat", "index", path.name))
            for pack in index["packs"]:
                if any(blob["type"] == kind for blob in pack["blobs"]):
                    found.add(pack["id"])
        return [path for path in self.objects("data") if path.name in found]


class Forge:
    """A repository made by hand, in the folder `path`, of whatever bytes a test wants."""

    def __init__(self, path: Path, *, version: int = 2, password: str = PASSWORD) -> None:
        self.path = path
        self.key = Key.of(secrets.token_bytes(64))
        self.version = version
        self.index: list[dict[str, object]] = []
        for folder in ("data", "index", "keys", "snapshots", "locks"):
            (path / folder).mkdir(parents=True)
        self.add_key(password)
        config = {"version": version, "id": secrets.token_hex(32), "chunker_polynomial": "3d"}
        (path / "config").write_bytes(self.seal(json.dumps(config).encode()))

    def add_key(self, password: str, **changes: object) -> Path:
        """Write a key file for `password`; `changes` replace fields of it."""
        return _write_key(self.path, self.key, password, **changes)

    def seal(self, plain: bytes) -> bytes:
        """Return `plain` in an envelope of this repository."""
        return seal(self.key, plain)

    def pack(self, *plains: bytes, kind: str = "data", compress: bool = True) -> list[str]:
        """Write a pack of blobs, note it for the index, and return the blobs' ids."""
        data = b""
        blobs: list[dict[str, object]] = []
        for plain in plains:
            stored = zstandard.compress(plain) if compress and self.version > 1 else plain
            sealed = self.seal(stored)
            id_ = hashlib.sha256(plain).hexdigest()
            blob = {"id": id_, "type": kind, "offset": len(data), "length": len(sealed)}
            if stored is not plain:
                blob["uncompressed_length"] = len(plain)
            blobs.append(blob)
            data += sealed
        name = hashlib.sha256(data).hexdigest()
        folder = self.path / "data" / name[:2]
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        self.index.append({"id": name, "blobs": blobs})
        return [str(blob["id"]) for blob in blobs]

    def tree(self, *nodes: Mapping[str, object]) -> str:
        """Write a tree blob in a pack of its own and return its id."""
        return self.pack(json.dumps({"nodes": nodes}).encode(), kind="tree")[0]

    def file(self, name: str, *plains: bytes, **more: object) -> dict[str, object]:
        """Return a node for a file of these blobs, which are packed together."""
        node = {"name": name, "type": "file", "mode": 0o644, "mtime": TIME}
        node |= {"size": sum(map(len, plains)), "content": self.pack(*plains) if plains else None}
        return node | more

    def write_index(self) -> Path:
        """Write an index file of all packs noted since the last one."""
        packs, self.index = self.index, []
        return self._write_named("index", json.dumps({"packs": packs}).encode())

    def snapshot(self, tree: str, **changes: object) -> Path:
        """Write the index, then a snapshot of `tree`; `changes` replace fields of it."""
        if self.index:
            self.write_index()
        fields = {"time": TIME, "tree": tree, "paths": ["/x"], "hostname": "host", "username": "me"}
        return self._write_named("snapshots", json.dumps(fields | changes).encode())

    def _write_named(self, folder: str, plain: bytes) -> Path:
        if self.version > 1:
            plain = b"\x02" + zstandard.compress(plain)
        return write_named(self.path / folder, self.seal(plain))


def seal(key: Key, plain: bytes) -> bytes:
    """Return `plain` in an envelope: what `Opener` opens."""
    iv = secrets.token_bytes(16)
    body = Cipher(AES(key.encryption), CTR(iv)).encryptor().update(plain)
    nonce = Cipher(AES(key.mac_k), ECB()).encryptor().update(iv)
    return iv + body + Poly1305.generate_tag(key.mac_r + nonce, body)


def write_named(folder: Path, data: bytes) -> Path:
    """Write an object named after its content."""
    path = folder / hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    return path


def make_key_cheap(path: Path, password: str) -> None:
    """Replace the one key file by one of the same password that opens in no time."""
    (old,) = (path / "keys").iterdir()
    file = json.loads(old.read_text())
    salt, data = base64.b64decode(file["salt"]), base64.b64decode(file["data"])
    material = Scrypt(salt=salt, length=64, n=file["N"], r=file["r"], p=file["p"]).derive(
        password.encode()
    )
    master = json.loads(bytes(Opener(Key.of(material)).open(data)))
    mac = master["mac"]
    key = Key(*(base64.b64decode(part) for part in (master["encrypt"], mac["k"], mac["r"])))
    old.unlink()
    _write_key(path, key, password)


def _write_key(path: Path, key: Key, password: str, **changes: object) -> Path:
    salt = secrets.token_bytes(64)
    material = Scrypt(salt=salt, length=64, n=2, r=1, p=1).derive(password.encode())
    mac = {"k": _base64(key.mac_k), "r": _base64(key.mac_r)}
    master = json.dumps({"mac": mac, "encrypt": _base64(key.encryption)}).encode()
    file: dict[str, object] = {"created": TIME, "username": "me", "hostname": "host"}
    file |= {"kdf": "scrypt", "N": 2, "r": 1, "p": 1, "salt": _base64(salt)}
    file |= {"data": _base64(seal(Key.of(material), master))}
    return write_named(path / "keys", json.dumps(file | changes).encode())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def flip(path: Path, offset: int) -> None:
    """Flip the lowest bit of one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
