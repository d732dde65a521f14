"""The contenders that mount a bucket: Backgate, rclone and s3fs, each with sensible options."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from support.gateway import Gateway

from benchmarks.contenders import Contender, Mounted, Server, running
from benchmarks.machine import program

REGION = "us-east-1"  # SeaweedFS takes any; a signature needs one


class Backgate(Contender):
    """This checkout, by its command line."""

    name = "backgate"
    options = "`backgate mount TARGET DIR --foreground`, all settings at their defaults"

    def __init__(
        self,
        home: Path,
        server: Server,
        secrets: dict[str, str],
        *,
        view: str = "all",
        **settings: str | bool,
    ) -> None:
        super().__init__(home)
        self._server, self._secrets, self._settings = server, secrets, settings
        self._view = view
        more = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        more += [] if view == "all" else [f"--view {view}"]
        if more:
            self.name = ", ".join([self.name, *more])
            self.options = f"the same with `{'`, `'.join(more)}`"
        self.gateway = Gateway(home, {}, server.environment())

    @contextmanager
    def mounted(self, bucket: str) -> Iterator[Mounted]:
        gateway = self.gateway
        gateway.configure(
            {
                "url": f"s3://{bucket}",
                "endpoint_url": self._server.endpoint_url,
                "provider": "seaweedfs",
                "secrets": self._secrets,
                **self._settings,
            }
        )
        begun = time.monotonic()
        gateway.mount("--view", self._view)
        root = gateway.mountpoint if self._view == "repository" else gateway.repository
        mounted = Mounted(root, gateway.pid, begun)
        try:
            yield mounted
            mounted.peak = gateway.resident()
            gateway.umount()
        finally:
            gateway.close()

    def settled(self) -> None:
        while True:
            (one,) = cast(list[dict[str, Any]], self.gateway.json("status", "store"))
            if one["metadata"]["is_complete"] and not one["metadata"]["is_due"]:
                return
            time.sleep(1)


class Rclone(Contender):
    """`rclone mount`, with or without its cache on disk."""

    def __init__(self, home: Path, server: Server, mode: str) -> None:
        super().__init__(home)
        self._server, self._mode = server, mode
        self.name = "rclone" if mode == "off" else f"rclone, cache {mode}"
        self.options = f"`rclone mount --vfs-cache-mode {mode}`, the rest at its defaults"
        self.stores_on_close = mode == "off"

    @contextmanager
    def mounted(self, bucket: str) -> Iterator[Mounted]:
        command = [program("rclone"), "mount", f":s3:{bucket}", str(self.mountpoint)]
        command += ["--vfs-cache-mode", self._mode, "--cache-dir", str(self.home / "cache")]
        command += ["--config", str(self.home / "rclone.conf")]
        (self.home / "rclone.conf").touch()
        environment = rclone_environment(self._server)
        with running(command, environment, self.mountpoint, self.home / "log") as mounted:
            yield mounted


class S3fs(Contender):
    """`s3fs`, with or without its cache on disk."""

    def __init__(self, home: Path, server: Server, *, caches: bool) -> None:
        super().__init__(home)
        self._server, self._caches = server, caches
        self.name = "s3fs, use_cache" if caches else "s3fs"
        more = " -o use_cache=DIR" if caches else ""
        self.options = f"`s3fs -f -o use_path_request_style{more}`, the rest at its defaults"

    @contextmanager
    def mounted(self, bucket: str) -> Iterator[Mounted]:
        secret = self.home / "passwd"
        secret.touch(mode=0o600)
        secret.write_text(f"{self._server.access_key}:{self._server.secret_key}\n")
        options = [f"url={self._server.endpoint_url}", f"passwd_file={secret}"]
        options += ["use_path_request_style", f"endpoint={REGION}", f"tmpdir={self.home}"]
        if self._caches:
            (self.home / "cache").mkdir(exist_ok=True)
            options.append(f"use_cache={self.home / 'cache'}")
        command = ["s3fs", bucket, str(self.mountpoint), "-f", "-o", ",".join(options)]
        with running(command, {}, self.mountpoint, self.home / "log") as mounted:
            yield mounted


class ResticMount(Contender):
    """`restic mount` of the repository that lies in the bucket."""

    name = "restic mount"
    options = "`restic mount DIR`, its cache included"

    def __init__(self, home: Path, server: Server, password: Path) -> None:
        super().__init__(home)
        self._server, self._password = server, password

    @contextmanager
    def mounted(self, bucket: str) -> Iterator[Mounted]:
        environment = restic_environment(self._server, bucket, self._password, self.home / "cache")
        command = ["restic", "mount", str(self.mountpoint)]
        with running(command, environment, self.mountpoint, self.home / "log") as mounted:
            yield mounted


def restic_environment(server: Server, bucket: str, password: Path, cache: Path) -> dict[str, str]:
    """Return what restic needs to reach the repository in `bucket`."""
    return {
        **server.environment(),
        "AWS_DEFAULT_REGION": REGION,
        "RESTIC_REPOSITORY": f"s3:{server.endpoint_url}/{bucket}",
        "RESTIC_PASSWORD_FILE": str(password),
        "RESTIC_CACHE_DIR": str(cache),
    }


def restic(environment: dict[str, str], *arguments: str) -> None:
    """Run restic; raises `CalledProcessError` when it fails."""
    subprocess.run(
        ["restic", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def rclone_environment(server: Server) -> dict[str, str]:
    """Return what rclone needs to reach the server as `:s3:`; keys are not for a command line."""
    return {
        "RCLONE_S3_PROVIDER": "SeaweedFS",
        "RCLONE_S3_ENDPOINT": server.endpoint_url,
        "RCLONE_S3_ACCESS_KEY_ID": server.access_key,
        "RCLONE_S3_SECRET_ACCESS_KEY": server.secret_key,
        "RCLONE_S3_REGION": REGION,
        "RCLONE_S3_FORCE_PATH_STYLE": "true",
    }
