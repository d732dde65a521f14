"""What every test may ask for: servers on loopback, each started once and only when needed."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from servers.azurite import Azurite, azurite
from servers.ceph import ceph
from servers.gcs import FakeGcs, fake_gcs
from servers.moto import moto
from servers.postgresql import PostgreSQL, postgresql
from servers.processes import Unavailable
from servers.s3 import S3Server
from servers.seaweedfs import SeaweedFS, seaweedfs

# How long an example takes says how busy the machine is: examples write to disks and start servers.
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
# The same examples each time, whoever runs them: new ones are searched for by who asks for it.
settings.register_profile("backgate", settings.get_profile("search"), derandomize=True)
settings.load_profile("backgate")

CANNOT_RUN = "cannot run here"  # how the reason of a test begins that is skipped for its server

T = TypeVar("T")


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
    for name in [name for name in os.environ if name.startswith(("AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/dev/null")


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


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[S3Server]:
    """A Ceph RADOS Gateway over https."""
    with _or_skipped("Ceph", ceph()) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """moto over https, which behaves as Amazon S3 does."""
    with _or_skipped("moto", moto()) as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[Azurite]:
    """Azurite over http; make a container of your own with `azurite_server.container(name)`."""
    with _or_skipped("Azurite", azurite()) as server:
        yield server


@pytest.fixture(scope="session")
def azurite_tls_server() -> Iterator[Azurite]:
    """Azurite over https; `ca_bundle` is the authority to trust."""
    with _or_skipped("Azurite", azurite(tls=True)) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[FakeGcs]:
    """fake-gcs-server over http; make a bucket of your own with `gcs_server.bucket(name)`."""
    with _or_skipped("fake-gcs-server", fake_gcs()) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_tls_server() -> Iterator[FakeGcs]:
    """fake-gcs-server over https; `ca_bundle` is the authority to trust."""
    with _or_skipped("fake-gcs-server", fake_gcs(tls=True)) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL; `postgresql_server.url()` is that of an index nobody has used."""
    with _or_skipped("PostgreSQL", postgresql()) as server:
        yield server


@contextmanager
def _or_skipped(name: str, server: AbstractContextManager[T]) -> Iterator[T]:
    try:
        running = server.__enter__()
    except Unavailable as error:
        pytest.skip(f"{CANNOT_RUN}: {name}: {error}")
    try:
        yield running
    finally:
        server.__exit__(None, None, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly how many tests were skipped because a server cannot run on this machine."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [str(one.longrepr[2]) for one in reports if isinstance(one.longrepr, tuple)]
    servers = Counter(reason.partition(CANNOT_RUN)[2] for reason in reasons if CANNOT_RUN in reason)
    if servers:
        terminalreporter.section("SERVERS THAT CANNOT RUN HERE", sep="!", red=True, bold=True)
        for name, count in sorted(servers.items()):
            terminalreporter.line(f"{count} tests NOT RUN{name}", red=True, bold=True)
