"""What a machine lacks to be a hypervisor: nothing, all of it, and what no command changes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from core.errors import HostFault
from drivers.role import MODULES, PACKAGES, SYSCTL_FILE, UNITS, Look, Role, contents, parse
from drivers.role_plan import plan

KVM, LXD = Role("kvm", (("br0", "10.1.0.1/24"),)), Role("lxd", (("lxcbr0", "10.2.0.1/24"),))
POOL: dict[str, Any] = {"name": "default", "driver": "dir"}
BRIDGE: dict[str, Any] = {
    "name": "lxcbr0", "managed": True, "type": "bridge", "config": {"ipv4.address": "10.2.0.1/24"},
}  # fmt: skip


def whole(role: Role) -> Look:
    """Return a machine that lacks nothing."""
    return Look(
        debian=True, packages=frozenset(PACKAGES[role.kind]),
        units=dict.fromkeys(UNITS[role.kind], ("enabled", "active")),
        modules=dict.fromkeys(MODULES[role.kind], "loaded"), forward="1", networkd=True,
        files={path: hashlib.sha256(text.encode()).hexdigest() for path, text in contents(role).items()},
        links=frozenset({"br0"}), root="/dev/vda1 ext4", disk=("vda1", "vda", "1", "2048", "25163776", "25165824"),
        flags="svm", kvm=True, nested="/sys/module/kvm_amd/parameters/nested:1", iommu=True,
        pools=[POOL] if role is LXD else None, networks=[BRIDGE] if role is LXD else None,
    )  # fmt: skip


def words(seen: Look, role: Role) -> list[str]:
    return [action.words for action in plan(seen, role).actions]


@pytest.mark.parametrize("role", [KVM, LXD])
def test_what_is_right_is_left_alone(role: Role) -> None:
    found = plan(whole(role), role)
    assert (found.actions, found.notes, found.complete) == ((), (), True)


@pytest.mark.parametrize(("changed", "expected"), [
    ({"packages": frozenset({"lxd", "lxcfs"})}, "install lxd-client"),
    ({"forward": "0"}, "route for what is behind its bridges"),
    ({"modules": {"bridge": "loaded", "veth": "there"}}, "load the kernel module veth"),
    ({"units": {**dict.fromkeys(UNITS["lxd"], ("enabled", "active")), "lxd.service": ("disabled", "active")}},
     "enable and start lxd.service"),
    ({"units": {**dict.fromkeys(UNITS["lxd"], ("enabled", "active")), "lxd.socket": ("enabled", "failed")}},
     "enable and start lxd.socket"),
    ({"networks": []}, "make the bridge lxcbr0 10.2.0.1/24"),
    ({"pools": []}, "make the storage pool default (dir: sizes of disks are not enforced)"),
])  # fmt: skip
def test_one_thing_is_missing(changed: dict[str, Any], expected: str) -> None:
    assert words(replace(whole(LXD), **changed), LXD) == [expected]


def test_a_file_that_somebody_changed_is_written_again() -> None:
    seen = whole(KVM)
    (action,) = plan(replace(seen, files={**seen.files, SYSCTL_FILE: "0" * 64}), KVM).actions
    assert (action.words, action.stdin) == (f"write {SYSCTL_FILE}", contents(KVM)[SYSCTL_FILE])


def test_a_root_file_system_smaller_than_its_disk_grows() -> None:
    seen = replace(whole(KVM), disk=("vda1", "vda", "1", "2048", "2097152", "25165824"))
    argvs = [action.argv for action in plan(seen, KVM).actions]
    assert argvs == [("growpart", "/dev/vda", "1"), ("resize2fs", "/dev/vda1")]


def test_a_bridge_that_is_gone_is_made_again() -> None:
    assert words(replace(whole(KVM), links=frozenset()), KVM) == ["make the bridge br0"]


def test_what_lxd_keeps_is_not_known_before_it_runs() -> None:
    assert not plan(replace(whole(LXD), pools=None, networks=None), LXD).complete


def test_a_bridge_with_another_address_is_told() -> None:
    other = {**BRIDGE, "config": {"ipv4.address": "10.9.0.1/24"}}
    with pytest.raises(HostFault, match=r"10\.9\.0\.1/24, not 10\.2\.0\.1/24"):
        plan(replace(whole(LXD), networks=[other]), LXD)


def test_packages_where_there_is_no_apt() -> None:
    with pytest.raises(HostFault, match="this is no Debian: lxd"):
        plan(replace(whole(LXD), debian=False, packages=frozenset()), LXD)


@pytest.mark.parametrize(("changed", "expected"), [
    ({"flags": "", "kvm": False}, "neither VT-x nor AMD-V"), ({"kvm": False}, "no /dev/kvm"),
    ({"iommu": False}, "no IOMMU"), ({"modules": {"tun": "absent"}}, "this kernel has no tun"),
])  # fmt: skip
def test_what_no_command_changes_is_noted(changed: dict[str, Any], expected: str) -> None:
    (note,) = plan(replace(whole(KVM), **changed), KVM).notes
    assert expected in note


def test_nested_virtualisation_is_allowed_from_the_next_boot_on() -> None:
    seen = replace(whole(KVM), nested="/sys/module/kvm_amd/parameters/nested:0")
    (action,) = plan(seen, KVM).actions
    assert action.stdin.endswith("options kvm_amd nested=1\n")


def test_the_output_of_the_look() -> None:
    text = f"""==> os
ID=debian
==> packages
lxd installed
lxcfs not-installed
==> units
lxd.socket enabled active
lxcfs.service disabled inactive
lxd.service inactive
==> modules
bridge loaded
==> files
/etc/a {'1' * 64}
==> forward
1
==> networkd
active
==> links
lo
eth0
==> root
/dev/vda1 ext4
==> disk
vda1 vda 1 2048 100 200
==> flags
svm
==> kvm
==> nested
==> iommu
==> pools
{json.dumps([POOL])}
==> networks
[]
"""
    found = parse(text)
    assert found.packages == {"lxd"}
    assert found.units == {
        "lxd.socket": ("enabled", "active"), "lxcfs.service": ("disabled", "inactive"), "lxd.service": ("", "inactive"),
    }  # fmt: skip
    assert (found.pools, found.networks, found.disk[2:]) == ([POOL], [], ("1", "2048", "100", "200"))
    assert (found.debian, found.kvm, found.networkd) == (True, False, True)
