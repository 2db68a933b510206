"""Life of one host: its disk, boot, power loss."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import HostFault
from lab import cgroups, network
from lab.settings import LabSettings
from lab.shell import run
from lab.topology import LabHost, Topology

_BOOT = Path(__file__).parent / "boot"
_NAMESPACES = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--propagation", "private", "--kill-child=KILL")
_SOCKETS = {"kvm": "run/libvirt/libvirt-sock", "lxd": "var/lib/lxd/unix.socket"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_S = 30.0


def folder(settings: LabSettings, host: LabHost) -> Path:
    """Return the folder that holds a host's disk image and keys."""
    return settings.dir / host.name


def make_disk(settings: LabSettings, host: LabHost) -> None:
    """Make the host's disk: a sparse ext4 file, no journal (a power loss here is a process's, not the kernel's)."""
    image = folder(settings, host) / "disk.img"
    for name in ("disk", "root"):
        (image.parent / name).mkdir(parents=True, exist_ok=True)
    if not image.exists():
        run(["truncate", "-s", settings.disk, str(image)])
        lazy = "lazy_itable_init=1,lazy_journal_init=1"
        run(["mkfs.ext4", "-q", "-E", lazy, "-O", "^has_journal", str(image)])


def process_1(settings: LabSettings, host: LabHost) -> int | None:
    """Return the host's first process as this machine numbers it; None when it is off.

    A stale number is told by the network namespace, which a stranger's process does not share.
    """
    try:
        pid = int((folder(settings, host) / "init.pid").read_text())
        own = os.stat(f"/proc/{pid}/ns/net").st_ino
        return pid if own == os.stat(f"/run/netns/{host.netns}").st_ino else None
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None


def start(settings: LabSettings, host: LabHost, topology: Topology) -> bool:
    """Boot a host and wait until sshd and libvirtd or LXD answer; False when it was up. Raise HostFault."""
    if process_1(settings, host) is not None:
        return False
    groups = cgroups.detect()
    cgroups.make(groups, host.name)
    if not network.exists(host.netns):
        network.plug_in(settings, host, topology)
    here = folder(settings, host)
    for name in ("booted", "init.pid"):
        (here / name).unlink(missing_ok=True)
    _boot(settings, host, groups)
    _await(lambda: (here / "booted").exists(), host, _last_lines(here / "boot.log"))
    _await(lambda: _answers(settings, host), host, lambda: "its daemons did not come up")
    return True


def _boot(settings: LabSettings, host: LabHost, groups: cgroups.Cgroups) -> None:
    here = folder(settings, host)
    environment = {
        "PATH": _PATH, "LANG": "C.UTF-8",
        "LAB_DIR": str(settings.dir), "LAB_SHARED": str(settings.shared), "LAB_HIDE": " ".join(settings.hide),
        "HOST_NAME": host.name, "HOST_NUMBER": str(host.number), "HOST_KIND": host.kind, "HOST_DIR": str(here),
        "CGROUP_VERSION": str(groups.version), "CGROUP_TREES": " ".join(groups.trees),
    }  # fmt: skip
    enter = ["nsenter", f"--net=/run/netns/{host.netns}", "unshare", *_NAMESPACES, "bash", str(_BOOT / "init.sh")]
    with (here / "boot.log").open("wb") as log:
        subprocess.Popen(
            enter, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )


def _answers(settings: LabSettings, host: LabHost) -> bool:
    pid = process_1(settings, host)
    root = Path(f"/proc/{pid}/root")
    return pid is not None and (root / "run/sshd.pid").exists() and (root / _SOCKETS[host.kind]).is_socket()


def _await(ready: Callable[[], bool], host: LabHost, why: Callable[[], str]) -> None:
    deadline = time.monotonic() + _BOOT_S
    while not ready():
        if time.monotonic() > deadline:
            raise HostFault(f"lab host {host.name} did not boot within {_BOOT_S:g} s: {why()}", f"host/{host.name}")
        time.sleep(0.05)


def _last_lines(log: Path) -> Callable[[], str]:
    return lambda: " / ".join(log.read_text(errors="replace").splitlines()[-5:]) or "it said nothing"


def crash(settings: LabSettings, host: LabHost) -> bool:
    """Cut the power: kill process 1, the kernel ends all that runs under it; False when it was off."""
    pid = process_1(settings, host)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    stragglers = processes(host)
    for straggler in stragglers - {pid}:
        _kill(straggler)
    groups = cgroups.detect()
    cgroups.thaw(groups, host.name)  # what is frozen in version 1 dies only when it may go on
    wait_until(lambda: not processes(host))
    (folder(settings, host) / "init.pid").unlink(missing_ok=True)
    network.unplug(host)  # a reboot loses run-time network settings: the next boot gets a new network stack
    wait_until(lambda: _dropped(groups, host))
    return pid is not None


def processes(host: LabHost) -> set[int]:
    """Return the processes in a host's network namespace, also those that entered it from outside."""
    if not network.exists(host.netns):
        return set()
    return {int(word) for word in run(["ip", "netns", "pids", host.netns], check=False).split()}


def _dropped(groups: cgroups.Cgroups, host: LabHost) -> bool:
    cgroups.drop(groups, host.name)
    return not any(path.exists() for path in groups.folders(host.name))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_until(done: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for what the kernel does in its own time; what is left then, `check` reports."""
    deadline = time.monotonic() + limit_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


def forget(settings: LabSettings, host: LabHost) -> None:
    """Delete the host's disk and keys."""
    shutil.rmtree(folder(settings, host), ignore_errors=True)


def ssh_command(settings: LabSettings, host: LabHost, words: Sequence[str]) -> list[str]:
    """Return the argv that opens a shell on a host, or runs words there."""
    return ["ssh", "-F", str(settings.dir / "ssh_config"), host.name, *words]
