"""What every test may ask for: servers on loopback, each started once and only when needed."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings
from servers.seaweedfs import SeaweedFS, seaweedfs

# How long an example takes says how busy the machine is: examples write to disks and start servers.
settings.register_profile("backgate", deadline=None)
settings.load_profile("backgate")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command that ran in this process has set: it would silence later tests."""
    root, ours = logging.getLogger(), logging.getLogger("backgate")
    handlers, level = list(root.handlers), ours.level
    yield
    ours.setLevel(level)
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)


@pytest.fixture(autouse=True)
def _no_credentials_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the machine is configured with out of every test, and every test on loopback."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


@pytest.fixture(scope="session")
def seaweedfs_server() -> Iterator[SeaweedFS]:
    """A SeaweedFS over http; make a bucket of your own with `seaweedfs_server.bucket(name)`."""
    with seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs_tls_server() -> Iterator[SeaweedFS]:
    """A SeaweedFS over https; `ca_bundle` is the authority to trust."""
    with seaweedfs(tls=True) as server:
        yield server
