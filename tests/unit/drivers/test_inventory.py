"""Golden inventories: what each source said of real machines, and what is made of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from core.errors import HostFault
from drivers.baremetal import ipa
from drivers.baremetal.inventory import Inventory, Neighbour, NumaNode, PciDevice

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
