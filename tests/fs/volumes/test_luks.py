"""LUKS, against volumes that dm-crypt has written (`tests/data/images/make_volumes.sh`)."""

import struct
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
import trio
from support.disks import BytesDevice, FileDevice, found_in, sectors, unpacked_disks

from backgate.fs.parser.messages import Disk
from backgate.fs.parser.parser import Parser
from backgate.fs.parser.places import Places
from backgate.fs.volume import Volume
from backgate.fs.volumes import key_costs
from backgate.fs.volumes.discovery import Found
from backgate.fs.volumes.luks import Luks
from backgate.gateway.errors import Damaged
from backgate.gateway.source import Bytes, Source

pytestmark = pytest.mark.slow

NAMES = ["xts-of-1", "essiv-of-1", "small-sectors", "large-sectors"]
SECTORS = 48  # that are written in each
JSON_AT, COPY = 4096, 16384  # bytes: where the text of a LUKS2 header begins, and where it ends


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = unpacked_disks("luks.tar.xz", tmp_path_factory.mktemp("luks"))
    return {name.removeprefix("luks-"): path for name, path in paths.items()}


def only(device: FileDevice | BytesDevice, *secrets: bytes) -> Found:
    (found,) = found_in(device, secrets=secrets).values()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_opened_volume_is_what_the_kernel_has_written(
    images: dict[str, Path], name: str
) -> None:
    clear = only(FileDevice(images[name]), b"another one", b"one pass").volume.device

    whole = sectors(name, 0, SECTORS)
    assert clear.read_at(0, len(whole)) == whole
    for offset, length in [(0, 1), (511, 2), (4095, 4098), (5000, 12_345)]:
        assert clear.read_at(offset, length) == whole[offset : offset + length]
    assert clear.read_at(clear.size - 3, 100) == clear.read_at(clear.size - 3, 3) != b""
    assert clear.read_at(clear.size, 1) == b""
    assert [extent.disk for extent in clear.extents(0, 1 << 60)] == [-2]


