"""A gateway as its users run it: the installed command, a configuration file, a real mount."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

COMMAND = Path(sys.executable).parent / "backgate"
READY_WITHIN = 120.0  # seconds
NOTICE_WITHIN = 0.5  # seconds until it is looked whether the process has ended instead
ENDED_WITHIN = 200.0  # seconds; an umount first stores what is pending


class Gateway:
    """One configured repository, `store`, with all that belongs to it below `home`."""

    def __init__(
        self, home: Path, table: Mapping[str, object], environment: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self.mountpoint = home / "mnt"
        self.mountpoint.mkdir(parents=True, exist_ok=True)
        self.config = home / "backgate.toml"
        self.log = home / "log"
        self.configure(table)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "BACKGATE_CONFIG": str(self.config),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "AWS_EC2_METADATA_DISABLED": "true",
            **(environment or {}),
        }
        (home / "run").mkdir(mode=0o700, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def repository(self) -> Path:
        return self.mountpoint / "repository"

    @property
    def backups(self) -> Path:
        return self.mountpoint / "backups"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def configure(self, table: Mapping[str, object]) -> None:
        """Write the configuration: one repository named `store`."""
        lines = ["[repository.store]"]
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def run(
        self, *arguments: str, check: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `backgate ARGUMENTS` to its end."""
        result = subprocess.run(
            [str(COMMAND), *arguments],
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if check and result.returncode:
            raise AssertionError(f"backgate {arguments}: {result.returncode}\n{result.stderr}")
        return result

    def json(self, *arguments: str) -> object:
        """Run `backgate ARGUMENTS --json` and return what it printed."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def statuses(self) -> list[dict[str, Any]]:
        """Return what mounts below `home` tell; as root one is told of everybody's."""
        found = self.json("status")
        assert isinstance(found, list)
        return [one for one in found if Path(one["mountpoint"]).is_relative_to(self.home)]

    def mount(self, *options: str, target: str = "store") -> None:
        """Mount in the foreground of a child; returns once it reports that it answers."""
        address = self.home / "notify.sock"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(address))
            notices.settimeout(NOTICE_WITHIN)
            self.begin_mount(*options, target=target, NOTIFY_SOCKET=str(address))
            assert self._process is not None
            until = time.monotonic() + READY_WITHIN
            notice = b""
            while b"READY=1" not in notice:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.kill()
                    raise AssertionError(f"not ready: {self.log.read_text()}")
                with suppress(TimeoutError):
                    notice = notices.recv(4096)

    def begin_mount(self, *options: str, target: str = "store", **more: str) -> None:
        """Start the process of a mount, and return at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(COMMAND), "mount", target, str(self.mountpoint), "--foreground", *options],
                env=self.environment | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def umount(self) -> None:
        """Unmount as users do, and expect the process to end well."""
        self.run("umount", str(self.mountpoint))
        self.ended()

    def mount_elsewhere(self) -> None:
        """Unmount, and mount as another host does: with what is in the store and nothing else."""
        self.umount()
        for name in ("cache", "state"):
            shutil.rmtree(self.home / name)
        self.mount()

    def ended(self) -> None:
        """Wait for the process; a bad exit code fails."""
        assert self._process is not None
        code = self._process.wait(ENDED_WITHIN)
        self._process = None
        assert code == 0, self.log.read_text()[-4000:]

    def terminate(self) -> None:
        """SIGTERM, as systemd stops a service."""
        os.kill(self.pid, signal.SIGTERM)
        self.ended()

    def kill(self) -> None:
        """End it as a crash would; the dead mount point stays behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def resident(self) -> int:
        """Return the peak of resident memory, in bytes (VmHWM of proc(5))."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        """Leave nothing behind, whatever state the test ended in."""
        self.kill()
        if os.path.ismount(self.mountpoint) or _is_dead(self.mountpoint):
            subprocess.run(["fusermount3", "-uzq", str(self.mountpoint)], check=False)


@contextmanager
def gateway(
    home: Path, table: Mapping[str, object], environment: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    """Provide a `Gateway` and clean up after it."""
    made = Gateway(home, table, environment)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(home / "cache", ignore_errors=True)


def _is_dead(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return True
    return False


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def anew(file: BinaryIO) -> bytes:
    """Read an open file from its start, and nothing of it from the kernel's pages."""
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file.seek(0)
    return file.read()
