"""The plan: what to do so that a machine is a hypervisor of a kind, from what was seen of it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from core.errors import HostFault
from drivers.hypervisor import lxd_prepare
from drivers.role import (
    GROW_BYTES,
    MODULES,
    NESTED_FILE,
    PACKAGES,
    PACKAGES_S,
    SYSCTLS,
    UNITS,
    Action,
    Look,
    Plan,
    Role,
    contents,
)

_REPLACE = 'umask 022; cat > "$1.new" && mv "$1.new" "$1"'


def plan(seen: Look, role: Role) -> Plan:
    """Return what is missing. Raise HostFault (packages are missing where apt-get is not, a bridge differs)."""
    missing = [one for one in PACKAGES[role.kind] if one not in seen.packages]
    if missing and not seen.debian:
        raise HostFault(
            f"packages are missing, and this is no Debian: {', '.join(missing)}", evidence={"missing": missing},
            fix="install what provides them, then configure it again",
        )  # fmt: skip
    actions = [*_packages(missing), *_root(seen), *_kernel(seen, role), *_units(seen, role), *_lxd(seen, role)]
    hidden = role.kind == "lxd" and seen.pools is None
    return Plan(tuple(actions), tuple(_notes(seen, role)), complete=not hidden)


def _packages(missing: list[str]) -> Iterator[Action]:
    if missing:
        argv = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y", "--no-install-recommends")
        yield Action(f"install {' '.join(missing)}", (*argv, *missing), timeout_s=PACKAGES_S)


def _root(seen: Look) -> Iterator[Action]:
    """Let the root file system have its whole disk, where it is the last partition of an image that is smaller."""
    if not seen.disk or not seen.root.endswith(" ext4"):
        return
    partition, disk, number, *sectors = seen.disk
    start, size, whole = map(int, sectors)
    if (whole - start - size) * 512 >= GROW_BYTES:
        gib = whole * 512 // 2**30
        words = f"make partition {partition} as large as its disk ({gib} GiB)"
        yield Action(words, ("growpart", f"/dev/{disk}", number))
        yield Action("make the root file system as large as its partition", ("resize2fs", f"/dev/{partition}"))


def _kernel(seen: Look, role: Role) -> Iterator[Action]:
    for path, text in contents(role, networkd=seen.networkd).items():
        if seen.files.get(path) != hashlib.sha256(text.encode()).hexdigest():
            yield Action(f"write {path}", ("sh", "-c", _REPLACE, "sh", path), text)
    for module in MODULES[role.kind]:
        if seen.modules.get(module) == "there":
            yield Action(f"load the kernel module {module}", ("modprobe", module))
    if seen.forward != "1":
        values = (f"{name}={value}" for name, value in SYSCTLS.items())
        yield Action("route for what is behind its bridges", ("sysctl", "-qw", *values))
    absent = [name for name, _ in role.bridges if name not in seen.links]
    if role.kind == "kvm" and seen.networkd and absent:
        yield Action(f"make the bridge {' '.join(absent)}", ("networkctl", "reload"))
    if role.kind == "kvm" and seen.nested.endswith(("N", "0")):
        module = "kvm_intel" if seen.flags == "vmx" else "kvm_amd"
        text = f"# kept by rackflow\noptions {module} nested=1\n"
        if seen.files.get(NESTED_FILE) != hashlib.sha256(text.encode()).hexdigest():
            yield Action("allow nested virtualisation from the next boot on", ("tee", NESTED_FILE), text)


def _units(seen: Look, role: Role) -> Iterator[Action]:
    for unit in UNITS[role.kind]:
        enabled, active = seen.units.get(unit, ("", ""))
        if active != "active" or enabled not in ("enabled", "static", "indirect", "alias"):
            yield Action(f"enable and start {unit}", ("systemctl", "enable", "--now", unit))


def _lxd(seen: Look, role: Role) -> Iterator[Action]:
    if role.kind != "lxd" or seen.pools is None:
        return
    for change in lxd_prepare.changes(seen.pools, seen.networks or [], role.bridges):
        body = json.dumps(change.body, sort_keys=True)
        argv = ("lxc", "query", "-X", "POST", "-d", body, f"/1.0/{change.collection}")
        yield Action(f"make the {change.words}", argv)


def _notes(seen: Look, role: Role) -> Iterator[str]:
    for module, state in seen.modules.items():
        if state == "absent":
            yield f"this kernel has no {module}"
    if role.kind != "kvm":
        return
    if not seen.flags:
        yield "the processor shows neither VT-x nor AMD-V: enable it in the firmware, else QEMU emulates, slowly"
    elif not seen.kvm:
        yield "there is no /dev/kvm, so QEMU emulates, slowly: load kvm_intel or kvm_amd"
    if not seen.iommu:
        yield "no IOMMU is on: for devices of an instance's own, enable it in the firmware and boot with intel_iommu=on"
