"""A network that machines boot from: a bridge with an address, DHCP and TFTP by dnsmasq, and the big files by HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import HostFault
from lab.shell import ip, run

BRIDGE = "rfpxe"
# iPXE need not wait for a second server that names the file (https://ipxe.org/howto/dhcpd: ipxe.no-pxedhcp).
_NO_PROXY = "--dhcp-option-force=encap:175,176,1b"
# Ironic writes there what one that it deploys is to boot; all others boot our ramdisk.
_IPXE = """#!ipxe
chain {http}/ironic/pxelinux.cfg/${{net0/mac:hexhyp}} ||
kernel {http}/vmlinuz console=ttyS0 quiet loglevel=4 BOOTIF=01-${{net0/mac:hexhyp}} {arguments}
initrd {http}/ramdisk.gz
initrd {http}/access.gz
boot
"""


@dataclass
class PxeNetwork:
    """dir: of what is served, all of it readable by whoever is on that network. net: the first three octets."""

    dir: Path
    net: str
    http_port: int
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)
    _has_bridge: bool = False

    @property
    def address(self) -> str:
        """Return this machine's address there."""
        return f"{self.net}.1"

    @property
    def http(self) -> str:
        return f"http://{self.address}:{self.http_port}"

    def bridge_up(self) -> None:
        """Make the bridge. Raise HostFault when another lab has it."""
        if Path(f"/sys/class/net/{BRIDGE}").exists():
            fix = f"end the other lab, or: ip link del {BRIDGE}"
            raise HostFault(f"there is a bridge {BRIDGE} already", "lab", fix=fix)
        self._has_bridge = True
        ip(f"link add {BRIDGE} type bridge", f"addr add {self.address}/24 dev {BRIDGE}", f"link set {BRIDGE} up")

    def serve(self, kernel: Path, ramdisk: Path, access: Mapping[str, Path], arguments: str) -> None:
        """Offer a ramdisk to whatever boots there. access: what goes into it beside its image, path -> file.

        arguments: for its kernel.
        """
        self.dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kernel, self.dir / "vmlinuz")
        shutil.copyfile(ramdisk, self.dir / "ramdisk.gz")
        make_archive(self.dir / "access.gz", access)
        (self.dir / "boot.ipxe").write_text(_IPXE.format(http=self.http, arguments=arguments))
        leases = self.dir.parent / "leases"
        self._run(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", f"--interface={BRIDGE}",
            "--except-interface=lo", "--bind-interfaces", f"--dhcp-range={self.net}.100,{self.net}.200,1h",
            "--dhcp-option=3", "--dhcp-option=6", _NO_PROXY, "--enable-tftp", f"--tftp-root={self.dir}",
            "--dhcp-boot=boot.ipxe", f"--dhcp-leasefile={leases}", f"--pid-file={self.dir.parent}/dnsmasq.pid",
            "--user=root", "--log-facility=-",
        )  # fmt: skip
        self._run(
            sys.executable, "-m", "http.server", str(self.http_port), "--bind", self.address, "--directory",
            str(self.dir),
        )  # fmt: skip

    def offer(self, file: Path) -> str:
        """Let machines fetch a file; return where."""
        target = self.dir / file.name
        target.unlink(missing_ok=True)
        try:
            os.link(file, target)
        except OSError:  # on another file system
            shutil.copyfile(file, target)
        return f"{self.http}/{file.name}"

    def stop(self) -> None:
        """End it, and take the bridge away."""
        for process in self._running:
            process.kill()  # they keep nothing
        for process in self._running:
            process.wait()
        self._running.clear()
        if self._has_bridge:  # else it is another lab's
            ip(f"link del {BRIDGE}", check=False)

    def _run(self, *argv: str) -> None:
        with (self.dir.parent / f"{Path(argv[0]).name}.log").open("ab") as out:
            self._running.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out))


def make_archive(target: Path, files: Mapping[str, Path]) -> None:
    """Write a compressed cpio archive, which a kernel unpacks over its ramdisk. files: path in it -> file."""
    folder = target.with_suffix(".tree")
    shutil.rmtree(folder, ignore_errors=True)
    for path, file in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
        place.chmod(0o600)
    script = 'cd "$1" && find . -mindepth 1 | cpio -o -H newc --quiet -R 0:0 | gzip -9 > "$2"'
    run(["sh", "-c", script, "sh", str(folder), str(target)])
    shutil.rmtree(folder)
