"""What is done to a running domain, from libvirt's own XML of one (golden/domain_live/running.xml, virsh dumpxml).

To write the files anew: RACKFLOW_GOLDEN=write pytest tests/unit/drivers/test_domain_changes.py
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from lxml import etree

from core.errors import Invalid, Unsupported
from core.states import InstanceKind, PowerState
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.hypervisor.domain import NAMESPACE, digest, domain_xml
from drivers.hypervisor.domain_adopt import found
from drivers.hypervisor.domain_amend import amended, like, moved
from drivers.hypervisor.domain_changes import Changes, changes
from drivers.hypervisor.domain_copies import backup_xml, checkpoint_xml, snapshot_xml, writable
from drivers.hypervisor.domain_migrate import parameters
from drivers.hypervisor.domain_seen import places, read
from drivers.hypervisor.powers import Move

GOLDEN = Path(__file__).parent / "golden" / "domain_live"
RUNNING = (GOLDEN / "running.xml").read_text()
LIVE = read(RUNNING)
MIB = 2**20
SIZES = {"vda": 67 * MIB, "vdb": 32 * MIB, "vdz": MIB}

ID = "06h0fb767w34khybzh0h"
FOLDER = f"/store/instances/{ID}"
ROOT = DiskAttachment("root", "file", f"{FOLDER}/root.qcow2", "qcow2", 67)
DATA = DiskAttachment("data1", "file", f"{FOLDER}/data1.qcow2", "qcow2", 32)
MORE = DiskAttachment("data2", "file", f"{FOLDER}/data2.qcow2", "qcow2", 16)
SEED = DiskAttachment("seed", "file", f"{FOLDER}/seed.iso", "raw", read_only=True)
ETH0 = NicAttachment("eth0", "52:54:00:00:00:01", "br0")
ETH1 = NicAttachment("eth1", "52:54:00:00:00:02", "br1")
SPEC = InstanceSpec(
    ID, f"rf-{ID}", "web-1", InstanceKind.VM, 1, 128, (ROOT, DATA, SEED), (ETH0,),
    options=(("cpu_max", "2"), ("memory_max_mib", "192")),
)  # fmt: skip
CASES = {
    "a-disk-more": replace(SPEC, disks=(ROOT, MORE, DATA, SEED)),
    "a-disk-less": replace(SPEC, disks=(ROOT, SEED)),
    "one-disk-for-another": replace(SPEC, disks=(ROOT, MORE, SEED)),
    "a-grown-disk": replace(SPEC, disks=(ROOT, replace(DATA, size_mib=64), SEED)),
    "another-nic": replace(SPEC, nics=(ETH1,)),
    "another-bridge": replace(SPEC, nics=(replace(ETH0, bridge="br7"),)),
    "more-cpu-and-memory": replace(SPEC, cpu=2, memory_mib=192),
    "half-a-core-and-less-memory": replace(SPEC, cpu=0.5, memory_mib=96),
}


def golden(name: str, made: str) -> None:
    file = GOLDEN / name
    if os.environ.get("RACKFLOW_GOLDEN") == "write":
        file.write_text(made)
    assert made == file.read_text()


def pretty(xml: str) -> str:
    root = etree.fromstring(xml, etree.XMLParser(remove_blank_text=True))
    return etree.tostring(root, pretty_print=True, encoding="unicode")


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    golden(f"{name}.json", json.dumps(asdict(changes(LIVE, SIZES, CASES[name])), indent=2) + "\n")


def test_nothing_to_do() -> None:
    assert changes(LIVE, SIZES, SPEC) == Changes()
    assert not changes(LIVE, SIZES, SPEC)
    odd = {**SIZES, "vda": 67 * MIB - 512}  # its image is not of whole MiB
    assert changes(LIVE, odd, SPEC) == Changes()
    assert changes(LIVE, {**SIZES, "vdb": 99 * MIB}, SPEC) == Changes(), "a larger disk stays as it is"


def test_a_target_that_only_the_definition_has_is_not_taken() -> None:
    (xml,) = changes(LIVE, SIZES, CASES["a-disk-more"], frozenset({"vdc"})).attach
    assert 'dev="vdd"' in xml


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(SPEC, cpu=3), "3 vCPUs, it was started for at most 2"),
        (replace(SPEC, memory_mib=256), "256 MiB, it was started for at most 192"),
        (replace(SPEC, disks=(replace(ROOT, format="raw"), DATA, SEED)), "disk root is to become"),
        (replace(SPEC, disks=(replace(ROOT, bus="sata"), DATA, SEED)), "disk root is to change its bus"),
        (replace(SPEC, nics=(replace(ETH0, model="e1000"),)), "NIC eth0 is to become an e1000"),
    ],
)
def test_what_needs_it_off(spec: InstanceSpec, words: str) -> None:
    with pytest.raises(Unsupported, match=words) as caught:
        changes(LIVE, SIZES, spec)
    assert caught.value.subject == f"instance/{ID}"


def test_fewer_cpus_need_it_off() -> None:
    with pytest.raises(Unsupported, match="1 vCPUs, fewer than its 2"):
        changes(replace(LIVE, vcpus=2), SIZES, SPEC)


def test_ceilings_that_are_no_numbers() -> None:
    with pytest.raises(Invalid, match="whole numbers"):
        changes(LIVE, SIZES, replace(SPEC, options=(("cpu_max", "many"),)))


def test_what_is_defined_again_stays_where_it_is() -> None:
    there = places(RUNNING, "pc")
    xml = domain_xml(CASES["one-disk-for-another"], "qemu", there)
    golden("defined-again.xml", xml)
    root = etree.fromstring(xml)
    last = domain_xml(replace(SPEC, disks=(ROOT, MORE, SEED)), "qemu", places(xml, "pc"))
    assert last == xml
    assert [one.get("dev") for one in root.iterfind("devices/disk/target")] == ["vda", "vdb", "vdz"]
    assert places(RUNNING, "q35").addresses == {}, "another kind of machine has other slots"
    mark = root.find(f"metadata/{{{NAMESPACE}}}instance")
    assert mark is not None
    assert mark.get("digest") == digest(CASES["one-disk-for-another"], "qemu")


def test_a_disk_keeps_its_letter_when_one_before_it_goes() -> None:
    both = replace(SPEC, disks=(ROOT, DATA, MORE, SEED))
    first = domain_xml(both, "qemu")
    then = read(domain_xml(replace(both, disks=(ROOT, MORE, SEED)), "qemu", places(first, "pc")))
    assert {disk.name: disk.target for disk in then.disks} == {"root": "vda", "data2": "vdc", "seed": "vdz"}
    back = read(domain_xml(replace(both, disks=(ROOT, replace(DATA, name="data3"), MORE, SEED)), "qemu",
                           places(domain_xml(replace(both, disks=(ROOT, MORE, SEED)), "qemu", places(first, "pc")),
                                  "pc")))  # fmt: skip
    assert {disk.name: disk.target for disk in back.disks}["data3"] == "vdb", "the free one"


ELSEWHERE = replace(
    SPEC, disks=tuple(replace(disk, source=disk.source.replace("/store", "/elsewhere")) for disk in SPEC.disks),
    nics=(replace(ETH0, bridge="br9"),),
)  # fmt: skip


def test_for_another_host() -> None:
    made = moved(RUNNING, ELSEWHERE)
    golden("moved.xml", pretty(made))
    assert like(RUNNING, made) == made
    seen = read(made)
    assert {disk.source for disk in seen.disks} == {disk.source for disk in ELSEWHERE.disks}
    assert replace(seen, disks=LIVE.disks, nics=LIVE.nics) == LIVE


def test_the_definition_of_an_adopted_one() -> None:
    nameless = RUNNING.replace("<serial>root</serial>", "").replace("<serial>data1</serial>", "")
    spec = replace(CASES["one-disk-for-another"], cpu=1.5, memory_mib=160, nics=(ETH0, ETH1))
    made = amended(nameless, spec, "qemu")
    golden("adopted.xml", pretty(made))
    assert amended(made, spec, "qemu") == made


def test_copies() -> None:
    chosen = writable(LIVE)
    files = {"vda": "/scratch/root.qcow2", "vdb": "/scratch/data1.qcow2"}
    for name, xml in {
        "snapshot.xml": snapshot_xml(LIVE, "s1", memory=False),
        "snapshot-memory.xml": snapshot_xml(LIVE, "s1", memory=True),
        "checkpoint.xml": checkpoint_xml(LIVE, "c2", chosen),
        "checkpoint-root.xml": checkpoint_xml(LIVE, "c2", chosen[:1]),
        "backup-whole.xml": backup_xml(LIVE, files, {}),
        "backup-since.xml": backup_xml(LIVE, files, {"vda": "c1"}),
    }.items():
        golden(name, pretty(xml))
    raw = [replace(disk, format="raw") for disk in chosen]
    assert checkpoint_xml(LIVE, "c1", raw) == "", "raw disks have no bitmap"


def test_parameters_of_a_migration() -> None:
    move = Move(ELSEWHERE, "fe80::1", ("root", "data1"), 7)
    assert parameters(LIVE, move, "<live/>", "<kept/>") == {
        "destination_xml": "<live/>", "persistent_xml": "<kept/>", "migrate_uri": "tcp://[fe80::1]", "bandwidth": 7,
        "migrate_disks": ["vda", "vdb"],
    }  # fmt: skip
    assert "migrate_disks" not in parameters(LIVE, Move(SPEC, "192.0.2.1"), "", "")
    with pytest.raises(Unsupported, match="no disk data7 to copy"):
        parameters(LIVE, replace(move, copy_disks=("data7",)), "", "")


def test_a_foreign_domain() -> None:
    seen = found(LIVE, PowerState.RUNNING, SIZES)
    assert [(disk.name, disk.size_mib) for disk in seen.disks] == [("root", 67), ("data1", 32)]
    assert seen.nics == (ETH0,)
    assert seen.problems == ("disk vdz is read-only: detach it",)
    odd = replace(
        LIVE, others=("hostdev",), nics=(replace(LIVE.nics[0], kind="network"),),
        disks=(replace(LIVE.disks[0], kind="block", source="/dev/x"), replace(LIVE.disks[1], device="cdrom")),
    )  # fmt: skip
    assert found(odd, PowerState.STOPPED, {}, ("before",)).problems == (
        "before", "disk vda is not a file but block /dev/x", f"{DATA.source} is in drive vdb: eject it",
        "NIC 52:54:00:00:00:01 is not on a bridge but on a network",
        "it has a hostdev device, which ties it to its host",
    )  # fmt: skip


def test_what_is_read() -> None:
    assert (LIVE.pty, LIVE.vnc_port, LIVE.agent, LIVE.vcpus, LIVE.vcpus_max) == ("/dev/pts/0", 5900, True, 1, 2)
    assert (LIVE.memory_kib, LIVE.memory_max_kib) == (128 * 1024, 192 * 1024)