def test_each_passphrase_of_a_volume_opens_it(images: dict[str, Path]) -> None:
    clear = only(FileDevice(images["large-sectors"]), b"another").volume.device

    assert clear.read_at(0, 512) == sectors("large-sectors", 0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_that_stays_locked_says_what_is_to_be_set(
    images: dict[str, Path], name: str
) -> None:
    device = FileDevice(images[name])

    without, wrong = only(device), only(device, b"One pass", b"")

    assert "needs a passphrase: set secrets = { image = " in without.problem
    assert "no passphrase of secrets = { image = " in wrong.problem
    assert without.volume.device.read_at(0, 6) == b"LUKS\xba\xbe"  # its bytes are still to be had


@pytest.mark.parametrize("bent", [range(6), range(448, 460), range(JSON_AT, JSON_AT + 8)])
def test_the_second_header_stands_in_for_the_first(images: dict[str, Path], bent: range) -> None:
    data = bytearray(images["large-sectors"].read_bytes())
    for at in bent:
        data[at] ^= 0xFF

    clear = only(BytesDevice(data), b"one pass").volume.device

    assert clear.read_at(0, 512) == sectors("large-sectors", 0, 1)


def with_text(image: Path, *, old: str, new: str) -> BytesDevice:
    """Return a LUKS2 image with `old` replaced in its text, with right checksums."""
    data = bytearray(image.read_bytes())
    for at in (0, COPY):
        text = bytes(data[at + JSON_AT : at + COPY]).split(b"\0")[0].decode()
        assert old in text
        changed = text.replace(old, new).encode()[: COPY - JSON_AT]
        data[at + JSON_AT : at + COPY] = changed.ljust(COPY - JSON_AT, b"\0")
        data[at + 448 : at + 512] = bytes(64)
        data[at + 448 : at + 480] = sha256(data[at : at + COPY]).digest()
    return BytesDevice(data)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"memory":8192', '"memory":1073741824', "costs more than is allowed"),
        ('"time":4', '"time":1000000000', "costs more than is allowed"),
        ('"cpus":1', '"cpus":0', "0 lanes"),
        ('"iterations":1000', '"iterations":4000000000', "too many"),
        ('"stripes":4000', '"stripes":4000000000', "stripes"),
        ('"key_size":32', '"key_size":4000000000', "key of"),
        ('"offset":"32768"', '"offset":"9223372036854775000"', "do not fit"),
        ('"sector_size":4096', '"sector_size":48', "sectors of 48"),
        ('"dynamic"', '"1152921504606846976"', "the disk is cut"),
        ('"aes-xts-plain64"', '"serpent-xts-plain64"', "serpent"),
        ('"hash":"sha256"', '"hash":"md5"', "md5"),
        ('"config":{', '"config":{"requirements":{"mandatory":["online-reencrypt"]},', "anew"),
        ('"type":"crypt"', '"type":"hw-opal-crypt"', "hw-opal"),
        ('"sector_size":4096', '"sector_size":4096,"integrity":{"type":"x"}', "authentication"),
        ("{", "[" * 3000, "LUKS header"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_a_header_that_means_harm_or_is_not_supported_is_refused_at_once(
    images: dict[str, Path], old: str, new: str, reason: str
) -> None:
    bent = with_text(images["large-sectors"], old=old, new=new)
    begun = time.process_time()

    found = only(bent, b"one pass")

    assert reason in found.problem
    assert time.process_time() - begun < 5


def test_trying_passphrases_comes_to_an_end(
    images: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_costs, "PATIENCE", 0.0)

    assert "takes too long" in only(FileDevice(images["xts-of-1"]), b"one pass").problem


def test_what_has_opened_one_volume_is_tried_first_on_the_next(images: dict[str, Path]) -> None:
    layer, volumes = Luks(), []
    secrets = [b"wrong %d" % number for number in range(3)] + [b"one pass"]
    for name in ("large-sectors", "large-sectors"):
        volume = Volume(name=name, device=FileDevice(images[name]), kind="disk")
        begun = time.process_time()
        volumes += [*layer.volumes([volume], secrets), time.process_time() - begun]

    assert volumes[0].problem == volumes[2].problem == ""
    assert volumes[3] < volumes[1]


def formatted(path: Path, options: str) -> bytes:
    """Return a LUKS2 image that cryptsetup has made."""
    with path.open("wb") as file:
        file.truncate(17 << 20)
    options = f"luksFormat --type luks2 {options} --pbkdf-force-iterations 4"
    subprocess.run(
        ["cryptsetup", "-q", *options.split(), "--key-file", "-", path],
        input=b"one pass",
        check=True,
        capture_output=True,
    )
    return path.read_bytes()


@pytest.mark.parametrize(
    "mebibytes",
    [64, pytest.param(1024, marks=pytest.mark.soak)],  # the larger is what cryptsetup prefers
)
async def test_a_key_is_derived_in_the_worker_whatever_cryptsetup_lets_it_cost(
    tmp_path: Path, mebibytes: int
) -> None:
    image = formatted(tmp_path / "image", f"--pbkdf argon2id --pbkdf-memory {mebibytes << 10}")

    async def no_siblings(disk: int, name: str) -> Source | None:
        return None

    parser = Parser(
        "an image",
        [Disk("xvda", "raw", 0)],
        [Bytes(image)],
        passphrases=[b"one pass"],
        siblings=no_siblings,
        places=Places(),
        memory=8 << 20,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parser.run)
        (volume,) = (await parser.volumes()).volumes
        nursery.cancel_scope.cancel()

    assert volume.kind == "luks"
    assert volume.size == 1 << 20
    assert "encrypted with" not in volume.problem


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_a_header_without_what_it_encrypts_says_so(tmp_path: Path, kind: str) -> None:
    header, data = tmp_path / "header", tmp_path / "data"
    for path in (header, data):
        with path.open("wb") as file:
            file.truncate(17 << 20)
    cost = "--pbkdf-force-iterations 1000 --pbkdf pbkdf2 --use-urandom --key-file -"
    subprocess.run(
        ["cryptsetup", "-q", "luksFormat", "--type", kind, *cost.split(), "--header", header, data],
        input=b"one pass",
        check=True,
        capture_output=True,
    )

    assert "only its header" in only(FileDevice(header), b"one pass").problem


def test_a_file_system_that_was_laid_over_a_volume_counts(
    images: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_bytes(Random(3).randbytes(9000))
    options = ["-quiet", "-no-progress"]
    subprocess.run(["mksquashfs", tmp_path / "from", tmp_path / "over", *options], check=True)
    over = (tmp_path / "over").read_bytes()
    before = images["large-sectors"].read_bytes()

    found = only(BytesDevice(over + before[len(over) :]), b"one pass")

    assert len(over) < COPY  # and so its second header is still there
    assert found.file_system == "squashfs"


def test_a_volume_that_was_divided_by_mistake_is_opened_beside_its_parts(
    images: dict[str, Path],
) -> None:
    data = bytearray(images["large-sectors"].read_bytes())
    data[:512] = bytes(512)
    struct.pack_into("<B3xB3xII", data, 446, 0, 0x83, 2048, 2048)
    data[510:512] = b"\x55\xaa"

    found = found_in(BytesDevice(data), secrets=[b"one pass"])

    assert set(found) == {"xvda/0-unknown", "xvda/1-Linux"}
    clear = found["xvda/0-unknown"].volume
    assert clear.device.read_at(0, 512) == sectors("large-sectors", 0, 1)


def test_limits_are_as_before_once_a_key_is_derived(images: dict[str, Path]) -> None:
    script = (
        "import resource, sys\n"
        "from backgate.fs.volumes.luks_keys import Derivation, derived\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 30))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (20, 200))\n"
        "derived(b'x', Derivation('argon2id', b'12345678', 1, memory=1 << 18, lanes=4), 32)\n"
        "print(*resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU))\n"
    )

    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    cpu = int(told.stdout.split("(")[1].split(",")[0])
    assert told.stdout.startswith(f"{1 << 28} {1 << 30} (")
    assert 20 <= cpu < 60


def test_bent_headers_are_damaged_and_no_more(images: dict[str, Path]) -> None:
    random = Random(10)
    for name, stop in (("xts-of-1", 592), ("large-sectors", 512)):
        whole = images[name].read_bytes()
        for _ in range(8):
            data = bytearray(whole)
            for _ in range(random.randrange(1, 4)):
                data[random.randrange(stop)] = random.randrange(256)
            if random.random() < 0.2:
                del data[random.randrange(len(data)) :]
            for found in found_in(BytesDevice(data), secrets=[b"one pass"]).values():
                try:
                    found.volume.device.read_at(0, 4096)
                except Damaged:
                    continue
