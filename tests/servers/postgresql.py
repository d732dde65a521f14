"""Debian's PostgreSQL, in a folder of its own and run as an ordinary user, as it insists on."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from servers.processes import Running, Unavailable, free_ports

from backgate.gateway.metadata.postgresql import Server

USER, PASSWORD = "backgate", "a secret of the tests"
PROGRAMS = Path("/usr/lib/postgresql")  # Debian keeps one folder per version there
SETTINGS = {
    "fsync": "off",  # the folder lives no longer than the tests
    "shared_buffers": "32MB",
    "max_connections": "100",
    "autovacuum_naptime": "5s",
}
ENDS_WITH_US = ["setpriv", "--pdeathsig", "KILL"]


class PostgreSQL:
    """A server on loopback that can be stopped and started again."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self._home, self._settings = home, {**SETTINGS, **settings}
        (self.port,) = free_ports(1)
        self.password_file = home / "password"
        self._as_user = _as_ordinary_user(home)
        self._initialise()
        self.start()

    def url(self, schema: str | None = None) -> str:
        """Return the URL, without a password, of the index in `schema`; else of a new one."""
        name = schema or f"t{uuid.uuid4().hex[:12]}"
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres?schema={name}"

    def server(self, schema: str | None = None) -> Server:
        """Return the same, with the password, as the index takes it."""
        url, _, parameter = self.url(schema).partition("?schema=")
        return Server(url, parameter, PASSWORD)

    def start(self) -> None:
        options = [f"-c{key}={value}" for key, value in self._settings.items()]
        options += [f"-k{self._home}", "-hlocalhost", f"-p{self.port}", f"-D{self._data}"]
        command = [*self._as_user, *ENDS_WITH_US, str(_program("postgres")), *options]
        self._running = Running(command, self._home / "log")
        self._running.wait_until(self._answers)

    def stop(self) -> None:
        """End it as an administrator does; connections are closed at once."""
        self._running.process.send_signal(signal.SIGINT)
        self._running.process.wait(30)

    def sql(self, statement: str) -> str:
        """Return what psql prints for `statement`."""
        command = [str(_program("psql")), "-XAtq", "-h", "127.0.0.1", "-p", str(self.port)]
        command += ["-U", USER, "-d", "postgres", "-c", statement]
        environment = os.environ | {"PGPASSWORD": PASSWORD}
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _initialise(self) -> None:
        self.password_file.write_text(PASSWORD)
        self.password_file.chmod(0o600)
        if self._as_user:
            shutil.chown(self._home, "postgres", "postgres")
            shutil.chown(self.password_file, "postgres", "postgres")
        command = [*self._as_user, str(_program("initdb")), "-N", "-A", "scram-sha-256"]
        command += ["-U", USER, "--pwfile", str(self.password_file), "-D", str(self._data)]
        subprocess.run(command, check=True, capture_output=True, cwd="/")
        if self._as_user:
            shutil.chown(self.password_file, "root", "root")

    def _answers(self) -> bool:
        command = [str(_program("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0


@contextmanager
def postgresql(settings: Mapping[str, str] | None = None) -> Iterator[PostgreSQL]:
    """Run a server, with `settings` beside those of tests, while the context is open."""
    with tempfile.TemporaryDirectory(prefix="backgate-postgresql-") as directory:
        server = PostgreSQL(Path(directory), settings or {})
        try:
            yield server
        finally:
            server.stop()


def _program(name: str) -> Path:
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise Unavailable(f"the program {name} is missing: apt-get install postgresql")
    return found[-1]


def _as_ordinary_user(home: Path) -> list[str]:
    """Return how to begin a command that must not be run by root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise Unavailable("there is no user postgres: apt-get install postgresql") from None
    home.chmod(0o755)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
