"""What of a lab is on this machine: processes, mounts, loop devices, namespaces, groups, links, routes, files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import cgroups, vsphere
from lab.settings import OWNER_FILE, LabSettings
from lab.shell import run


@dataclass(frozen=True, order=True)
class Leftover:
    """One thing. kind: process, mount, loop, namespace, cgroup, link, route, file."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


def find(settings: LabSettings) -> list[Leftover]:
    """Return all that a lab made and that is there now; an empty list proves that nothing is left."""
    return sorted({Leftover(kind, what) for kind, look in _LOOKS.items() for what in look(settings)})


def host_numbers() -> set[int]:
    """Return the numbers of hosts of which a namespace or a control group exists."""
    names = [path.name for path in (*_netns(), *cgroups.left(cgroups.detect()))]
    return {int(match.group(1)) for name in names if (match := re.fullmatch(r"rf-?h(\d+)", name))}


def _netns() -> list[Path]:
    folder = Path("/run/netns")
    return [*folder.glob("rfsw"), *(path for path in folder.glob("rfh*") if path.name[3:].isdigit())]


def _processes(settings: LabSettings) -> Iterator[str]:
    """Those in a host's control groups, those that see its files, relays, the BMCs, and the VMware host."""
    group = re.compile(r":/rf-h\d+(/|$)", re.MULTILINE)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            ours = (
                group.search((entry / "cgroup").read_text()) is not None
                or _sees_host_files(entry, f"{settings.dir}/")
                or "/lab/relay.py h" in command
                or " -m lab.bmc " in command
                or f" -for {vsphere.MARK}" in command
            )
        except OSError:
            continue  # it ended while we looked
        if ours and command:
            yield f"{entry.name} {command[:80]}"


def _sees_host_files(process: Path, folder: str) -> bool:
    if os.stat(process / "ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino:
        return False  # our own view: its mounts are told by _mounts, once
    return folder in (process / "mountinfo").read_text()


def _mounts(settings: LabSettings) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if f"{settings.dir}/" in line:
            yield line.split()[4]


def _loops(settings: LabSettings) -> Iterator[str]:
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text().strip()
        except OSError:
            continue  # detached while we looked
        if backing.startswith(f"{settings.dir}/"):
            yield f"{entry.parts[3]} {backing}"


def _links(_settings: LabSettings) -> Iterator[str]:
    return (path.name for path in Path("/sys/class/net").glob("rfctl[01]"))


def _routes(settings: LabSettings) -> Iterator[str]:
    for line in run(["ip", "-4", "route", "show"]).splitlines():
        if line.startswith(f"{settings.net}.") and "dev rfctl" in line:
            yield line.strip()


def _files(settings: LabSettings) -> Iterator[str]:
    for path in (*made_files(settings), OWNER_FILE):
        if path.exists():
            yield str(path)


def made_files(settings: LabSettings) -> list[Path]:
    """Return what a lab makes in its folder, and nothing that someone else may have put there."""
    names = ("lab.json", "lab.yaml", "hosts", "known_hosts", "ssh_config", "id_ed25519", "id_ed25519.pub", "shared",
             "bmc.password", "bmc.log", "vsphere", "vsphere.yaml")  # fmt: skip
    found = [settings.dir / name for name in names]
    return [*found, *(path for path in settings.dir.glob("h[0-9]*") if path.is_dir())]


_LOOKS: dict[str, Callable[[LabSettings], Iterator[str]]] = {
    "process": _processes,
    "mount": _mounts,
    "loop": _loops,
    "namespace": lambda _settings: map(str, _netns()),
    "cgroup": lambda _settings: map(str, cgroups.left(cgroups.detect())),
    "link": _links,
    "route": _routes,
    "file": _files,
}
