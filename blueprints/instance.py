"""What is asked for when an instance is asked for."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from blueprints.common import Labels, Name, SizeMib, Spec
from core.states import InstanceKind

PAGES_KIB = {"2MiB": 2048, "1GiB": 1048576}
Device = Annotated[str, Field(pattern=r"^(gpu|nic|storage|accelerator|[0-9a-f]{4}:[0-9a-f]{4})$")]
PRIORITY = 50  # of who asks for none; more is an administrator's to give


class DiskSpec(Spec):
    """A further disk; the root disk comes from the image."""

    name: Name
    size_mib: SizeMib = Field(alias="size")
    datastore: Name | None = None


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError(f"must be an IPv4 address such as 10.1.0.5, found {text!r}") from None


class NicSpec(Spec):
    """A NIC in a network; address: a fixed one out of the network's ranges."""

    network: Name
    address: Annotated[str, AfterValidator(_address)] | None = None
    index: Annotated[int, Field(ge=0, lt=64)] | None = Field(
        default=None, description="number of the NIC (0 is eth0); by default its place in the list"
    )


Capability = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Requirements(Spec):
    """Where the instance may run."""

    cluster: Name | None = None
    host: Name | None = None
    datastore: Name | None = None
    host_labels: Labels = Field(default_factory=dict)
    architecture: Annotated[str, Field(max_length=32)] | None = Field(default=None, description="as uname -m says it")
    reservation: Name | None = Field(default=None, description="room that is kept, which it may take")
    capabilities: tuple[Capability, ...] = Field(
        default=(), description="what the host's driver must be able to do, such as migrate_live"
    )
    where: Annotated[str, Field(max_length=1024)] = Field(
        default="", description='what must hold of the host, such as: cpus >= 16 and label.rack in ["r1", "r2"]'
    )
    rank: Annotated[str, Field(max_length=1024)] = Field(
        default="", description="a number; hosts where it is higher come first, such as: cpu_free"
    )


class Affinity(Spec):
    """Instances, by their labels, that an instance is to be near to, or apart from."""

    labels: Labels = Field(min_length=1)
    domain: Annotated[str, Field(min_length=1, max_length=63)] = Field(
        default="host", description="host, or a label of hosts, such as rack: all with the same value are one domain"
    )
    hard: bool = Field(default=True, description="never broken; false: a wish")
    weight: Annotated[float, Field(gt=0, le=100)] = Field(default=1.0, description="of a wish beside others")


class InstanceSpec(Spec):
    """A VM or container. cpu in cores, sizes in MiB or as text ("512MiB")."""

    name: Name
    kind: InstanceKind | None = Field(
        default=None, description="vm or container; by default what the image is"
    )
    image: Name
    cpu: Annotated[float, Field(gt=0, le=1024)] = 1.0
    memory_mib: SizeMib = Field(default=512, alias="memory")
    disk_mib: SizeMib | None = Field(
        default=None, alias="disk", description="root disk; by default as the image"
    )
    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = Field(
        default=(), description="by default one in the default network of the kind"
    )
    user_data: str = Field(default="", description="cloud-init user data")
    ssh_keys: tuple[str, ...] = ()
    labels: Labels = Field(default_factory=dict)
    requirements: Requirements = Requirements()
    affinity: tuple[Affinity, ...] = Field(default=(), description="instances that it is to be near to")
    anti_affinity: tuple[Affinity, ...] = Field(default=(), description="instances that it is to be apart from")
    pci: dict[Device, Annotated[int, Field(ge=1, le=16)]] = Field(
        default_factory=dict, description="devices of its host for itself: class or vendor:device, and how many"
    )
    cpu_pinning: bool = Field(default=False, description="whole cores of its host for itself")
    numa: Literal["single"] | None = Field(default=None, description="single: cores and memory out of one NUMA cell")
    hugepages: Literal["2MiB", "1GiB"] | None = Field(default=None, description="its memory out of pages of this size")
    priority: Annotated[int, Field(ge=0, le=100)] = Field(
        default=PRIORITY, description="higher ones are placed first when there is not room for all"
    )
    gang: bool | Name = Field(
        default=False,
        description="all of a request that name the same gang are placed, or none; true: all copies of a count",
    )
    count: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="makes NAME-1 .. NAME-count"
    )

    @model_validator(mode="after")
    def _whole(self) -> InstanceSpec:
        if self.cpu_pinning and self.cpu != int(self.cpu):
            raise ValueError("cpu_pinning needs whole cores")
        if self.memory_mib % (self.hugepage_kib // 1024 or 1):
            raise ValueError(f"memory must be a multiple of its pages of {self.hugepages}")
        return self

    @property
    def hugepage_kib(self) -> int:
        """Return the size of the pages that its memory is made of; 0 = whatever its host uses."""
        return PAGES_KIB.get(self.hugepages or "", 0)

    @model_validator(mode="after")
    def _disk_names(self) -> InstanceSpec:
        names = [disk.name for disk in self.disks]
        if len(set(names)) != len(names) or "root" in names or "seed" in names:
            raise ValueError("disks need unique names other than root and seed")
        return self

    @model_validator(mode="after")
    def _nic_numbers(self) -> InstanceSpec:
        numbers = self.nic_numbers()
        if len(set(numbers)) != len(numbers):
            raise ValueError("two NICs have the same index")
        return self

    def nic_numbers(self) -> list[int]:
        """Return the number of each NIC: 0 is eth0."""
        return [place if nic.index is None else nic.index for place, nic in enumerate(self.nics)]

    @model_validator(mode="after")
    def _last_name(self) -> InstanceSpec:
        if len(f"{self.name}-{self.count}") > 63 and self.count:
            raise ValueError(f"{self.name}-{self.count} is longer than the 63 characters of a name")
        return self

    def expand(self) -> list[InstanceSpec]:
        """Return one spec per instance: NAME-1 .. NAME-count, or itself."""
        gang = self.name if self.gang is True else self.gang
        if self.count is None:
            return [self if gang == self.gang else self.model_copy(update={"gang": gang})]
        return [
            self.model_copy(update={"name": f"{self.name}-{i}", "count": None, "gang": gang})
            for i in range(1, self.count + 1)
        ]
