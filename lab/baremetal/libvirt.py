"""Servers that are libvirt domains of a libvirtd of our own: an empty disk, a card that boots from the network, a BMC.

That libvirtd runs in a mount namespace with folders of its own: it shares nothing with this machine's. QEMU emulates.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from core.errors import HostFault
from lab.hosts import wait_until
from lab.shell import run

HERE = Path(__file__).resolve().parent
_FOLDERS = {
    "run": "/run/libvirt", "etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}  # fmt: skip
# No driver of security, no cgroups and no /dev of its own: one user, one purpose, and nothing left behind.
_QEMU = (
    'security_driver = "none"\nuser = "root"\ngroup = "root"\ndynamic_ownership = 0\ncgroup_controllers = []\n'
    'namespaces = []\nstdio_handler = "file"\n'
)  # fmt: skip
_DAEMON = 'unix_sock_rw_perms = "0700"\nauth_unix_rw = "none"\nlog_outputs = "3:file:/var/log/libvirt/libvirtd.log"\n'


@dataclass(frozen=True)
class Server:
    """A machine that is off, with nothing on its disk."""

    name: str
    uuid: str
    mac: str
    memory_mib: int = 1536
    disk_gib: int = 12


class Libvirt:
    """A libvirtd below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"qemu:///system?socket={self._folder}/run/libvirt-sock"

    def start(self) -> None:
        """Start it and wait for its socket. Raise HostFault."""
        for name, target in _FOLDERS.items():
            (self._folder / name).mkdir(parents=True, exist_ok=True)
            Path(target).mkdir(parents=True, exist_ok=True)
        (self._folder / "etc" / "qemu.conf").write_text(_QEMU)
        (self._folder / "etc" / "libvirtd.conf").write_text(_DAEMON)
        mounts = [f"mount --bind {self._folder}/{name} {target}" for name, target in _FOLDERS.items()]
        script = " && ".join([*mounts, f"exec libvirtd --pid-file {self._folder}/libvirtd.pid"])
        with (self._folder / "libvirtd.out").open("wb") as out:
            self._daemon = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        wait_until(lambda: bool(run(["virsh", "-c", self.uri, "version"], check=False)), limit_s=30)
        if not run(["virsh", "-c", self.uri, "version"], check=False):
            said = " / ".join((self._folder / "libvirtd.out").read_text(errors="replace").splitlines()[-3:])
            raise HostFault(f"libvirtd of the servers does not answer: {said}", "lab")

    def define(self, servers: Sequence[Server], bridge: str) -> None:
        """Make servers with empty disks, off."""
        for server in servers:
            disk = self.file(server, "qcow2")
            disk.unlink(missing_ok=True)
            run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), f"{server.disk_gib}G"])
            xml = self.file(server, "xml")
            xml.write_text(Template((HERE / "server.xml").read_text()).substitute(
                vars(server), bridge=bridge, disk=disk, console=self.file(server, "console"),
                tap=f"{bridge}{server.mac[-2:]}",
            ))  # fmt: skip
            run(["virsh", "-q", "-c", self.uri, "define", str(xml)])

    def file(self, server: Server, kind: str) -> Path:
        """Return a server's disk ("qcow2"), what its console showed ("console"), or its definition ("xml")."""
        return self._folder / f"{server.name}.{kind}"

    def stop(self) -> None:
        """Cut every server's power, then end the daemon."""
        if self._daemon is None:
            return
        for name in run(["virsh", "-c", self.uri, "list", "--name"], check=False).split():
            run(["virsh", "-q", "-c", self.uri, "destroy", name], check=False)
        self._daemon.terminate()
        self._daemon.wait(30)
        self._daemon = None
