"""A real Ceph RADOS Gateway: one monitor, one disk in memory, one gateway, on loopback.

There is no manager, since nothing asked here needs one. An OSD in memory takes 24 KiB for each
object, whatever its size.
"""

import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from servers.processes import Running, answers, free_ports, program, write_certificates
from servers.s3 import ACCESS_KEY, SECRET_KEY, S3Server

GATEWAY = "client.rgw.a"
STARTED_WITHIN = 120  # seconds for each of the commands that prepare something

_CAPABILITIES = {
    "mon.": ["mon", "allow *"],
    "client.admin": ["mon", "allow *", "osd", "allow *", "mgr", "allow *"],
    "osd.0": ["mon", "allow profile osd", "osd", "allow *"],
    GATEWAY: ["mon", "allow rw", "osd", "allow rwx"],
}
# What makes a cluster of one quick: small pools, no copies, no waiting for others to agree.
_SETTINGS = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon}/0]
public_network = 127.0.0.0/8
keyring = {home}/keyring
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
admin_socket = {home}/$name.asok
log_file = {home}/$name.log
crash_dir = {home}
run_dir = {home}
[mon]
mon_data = {home}/mon
mon_cluster_log_file = {home}/cluster.log
paxos_propose_interval = 0.05
paxos_min_wait = 0.02
[osd]
osd_data = {home}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_op_num_shards = 2
osd_class_default_list = *
osd_class_load_list = *
[{gateway}]
rgw_frontends = beast endpoint=127.0.0.1:{http} ssl_endpoint=127.0.0.1:{https} \
ssl_certificate={home}/server.pem ssl_private_key={home}/server.key tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
rgw_run_sync_thread = false
rgw_dynamic_resharding = false
"""


@contextmanager
def ceph() -> Iterator[S3Server]:
    """Run a cluster while the context is open; it answers over TLS."""
    how = "apt-get install radosgw ceph-mon ceph-osd (make setup-test does)"
    for name in ("ceph-mon", "ceph-osd", "radosgw", "ceph-authtool", "monmaptool"):
        program(name, how)
    with tempfile.TemporaryDirectory(prefix="backgate-ceph-") as directory, ExitStack() as stack:
        cluster = _Cluster(Path(directory), stack)
        cluster.start_monitor()
        cluster.start_disk()
        yield cluster.start_gateway()


class _Cluster:
    def __init__(self, home: Path, stack: ExitStack) -> None:
        self._home, self._stack = home, stack
        self._fsid, self._disk = str(uuid.uuid4()), str(uuid.uuid4())
        self._mon, http, self._https = free_ports(3)
        for folder in ("mon", "osd"):
            (home / folder).mkdir()
        self._bundle = write_certificates(home)
        self._conf = home / "ceph.conf"
        ports = {"mon": self._mon, "http": http, "https": self._https}
        settings = _SETTINGS.format(home=home, fsid=self._fsid, gateway=GATEWAY, **ports)
        self._conf.write_text(settings)

    def start_monitor(self) -> None:
        keyring, monmap = f"{self._home}/keyring", f"{self._home}/monmap"
        for name, capabilities in _CAPABILITIES.items():
            pairs = zip(capabilities[::2], capabilities[1::2], strict=True)
            given = [word for pair in pairs for word in ("--cap", *pair)]
            create = [] if (self._home / "keyring").exists() else ["--create-keyring"]
            self._run("ceph-authtool", *create, keyring, "--gen-key", "-n", name, *given)
        address = f"[v2:127.0.0.1:{self._mon}/0]"
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", address, monmap)
        made = ["--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring]
        self._run("ceph-mon", "-c", str(self._conf), *made)
        self._daemon("ceph-mon", "-i", "a")
        # Waits for the monitor by itself.
        self._run("ceph", "-c", str(self._conf), "osd", "new", self._disk, "0")

    def start_disk(self) -> None:
        made = ["-i", "0", "--mkfs", "--osd-uuid", self._disk]
        self._run("ceph-osd", "-c", str(self._conf), *made)
        self._daemon("ceph-osd", "-i", "0")

    def start_gateway(self) -> S3Server:
        gateway = self._daemon("radosgw", "-n", GATEWAY)
        url = f"https://127.0.0.1:{self._https}"
        gateway.wait_until(answers(url, self._bundle))
        user = ["--uid=test", "--display-name=test", "--max-buckets=0"]
        keys = [f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        where = ["-c", str(self._conf), "-n", GATEWAY, "--admin-socket="]
        self._run("radosgw-admin", *where, "user", "create", *user, *keys)
        return S3Server(url, self._bundle)

    def _daemon(self, name: str, *arguments: str) -> Running:
        command = [program(name, ""), "-f", "-c", str(self._conf), *arguments]
        daemon = Running(command, self._home / f"{name}.out")
        self._stack.callback(daemon.end)
        return daemon

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [program(name, ""), *arguments],
            capture_output=True,
            timeout=STARTED_WITHIN,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} {arguments[0]}: {done.stderr.decode(errors='replace')}")
