"""`python -m tests.contract.firecracker_ready`: say what a real host lacks before its driver is tested there.

What is missing is told all at once, with what to do, and nothing is begun. Exit code 0 if the tests can run, else 1.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from core.errors import RackflowError
from core.settings import DriverSettings
from drivers.hypervisor.firecracker_config import OLDEST, is_too_old
from drivers.transport.base import Endpoint
from drivers.transport.hostkey import scan_host_key
from drivers.transport.ssh import connect

LOOK = """PATH=$PATH:/usr/sbin:/sbin
command -v firecracker >/dev/null || echo no-binary
firecracker --version 2>&1 | sed -n 's/^Firecracker /version /p'
[ -e /dev/kvm ] || echo no-kvm
[ ! -e /dev/kvm ] || { [ -r /dev/kvm ] && [ -w /dev/kvm ]; } || echo closed-kvm
[ -e /dev/net/tun ] || echo no-tun
for tool in ip setsid flock qemu-img ssh; do command -v $tool >/dev/null || echo "tool $tool"; done
[ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo no-root
ip link show rfself0 >/dev/null 2>&1 && echo there
true
"""
HARDWARE = "enable virtualisation in its firmware (in a VM: nested), and modprobe kvm_intel or kvm_amd"
WORDS = {
    "no-binary": "firecracker is not in the PATH: put a release of it there, such as /usr/local/bin/firecracker",
    "no-kvm": f"there is no /dev/kvm: {HARDWARE}",
    "closed-kvm": "/dev/kvm is not open to this user: usermod -aG kvm USER, and log in again",
    "no-tun": "there is no /dev/net/tun: modprobe tun",
    "no-root": "the user is not root and may not use sudo without a password",
    "there": "a bridge rfself0 is there: another self-test runs, or was killed: ip link delete rfself0",
}  # fmt: skip
PACKAGES = {
    "ip": "iproute2", "setsid": "util-linux", "flock": "util-linux", "qemu-img": "qemu-utils", "ssh": "openssh-client",
}  # fmt: skip


def missing(seen: str) -> list[str]:
    """Return what a host lacks, in words, from what LOOK printed there."""
    lines = [line.partition(" ") for line in seen.splitlines()]
    found = [WORDS[what] for what, _, _ in lines if what in WORDS]
    found += [f"there is no {tool}: apt-get install {PACKAGES[tool]}" for what, _, tool in lines if what == "tool"]
    versions = [version for what, _, version in lines if what == "version"]
    if not versions and "no-binary" not in seen:
        found.append("`firecracker --version` says no version: that is no Firecracker")
    return found + [
        f"Firecracker {version} is too old: take {OLDEST[0]}.{OLDEST[1]} or newer"
        for version in versions if is_too_old(version)
    ]  # fmt: skip


async def look(endpoint: Endpoint) -> list[str]:
    """Look at a host. Raise Unreachable, CredentialRejected."""
    transport = await connect(endpoint, DriverSettings())
    try:
        return missing((await transport.run(["sh", "-c", LOOK])).stdout)
    finally:
        await transport.close()


async def main(host: str, key: Path) -> int:
    """Print what is missing; return the exit code."""
    user, _, where = host.rpartition("@")
    address, _, port = where.partition(":")
    try:
        shown = await scan_host_key(address, int(port or 22))
        found = await look(Endpoint("real", address, int(port or 22), user or "root", key, shown.public))
    except RackflowError as error:
        found = [str(error)]
    for line in found:
        print(f"{host}: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(os.environ["RACKFLOW_FIRECRACKER"], Path(os.environ["RACKFLOW_FIRECRACKER_KEY"]))))
