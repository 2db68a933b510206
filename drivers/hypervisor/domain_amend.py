"""Domain XML of libvirt's, changed in few places: for another host, or for a domain that was adopted. Pure."""

from __future__ import annotations

from lxml import etree

from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.domain import (
    CPU_PERIOD_US,
    NAMESPACE,
    ceilings,
    digest,
    disk_element,
    nic_element,
    quota_us,
    vcpus_of,
)
from drivers.hypervisor.domain_changes import free_targets
from drivers.hypervisor.domain_seen import managed, source_of


def moved(xml: str, spec: InstanceSpec) -> str:
    """Return the XML with its disks and bridges where spec has them; all that the guest sees stays."""
    root = etree.fromstring(xml)
    _disks(root, spec)
    _nics(root, spec)
    return etree.tostring(root, encoding="unicode")


def like(xml: str, defined: str) -> str:
    """Return the XML with its disks and bridges where another XML of the same domain has them."""
    root, other = etree.fromstring(xml), etree.fromstring(defined)
    there = {_dev(disk): disk for disk in other.iterfind("devices/disk")}
    for disk in root.iterfind("devices/disk"):
        if _dev(disk) in there:
            _set_source(disk, source_of(there[_dev(disk)]))
    bridges = {_mac(nic): nic.find("source") for nic in other.iterfind("devices/interface")}
    for nic in root.iterfind("devices/interface"):
        source, wanted = nic.find("source"), bridges.get(_mac(nic))
        if source is not None and wanted is not None and wanted.get("bridge"):
            source.set("bridge", str(wanted.get("bridge")))
    return etree.tostring(root, encoding="unicode")


def amended(xml: str, spec: InstanceSpec, domain_type: str) -> str:
    """Return the definition of an adopted domain as spec wants it; what spec says nothing of stays."""
    root = etree.fromstring(xml)
    _resources(root, spec)
    taken = _disks(root, spec)
    wanted_macs = _nics(root, spec)
    devices = root.find("devices")
    assert devices is not None
    for disk in [disk for disk in root.iterfind("devices/disk") if managed(disk) and disk not in taken.values()]:
        devices.remove(disk)
    for nic in [nic for nic in root.iterfind("devices/interface") if _mac(nic) not in wanted_macs]:
        devices.remove(nic)
    free = free_targets(frozenset(_dev(disk) for disk in root.iterfind("devices/disk")))
    for one in spec.disks:
        if one.name not in taken:
            devices.append(disk_element(one, next(free)))
    there = {_mac(nic) for nic in root.iterfind("devices/interface")}
    for card in spec.nics:
        if card.mac.lower() not in there:
            devices.append(nic_element(card))
    _mark(root, spec.id, digest(spec, domain_type))
    return etree.tostring(root, encoding="unicode")


def _mark(root: etree._Element, instance_id: str, digest: str) -> None:
    metadata = root.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(root, "metadata")
    for old in metadata.findall(f"{{{NAMESPACE}}}instance"):
        metadata.remove(old)
    ours = etree.SubElement(metadata, f"{{{NAMESPACE}}}instance", nsmap={"rackflow": NAMESPACE})
    ours.set("id", instance_id)
    ours.set("digest", digest)


def _resources(root: etree._Element, spec: InstanceSpec) -> None:
    vcpus, (vcpus_max, memory_max_mib) = vcpus_of(spec), ceilings(spec)
    for tag, mib in (("memory", memory_max_mib), ("currentMemory", spec.memory_mib)):
        element = root.find(tag)
        if element is None:
            element = etree.SubElement(root, tag)
        element.set("unit", "MiB")
        element.text = str(mib)
    vcpu = root.find("vcpu")
    if vcpu is None:
        vcpu = etree.SubElement(root, "vcpu")
    vcpu.text = str(vcpus_max)
    vcpu.attrib.pop("current", "")
    if vcpus < vcpus_max:
        vcpu.set("current", str(vcpus))
    tune = root.find("cputune")
    if tune is None:
        tune = etree.SubElement(root, "cputune")
    for tag in ("period", "quota"):
        for old in tune.findall(tag):
            tune.remove(old)
    if quota := quota_us(spec):
        etree.SubElement(tune, "period").text = str(CPU_PERIOD_US)
        etree.SubElement(tune, "quota").text = str(quota)


def _disks(root: etree._Element, spec: InstanceSpec) -> dict[str, etree._Element]:
    """Point disks at their files; return the elements of those that are there, by name."""
    elements, found = [disk for disk in root.iterfind("devices/disk") if managed(disk)], {}
    for one in spec.disks:
        by_name = [disk for disk in elements if disk.findtext("serial") == one.name]
        by_source = [disk for disk in elements if source_of(disk) == one.source]
        for disk in (by_name or by_source)[:1]:
            found[one.name] = disk
            _set_source(disk, one.source)
            driver = disk.find("driver")
            if driver is not None:
                driver.set("type", one.format)
    return found


def _set_source(disk: etree._Element, file: str) -> None:
    source = disk.find("source")
    if source is not None and disk.get("type") == "file":
        source.set("file", file)
        for chain in disk.findall("backingStore"):  # of that host; here it is found out again
            disk.remove(chain)


def _nics(root: etree._Element, spec: InstanceSpec) -> set[str]:
    """Point NICs at their bridges; return the MACs that spec has."""
    wanted = {nic.mac.lower(): nic for nic in spec.nics}
    for nic in root.iterfind("devices/interface"):
        one, source = wanted.get(_mac(nic)), nic.find("source")
        if one is not None and source is not None and nic.get("type") == "bridge":
            source.set("bridge", one.bridge)
    return set(wanted)


def _dev(disk: etree._Element) -> str:
    target = disk.find("target")
    return str(target.get("dev")) if target is not None else ""


def _mac(nic: etree._Element) -> str:
    mac = nic.find("mac")
    return str(mac.get("address")).lower() if mac is not None else ""
