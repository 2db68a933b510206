"""A VMware host for the lab: govmomi's simulator on loopback, and a blueprint that enrolls it.

It takes VMs, their disks and their content, and runs no guest: a VM that "runs" there answers nothing.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from core.errors import NeedsOperator
from lab import processes
from lab.settings import LabSettings

NAME = "e1"
MARK = "rackflow-lab"  # by which the process is known
_START_S = 20.0
_HOST = """# Written by `lab vsphere`: an ESXi host that is simulated, for `rackflow apply -f`.
hosts:
- name: {name}
  driver: esxi
  address: 127.0.0.1
  port: {port}
  user: user
  password_file: {password}
  fingerprint: SHA256:{thumbprint}
  cpus: 8
  memory: 4GiB
  bridges: [{{name: br0}}]
"""


def folder(settings: LabSettings) -> Path:
    """Return where the simulator keeps its datastores and its log."""
    return settings.dir / "vsphere"


def blueprint(settings: LabSettings) -> Path:
    """Return the file that enrolls it."""
    return settings.dir / "vsphere.yaml"


def start(settings: LabSettings) -> bool:
    """Start the simulator and write its blueprint; False when it runs. Raise NeedsOperator (it was never built)."""
    if list(pids()):
        return False
    binary = Path(os.environ.get("RACKFLOW_VCSIM") or Path(sys.prefix) / "bin" / "vcsim")
    if not binary.exists():
        raise NeedsOperator("there is no vcsim", "lab", fix="install Go 1.23 or newer; scripts/demo --esxi builds it")
    folder(settings).mkdir(parents=True, exist_ok=True)
    told = processes.until_told(
        _process(settings, binary), folder(settings) / "log", "READY ", _START_S, "the lab's VMware host"
    )
    port = int(told.rpartition(":")[2])
    password = folder(settings) / "password"
    password.touch(mode=0o600)
    password.write_text("pass\n")
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest().hex(":").upper()
    blueprint(settings).write_text(_HOST.format(name=NAME, port=port, password=password, thumbprint=digest))
    return True


def _process(settings: LabSettings, binary: Path) -> subprocess.Popen[bytes]:
    """Start it for good: it ends with its standard input, which it holds open itself."""
    fifo = folder(settings) / "stdin"
    if not fifo.exists():
        os.mkfifo(fifo, 0o600)
    stdin = os.open(fifo, os.O_RDWR)
    env = {**os.environ, "TMPDIR": str(folder(settings))}
    try:
        with (folder(settings) / "log").open("wb") as out:
            argv = [str(binary), "-esx", "-for", MARK]
            return subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=out, start_new_session=True, env=env)
    finally:
        os.close(stdin)


def stop() -> None:
    """End it, also that of a lab whose folder is gone."""
    processes.end(2, "-for", MARK)


def pids() -> Iterator[int]:
    """Return the simulators of labs."""
    return processes.like(2, "-for", MARK)
