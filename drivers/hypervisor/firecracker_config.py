"""From an instance's spec to what Firecracker is started with, and back to what is seen. Pure.

The configuration file, its fields and their limits: Firecracker's OpenAPI document
(https://github.com/firecracker-microvm/firecracker/blob/main/src/firecracker/swagger/firecracker.yaml), read at 1.17.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import Invalid, Unsupported
from core.states import InstanceKind
from drivers.hypervisor.base import InstanceSpec

OLDEST = (1, 8)  # of its releases that speak all of the API that is used
MOST_CPUS = 32
STATISTICS_S = 5  # between two looks of the balloon at the guest's memory
# What Firecracker itself advises (docs/prod-host-setup.md), and i8042 left to its keyboard: it carries Ctrl-Alt-Del.
_BOOT_ARGS = "console=ttyS0 reboot=k panic=1 pci=off i8042.noaux i8042.nomux i8042.dumbkbd"
_ROOT = "root=/dev/vda rw"  # an image that is one file system


def is_too_old(version: str) -> bool:
    """Say whether this is the version of a release before OLDEST; one that cannot be read, as of a build, is not."""
    found = re.search(r"v(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < OLDEST


def dumps(value: Any) -> str:
    """Return JSON on one line, always the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def mark(instance_id: str) -> str:
    """Return what stands in a definition that is this instance's."""
    return f'"instance_id":"{instance_id}"'


def tap_name(mac: str) -> str:
    """Return the name of a NIC's tap on the host: 14 characters, of at most 15."""
    return "rf" + mac.replace(":", "").lower()


def host_mac(mac: str) -> str:
    """Return the tap's own address: the guest's with fe in front, as libvirt has it, so that leaks are found."""
    return "fe:" + mac.lower().partition(":")[2]


def definition(spec: InstanceSpec) -> dict[str, Any]:
    """Return what is kept of a spec. Raise Unsupported (what Firecracker cannot give), Invalid (no kernel)."""
    options, subject = dict(spec.options), f"instance/{spec.id}"
    _refuse(spec, subject)
    if not options.get("kernel"):
        raise Invalid(
            f"the image of {spec.name} names no kernel, and Firecracker boots no disk by itself", subject, {},
            "import it with a kernel that the host has, or place it on a KVM host",
        )  # fmt: skip
    return {
        "instance_id": spec.id, "name": spec.name, "display_name": spec.display_name,
        "cpus": max(1, math.ceil(spec.cpu)), "memory_mib": spec.memory_mib, "kernel": options["kernel"],
        "boot_args": f"{_BOOT_ARGS} {options.get('boot_args') or _ROOT}",
        "disks": [{"name": d.name, "file": d.source, "read_only": d.read_only} for d in spec.disks],
        "nics": [{"name": nic.name, "mac": nic.mac.lower(), "bridge": nic.bridge} for nic in spec.nics],
        "labels": dict(spec.labels), "metadata": _metadata(spec),
    }  # fmt: skip


def _refuse(spec: InstanceSpec, subject: str) -> None:
    formats = sorted({disk.format for disk in spec.disks} - {"raw"})
    problems = {
        f"it is a {spec.kind}": spec.kind is not InstanceKind.VM,
        f"it has {spec.cpu:g} CPUs, and a microVM at most {MOST_CPUS}": math.ceil(spec.cpu) > MOST_CPUS,
        f"its disks are {', '.join(formats)}, and Firecracker reads raw ones": bool(formats),
        "devices of the host cannot be passed to it": bool(spec.pci),
        "cores, cells and pages of its own are not given": bool(
            spec.pinned or spec.may_use or spec.cell is not None or spec.page_kib
        ),
        f"it boots by {spec.firmware}, and a microVM has no firmware but its kernel": spec.firmware not in ("", "bios"),
    }
    for words, holds in problems.items():
        if holds:
            raise Unsupported(f"{spec.name} cannot be a microVM: {words}", subject, fix="place it on a KVM host")


def _metadata(spec: InstanceSpec) -> dict[str, Any]:
    """Return what the metadata service says inside: the paths of EC2's, as far as there is something to say."""
    keys = {str(n): {"openssh-key": key} for n, key in enumerate(spec.ssh_keys)}
    said = {
        "instance-id": spec.id, "local-hostname": spec.display_name, "hostname": spec.display_name,
        **({"local-ipv4": spec.nics[0].address.split("/")[0]} if spec.nics and spec.nics[0].address else {}),
        **({"mac": spec.nics[0].mac.lower()} if spec.nics else {}), **({"public-keys": keys} if keys else {}),
    }  # fmt: skip
    return {"latest": {"meta-data": said, **({"user-data": spec.user_data} if spec.user_data else {})}}


@dataclass(frozen=True)
class Files:
    """How Firecracker calls its files: as they are, or as they are inside its jail. initrd "": it has none."""

    kernel: str
    initrd: str
    disks: Mapping[str, str]


def configuration(wanted: Mapping[str, Any], files: Files) -> dict[str, Any]:
    """Return the configuration file. Each part has the fields of the API's request of that name."""
    nics = [nic["name"] for nic in wanted["nics"]]
    initrd = {"initrd_path": files.initrd} if files.initrd else {}
    return {
        "boot-source": {"kernel_image_path": files.kernel, "boot_args": wanted["boot_args"], **initrd},
        "machine-config": {"vcpu_count": wanted["cpus"], "mem_size_mib": wanted["memory_mib"]},
        "drives": [
            {
                "drive_id": disk["name"], "path_on_host": files.disks[disk["name"]], "is_read_only": disk["read_only"],
                "is_root_device": False,  # which one is the root stands in boot_args: it may be a partition
                "cache_type": "Writeback",  # else what the guest flushes may be lost with the host
            }
            for disk in wanted["disks"]
        ],
        "network-interfaces": [
            {"iface_id": nic["name"], "guest_mac": nic["mac"], "host_dev_name": tap_name(nic["mac"])}
            for nic in wanted["nics"]
        ],
        "balloon": {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": STATISTICS_S},
        "entropy": {},
        **({"mmds-config": {"version": "V2", "network_interfaces": nics}} if nics else {}),
    }  # fmt: skip


def taps(wanted: Mapping[str, Any]) -> list[str]:
    """Return the words about NICs that the start on the host takes."""
    return [
        word for nic in wanted["nics"]
        for word in ("tap", tap_name(nic["mac"]), host_mac(nic["mac"]), str(nic["bridge"]))
    ]  # fmt: skip


def writable(wanted: Mapping[str, Any]) -> list[str]:
    """Return the files of the disks that a guest writes to."""
    return [str(disk["file"]) for disk in wanted["disks"] if not disk["read_only"]]


def snapshots_of(wanted: Mapping[str, Any]) -> str:
    """Return the folder of its snapshots: beside its root disk, so that they go with it. "" without a disk."""
    files = writable(wanted)
    return f"{files[0].rpartition('/')[0]}/snapshots" if files else ""


def names(disks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of disks, in order."""
    return sorted(str(disk["name"]) for disk in disks)
