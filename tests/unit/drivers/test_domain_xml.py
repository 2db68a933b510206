"""Golden domain XML. To write the files anew: RACKFLOW_GOLDEN=write pytest tests/unit/drivers/test_domain_xml.py"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from core.states import InstanceKind
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.hypervisor.domain import NAMESPACE, domain_uuid, domain_xml

GOLDEN = Path(__file__).parent / "golden" / "domain"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")  # of libvirt itself

ID = "06h0fb767w34khybzh0h"
ROOT = DiskAttachment("root", "file", f"/store/instances/{ID}/root.qcow2", "qcow2", 1024)
DATA = DiskAttachment("data1", "file", f"/store/instances/{ID}/data1.raw", "raw", 512)
SEED = DiskAttachment("seed", "file", f"/store/instances/{ID}/seed.iso", "raw", read_only=True)
NICS = (NicAttachment("eth0", "52:54:00:00:00:01", "br0"), NicAttachment("eth1", "52:54:00:00:00:02", "br1", "e1000e"))
SMALL = InstanceSpec(ID, f"rf-{ID}", "web-1", InstanceKind.VM, 1, 128, (ROOT, SEED), NICS[:1])
LARGE = replace(SMALL, cpu=4, memory_mib=8192, disks=(ROOT, DATA, SEED), nics=NICS)
CASES = {
    "small-emulated": (SMALL, "qemu"),
    "small-kvm": (SMALL, "kvm"),
    "large-kvm-two-disks-two-nics": (LARGE, "kvm"),
    "large-emulated": (LARGE, "qemu"),
    "a-quarter-of-a-core": (replace(SMALL, cpu=0.25), "kvm"),
    "one-and-a-half-cores": (replace(SMALL, cpu=1.5), "kvm"),
    "uefi": (replace(SMALL, firmware="uefi"), "kvm"),
    "whole-cores-of-one-cell-in-huge-pages-with-devices": (
        replace(LARGE, cpu=2, pinned=(6, 7), cell=1, page_kib=2048, pci=("0000:01:00.0", "0000:c1:1f.7")), "kvm"
    ),
    "off-the-cores-of-others": (replace(SMALL, cpu=1.5, may_use=(0, 1, 2, 3, 8)), "kvm"),
    "no-nic": (replace(SMALL, nics=()), "qemu"),
    "name-that-needs-escapes": (replace(SMALL, display_name="<a & 'b'>"), "qemu"),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    file, made = GOLDEN / f"{name}.xml", domain_xml(*CASES[name])
    if os.environ.get("RACKFLOW_GOLDEN") == "write":
        file.write_text(made)
    assert made == file.read_text()


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schemas are not installed")
@pytest.mark.parametrize("name", CASES)
def test_libvirts_own_schema_accepts_it(name: str) -> None:
    schema = etree.RelaxNG(etree.parse(str(SCHEMA)))
    assert schema.validate(etree.fromstring(domain_xml(*CASES[name]))), schema.error_log


def digest(spec: InstanceSpec, domain_type: str = "kvm") -> str:
    element = etree.fromstring(domain_xml(spec, domain_type)).find(f"metadata/{{{NAMESPACE}}}instance")
    assert element is not None
    return str(element.get("digest"))


def test_the_digest_tells_definitions_apart() -> None:
    variants = [SMALL, LARGE, replace(SMALL, memory_mib=129), replace(SMALL, cpu=0.5), replace(SMALL, nics=NICS)]
    assert len({digest(spec) for spec in variants} | {digest(SMALL, "qemu")}) == len(variants) + 1
    assert digest(SMALL) == digest(replace(SMALL, ssh_keys=("ssh-ed25519 AAAA",)))  # that is the seed's affair


def test_many_disks_keep_their_names() -> None:
    data = tuple(replace(DATA, name=f"d{n}") for n in range(30))
    xml = etree.fromstring(domain_xml(replace(SMALL, disks=(ROOT, *data, SEED)), "kvm"))
    targets = [target.get("dev") for target in xml.findall("devices/disk/target")]
    assert targets[:3] == ["vda", "vdb", "vdc"]
    assert targets[-1] == "vdz"
    assert len(set(targets)) == len(targets)


def test_a_domain_is_known_by_its_uuid() -> None:
    assert domain_uuid(ID) == domain_uuid(ID) != domain_uuid(ID[::-1])
