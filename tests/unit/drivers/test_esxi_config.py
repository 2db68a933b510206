"""What vSphere is told of a VM, and what of it is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from core.errors import Busy, HostFault, Invalid, NoCapacityNow, Unreachable, Unsupported
from core.states import InstanceKind
from drivers.hypervisor import esxi_config as config
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.hypervisor.esxi_inventory import KEPT
from drivers.network.portgroup import vlan_of
from drivers.transport.vsphere_errors import translate
from drivers.transport.vsphere_files import split

DISK = DiskAttachment("root", "file", "[ds] rackflow/instances/x/root.vmdk", "vmdk", 64)
NIC = NicAttachment("eth0", "52:54:00:00:00:01", "br0", "vmxnet3")
SPEC = InstanceSpec("06h1jt2asmx4e0rx11c2", "rf-x", "x", InstanceKind.VM, 1.5, 512, (DISK,), (NIC,))
NETWORKS = {"br0": vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName="br0")}


def seen(spec: InstanceSpec, power: str = "poweredOff", snapshots: int = 0) -> config.Seen:
    """Return a VM that was made of a spec, as vSphere shows it."""
    made = config.new(spec, {}, NETWORKS)
    devices = [change.device for change in made.deviceChange]
    for device in devices:
        if isinstance(device, vim.vm.device.VirtualDisk):
            for number in range(snapshots):
                top = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=f"[ds] rf-x/rf-x-{number}.vmdk")
                top.parent, device.backing = device.backing, top
    hardware = vim.vm.VirtualHardware(numCPU=made.numCPUs, memoryMB=made.memoryMB, device=devices)
    return config.Seen({
        "name": made.name, "config.annotation": made.annotation, "config.hardware": hardware,
        "config.extraConfig": made.extraConfig, "runtime.powerState": power,
    })  # fmt: skip


def operations(changes: Any) -> list[tuple[str, str]]:
    return [(one.operation, type(one.device).__name__.rpartition(".")[2]) for one in changes.deviceChange]


def test_a_new_vm() -> None:
    made = config.new(SPEC, {"guestinfo.userdata": "x"}, NETWORKS)
    assert (made.name, made.numCPUs, made.memoryMB, made.firmware) == ("rf-x", 2, 512, "bios")
    assert made.files.vmPathName == "[ds]"
    assert config.owner(made.annotation) == SPEC.id
    assert operations(made) == [
        ("add", "ParaVirtualSCSIController"), ("add", "VirtualDisk"), ("add", "VirtualVmxnet3"),
    ]  # fmt: skip
    assert {one.key for one in made.extraConfig} == {"disk.EnableUUID", "guestinfo.userdata"}


def test_a_vm_without_disks_lies_where_its_seed_does() -> None:
    seed = DiskAttachment("seed", "guestinfo", "[other] rackflow/instances/x/seed.json", "json", read_only=True)
    made = config.new(replace(SPEC, disks=(seed,)), {}, NETWORKS)
    assert made.files.vmPathName == "[other]"
    assert operations(made) == [("add", "ParaVirtualSCSIController"), ("add", "VirtualVmxnet3")]
    with pytest.raises(Invalid, match="no datastore"):
        config.new(replace(SPEC, disks=()), {}, NETWORKS)


def test_more_disks_than_a_controller_takes_are_refused_rather_than_left_out() -> None:
    disks = tuple(replace(DISK, source=f"[ds] {n}.vmdk") for n in range(16))
    config.new(replace(SPEC, disks=disks[:15]), {}, NETWORKS)
    with pytest.raises(Unsupported, match="16 disks"):
        config.new(replace(SPEC, disks=disks), {}, NETWORKS)
    with pytest.raises(Unsupported, match="16 disks"):
        config.changes(seen(SPEC), replace(SPEC, disks=disks), {}, NETWORKS)


def test_the_controllers_own_number_is_given_to_no_disk() -> None:
    disks = tuple(replace(DISK, source=f"[ds] {n}.vmdk") for n in range(9))
    made = config.new(replace(SPEC, disks=disks), {}, NETWORKS)
    units = [one.device.unitNumber for one in made.deviceChange if isinstance(one.device, vim.vm.device.VirtualDisk)]
    assert units == [0, 1, 2, 3, 4, 5, 6, 8, 9]


@pytest.mark.parametrize("files", [("[ds] x/root.vmdk",), ("[ds] x/root.vmdk", "[ds] rf/root-000001.vmdk"),
                                   ("[ds] rf/root-000002.vmdk", "[ds] x/root.vmdk")])  # fmt: skip
def test_a_disk_is_seen_by_the_file_it_began_as(files: tuple[str, ...]) -> None:
    layout = [vim.vm.FileLayout.DiskLayout(key=2000, diskFile=list(files))]
    assert KEPT["layout.disk"](layout) == ("[ds] x/root.vmdk",)


@pytest.mark.parametrize("snapshots", [0, 2])
def test_what_is_as_wanted_is_left_alone(snapshots: int) -> None:
    assert config.changes(seen(SPEC, snapshots=snapshots), SPEC, {}, NETWORKS) is None


def test_changes() -> None:
    more = replace(DISK, name="data", source="[ds] data.vmdk")
    wanted = replace(SPEC, memory_mib=1024, disks=(replace(DISK, size_mib=128), more), nics=())
    changes = config.changes(seen(SPEC), wanted, {"guestinfo.userdata": "new"}, NETWORKS)
    assert changes is not None
    assert (changes.memoryMB, changes.numCPUs) == (1024, None)
    assert operations(changes) == [("edit", "VirtualDisk"), ("add", "VirtualDisk"), ("remove", "VirtualVmxnet3")]
    edited, added = (one.device for one in changes.deviceChange[:2])
    assert (edited.capacityInKB, added.unitNumber, added.controllerKey) == (128 * 1024, 1, -1)
    assert [one.key for one in changes.extraConfig] == ["guestinfo.userdata"]


def test_a_disk_that_is_taken_away_keeps_its_file() -> None:
    gone = config.without_disks(seen(SPEC))
    assert [(one.operation, one.fileOperation) for one in gone.deviceChange] == [("remove", None)]


def test_what_runs_can_only_grow() -> None:
    running = seen(SPEC, "poweredOn")
    grown = config.changes(running, replace(SPEC, cpu=4), {}, NETWORKS)
    assert grown is not None
    assert grown.numCPUs == 4
    with pytest.raises(Unsupported, match="cpu and memory can only grow"):
        config.changes(running, replace(SPEC, cpu=1, memory_mib=256), {}, NETWORKS)


def test_a_port_group_that_is_not_there_is_told_before_anything_is_made() -> None:
    with pytest.raises(HostFault, match="br0"):
        config.require_networks(SPEC, {})


def test_whose_a_vm_is_stands_in_its_notes_beside_the_users_own_lines() -> None:
    notes = config.marked("my web server\nask Ann", "one")
    assert config.owner(notes) == "one"
    assert config.owner(config.marked(notes, "two")) == "two"
    assert config.marked(notes, "") == "my web server\nask Ann"
    assert config.owner("about rackflow:x") is None
    assert config.owner("") is None


@pytest.mark.parametrize(("name", "vlan"), [("lan.120", 120), ("lan", 0), ("br0.5000", 0), (".7", 0)])
def test_the_vlan_of_a_name(name: str, vlan: int) -> None:
    assert vlan_of(name) == vlan


def test_a_path_in_a_datastore() -> None:
    assert split("[my store] a/b.vmdk") == ("my store", "a/b.vmdk")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (vim.fault.InsufficientMemoryResourcesFault(), NoCapacityNow), (vim.fault.InvalidPowerState(), Busy),
        (vim.fault.NotAuthenticated(), Unreachable), (vim.fault.FileNotFound(), HostFault),
        (ConnectionRefusedError("no"), Unreachable), (TimeoutError(), Unreachable), (ValueError("?"), HostFault),
    ],
)  # fmt: skip
def test_the_most_special_name_of_a_fault_decides(error: BaseException, kind: type[Exception]) -> None:
    found = translate(error, "host/e1", "starting rf-x")
    assert type(found) is kind
    assert found.message.startswith("starting rf-x")
