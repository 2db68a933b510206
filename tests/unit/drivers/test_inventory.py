"""Golden inventories: what each source said of real machines, and what is made of it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from core.errors import HostFault
from drivers.baremetal import ipa, ssh
from drivers.baremetal.inventory import Cpu, Inventory, Neighbour, Nic, NumaNode, PciDevice

GOLDEN = Path(__file__).parent / "golden" / "inventory"
CASES = sorted(path.name.removesuffix(".in.json") for path in GOLDEN.glob("ipa-*.in.json"))


@pytest.mark.parametrize("name", CASES)
def test_golden_of_the_ramdisk(name: str) -> None:
    file = GOLDEN / f"{name}.json"
    found = json.loads(json.dumps(asdict(ipa.parse(json.loads((GOLDEN / f"{name}.in.json").read_text())))))
    if os.environ.get("RACKFLOW_GOLDEN") == "write":
        file.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(file.read_text())


def test_there_are_cases() -> None:
    assert CASES == ["ipa-agent", "ipa-busybox"]


def test_the_switch_at_the_other_end() -> None:
    tlvs = [[1, "0452540000aa01"], [2, "05" + b"Eth1/7".hex()], [5, b"leaf-3".hex()], [0, ""]]
    assert ipa.neighbour(tlvs) == Neighbour("52:54:00:00:aa:01", "Eth1/7", "leaf-3")
    assert ipa.neighbour([[1, "07" + b"rack-1".hex()], [2, "0352540000aa02"]]) == Neighbour(
        "rack-1", "52:54:00:00:aa:02", ""
    )
    assert ipa.neighbour([]) is None


def test_numa() -> None:
    data = json.loads((GOLDEN / "ipa-busybox.in.json").read_text())
    data["numa_topology"] = {
        "ram": [{"numa_node": 0, "size_kb": 2097152}, {"numa_node": 1, "size_kb": 1048576}],
        "cpus": [
            {"cpu": 0, "numa_node": 0, "thread_siblings": [4, 0]},
            {"cpu": 1, "numa_node": 1, "thread_siblings": [1, 5]},
        ],
    }  # fmt: skip
    assert ipa.parse(data).numa == (NumaNode(0, 2048, (0, 4)), NumaNode(1, 1024, (1, 5)))


def test_gpus_are_told_by_their_class() -> None:
    disk, gpu = PciDevice("0000:00:01.0", "8086", "7010", "010180"), PciDevice("0000:01:00.0", "10de", "20b0", "030200")
    assert Inventory(pci=(disk, gpu)).gpus == (gpu,)


@pytest.mark.parametrize("data", [{}, {"inventory": None}, {"inventory": {"cpu": {}}}])
def test_something_that_is_no_inventory(data: dict[str, object]) -> None:
    with pytest.raises(HostFault) as caught:
        ipa.parse(data, "host/h1")
    assert (caught.value.subject, caught.value.evidence["keys"]) == ("host/h1", sorted(data))


SHELL = """==> hostname
rack1-7
==> cpu
{"lscpu": [{"field": "Architecture:", "data": "x86_64", "children": [{"field": "CPU op-mode(s):", "data": "64-bit"}]},
 {"field": "CPU(s):", "data": "8"}, {"field": "Vendor ID:", "data": "GenuineIntel", "children": [
 {"field": "Model name:", "data": "Xeon", "children": [{"field": "Socket(s):", "data": "2"},
 {"field": "Core(s) per socket:", "data": "2"}, {"field": "Flags:", "data": "fpu vmx"}]}]}]}
==> memory
MemTotal:       16384000 kB
==> disks
{"blockdevices": [{"name": "nvme0n1", "type": "disk", "size": 1000, "model": "M1 ", "vendor": null, "serial": "S1",
 "wwn": null, "rota": false}, {"name": "sr0", "type": "rom", "size": 10}]}
==> nics
[{"ifname": "eno1", "address": "52:54:00:00:00:01", "addr_info": [{"local": "192.0.2.7"}]},
 {"ifname": "br0", "address": "52:54:00:00:00:02"}]
==> links
/sys/class/net/eno1/speed:25000
/sys/class/net/br0/speed:-1
/sys/class/net/eno1/carrier:1
==> real
/sys/class/net/eno1/device
==> numa
/sys/devices/system/node/node0/meminfo:Node 0 MemTotal:        8192000 kB
/sys/devices/system/node/node0/cpulist:0-1,4-5
==> pci
/sys/bus/pci/devices/0000:01:00.0/vendor:0x10de
/sys/bus/pci/devices/0000:01:00.0/device:0x20b0
/sys/bus/pci/devices/0000:01:00.0/class:0x030200
==> dmi
/sys/class/dmi/id/sys_vendor:ACME
/sys/class/dmi/id/product_serial:X1: left
==> efi
/sys/firmware/efi
"""


def test_a_shell_on_the_machine() -> None:
    found = ssh.parse(SHELL)
    assert found.cpu == Cpu("Xeon", "x86_64", 8, 2, 4, None, ("fpu", "vmx"))
    assert (found.memory_mib, found.numa) == (16000, (NumaNode(0, 8000, (0, 1, 4, 5)),))
    assert [(disk.name, disk.model, disk.rotational) for disk in found.disks] == [("/dev/nvme0n1", "M1", False)]
    assert found.nics == (Nic("eno1", "52:54:00:00:00:01", 25000, True, "192.0.2.7"),)
    assert found.gpus == (PciDevice("0000:01:00.0", "10de", "20b0", "030200"),)
    assert (found.manufacturer, found.serial, found.firmware.boot_mode) == ("ACME", "X1: left", "uefi")


def test_the_script_on_this_machine() -> None:
    said = subprocess.run(["sh", "-c", ssh._SCRIPT], capture_output=True, text=True, check=False).stdout
    found = ssh.parse(said)
    assert found.cpu.count >= 1
    assert found.memory_mib > 100
