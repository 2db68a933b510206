"""Where a microVM's files are on its host, with and without a jail, and how its VMM is started. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from core.settings import DriverSettings
from drivers.hypervisor.firecracker_config import Files

_IN_JAIL = ("/kernel", "/initrd", "/disks")


@dataclass(frozen=True)
class Place:
    """Folders and programs of one host. jailer "": none is used; user: "UID:GID" that jailed VMMs run as."""

    state: str
    run: str
    kernels: str
    program: str = "firecracker"
    jailer: str = ""
    jails: str = ""
    user: str = ""

    def definition(self, name: str) -> str:
        """Return the folder of its definition and logs."""
        return f"{self.state}/{name}"

    def running(self, name: str) -> str:
        """Return the folder of what is there while it runs."""
        return f"{self.run}/{name}"

    def jail(self, name: str) -> str:
        """Return the root of its jail, as the jailer makes it; "" without one."""
        return f"{self.jails}/{PurePosixPath(self.program).name}/{name}/root" if self.jailer else ""

    def socket(self, name: str) -> str:
        """Return where its API listens."""
        return f"{self.jail(name) or self.running(name)}/api.sock"

    def kernel(self, kernel: str) -> str:
        """Return the folder of a kernel."""
        return f"{self.kernels}/{kernel}"

    def files(self, wanted: Mapping[str, Any], has_initrd: bool) -> Files:
        """Return how the VMM calls its files."""
        folder = self.kernel(wanted["kernel"])
        if self.jailer:
            kernel, initrd, disks = _IN_JAIL
            inside = {disk["name"]: f"{disks}/{disk['name']}" for disk in wanted["disks"]}
            return Files(kernel, initrd if has_initrd else "", inside)
        there = {disk["name"]: disk["file"] for disk in wanted["disks"]}
        return Files(f"{folder}/vmlinux", f"{folder}/initrd" if has_initrd else "", there)

    def shown(self, wanted: Mapping[str, Any], has_initrd: bool, snapshot: str = "") -> list[str]:
        """Return the words about files that the start on the host makes seen inside the jail."""
        if not self.jailer:
            return []
        folder, (kernel, initrd, disks) = self.kernel(wanted["kernel"]), _IN_JAIL
        state = self.definition(wanted["name"])
        found = [
            ("ro", f"{folder}/vmlinux", kernel), *([("ro", f"{folder}/initrd", initrd)] if has_initrd else []),
            *(("rw", disk["file"], f"{disks}/{disk['name']}") for disk in wanted["disks"]),
            ("rw", f"{state}/log", "/log"), ("rw", f"{state}/metrics", "/metrics"),
            *([("rw", f"{snapshot}/{one}", f"/{one}") for one in ("state", "memory")] if snapshot else []),
        ]  # fmt: skip
        return [word for how, outside, inside in found for word in ("file", how, outside, inside)]

    def snapshot_files(self, name: str, folder: str = "") -> tuple[str, str]:
        """Return how the VMM calls a snapshot's state and memory; folder: where it is kept, "" = it is being made."""
        at = "" if self.jailer else folder or self.running(name)
        return f"{at}/state", f"{at}/memory"

    def made(self, name: str) -> tuple[str, str]:
        """Return where state and memory are on the host once the VMM has written them."""
        at = self.jail(name) or self.running(name)
        return f"{at}/state", f"{at}/memory"

    def argv(self, name: str, *, configured: bool) -> list[str]:
        """Return the command line of the VMM. configured: by its file; else it waits for a snapshot."""
        at, state = ("", "") if self.jailer else (self.running(name), self.definition(name))
        words = ["--api-sock", f"{at}/api.sock", "--log-path", f"{state}/log", "--metrics-path", f"{state}/metrics"]
        if configured:
            words += ["--config-file", f"{at}/config.json", "--metadata", f"{at}/metadata.json"]
        if not self.jailer:
            return [self.program, "--id", name, *words]
        uid, _, gid = self.user.partition(":")
        jail = ["--exec-file", self.program, "--uid", uid, "--gid", gid, "--chroot-base-dir", self.jails]
        return [self.jailer, "--id", name, *jail, "--", *words]


def place_of(settings: DriverSettings) -> Place:
    """Return the place that the settings mean."""
    return Place(
        settings.microvms, settings.microvms_run, settings.kernels, settings.firecracker,
        jailer=settings.jailer, jails=settings.jails, user=settings.jail_user,
    )  # fmt: skip
