"""From specs to what Firecracker is started with, and from what a host shows to what is seen; without a host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.errors import Invalid, Unsupported
from core.ids import new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind, PowerState
from drivers.hypervisor import firecracker_config as config
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.hypervisor.firecracker_place import Place, place_of
from drivers.hypervisor.firecracker_seen import Vm, parse
from tests.contract import firecracker_api

ID = new_id()
MAC = "52:54:00:AB:cd:01"
SPEC = InstanceSpec(
    ID, on_host(ID), "web", InstanceKind.VM, 1.5, 256,
    (DiskAttachment("root", "file", "/ds/i/root.raw", "raw"),
     DiskAttachment("seed", "file", "/ds/i/seed.iso", "raw", read_only=True)),
    (NicAttachment("eth0", MAC, "br0", address="10.0.0.5/24"),),
    user_data="#!/bin/sh\n", ssh_keys=("ssh-ed25519 AAAA me",), options=(("kernel", "six"),),
)  # fmt: skip
PLAIN = place_of(DriverSettings())
JAILED = place_of(DriverSettings(jailer="/usr/bin/jailer", jail_user="300:301", firecracker="/usr/bin/firecracker"))


def test_a_definition_is_the_same_text_each_time_and_bears_its_owner() -> None:
    text = config.dumps(config.definition(SPEC))
    assert text == config.dumps(config.definition(SPEC))
    assert config.mark(ID) in text
    assert config.mark(new_id()) not in text
    assert "\n" not in text


@pytest.mark.parametrize("place", [PLAIN, JAILED], ids=["plain", "jailed"])
@pytest.mark.parametrize("has_initrd", [False, True])
def test_a_configuration_is_made_of_requests_of_the_api(place: Place, has_initrd: bool) -> None:
    wanted = config.definition(SPEC)
    found = config.configuration(wanted, place.files(wanted, has_initrd))
    firecracker_api.check_configuration(found)
    assert found["machine-config"] == {"vcpu_count": 2, "mem_size_mib": 256}
    assert ("initrd_path" in found["boot-source"]) is has_initrd
    assert [drive["is_read_only"] for drive in found["drives"]] == [False, True]
    assert not any(drive["is_root_device"] for drive in found["drives"]), "it would overrule a root that is a partition"
    assert found["network-interfaces"][0]["host_dev_name"] == "rf525400abcd01"


def test_what_the_guest_boots_from_is_said_by_its_image() -> None:
    assert config.definition(SPEC)["boot_args"].endswith(" root=/dev/vda rw")
    partition = replace(SPEC, options=(("kernel", "six"), ("boot_args", "root=/dev/vda1 ro")))
    assert config.definition(partition)["boot_args"].endswith(" root=/dev/vda1 ro")


def test_metadata_says_who_it_is() -> None:
    latest = config.definition(SPEC)["metadata"]["latest"]
    assert latest["user-data"] == "#!/bin/sh\n"
    assert latest["meta-data"]["local-ipv4"] == "10.0.0.5"
    assert latest["meta-data"]["public-keys"] == {"0": {"openssh-key": "ssh-ed25519 AAAA me"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": InstanceKind.CONTAINER}, "container"),
        ({"cpu": 33}, "at most 32"),
        ({"disks": (replace(SPEC.disks[0], format="qcow2"),)}, "qcow2"),
        ({"pci": ("0000:01:00.0",)}, "devices"),
        ({"pinned": (1,)}, "cores"),
        ({"page_kib": 2048}, "pages"),
        ({"firmware": "uefi"}, "uefi"),
    ],
)
def test_what_a_micro_vm_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        config.definition(replace(SPEC, **change))


def test_an_image_without_a_kernel_is_refused() -> None:
    with pytest.raises(Invalid, match="names no kernel"):
        config.definition(replace(SPEC, options=()))


def test_the_command_line_with_and_without_a_jail() -> None:
    plain = PLAIN.argv("rf-1", configured=True)
    assert plain[:3] == ["firecracker", "--id", "rf-1"]
    assert "/run/rackflow/firecracker/rf-1/config.json" in plain
    jailed = JAILED.argv("rf-1", configured=False)
    assert jailed[: jailed.index("--")] == [
        "/usr/bin/jailer", "--id", "rf-1", "--exec-file", "/usr/bin/firecracker", "--uid", "300", "--gid", "301",
        "--chroot-base-dir", "/srv/jailer",
    ]  # fmt: skip
    assert "--config-file" not in jailed
    assert JAILED.socket("rf-1") == "/srv/jailer/firecracker/rf-1/root/api.sock"
    assert len(JAILED.socket(on_host(ID))) < 108
    wanted = config.definition(SPEC)
    assert PLAIN.shown(wanted, True) == []
    shown = JAILED.shown(wanted, False, "/ds/i/snapshots/s1")
    assert ["file", "rw", "/ds/i/root.raw", "/disks/root"] in [shown[n : n + 4] for n in range(0, len(shown), 4)]
    assert ["file", "rw", "/ds/i/snapshots/s1/memory", "/memory"] in [shown[n : n + 4] for n in range(0, len(shown), 4)]


def stat(pid: int, begun: int, state: str = "S", name: str = "fire) cracker") -> str:
    """Return a line of /proc/PID/stat: 150 + 50 ticks used, 2560 pages."""
    fields = [state, *["0"] * 10, "150", "50", *["0"] * 6, str(begun), "0", "2560", *["0"] * 20]
    return f"{pid} ({name}) {' '.join(fields)}"


def look(processes: str = "", **files: str) -> Vm:
    """Return what is seen of a microVM with these files."""
    text = f"==> ./rf-1/definition.json <==\n{config.dumps(config.definition(SPEC))}\n\n"
    text += "".join(f"==> ./rf-1/{name.replace('_', '.')} <==\n{content}\n\n" for name, content in files.items())
    return parse(f"{text}==> units <==\n100\n4096\n==> processes <==\n{processes}\n")["rf-1"]


@pytest.mark.parametrize(
    ("files", "processes", "power"),
    [
        ({}, "", PowerState.STOPPED),
        ({"pid": "10 500 11 501"}, f"{stat(10, 500)}\n{stat(11, 501)}", PowerState.RUNNING),
        ({"pid": "10 500 11 501"}, stat(11, 501), PowerState.RUNNING),  # its supervisor was killed
        ({"pid": "10 500 11 501"}, stat(10, 500), PowerState.RUNNING),  # its supervisor is still clearing up
        ({"pid": "10 500 11 501"}, stat(11, 777), PowerState.CRASHED),  # somebody else's process by now
        ({"pid": "10 500 11 501"}, stat(11, 501, "Z"), PowerState.CRASHED),
        ({"pid": "10 500 11 501", "ended": "0"}, "", PowerState.STOPPED),
        ({"pid": "10 500 11 501", "ended": "1"}, "", PowerState.CRASHED),
        ({"pid": "10 500 11 501", "ended": "137", "cut": ""}, "", PowerState.STOPPED),
        ({"pid": "10 500 11 501", "cut": ""}, "", PowerState.STOPPED),
    ],
)
def test_power_is_told_by_files_and_processes(files: dict[str, str], processes: str, power: PowerState) -> None:
    found = look(processes, **files)
    assert found.power is power
    assert bool(found.reason) is (power is PowerState.CRASHED)
    assert found.observed(found.power).instance_id == ID


def test_figures_of_what_runs() -> None:
    found = look(stat(11, 501), pid="10 500 11 501", running_json='{"memory_mib":128,"instance_id":"x"}')
    assert (found.cpu_seconds, found.memory_used_mib) == (2.0, 10)
    assert found.observed(PowerState.RUNNING).memory_mib == 128, "what it was started with, not what is defined now"


def test_what_somebody_else_put_there_is_not_ours() -> None:
    text = "==> ./other/definition.json <==\nno json\n\n==> units <==\n100\n4096\n==> processes <==\n"
    assert parse(text)["other"].observed(PowerState.STOPPED).instance_id is None
