"""What this machine must have for the lab; says what is missing and what to do. Standard library only.

Runs before anything is installed: `python3 -m lab.preflight [--without-packages] [--port N]...`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY_MIB = 3072  # Prefect, PostgreSQL and rackflow take about 1.2 GiB, each host 15-35 MiB, each tiny VM 220 MiB
DISK_MIB = 4096
PACKAGES: dict[str, str] = {  # command -> Debian package
    "ip": "iproute2", "mkfs.ext4": "e2fsprogs", "sshd": "openssh-server", "ssh": "openssh-client",
    "sudo": "sudo", "sysctl": "procps", "libvirtd": "libvirt-daemon-system", "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "lxd": "lxd", "dnsmasq": "dnsmasq-base",
    "busybox": "busybox-static", "cpio": "cpio", "sfdisk": "fdisk", "extlinux": "extlinux",
    "lz4": "lz4",
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What is missing, and what to do about it."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


def problems(*, packages: bool = True, ports: Sequence[int] = (), folder: Path | None = None) -> list[Problem]:
    """Return all that is missing. folder: where the lab's disks will lie; ports: to be free on 127.0.0.1."""
    if os.geteuid() != 0:
        return [Problem("not root", "run it as root (sudo): it makes namespaces, mounts and network devices")]
    where = folder or Path(os.environ.get("LAB_DIR") or "/var/tmp/rackflow-lab")
    found = [problem for look in _LOOKS if (problem := look())]
    found += [problem for problem in (_memory(), _disk(where), _addresses()) if problem]
    found += [problem for port in ports if (problem := _port(port))]
    return [*found, *(_packages() if packages else ())]


def memory_mib(field: str = "MemAvailable") -> int:
    """Return a field of /proc/meminfo; by default what could be used now without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) // 1024
    return 0


def _debian() -> Problem | None:
    release = Path("/etc/os-release")
    text = release.read_text() if release.exists() else ""
    if "debian" in text.lower() and shutil.which("apt-get"):
        return None
    return Problem("this is not Debian (nor derived from it)", "use a machine or VM with Debian 12")


def _architecture() -> Problem | None:
    machine = os.uname().machine
    return None if machine == "x86_64" else Problem(f"processor {machine}", "the guest images are for x86_64")


def _namespaces() -> Problem | None:
    clone = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--cgroup", "true"]
    done = subprocess.run(clone, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return Problem(f"no namespaces ({done.stderr.strip()})", "run on a real kernel or VM, or a privileged container")


def _filesystem(name: str) -> bool:
    return any(line.split()[-1] == name for line in Path("/proc/filesystems").read_text().splitlines())


def _overlay() -> Problem | None:
    if _filesystem("overlay") or _modprobe("overlay"):
        return None
    return Problem("the kernel has no overlay file system", "use a kernel with CONFIG_OVERLAY_FS (module overlay)")


def _loop() -> Problem | None:
    if Path("/dev/loop-control").exists() or _modprobe("loop"):
        return None
    return Problem("no loop devices", "use a kernel with the module loop; in a container pass /dev/loop*")


def _bridge() -> Problem | None:
    """Try a bridge, a veth pair and a TAP in a namespace that vanishes at once."""
    script = "ip link add rfp0 type bridge && ip link add rfp1 type veth peer name rfp2 && ip tuntap add rfp3 mode tap"
    if shutil.which("ip") is None:
        return None  # told as a missing package
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return Problem(f"no bridge, veth or tun ({done.stderr.strip()})", "use a kernel with the modules bridge, veth, tun")


def _mounts() -> Problem | None:
    """Try to mount, in a namespace that vanishes at once: a container may be root and still not be allowed to."""
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    return Problem(f"may not mount ({done.stderr.strip()})", "run on a machine or VM, or a privileged container")


def _cgroups() -> Problem | None:
    if os.access("/sys/fs/cgroup", os.W_OK) and any(Path("/sys/fs/cgroup").iterdir()):
        return None
    return Problem("no control groups to write to", "mount /sys/fs/cgroup writable (version 1 or 2)")


def _modprobe(module: str) -> bool:
    tool = shutil.which("modprobe")
    return tool is not None and subprocess.run([tool, "-q", module], check=False).returncode == 0


def _memory() -> Problem | None:
    available = memory_mib()
    if available >= MEMORY_MIB:
        return None
    return Problem(f"only {available} MiB of memory available", f"{MEMORY_MIB} MiB are needed")


def _disk(folder: Path) -> Problem | None:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free // 2**20
    if free >= DISK_MIB:
        return None
    return Problem(f"only {free} MiB free at {place}", f"{DISK_MIB} MiB are needed: make room, or set LAB_DIR")


def _addresses() -> Problem | None:
    """The lab's networks must not be somebody else's already."""
    net = os.environ.get("LAB_NET") or "198.18"
    if shutil.which("ip") is None:
        return None
    done = subprocess.run(["ip", "-4", "route", "show"], capture_output=True, text=True, check=False)
    taken = [line for line in done.stdout.splitlines() if line.startswith(f"{net}.") and "dev rfctl" not in line]
    if not taken:
        return None
    return Problem(f"{net}.0.0/16 is in use ({taken[0].strip()})", "set LAB_NET to two other octets, e.g. 10.99")


def _port(port: int) -> Problem | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Problem(f"port {port} on 127.0.0.1 is not free ({error.strerror})", "stop what listens there")
    return None


def _packages() -> Iterator[Problem]:
    sbin = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    missing = sorted({package for command, package in PACKAGES.items() if shutil.which(command, path=sbin) is None})
    if missing:
        yield Problem("missing packages", "apt-get install " + " ".join(missing))


_LOOKS: tuple[Callable[[], Problem | None], ...] = (
    _debian, _architecture, _namespaces, _mounts, _overlay, _loop, _bridge, _cgroups,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per problem; return 1 if there is any."""
    parser = argparse.ArgumentParser(prog="python3 -m lab.preflight", description=__doc__)
    parser.add_argument("--without-packages", action="store_true", help="they will be installed")
    parser.add_argument("--port", type=int, action="append", default=[], help="must be free on 127.0.0.1")
    chosen = parser.parse_args(argv)
    found = problems(packages=not chosen.without_packages, ports=chosen.port)
    for problem in found:
        print(f"missing: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
