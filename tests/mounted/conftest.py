"""Mounts that all tests of a module share, each test in a directory of its own."""

import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.mounting import Mounted, mounted
from support.repositories import on_disk, shown


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that other users reach too."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture(scope="module")
def mirror_mount(home: Path) -> Iterator[Mounted]:
    """A repository of kind mirror, alone."""
    (home / "mirror" / "store").mkdir(parents=True)
    make = partial(shown, home / "mirror", on_disk(home / "mirror", kind="mirror"), "repository")
    with mounted(make, home / "mirror", allow_other=True) as mount:
        yield mount


@pytest.fixture(scope="module")
def plain_mount(home: Path) -> Iterator[Mounted]:
    """A repository of the usual kind, alone."""
    (home / "plain" / "store").mkdir(parents=True)
    make = partial(shown, home / "plain", on_disk(home / "plain"), "repository")
    with mounted(make, home / "plain", allow_other=True) as mount:
        yield mount


@pytest.fixture
def mirror(mirror_mount: Mounted, request: pytest.FixtureRequest) -> Path:
    """An empty directory of a mirror."""
    return _own(mirror_mount.path, request)


@pytest.fixture
def plain(plain_mount: Mounted, request: pytest.FixtureRequest) -> Path:
    """An empty directory of a repository of the usual kind."""
    return _own(plain_mount.path, request)


@pytest.fixture
def local(home: Path, request: pytest.FixtureRequest) -> Path:
    """An empty directory of the local file system, to compare with."""
    return _own(home, request)


@pytest.fixture(params=["plain", "mirror"])
def either(request: pytest.FixtureRequest) -> Path:
    """An empty directory of a repository of each kind: there is no difference."""
    path: Path = request.getfixturevalue(request.param)
    return path


def _own(top: Path, request: pytest.FixtureRequest) -> Path:
    path = top / re.sub(r"\W", "_", request.node.name)[:100]
    path.mkdir()
    return path
