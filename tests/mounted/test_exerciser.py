"""A file that is exercised at random on a real mount equals a byte array."""

import shutil
from functools import partial
from pathlib import Path

import msgspec
import pytest
from servers.seaweedfs import SeaweedFS
from support.exerciser import Different, Exerciser, Operation, exercise, parsed
from support.gateway import gateway
from support.mounting import mounted
from support.random_script import random_script
from support.repositories import small_parts
from support.syscalls import assert_same
from support.writing import CONFIG

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.units import MIB

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

PRESSED = msgspec.structs.replace(CONFIG, spool=100_000)  # bytes; less than most files have
LAZY = msgspec.structs.replace(CONFIG, durability="journal")


@pytest.mark.parametrize("config", [CONFIG, PRESSED, LAZY], ids=["roomy", "pressed", "lazy"])
@pytest.mark.parametrize("writeback", [False, True], ids=["as-it-comes", "writeback"])
def test_a_file_equals_a_byte_array(
    tmp_path: Path, config: RepositoryConfig, writeback: bool
) -> None:
    make = partial(small_parts, tmp_path, config)
    with mounted(make, tmp_path, writeback=writeback) as mount:
        exercise(mount.path, seed=1, count=500, log=tmp_path / "exerciser.log")


def test_a_failure_tells_how_to_repeat_it(tmp_path: Path) -> None:
    class Forgetful(Exerciser):
        def _append(self, one: int, two: int, three: int) -> None:
            """Leave the model as it was."""
            with self._path.open("ab") as file:
                file.write(b"x")

    steps = [Operation("write", 5, 3, 1), Operation("append", 0, 0, 0), Operation("stat", 0, 0, 0)]
    log = "".join(f"{step}\n" for step in steps)

    with pytest.raises(Different, match="its size is 10, and should be 9"):
        Forgetful(tmp_path).run(steps)
    assert list(parsed(log.splitlines())) == steps


@pytest.mark.parametrize("config", [CONFIG, LAZY], ids=["store", "journal"])
def test_names_equal_those_of_a_local_file_system(tmp_path: Path, config: RepositoryConfig) -> None:
    with mounted(partial(small_parts, tmp_path, config), tmp_path) as mount:
        for seed in range(3):
            here, there = tmp_path / f"local-{seed}", mount.path / f"{seed}"
            here.mkdir()
            there.mkdir()
            assert_same(there, here, random_script(seed, 250))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_hundred_thousand_operations_equal_a_byte_array(tmp_path: Path, seed: int) -> None:
    (tmp_path / "store").mkdir()
    with gateway(tmp_path / "gateway", {"url": f"file://{tmp_path}/store"}) as made:
        made.mount()
        (made.repository / "top").mkdir()
        exercise(made.repository / "top", seed, 100_000, Path(f"exerciser-{seed}.log"))
        made.umount()
    shutil.rmtree(tmp_path / "store")


@pytest.mark.soak
@pytest.mark.live
@pytest.mark.timeout(3600)
def test_a_long_file_in_many_parts_equals_a_byte_array(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    table = {
        "url": f"s3://{seaweedfs_server.bucket('exerciser')}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
        "spool": "80 MiB",
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount()
        log = Path("exerciser-long.log")
        exercise(made.repository, seed=1, count=500, log=log, size=60 * MIB)
        made.umount()
