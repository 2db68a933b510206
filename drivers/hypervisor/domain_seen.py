"""What domain XML that libvirt gives says, as far as it is needed here. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from drivers.hypervisor.domain import AGENT, Places

_IN_KIB = {"KiB": 1, "MiB": 1024, "GiB": 1024**2, "b": 1 / 1024, "bytes": 1 / 1024}
_FIXED = ("cdrom", "floppy")  # drives of foreign domains: not ours to add or take away


@dataclass(frozen=True)
class DiskSeen:
    """A disk. name: its serial, under which we define it; "" in domains that are not ours."""

    name: str
    target: str
    kind: str  # file, block, network, …
    source: str
    format: str
    bus: str
    read_only: bool
    device: str  # disk, cdrom, …


@dataclass(frozen=True)
class NicSeen:
    mac: str
    kind: str  # bridge, network, …
    bridge: str
    model: str


@dataclass(frozen=True)
class DomainSeen:
    """A domain: as it runs, or as it is defined, whichever XML was read. Memory in KiB; quota 0: no limit."""

    name: str
    uuid: str
    machine: str
    vcpus: int
    vcpus_max: int
    period_us: int
    quota_us: int
    memory_kib: int
    memory_max_kib: int
    disks: tuple[DiskSeen, ...]
    nics: tuple[NicSeen, ...]
    pty: str  # of the first serial port, while it runs
    vnc_port: int  # 0: none
    agent: bool  # the guest agent listens
    others: tuple[str, ...]  # devices that tie it to its host: hostdev, filesystem, …

    def disk(self, name: str, source: str = "") -> DiskSeen | None:
        """Return the disk of that name, or (adopted domains have no names) of that source."""
        named = next((disk for disk in self.disks if disk.name == name), None)
        return named or next((disk for disk in self.disks if source and disk.source == source), None)


def read(xml: str) -> DomainSeen:
    """Read domain XML as `virDomainGetXMLDesc` gives it."""
    root = etree.fromstring(xml)
    vcpus_max = int(_text(root, "vcpu") or 1)
    current = root.find("vcpu")
    return DomainSeen(
        name=_text(root, "name"), uuid=_text(root, "uuid"), machine=_at(root, "os/type", "machine"),
        vcpus=int((current.get("current") if current is not None else None) or vcpus_max), vcpus_max=vcpus_max,
        period_us=int(_text(root, "cputune/period") or 0), quota_us=max(0, int(_text(root, "cputune/quota") or 0)),
        memory_kib=_kib(root, "currentMemory") or _kib(root, "memory"), memory_max_kib=_kib(root, "memory"),
        disks=tuple(_disks(root)), nics=tuple(map(_nic, root.iterfind("devices/interface"))),
        pty=_pty(root), vnc_port=max(0, int(_at(root, "devices/graphics[@type='vnc']", "port") or 0)),
        agent=_at(root, f"devices/channel/target[@name='{AGENT}']", "state") == "connected",
        others=tuple(
            tag for tag in ("hostdev", "filesystem", "memory", "redirdev", "shmem", "tpm")
            if root.find(f"devices/{tag}") is not None
        ),
    )  # fmt: skip


def places(xml: str, machine: str, *, uuid: str = "") -> Places:
    """Return where the devices of a domain sit; addresses only if it is to stay a machine of the same kind."""
    root, targets, addresses = etree.fromstring(xml), {}, {}
    same_bus = ("q35" in _at(root, "os/type", "machine")) == ("q35" in machine)
    for element in root.iterfind("devices/*"):
        name = _text(element, "serial") if element.tag == "disk" else _at(element, "mac", "address")
        if not name or element.tag not in ("disk", "interface"):
            continue
        if element.tag == "disk":
            targets[name] = _at(element, "target", "dev")
        address = element.find("address[@type='pci']")
        if address is not None and same_bus:
            addresses[name] = {str(key): str(value) for key, value in address.items()}
    return Places(targets, addresses, uuid)


def managed(element: etree._Element) -> bool:
    """Say whether a disk is one that may be added and taken away."""
    return element.get("device", "disk") not in _FIXED


def source_of(disk: etree._Element) -> str:
    """Return what a disk is made of: a file, a device, or a name in the network."""
    source = disk.find("source")
    if source is None:
        return ""
    return next((str(source.get(key)) for key in ("file", "dev", "name", "volume") if source.get(key)), "")


def _disks(root: etree._Element) -> Iterator[DiskSeen]:
    for disk in root.iterfind("devices/disk"):
        yield DiskSeen(
            name=_text(disk, "serial"), target=_at(disk, "target", "dev"), kind=disk.get("type", ""),
            source=source_of(disk), format=_at(disk, "driver", "type") or "raw", bus=_at(disk, "target", "bus"),
            read_only=disk.find("readonly") is not None, device=disk.get("device", "disk"),
        )  # fmt: skip


def _nic(nic: etree._Element) -> NicSeen:
    return NicSeen(
        mac=_at(nic, "mac", "address").lower(), kind=nic.get("type", ""), bridge=_at(nic, "source", "bridge"),
        model=_at(nic, "model", "type"),
    )


def _pty(root: etree._Element) -> str:
    return _at(root, "devices/serial[@type='pty']/source", "path")


def _text(root: etree._Element, path: str) -> str:
    return str(root.findtext(path) or "")


def _at(root: etree._Element, path: str, attribute: str) -> str:
    found = root.find(path)
    return str(found.get(attribute) or "") if found is not None else ""


def _kib(root: etree._Element, path: str) -> int:
    found = root.find(path)
    if found is None or not found.text:
        return 0
    return int(int(found.text) * _IN_KIB[str(found.get("unit") or "KiB")])
