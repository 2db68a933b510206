"""Rules over inventories, and what differs between two of them."""

from __future__ import annotations

from typing import Any

import pytest

from blueprints.machine import CheckSpec, ClassifySpec, MachineRulesSpec
from control.inventories import changes, losses
from control.machine_rules import Subject, check, classify, holds, understand
from core.errors import Invalid

DISK = {"name": "/dev/sda", "size_bytes": 480 * 2**30, "rotational": False, "serial": "S1", "wwn": "", "model": "m"}
NIC = {"name": "eth0", "mac": "52:54:00:00:00:01", "speed_mbps": 25000, "carrier": True}
BOX: dict[str, Any] = {
    "cpu": {"model": "Xeon", "architecture": "x86_64", "count": 32, "sockets": 2, "cores": 16, "flags": ["vmx"]},
    "memory_mib": 65536, "disks": [DISK], "nics": [NIC], "pci": [], "manufacturer": "Dell Inc.", "serial": "A1",
}  # fmt: skip


def box(**changed: Any) -> Subject:
    return Subject("m1", {"rack": "r7"}, {**BOX, **changed})


@pytest.mark.parametrize(("text", "expected"), [
    ('cpus >= 32 and virtualises and vendor like "Dell*"', True), ("smallest_disk_gib >= 481", False),
    ('label.rack in ["r6", "r7"] and ssds == disks', True), ('label.row == "a"', False), ("nics_up == 1", True),
    ('boot_mode == "uefi"', False), ("fastest_mbps / 1000 == 25", True), ("losses == 0", True),
])  # fmt: skip
def test_conditions(text: str, expected: bool) -> None:
    assert holds(text, box()) is expected


def test_what_was_not_told_fulfils_nothing() -> None:
    bare = box(disks=[], nics=[], cpu={})
    for text in ("cpus >= 0", "cpus < 1000", "smallest_disk_gib >= 0", "fastest_mbps < 1", "virtualises"):
        assert not holds(text, bare), text


def test_the_first_rule_that_gives_a_field_decides_and_traits_add_up() -> None:
    rules = (
        ClassifySpec(name="big", when="memory_mib >= 1000000", role="kvm", rack="r1"),
        ClassifySpec(name="virt", when="virtualises", role="kvm", traits=("vt",)),
        ClassifySpec(name="any", when="cpus > 0", role="lxd", cluster="east", traits=("fast",)),
    )
    assert classify(rules, box()) == {
        "role": "kvm", "cluster": "east", "rack": None, "failure_domain": None, "traits": ["fast", "vt"],
        "rules": ["virt", "any"],
    }  # fmt: skip


def test_checks_tell_their_figures() -> None:
    rules = (
        CheckSpec(name="memory", require="memory_mib >= 131072", figure="memory_mib / 1024"),
        CheckSpec(name="vt", require="virtualises"), CheckSpec(name="gpu", when="gpus > 0", require="gpus == 8"),
    )  # fmt: skip
    found = [(one["name"], one["passed"], one["figure"]) for one in check(rules, box())]
    assert found == [("memory", False, 64.0), ("vt", True, None)]


def test_a_wrong_expression_is_refused_with_its_column_and_what_there_is() -> None:
    with pytest.raises(Invalid, match=r"^classify x: when: .*column 1: there is no attribute 'cpu_free'.*virtualises"):
        understand(MachineRulesSpec(classify=(ClassifySpec(name="x", when="cpu_free > 1"),)))
    with pytest.raises(Invalid, match=r"^checks x: figure: .*must come to a number"):
        understand(MachineRulesSpec(checks=(CheckSpec(name="x", require="cpus > 1", figure="cpus > 1"),)))


def test_a_dead_dimm_and_another_disk_are_changes() -> None:
    other = {**DISK, "serial": "S2"}
    found = changes(BOX, {**BOX, "memory_mib": 49152, "disks": [other]})
    assert [(c["what"], c["kind"]) for c in found] == [
        ("memory_mib", "less"), ("disks/S1", "less"), ("disks/S2", "added")
    ]  # fmt: skip
    assert (found[0]["before"], found[0]["after"]) == (65536, 49152)
    assert [c["what"] for c in losses(found)] == ["memory_mib", "disks/S1"]


def test_a_pulled_cable_or_a_silent_source_is_no_change() -> None:
    unplugged = {**NIC, "carrier": False, "speed_mbps": None}
    assert changes(BOX, {**BOX, "nics": [unplugged], "serial": "", "cpu": {**BOX["cpu"], "cores": None}}) == []
