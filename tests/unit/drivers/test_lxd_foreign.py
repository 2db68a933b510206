"""What a container that is not ours would be as one of ours, and what speaks against it."""

from __future__ import annotations

from typing import Any

import pytest

from core.states import InstanceKind, PowerState
from drivers.hypervisor.base import DiskAttachment, NicAttachment
from drivers.hypervisor.lxd_foreign import describe

ROOT = {"type": "disk", "path": "/", "pool": "default", "size": "2GiB"}
NETWORKS = [
    {"name": "lxcbr0", "managed": True, "config": {"ipv4.address": "10.0.0.1/23"}},
    {"name": "br0", "managed": False, "config": {}},
]


def container(**changes: Any) -> dict[str, Any]:
    """Return what LXD says of a container whose NIC comes from its profile."""
    nic = {"type": "nic", "network": "lxcbr0", "name": "eth0"}
    plain = {
        "name": "web", "type": "container", "status": "Running", "ephemeral": False, "config": {},
        "expanded_config": {
            "limits.cpu": "2", "limits.memory": "512MiB", "volatile.eth0.hwaddr": "00:16:3e:67:cf:17",
        },
        "devices": {}, "expanded_devices": {"root": ROOT, "eth0": nic},
    }  # fmt: skip
    devices = {**plain["expanded_devices"], **changes.pop("devices", {})}  # type: ignore[dict-item]
    return {**plain, "expanded_devices": devices, **changes}


def test_a_plain_one_can_be_adopted() -> None:
    found = describe(container(), NETWORKS)
    assert (found.name, found.kind, found.power) == ("web", InstanceKind.CONTAINER, PowerState.RUNNING)
    assert (found.cpu, found.memory_mib, found.problems) == (2, 512, ())
    assert found.disks == (DiskAttachment("root", "pool", "default", "raw", 2048),)
    assert found.nics == (NicAttachment("eth0", "00:16:3e:67:cf:17", "lxcbr0"),)


def test_a_fixed_address_has_the_prefix_of_its_network() -> None:
    nic = {"type": "nic", "network": "lxcbr0", "ipv4.address": "10.0.1.7", "hwaddr": "00:16:3e:00:00:01"}
    bridged = {"type": "nic", "nictype": "bridged", "parent": "br0", "name": "eth1"}
    found = describe(container(devices={"eth0": nic, "eth1": bridged}), NETWORKS)
    assert found.nics == (
        NicAttachment("eth0", "00:16:3e:00:00:01", "lxcbr0", address="10.0.1.7/23"), NicAttachment("eth1", "", "br0"),
    )  # fmt: skip
    assert found.problems == ()


def test_a_volume_by_our_rules_is_a_disk_of_it() -> None:
    data = {"type": "disk", "pool": "fast", "source": "web-data1", "path": "/mnt/data1", "size": "1GiB"}
    found = describe(container(devices={"data1": data}), NETWORKS)
    assert found.problems == ()
    assert [disk.name for disk in found.disks] == ["root", "data1"]


@pytest.mark.parametrize(("changes", "words"), [
    ({"type": "virtual-machine"}, "virtual machine"),
    ({"expanded_config": {"limits.memory": "512MiB"}}, "limits.cpu"),
    ({"expanded_config": {"limits.cpu": "1", "limits.memory": "50%"}}, "limits.memory"),
    ({"ephemeral": True}, "ephemeral"),
    ({"devices": {"gpu0": {"type": "gpu"}}}, "gpu0 is a gpu"),
    ({"devices": {"eth0": {"type": "nic", "nictype": "macvlan", "parent": "eth9"}}}, "not on a bridge"),
    ({"devices": {"lan": {"type": "nic", "network": "lxcbr0", "name": "eth0"}}}, "called eth0 inside"),
    ({"devices": {"src": {"type": "disk", "source": "/srv", "path": "/srv"}}}, "web-src of a pool"),
    ({"devices": {"d": {"type": "disk", "pool": "p", "source": "web-d", "path": "/data"}}}, "/mnt/d"),
    ({"expanded_devices": {"disk0": ROOT}}, "root disk is called disk0"),
])  # fmt: skip
def test_what_speaks_against_it_is_said(changes: dict[str, Any], words: str) -> None:
    problems = describe(container(**changes), NETWORKS).problems
    assert len(problems) == 1
    assert words in problems[0]
