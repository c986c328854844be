"""OpenStack Swift as a second S3 server: checks signatures and payloads, and keeps bodies on disk.

Four ordinary processes on 127.0.0.1, without root, memcached or /etc/swift. The package `swift` is
needed in the virtual environment that runs the tests.
"""

import getpass
import importlib
import importlib.util
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

REGION = "us-east-1"
"""What a client signs for where the endpoint names no region."""

PIPELINE = (
    *("catch_errors", "gatekeeper", "listing_formats", "bulk", "s3api", "tempauth", "copy"),
    *("slo", "dlo", "versioned_writes", "symlink"),
)
"""What s3api needs around it: multipart uploads are slo's, versions versioned_writes'. Source:
swift's etc/proxy-server.conf-sample."""


class SwiftServer(NamedTuple):
    """A running server and the one user that it knows."""

    endpoint: str
    key_id: str
    secret: str
    pids: tuple[int, ...]


def is_installed() -> bool:
    """True where `swift` can be imported."""
    return importlib.util.find_spec("swift") is not None


@contextmanager
def running(folder: Path) -> Iterator[SwiftServer]:
    """A server with nothing in it, until the end.

    Args:
        folder: of its configuration, objects and logs.
    """
    ports = dict(zip(("proxy", "account", "container", "object"), _free_ports(4), strict=True))
    (folder / "dev" / "sda").mkdir(parents=True)
    _configure(folder, ports)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for kind in ports:
            start = f"import sys; from swift.{MODULES[kind]}.server import main; sys.exit(main())"
            with (folder / f"{kind}.log").open("wb") as log:
                command = [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-c",
                    start,
                    str(folder / f"{kind}.conf"),
                ]
                servers.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        for port in ports.values():
            _wait_for(port, servers, folder)
        pids = tuple(server.pid for server in servers)
        yield SwiftServer(f"http://127.0.0.1:{ports['proxy']}", "acidburn:tester", "s3cret", pids)
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(20)


MODULES = {"proxy": "proxy", "account": "account", "container": "container", "object": "obj"}


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def _configure(folder: Path, ports: dict[str, int]) -> None:
    rings = importlib.import_module("swift.common.ring")  # not installed everywhere

    common = f"""
        bind_ip = 127.0.0.1
        swift_dir = {folder}
        devices = {folder / "dev"}
        mount_check = false
        log_level = WARNING
        log_address = {folder / "nolog"}
        user = {getpass.getuser()}
        db_preallocation = off
        workers = 1
    """
    write(
        folder / "swift.conf",
        """
        [swift-hash]
        swift_hash_path_suffix = test
        [storage-policy:0]
        name = gold
        default = yes
        """,
    )
    for kind in ("account", "container", "object"):
        ring = rings.RingBuilder(4, 1, 0)  # 16 partitions, one copy
        ring.add_dev(
            {
                "region": 1,
                "zone": 1,
                "weight": 1,
                "ip": "127.0.0.1",
                "port": ports[kind],
                "device": "sda",
            }
        )
        ring.rebalance()
        ring.get_ring().save(str(folder / f"{kind}.ring.gz"))
        write(
            folder / f"{kind}.conf",
            f"""
        [DEFAULT]{common}
        bind_port = {ports[kind]}
        [pipeline:main]
        pipeline = {kind}-server
        [app:{kind}-server]
        use = egg:swift#{kind}
        """,
        )
    own = {
        "tempauth": "user_acidburn_tester = s3cret .admin",
        "s3api": f"location = {REGION}\ns3_acl = false\ndns_compliant_bucket_names = true",
        "versioned_writes": "allow_versioned_writes = true\nallow_object_versioning = true",
    }
    filters = "\n".join(
        f"[filter:{name}]\nuse = egg:swift#{name}\n{own.get(name, '')}" for name in PIPELINE
    )
    write(
        folder / "proxy.conf",
        f"""
        [DEFAULT]{common}
        bind_port = {ports["proxy"]}
        [pipeline:main]
        pipeline = {" ".join(PIPELINE)} proxy-server
        [app:proxy-server]
        use = egg:swift#proxy
        account_autocreate = true
        allow_account_management = false
        """,
        more=filters,
    )


def write(path: Path, text: str, more: str = "") -> None:
    """Writes a configuration without the indentation that it has here."""
    lines = [line.strip() for line in textwrap.dedent(text).splitlines()]
    path.write_text("\n".join([*lines, more]))


def _wait_for(port: int, servers: "list[subprocess.Popen[bytes]]", folder: Path) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if any(server.poll() is not None for server in servers):
                break
            time.sleep(0.05)
    logs = "\n".join(path.read_text() for path in folder.glob("*.log"))
    raise RuntimeError(f"Swift did not start: {logs}")
