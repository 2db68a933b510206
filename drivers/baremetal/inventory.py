"""What a machine is made of, whoever looked: the ramdisk, the BMC, or a shell on what runs there.

What a source does not tell is None, "" or empty; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_DISPLAY = "03"  # PCI base classes: display controllers, and processing accelerators
_ACCELERATOR = "12"


@dataclass(frozen=True)
class Cpu:
    """count: of threads that an operating system sees; cores: of all sockets."""

    model: str = ""
    architecture: str = ""
    count: int = 0
    sockets: int | None = None
    cores: int | None = None
    mhz: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def virtualises(self) -> bool:
        return bool({"vmx", "svm"} & set(self.flags))


@dataclass(frozen=True)
class NumaNode:
    """cpus: numbers of its threads."""

    number: int
    memory_mib: int
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Disk:
    name: str
    size_bytes: int
    rotational: bool | None = None
    model: str = ""
    vendor: str = ""
    serial: str = ""
    wwn: str = ""


@dataclass(frozen=True)
class Neighbour:
    """The switch at the other end of a cable, as it says itself by LLDP."""

    chassis: str = ""
    port: str = ""
    system: str = ""


@dataclass(frozen=True)
class Nic:
    """speed_mbps: of the link. carrier: a cable with something alive at its other end."""

    name: str
    mac: str
    speed_mbps: int | None = None
    carrier: bool | None = None
    address: str = ""
    vendor: str = ""
    product: str = ""
    neighbour: Neighbour | None = None


@dataclass(frozen=True)
class PciDevice:
    """vendor, product and kind (class, subclass, interface) as hexadecimal digits; address 0000:00:02.0."""

    address: str
    vendor: str
    product: str
    kind: str


@dataclass(frozen=True)
class Firmware:
    vendor: str = ""
    version: str = ""
    date: str = ""
    boot_mode: str = ""  # bios, uefi


@dataclass(frozen=True)
class Inventory:
    """One look at one machine. memory_mib: installed."""

    cpu: Cpu = field(default_factory=Cpu)
    memory_mib: int = 0
    numa: tuple[NumaNode, ...] = ()
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    pci: tuple[PciDevice, ...] = ()
    manufacturer: str = ""
    product: str = ""
    serial: str = ""
    firmware: Firmware = field(default_factory=Firmware)
    bmc_address: str = ""
    bmc_version: str = ""
    hostname: str = ""

    @property
    def gpus(self) -> tuple[PciDevice, ...]:
        """Return display controllers and accelerators; a server's own graphics chip is among them."""
        return tuple(one for one in self.pci if one.kind[:2] in (_DISPLAY, _ACCELERATOR))
